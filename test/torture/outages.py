"""
outages

A broker that stops, hangs, dies, is slow, or out of reach; and a target of the
file publisher that cannot be written.
"""
import os
import signal
import time
from collections import Counter

import kills
from faults import as_part, fault
from network import DOWN, NAMESPACE, UP
from rig import COMMIT_SECONDS, AtLeastOnceRig, Broken
from server import kill

MINUTE = 60
A_SERIES = 4            # faults, one after the other


def kafka_of(rig):
    return next(consumer for consumer in rig.consumers if consumer.name == "kafka")


def a_minute(rig, r):
    """
    Or more, with a load in the first seconds of it, as much as must have come out
    half a minute after it; then one client goes on to the end.
    """
    busy = r.uniform(5, 10)
    time.sleep(busy)
    with rig.load.trickle():
        watch_commits(rig, MINUTE - busy + r.uniform(0, 15))


def watch_commits(rig, seconds):
    """None of them waits for the broker, nor does what leads to it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = len(rig.load.acknowledged)
        time.sleep(COMMIT_SECONDS)
        if len(rig.load.acknowledged) == before:
            raise Broken("nothing was committed for %d s" % COMMIT_SECONDS)


# ---- the broker --------------------------------------------------------------

@fault("broker", needs="kafka")
def hangs(rig, r):
    rig.broker("kill", "STOP")
    time.sleep(r.uniform(0.5, 8))
    rig.broker("kill", "CONT")
    return 1


@fault("broker", needs="kafka")
def dies(rig, r):
    rig.broker("stop", "--now")
    time.sleep(r.uniform(0, 5))
    rig.broker("start")
    return 1


@fault("broker", needs="kafka")
def rests(rig, r):
    rig.broker("stop")
    time.sleep(r.uniform(0, 5))
    rig.broker("start")
    return 1


@fault("broker", needs="kafka", long=True)
def hangs_a_minute(rig, r):
    """Longer than all patience of publisher and relay."""
    rig.broker("kill", "STOP")
    a_minute(rig, r)
    rig.broker("kill", "CONT")
    return 1


@fault("broker", needs="kafka", long=True)
def rests_a_minute(rig, r):
    rig.broker("stop", *r.choice(((), ("--now",))))
    a_minute(rig, r)
    rig.broker("start")
    return 1


@fault("broker", needs="kafka")
def crawls(rig, r):
    """It stands still most of the time."""
    pid = kafka_of(rig).broker_pid()
    until = time.monotonic() + r.uniform(2, 6)
    while time.monotonic() < until:
        kill(pid, signal.SIGSTOP)
        time.sleep(r.uniform(0.02, 0.5))
        kill(pid, signal.SIGCONT)
        time.sleep(r.uniform(0.005, 0.05))
    return 1


@fault("broker", needs="kafka")
def publisher_and_broker(rig, r):
    """Both at once, so that neither can tell what the other had."""
    for pid in rig.server.publishers():
        kill(pid)
    rig.broker("stop", "--now")
    time.sleep(r.uniform(0, 2))
    rig.broker("start")
    return 2


# ---- the way to it -----------------------------------------------------------

@fault("broker", needs="kafka")
def cut_off(rig, r):
    """Nothing arrives there, or no answer here; then all of it does, unless the connections are gone by then."""
    proxy = kafka_of(rig).proxy
    with proxy.held(*r.choice(((UP, DOWN), (UP,), (DOWN,)))):
        time.sleep(r.uniform(0.5, 10))
        if r.random() < 0.4:
            proxy.cut()
    return 1


@fault("broker", needs="kafka", long=True)
def cut_off_a_minute(rig, r):
    with kafka_of(rig).proxy.held(*r.choice(((UP, DOWN), (UP,), (DOWN,)))):
        a_minute(rig, r)
    return 1


@fault("broker", needs="kafka", namespace=True)
def unplugged(rig, r):
    """What is sent vanishes: for who is connected, and sometimes for a publisher that starts meanwhile."""
    with kafka_of(rig).proxy.unplugged():
        time.sleep(r.uniform(0.5, 10))
        if r.random() < 0.4:
            for pid in rig.server.publishers():
                kill(pid)
            time.sleep(r.uniform(0.5, 5))
    return 1


@fault("broker", needs="kafka", namespace=True, long=True)
def unplugged_a_minute(rig, r):
    with kafka_of(rig).proxy.unplugged():
        a_minute(rig, r)
    return 1


@fault("broker", needs="kafka")
def delayed_requests(rig, r):
    """What a publisher has sent arrives after it was killed, and another one has been at work."""
    for _ in range(r.randint(1, 3)):
        with kafka_of(rig).proxy.held(UP, later=False):
            time.sleep(r.uniform(0, 0.3))
            for pid in rig.server.publishers():
                kill(pid)
            time.sleep(r.uniform(0.3, 3))
    return 1


@fault("broker", needs="kafka")
def unreachable(rig, r):
    """Connections are ended and refused."""
    with kafka_of(rig).proxy.refusing():
        time.sleep(r.uniform(0.1, 8))
    return 1


@fault("broker", needs="kafka")
def slow_network(rig, r):
    with kafka_of(rig).proxy.slow(r.uniform(0.005, 0.1), r.choice((500, 5000, 65536))):
        time.sleep(r.uniform(1, 8))
    return 1


@fault("broker", needs="kafka")
def cut_in_a_message(rig, r):
    """After some bytes more, again and again."""
    times = r.randint(1, 15)
    for _ in range(times):
        kafka_of(rig).proxy.cut_after(r.choice((1, 3, r.randrange(100), r.randrange(3000), r.randrange(60000))))
        time.sleep(r.uniform(0.02, 0.5))
    kafka_of(rig).proxy.left = None
    return times


# ---- a file ------------------------------------------------------------------

@fault("broker")
def target_unwritable(rig, r):
    """The file's directory refuses it for a while, and the publisher is started anew in it."""
    path = next(consumer.path for consumer in rig.consumers if consumer.name == "file")
    os.chmod(path, 0o400)
    try:
        for pid in rig.server.publishers():
            kill(pid)
        time.sleep(r.uniform(0.5, 2))
    finally:
        os.chmod(path, 0o600)
    return 1


# ---- the guarantee that is the default -----------------------------------------

@fault("broker", needs="kafka", alone=True)
def at_least_once(directory, seed, r):
    """Nothing is lost, early, out of order or changed; only what may have been there already comes again."""
    with AtLeastOnceRig(os.path.join(directory, "rig"), seed, ("file", "kafka")).used() as rig:
        series = [one for one in r.sample(DISTURBANCES, A_SERIES) if NAMESPACE or one is not unplugged]
        for number, run in enumerate(series, 1):
            rig.run(number, as_part("broker", run), r)
        return Counter(rig.totals(), worst=rig.worst)


DISTURBANCES = (hangs, dies, rests, publisher_and_broker, cut_off, delayed_requests, unreachable, slow_network, cut_in_a_message,
                kills.publisher, kills.relay_ended, unplugged)
