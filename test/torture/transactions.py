"""
transactions

Transactions of every kind and size, and what else a database does to tables:
VACUUM, locks, stopped processes.
"""
import os
import signal
import time
from collections import Counter

import psycopg

from faults import Fault, fault
from points import ServerPoint
from rig import Broken, Rig
from server import kill, wait_until

ATTEMPTS = 20           # to find the relay waiting for somebody who stands still


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
def stuck(rig, r):
    """One stands still for seconds between its append and its commit: the log waits for it, and says for whom."""
    def stalled():
        return [row[0] for row in rig.server.query("SELECT pid FROM eo.stalls WHERE pid IS NOT NULL")]
    for _ in range(ATTEMPTS):
        point = ServerPoint(rig, "appended", "stall", 1)
        try:
            wait_until("somebody has appended", point.reached)
            pids = stalled()        # unless the relay has not come there yet
            for pid in pids:
                kill(pid, signal.SIGSTOP)
        finally:
            point.clear()
        if not pids:
            continue
        try:
            time.sleep(r.uniform(2, 8))
            if stalled() != pids:
                raise Broken("the log waits for %s, and not for %s" % (stalled(), pids))
        finally:
            for pid in pids:
                kill(pid, signal.SIGCONT)
        return 1
    return 0


def segments_of(rig):
    return [row[0] for row in rig.server.query(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'eo'::regnamespace AND relname ~ '^log_[0-9]+$'")]


@fault("transactions")
def vacuumed(rig, r):
    """VACUUM in all its forms, of segments that are in use."""
    segments = segments_of(rig)
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
    return done


# ---- commands of users on the log ------------------------------------------------

REWRITE = ("VACUUM FULL {0}",
           "BEGIN; CREATE INDEX reversed ON {0} (seq DESC, part DESC); CLUSTER {0} USING reversed; DROP INDEX eo.reversed; COMMIT",
           "BEGIN; ALTER TABLE {0} SET (fillfactor = 90); CREATE INDEX shuffled ON {0} (event_id);"
           " CLUSTER {0} USING shuffled; DROP INDEX eo.shuffled; COMMIT",
           "REINDEX TABLE {0}", "ALTER TABLE {0} SET TABLESPACE pg_default", "ANALYZE {0}", "VACUUM (FULL, FREEZE) {0}")


@fault("transactions", expected=("55P03",))
def rewritten(rig, r):
    """A superuser rewrites segments, also the one that is being written, and in another order."""
    segments = segments_of(rig)
    done = 0
    with rig.server.connect(application_name="rewriter") as connection:
        for _ in range(r.randint(3, 10)):
            try:
                connection.execute(r.choice(REWRITE).format(r.choice(segments)))
                done += 1
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                connection.execute("ROLLBACK")
            time.sleep(r.uniform(0, 0.2))
    return done


FORBIDDEN = ("TRUNCATE {0}", "DELETE FROM {0}", "UPDATE {0} SET seq = seq + 1", "INSERT INTO {0} SELECT * FROM {0}", "DROP TABLE {0}",
             "CLUSTER {0}", "ALTER TABLE {0} ADD x integer", "CREATE INDEX ON {0} (seq)", "SELECT FROM {0} FOR UPDATE",
             "CREATE TRIGGER t BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()")


@fault("transactions")
def forbidden(rig, r):
    """What producers, consumers and operators may not do to the log, nor anybody to the extension's tables."""
    done = 0
    with rig.server.connect(application_name="intruder") as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE intruder; PERFORM eo.grant_producer('intruder'), eo.grant_consumer('intruder'),"
                           " eo.grant_operator('intruder'); EXCEPTION WHEN duplicate_object THEN END $$")
        tables = [row[0] for row in connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'eo'::regnamespace AND relkind = 'r'")]
        connection.execute("SET ROLE intruder")
        for _ in range(r.randint(10, 40)):
            statement = r.choice(FORBIDDEN)
            statement = statement.format(r.choice(segments_of(rig) if "seq" in statement else tables))
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                done += 1
            else:
                raise Broken("a user may %s" % statement)
    return done


@fault("transactions")
def truncated(rig, r):
    """A superuser empties the log, the active segment too, when all was published; no number comes again, also after a crash."""
    rig.load.pause()
    rig.settle("a")
    rig.server.query_nothing("TRUNCATE " + ", ".join(segments_of(rig)))
    if r.random() < 0.5:
        rig.server.kill_all()
        rig.server.start()
    rig.load.resume()
    time.sleep(r.uniform(0.2, 1))
    return 1


DONE_WITH = ("SELECT 'eo.log_' || segment FROM eo.segment_status()"
             " WHERE first_seq > 0 AND NOT active AND last_seq <= (SELECT min(seq) FROM eo.cursor)")
KEPT = (("retention", "1h"), ("segment_size", "1MB"), ("segment_age", "1s"))


def empty_one(rig, r, emptied):
    """Another one that all are done with, when there is one; the segments follow each other within seconds."""
    found = []

    def look():
        found[:] = {row[0] for row in rig.server.query(DONE_WITH)} - emptied
        return found
    wait_until("there is a segment that all are done with", look)
    one = r.choice(sorted(found))
    size = rig.server.one("SELECT pg_relation_size(%s::regclass)", one)
    rig.server.query_nothing("TRUNCATE " + one)
    emptied.add(one)
    return size > 0


@fault("transactions")
def truncated_amid_load(rig, r):
    """
    A superuser is faster than the relay, which keeps what all have got for an hour:
    empties segments while others are read and written.  Nobody misses anything.
    """
    for name, value in KEPT:
        rig.server.query_nothing("ALTER SYSTEM SET eo_outbox.%s = '%s'" % (name, value))
    rig.server.query_nothing("SELECT pg_reload_conf()")
    emptied = set()
    done = sum(empty_one(rig, r, emptied) for _ in range(r.randint(1, 4)))
    if r.random() < 0.3:
        rig.server.kill_all()
        rig.server.start()
    rig.server.query_nothing("ALTER SYSTEM SET eo_outbox.retention = '0'")
    rig.server.query_nothing("SELECT pg_reload_conf()")
    return done


# ---- an idle one, for a whole series of cycles -------------------------------------

TURNING = {"eo_outbox.segment_size": "1MB", "eo_outbox.segment_age": "1s", "eo_outbox.retention": "0"}


class TurningRig(Rig):
    """Its log goes from one segment to the next all the time; whoever uses it looks what comes of that."""

    def options(self, r):
        return dict(super().options(r), **TURNING)

    def check_log(self):
        return []


def work(rig, r):
    time.sleep(r.uniform(0.5, 1.5))
    return 1


@fault("transactions", alone=True)
def idle_throughout(directory, seed, r):
    """
    Publication goes on beside it, and the log gives back its space, unless it
    has looked into the log itself: then when it ends.  At last it commits.
    """
    with TurningRig(os.path.join(directory, "rig"), seed).used() as rig, rig.server.connect(application_name="idle") as idle:
        turns = r.randint(3, 5)
        looks = r.random() < 0.5
        idle.execute("BEGIN ISOLATION LEVEL %s" % r.choice(("READ COMMITTED", "REPEATABLE READ")))
        idle.execute("SELECT load.make('late', %s, 'orders', 'late', 'late', 1, 10), pg_current_xact_id()", (turns,))
        if looks:
            idle.execute("SELECT count(*) FROM eo.events")
        for turn in range(1, turns + 1):
            def run(rig, r, last=turn == turns):
                work(rig, r)
                if last:
                    idle.execute("COMMIT")
                return 1
            rig.run(turn, Fault("transactions", "idle", run, ("calm", "nested")), r)
            if not looks:
                wait_until("the log gives back its space", lambda: not rig.held_segments(), 30)
        wait_until("the log gives back its space", lambda: not rig.held_segments(), 30)
        return Counter(rig.totals())
