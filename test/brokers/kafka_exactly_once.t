#!/usr/bin/env python3
"""Kafka, exactly once: whatever is killed, a reader of committed messages sees
every event once and in order."""
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "kafka"))
from rig import Broker, Tap, driver  # noqa: E402

tap = Tap()
SEED = int(os.environ.get("EO_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("EO_KILLS") or 15)
EXACTLY_ONCE = {"guarantee": "exactly_once"}


class Relay:
    """What the relay does: sends from where the broker says, keeps its own
    cursor, and starts another publisher when one is gone."""

    def __init__(self, topics, identity, server=EXACTLY_ONCE, window=5000, fields=None):
        self.topics = topics
        self.identity = identity
        self.server = server
        self.window = window
        self.fields = fields or (lambda seq: {})
        self.cursor = 0
        self.dead = {}
        self.starts = []
        self.problems = []

    def publisher(self):
        p = broker.publisher(server=self.server, identity=self.identity,
                             published_seq=self.cursor)
        try:
            ready = p.wait_ready()
        except driver.Ended:
            p.wait_end()
            raise
        if ready["knows_position"]:
            self.starts.append(ready["last_seq"])
            if ready["last_seq"] < self.cursor:
                self.problems.append("the broker knows %d, the cursor is %d"
                                     % (ready["last_seq"], self.cursor))
            self.next = max(self.cursor, ready["last_seq"]) + 1
        else:
            self.next = self.cursor + 1
        # What the broker has already is not in flight.
        self.base = self.next - 1
        return p

    def settle(self, p):
        """Moves the cursor to the last ACK, and keeps dead letters."""
        for nack in p.messages("N"):
            if nack["permanent"]:
                self.dead[nack["seq"]] = nack["reason"]
        self.cursor = max(self.cursor, p.acked)

    def feed(self, p, last, until=None):
        """Sends up to `last`; stops early when until() is true."""
        while p.acked < last and not (until and until()):
            burst = []
            while self.next <= last and self.next - max(p.acked, self.base) < self.window \
                    and len(burst) < 200:
                burst.append(driver.event_frame(
                    self.next, topic=self.topics[self.next % len(self.topics)],
                    key="key-%d" % (self.next % 50), **self.fields(self.next)))
                self.next += 1
            if burst:
                p.send(b"".join(burst))
                p.drain()
            else:
                p.drain(0.001)


def check_topics(topics, last, name, missing=()):
    seen = []
    for number, topic in enumerate(topics):
        records = broker.dump(topic)
        seqs = [r["seq"] for r in records]
        seen += seqs
        for partition in {r["partition"] for r in records}:
            part = [r["seq"] for r in records if r["partition"] == partition]
            if part != sorted(part):
                tap.ok(False, "%s: %s partition %d in order" % (name, topic, partition))
    tap.ok(len(seen) == len(set(seen)), "%s: nothing twice" % name)
    tap.same(sorted(set(range(1, last + 1)) - set(missing) - set(seen))[:20], [],
             "%s: nothing lost" % name)
    tap.same(sorted(set(seen) & set(missing)), [], "%s: nothing refused arrives" % name)


def test_kill():
    """kill -9 of the publisher at random moments"""
    tap.note("EO_SEED=%d" % SEED)
    dice = random.Random(SEED)
    topics = ["kill.a", "kill.b"]
    for topic in topics:
        broker.create(topic, 2)
    relay = Relay(topics, "kill")
    last = KILLS * 3000
    lost_cursors = 0
    for kill in range(KILLS + 1):
        p = relay.publisher()
        target = min(last, relay.next + dice.randrange(1, 5000)) if kill < KILLS else last
        try:
            if kill < KILLS:
                sent = relay.next + dice.randrange(1, 5000)
                moment = driver.time.monotonic() + dice.random() * 0.3
                relay.feed(p, min(last, sent), until=lambda: driver.time.monotonic() > moment)
                p.kill()
            else:
                relay.feed(p, last)
                tap.same(p.stop(), 0, "the last one stops when asked")
        finally:
            try:
                p.drain()
            except driver.Ended:
                pass
            p.close()
        # Now and then the relay has lost what it knew as well.
        if dice.random() < 0.7:
            relay.settle(p)
        else:
            lost_cursors += 1
    tap.ok(relay.cursor == last or p.acked == last, "all are acknowledged")
    tap.same(relay.problems, [], "the broker never knows less than was acknowledged")
    tap.note("%d kills, %d lost cursors" % (KILLS, lost_cursors))
    check_topics(topics, last, "after %d kills" % KILLS)


def test_resume():
    """The position survives publisher, broker and a lost cursor"""
    broker.create("resume")
    with broker.publisher(server=EXACTLY_ONCE, identity="resume") as p:
        tap.same(p.wait_ready(), {"version": 1, "knows_position": True, "last_seq": 0}, "no position at first")
        for seq in (1, 2, 1 << 44):
            p.send_event(seq, topic="resume")
        p.wait_ack(1 << 44)
        p.stop()
    tap.same([(o["topic"], o["partition"], o["offset"])
              for o in broker.offsets("eo_outbox.resume")],
             [("eo_outbox.positions", 0, 1 << 44)], "the position is in the position topic's group")
    broker.stop()
    broker.start()
    with broker.publisher(server=EXACTLY_ONCE, identity="resume") as p:
        tap.same((p.wait_ready()["knows_position"], p.messages("R")[0]["last_seq"]),
                 (True, 1 << 44), "it is there after the broker's restart")
        p.send_event((1 << 44) + 1, topic="resume")
        p.wait_ack((1 << 44) + 1)
        p.send_event(2, topic="resume", flags=driver.RETRY | driver.JSON)
        tap.same(p.wait_message("T"), {"number": 2}, "a dead letter is answered")
        p.stop()
    tap.same(broker.offsets("eo_outbox.resume")[0]["offset"], (1 << 44) + 1,
             "and does not move the position")
    tap.same(broker.seqs("resume"), [1, 2, 1 << 44, (1 << 44) + 1, 2], "all in order")
    with broker.publisher(server=EXACTLY_ONCE, identity="resume-2") as p:
        tap.same(p.wait_ready()["last_seq"], 0, "another identity has its own")


def test_position_topic():
    """Positions beside a topic of one's own, which is made"""
    broker.create("beside")
    server = {**EXACTLY_ONCE, "position_topic": "shop.positions"}
    for seq in (1, 2):
        with broker.publisher(server=server, identity="beside") as p:
            tap.same(p.wait_ready()["last_seq"], seq - 1, "the position is %d" % (seq - 1))
            p.send_event(seq, topic="beside")
            p.wait_ack(seq)
            p.stop()
    tap.same([(o["topic"], o["offset"]) for o in broker.offsets("eo_outbox.beside")], [("shop.positions", 2)],
             "it is kept beside that topic only")


def test_seek():
    """What is sent again on purpose is sent"""
    broker.create("seek")
    with broker.publisher(server=EXACTLY_ONCE, identity="seek") as p:
        p.wait_ready()
        for seq in range(1, 11):
            p.send_event(seq, topic="seek")
        p.wait_ack(10)
        p.stop()
    with broker.publisher(server=EXACTLY_ONCE, identity="seek", published_seq=4) as p:
        p.wait_ready()
        for seq in range(5, 8):
            p.send_event(seq, topic="seek")
        p.wait_ack(7)
        p.stop()
    tap.same(broker.seqs("seek"), list(range(1, 11)) + [5, 6, 7], "events before the position")
    tap.same(broker.offsets("eo_outbox.seek")[0]["offset"], 7, "and the position follows")


def test_refused_and_killed():
    """A refused event is not forgotten when both ends die"""
    broker.create("refused", 1, max_message_bytes=10000)
    large = {"payload": b'"%s"' % (b"x" * 20000)}
    with broker.publisher(server=EXACTLY_ONCE, identity="refused") as p:
        p.wait_ready()
        for seq in range(1, 21):
            p.send_event(seq, topic="refused", **(large if seq in (5, 12, 20) else {}))
        p.wait_ack(20)
        # An event behind the last refused one, so that the position covers it.
        p.send_event(21, topic="refused")
        p.wait_ack(21)
        p.kill()
    tap.same(broker.offsets("eo_outbox.refused")[0]["offset"], 21, "the position covers them")
    relay = Relay(["refused"], "refused", fields=lambda seq: large if seq in (5, 12, 20) else {})
    p = relay.publisher()
    tap.same(relay.starts, [4], "a relay that has seen none of it starts before the first")
    relay.feed(p, 25)
    relay.settle(p)
    p.stop()
    tap.same(sorted(relay.dead), [5, 12, 20], "all are refused again")
    tap.same(broker.seqs("refused"), [s for s in range(1, 26) if s not in (5, 12, 20)],
             "and nothing is sent twice")
    relay.publisher().stop()
    tap.same(relay.starts[1:], [25], "a relay that has seen all of it starts behind")


def test_zombie():
    """A publisher that was thought dead"""
    broker.create("zombie")
    zombie = broker.publisher(server=EXACTLY_ONCE, identity="zombie")
    zombie.wait_ready()
    zombie.send_event(1, topic="zombie")
    zombie.wait_ack(1)
    with broker.publisher(server=EXACTLY_ONCE, identity="zombie") as p:
        tap.same(p.wait_ready()["last_seq"], 1, "its successor knows what it did")
        zombie.send_event(2, topic="zombie", payload=b'"zombie"')
        tap.same(zombie.wait_end(), 1, "the zombie ends")
        tap.ok("fenced" in zombie.messages("N")[-1]["reason"]
               and not zombie.messages("N")[-1]["permanent"] and zombie.acked == 1,
               "it was fenced, and acknowledges nothing")
        p.send_event(2, topic="zombie", payload=b'"successor"')
        p.wait_ack(2)
        p.stop()
    zombie.close()
    tap.same([r["value"] for r in broker.dump("zombie")], ["{}", '"successor"'],
             "only the successor writes")


def test_uncommitted():
    """A killed publisher's open transaction"""
    broker.create("open")
    server = {**EXACTLY_ONCE, "batch.size": "100000"}
    relay = Relay(["open"], "open", server=server, window=100000)
    p = relay.publisher()
    relay.feed(p, 20000, until=lambda: relay.next > 20000)
    p.kill()
    p.close()
    relay.settle(p)
    p = relay.publisher()
    relay.feed(p, 20000)
    p.stop()
    relay.settle(p)
    check_topics(["open"], 20000, "killed in the middle")


def test_idle():
    """An idle publisher does nothing"""
    broker.create("idle")
    with broker.publisher(server=EXACTLY_ONCE, identity="idle") as p:
        p.wait_ready()
        p.send_event(1, topic="idle")
        p.wait_ack(1)
        p.ping(1)

        def switches():
            with open("/proc/%d/task/%d/status" % (p.process.pid, p.process.pid)) as f:
                return int([line.split()[1] for line in f
                            if line.startswith("voluntary_ctxt_switches")][0])
        # The main thread has answered and is about to wait; then it waits on.
        subprocess.run(["sh", "-c", "while [ \"$(cut -d' ' -f3 /proc/%d/stat)\" != S ]; do :; done"
                        % p.process.pid], check=True, timeout=30)
        before = switches()
        p.drain(2)
        tap.same(switches() - before, 0, "its main thread is not woken in two seconds")
        p.stop()


with Broker() as broker:
    status = tap.run(test_resume, test_position_topic, test_seek, test_refused_and_killed, test_zombie,
                     test_uncommitted, test_idle, test_kill)
sys.exit(status)
