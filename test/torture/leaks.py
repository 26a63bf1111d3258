"""
leaks

Whether a process that lives for many cycles grows with them.
"""
import os
import time
from collections import Counter
from statistics import median

import kills
import transactions
from faults import Fault, Round, fault
from rig import Broken, Rig

CYCLES = 12
MANY_CYCLES = 60


class Steady(Rig):
    """Always the same options, so that nothing else is a reason to grow."""

    def options(self, r):
        return {"eo_outbox.segment_size": "1MB", "eo_outbox.segment_age": "1s", "eo_outbox.retention": "0"}


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
            rig.run(number, Fault("kill", run.__name__, run, False, ("calm",), ("55P03",), "", False), r)
            if rig.server.relay() != relay and relay:
                raise Broken("the relay was started anew")
            relay = rig.server.relay()
        kilobytes, files = zip(*rig.watch.samples[relay])
        return Counter(rig.totals(), grown=max(0, median(kilobytes[-3:]) - median(kilobytes[:3])), worst=rig.worst)
