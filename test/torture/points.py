"""
points

Every edge between two states, named in the sources by EO_POINT() and
PUBLISHER_POINT(): whoever comes there dies, fails or stands still (src/points.c,
src/publishers/points.c).
"""
import os
import random
import re
import signal
import subprocess
import time

import psycopg

from errors import surprise
from faults import fault
from rig import Broken
from server import HERE, POLL, wait_until

SOURCES = os.path.join(HERE, "..", "..", "src")
ACTIONS = ("kill", "error", "stall")
ERROR = "EOTST"
EXPECTED = (ERROR, "55006")     # there is a snapshot already
A_CYCLE = 3             # that many points one after the other
SECONDS = 60            # in which one is reached

# What the load does not do by itself, or not often enough
TURNING = "SELECT eo.create_consumer('turning', '1 second')"
RECEIVE = "SELECT eo.receive('turning', gen_random_uuid()::text)"
RECEIVE_AT = "SELECT load.consume_next('points', %s, NULL)"
REFUSING = ("CREATE SERVER refusing FOREIGN DATA WRAPPER eo_stub OPTIONS (script 'nack:permanent')",
            "SELECT eo.subscribe('refusing', '{stock}', server => 'refusing')")
NOT_REFUSING = ("SELECT eo.unsubscribe('refusing')", "DROP SERVER refusing")


def points_of(pattern):
    names = set()
    for directory, _, files in os.walk(SOURCES):
        for name in files:
            if name.endswith(".c"):
                with open(os.path.join(directory, name)) as f:
                    names.update(re.findall(pattern, f.read()))
    return sorted(names)


SERVER_POINTS = points_of(r"\bEO_POINT(?:_CRITICAL)?\((\w+)\)")
CRITICAL_POINTS = points_of(r"\bEO_POINT_CRITICAL\((\w+)\)")
PUBLISHER_POINTS = points_of(r"\bPUBLISHER_POINT\([\w>&-]+, (\w+)\)")


def names(consumers):
    return SERVER_POINTS + [name for name in PUBLISHER_POINTS if name.split("_")[0] in (*consumers, "harness")]


def pairs(consumers):
    """Points and what is done there; an error amid what cannot fail is a kill."""
    return [(name, action) for name in names(consumers) for action in ACTIONS if action != "error" or name not in CRITICAL_POINTS]


def comes_to(rig, name):
    """Whether somebody does: Kafka's are those of its transactions."""
    return not name.startswith("kafka") or any(getattr(one, "guarantee", "") == "exactly_once" for one in rig.consumers)


def chosen(rig):
    """
    Those of a cycle: each pair has its turn before one comes again.  A turn that
    falls to a rig that does not come there is passed over.
    """
    order = pairs([one.name for one in rig.consumers])
    random.Random("%s points" % rig.seed).shuffle(order)
    turns = [order[((rig.turn - 1) * A_CYCLE + i) % len(order)] for i in range(A_CYCLE)]
    return [one for one in turns if comes_to(rig, one[0])] or [one for one in order if comes_to(rig, one[0])][:1]


# ---- in the server -------------------------------------------------------------

class ServerPoint:
    def __init__(self, rig, name, action, nth):
        self.rig = rig
        self.action = action
        self.crashes = rig.server.log.crashes()
        rig.point = getattr(rig, "point", 0) + 2
        self.id = rig.point
        self.set("%s:%s:%d:%d" % (name, action, nth, self.id))

    def set(self, value):
        self.rig.server.query_nothing("ALTER SYSTEM SET eo_outbox.test_point = '%s'" % value)
        # Not by SQL: that connection might die before it is told.
        self.rig.server.process.send_signal(signal.SIGHUP)

    def reached(self):
        """What the process did that came there; None so far."""
        path = os.path.join(self.rig.server.data, "eo_points")
        if os.path.exists(path):
            with open(path) as f:
                for line in f:
                    if line.startswith("%d " % self.id):
                        return line.split()[2]
        return None

    def clear(self):
        """Returns when nobody acts any more, and the server is there."""
        off = "none:stall:1:%d" % (self.id + 1)

        def is_off():
            if self.reached() == "kill" and self.rig.server.log.crashes() == self.crashes:
                return False
            try:
                if self.rig.server.one("SHOW eo_outbox.test_point") == off:
                    return True
                self.set(off)
            except psycopg.Error:
                pass
            return False

        wait_until("test point ends", is_off)
        if self.reached() == "kill":
            log = self.rig.server.log
            wait_until("the crash is noticed", lambda: log.crashes() > self.crashes)
            log.planned += 1
            self.rig.server.wait_ready()


class PublisherPoint:
    def __init__(self, rig, name, action, nth):
        library = subprocess.check_output(["pg_config", "--pkglibdir"], env=rig.server.environment, text=True).strip()
        self.path = os.path.join(library, "eo_outbox", "eo_point")
        self.action = action
        self.done = False
        with open(self.path + ".new", "w") as f:
            f.write("%s %s %d\n" % (name, action, nth))
        os.rename(self.path + ".new", self.path)

    def reached(self):
        self.done = self.done or not os.path.exists(self.path)
        return self.action if self.done else None

    def clear(self):
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            self.done = True


# ---- what leads there ----------------------------------------------------------

def restart(rig, r):
    rig.server.shut_down(r.choice(("fast", "immediate")))
    rig.server.start()


def snapshot(rig, r):
    rig.server.query_nothing("SELECT eo.snapshot('load.account')")


def receive(rig, r):
    rig.server.query_nothing(RECEIVE)


