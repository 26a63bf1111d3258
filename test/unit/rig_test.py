#!/usr/bin/python3
"""rig_test.py

What the torture rig sees by itself, beside what it asks the checker
(checker_test.py): its consumers at receipt, its speed, what it excuses, and who
leads to a point.
"""

import io
import os
import random
import sys
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace

import psycopg

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "torture"))
import kills
import leaks
import outages
import points
import tap
import torture
import transactions
from application import Load
from arrival import Arrival
from consumers import Consumer, KafkaAtLeastOnce, Pull
from faults import Fault, as_part
from logs import PUBLISHERS
from notes import NOTES
from results import Results
from rig import COMMIT_SECONDS, LAG_SECONDS, SETTLE_SECONDS, AtLeastOnceRig, Broken, Rig
from watch import Watch


def arrival(seq, **payload):
    return Arrival("orders", seq, seq, "orders", "id-%d" % seq, "orders", "k", payload)


# ---- consumers -----------------------------------------------------------------

class Connection:
    """To a database that has these events, and no others; transactions are only begun and undone."""

    closed = False

    def __init__(self, true, fetched=()):
        self.true = true
        self.fetched = fetched
        self.acknowledged = []

    @contextmanager
    def transaction(self):
        try:
            yield self
        except psycopg.Rollback:
            pass

    def execute(self, sql, parameters):
        if "eo.fetch" in sql:
            last = max((a.seq for a in self.fetched), default=None)
            return SimpleNamespace(fetchone=lambda: (last, [a.payload["id"] for a in self.fetched] or None))
        if "eo.ack" in sql:
            self.acknowledged.append(parameters[1])
            return None
        return [(name,) for name in parameters[0] if name not in self.true]


def pull():
    return Pull(None, "pull")


def test_early():
    """who pulls an event that is not committed says so, also if the batch is undone"""
    events = [arrival(1, id="t.0.1.0"), arrival(2, id="t.0.2.0")]
    for undo in (False, True):
        consumer = pull()
        consumer.turn(Connection(["t.0.1.0", "t.0.2.0"], events), undo)
        assert consumer.phantoms == []
        connection = Connection(["t.0.1.0"], events)
        consumer.turn(connection, undo)
        assert consumer.phantoms == ["t.0.2.0"]
        assert connection.acknowledged == [2]


class Once(Consumer):
    """Receives that, and nothing more."""

    def __init__(self, server, *arrivals):
        super().__init__(server, "once")
        self.news_to_come = list(arrivals)

    def news(self):
        news, self.news_to_come = self.news_to_come, []
        if not news and not self.unchecked:
            self.ending.set()
        return news


def test_received():
    """who receives an event that is not committed says so; a marker need not be"""
    server = SimpleNamespace(connect=lambda **options: Connection(["t.0.1.0"]))
    consumer = Once(server, arrival(1, id="t.0.1.0", txn="t.0.1"), arrival(2, id="t.0.2.0", txn="t.0.2"),
                    arrival(3, id="t.marker.1", txn="t.marker.1"))
    consumer.run()
    assert consumer.phantoms == ["t.0.2.0"]
    assert consumer.markers == {("t.marker.1", "orders")}


def at_least_once():
    consumer = KafkaAtLeastOnce.__new__(KafkaAtLeastOnce)
    consumer.seen, consumer.markers, consumer.unchecked, consumer.unexpected = {}, set(), [], []
    return consumer


def test_again():
    """what comes again is taken once, in this cycle or a later one, and must be the same"""
    consumer = at_least_once()
    one, two = arrival(1, id="a"), arrival(2, id="b")
    consumer.arrivals = [one, two, arrival(1, id="a"), arrival(2, id="b")]
    assert consumer.take() == [one, two]
    consumer.arrivals = [arrival(2, id="b"), arrival(3, id="c")]
    assert consumer.take() == [arrival(3, id="c")]
    assert consumer.take_surprises() == []
    consumer.arrivals = [arrival(2, id="x")]
    assert consumer.take() == []
    assert consumer.take_surprises() == ["seq 2 came again, and is another event"]


# ---- speed -----------------------------------------------------------------------

def what_is_said(worst, commit, group):
    rig = SimpleNamespace(worst=worst, group=group, load=SimpleNamespace(clients=[SimpleNamespace(slowest=commit)]))
    return Rig.check_speed(rig)


