"""
tables

The outbox table that services write for themselves, emptied by a poller: in
Python (psycopg) and in Go (pgx).
"""
import os
import shutil
import subprocess
import sys

import sources
from peer import BATCH, POLL_SECONDS, Peer, Processes, peer, python

HERE = os.path.dirname(os.path.abspath(__file__))
GO = "/usr/bin/go"

# What a table needs whose rows live for a moment, or vacuum never comes in time.
VACUUM = ("autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,"
          " autovacuum_vacuum_cost_delay = 0")

TABLE = """
CREATE TABLE outbox (
	id bigserial PRIMARY KEY,
	topic text NOT NULL,
	key text,
	payload jsonb NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now()
) WITH (%s);
""" % VACUUM

QUERY = ("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT %d"
         " FOR UPDATE SKIP LOCKED) RETURNING id, key, payload::text" % BATCH)


class Table(Peer):
    choices = ("DELETE ... SKIP LOCKED of %d rows a transaction, committed when Kafka has acknowledged"
               " them; looks every %d ms when there is nothing; the table is vacuumed from 10,000 dead"
               " rows on, without delay" % (BATCH, POLL_SECONDS * 1000))
    caveat = "the order of a key holds with one poller only"

    def install(self, lab):
        lab.server.execute(TABLE)

    def write(self):
        return "INSERT INTO outbox (topic, key, payload) VALUES (:topic, :key, :payload::jsonb)"

    def fill(self):
        return ("INSERT INTO outbox (topic, key, payload) SELECT topic_name, bench.key(i),"
                " bench.payload(i)::jsonb FROM generate_series(first_id, last_id) AS i")


def package(name):
    """The version of a Debian package."""
    found = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def forwarder_path():
    """psycopg in C, where it was fetched; otherwise Debian's is found, in Python."""
    return sources.where("psycopg") or ""


def forwarder_version():
    found = subprocess.run(
        [sys.executable, "-c", "import psycopg; print(psycopg.__version__, psycopg.pq.__impl__)"],
        env=dict(os.environ, PYTHONPATH=forwarder_path()), text=True, check=True, stdout=subprocess.PIPE)
    return "psycopg %s (%s), confluent-kafka %s, librdkafka %s" % (
        *found.stdout.split(), package("python3-confluent-kafka"), package("librdkafka1"))


def forwarding(lab, source):
    """The program of a Relay: (name, command), and its environment."""
    return ("relay", python("forwarder.py", source, lab.brokers, lab.topic, str(BATCH),
                            str(POLL_SECONDS))), {"PYTHONPATH": forwarder_path()}


def forwarder(lab, source):
    program, environment = forwarding(lab, source)
    return Processes(lab, [program], environment)


@peer
class Psycopg(Table):
    name = "psycopg"
    title = "outbox table, psycopg"

    def version(self, lab):
        return forwarder_version()

    def start(self, lab):
        return forwarder(lab, "table")


@peer
class Go(Table):
    name = "go"
    title = "outbox table, Go"

    def missing(self):
        if not os.path.exists(GO) or not self.modules():
            return "no Go modules: test/setup --peers fetches them"
        return None

    def modules(self):
        """Where test/setup has put the libraries."""
        return sources.where("go")

    def version(self, lab):
        with open(os.path.join(HERE, "go", "go.mod")) as f:
            required = [line.split() for line in f if line.startswith("\tgithub.com/") and "//" not in line]
        go = subprocess.run([GO, "version"], text=True, check=True, stdout=subprocess.PIPE).stdout
        return "%s, %s" % (go.split()[2], ", ".join(
            "%s %s" % (path.split("/", 2)[2], version) for path, version in required))

    def install(self, lab):
        super().install(lab)
        self.program = os.path.join(os.path.dirname(lab.directory), "poller")
        if os.path.exists(self.program):
            return
        source = os.path.join(lab.directory, "go")
        shutil.copytree(os.path.join(HERE, "go"), source)
        subprocess.run([GO, "build", "-o", self.program, "."], cwd=source, check=True, env=dict(
            os.environ, GOMODCACHE=os.path.join(self.modules(), "modules"), GOPROXY="off",
            GOFLAGS="-mod=readonly", GOTOOLCHAIN="local", GOCACHE=os.path.join(lab.directory, "cache")))

    def start(self, lab):
        return Processes(lab, [("relay", [self.program, lab.brokers, lab.topic, QUERY,
                                          str(int(POLL_SECONDS * 1000))])])