def receive_at(rig, r):
    rig.server.query_nothing(RECEIVE_AT, rig.cycle)


def large(rig, r):
    """A transaction too large for its memory, and for one batch."""
    size = 1000
    txn = "%s.points.%d.%d" % (rig.name, rig.cycle, r.randrange(10 ** 9))
    with rig.server.connect(application_name="large") as connection:
        connection.execute("SET eo_outbox.buffer_memory = '64kB'")
        connection.execute("SELECT count(load.make(%s || '.' || i, %s, 'orders', %s || '.' || i, %s, %s, 200))"
                           " FROM generate_series(1, %s) AS i", (txn, rig.cycle, txn, txn, size, size))


def answer(rig, r):
    request = "points.%d" % r.randrange(10 ** 12)
    with rig.server.connect(application_name="answer") as connection, connection.transaction():
        connection.execute("SELECT eo.idempotency_begin('torture', %s, '{}')", (request,))
        connection.execute("SELECT eo.idempotency_complete('torture', %s, '{}')", (request,))


def load_lineage(rig, r):
    """At a start, or because somebody may have changed the table."""
    if r.random() < 0.5:
        restart(rig, r)
    else:
        rig.server.query_nothing("UPDATE eo.lineage SET floor_seq = floor_seq")


def nothing(rig, r):
    pass


LEADS = {"log": restart, "lineage": restart, "lineage_load": load_lineage, "lineage_loaded": load_lineage,
         "claim": answer, "relay_started": restart,
         "snapshot": snapshot, "generation": receive,
         "received_at": receive_at, "spill": large, "spilled": large, "append_between": large, "append_rows": large}


def lead_to(name):
    return LEADS.get(name) or LEADS.get(name.split("_")[0]) or nothing


def prepare(rig, name):
    if name.startswith("segment"):      # a relay that keeps up, or nothing can be truncated
        for setting in ("batch_events = '2000'", "max_in_flight = '50000'"):
            rig.server.query_nothing("ALTER SYSTEM SET eo_outbox." + setting)
    if name.startswith("generation"):
        rig.server.query_nothing(TURNING)


class Refusing:
    """A subscription whose broker refuses all events: a dead letter must come of each."""

    def __init__(self, rig):
        self.rig = rig
        with rig.rest():
            for statement in REFUSING:
                rig.server.query_nothing(statement)
            self.before = self.events()

    def events(self):
        return self.rig.server.one("SELECT count(*) FROM load.truth WHERE topic = 'stock'")

    def end(self):
        with self.rig.rest():
            self.rig.server.query_nothing("SELECT load.mark(%s, %s)", "%s.marker.%d.refused.%d" % (
                self.rig.name, self.rig.cycle, self.rig.turn), self.rig.cycle)
            expected = set(range(1, 1 + self.events() - self.before))      # its positions count from its beginning
            missing = []

            def all_refused():
                letters = {row[0] for row in self.rig.server.query("SELECT position FROM eo.dead_letters WHERE subscription = 'refusing'")}
                missing[:] = sorted(expected ^ letters)
                return not missing
            try:
                wait_until("all is refused", all_refused)
            except TimeoutError:
                raise Broken("%d dead letters are missing, or too many: %s" % (len(missing), missing[:10])) from None
            for statement in NOT_REFUSING:
                self.rig.server.query_nothing(statement)


# ---- the fault -----------------------------------------------------------------

def is_rare(name):
    return lead_to(name) is not nothing or name.split("_")[0] in ("segment", "tally", "dead")


def visit(rig, r, name, action):
    """Returns what was done to the one who came there; None if nobody did."""
    kind = PublisherPoint if name in PUBLISHER_POINTS else ServerPoint
    prepare(rig, name)
    refusing = Refusing(rig) if name.startswith("dead_letter") else None
    one = kind(rig, name, action, 1 if is_rare(name) else r.choice((1, 1, 2, 3, 10, 50)))
    lead = lead_to(name)
    try:
        until = time.monotonic() + SECONDS
        while one.reached() is None and time.monotonic() < until:
            try:
                lead(rig, r)
            except psycopg.Error as error:
                text = surprise(error, None, EXPECTED)
                if text:
                    raise Broken("who leads to %s got: %s" % (name, text)) from None
            time.sleep(POLL)
    finally:
        one.clear()
    if refusing:
        refusing.end()
    return one.reached()


@fault("points", moods=("calm", "nested"), expected=(ERROR,))
def point(rig, r):
    done = 0
    for setting in ("segment_size = '1MB'", "segment_age = '1s'", "retention = '0'"):
        rig.server.query_nothing("ALTER SYSTEM SET eo_outbox." + setting)
    for name, action in chosen(rig):
        reached = visit(rig, r, name, action)
        if not reached:
            raise Broken("nobody came to %s within %d s" % (name, SECONDS))
        rig.counts["point %s %s" % (name, reached)] += 1
        done += 1
    return done


def report(totals):
    """Lines that say how often each point was met, by action."""
    table = {}
    for key, count in totals.items():
        if key.startswith("point "):
            _, name, action = key.split(" ")
            table.setdefault(name, []).append("%s %d" % (action, count))
    return ["  point %-22s %s" % (name, ", ".join(sorted(table[name]))) for name in sorted(table)]


def summary(totals):
    """How many there are, and how many of them were met."""
    met = [key for key in totals if key.startswith("point ")]
    every = ("file", "kafka")
    return ("Of %d edges between two states, each with somebody killed, failed or stopped there, "
            "%d of %d pairs were met, some often." % (len(names(every)), len(met), len(pairs(every))))
