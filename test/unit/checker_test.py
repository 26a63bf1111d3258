#!/usr/bin/env python3
"""checker_test.py

The oracle of the torture rig (test/torture/checker.py, logs.py, watch.py): a history
in which all promises are kept gives nothing, and each one defect made up in it is found.
"""

import hashlib
import os
import sys
import tempfile
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "torture"))
import tap
from arrival import Arrival
from checker import Checker, Ledger, check_database
from errors import surprise
from logs import NO_WAL, PUBLISHERS, RECOVERY, Log, is_wrong
from watch import Watch

CYCLE = 1
CRASHED = 1000.0        # seconds since 1970
MARKER = "t.marker.1"
MESSAGES = ["m1.0", "m1.1", "m1.2"]
REQUESTS = ["r1.0", "r1.1"]


class History:
    """What a database holds, what two consumers have received of it, and what clients were told."""

    def __init__(self):
        self.truth = {}
        self.tables = {"load.account": {}, "load.fact": {}, "load.delta": {}}
        self.arrivals = {}
        self.phantoms = {"file": [], "pull": []}
        self.surprises = {"file": [], "pull": []}
        self.kept = {"t.0.1", "t.0.2", "t.0.3", "t.0.4"}
        self.effects = [("m1.0", "t.0.1"), ("m1.1", "t.0.2")]
        self.answers = [("r1.0", "t.0.1")]
        self.fresh = ["m1.2"]
        self.replayed = {"r1.0": "t.0.1"}
        self.acknowledged = [done("t.0.1", True, (("m1.0", True),), (("r1.0", "t.0.1"),)),
                             done("t.0.2", False, (("m1.0", False), ("m1.1", True)), (("r1.0", "t.0.1"),)),
                             done("t.0.3", True)]
        self.events = []
        self.fill()
        self.deliver()

    # ---- what happened -------------------------------------------------------

    def fill(self):
        self.make("t.0.1", ("orders", "k0"), ("stock", "k1"))
        self.make("t.0.2", ("orders", "k0"), ("orders", "k2"))
        for topic in self.tables:
            self.change(topic, 7, 1, "t.0.1")
            self.change(topic, 7, 2, "t.0.2")
            self.change(topic, 8, 1, "t.0.2")
            self.change(topic, 7, 3, "t.0.3")
        self.make("t.0.3", ("orders", "k0"))
        for topic in self.tables:
            self.change(topic, 8, None, "t.0.4")
            self.change(topic, 9, 1, "t.0.4")
        self.read("load.account", 7)
        self.read("load.fact", 9)
        self.make(MARKER, ("orders", MARKER), ("stock", MARKER))

    def event(self, topic, key, kind, payload):
        seq = 100 + 3 * len(self.events)
        position = 1 + sum(a.topic == topic for a in self.events)
        self.events.append(Arrival("all", seq, position, topic, "id-%d" % seq, kind, key, payload))
        return self.events[-1]

    def make(self, txn, *keys):
        for i, (topic, key) in enumerate(keys):
            n = 1 + sum((a.topic, a.key) == (topic, key) for a in self.events)
            name = MARKER if txn == MARKER else "%s.%d" % (txn, i)
            a = self.event(topic, key, topic, {"id": name, "n": n, "txn": txn, "size": len(keys), "filler": "aä€\"\n"})
            self.truth["%s %s" % (name, topic) if txn == MARKER else name] = (topic, key, n, txn, len(keys), a.event_id, a.digest)

    def change(self, topic, row, amount, txn):
        """To that amount; None: it is deleted."""
        key = str(row)
        old = self.tables[topic].pop(key, None)
        new = {"id": row, "amount": amount, "note": txn} if amount else None
        if new:
            self.tables[topic][key] = new
        kind = "deleted" if not new else "updated" if old else "inserted"
        if topic == "load.delta":
            payload = {name: {side: one[name] for side, one in (("old", old), ("new", new)) if one}
                       for name in ("id", "amount", "note") if not (old and new) or old[name] != new[name]}
        else:
            payload = new or (old if topic == "load.fact" else None)
        self.event(topic, key, "%s.%s" % (topic, kind), payload)

    def read(self, topic, row):
        self.event(topic, str(row), topic + ".read", dict(self.tables[topic][str(row)]))

    def deliver(self):
        for consumer in ("file", "pull"):
            self.arrivals[consumer] = list(self.events)

    # ---- what is seen of it --------------------------------------------------

    def query(self, sql, *parameters):
        """Of the database."""
        for table, rows in self.tables.items():
            if "FROM %s " % table in sql:
                return list(rows.items())
        if "load.ask_again" in sql:
            return [(self.fresh, self.replayed)]
        return {"load.truth": [(name, *row) for name, row in self.truth.items()], "load.kept": [(txn,) for txn in self.kept],
                "load.effect": self.effects, "load.answered": self.answers}[sql.split("FROM ")[1].split()[0]]

    @staticmethod
    def messages(cycle):
        return MESSAGES

    @staticmethod
    def requests(cycle):
        return REQUESTS

    def consumer(self, name):
        return SimpleNamespace(name=name, take=lambda: self.arrivals[name], phantoms=self.phantoms[name],
                               take_surprises=lambda: self.surprises[name])

    def broken(self, crashed=True):
        ledger = Ledger()
        found = []
        for name in self.arrivals:
            found += Checker(self, self.consumer(name), ledger).check(CYCLE)
        return found + check_database(self, self, CYCLE, CRASHED if crashed else 0)

    # ---- defects ---------------------------------------------------------------

    def place(self, topic, key, number, consumer="file"):
        """Where the event of that number is of a key."""
        return [i for i, a in enumerate(self.arrivals[consumer]) if (a.topic, a.key) == (topic, key)][number - 1]

    def lose(self, topic, key, number, close_gap=True):
        """For everybody; with later positions as if it had never been, or not."""
        for consumer, arrivals in self.arrivals.items():
            i = self.place(topic, key, number, consumer)
            arrivals[i:] = [a._replace(position=a.position - (a.topic == topic and close_gap)) for a in arrivals[i + 1:]]

    def alter(self, topic, key, number, /, consumers=("file", "pull"), payload=None, **fields):
        for consumer in consumers:
            i = self.place(topic, key, number, consumer)
            a = self.arrivals[consumer][i]
            self.arrivals[consumer][i] = a._replace(payload={**a.payload, **payload} if payload else a.payload, **fields)

    def swap(self, one, other):
        """They change their places, but not the numbers and positions that belong to these."""
        for consumer, arrivals in self.arrivals.items():
            i, j = self.place(*one, consumer), self.place(*other, consumer)
            a, b = arrivals[i], arrivals[j]
            arrivals[i] = b._replace(seq=a.seq, position=a.position)
            arrivals[j] = a._replace(seq=b.seq, position=b.position)


