#!/usr/bin/env python3
"""Kafka: a broker that hangs, dies and comes back, under both guarantees."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "kafka"))
from rig import EXECUTABLE, Broker, Tap, driver, first_appearances  # noqa: E402

tap = Tap()
EVENTS = 30000


def frames(topic, first, last):
    return b"".join(driver.event_frame(seq, topic=topic, key="k") for seq in range(first, last + 1))


def publisher(mode, identity, published_seq=0):
    return broker.publisher(server={"guarantee": mode}, identity=identity,
                            published_seq=published_seq)


def deliver(mode, topic, disturb):
    """Sends all events, and disturbs after the first ACK.  A publisher that
    gives up is replaced, as the relay does."""
    acked, restarts, reasons = 0, 0, []
    p = publisher(mode, topic)
    p.wait_ready()
    p.send(frames(topic, 1, 1000))
    p.wait_ack(1000)
    next_seq = 1001
    disturbed = False
    while acked < EVENTS:
        try:
            while p.acked < EVENTS:
                if next_seq <= EVENTS and next_seq - p.acked < 5000:
                    p.send(frames(topic, next_seq, next_seq + 499))
                    next_seq += 500
                    if next_seq > 5000 and not disturbed:
                        disturbed = True
                        disturb()
                else:
                    goal = EVENTS if next_seq > EVENTS else next_seq - 4999
                    p.wait(lambda: p.acked >= goal, "an ACK")
            acked = p.acked
            p.stop()
        except driver.Ended:
            acked = max(acked, p.acked)
            reasons += [m["reason"] for m in p.messages("N")]
            p.close()
            restarts += 1
            if restarts > 10:
                raise RuntimeError(reasons)
            p = publisher(mode, topic, acked)
            try:
                ready = p.wait_ready()
            except driver.Ended:
                continue
            # It acknowledges only what is sent to it: of what was before, nothing.
            start = p.acked = max(acked, ready["last_seq"])
            # Whole bursts, so that the end is met.
            next_seq = start + 1
            if (EVENTS - start) % 500:
                fill = (EVENTS - start) % 500
                p.send(frames(topic, next_seq, next_seq + fill - 1))
                next_seq += fill
    p.close()
    tap.note("%s: %d restarts %s" % (topic, restarts, reasons))
    seqs = broker.seqs(topic)
    tap.ok(not reasons or all(reasons), "%s: who gives up says why" % topic)
    tap.same(len(set(seqs)), EVENTS, "%s: nothing lost" % topic)
    first = first_appearances(seqs)
    tap.ok(first == sorted(first), "%s: in order" % topic)
    if mode == "exactly_once":
        tap.same(len(seqs), EVENTS, "%s: nothing twice" % topic)


def hang():
    broker.script("kill", "STOP")
    driver.time.sleep(3)  # lasts: requests are under way and none is answered
    broker.script("kill", "CONT")


def die():
    broker.stop("--now")
    broker.start()


def rest():
    broker.stop()
    broker.start()


def each(name, disturb):
    for mode in ("at_least_once", "exactly_once"):
        topic = "%s.%s" % (name, mode)
        broker.create(topic)
        deliver(mode, topic, disturb)


def test_hang():
    """A broker that hangs for some seconds"""
    each("hang", hang)


def test_kill():
    """kill -9 of the broker"""
    each("kill", die)


def test_restart():
    """A broker that is stopped and started"""
    each("restart", rest)


def test_silence():
    """A broker that is silent for longer than the position is waited for"""
    point = os.path.join(os.path.dirname(EXECUTABLE), "eo_point")
    broker.create("silence")
    pid = int(broker.read("pid").split()[0])
    with open(point + ".new", "w") as f:
        f.write("kafka_position stall 1\n")
    os.rename(point + ".new", point)
    with publisher("exactly_once", "silence") as p:
        while os.path.exists(point):
            p.drain(0.01)
        os.kill(pid, signal.SIGSTOP)    # within the point's second
        driver.time.sleep(9)    # lasts: the rest of it, and the 5 seconds of a request
        os.kill(pid, signal.SIGCONT)
        p.wait_ready()
        p.send(frames("silence", 1, 10))
        p.wait_ack(10)
        tap.same(p.stop(), 0, "the publisher that asked goes on")
    tap.same(broker.seqs("silence"), list(range(1, 11)), "silence: nothing lost, nothing twice")


with Broker() as broker:
    status = tap.run(test_hang, test_kill, test_restart, test_silence)
sys.exit(status)
