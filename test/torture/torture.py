#!/usr/bin/env python3
"""
torture

Runs cycles: a load, a fault in its midst, and then the questions whether every
promise was kept.  test/torture/run calls it.

    torture.py --directory DIR [--seed N] [--cycles N] [--only "GROUP FAULT ..."] [--kafka]
"""
import argparse
import glob
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from faults import FAULTS, schedule  # noqa: E402
from rig import Broken, Rig  # noqa: E402
import copies  # noqa: E402, F401
import durability  # noqa: E402, F401
import kills  # noqa: E402, F401
import outages  # noqa: E402, F401
import points  # noqa: E402
import transactions  # noqa: E402, F401


class Torture:
    def __init__(self, arguments):
        self.arguments = arguments
        self.seed = arguments.seed
        self.directory = arguments.directory
        self.consumers = ("file", "kafka") if arguments.kafka else ("file",)
        self.rig = None
        self.totals = Counter()
        self.cycles = Counter()         # by group
        self.worst = Counter()
        self.failures = []
        self.began = time.monotonic()

    def say(self, text):
        seconds = int(time.monotonic() - self.began)
        print("%3d:%02d  %s" % (seconds // 60, seconds % 60, text), flush=True)

    def open_rig(self):
        self.number = getattr(self, "number", 0) + 1
        self.rig = Rig(os.path.join(self.directory, "rig%d" % self.number), self.seed, self.consumers, name="t%d" % self.number)

    def close_rig(self, keep=None):
        rig, self.rig = self.rig, None
        if rig is None:
            return
        self.totals += rig.counts
        for checker in rig.checkers:
            self.totals += checker.counts
        if keep:
            rig.server.stop()
            shutil.copytree(rig.server.directory, keep, ignore=shutil.ignore_patterns("data"))
        rig.close()
        shutil.rmtree(rig.directory, ignore_errors=True)

    def run_one(self, cycle, fault):
        r = random.Random("%s cycle %d" % (self.seed, cycle))
        began = time.monotonic()
        if fault.alone:
            directory = os.path.join(self.directory, "alone%d" % cycle)
            os.makedirs(directory)
            counts = fault.run(directory, "%s.%d" % (self.seed, cycle), r)
            worst = counts.pop("worst", time.monotonic() - began)
            self.totals += counts
            self.totals["faults"] += 1
            shutil.rmtree(directory, ignore_errors=True)
            return worst
        if self.rig is None:
            self.open_rig()
        self.rig.worst = 0
        self.rig.run(cycle, fault, r)
        return self.rig.worst

    def failed(self, cycle, fault, text):
        keep = os.path.join(self.directory, "failed%d" % cycle)
        self.failures.append(cycle)
        self.say("cycle %d, %s %s: FAILED" % (cycle, fault.group, fault.name))
        for line in text.splitlines():
            print("        " + line)
        print("        again: make torture SEED=%s FROM=%d CYCLES=1 (alone: ONLY=%s)" % (self.seed, cycle, fault.name))
        if fault.alone:
            shutil.move(os.path.join(self.directory, "alone%d" % cycle), keep)
            for path in glob.glob(os.path.join(keep, "**", "data"), recursive=True):
                shutil.rmtree(path, ignore_errors=True)
            return
        self.show_log()
        try:
            self.close_rig(keep)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            self.rig = None

    def show_log(self):
        if self.rig is None or not os.path.exists(self.rig.server.log):
            return
        with open(self.rig.server.log, errors="replace") as f:
            for line in f.read().splitlines()[-40:]:
                print("        | " + line)

    def run(self):
        a = self.arguments
        faults = schedule(self.seed, a.only.split(), self.consumers)
        for cycle, fault in zip(range(1, a.first + a.cycles), faults):
            if cycle < a.first:
                continue
            try:
                seconds = self.run_one(cycle, fault)
            except (Broken, TimeoutError) as error:
                self.failed(cycle, fault, str(error))
            except Exception:
                self.failed(cycle, fault, traceback.format_exc())
            else:
                self.worst[fault.group] = max(self.worst[fault.group], seconds)
                self.say("cycle %d, %s %s: ok, all came out %.1f s after it" % (cycle, fault.group, fault.name, seconds))
            self.cycles[fault.group] += 1
            if len(self.failures) >= 5 or (a.minutes and time.monotonic() - self.began > a.minutes * 60):
                break
        self.close_rig()
        return self.report()

    def report(self):
        print()
        for group in sorted(self.cycles):
            print("  %-14s %5d cycles, slowest recovery %.1f s" % (group, self.cycles[group], self.worst[group]))
        print("  " + ", ".join("%s %d" % (what, self.totals[what]) for what in
                               ("faults", "commits", "events", "lost", "phantoms", "duplicates", "divergent")))
        for line in points.report(self.totals):
            print(line)
        cycles = sum(self.cycles.values())
        print("seed %s: %d passed, %d failed" % (self.seed, cycles - len(self.failures), len(self.failures)))
        return 1 if self.failures or not cycles else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10 ** 9)))
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        for one in FAULTS:
            print("%-14s %s" % (one.group, one.name))
        return 0
    print("seed %s" % arguments.seed, flush=True)
    return Torture(arguments).run()


if __name__ == "__main__":
    sys.exit(main())