def done(txn, synchronous, received=(), answered=(), at=CRASHED - 1):
    return SimpleNamespace(txn=txn, synchronous=synchronous, received=received, answered=answered, at=at)


def expect(history, *texts, crashed=True):
    """That it complains, also in these words."""
    broken = history.broken(crashed)
    assert broken, "nothing was found"
    for text in texts:
        assert any(text in line for line in broken), broken


def test_clean():
    """a history that keeps all promises gives nothing"""
    assert History().broken() == []
    assert History().broken(crashed=False) == []


def test_digest():
    """the digest of a payload is that of the jsonb as text"""
    a = Arrival("all", 1, 1, "orders", "i", "orders", "k", {"size": 1, "id": "a\"\\\nü€", "n": 2})
    assert a.digest == hashlib.md5('{"n": 2, "id": "a\\"\\\\\\nü€", "size": 1}'.encode()).hexdigest()


# ---- events ------------------------------------------------------------------

def test_lost():
    """a lost event, with a gap in the positions and without"""
    for close_gap in (True, False):
        history = History()
        history.lose("orders", "k0", 2, close_gap)
        expect(history, "file: 1 events lost: t.0.2.0", "pull: 1 events lost", "1 of 2 events of transaction t.0.2", "event 3 of key")


def test_last_lost():
    """a lost event that no other of its key follows"""
    history = History()
    history.lose("orders", "k2", 1)
    expect(history, "1 events lost: t.0.2.1", "1 of 2 events of transaction t.0.2")


def test_lost_for_one():
    """an event that only one consumer lacks"""
    history = History()
    del history.arrivals["pull"][history.place("stock", "k1", 1)]
    expect(history, "pull: 1 events lost: t.0.1.1")
    assert not any(text.startswith("file") for text in history.broken())


