"""
queues

Queues in PostgreSQL that others have built.  None of them speaks to Kafka: each
is emptied by forwarder.py, as its documentation says a consumer does it.
"""
import os

import sources
from peer import BATCH, POLL_SECONDS, Peer, Processes, peer, python
from tables import VACUUM, forwarder, forwarder_version, forwarding, package

# Between ticks: PgQue's default; PgQ's is a second.  A batch is what lies between
# two ticks: shorter ones are sooner there, and each costs the forwarder some ms.
TICK_MS = 100
ROTATION_SECONDS = 20   # PgQ's and PgQue's default is two hours
MAINTENANCE_SECONDS = 5


class Ticked(Peer):
    """
    Queues of ticks: a ticker makes batches, all the time, also while the
    consumer is away.
    """
    parts = ("relay", "ticker")

    def ticker(self, lab):
        """[(name, command)]"""
        raise NotImplementedError

    def install(self, lab):
        lab.ticker = Processes(lab, self.ticker(lab))
        lab.helpers.append(lab.ticker)

    def start(self, lab):
        return Consuming(lab)


class Consuming(Processes):
    """forwarder.py, beside the ticker, which has been there before it."""

    def __init__(self, lab):
        self.ticker = lab.ticker
        program, environment = forwarding(lab, lab.peer.name)
        super().__init__(lab, [program], environment)

    def pids(self):
        return super().pids() + self.ticker.pids()

    def kill(self, part):
        (self.ticker if part == "ticker" else super()).kill(part)

    def revive(self, part):
        (self.ticker if part == "ticker" else super()).revive(part)

    def check(self):
        super().check()
        self.ticker.check()


@peer
class PgQ(Ticked):
    name = "pgq"
    title = "PgQ, Python forwarder"
    needs = ("pgq",)
    choices = ("pgqd with ticker_period = %g s, ticker_max_lag = 0 and ticker_idle_period = 1 s, rotation every"
               " %d s, seen to every %d s; next_batch, get_batch_cursor by %d, finish_batch; looks every %d ms"
               % (TICK_MS / 1e3, ROTATION_SECONDS, MAINTENANCE_SECONDS, BATCH, POLL_SECONDS * 1000))
    caveat = "ordered as a whole by the sequence within a batch, not by commit"

    def version(self, lab):
        return "pgq %s, pgqd %s, %s" % (
            lab.server.value("SELECT extversion FROM pg_extension WHERE extname = 'pgq'"),
            package("pgqd"), forwarder_version())

    def missing(self):
        return None if os.path.exists("/usr/bin/pgqd") else "there is no pgqd"

    def ticker(self, lab):
        path = os.path.join(lab.directory, "pgqd.ini")
        with open(path, "w") as f:
            f.write("[pgqd]\nsyslog = 0\ndatabase_list = peer\ninitial_database = peer\n"
                    "base_connstr = host=%s port=%s user=%s\nticker_period = %g\nmaint_period = %d\n" % (
                        lab.server.environment["PGHOST"], lab.server.environment["PGPORT"],
                        lab.server.environment["PGUSER"], TICK_MS / 1e3, MAINTENANCE_SECONDS))
        return [("ticker", ["/usr/bin/pgqd", path])]

    def install(self, lab):
        lab.server.execute("""
            CREATE EXTENSION pgq;
            SELECT pgq.create_queue('events');
            SELECT pgq.set_queue_config('events', 'ticker_max_lag', '0');
            SELECT pgq.set_queue_config('events', 'ticker_idle_period', '1 second');
            SELECT pgq.set_queue_config('events', 'rotation_period', '%d seconds');
            SELECT pgq.register_consumer('events', 'forwarder');""" % ROTATION_SECONDS)
        super().install(lab)

    def write(self):
        return "SELECT pgq.insert_event('events', :topic, :payload, :key, NULL, NULL, NULL)"

    def fill(self):
        return ("PERFORM pgq.insert_event('events', topic_name, bench.payload(i), bench.key(i), NULL, NULL,"
                " NULL) FROM generate_series(first_id, last_id) AS i")


