#!/usr/bin/env python3
"""The demonstration's checker must notice each kind of damage; TAP."""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from check import Arrival, compare  # noqa: E402

TRUTH = {"e%d" % i: ("orders" if i % 2 else "stock", "k%d" % (i % 3), i // 3 + 1)
         for i in range(12)}
UNDONE = {"u1", "u2"}
GOOD = []
for number, (event, (topic, key, n)) in enumerate(TRUTH.items()):
    GOOD.append(Arrival("file", event, topic, key, n, 100 + number, number // 2 + 1))

done = 0


def check(name, arrived, expected):
    global done
    done += 1
    found = [f.promise for f in compare(TRUTH, UNDONE, arrived) if f.offenders]
    print("%s %d - %s" % ("ok" if found == expected else "not ok", done, name))
    if found != expected:
        print("# found %s, expected %s" % (found, expected))


swapped = GOOD[:4] + [GOOD[5], GOOD[4]] + GOOD[6:]
renumbered = GOOD[:3] + [GOOD[3]._replace(seq=106), GOOD[4], GOOD[5],
                         GOOD[6]._replace(seq=103)] + GOOD[7:]
check("what is whole passes", GOOD, [])
check("a lost last event", GOOD[:-1], ["lost"])
check("a lost event in the middle", GOOD[:5] + GOOD[6:],
      ["lost", "out of order", "missing from the numbering"])
check("a doubled event", GOOD + [GOOD[-1]], ["doubled", "out of order"])
check("two events swapped on the way", swapped, ["out of order"])
check("two events of one key numbered the wrong way round", renumbered,
      ["out of order", "missing from the numbering"])
check("a rolled back event",
      GOOD + [Arrival("file", "u1", "gifts", "k9", 1, 200, 1)],
      ["rolled back, yet published", "never committed, yet published"])
check("an event of another key", [GOOD[0]._replace(n=1, topic="gifts")] + GOOD[1:],
      ["changed on the way", "missing from the numbering"])
check("a gap in the positions", GOOD[:-1] + [GOOD[-1]._replace(position=9)],
      ["missing from the numbering"])
check("streams have an order of their own",
      [a._replace(stream=a.topic) for a in sorted(GOOD, key=lambda a: a.topic)], [])
print("1..%d" % done)