def test_transaction_lost():
    """a transaction of which nothing came"""
    history = History()
    history.lose("orders", "k0", 3)
    expect(history, "1 events lost: t.0.3.0")


def test_gap():
    """a gap in the positions where nothing is lost"""
    history = History()
    history.alter("stock", MARKER, 1, position=3)
    expect(history, "position 3 of stock came for 2")


def test_position_twice():
    """a position that two events have"""
    history = History()
    history.alter("stock", MARKER, 1, position=1)
    expect(history, "position 1 of stock came for 2")


def test_rolled_back():
    """an event of a transaction that was rolled back"""
    history = History()
    del history.truth["t.0.3.0"]
    expect(history, "file: 1 phantoms: t.0.3.0")


def test_early():
    """an event that was not committed when it was received, though it was later"""
    history = History()
    history.phantoms["file"].append("t.0.3.0")
    expect(history, "file: 1 phantoms: t.0.3.0")


def test_twice():
    """an event that comes twice, under its own number or another one"""
    history = History()
    history.arrivals["file"].append(history.arrivals["file"][0])
    expect(history, "file: 1 events came twice: t.0.1.0", "seq 100 came after")
    history = History()
    history.arrivals["file"].append(history.arrivals["file"][0]._replace(seq=1000, position=6))
    expect(history, "file: 1 events came twice: t.0.1.0", "has the seq 1000 and 100")


def test_torn():
    """a part of a transaction, of whose rest the truth knows nothing either"""
    history = History()
    history.lose("orders", "k2", 1)
    del history.truth["t.0.2.1"]
    expect(history, "1 of 2 events of transaction t.0.2 came")


def test_seq_goes_back():
    """a seq that is below the one before, or the same"""
    for seq in (1, 100):
        history = History()
        history.alter("stock", "k1", 1, seq=seq)
        expect(history, "seq %d came after 100" % seq)


def test_stream_goes_on():
    """a seq that is below the last one of the cycle before"""
    history = History()
    checker = Checker(history, history.consumer("file"), Ledger())
    assert checker.check(1) == []
    history.truth.clear()
    history.arrivals["file"] = [history.events[0]._replace(seq=99, event_id="another")]
    assert any("seq 99 came after" in text for text in checker.check(2))


def test_order_of_key():
    """events of a key that swap, with numbers and positions that rise"""
    history = History()
    history.swap(("orders", "k0", 1), ("orders", "k0", 2))
    expect(history, "event 2 of key ('orders', 'k0') came for 1")


def test_payload():
    """a payload of which anything is not what was made"""
    for payload in ({"filler": "x"}, {"more": 1}, {"n": "2"}, {"size": 1}, {"txn": "t.0.1"}):
        history = History()
        history.alter("orders", "k0", 2, payload=payload)
        expect(history, "1 events are not what was made: t.0.2.0")


def test_foreign():
    """an event that no transaction of ours can have made"""
    for payload in (None, {}, {"x": 1}):
        history = History()
        for consumer, arrivals in history.arrivals.items():
            i = history.place("orders", "k2", 1, consumer)
            arrivals[i] = arrivals[i]._replace(payload=payload)
        expect(history, "1 events that nobody made: %s" % history.arrivals["file"][i].event_id, "1 events lost: t.0.2.1")


def test_place():
    """an event on another topic, or of another key"""
    for fields in ({"topic": "stock"}, {"key": "k5"}, {"key": None}):
        history = History()
        history.alter("orders", "k2", 1, **fields)
        expect(history, "1 events are not what was made: t.0.2.1")


def test_event_id():
    """another event_id than eo.enqueue() returned, for one consumer or all"""
    history = History()
    history.alter("orders", "k0", 2, event_id="another")
    expect(history, "file: 1 events are not what was made", "pull: 1 events are not what was made")
    history = History()
    history.alter("orders", "k0", 2, ("pull",), event_id="another")
    expect(history, "pull: 1 events are not what was made", "pull: 1 events are not the same for all")