def test_speed():
    """a lag that is small again too late; a commit that waits for a broker"""
    limit = SETTLE_SECONDS + LAG_SECONDS
    assert what_is_said(limit, COMMIT_SECONDS, "broker") == []
    assert what_is_said(None, 60, "kill") == []
    assert what_is_said(limit + 0.1, 0, "kill") == ["the lag was small again after %.1f s" % (limit + 0.1)]
    assert what_is_said(1, COMMIT_SECONDS + 0.1, "broker") == ["a commit took %.1f s" % (COMMIT_SECONDS + 0.1)]


# ---- faults ----------------------------------------------------------------------

def test_excuses():
    """amid a series, too, a publisher may crash only where somebody sends it such signals"""
    excused = {run.__name__ for run in (*outages.DISTURBANCES, *leaks.SURVIVED) if PUBLISHERS in as_part("kill", run).expected}
    assert excused == {"publisher"}
    assert as_part("broker", kills.publisher).group == "broker"
    assert as_part("kill", transactions.aborted).moods == ("aborting",)
    assert as_part("kill", test_excuses) == Fault("kill", "test_excuses", test_excuses)


def test_load():
    """a load of which nothing was acknowledged, or next to nothing"""
    for acknowledged, again, expected in (
            (0, 0, ["no transaction of the load was acknowledged"]), (1, 0, []), (30, 50, []),
            (30, 51, ["51 transactions must be done again, and 30 were acknowledged"])):
        load = SimpleNamespace(acknowledged=["t.0.1"] * acknowledged, clients=[SimpleNamespace(again=again), SimpleNamespace(again=0)])
        assert Rig.check_load(SimpleNamespace(load=load)) == expected


def test_guarantees():
    """both of Kafka's have their turn, with every seed, and nobody waits at a point of the other one"""
    for seed in ("1", "2", "3"):
        kinds = [torture.Torture.kind(SimpleNamespace(seed=seed), cycle) for cycle in range(1, 1 + 2 * torture.A_RIG)]
        assert {kinds.count(kind) for kind in (Rig, AtLeastOnceRig)} == {torture.A_RIG}
    for guarantee, met in (("exactly_once", True), ("at_least_once", False)):
        consumers = [SimpleNamespace(name="file"), SimpleNamespace(name="kafka", guarantee=guarantee)]
        names = {name for turn in range(1, 80) for name, _ in points.chosen(SimpleNamespace(seed="1", turn=turn, consumers=consumers))}
        assert ("kafka_commit" in names) == met and {"harness_ack", "file_sync", "relay_read"} <= names


# ---- leaks -----------------------------------------------------------------------

class LongLived:
    """A rig whose process has that memory and id after each cycle."""

    def __init__(self, kilobytes, pid=lambda number: 7):
        self.watch, self.kilobytes, self.pid, self.number = Watch(), kilobytes, pid, 0

    def run(self, number, fault, r):
        self.number = number
        self.watch.note(self.find(self)["it"], self.kilobytes(number), 9)

    @staticmethod
    def find(rig):
        return {"it": rig.pid(rig.number)}


def outcome(rig):
    try:
        leaks.live_through(rig, leaks.SURVIVED, rig.find, None)
    except Broken as broken:
        return str(broken)
    return ""


def test_long_lived():
    """what lives through many cycles neither grows nor is another one in the end, and is looked at each time"""
    assert outcome(LongLived(lambda number: 5000)) == ""
    assert outcome(LongLived(lambda number: 5000 + 1000 * number)) .startswith("it has grown by 9000 kB: 6000 7000 ")
    assert outcome(LongLived(lambda number: 5000, lambda number: 7 + (number > 9))) == "it was started anew"
    blind = LongLived(lambda number: 5000)
    blind.watch.note = lambda *sample: None
    assert outcome(blind) == "it was looked at 0 times"


# ---- failures ----------------------------------------------------------------------

def test_logs_of_all():
    """a failure amid a shared rig shows the logs of the server and of the broker"""
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(io.StringIO()) as said:
        round_ = torture.Torture(SimpleNamespace(seed="1", directory=directory, kafka=True))
        round_.rig = SimpleNamespace(directory=os.path.join(directory, "rig1"), server=SimpleNamespace(stop=lambda: None), close=lambda: None)
        for name in ("server", "kafka"):
            os.makedirs(os.path.join(round_.rig.directory, name))
            with open(os.path.join(round_.rig.directory, name, "server.log"), "w") as f:
                f.write("%s says why\n" % name)
        round_.failed(3, Fault("broker", "dies", None), "an event was lost")
        assert os.path.exists(os.path.join(directory, "failed3", "kafka", "server.log"))
    assert all("| %s says why" % name in said.getvalue() for name in ("server", "kafka"))


