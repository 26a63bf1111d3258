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


SURVIVED = (kills.publisher, kills.clients_ended, transactions.aborted, transactions.nested, transactions.vacuumed,
            transactions.locked, another_subscription)


@fault("kill", alone=True)
def one_relay(directory, seed, r):
    """It lives through many cycles, and has the memory and the files at the end that it had after the first ones."""
    with Steady(os.path.join(directory, "rig"), seed).used() as rig:
        rig.watch.step = 1024
        relay = None
        for number in range(1, 1 + (MANY_CYCLES if Round.long else CYCLES)):
            run = SURVIVED[number % len(SURVIVED)]
            rig.run(number, as_part("kill", run), r)
            if rig.server.relay() != relay and relay:
                raise Broken("the relay was started anew")
            relay = rig.server.relay()
        kilobytes, files = zip(*rig.watch.samples[relay])
        grown = median(kilobytes[-3:]) - median(kilobytes[:3])
        if grown > GROWN_KB:
            raise Broken("the relay has grown by %d kB" % grown)
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