def test_same_for_all():
    """an event that has another seq, type or payload for another consumer"""
    for fields in ({"seq": 101}, {"type": "another"}):
        history = History()
        history.alter("orders", "k0", 1, ("pull",), **fields)
        expect(history, "pull: 1 events are not the same for all")
    history = History()
    history.alter("load.fact", "7", 2, ("pull",), payload={"note": "t.0.1"})
    expect(history, "pull: 1 events are not the same for all")


def test_error():
    """an error that a consumer got"""
    history = History()
    history.surprises["pull"].append("XX000 it is broken")
    expect(history, "pull: it got: XX000")


# ---- captured tables -----------------------------------------------------------

def each_table():
    return ((History(), topic) for topic in ("load.account", "load.fact", "load.delta"))


def test_change_lost():
    """a lost change of a row, that others follow or not, the first and the last"""
    for number in (1, 2, 3):
        for history, topic in each_table():
            history.lose(topic, "7", number)
            expect(history, "of %s" % topic)


def test_change_twice():
    """a change that comes again as a new event"""
    for history, topic in each_table():
        for consumer, arrivals in history.arrivals.items():
            i = history.place(topic, "7", 2, consumer)
            again = arrivals[i]._replace(seq=arrivals[i].seq + 1, event_id="again", position=arrivals[i].position + 1)
            arrivals[i + 1:] = [again, *(a._replace(position=a.position + (a.topic == topic)) for a in arrivals[i + 1:])]
        expect(history, "updated of %s 7" % topic)


def test_changes_swap():
    """two changes of a row that swap"""
    for history, topic in each_table():
        history.swap((topic, "7", 2), (topic, "7", 3))
        expect(history, "updated of %s 7" % topic)


def test_delete_lost():
    """a row that is still there for who reads its events"""
    for history, topic in each_table():
        history.lose(topic, "8", 2)
        expect(history, "1 rows of %s differ from what its events say: 8" % topic)


def test_delete_nobody():
    """a row is deleted that nobody knows"""
    for history, topic in each_table():
        history.alter(topic, "8", 2, key="5")
        expect(history, "deleted of %s 5" % topic)


def test_change_of_nobody():
    """a row is updated that was never inserted"""
    for history, topic in each_table():
        history.lose(topic, "9", 1)
        history.alter(topic, "7", 3, key="9")
        expect(history, "updated of %s 9" % topic)


def test_insert_twice():
    """a row is inserted that is there"""
    for history, topic in each_table():
        history.alter(topic, "7", 2, type=topic + ".inserted")
        expect(history, "inserted of %s 7" % topic)


def test_unknown_kind():
    """a change of a kind that there is not"""
    for history, topic in each_table():
        history.alter(topic, "7", 2, type="orders")
        expect(history, "orders of %s 7" % topic)


def test_row_differs():
    """a row that another value was written to than its last event says"""
    for history, topic in each_table():
        history.tables[topic]["7"] = dict(history.tables[topic]["7"], note="t.0.9")
        expect(history, "1 rows of %s differ from what its events say: 7" % topic)


def test_old_side():
    """an old side that is not what the row was, of an update and of a deletion"""
    history = History()
    history.alter("load.delta", "7", 2, payload={"note": {"old": "t.0.9", "new": "t.0.2"}})
    expect(history, "updated of load.delta 7")
    history = History()
    history.alter("load.delta", "8", 2, payload={"amount": {"old": 5}})
    expect(history, "deleted of load.delta 8")
    history = History()
    history.alter("load.fact", "8", 2, payload={"amount": 5})
    expect(history, "deleted of load.fact 8")


def test_late_read():
    """a snapshot's row that is not what the row was at that place"""
    history = History()
    history.alter("load.account", "7", 4, payload={"amount": 2})
    expect(history, "read of load.account 7")
    history = History()
    history.alter("load.fact", "9", 2, key="8", payload={"id": 8})
    expect(history, "read of load.fact 8")


def test_afresh():
    """who begins with what the database holds follows from there"""
    history = History()
    checker = Checker(history, history.consumer("file"), Ledger())
    history.query, query = (lambda sql, *parameters: [("orders", "k0", 3)] if "load.key" in sql else query(sql, *parameters)), history.query
    checker.begin_afresh()
    history.truth.clear()
    for topic in history.tables:
        history.change(topic, 7, 4, "t.0.5")
    history.make("t.0.5", ("orders", "k0"))
    history.arrivals["file"] = [a._replace(position=1) for a in history.events[-4:]]
    assert checker.check(1) == []


