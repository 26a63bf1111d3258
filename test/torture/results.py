"""
results

What a round has come to, as a table by group: on the screen, and in RESULTS.md.
"""
import os
import sys
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import points  # noqa: E402
from machine import machine, version  # noqa: E402
from notes import notes_of  # noqa: E402

COLUMNS = ("cycles", "faults", "commits", "events", "lost", "phantoms", "duplicates", "failed")

LEGEND = """\
- **faults**: how often something was done to the system, some of it many times in a cycle
- **commits**: transactions of the load that were acknowledged; about as many rolled back or were killed
- **events**: received, by all consumers together: a file's reader, a subscription that the database consumes itself, Kafka's own client
- **lost**, **phantoms**, **duplicates**: committed and not received; received and not committed, as seen at receipt; received twice where
  exactly once is promised. Where something is taken away that a promise rests on (a broker put back to a copy older than the
  log, an asynchronous standby promoted), what is said to be lost with it is not counted, and all else is.
- **slowest recovery**: from the end of a fault, with the server and the broker up again, until everybody had an event within
  a second of its commit; the load goes on for up to a second of it"""


def controls(faults):
    """How many of the cycles are none of a promise, as a line."""
    count = sum(times for names in faults.values() for name, times in names.items() if name.startswith("control_"))
    return "%d of the cycles are controls: something is broken on purpose and has to be found out." % count


def seconds(value):
    return "" if value is None else "%.1f s" % value


def listed(faults):
    """How many cycles there were of each, as lines."""
    return ["What was done, and in how many cycles:", "",
            *("- %s: %s" % (group, ", ".join("%s %d" % item for item in sorted(faults[group].items()))) for group in sorted(faults))]


class Results:
    def __init__(self):
        self.groups = {}        # Counters
        self.worst = {}         # by group; only where it has a meaning
        self.slowest = {}       # how long a cycle took, by fault
        self.faults = {}        # how many cycles each had, by group

    def add(self, fault, counts, worst, took, failed=False):
        counts = Counter(counts, cycles=1, failed=int(failed))
        self.groups.setdefault(fault.group, Counter()).update(counts)
        self.faults.setdefault(fault.group, Counter())[fault.name] += 1
        self.slowest[fault.name] = max(took, self.slowest.get(fault.name, 0))
        if worst is not None:
            self.worst[fault.group] = max(worst, self.worst.get(fault.group, 0))

    def totals(self):
        return sum(self.groups.values(), Counter())

    def rows(self):
        for group in sorted(self.groups):
            yield [group, *("%d" % self.groups[group][what] for what in COLUMNS), seconds(self.worst.get(group))]
        yield ["all", *("%d" % self.totals()[what] for what in COLUMNS), seconds(max(self.worst.values(), default=None))]

    def headings(self):
        return ["group", *COLUMNS, "slowest recovery"]

    def show(self):
        table = [self.headings(), *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        print()
        for row in table:
            print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                   for i, (cell, width) in enumerate(zip(row, widths))))
        slow = sorted(self.slowest.items(), key=lambda item: -item[1])[:5]
        print("  slowest cycles: " + ", ".join("%s %.0f s" % item for item in slow))
        print("  " + controls(self.faults))
        for line in points.report(self.totals()):
            print(line)

    def write(self, path, seed, minutes, former=os.path.join(os.path.dirname(os.path.abspath(__file__)), "RESULTS.md")):
        notes = ""
        if os.path.exists(former):
            with open(former) as f:
                notes = f.read()
        lines = ["# Tried to break", "",
                 "- machine: " + machine(),
                 "- PostgreSQL: " + version("postgres", "--version").split(") ", 1)[-1],
                 "- eo_outbox: commit %s, test build" % os.environ.get("EO_COMMIT", "unknown"),
                 "- repeat: `make torture SEED=%s CYCLES=%d%s` (%d minutes)" % (
                     seed, self.totals()["cycles"], os.environ.get("EO_ARGUMENTS", ""), minutes),
                 "", "| " + " | ".join(self.headings()) + " |", "|---" * len(self.headings()) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        lines += ["", controls(self.faults), "", LEGEND, "", *notes_of(notes)]
        if "points" in self.groups:
            lines += ["", points.summary(self.totals())]
        lines += ["", *listed(self.faults)]
        with open(path, "w") as f:
            f.write("\n".join(lines) + "\n")
