"""server.py

A private server with the tables of the examples in databases of its own.
"""
import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

from cluster import Cluster  # noqa: E402

# A test that is told to end still stops its server.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

SCHEMA = os.path.join(HERE, "..", "..", "doc", "examples", "schema.sql")
PATIENCE = int(os.environ.get("PG_TEST_TIMEOUT_DEFAULT", "180"))
POLL = 0.02

# Of five attempts in a row one succeeds.
DISTURB = """
CREATE SEQUENCE attempt;
CREATE SEQUENCE disturbed_early;
CREATE SEQUENCE disturbed_late;
GRANT ALL ON attempt, disturbed_early, disturbed_late TO shop;
CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempt') % TG_ARGV[0]::int = 0 THEN
        PERFORM nextval(TG_ARGV[1]);
        RAISE EXCEPTION 'disturbed' USING ERRCODE = TG_ARGV[2];
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a AFTER INSERT OR UPDATE ON TABLE
    FOR EACH ROW EXECUTE FUNCTION disturb(3, 'disturbed_early', '40001');
CREATE TRIGGER b AFTER INSERT OR UPDATE ON TABLE
    FOR EACH ROW EXECUTE FUNCTION disturb(4, 'disturbed_early', '40P01');
CREATE CONSTRAINT TRIGGER c AFTER INSERT OR UPDATE ON TABLE DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION disturb(5, 'disturbed_late', '40001');
"""


def wait_until(what, condition):
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError("timed out waiting until " + what)
        time.sleep(POLL)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server(Cluster):
    """`port` also for TCP on loopback, as JDBC knows no other way."""

    def __init__(self, directory):
        super().__init__(directory)
        self.port = free_port()
        self.environment.update(PGPORT=str(self.port), PGAPPNAME="")

    def __enter__(self):
        os.makedirs(self.directory)
        self.start({"shared_preload_libraries": "eo_outbox", "listen_addresses": "127.0.0.1",
                    "port": self.port, "max_worker_processes": 20, "fsync": "off",
                    "deadlock_timeout": "100ms"})
        return self

    def __exit__(self, *_):
        self.stop()

    def bare_database(self, name):
        """Creates a database with nothing but the extension in it."""
        self.run("createdb", "--maintenance-db", "postgres", name)
        database = Database(self, name)
        database.execute("CREATE EXTENSION eo_outbox")
        return database

    def database(self, name):
        """Creates a database for the examples."""
        database = self.bare_database(name)
        with open(SCHEMA) as f:
            schema = f.read()
        if database.value("SELECT count(*) FROM pg_roles WHERE rolname = 'shop'") > 0:
            schema = schema.replace("CREATE ROLE shop LOGIN;\n", "")
        database.execute(schema)
        return database


class Database(Cluster):
    """One database of a server."""

    def __init__(self, server, name):
        super().__init__(server.directory)
        self.name = name
        self.environment = dict(server.environment, PGDATABASE=name)
        self.shop_environment = dict(self.environment, PGUSER="shop")
        self.url = "jdbc:postgresql://127.0.0.1:%d/%s?user=shop" % (server.port, name)

    def session(self):
        return Session(self)

    def events(self, topic):
        return self.rows("SELECT key, payload, headers FROM eo.events WHERE topic = '%s'"
                         " ORDER BY seq" % topic)

    def disturb(self, table):
        """From now on, transactions that change the table often fail, some of
        them not before their end, and may succeed when they are retried."""
        self.execute(DISTURB.replace("TABLE", table))

    def disturbed(self):
        """How often that was, in statements and in commits."""
        row, = self.rows("SELECT e.last_value AS early, l.last_value AS late"
                         " FROM disturbed_early AS e, disturbed_late AS l")
        return row["early"], row["late"]


class Session:
    """A session that holds a transaction open while other things happen."""

    def __init__(self, database):
        self.process = subprocess.Popen(
            ["psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only",
             "--set", "ON_ERROR_STOP=1"],
            env=database.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)

    def execute(self, sql):
        """Returns what psql prints."""
        self.process.stdin.write(sql + "\n\\echo done\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line == "done\n":
                return "".join(lines).strip()
            lines.append(line)
        raise RuntimeError("psql ended at: " + sql)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