# ---- the database --------------------------------------------------------------

def test_commit_gone():
    """an acknowledged commit is gone"""
    history = History()
    history.kept.remove("t.0.3")
    expect(history, "1 acknowledged commits are gone: t.0.3")


def test_asynchronous_commit_gone():
    """one that nobody waited for may be, but only if there was a crash after it"""
    history = History()
    history.kept.remove("t.0.2")
    assert history.broken(crashed=True) == []
    history.acknowledged[1].at = CRASHED + 1
    expect(history, "1 acknowledged commits are gone: t.0.2")
    expect(history, "1 acknowledged commits are gone: t.0.2", crashed=False)


def test_effect_twice():
    """a message with two effects"""
    history = History()
    history.effects.append(("m1.0", "t.0.3"))
    expect(history, "1 messages had effects twice: m1.0")


def test_effect_missing():
    """a message that was received, or said to be received before, without an effect"""
    history = History()
    history.effects.remove(("m1.0", "t.0.1"))
    history.fresh.append("m1.0")
    expect(history, "1 messages received by t.0.1 had no effect: m1.0")
    history = History()
    history.acknowledged[2] = done("t.0.3", True, (("m1.2", False),))
    expect(history, "1 messages received by t.0.3 had no effect: m1.2")


def test_effect_of_another():
    """a message that was new for two"""
    history = History()
    history.acknowledged[2] = done("t.0.3", True, (("m1.0", True),))
    expect(history, "1 messages received by t.0.3 had no effect: m1.0")


def test_inbox_forgets():
    """a message that had its effect and would be received again"""
    history = History()
    history.fresh.append("m1.1")
    expect(history, "1 messages with an effect would be received again: m1.1")


def test_inbox_lies():
    """a message without effect that would not be received any more"""
    history = History()
    history.fresh.remove("m1.2")
    expect(history, "1 messages without an effect would not be received: m1.2")


def test_answer_twice():
    """a request that was carried out twice"""
    history = History()
    history.answers.append(("r1.0", "t.0.3"))
    expect(history, "1 requests had effects twice: r1.0")


def test_answer_missing():
    """an acknowledged request that was not carried out"""
    history = History()
    history.acknowledged[2] = done("t.0.3", True, (), (("r1.1", "t.0.3"),))
    expect(history, "1 requests were answered otherwise to t.0.3: r1.1")


def test_wrong_replay():
    """an answer that is not the one that was stored"""
    history = History()
    history.acknowledged[2] = done("t.0.3", True, (), (("r1.0", "t.0.3"),))
    expect(history, "1 requests were answered otherwise to t.0.3: r1.0")


def test_answer_again():
    """a request that would be answered otherwise, carried out again, or not carried out, if it came once more"""
    for replayed in ({"r1.0": "t.0.3"}, {"r1.0": None}, {}, {"r1.0": "t.0.1", "r1.1": "t.0.1"}):
        history = History()
        history.replayed = replayed
        expect(history, "1 requests would be answered otherwise if they came again")


# ---- errors --------------------------------------------------------------------

def error(state):
    result = Exception("it failed")
    result.sqlstate = state
    return result


def test_surprises():
    """only a lost connection and a conflict are excused, and what is expected"""
    there, gone = SimpleNamespace(closed=False), SimpleNamespace(closed=True)
    for state in ("57P01", "57P02", "57P03", "08006", "40001", "40P01"):
        assert surprise(error(state), there, ()) is None
    for state in ("57014", "57P04", "55P03", "53100", "XX000", "55000", "42704"):
        assert state in surprise(error(state), there, ())
        assert surprise(error(state), there, ("22000", state)) is None
    assert surprise(error(None), gone, ()) is None
    assert surprise(error(None), None, ()) is None
    assert surprise(error(None), there, ()) == "Exception it failed"


# ---- logs ----------------------------------------------------------------------

