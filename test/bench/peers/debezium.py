"""
debezium

Debezium's connector for PostgreSQL, in its embedded engine, and a producer of
Kafka's own client behind it (debezium/Relay.java): once with logical messages,
which are in no table, and once with an outbox table and the outbox event router.

The jars are those of test/debezium, which fetches them.
"""
import glob
import os
import subprocess
import sys

from peer import POLL_SECONDS, PRODUCER, Peer, Processes, peer
from tables import VACUUM

HERE = os.path.dirname(os.path.abspath(__file__))
FETCHER = os.path.join(HERE, "..", "..", "debezium")
SLOT = "debezium"

ADDRESS = "127.0.0.1"   # the driver wants TCP

# As Kafka Connect and Debezium Server set a connector up that must not lose:
# without end to its patience.  A batch is flushed, so linger.ms adds no time.
PATIENCE = {"delivery.timeout.ms": 2 ** 31 - 1, "max.block.ms": 2 ** 63 - 1,
            "linger.ms": 5, "batch.size": 131072}

JAVA = ["java", "-Xms256m", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]


def jars():
    """The directory of Debezium's jars, or None.  (Its module `server` is not ours.)"""
    found = subprocess.run(
        [sys.executable, "-B", "-c", "import connector; print(connector.install())"],
        cwd=FETCHER, text=True, stdin=subprocess.DEVNULL, capture_output=True)
    if found.returncode != 0:
        return None
    return os.path.dirname(found.stdout.split(":")[-1].strip())


