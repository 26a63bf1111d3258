#!/usr/bin/env python3
"""
connector

Debezium's connector for PostgreSQL, the real one, beside a private server.

    connector.py install        fetch the jars (once; cached in EO_CACHE)
    connector.py record FILE [option=value...]
                                run statements.sql against the tables of
                                schema.sql, and write what the connector emits
                                to FILE, a JSON object a line

The jars come from Maven; a Java runtime is enough.  `record` needs a PostgreSQL
with the extension in PATH (test/run has one).
"""
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "examples"))

from server import Database, Server, wait_until  # noqa: E402

CACHE = os.environ.get("EO_CACHE") or os.path.expanduser("~/.cache/eo_outbox")
PREFIX = "eo"
LAST_TOPIC = PREFIX + ".public.last_table"


def read(path):
    with open(path) as f:
        return f.read()


def install():
    """Returns the class path, after fetching and compiling what is missing."""
    pom = os.path.join(HERE, "pom.xml")
    source = os.path.join(HERE, "ChangeStream.java")
    digest = hashlib.sha256((read(pom) + read(source)).encode()).hexdigest()[:16]
    home = os.path.join(CACHE, "debezium-" + digest)
    jars = os.path.join(home, "jars")
    classes = os.path.join(home, "classes")
    path = classes + ":" + os.path.join(jars, "*")
    complete = os.path.join(home, "complete")
    if os.path.exists(complete):
        return path
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(complete):
            return path
        subprocess.run(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies",
                        "-DoutputDirectory=" + jars],
                       check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        subprocess.run(["java", "-cp", path, "org.eclipse.jdt.internal.compiler.batch.Main",
                        "-17", "-nowarn", "-d", classes,
                        "-cp", ":".join(os.path.join(jars, jar) for jar in os.listdir(jars)),
                        source],
                       check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        open(complete, "w").close()
    return path


class LogicalServer(Server):
    """A server that a connector may stream from."""

    def __enter__(self):
        os.makedirs(self.directory)
        self.start({"shared_preload_libraries": "eo_outbox", "listen_addresses": "127.0.0.1",
                    "port": self.port, "max_worker_processes": 20, "fsync": "off",
                    "wal_level": "logical"})
        return self

    def tables(self, name):
        """Creates a database with the tables of schema.sql and the extension."""
        database = self.bare_database(name)
        database.psql("--file", os.path.join(HERE, "schema.sql"))
        database.execute("""
            DO $$
            DECLARE captured text;
            BEGIN
                FOR captured IN SELECT oid::regclass FROM pg_class
                    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                LOOP
                    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', captured);
                END LOOP;
            END $$""")
        return database


class Connector:
    """A running connector; ends by itself after the row in last_table."""

    def __init__(self, database, port, **options):
        self.database = database
        self.log = open(os.path.join(database.directory, database.name + ".log"), "w+")
        self.output = open(os.path.join(database.directory, database.name + ".jsonl"), "w+")
        self.process = subprocess.Popen(
            ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
             "-Duser.timezone=UTC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
             "-cp", install(), "ChangeStream", self.properties(port, options), LAST_TOPIC],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.log)
        try:
            wait_until("the connector streams", self.streams)
        except BaseException:
            self.process.kill()
            raise

    def properties(self, port, options):
        """Writes its configuration: the defaults, but for what the test needs."""
        path = os.path.join(self.database.directory, self.database.name + ".properties")
        settings = {
            "name": "connector",
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
            "offset.flush.interval.ms": "60000",
            "poll.interval.ms": "10",
            "database.hostname": "127.0.0.1",
            "database.port": port,
            "database.user": self.database.environment["PGUSER"],
            "database.password": "none",
            "database.dbname": self.database.name,
            "topic.prefix": PREFIX,
            "plugin.name": "pgoutput",
            "slot.name": "slot_" + self.database.name,
            "publication.name": "publication_" + self.database.name,
            "publication.autocreate.mode": "filtered",
            "publish.via.partition.root": "true",
            "schema.exclude.list": "eo",
            "snapshot.mode": "no_data",
            # otherwise it is silent about TRUNCATE, and about columns of other types
            "skipped.operations": "none",
            "include.unknown.datatypes": "true",
        }
        settings.update(options)
        with open(path, "w") as f:
            f.writelines("%s=%s\n" % item for item in settings.items())
        return path

    def streams(self):
        if self.process.poll() is not None:
            raise RuntimeError("the connector has ended:\n" + read(self.log.name)[-4000:])
        return self.database.value("SELECT count(*) FROM pg_replication_slots"
                                   " WHERE active AND confirmed_flush_lsn IS NOT NULL") > 0

    def finish(self):
        """What it has emitted."""
        wait_until("the connector has ended", lambda: self.process.poll() is not None)
        if self.process.returncode != 0:
            raise RuntimeError("the connector has failed:\n" + read(self.log.name)[-4000:])
        return [json.loads(line) for line in read(self.output.name).splitlines()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.output.close()


def record(path, options):
    directory = tempfile.mkdtemp(prefix="eo-debezium-")
    try:
        with LogicalServer(os.path.join(directory, "server")) as server:
            database = server.tables("recorded")
            with Connector(database, server.port, **options) as connector:
                try:
                    database.psql("--file", os.path.join(HERE, "statements.sql"))
                    connector.finish()
                finally:
                    shutil.copy(connector.output.name, path)
                    shutil.copy(connector.log.name, path + ".log")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(arguments):
    if arguments == ["install"]:
        install()
    elif len(arguments) >= 2 and arguments[0] == "record":
        record(arguments[1], dict(option.split("=", 1) for option in arguments[2:]))
    else:
        sys.exit(__doc__.strip())


if __name__ == "__main__":
    main(sys.argv[1:])