def test_log():
    """a process that ends by itself, a publisher included, unless that was the intention"""
    line = "2026-01-02 03:04:05.678 UTC [7] eo_outbox relay 00000 LOG:  subscription \"file\": the publisher %s"
    for ending in ("was killed by signal 11: Segmentation fault", "was killed by signal 6: Aborted", "exited with status 2",
                   "exited with status 127"):
        assert is_wrong(line % ending, ())
        assert not is_wrong(line % ending, (PUBLISHERS,))
    for ending in ("was killed by signal 9: Killed", "was killed by signal 15: Terminated", "exited with status 1: no such host"):
        assert not is_wrong(line % ending, ())
    server = "2026-01-02 03:04:05.678 UTC [7]  00000 LOG:  server process (PID 9) was terminated by signal %d: x"
    assert is_wrong(server % 11, ()) and not is_wrong(server % 9, ())


def complaints(expected, *lines, planned=0):
    """Of (process id, who, SQLSTATE and severity, text)."""
    with tempfile.NamedTemporaryFile("w", suffix=".log") as f:
        f.writelines("2026-01-02 03:04:05.678 UTC [%d] %s %s:  %s\n" % line for line in lines)
        f.flush()
        log = Log(f.name)
        log.planned = planned
        return [text.split(":  ")[-1] for text in log.complaints((0, 0, 0), expected)]


def signalled(pid, number):
    return 1, "postmaster", "00000 LOG", "server process (PID %d) was terminated by signal %d: x" % (pid, number)


NO_ROOM = "could not write to file \"pg_wal/xlogtemp.1\": No space left on device"
PANIC = (7, "client backend", "53100 PANIC", NO_ROOM)
BEGUN = (8, "startup", "00000 LOG", "database system " + RECOVERY)
STUCK = (8, "startup", "53100 FATAL", NO_ROOM)


def test_no_room_for_wal():
    """it accounts for one crash each time, for the signal of who has said so, and for nothing where WAL has room"""
    expected = ("53100", NO_WAL)
    full = (PANIC, (9, *PANIC[1:]), signalled(7, 6), BEGUN, STUCK, BEGUN)
    assert complaints(expected, *full) == []
    assert complaints(expected, *full, BEGUN) == ["the server crashed 3 times where 2 were planned"]
    assert complaints(expected, *full, BEGUN, planned=1) == []
    assert complaints(expected, PANIC, signalled(7, 11), BEGUN) == [signalled(7, 11)[3]]
    assert complaints(expected, signalled(5, 6), PANIC, BEGUN) == [signalled(5, 6)[3]]
    assert complaints(expected, (7, "client backend", "XX000 PANIC", "x")) == ["x"]
    assert complaints(expected, (7, "client backend", "53100 FATAL", NO_ROOM), BEGUN) == ["the server crashed 1 times where 0 were planned"]
    assert complaints(("53100",), PANIC, signalled(7, 6), BEGUN) == [NO_ROOM, signalled(7, 6)[3],
                                                                     "the server crashed 1 times where 0 were planned"]
    assert complaints(("53100",), signalled(7, 11)) == [signalled(7, 11)[3]]


def test_recovered_at():
    """the last of the crashes that a log tells of"""
    with tempfile.NamedTemporaryFile("w", suffix=".log") as f:
        assert Log(f.name).recovered_at() is None
        f.write("".join("1970-01-01 00:0%d:00.500 UTC [7]  00000 LOG:  database system %s\n" % (minute, RECOVERY) for minute in (1, 2)))
        f.flush()
        assert Log(f.name).recovered_at() == 120.5


# ---- leaks ---------------------------------------------------------------------

def watched(samples):
    watch = Watch()
    watch.step = 1024
    for kilobytes, files in samples:
        watch.note(7, kilobytes, files)
    return watch.leaks(7)


def test_leaks():
    """what grows all the time is a leak, also amid what comes and goes; a buffer that stays for some cycles is none"""
    sawtooth = [4800 + 450 * (number % 7) for number in range(60)]
    rarely = [4900] * 17 + [6000] * 14 + [4900] + [7000] * 13
    assert watched([(kilobytes, 50) for kilobytes in sawtooth]) == []
    assert watched([(kilobytes, 50) for kilobytes in rarely]) == []
    leaking = [kilobytes + 80 * number for number, kilobytes in enumerate(sawtooth)]
    assert watched([(kilobytes, 50) for kilobytes in leaking]) == ["process 7 grows: 6450, 7600, 8720 kB"]
    assert watched([(4800, 50 + number) for number in range(60)]) == ["process 7 opens ever more files: 65, 80, 95"]


tap.main(globals())