# ---- disturbances ------------------------------------------------------------------

def said_by(function, *arguments):
    try:
        return function(*arguments)
    except Broken as broken:
        return str(broken)


def recover(*amid):
    """As often as the server recovers, whether it was killed amid that."""
    rig = SimpleNamespace(server=SimpleNamespace(start=lambda: None, kill_all=lambda: None), counts=Counter())
    left = iter(amid)
    before = kills.kill_recovery, kills.time
    kills.kill_recovery, kills.time = (lambda rig, pause: next(left, False)), SimpleNamespace(sleep=lambda seconds: None)
    try:
        done = said_by(kills.recovery, rig, random.Random(1))
    finally:
        kills.kill_recovery, kills.time = before
    return done, rig.counts["recoveries"]


def test_recovery():
    """of some recoveries one at least is killed amid its work"""
    assert recover() == ("each recovery was over before it was killed", 0)
    assert recover(False, True) == (1 + 2 * kills.ATTEMPTS + 1, 1)
    assert recover(*[True] * 6) == (3 + 1, 3)


def commits(each):
    """A rig where as many commits are acknowledged while it is waited."""
    acknowledged = []
    before = outages.time
    clock = iter(range(1000))
    outages.time = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: acknowledged.extend([None] * each))
    try:
        return said_by(outages.watch_commits, SimpleNamespace(load=SimpleNamespace(acknowledged=acknowledged)), 3)
    finally:
        outages.time = before


def test_commits():
    """while the broker is away, commits go on"""
    assert commits(1) is None
    assert commits(0) == "nothing was committed for %d s" % COMMIT_SECONDS


def test_trickle():
    """one client alone goes on, and then all do"""
    load = Load.__new__(Load)
    load.running, load.trickling = threading.Event(), False
    asked = []
    load.clients = [SimpleNamespace(number=i, unexpected=[], rests=SimpleNamespace(clear=lambda: None, wait=lambda seconds, i=i: asked.append(i) or True))
                    for i in range(3)]
    load.resume()
    with load.trickle():
        assert asked == [1, 2] and not load.running.is_set()
        assert [load.trickles(i) for i in range(3)] == [True, False, False]
    assert load.running.is_set() and not load.trickles(0)
    load.pause()
    assert asked == [1, 2, 0, 1, 2]


# ---- results -----------------------------------------------------------------------

def test_results():
    """say how many of the cycles are controls, and keep what somebody has noted"""
    results = Results()
    for name in ("backend", "control_orphan", "control_orphan"):
        results.add(Fault("kill", name, None), {}, None, 1)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "RESULTS.md")
        results.write(path, "1", 1, path)
        with open(path) as f:
            text = f.read()
        assert "\n2 of the cycles are controls" in text
        with open(path, "w") as f:
            f.write(text.replace(NOTES[0], NOTES[0] + "\nThis is why.\n\nAnd that."))
        results.write(path, "2", 1, path)
        with open(path) as f:
            assert "\n\n%s\nThis is why.\n\nAnd that.\n%s\n\n" % NOTES in f.read()


# ---- points ----------------------------------------------------------------------

def visit(error):
    """A point that is reached by the second who leads there; the first gets that error."""
    led = []

    class Point:
        def __init__(self, rig, name, action, nth):
            pass

        def reached(self):
            return "kill" if len(led) > 1 else None

        def clear(self):
            led.append("cleared")

    def lead(rig, r):
        led.append("came")
        if len(led) == 1:
            raise error

    before = points.LEADS["claim"], points.ServerPoint
    points.LEADS["claim"], points.ServerPoint = lead, Point
    try:
        return points.visit(None, random.Random(1), "claim_change", "kill")
    finally:
        points.LEADS["claim"], points.ServerPoint = before
        assert led[-1] == "cleared"


def test_lead():
    """who leads to a point may get its error, or lose the server, and nothing else"""
    class AtPoint(psycopg.Error):
        sqlstate = points.ERROR

    assert visit(AtPoint("test point")) == "kill"
    assert visit(psycopg.errors.CannotConnectNow("starting up")) == "kill"
    try:
        visit(psycopg.errors.UniqueViolation("twice"))
    except Broken as broken:
        assert str(broken) == "who leads to claim_change got: 23505 twice"
    else:
        raise AssertionError("nothing was said")


tap.main(globals())
