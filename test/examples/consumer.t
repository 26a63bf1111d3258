#!/usr/bin/env python3
"""The consumers of doc/examples, in five languages: whatever is delivered twice
and whoever is killed, each payment is booked once, and says what it caused; TAP."""
import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from languages import NAMES, Languages  # noqa: E402
from payments import Consumer, check, deliveries, publish  # noqa: E402
from server import Server, wait_until  # noqa: E402

STUCK = """SELECT pid FROM pg_stat_activity
           WHERE datname = current_database() AND usename = 'shop' AND wait_event_type = 'Lock'"""


def start(language, database, sent):
    return Consumer(languages.command(language, "consumer", database.url),
                    database.shop_environment, sent)


def try_language(language):
    database = server.database(language)
    database.disturb("balance")
    first, *rest = deliveries(lines, language)
    # killed in the middle of a transaction, which no acknowledgement tells of
    with database.session() as session:
        session.execute("BEGIN;")
        session.execute("LOCK TABLE balance;")
        consumer = start(language, database, [first])
        wait_until("the consumer waits for the table", lambda: database.rows(STUCK))
        consumer.kill()
    consumer = start(language, database, [first, *rest])
    # killed when it has done more than is known
    consumer.wait_acked(60)
    consumer.kill()
    consumer = start(language, database, [first, *rest][40:])
    consumer.finish()
    check(lines, database)
    assert min(database.disturbed()) > 10, database.disturbed()


def test_python():
    """Python, psycopg: each payment is booked once"""
    try_language("python")


def test_node():
    """Node, pg: each payment is booked once"""
    try_language("node")


def test_go():
    """Go, pgx: each payment is booked once"""
    try_language("go")


def test_java():
    """Java, JDBC: each payment is booked once"""
    try_language("java")


def test_c():
    """C, libpq: each payment is booked once"""
    try_language("c")


def try_together(name, isolation):
    database = server.database(name)
    database.execute("ALTER DATABASE %s SET default_transaction_isolation = '%s'"
                     % (name, isolation))
    consumers = [start(language, database, deliveries(lines, language + name)) for language in NAMES]
    for consumer in consumers:
        consumer.finish()
    check(lines, database)


def test_read_committed():
    """all five at once as one consumer, READ COMMITTED"""
    try_together("committed", "read committed")


def test_repeatable_read():
    """all five at once as one consumer, REPEATABLE READ"""
    try_together("repeatable", "repeatable read")


def test_serializable():
    """all five at once as one consumer, SERIALIZABLE"""
    try_together("serial", "serializable")


if __name__ == "__main__":
    work = os.environ["TESTDIR"]
    languages = Languages(os.path.join(work, "examples"))
    with Server(os.path.join(work, "server")) as server:
        lines = publish(server)
        tap.main(globals())
