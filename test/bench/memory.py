"""
memory

Whether the relay's memory grows with what goes through it.

Ten million events go to a file, whose beginning is given back to the disk as it
grows.  What counts is the anonymous memory of the relay and the publisher: the
rest of their resident memory is shared buffers and code.
"""
import os
import statistics
import subprocess

from drain import BATCH, ENQUEUE, FILL
from rows import Result, row

EVENTS = 10000000
STEP = 500000
WARM = 4                        # steps in which caches may still fill
FLAT_KB = 1024                  # growth over all events that counts as none


def anonymous_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))


def slope(values):
    """
    For each step: the median over all pairs (Theil and Sen).  A sample that
    catches a batch in the relay's hands is no growth.
    """
    return statistics.median((values[j] - values[i]) / (j - i)
                             for i in range(len(values)) for j in range(i + 1, len(values)))


def growth_kb(values):
    """
    Over all events: the slope, or how much the least memory of the last quarter
    is above that of the first, whichever is more; for the slope alone would
    pass over a step near the end.
    """
    quarter = len(values) // 4
    return max(slope(values) * EVENTS / STEP, min(values[-quarter:]) - min(values[:quarter]))


def step(database, path):
    out = database.psql(
        "SET synchronous_commit = off; CALL fill(%d, '{\"n\": 1}');\n"
        "SELECT eo.wait_published('memory', (SELECT last_seq FROM eo.log_status()), '10 min');\n"
        "SELECT relay_pid, publisher_pid FROM eo.log_status(), eo.subscriptions"
        " WHERE name = 'memory'" % (STEP // BATCH))
    if out[-2] != "t":
        raise RuntimeError("events do not reach the file")
    size = os.path.getsize(path) & ~(2 ** 20 - 1)
    subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length",
                    str(max(size - 2 ** 20, 2 ** 20)), path], check=True)
    return tuple(anonymous_kb(int(pid)) for pid in out[-1].split("|"))


@row("memory")
def memory(bench):
    """memory of the relay and the publisher over 10,000,000 events"""
    path = os.path.join(bench.directory, "memory.jsonl")
    samples = []
    with bench.server.database("memory") as database:
        database.execute(FILL.format(statement=ENQUEUE))
        database.execute("ALTER SYSTEM SET eo_outbox.retention = 0")
        database.execute("SELECT pg_reload_conf()")
        database.execute("CREATE SERVER memory_file FOREIGN DATA WRAPPER eo_file OPTIONS (path '%s');"
                         "SELECT eo.subscribe('memory', server => 'memory_file')" % path)
        while len(samples) < EVENTS // STEP:
            samples.append(step(database, path))
            bench.say("%d events: relay %d kB, publisher %d kB" % (
                len(samples) * STEP, *samples[-1]))
        database.execute("ALTER SYSTEM RESET eo_outbox.retention")
        database.execute("SELECT pg_reload_conf()")
    os.unlink(path)
    growth = [growth_kb([sample[i] for sample in samples[WARM:]]) for i in (0, 1)]
    return [Result(
        "growth of the relay's memory over %d events" % EVENTS,
        "%+.0f kB" % growth[0], "", [], "flat", max(growth) <= FLAT_KB,
        "RssAnon of the relay after each %d events to file; slope (Theil-Sen) or rise of the floor after the first %d"
        % (STEP, WARM * STEP),
        ["%s: %d kB after %d events, %d kB after %d, most %d kB, growth %+.0f kB" % (
            name, samples[WARM][i], (WARM + 1) * STEP, samples[-1][i], EVENTS,
            max(sample[i] for sample in samples), growth[i])
         for i, name in enumerate(("relay", "publisher"))]
        + ["flat is less than %d kB over all events" % FLAT_KB])]
