"""
report

The section of test/bench/RESULTS.md that sets peers side by side.
"""
import os
import statistics
import sys
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "lib"))

from lab import KEYS, PARTITIONS, PAYLOAD, SETTINGS  # noqa: E402
from machine import machine, version  # noqa: E402
from measures import CONDITIONS  # noqa: E402
from notes import notes_of  # noqa: E402
from wins import reason  # noqa: E402

HEADING = "## Against peers"
OURS = "eo_"
CLOSE = 1.1             # a difference of less is none
LEAST_RATE = 0.9        # of the load, or its latencies are not compared

# Conditions under which samples can stand side by side.
SAME = ("machine", "PostgreSQL", "settings", "events", "times", "quick")


class Column:
    """Metrics of one measure that share a column; the better value is +1 greater, -1 smaller."""

    def __init__(self, heading, metrics, better=0, form="%.4g"):
        self.heading = heading
        self.metrics = metrics
        self.better = better
        self.form = form


class Table:
    def __init__(self, measure, title, columns, parts=False):
        self.measure = measure
        self.title = title
        self.columns = columns
        self.parts = parts


TABLES = (
    Table("cost", "What one event adds to a transaction that inserts a row (one session, in a"
                  " procedure, synchronous_commit = off, relay stopped)", (
        Column("time, us", ("commit_us",), -1, "%.1f"),
        Column("the backend's processor, us", ("commit_cpu_us",), -1, "%.1f"),
        Column("WAL, bytes", ("commit_wal",), -1, "%.0f"))),
    Table("latency", "Events/s into Kafka while ten clients commit one each as fast as they can", (
        Column("into Kafka", ("throughput",), +1, "%.0f"),
        Column("committed meanwhile", ("written",), 0, "%.0f"))),
    Table("latency", "Steady load: from the commit to the receipt by a consumer of Kafka: p50 / p99 / p99.9, ms", tuple(
        Column("%d/s" % rate, tuple("%s_%d" % (p, rate) for p in ("p50", "p99", "p999")), -1, "%.1f")
        for rate in (100, 1000, 5000)) + (
        Column("the load came to", tuple("came_to_%d" % rate for rate in (100, 1000, 5000)), +1, "%.0f"),
        Column("processor of server and relay, s per million", tuple(
            "cpu_%d" % rate for rate in (100, 1000, 5000)), -1, "%.0f"),
        Column("WAL at 1000/s, bytes an event", ("wal_1000",), -1, "%.0f"),
        Column("duplicates", ("live_duplicates",), -1, "%.0f"),
        Column("out of the key's order", ("live_disordered",), -1, "%.0f"))),
    Table("drain", "A backlog to Kafka, from the start of the relay", (
        Column("events/s", ("drain",), +1, "%.0f"),
        Column("first after, s", ("first_s",), -1, "%.2f"),
        Column("relay's processor, s per million", ("relay_cpu",), 0, "%.1f"),
        Column("server's", ("server_cpu",), 0, "%.1f"),
        Column("both", ("total_cpu",), -1, "%.1f"),
        Column("WAL of the relay's work after a checkpoint, bytes an event", ("relay_wal",), -1, "%.0f"),
        Column("disk before, bytes an event", ("disk_before",), -1, "%.0f"),
        Column("disk after", ("disk",), -1, "%.0f"),
        Column("duplicates", ("drain_duplicates",), -1, "%.0f"),
        Column("out of the key's order", ("drain_disordered",), -1, "%.0f"),
        Column("drained / of", ("drained", "backlog"), 0, "%.0f"))),
    Table("down", "Kafka stopped, 1,000 transactions/s", (
        Column("commits' p99 before, ms", ("healthy_p99",), 0, "%.2f"),
        Column("with Kafka stopped, ms", ("down_p99",), -1, "%.2f"),
        Column("all there, s after it was back", ("down_resume_s",), -1, "%.1f"),
        Column("lost", ("down_lost",), -1, "%.0f"),
        Column("duplicates", ("down_duplicates",), -1, "%.0f"),
        Column("out of the key's order", ("down_disordered",), -1, "%.0f"))),
    Table("kill", "kill -9 at 500 transactions/s", (
        Column("events come again after, s", ("resume_s",), -1, "%.2f"),
        Column("longest from commit to receipt, ms", ("worst_ms",), -1, "%.0f"),
        Column("lost", ("lost",), -1, "%.0f"),
        Column("duplicates", ("duplicates",), -1, "%.0f"),
        Column("out of the key's order", ("disordered",), -1, "%.0f"),
        Column("statements that failed", ("failed",), -1, "%.0f")), parts=True),
)