@peer
class PgQue(Ticked):
    name = "pgque"
    title = "PgQue, Python forwarder"
    choices = ("a loop calls ticker_loop() with tick_period_ms = %d, ticker_max_lag = 1 ms, and"
               " maintenance every %d s, rotation every %d s; receive() whole batches, ack(); looks every %d ms"
               % (TICK_MS, MAINTENANCE_SECONDS, ROTATION_SECONDS, POLL_SECONDS * 1000))
    caveat = "ordered as a whole by the sequence within a batch, not by commit"

    def file(self):
        return sources.find("pgque", "sql/pgque.sql", "pgque.sql")

    def missing(self):
        return None if self.file() else "in no registry; EO_PEERS_SOURCES must have pgque/"

    def version(self, lab):
        return "PgQue %s, %s" % (lab.server.value("SELECT pgque.version()"), forwarder_version())

    def ticker(self, lab):
        return [("ticker", python("ticker.py", str(MAINTENANCE_SECONDS)))]

    def install(self, lab):
        lab.server.psql("", "--single-transaction", "--file", self.file())
        lab.server.execute("""
            SELECT pgque.create_queue('events');
            SELECT pgque.set_tick_period_ms(%d);
            SELECT pgque.set_queue_config('events', 'ticker_max_lag', '1 ms');
            SELECT pgque.set_queue_config('events', 'rotation_period', '%d seconds');
            SELECT pgque.subscribe('events', 'forwarder');""" % (TICK_MS, ROTATION_SECONDS))
        super().install(lab)

    def write(self):
        return "SELECT pgque.insert_event('events', :topic, :payload, :key, NULL, NULL, NULL)"

    def fill(self):
        return ("PERFORM pgque.insert_event('events', topic_name, bench.payload(i), bench.key(i), NULL, NULL,"
                " NULL) FROM generate_series(first_id, last_id) AS i")


@peer
class Pgmq(Peer):
    name = "pgmq"
    title = "pgmq, Python forwarder"
    choices = ("read() of %d messages with a timeout of 10 s, delete() when Kafka has acknowledged them;"
               " looks every %d ms; the key is a header; vacuumed as the outbox table is"
               % (BATCH, POLL_SECONDS * 1000))
    caveat = "promises no order; what a killed reader had read comes again after the timeout"

    def file(self):
        return sources.find("pgmq", "pgmq/sql/pgmq.sql", "pgmq.sql", "pgmq-extension/sql/pgmq.sql")

    def missing(self):
        return None if self.file() else "not fetched: test/setup --peers"

    def version(self, lab):
        path = os.path.join(os.path.dirname(self.file()), "VERSION")
        number = "as given"
        if os.path.exists(path):
            with open(path) as f:
                number = f.read().strip()
        return "pgmq %s, %s" % (number, forwarder_version())

    def install(self, lab):
        lab.server.psql("", "--file", self.file())
        lab.server.execute("SELECT pgmq.create('events'); ALTER TABLE pgmq.q_events SET (%s);" % VACUUM)

    def write(self):
        return ("SELECT pgmq.send('events', :payload::jsonb,"
                " jsonb_build_object('topic', :topic::text, 'key', :key::text))")

    def fill(self):
        return ("PERFORM pgmq.send_batch('events', (SELECT array_agg(bench.payload(i)::jsonb ORDER BY i)"
                " FROM generate_series(first_id, last_id) AS i), (SELECT array_agg(jsonb_build_object("
                "'topic', topic_name, 'key', bench.key(i)) ORDER BY i) FROM generate_series(first_id, last_id) AS i))")

    def start(self, lab):
        return forwarder(lab, "pgmq")


@peer
class MessageDb(Peer):
    name = "message_db"
    title = "message-db, Python forwarder"
    choices = ("a stream for each key, one category; get_category_messages() by %d, the position written to a"
               " stream after each; looks every %d ms" % (BATCH, POLL_SECONDS * 1000))
    caveat = "writers of a category wait for each other until they commit; nothing is ever removed"

    def folder(self):
        return sources.find("message-db", "package/database", "database", ".")

    def missing(self):
        return None if self.folder() else "not fetched: test/setup --peers"

    def version(self, lab):
        return "message-db %s, %s" % (lab.server.value("SELECT message_store.message_store_version()"),
                                      forwarder_version())

    def install(self, lab):
        lab.server.run("bash", os.path.join(self.folder(), "install.sh"), capture_output=True, env=dict(
            lab.server.environment, DATABASE_NAME="peer", CREATE_DATABASE="off"))
        lab.server.execute("ALTER DATABASE peer SET search_path = message_store, public")

    def write(self):
        return ("SELECT write_message(gen_random_uuid()::text, 'orders-' || :key::text, 'order.created',"
                " :payload::jsonb, jsonb_build_object('topic', :topic::text))")

    def fill(self):
        return ("PERFORM write_message(gen_random_uuid()::text, 'orders-' || bench.key(i), 'order.created',"
                " bench.payload(i)::jsonb, jsonb_build_object('topic', topic_name))"
                " FROM generate_series(first_id, last_id) AS i")

    def start(self, lab):
        return forwarder(lab, "message_db")
