"""
snapshot

What transactions that update a table notice of its snapshot.
"""
import glob
import os
import statistics
import time

from capture import COLUMNS, FILL
from rows import Result, row

ROWS = 10 * 1000 * 1000
CLIENTS = 4
PER_SECOND = 400
SECONDS = 30

UPDATE = "\\set id random(1, %d)\nUPDATE large SET amount = amount + 1 WHERE id = :id;\n" % ROWS


class Times:
    """Of the transactions of one run, from when each was due."""

    def __init__(self, milliseconds):
        taken = sorted(milliseconds)
        self.p50 = taken[len(taken) // 2]
        self.p99 = taken[len(taken) * 99 // 100]

    def __str__(self):
        return "p50 %.2f p99 %.2f ms" % (self.p50, self.p99)


class Load:
    def __init__(self, bench):
        self.server = bench.server
        self.script = os.path.join(bench.directory, "update.sql")
        self.log = os.path.join(bench.directory, "update.log")
        with open(self.script, "w") as f:
            f.write(UPDATE)

    def command(self):
        return ["pgbench", "--no-vacuum", "--client", str(CLIENTS), "--rate", str(PER_SECOND), "--protocol", "prepared",
                "--time", str(SECONDS), "--file", self.script, "--log", "--log-prefix", self.log]

    def run(self):
        for old in glob.glob(self.log + ".*"):
            os.remove(old)
        self.server.run(*self.command(), capture_output=True)
        milliseconds = []
        for path in glob.glob(self.log + ".*"):
            with open(path) as f:
                milliseconds += [int(line.split()[2]) / 1000 for line in f]
        if len(milliseconds) < PER_SECOND * SECONDS * 0.9:
            raise RuntimeError("the server is too slow for %d transactions/s" % PER_SECOND)
        return Times(milliseconds)


def state(server):
    return server.psql("SELECT state, rows_done, round(100 * rows_done / %d), coalesce(error, '') FROM eo.snapshots" % ROWS)[-1].split("|")


def wait_for(server, what):
    while True:
        now, done, percent, error = state(server)
        if what(now, int(done)):
            return
        if now in ("failed", "stopped"):
            raise RuntimeError("the snapshot has %s: %s" % (now, error))
        time.sleep(0.2)


@row("snapshot")
def snapshot(bench):
    """a table of 10 million rows that is updated, while a snapshot is made of it"""
    server = bench.server
    server.execute("CREATE TABLE large %s; %s; SELECT eo.capture('large'); SELECT eo.subscribe('snapshot')"
                   % (COLUMNS, FILL.format(table="large", count=ROWS)))
    server.execute("VACUUM ANALYZE large; CHECKPOINT")
    load = Load(bench)

    def beside(number):
        server.execute("SELECT eo.snapshot('large', 'snapshot')")
        wait_for(server, lambda now, done: done > 0)
        times = load.run()
        if state(server)[0] != "running":
            raise RuntimeError("the snapshot ended before the load did")
        server.execute("SELECT eo.stop_snapshot('large')")
        return times

    load.run()
    samples = bench.take_turns({"beside": beside, "alone": lambda number: load.run()})
    ratios = [a.p99 / b.p99 for a, b in zip(samples["beside"], samples["alone"])]

    server.execute("SELECT eo.snapshot('large', 'snapshot')")
    began = time.monotonic()
    wait_for(server, lambda now, done: now == "done")
    seconds = time.monotonic() - began
    got = int(state(server)[1])
    if got != ROWS:
        raise RuntimeError("the snapshot has %d rows" % got)
    ours, theirs = ({p: statistics.median(getattr(times, p) for times in samples[name]) for p in ("p50", "p99")}
                    for name in ("beside", "alone"))
    return [Result(
        "p99 of updates of a table of %d rows, %d a second, beside its snapshot, against the same alone" % (ROWS, PER_SECOND),
        "%.2f ms" % ours["p99"], "%.2f ms" % theirs["p99"], ratios, "<= 1.2", statistics.median(ratios) <= 1.2,
        " ".join(load.command()[:-3]) + " beside SELECT eo.snapshot('large', 'snapshot'); " + UPDATE.replace("\n", "; "),
        ["p50 %.2f ms against %.2f ms" % (ours["p50"], theirs["p50"]),
         "one whole snapshot, with nothing beside it: %d s, %d rows/s" % (seconds, ROWS / seconds)])]
