"""
leaks

Whether a process that lives for many cycles grows with them.
"""
import os
import subprocess
import time
from collections import Counter
from statistics import median

import kills
import transactions
from faults import Round, as_part, fault
from rig import Broken, Rig
from server import kill
from transactions import TURNING, TurningRig
from watch import LEAST

CYCLES = 12
MANY_CYCLES = 60
GROWN_KB = 4096


class Steady(TurningRig):
    """Always the same options, so that nothing else is a reason to grow."""

    def options(self, r):
        return TURNING


def another_subscription(rig, r):
    """Comes, publishes, is paused, changed, and goes."""
    path = os.path.join(rig.directory, "another.jsonl")
    rig.server.execute("CREATE SERVER another FOREIGN DATA WRAPPER eo_file OPTIONS (path '%s');"
                       "SELECT eo.subscribe('another', '{orders}', server => 'another', start_at => 'beginning')" % path)
    time.sleep(r.uniform(0.1, 0.5))
    rig.server.execute("SELECT eo.pause('another'), eo.resume('another')")
    rig.server.execute("ALTER SERVER another OPTIONS (SET path '%s.2')" % path)
    time.sleep(r.uniform(0.1, 0.5))
    rig.server.execute("SELECT eo.unsubscribe('another'); DROP SERVER another")
    return 1


# No large transaction: malloc keeps what its events took, which looks like a leak.
SURVIVED_BY_PUBLISHERS = (transactions.aborted, transactions.nested, transactions.vacuumed, kills.clients_ended,
                          transactions.stopped)
SURVIVED = (kills.publisher, kills.clients_ended, transactions.aborted, transactions.nested, transactions.vacuumed,
            transactions.locked, another_subscription)


def live_through(rig, disturbances, find, r):
    """
    Many cycles, and the processes, {what it is: process id}, that are found after
    each: always the same, with the memory and the files at the end that they had
    after the first ones.
    """
    rig.watch.step = 1024
    before = None
    for number in range(1, 1 + (MANY_CYCLES if Round.long else CYCLES)):
        rig.run(number, as_part("kill", disturbances[number % len(disturbances)]), r)
        now = find(rig)
        for name in now:
            if before and before[name] != now[name]:
                raise Broken("%s was started anew" % name)
        before = now
    for name, pid in before.items():
        samples = rig.watch.samples.get(pid, ())
        if len(samples) < LEAST:
            raise Broken("%s was looked at %d times" % (name, len(samples)))
        grown = median(one[0] for one in samples[-3:]) - median(one[0] for one in samples[:3])
        if grown > GROWN_KB:
            raise Broken("%s has grown by %d kB: %s" % (name, grown, " ".join(str(one[0]) for one in samples)))


def relay_of(rig):
    return {"the relay": rig.server.relay()}


def publishers_of(rig):
    found = dict(rig.server.query("SELECT name, publisher_pid FROM eo.subscriptions WHERE server IS NOT NULL"))
    return {"the publisher of " + name: pid for name, pid in found.items()}


@fault("kill", alone=True)
def one_relay(directory, seed, r):
    """It lives through many cycles."""
    with Steady(os.path.join(directory, "rig"), seed).used() as rig:
        live_through(rig, SURVIVED, relay_of, r)
        return Counter(rig.totals(), worst=rig.worst)


@fault("kill", needs="kafka", alone=True)
def one_publisher(directory, seed, r):
    """Of each kind one lives through many cycles."""
    with Steady(os.path.join(directory, "rig"), seed, ("file", "kafka")).used() as rig:
        live_through(rig, SURVIVED_BY_PUBLISHERS, publishers_of, r)
        return Counter(rig.totals(), worst=rig.worst)


@fault("kill", alone=True)
def control_orphan(directory, seed, r):
    """What works in a server's directory and is none of its processes is found."""
    with Rig(os.path.join(directory, "rig"), seed).used() as rig:
        orphan = subprocess.Popen(["sleep", "600"], cwd=rig.server.data)
        try:
            if not any("orphan: %d " % orphan.pid in text for text in rig.check_processes()):
                raise Broken("nobody noticed it")
        finally:
            kill(orphan.pid)
            orphan.wait()
        return Counter()