def conditions(scale, quick):
    """What holds for all measurements of a run, as lines."""
    return {
        "machine": machine(),
        "PostgreSQL": version("postgres", "--version").split(") ", 1)[-1],
        "settings": ", ".join("%s = %s" % item for item in SETTINGS.items() if item[1]),
        "Kafka": "one broker on the same machine, %d partitions, acks=all, idempotent producers"
                 % PARTITIONS,
        "events": "%d bytes of JSON, %d keys; %s" % (PAYLOAD, KEYS, CONDITIONS),
        "times": "%d s of load, after as much of it as the broker needs to compile itself; a backlog of %d, or what goes in in a quarter of"
                 " %d s where that is too short for it, and the same with %d s to go out" % (
                     scale.seconds, scale.backlog, scale.fill, scale.limit),
        "rounds": "the peers in turn, measure by measure; medians (least-greatest) of the rounds that a table names",
        "idle": "a transaction with an id and a snapshot, open in the same database from before the"
                " first event on",
        "disk": "growth of the database, and WAL that a slot keeps, after %d s more of an event a second" % scale.settle,
        "quick": "QUICK=1: too little to compare anything by" if quick else "",
    }


class Entry(NamedTuple):
    peer: object
    suffix: str             # of the metric, for the part that was killed
    values: list


