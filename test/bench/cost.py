"""
cost

What an event adds to the transaction that enqueues it.

The cost of `nothing`, a transaction that calls a trivial function, is subtracted
from that of the others.  A transaction that writes anything takes a transaction
id as well (`xid`): the notes say what is left if that, too, is subtracted, as
for an event in a transaction that writes anyway.  The backend reads its own
processor time from /proc before and after the transactions, so connecting and
the client do not count.

Two loads.  The one that counts is a procedure that commits after each
statement: the values are there already, so that nothing but the statement and
its transaction is measured.  The other is one pgbench client with a prepared
statement, for the notes: what receiving the statement and parsing its JSON add
is the same for a table and for the extension, and hides the difference.
"""
import os
import statistics

from rows import Result, row
from server import payload

WARM = 2000
TRANSACTIONS = 20000
LOOPS = 2000
CHUNKS = 25
BULK = 300000
PAYLOAD = 250

STATEMENTS = {
    "nothing": "SELECT pg_current_xact_id_if_assigned()",
    "xid": "SELECT pg_current_xact_id()",
    "enqueue": "SELECT eo.enqueue('orders', :payload::jsonb, 'customer-4711')",
    "insert": "INSERT INTO outbox (topic, key, payload)"
              " VALUES ('orders', 'customer-4711', :payload::jsonb)",
    "emit": "SELECT pg_logical_emit_message(true, 'orders', :payload::text)",
}

# Reading stat brings schedstat up to date, which has nanoseconds.
PROBE = ("SELECT length(pg_read_file('/proc/self/stat')) AS updated,"
         " split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint AS cpu{0},"
         " extract(epoch FROM clock_timestamp()) AS at{0} \\gset")

PGBENCH = """\\set i :i + 1
\\if :i = :warm
{first}
\\endif
{statement};
\\if :i = :warm + :count
{last}
INSERT INTO sample VALUES ((:cpu1::float8 - :cpu0::float8) / 1e3 / :count::float8,
	(:at1::float8 - :at0::float8) * 1e6 / :count::float8);
\\endif
"""

PROCEDURE = """
CREATE OR REPLACE PROCEDURE load_{name}(transactions int, payload jsonb, bytes text)
LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. transactions LOOP
		{statement};
		COMMIT;
	END LOOP;
END $$;
"""


class Cost:
    """Microseconds a transaction: of the backend, on the clock, of the rest."""

    def __init__(self, cpu, wall, background=0.0):
        self.cpu = cpu
        self.wall = wall
        self.background = background

    def __str__(self):
        return "%.1f us" % self.cpu


def in_procedure(statement):
    """The statement as it stands in the procedure, its values at hand."""
    statement = statement.replace(":payload::jsonb", "payload").replace(":payload::text", "bytes")
    return statement.replace("SELECT", "PERFORM", 1)


def prepare(bench):
    server = bench.server
    server.execute("CREATE TABLE IF NOT EXISTS sample (cpu float8, wall float8)")
    server.table()
    for name, statement in STATEMENTS.items():
        server.execute(PROCEDURE.format(name=name, statement=in_procedure(statement)))
        with open(os.path.join(bench.directory, name + ".pgbench"), "w") as f:
            f.write(PGBENCH.format(statement=statement, first=PROBE.format(0),
                                   last=PROBE.format(1)))


def by_procedure(bench):
    """
    One round: a session in which the variants take turns of some transactions
    each, so that whatever else the machine does hits all of them.
    """
    lines = ["SET synchronous_commit = off;"]
    for chunk in range(-1, CHUNKS):
        for name in STATEMENTS:
            lines += [PROBE.format(0),
                      "CALL load_%s(%d, :'payload'::jsonb, :'payload');" % (name, LOOPS),
                      PROBE.format(1)]
            if chunk >= 0:
                lines.append("SELECT '{0}', (:cpu1 - :cpu0) / 1e3 / {1},"
                             " (:at1 - :at0) * 1e6 / {1};".format(name, LOOPS))
    bench.server.execute("TRUNCATE outbox; CHECKPOINT")
    taken = {name: [] for name in STATEMENTS}
    for line in bench.server.psql("\n".join(lines), "--set", "payload=" + payload(PAYLOAD)):
        name, cpu, wall = line.split("|")
        taken[name].append((float(cpu), float(wall)))
    return {name: Cost(*(statistics.median(column) for column in zip(*chunks)))
            for name, chunks in taken.items()}


def pgbench_command(name):
    return ["pgbench", "--no-vacuum", "--client", "1", "--protocol", "prepared",
            "--transactions", str(WARM + TRANSACTIONS), "--file", name + ".pgbench"]


def by_pgbench(bench):
    """One round: each variant in its own session."""
    taken = {}
    for name in STATEMENTS:
        bench.server.execute("TRUNCATE sample; TRUNCATE outbox; CHECKPOINT")
        before = bench.server.background_cpu()
        bench.server.run(
            *pgbench_command(name), "--define", "i=0", "--define", "warm=%d" % WARM,
            "--define", "count=%d" % TRANSACTIONS,
            "--define", "payload=" + payload(PAYLOAD),
            cwd=bench.directory, capture_output=True,
            env=dict(bench.server.environment, PGOPTIONS="-c synchronous_commit=off"))
        background = bench.server.background_cpu() - before
        cpu, wall = map(float, bench.server.value("SELECT cpu, wall FROM sample").split("|"))
        taken[name] = Cost(cpu, wall, background * 1e6 / (WARM + TRANSACTIONS))
    return taken


