"""
lab

What one measurement of one peer has for itself: a cluster with the settings that
the peer needs, a database, a topic, a consumer, and transactions that add events.
"""
import array
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import server as bench_server  # noqa: E402
from broker import Kafka, compile_c  # noqa: E402

PAYLOAD = 250
KEYS = 1000
PARTITIONS = 4
CLIENTS = 10
LOOK_SECONDS = 0.1
PROBES = 100            # ids below are of events that ask whether the relay runs
WARM_UP = (("rate", 500000), ("latency", 3000, 15))      # of the broker; kafka_bare's arguments
FILL_BATCH = 1000       # events of a backlog in one transaction
FILL_CHUNK = 50000

# Tables of queues want to be vacuumed more often than each minute.
SETTINGS = dict(bench_server.SETTINGS, max_connections="100", autovacuum_naptime="5s")
del SETTINGS["shared_preload_libraries"]        # it is a peer's own

OBJECTS = """
CREATE SCHEMA bench;
CREATE FUNCTION bench.key(id bigint) RETURNS text LANGUAGE sql IMMUTABLE
	RETURN 'customer-' || id % {keys};
CREATE FUNCTION bench.payload(id bigint) RETURNS text LANGUAGE sql IMMUTABLE
	RETURN '{before}' || lpad(id::text, 12, '0') || '{after}';
CREATE TABLE bench.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer text NOT NULL, total numeric NOT NULL);
"""

FILL = """
CREATE PROCEDURE bench.fill(first bigint, last bigint, topic_name text) LANGUAGE plpgsql AS $$
DECLARE
	first_id bigint := first;
	last_id bigint;
BEGIN
	WHILE first_id <= last LOOP
		last_id := least(first_id + {batch} - 1, last);
		{statement};
		COMMIT;
		first_id := last_id + 1;
	END LOOP;
END $$;
"""


