#!/usr/bin/env python3
"""The examples through a PgBouncer that pools transactions: each of a client's
transactions may be in another session; TAP."""
import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from languages import Languages  # noqa: E402
from payments import Consumer, check, deliveries, publish  # noqa: E402
from server import Server, Session, free_port, wait_until  # noqa: E402

# This one does not follow prepared statements: those that use none, or can be
# told so from outside
UNPREPARED = ("node", "c", "java")
SESSIONS = 2
CONFIGURATION = """
[databases]
* = host={directory} port={port} user=shop
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {pooler}
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
ignore_startup_parameters = extra_float_digits
"""


class Pooler:
    def __init__(self):
        self.port = free_port()
        self.path = os.path.join(work, "pgbouncer.ini")
        with open(self.path, "w") as f:
            f.write(CONFIGURATION.format(directory=server.directory, port=server.port,
                                         pooler=self.port, sessions=SESSIONS))

    def __enter__(self):
        with open(os.path.join(work, "pgbouncer.log"), "w") as log:
            self.process = subprocess.Popen(["pgbouncer", self.path], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        socket = os.path.join(server.directory, ".s.PGSQL.%d" % self.port)
        wait_until("the pooler listens", lambda: os.path.exists(socket))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def attach(self, database):
        """The same database, for whoever connects from now on."""
        for environment in (database.environment, database.shop_environment):
            environment["PGPORT"] = str(self.port)
        database.url = ("jdbc:postgresql://127.0.0.1:%d/%s?user=shop&prepareThreshold=0"
                        % (self.port, database.name))
        return database


def test_consumers():
    """two consumers of each kind share two sessions: each payment is booked once"""
    database = server.database("pooled")
    pooler.attach(database)
    consumers = [Consumer(languages.command(language, "consumer", database.url),
                          database.shop_environment, deliveries(lines, language + str(i)))
                 for language in UNPREPARED for i in range(2)]
    for consumer in consumers:
        consumer.finish()
    database.environment["PGPORT"] = str(server.port)
    check(lines, database)


def backend(session):
    return session.execute("SELECT pg_backend_pid();")


def test_lease():
    """a lease is completed in another session than it was begun in"""
    database = pooler.attach(server.database("leased"))
    with Session(database) as one, Session(database) as other:
        begun = backend(one)
        token = one.execute("SELECT token FROM eo.idempotency_begin('s', 'k', lease => '1 hour');")
        other.execute("BEGIN;")
        assert backend(other) == begun
        one.execute("BEGIN;")
        assert backend(one) != begun
        one.execute("SELECT eo.idempotency_complete('s', 'k', '{\"a\": 1}', 201, '%s');" % token)
        one.execute("COMMIT;")
        other.execute("COMMIT;")
        got = other.execute("SELECT state, code, response FROM eo.idempotency_begin('s', 'k');")
        assert got == 'replay|201|{"a": 1}', got


def test_cause():
    """a cause ends with its transaction, not with the session"""
    database = pooler.attach(server.database("caused"))
    with Session(database) as session:
        session.execute("BEGIN;")
        first = backend(session)
        session.execute("SELECT eo.receive('c', 'm');")
        session.execute("COMMIT;")
        session.execute("BEGIN;")
        assert backend(session) == first
        session.execute("SELECT eo.enqueue('t', '1');")
        got = session.execute("SELECT coalesce(headers, '{}') FROM eo.pending();")
        session.execute("COMMIT;")
        assert json.loads(got) == {}, got


if __name__ == "__main__":
    work = os.environ["TESTDIR"]
    languages = Languages(os.path.join(work, "examples"))
    with Server(os.path.join(work, "server")) as server:
        lines = publish(server)
        with Pooler() as pooler:
            tap.main(globals())
