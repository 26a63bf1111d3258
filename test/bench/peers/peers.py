"""
peers

Measures ways from a transaction to Kafka, side by side: test/bench/peers/run
calls it.

    peers.py --list
    peers.py --needs [--peers "PEER..."]            what they need to be installed
    peers.py --directory DIR [...]                  measures

Each measure of each peer is one measurement, in a cluster of its own; the peers
take turns, measure by measure, round by round.  After each, what was taken is
in DIR/samples.json; a run that finds such a file goes on where it ended.
"""
import argparse
import importlib
import json
import os
import sys
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from lab import Rig  # noqa: E402
from measures import MEASURES, Scale  # noqa: E402
from peer import PEERS  # noqa: E402
from report import SAME, Report, conditions  # noqa: E402

# Each of these registers its peers, in the order of the tables.
for module in ("eo", "tables", "debezium", "queues"):
    if os.path.exists(os.path.join(HERE, module + ".py")):
        importlib.import_module(module)


class Samples:
    """What was taken so far, in a file."""

    def __init__(self, path):
        self.path = path
        self.data = {"conditions": {}, "versions": {}, "missing": {}, "failed": {}, "taken": {}}
        if os.path.exists(path):
            with open(path) as f:
                self.data.update(json.load(f))

    @staticmethod
    def key(peer, measure, idle):
        return "%s/%s%s" % (peer.name, measure.name, "/idle" if idle else "")

    def count(self, key):
        return len(self.data["taken"].get(key, []))

    def add(self, key, result):
        for text in result.pop("failures", ()):
            self.fail(key, text)
        if result:
            self.data["taken"].setdefault(key, []).append(result)
        self.save()

    def fail(self, key, text):
        """Stays, whatever a later attempt comes to."""
        words = text.strip().splitlines() or ["?"]
        self.data["failed"].setdefault(key, []).append(
            words[0] if len(words) == 1 else "%s ... %s" % (words[0], words[-1]))
        self.save()

    def set_conditions(self, conditions):
        """Ends the run if what is there was measured under others."""
        there = self.data["conditions"]
        for name in SAME if self.data["taken"] else ():
            if there.get(name) != conditions.get(name):
                sys.exit("bench-peers: %s: \"%s\" in the samples that are there, and now \"%s\"" % (
                    name, there.get(name), conditions.get(name)))
        self.data["conditions"] = conditions
        self.save()

    def add_version(self, peer, version):
        known = self.data["versions"].setdefault(peer.name, [])
        if version not in known:
            known.append(version)
        self.save()

    def save(self):
        with open(self.path + ".new", "w") as f:
            json.dump(self.data, f, indent=1)
        os.rename(self.path + ".new", self.path)


def chosen(known, names, what):
    by_name = {one.name: one for one in known}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        sys.exit("bench-peers: no %s %s, but: %s" % (what, " ".join(unknown), " ".join(by_name)))
    return [one for one in known if not names or one.name in names]


def print_list():
    print("PEERS:")
    for one in PEERS:
        print("  %-18s %s" % (one.name, one.title))
    print("ROWS:")
    for one in MEASURES:
        print("  %-18s %s%s" % (one.name, one.help, ", also with an idle transaction" if one.idle else ""))


def take(rig, samples, peer, measure, scale, idle):
    """One measurement; a failure is told of, and the run goes on."""
    key = samples.key(peer, measure, idle)
    try:
        if peer not in rig.described:
            with rig.lab(peer) as lab:
                samples.add_version(peer, peer.version(lab))
            rig.described.append(peer)
        result = measure.function(rig, peer, scale, idle)
    except Exception as error:      # pylint: disable=broad-except
        traceback.print_exc()
        samples.fail(key, str(error) or repr(error))
        rig.say("%s FAILED" % key)
        return
    samples.add(key, result)
    rig.say("%s: %s" % (key, ", ".join(
        "%s %s" % (name, "%.4g" % value if isinstance(value, float) else value)
        for name, value in result.items())))


def measure_all(rig, samples, peers, measures, scale, arguments):
    for number in range(arguments.rounds):
        for measure in measures:
            if measure.long and number >= arguments.drains:
                continue
            for idle in (False, True) if measure.idle and number < arguments.idles else (False,):
                rig.say("== round %d: %s%s: %s" % (number + 1, measure.name,
                                                  " with an idle transaction" if idle else "", measure.help))
                # the first of a measure may find another machine than the last
                first = number % max(len(peers), 1)
                for peer in peers[first:] + peers[:first]:
                    if samples.count(samples.key(peer, measure, idle)) <= number:
                        take(rig, samples, peer, measure, scale, idle)


def run(arguments, peers, measures):
    scale = Scale(arguments.quick, arguments.backlog, arguments.limit)
    rig = Rig(arguments.directory)
    os.makedirs(arguments.directory, exist_ok=True)
    samples = Samples(os.path.join(arguments.directory, "samples.json"))
    present = []
    for peer in peers:
        reason = peer.missing()
        if reason:
            samples.data["missing"][peer.name] = reason
            print("%s: %s" % (peer.title, reason), flush=True)
        else:
            samples.data["missing"].pop(peer.name, None)
            present.append(peer)
    samples.set_conditions(conditions(scale, arguments.quick))
    try:
        rig.open()
        measure_all(rig, samples, present, measures, scale, arguments)
    finally:
        rig.close()
    report = Report(samples.data, PEERS)
    print(report.text())
    report.write(os.path.join(os.path.dirname(HERE), "RESULTS.md"),
                 os.path.join(arguments.directory, "RESULTS.md"))
    return 1 if samples.data["failed"] else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--needs", action="store_true")
    parser.add_argument("--directory")
    parser.add_argument("--peers", default="")
    parser.add_argument("--rows", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drains", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--idles", type=int, default=1)
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    arguments = parser.parse_args()
    peers = chosen(PEERS, arguments.peers.split(), "peer")
    measures = chosen(MEASURES, arguments.rows.split(), "row")
    if arguments.list:
        print_list()
    elif arguments.needs:
        print(" ".join(sorted({need for peer in peers for need in peer.needs})))
    else:
        return run(arguments, peers, measures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
