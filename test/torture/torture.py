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

from faults import FAULTS, Round, choose, schedule  # noqa: E402
from network import NAMESPACE, open_namespace  # noqa: E402
from results import Results  # noqa: E402
from rig import AtLeastOnceRig, Broken, Rig  # noqa: E402
import copies  # noqa: E402, F401
import durability  # noqa: E402, F401
import extremes  # noqa: E402, F401
import kills  # noqa: E402, F401
import leaks  # noqa: E402, F401
import outages  # noqa: E402, F401
import points  # noqa: E402, F401
import restored  # noqa: E402, F401
import transactions  # noqa: E402, F401

MOST_FAILURES = 5
A_RIG = 10              # cycles, in which nothing but a failure ends it


def show_logs(directory):
    """The ends of those of all servers in it, brokers included."""
    for path in sorted(glob.glob(os.path.join(directory, "**", "server.log"), recursive=True)):
        print("        %s" % path)
        with open(path, errors="replace") as f:
            for line in f.read().splitlines()[-40:]:
                print("        | " + line)


class Torture:
    def __init__(self, arguments):
        self.arguments = arguments
        self.seed = arguments.seed
        self.directory = arguments.directory
        self.consumers = ("file", "kafka") if arguments.kafka else ("file",)
        self.rig = None
        self.rigs = 0
        self.before = Counter()
        self.results = Results()
        self.failures = []
        self.times = Counter()      # how often each fault's turn has come, by name
        self.began = time.monotonic()

    def say(self, text):
        seconds = int(time.monotonic() - self.began)
        print("%3d:%02d  %s" % (seconds // 60, seconds % 60, text), flush=True)

    # ---- the rig that cycles share ---------------------------------------------

    def kind(self, cycle):
        """Of the rig: both guarantees of Kafka in turn; the seed says which one is first."""
        return (Rig, AtLeastOnceRig)[(random.Random(self.seed).randrange(2) + (cycle - 1) // A_RIG) % 2]

    def open_rig(self, kind):
        self.rigs += 1
        self.before = Counter()
        self.rig = kind(os.path.join(self.directory, "rig%d" % self.rigs), self.seed, self.consumers)

    def use_rig(self, kind):
        if self.rig is not None and type(self.rig) is not kind:
            self.close_rig()
        if self.rig is None:
            self.open_rig(kind)

    def close_rig(self, keep=None):
        rig, self.rig = self.rig, None
        if rig is None:
            return
        try:
            if keep:
                rig.server.stop()
                shutil.copytree(rig.directory, keep, ignore=shutil.ignore_patterns("data", ".s.*"), symlinks=True)
        finally:
            rig.close()
            shutil.rmtree(rig.directory, ignore_errors=True)

    # ---- cycles ----------------------------------------------------------------

    def run_alone(self, cycle, fault, r):
        directory = os.path.join(self.directory, "alone%d" % cycle)
        os.makedirs(directory)
        Rig.attached.clear()
        counts = fault.run(directory, "%s.%d" % (self.seed, cycle), r)
        worst = counts.pop("worst", None)
        counts["faults"] = max(counts["faults"], 1)     # it has come to its end
        shutil.rmtree(directory, ignore_errors=True)
        return counts, worst

    def run_one(self, cycle, fault):
        """What it has come to, and the seconds until all had come out; None where that means nothing."""
        r = random.Random("%s cycle %d" % (self.seed, cycle))
        if fault.alone:
            return self.run_alone(cycle, fault, r)
        self.before = self.rig.totals()
        self.rig.worst = None
        self.rig.turn = self.times[fault.name]
        self.rig.run(cycle, fault, r)
        return self.counts_since(), self.rig.worst

    def counts_since(self):
        counts = self.rig.totals()
        counts.subtract(self.before)
        return counts

    def run_cycle(self, cycle, fault):
        began = time.monotonic()
        try:
            if not fault.alone:
                self.use_rig(self.kind(cycle))
                began = time.monotonic()
            counts, worst = self.run_one(cycle, fault)
        except (Broken, TimeoutError) as error:
            problem = str(error)
        except Exception:
            problem = traceback.format_exc()
        else:
            self.results.add(fault, counts, worst, time.monotonic() - began)
            self.say("cycle %d, %s %s: ok, in %.0f s%s" % (cycle, fault.group, fault.name, time.monotonic() - began,
                                                          "" if worst is None else ", all came out %.1f s after it" % worst))
            return
        if fault.alone:
            counts = sum((rig.totals() for rig in Rig.attached), Counter(faults=1))
        else:
            counts = self.counts_since() if self.rig else Counter(faults=1)
        self.results.add(fault, counts, None, time.monotonic() - began, failed=True)
        self.failed(cycle, fault, problem)

    def command(self, cycle):
        """That which does one cycle again."""
        return "make torture SEED=%s FROM=%d CYCLES=1%s" % (self.seed, cycle, os.environ.get("EO_ARGUMENTS", ""))

    def failed(self, cycle, fault, text):
        keep = os.path.join(self.directory, "failed%d" % cycle)
        self.failures.append(cycle)
        self.say("cycle %d, %s %s: FAILED" % (cycle, fault.group, fault.name))
        for line in text.splitlines():
            print("        " + line)
        print("        again: %s" % self.command(cycle))
        if fault.alone:
            os.rename(os.path.join(self.directory, "alone%d" % cycle), keep)
            show_logs(keep)
            for path in glob.glob(os.path.join(keep, "**", "data"), recursive=True):
                shutil.rmtree(path, ignore_errors=True)
            return
        if self.rig is not None:
            show_logs(self.rig.directory)
        try:
            self.close_rig(keep)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            self.rig = None

    # ---- a round ---------------------------------------------------------------

    def run(self):
        a = self.arguments
        faults = schedule(self.seed, choose(a.only.split(), self.consumers, Round.long))
        done = left_out = 0
        for cycle, fault in zip(range(1, a.first + a.cycles), faults):
            self.times[fault.name] += 1
            if cycle < a.first:
                continue
            if fault.namespace and not NAMESPACE:
                self.say("cycle %d, %s %s: LEFT OUT, for want of a network namespace" % (cycle, fault.group, fault.name))
                left_out += 1
                continue
            self.run_cycle(cycle, fault)
            done += 1
            if len(self.failures) >= MOST_FAILURES or (a.minutes and time.monotonic() - self.began > a.minutes * 60):
                break
        self.close_rig()
        self.results.show()
        if a.results:
            self.results.write(a.results, self.seed, (time.monotonic() - self.began) / 60)
        if left_out:
            print("%d left out, for want of a network namespace" % left_out)
        print("seed %s: %d passed, %d failed" % (self.seed, done - len(self.failures), len(self.failures)))
        return 1 if self.failures or not done else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10 ** 9)))
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--results")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        for one in FAULTS:
            print("%-14s %s" % (one.group, one.name))
        return 0
    sys.stdout.reconfigure(line_buffering=True)
    Round.long = arguments.long
    if NAMESPACE:
        open_namespace()
    print("seed %s" % arguments.seed, flush=True)
    return Torture(arguments).run()


if __name__ == "__main__":
    sys.exit(main())