def measure(bench, load):
    """The rounds of all variants; taken once for all rows that compare them."""
    if load not in bench.cache:
        prepare(bench)
        rounds = []
        for number in range((3 if load is by_procedure else 1) * bench.rounds):
            rounds.append(load(bench))
            bench.say("round %d: %s" % (number + 1, ", ".join(
                "%s %s" % item for item in rounds[-1].items())))
        bench.cache[load] = {name: [taken[name] for taken in rounds] for name in STATEMENTS}
    return bench.cache[load]


def added(samples, name, what="cpu", base="nothing"):
    return [getattr(one, what) - getattr(other, what)
            for one, other in zip(samples[name], samples[base])]


def ratios_of(samples, ours, theirs, *how):
    return [a / b for a, b in zip(added(samples, ours, *how), added(samples, theirs, *how))]


def compare(bench, what, ours, theirs, limit):
    samples = measure(bench, by_procedure)
    wire = measure(bench, by_pgbench)
    ratios = ratios_of(samples, ours, theirs, "cpu")
    notes = ["%s: %.2f us processor, %.2f us on the clock" % (
        name, statistics.median(s.cpu for s in samples[name]),
        statistics.median(s.wall for s in samples[name])) for name in ("nothing", "xid", ours, theirs)]
    notes.append("ratio of the added time on the clock: %.2f"
                 % statistics.median(ratios_of(samples, ours, theirs, "wall")))
    notes.append("without what taking a transaction id costs: %.2f us against %.2f us" % tuple(
        statistics.median(added(samples, name, "cpu", "xid")) for name in (ours, theirs)))
    notes.append("%s: %s, nothing %.1f us: ratio %.2f" % (
        " ".join(pgbench_command("FILE")),
        ", ".join("%s +%.1f us (and %.1f us in the server's other processes)" % (
            name, statistics.median(added(wire, name)),
            statistics.median(s.background for s in wire[name])) for name in (ours, theirs)),
        statistics.median(s.cpu for s in wire["nothing"]),
        statistics.median(added(wire, ours)) / statistics.median(added(wire, theirs))))
    return Result(
        what, "%.2f us" % statistics.median(added(samples, ours)),
        "%.2f us" % statistics.median(added(samples, theirs)), ratios, "<= %.1f" % limit,
        statistics.median(ratios) <= limit,
        "synchronous_commit=off; CALL load_X(%d): LOOP X; COMMIT; END LOOP, %d calls a round in turn, processor time "
        "of the backend, X = \"%s\" against \"%s\", each minus \"%s\"" % (
            LOOPS, CHUNKS, *(in_procedure(STATEMENTS[name]) for name in (ours, theirs, "nothing"))),
        notes)


@row("enqueue")
def enqueue(bench):
    """one event in its own transaction, against a row of an outbox table"""
    return [compare(bench, "added cost of one eo.enqueue, against INSERT into an outbox table",
                    "enqueue", "insert", 0.6)]


@row("emit")
def emit(bench):
    """one event in its own transaction, against pg_logical_emit_message"""
    return [compare(bench, "added cost of one eo.enqueue, against pg_logical_emit_message",
                    "enqueue", "emit", 2.5)]


BULK_STATEMENTS = {
    "enqueue": "SELECT count(eo.enqueue('orders', :'payload'::jsonb, 'customer-4711'))"
               " FROM generate_series(1, %d)" % BULK,
    "insert": "INSERT INTO outbox (topic, key, payload)"
              " SELECT 'orders', 'customer-4711', :'payload'::jsonb"
              " FROM generate_series(1, %d)" % BULK,
}


class Bulk:
    def __init__(self, cpu, wall):
        self.cpu = cpu
        self.wall = wall

    def __str__(self):
        return "%.2f s" % self.wall


def one_transaction(bench, name):
    bench.server.execute("TRUNCATE outbox; CHECKPOINT")
    script = "\n".join([
        "SET synchronous_commit = off;", PROBE.format(0),
        "BEGIN;", "\\o /dev/null", BULK_STATEMENTS[name] + ";", "\\o", "COMMIT;",
        PROBE.format(1),
        "SELECT (:cpu1 - :cpu0) / 1e9, :at1 - :at0;"])
    out = bench.server.psql(script, "--set", "payload=" + payload(PAYLOAD))
    return Bulk(*map(float, out[-1].split("|")))


@row("bulk")
def bulk(bench):
    """300,000 events in one transaction, against rows of an outbox table"""
    prepare(bench)
    for name in BULK_STATEMENTS:
        one_transaction(bench, name)
    samples = bench.take_turns({name: lambda number, name=name: one_transaction(bench, name)
                                for name in BULK_STATEMENTS})
    ratios = [a.wall / b.wall for a, b in zip(samples["enqueue"], samples["insert"])]
    cpu = [a.cpu / b.cpu for a, b in zip(samples["enqueue"], samples["insert"])]
    wall = {name: statistics.median(s.wall for s in taken) for name, taken in samples.items()}
    return [Result(
        "%d events in one transaction, against INSERT into an outbox table" % BULK,
        "%.2f s" % wall["enqueue"], "%.2f s" % wall["insert"], ratios, "<= 0.5",
        statistics.median(ratios) <= 0.5,
        "BEGIN; %s; COMMIT; against BEGIN; %s; COMMIT" % (
            BULK_STATEMENTS["enqueue"], BULK_STATEMENTS["insert"]),
        ["ratio of the backend's processor time: %.2f" % statistics.median(cpu)])]