def payload_frame():
    """What stands before and after the 12 digits of the id."""
    before = '{"mark": "#'
    after = ('#", "order": 4711, "customer": "customer-4711", "lines": [{"sku": "A-17", '
             '"price": 12.5, "quantity": 3}], "total": 37.5, "note": "%s"}')
    words = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod "
    room = PAYLOAD - len(before) - 12 - len(after % "")
    return before, after % (words * (room // len(words) + 1))[:room]


def wait(condition, seconds, what):
    """Looks until `condition()` is true; returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError("waited %d s for %s" % (seconds, what))
        time.sleep(LOOK_SECONDS)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def processor_seconds(roots):
    """
    The processor time of processes and all below them: their own, and that of
    the children that have ended.
    """
    children, times = {}, {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name) as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        times[int(name)] = sum(map(int, fields[11:15]))
    family, pending = set(), list(roots)
    while pending:
        pid = pending.pop()
        if pid not in family:
            family.add(pid)
            pending += children.get(pid, [])
    return sum(times.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


class Cluster(bench_server.Server):
    """A cluster with a peer's settings, made from a copy of an empty one."""

    def __init__(self, directory, template, settings):
        super().__init__(directory)
        self.template = template
        self.settings = dict(SETTINGS, **settings)
        self.environment["PGPORT"] = str(free_port())

    @staticmethod
    def make_template(directory):
        subprocess.run(["initdb", "--pgdata", directory, "--username", "bench", "--auth", "trust",
                        "--no-locale", "--encoding", "UTF8", "--no-instructions", "--no-sync"],
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def start(self):
        if not os.path.exists(self.data):
            shutil.copytree(self.template, self.data)
            with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
                conf.write("unix_socket_directories = '%s'\nport = %s\n" % (
                    self.directory, self.environment["PGPORT"]))
                conf.writelines("%s = '%s'\n" % item for item in self.settings.items())
        self.run("pg_ctl", "--pgdata", self.data, "--wait", "--silent",
                 "--log", os.path.join(self.directory, "server.log"), "start")

    def to_database(self, name):
        self.execute("CREATE DATABASE " + name)
        self.environment["PGDATABASE"] = name

    def postmaster(self):
        with open(os.path.join(self.data, "postmaster.pid")) as f:
            return int(f.readline())

    def wal_position(self):
        """In bytes, flushed or not."""
        return int(self.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def size(self):
        return int(self.value("SELECT pg_database_size(current_database())"))


class Account:
    """What the consumer has got so far."""

    def __init__(self, line):
        (self.messages, self.distinct, self.duplicates, self.disordered, self.strange,
         self.first_us, self.last_us) = map(int, line.split())


class Consumer:
    """consumer.c at work on a topic."""

    def __init__(self, program, lab, greatest_id):
        self.journal = os.path.join(lab.directory, "consumer.journal")
        self.process = subprocess.Popen(
            [program, lab.brokers, lab.topic, str(greatest_id), str(KEYS), self.journal],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.account()

    def account(self):
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the consumer has ended")
        account = Account(line)
        if account.strange:
            raise RuntimeError("%d messages are none of ours" % account.strange)
        return account

    def close(self):
        """Returns when each id was first received, 0 if never, in us since 1970."""
        self.process.stdin.close()
        self.process.wait()
        received = array.array("q")
        with open(self.journal, "rb") as f:
            received.frombytes(f.read())
        return received

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Load:
    """load.c at work; what it printed and its journal, after finish()."""

    def __init__(self, program, lab, per_second, seconds, first_id=PROBES, clients=CLIENTS):
        statement, values = lab.parameters(lab.peer.write())
        self.first_id = first_id
        self.seconds = seconds
        self.path = os.path.join(lab.directory, "load-%d.journal" % first_id)
        self.process = subprocess.Popen(
            [program, str(clients), str(per_second), str(seconds), str(first_id), str(KEYS),
             *payload_frame(), statement, values, lab.topic, self.path],
            env=lab.server.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def finish(self):
        out = self.process.communicate()[0]
        if self.process.returncode != 0:
            raise RuntimeError("the load failed")
        found = dict(re.findall(r"(\w+) ([\d.]+)", out))
        self.committed, self.failed = int(found["committed"]), int(found["failed"])
        self.rate, self.p50, self.p99 = (float(found[name]) for name in ("rate", "p50", "p99"))
        times = array.array("q")
        with open(self.path, "rb") as f:
            times.frombytes(f.read())
        self.sent_at, self.committed_at = times[0::2], times[1::2]
        return self

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Lab:
    """One measurement's, as peer.py says; see `prepared`."""

    def __init__(self, rig, peer, directory, topic):
        self.rig = rig
        self.peer = peer
        self.directory = directory
        self.topic = topic
        self.partitions = PARTITIONS
        self.brokers = rig.kafka.brokers
        self.server = Cluster(directory, rig.template, peer.settings)
        self.relay = None
        self.consumer = None
        self.helpers = []       # Processes that a peer has beside its relay
        self.loads = []
        self.probes = 0
        self.idle = None

    def say(self, text):
        self.rig.say(text)

    def parameters(self, statement):
        """The statement with $1, ..., and what these are, a letter each."""
        letters = ""
        for name in ("topic", "key", "payload"):
            statement, count = re.subn(r"(?<!:):%s\b" % name, "$%d" % (len(letters) + 1), statement)
            letters += name[0] if count else ""
        return statement, letters

    def install(self):
        before, after = payload_frame()
        self.server.to_database("peer")
        self.server.execute(OBJECTS.format(keys=KEYS, before=before, after=after))
        self.peer.install(self)

    def be_idle(self):
        """Opens a transaction that has an id and a snapshot, and does nothing more."""
        self.idle = subprocess.Popen(
            ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--file", "-"],
            env=self.server.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.idle.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\n"
                              "SELECT pg_current_xact_id();\n")
        self.idle.stdin.flush()
        self.idle.stdout.readline()

    def consume(self, greatest_id):
        self.consumer = Consumer(self.rig.consumer, self, greatest_id)

    def start(self):
        self.relay = self.peer.start(self)

    def load(self, *arguments, **options):
        self.loads.append(Load(self.rig.load, self, *arguments, **options))
        return self.loads[-1]

    def probe(self):
        """Adds an event with an id that no load uses."""
        statement = self.peer.write()
        if self.probes < PROBES - 1:
            self.probes += 1
        before, after = payload_frame()
        for name, value in (("topic", self.topic), ("key", "customer-%d" % self.probes),
                            ("payload", "%s%012d%s" % (before, self.probes, after))):
            statement = re.sub(r"(?<!:):%s\b" % name, lambda found, v=value: "'%s'" % v, statement)
        self.server.execute(statement)

    def live(self, seconds):
        """Waits until events of now come through."""
        def arrived():
            self.relay.check()
            return self.consumer.account().distinct > seen

        for _ in range(3):
            seen = self.consumer.account().distinct
            self.probe()
            wait(arrived, seconds, "an event to come to Kafka")

    def fill(self, count, first_id, seconds):
        """
        Adds a backlog; returns how many it is: fewer if the time is over, or a
        quarter of it when the rest cannot be in in time.
        """
        self.server.execute(FILL.format(batch=FILL_BATCH, statement=self.peer.fill()))
        begun = time.monotonic()
        done = 0
        while done < count:
            passed = time.monotonic() - begun
            if passed > seconds or passed > seconds / 4 and done * seconds < count * passed:
                break
            chunk = min(FILL_CHUNK, count - done)
            self.server.execute("SET synchronous_commit = off; CALL bench.fill(%d, %d, '%s')" % (
                first_id + done, first_id + done + chunk - 1, self.topic))
            done += chunk
        self.server.execute("CHECKPOINT")
        return done

    def processor_of_server(self):
        return processor_seconds([self.server.postmaster()])

    def processor_of_relay(self):
        return processor_seconds(self.relay.pids())

    def close(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self.server.stop)
            for one in self.helpers:
                stack.callback(one.stop)
            if self.relay is not None:
                stack.callback(self.relay.stop)
            for one in [*self.loads, *([self.consumer] if self.consumer else [])]:
                stack.callback(one.kill)
            if self.idle is not None:
                stack.callback(self.idle.wait)
                stack.callback(self.idle.kill)


class Rig:
    """What the measurements of a run share."""

    def __init__(self, directory):
        self.directory = directory
        self.template = os.path.join(directory, "empty")
        self.kafka = Kafka(directory)
        self.warm = False
        self.began = time.monotonic()
        self.labs = 0
        self.described = []     # the peers whose version is known

    def open(self):
        os.makedirs(self.directory, exist_ok=True)
        shutil.rmtree(self.template, ignore_errors=True)
        Cluster.make_template(self.template)
        self.consumer = compile_c(self.directory, "peers/consumer", "rdkafka")
        self.load = compile_c(self.directory, "peers/load", "libpq")
        self.start_kafka()

    def close(self):
        self.kafka.stop()

    def start_kafka(self):
        self.kafka.start()
        self.warm = False

    def warm_up(self):
        """Lets the broker compile itself, or whoever comes first pays for it."""
        self.say("starting Kafka, and warming it up")
        self.kafka.tool("create", "warm", str(PARTITIONS))
        consumer = subprocess.Popen(
            [self.consumer, self.kafka.brokers, "warm", "1", str(KEYS), os.devnull],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            for arguments in WARM_UP:
                self.kafka.produce("warm", *arguments, PAYLOAD)
        finally:
            consumer.kill()
            consumer.wait()
        self.kafka.tool("delete", "warm")
        self.warm = True

    def say(self, text):
        seconds = int(time.monotonic() - self.began)
        print("  %d:%02d:%02d  %s" % (seconds // 3600, seconds // 60 % 60, seconds % 60, text),
              flush=True)

    @contextlib.contextmanager
    def lab(self, peer, idle=False):
        """A lab with the peer installed, and with an idle transaction if asked."""
        if not self.warm:
            self.warm_up()
        self.labs += 1
        name = "%s-%d-%d" % (peer.name, os.getpid(), self.labs)
        directory = os.path.join(self.directory, name)
        os.makedirs(directory)
        lab = Lab(self, peer, directory, name)
        self.kafka.tool("create", name, str(PARTITIONS))
        try:
            lab.server.start()
            lab.install()
            if idle:
                lab.be_idle()
            yield lab
        except Exception:
            self.keep_logs(directory)
            raise
        finally:
            lab.close()
            self.kafka.tool("delete", name)
            if not os.environ.get("KEEP"):
                shutil.rmtree(directory, ignore_errors=True)

    def keep_logs(self, directory):
        """The ends of the logs of a measurement that failed."""
        for name in sorted(os.listdir(directory)):
            if name.endswith(".log"):
                with open(os.path.join(directory, name), errors="replace") as f:
                    print("--- %s\n%s" % (name, f.read()[-3000:]), flush=True)
