"""
transactions

Transactions of every kind and size, and what else a database does to tables:
VACUUM, locks, stopped processes.
"""
import signal
import time

import psycopg

from faults import fault
from server import kill


@fault("transactions", moods=("aborting",))
def aborted(rig, r):
    """Nine of ten transactions roll back."""
    time.sleep(r.uniform(0.5, 2))
    return 1


@fault("transactions", moods=("nested",))
def nested(rig, r):
    """Savepoints in savepoints, some of them rolled back."""
    time.sleep(r.uniform(0.5, 2))
    return 1


@fault("transactions")
def large(rig, r):
    """One transaction of very many events, that commits or does not."""
    size = r.choice((5000, 20000, 60000))
    txn = "%s.large.%d" % (rig.name, rig.cycle)
    with rig.server.connect(application_name="large") as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(load.make(%s || '.' || i, %s, 'orders', %s || '.' || i, %s, %s, 20))"
                           " FROM generate_series(1, %s) AS i", (txn, rig.cycle, txn, txn, size, size))
        connection.execute(r.choice(("COMMIT", "COMMIT", "ROLLBACK")))
    return 1


@fault("transactions")
def idle(rig, r):
    """A transaction that stays open, with an xid, a snapshot and events that nobody may see."""
    connection = rig.server.connect(application_name="idle")
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT pg_current_xact_id(), load.make(%s, %s, 'orders', %s, 'idle', 1, 10)",
                       ("never.%d" % rig.cycle, rig.cycle, "never.%d" % rig.cycle))
    rig.leftovers.append(connection)
    return 1


@fault("transactions")
def stopped(rig, r):
    """Backends that stand still for a while, wherever they are: some between append and commit."""
    done = 0
    for _ in range(r.randint(2, 8)):
        pids = rig.server.clients()
        for pid in r.sample(pids, min(len(pids), r.randint(1, 2))):
            kill(pid, signal.SIGSTOP)
            time.sleep(r.uniform(0.01, 0.3))
            kill(pid, signal.SIGCONT)
            done += 1
    return done


@fault("transactions")
def vacuumed(rig, r):
    """VACUUM in all its forms, of segments that are in use."""
    segments = [row[0] for row in rig.server.query(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'eo'::regnamespace AND relname ~ '^log_[0-9]+$'")]
    done = 0
    with rig.server.connect(application_name="vacuum") as connection:
        for _ in range(r.randint(3, 15)):
            form = r.choice(("VACUUM", "VACUUM FREEZE", "VACUUM FULL", "VACUUM (TRUNCATE on)", "ANALYZE"))
            connection.execute("%s %s" % (form, r.choice(segments)))
            done += 1
    return done


@fault("transactions", expected=("55P03",))
def locked(rig, r):
    """Somebody locks tables of the extension for a moment, as pg_dump or DDL does."""
    done = 0
    tables = [row[0] for row in rig.server.query(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'eo'::regnamespace AND relkind = 'r'")]
    with rig.server.connect(application_name="locker") as connection:
        for _ in range(r.randint(2, 8)):
            try:
                with connection.transaction():
                    connection.execute("SET LOCAL lock_timeout = '2s'")
                    connection.execute("LOCK TABLE %s IN %s MODE" % (r.choice(tables), r.choice(
                        ("ACCESS SHARE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"))))
                    time.sleep(r.uniform(0.01, 0.3))
                done += 1
            except psycopg.errors.LockNotAvailable:
                pass
    return done or 1