class Report:
    def __init__(self, data, peers):
        self.data = data
        self.peers = [peer for peer in peers
                      if any(key.split("/")[0] == peer.name for key in (*data["taken"], *data["failed"]))]
        self.all_peers = peers

    def values(self, peer, measure, idle, metric):
        taken = self.data["taken"].get("/".join([peer.name, measure] + ["idle"] * idle), [])
        return [one[metric] for one in taken if one.get(metric) is not None]

    def cell(self, column, values_of):
        """Medians, with least and greatest where there is one metric and more than one round."""
        parts = []
        for metric in column.metrics:
            values = values_of(metric)
            text = column.form % statistics.median(values) if values else "-"
            if len(values) > 1 and len(column.metrics) == 1 and min(values) != max(values):
                text += " (%s-%s)" % (column.form % min(values), column.form % max(values))
            parts.append(text)
        return " / ".join(parts)

    def lines_of(self, table):
        """[(label, peer, idle, suffix of the metrics)]"""
        lines = []
        for idle in (False, True):
            for peer in self.peers:
                if idle and not self.data["taken"].get("%s/%s/idle" % (peer.name, table.measure)) and \
                        "%s/%s/idle" % (peer.name, table.measure) not in self.data["failed"]:
                    continue
                for part in peer.parts if table.parts else ("",):
                    label = peer.title + (": " + part if part else "") + (", idle transaction" if idle else "")
                    lines.append((label, peer, idle, "_" + part if part else ""))
        return lines

    def rounds(self, table):
        """How often it was measured."""
        def text(suffix):
            counts = sorted({len(self.data["taken"].get("%s/%s%s" % (peer.name, table.measure, suffix), []))
                             for peer in self.peers})
            return "%d" % counts[0] if len(counts) == 1 else "%d to %d" % (counts[0], counts[-1])

        idle = text("/idle")
        return "Rounds: %s%s." % (text(""), ", with an idle transaction %s" % idle if idle != "0" else "")

    def table(self, table):
        lines = ["", "### %s" % table.title, "", self.rounds(table), "",
                 "| | %s |" % " | ".join(column.heading for column in table.columns),
                 "|---|%s" % ("---|" * len(table.columns))]
        for label, peer, idle, suffix in self.lines_of(table):
            key = "/".join([peer.name, table.measure] + ["idle"] * idle)
            failures = self.data["failed"].get(key, [])
            if failures:
                label += " (failed %d times: %s)" % (len(failures), failures[-1].replace("|", "/"))
            if key in self.data["taken"] or failures:
                lines.append("| %s | %s |" % (label, " | ".join(
                    self.cell(column, lambda metric: self.values(peer, table.measure, idle, metric + suffix))
                    for column in table.columns)))
        return lines + self.wins(table)

    def wins(self, table):
        """Where peers are better than one of ours, and why."""
        found = []
        for idle in (False, True):
            for column in table.columns:
                for metric in column.metrics if column.better else ():
                    for entry in self.entries(table, metric, idle):
                        if entry.peer.name.startswith(OURS):
                            found += self.win(table, column, metric, idle, entry)
        return ["", "Where a peer is better by a tenth or more:", "", *found] if found else []

    def entries(self, table, metric, idle):
        """What can be compared, and only that which the relay does alone: a peer's other parts have no like."""
        for _, peer, its_idle, suffix in self.lines_of(table):
            values = self.values(peer, table.measure, idle, metric + suffix)
            if its_idle == idle and values and self.comparable(peer, table.measure, idle, metric, suffix):
                yield Entry(peer, suffix, values)

    def comparable(self, peer, measure, idle, metric, suffix):
        """Not where a peer could not have the load, nor where it was not the relay that was killed."""
        what, _, rate = metric.rpartition("_")
        if what in ("p50", "p99", "p999", "cpu"):
            came = self.values(peer, measure, idle, "came_to_" + rate)
            return (what, rate) != ("p999", "100") and bool(came) and \
                (peer.name.startswith(OURS) or statistics.median(came) >= LEAST_RATE * int(rate))
        if metric in ("disk", "disk_before", "relay_wal"):      # of a smaller backlog all of that is less
            return max(self.values(peer, measure, idle, "backlog")) == max(
                one["backlog"] for key, taken in self.data["taken"].items() if "/drain" in key for one in taken)
        return suffix in ("", "_relay") or peer.name.startswith(OURS)

    def win(self, table, column, metric, idle, ours):
        """What is better by a tenth in the median, and by what is shown; and whether it was so in every round."""
        sign = column.better

        def beats(entry):
            value, own = statistics.median(entry.values), statistics.median(ours.values)
            return (value > own * CLOSE if sign > 0 else value * CLOSE < own) and column.form % value != column.form % own

        def shown(entry):
            overlap = min(sign * one for one in entry.values) <= max(sign * one for one in ours.values)
            return "%s %s%s" % (entry.peer.title, column.form % statistics.median(entry.values),
                                " (not in every round)" if overlap else "")

        better = [entry for entry in self.entries(table, metric, idle)
                  if not entry.peer.name.startswith(OURS) and beats(entry)]
        if not better:
            return []
        better.sort(key=lambda entry: -sign * statistics.median(entry.values))
        what = column.heading
        if len(column.metrics) > 1:
            name, _, rate = metric.rpartition("_")
            what = "%s at %s/s" % ({"cpu": column.heading, "came_to": column.heading, "p999": "p99.9"}.get(name, name), rate)
        reasons = list(dict.fromkeys(reason(metric, ours.suffix, entry.peer.name, ours.peer.name) for entry in better))
        return ["- **%s%s**: %s%s has %s; better: %s. %s" % (
            what, ", idle transaction" if idle else "", ours.peer.title, ", " + ours.suffix[1:] if ours.suffix else "",
            column.form % statistics.median(ours.values),
            ", ".join(map(shown, better)),
            " ".join(reasons))]

    def text(self, former):
        """What was written by hand into `former`, the same section, stays."""
        lines = [HEADING, ""]
        lines += ["- %s: %s" % item for item in self.data["conditions"].items() if item[1]]
        lines += ["- repeat: `make bench-peers RESULTS=1`; all that is behind a figure is in"
                  " `test/bench/peers`", "", *notes_of(former), "", "| peer | versions | set up | to know |", "|---|---|---|---|"]
        for peer in self.all_peers:
            if peer in self.peers:
                lines.append("| %s | %s | %s | %s |" % (
                    peer.title, "; then ".join(self.data["versions"].get(peer.name, ["-"])), peer.choices, peer.caveat))
            elif peer.name in self.data["missing"]:
                lines.append("| %s | not measured: %s | | |" % (peer.title, self.data["missing"][peer.name]))
        lines += ["", "What adds an event:", ""]
        lines += ["- **%s**: `%s`" % (peer.title, peer.write()) for peer in self.peers]
        for table in TABLES:
            if any(key.split("/")[1] == table.measure for key in (*self.data["taken"], *self.data["failed"])):
                lines += self.table(table)
        return "\n".join(lines) + "\n"

    def write(self, path, out):
        """Writes to `out` what is in `path`, with this section instead of the one there."""
        with open(path) as f:
            before, _, after = f.read().partition("\n" + HEADING + "\n")
        former, *rest = after.partition("\n## ")
        with open(out, "w") as f:
            f.write(before.rstrip("\n") + "\n\n" + self.text(former) + "".join(rest))