class Debezium(Peer):
    needs = ("debezium",)
    settings = {"wal_level": "logical", "listen_addresses": ADDRESS}
    choices = ("max.batch.size and max.queue.size as they come (2,048 and 8,192),"
               " poll.interval.ms %d instead of 500 (a batch waits for it), offsets in a file after"
               " every batch (offset.flush.interval.ms 0, as Debezium Server's example),"
               " heartbeat.interval.ms 1000; a batch is acknowledged before the next one is sent,"
               " as in Debezium Server; heap 2 GB" % (POLL_SECONDS * 1000))
    caveat = ("needs wal_level = logical, with which all of the cluster's updates and deletes log somewhat"
              " more, and a slot, which keeps WAL while the relay is away; the JVM takes seconds to start")
    tables = None
    options = {}

    def __init__(self):
        self.home = None

    def missing(self):
        self.home = self.home or jars()
        return None if self.home else "Debezium's jars could not be fetched"

    def version(self, lab):
        def jar(name):
            path = glob.glob(os.path.join(self.home, name + "-[0-9]*.jar"))[0]
            return os.path.basename(path)[len(name) + 1:-len(".jar")]
        java = subprocess.run(["java", "--version"], check=True, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
        return "Debezium %s, Kafka's client %s, %s" % (
            jar("debezium-embedded"), jar("kafka-clients"), " ".join(java.split()[:2]))

    @staticmethod
    def classes(lab):
        return os.path.join(lab.directory, "classes")

    def install(self, lab):
        self.compile(lab)
        self.tables(lab)
        # before there are events: with snapshot.mode=no_data the engine starts here
        lab.server.execute("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')" % SLOT)

    def engine(self, lab):
        return {
            "name": "relay",
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": os.path.join(lab.directory, "offsets"),
            "offset.flush.interval.ms": 0,
            "poll.interval.ms": int(POLL_SECONDS * 1000),
            "heartbeat.interval.ms": 1000,
            "topic.heartbeat.prefix": "heartbeat",
            "topic.prefix": "peer",
            "database.hostname": ADDRESS,
            "database.port": lab.server.environment["PGPORT"],
            "database.user": lab.server.environment["PGUSER"],
            "database.password": "none",
            "database.dbname": lab.server.environment["PGDATABASE"],
            "plugin.name": "pgoutput",
            "slot.name": SLOT,
            "publication.name": SLOT,
            "publication.autocreate.mode": "disabled",
            "snapshot.mode": "no_data",
            "tombstones.on.delete": "false",
            "extended.headers.enabled": "false",
            **self.options,
        }

    @staticmethod
    def write_properties(lab, name, properties):
        path = os.path.join(lab.directory, name + ".properties")
        with open(path, "w") as f:
            f.writelines("%s=%s\n" % item for item in properties.items())
        return path

    def compile(self, lab):
        """As test/debezium does, with a compiler that is a jar."""
        subprocess.run(["java", "-cp", os.path.join(self.home, "*"),
                        "org.eclipse.jdt.internal.compiler.batch.Main", "-17", "-nowarn",
                        "-d", self.classes(lab), "-cp", ":".join(glob.glob(os.path.join(self.home, "*.jar"))),
                        os.path.join(HERE, "debezium", "Relay.java")],
                       check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def start(self, lab):
        producer = {**PRODUCER, **PATIENCE, "bootstrap.servers": lab.brokers}
        return Processes(lab, [("debezium", [
            *JAVA, "-cp", self.classes(lab) + ":" + os.path.join(self.home, "*"), "Relay",
            self.write_properties(lab, "engine", self.engine(lab)),
            self.write_properties(lab, "producer", producer)])])

    def held(self, lab):
        return int(lab.server.value(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint"
            " FROM pg_replication_slots WHERE slot_name = '%s'" % SLOT))


@peer
class Messages(Debezium):
    name = "debezium-message"
    title = "pg_logical_emit_message, Debezium's engine"
    caveat = "nothing to look at in SQL; " + Debezium.caveat

    def tables(self, lab):
        lab.server.execute("CREATE PUBLICATION %s" % SLOT)

    def write(self):
        return ("SELECT pg_logical_emit_message(true, :topic::text,"
                " :key::text || E'\\n' || :payload::text)")

    def fill(self):
        return ("PERFORM pg_logical_emit_message(true, topic_name,"
                " bench.key(id) || E'\\n' || bench.payload(id))"
                " FROM generate_series(first_id, last_id) AS id")


@peer
class Router(Debezium):
    name = "debezium-outbox"
    title = "outbox table, Debezium's outbox event router"
    choices = ("the table of the router's documentation; a row is deleted by the transaction that"
               " inserts it (remove-after-insert), in one function, so in one round trip;"
               " the publication has inserts only; vacuumed as the outbox tables of the pollers; "
               + Debezium.choices)
    options = {
        "table.include.list": "public.outbox",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.topic.replacement": "${routedByValue}",
    }

    def tables(self, lab):
        lab.server.execute("""
            CREATE TABLE public.outbox (
                id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                aggregatetype varchar(255) NOT NULL,
                aggregateid varchar(255) NOT NULL,
                type varchar(255) NOT NULL,
                payload jsonb
            ) WITH (%s);
            CREATE FUNCTION public.outbox_add(topic text, key text, payload jsonb) RETURNS void
            LANGUAGE plpgsql AS $$
            DECLARE added uuid;
            BEGIN
                INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload)
                VALUES (topic, key, 'created', payload) RETURNING id INTO added;
                DELETE FROM public.outbox WHERE id = added;
            END $$;
            CREATE FUNCTION public.outbox_fill(first_id bigint, last_id bigint, topic text) RETURNS void
            LANGUAGE plpgsql AS $$
            DECLARE added uuid[];
            BEGIN
                WITH rows AS (
                    INSERT INTO public.outbox (aggregatetype, aggregateid, type, payload)
                    SELECT topic, bench.key(event), 'created', bench.payload(event)::jsonb
                    FROM generate_series(first_id, last_id) AS event
                    RETURNING id)
                SELECT array_agg(id) INTO added FROM rows;
                DELETE FROM public.outbox WHERE id = ANY (added);
            END $$;
            CREATE PUBLICATION %s FOR TABLE public.outbox WITH (publish = 'insert');""" % (VACUUM, SLOT))

    def write(self):
        return "SELECT public.outbox_add(:topic::text, :key::text, :payload::jsonb)"

    def fill(self):
        return "PERFORM public.outbox_fill(first_id, last_id, topic_name)"
