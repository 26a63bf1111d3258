"""
inbox

What it adds to a transaction to receive a message once, and what it takes to
forget old ones.

As in cost.py: a procedure that commits after each statement, the backend's
processor time, minus that of a transaction that does nothing.  The ids are
random UUIDs, whose places in an index are random, too.
"""
import os
import statistics
import time

from cost import PROBE
from rows import Result, row

LOOPS = 1000
CHUNKS = 25
BATCH = 100
SMALL = 10 * 1000
LARGE = 10 * 1000 * 1000

STATEMENTS = {
    "nothing": "PERFORM length(id)",
    "receive": "PERFORM eo.receive('bench', id)",
    "insert": "INSERT INTO received (message_id) VALUES (id) ON CONFLICT DO NOTHING",
    "receive_at": "PERFORM eo.receive_at('bench', 'source', i)",
    "few": "PERFORM eo.receive('few', id)",
    "many": "PERFORM eo.receive('many', id)",
}

PROCEDURE = """
CREATE OR REPLACE PROCEDURE load_{name}(first bigint, transactions int) LANGUAGE plpgsql AS $$
DECLARE
	id text;
BEGIN
	FOR i IN first .. first + transactions - 1 LOOP
		id := gen_random_uuid();
		{statement};
		COMMIT;
	END LOOP;
END $$;
"""

# Windows of other lengths, so that each has tables of its own.
PREPARE = """
CREATE TABLE IF NOT EXISTS received (message_id text PRIMARY KEY);
SELECT eo.create_consumer('bench', '7 days');
SELECT eo.create_consumer('few', '1 day');
SELECT eo.create_consumer('many', '30 days');
"""

RECEIVE_MANY = ("SELECT count(*) FROM generate_series(1, {count} / 10000) AS i,"
                " LATERAL eo.receive('{consumer}', (SELECT array_agg(gen_random_uuid()::text)"
                " FROM generate_series(1, 10000) AS j WHERE i > 0)) AS id")


class Cost(float):
    def __str__(self):
        return "%.2f us" % self


def prepare(bench):
    bench.server.execute(PREPARE + "".join(
        PROCEDURE.format(name=name, statement=statement)
        for name, statement in STATEMENTS.items()))


def take(bench, names, counter):
    """One round: {name: microseconds of processor time a transaction}."""
    lines = ["SET synchronous_commit = off;"]
    for chunk in range(-1, CHUNKS):
        for name in names:
            lines += [PROBE.format(0), "CALL load_%s(%d, %d);" % (name, counter[0], LOOPS),
                      PROBE.format(1)]
            if chunk >= 0:
                lines.append("SELECT '%s', (:cpu1 - :cpu0) / 1e3 / %d;" % (name, LOOPS))
            counter[0] += LOOPS
    bench.server.execute("CHECKPOINT")
    taken = {name: [] for name in names}
    for line in bench.server.psql("\n".join(lines)):
        name, cpu = line.split("|")
        taken[name].append(float(cpu))
    return {name: Cost(statistics.median(chunks)) for name, chunks in taken.items()}


def measure(bench, names):
    counter = bench.cache.setdefault("inbox counter", [1])
    rounds = []
    for number in range(bench.rounds):
        rounds.append(take(bench, names, counter))
        bench.say("round %d: %s" % (number + 1, ", ".join(
            "%s %s" % item for item in rounds[-1].items())))
    return rounds


def compare(bench, what, ours, theirs, limit):
    prepare(bench)
    rounds = measure(bench, ["nothing", ours, theirs])
    added = {name: [taken[name] - taken["nothing"] for taken in rounds] for name in (ours, theirs)}
    ratios = [a / b for a, b in zip(added[ours], added[theirs])]
    return Result(
        what, Cost(statistics.median(added[ours])), Cost(statistics.median(added[theirs])), ratios,
        "<= %.1f" % limit, statistics.median(ratios) <= limit,
        "synchronous_commit=off; LOOP id := gen_random_uuid(); X; COMMIT; END LOOP, %d turns of %d a"
        " round, processor time of the backend, X = \"%s\" against \"%s\", each minus \"%s\"" % (
            CHUNKS, LOOPS, STATEMENTS[ours], STATEMENTS[theirs], STATEMENTS["nothing"]))


@row("receive")
def receive(bench):
    """one new message id in its own transaction, against INSERT ... ON CONFLICT DO NOTHING"""
    return [compare(bench, "added cost of one eo.receive, against INSERT ... ON CONFLICT DO NOTHING"
                    " into a table with a primary key", "receive", "insert", 1.1)]


@row("receive_at")
def receive_at(bench):
    """one position in its own transaction, against a message id"""
    return [compare(bench, "added cost of one eo.receive_at, against eo.receive",
                    "receive_at", "receive", 0.7)]


# The ids are made of a number, on the client.
BATCHES = {
    "batch": "\\set i random(1, 1000000000000000)\n"
             "SELECT count(*) FROM eo.receive('bench', ARRAY[" +
             ", ".join("to_hex(:i::bigint + %d)" % i for i in range(BATCH)) + "]);\n",
    "single": "\\set i random(1, 1000000000000000)\n" +
              "".join("SELECT eo.receive('bench', to_hex(:i::bigint + %d));\n" % i for i in range(BATCH)),
}


def batch_round(bench, name):
    """Microseconds on the clock for 100 ids, by a client."""
    path = os.path.join(bench.directory, "inbox.pgbench")
    with open(path, "w") as f:
        f.write("BEGIN;\n" + BATCHES[name] + "COMMIT;\n")
    out = bench.server.run(
        "pgbench", "--no-vacuum", "--client", "1", "--protocol", "prepared", "--transactions", "300",
        "--file", path, capture_output=True,
        env=dict(bench.server.environment, PGOPTIONS="-c synchronous_commit=off")).stdout
    latency = next(line for line in out.splitlines() if line.startswith("latency average"))
    return Cost(1000 * float(latency.split("=")[1].split()[0]))


@row("batch")
def batch(bench):
    """a batch of 100 message ids, against 100 calls"""
    prepare(bench)
    samples = bench.take_turns({name: lambda number, name=name: batch_round(bench, name)
                                for name in BATCHES})
    ratios = [a / b for a, b in zip(samples["batch"], samples["single"])]
    return [Result(
        "%d message ids in one call, against %d calls, in one transaction" % (BATCH, BATCH),
        Cost(statistics.median(samples["batch"])), Cost(statistics.median(samples["single"])),
        ratios, "<= 0.2", statistics.median(ratios) <= 0.2,
        "pgbench --client 1 --protocol prepared, BEGIN; ...; COMMIT, time on the clock of a transaction")]


def fill(bench, consumer, count):
    for part in range(max(count // 1000000, 1)):
        bench.server.execute("SET synchronous_commit = off; " + RECEIVE_MANY.format(
            consumer=consumer, count=min(count, 1000000)))
        if count > 1000000:
            bench.say("%d ids" % ((part + 1) * 1000000))


@row("held")
def held(bench):
    """one new message id where 10 million are held, against 10 thousand"""
    prepare(bench)
    bench.server.execute("TRUNCATE eo.inbox_day_0, eo.inbox_long_0")
    fill(bench, "few", SMALL)
    fill(bench, "many", LARGE)
    bench.server.execute("VACUUM eo.inbox_day_0; VACUUM eo.inbox_long_0")
    rounds = measure(bench, ["nothing", "many", "few"])
    added = {name: [taken[name] - taken["nothing"] for taken in rounds] for name in ("many", "few")}
    ratios = [a / b for a, b in zip(added["many"], added["few"])]
    return [Result(
        "added cost of one eo.receive with %d ids held, against %d" % (LARGE, SMALL),
        Cost(statistics.median(added["many"])), Cost(statistics.median(added["few"])), ratios,
        "<= 1.3", statistics.median(ratios) <= 1.3,
        "as above, X = \"%s\" against \"%s\"" % (STATEMENTS["many"], STATEMENTS["few"]))]


class Seconds(float):
    def __str__(self):
        return "%.3f s" % self


NOW = "SELECT extract(epoch FROM clock_timestamp()) AS %s \\gset\n"


def timed(bench, statement):
    out = bench.server.psql(NOW % "a" + statement + ";\n" + NOW % "b" + "SELECT :b - :a;")
    return Seconds(out[-1])


def give_back(bench, number):
    """Seconds in which the relay gives a generation of 10 million ids back."""
    server = bench.server
    server.execute("TRUNCATE eo.inbox_long_0, eo.inbox_long_1;"
                   "INSERT INTO eo.inbox_long_0 SELECT 1, message_id FROM filled; CHECKPOINT")
    size = int(server.value("SELECT pg_total_relation_size('eo.inbox_long_0')"))
    out = server.psql(NOW % "a" + "BEGIN;\nTRUNCATE eo.inbox_long_0;\n" + NOW % "b" +
                      "COMMIT;\n" + NOW % "c" + "SELECT :b - :a, :c - :a;")
    locked, seconds = map(Seconds, out[-1].split("|"))
    left = int(server.value("SELECT pg_relation_size('eo.inbox_long_0')"))
    if left != 0:
        raise RuntimeError("the generation still has %d bytes" % left)
    bench.cache.setdefault("give_back", []).append((locked, remove_file(bench, size)))
    return seconds


def remove_file(bench, size):
    """Seconds in which the file system takes a file of that size back."""
    path = os.path.join(bench.directory, "removed")
    with open(path, "wb") as f:
        for _ in range(size // 2 ** 20):
            f.write(os.urandom(2 ** 20))
        os.fsync(f.fileno())
    started = time.monotonic()
    os.unlink(path)
    return Seconds(time.monotonic() - started)


def delete(bench, number):
    bench.server.execute("TRUNCATE received; INSERT INTO received SELECT * FROM filled; CHECKPOINT")
    return timed(bench, "DELETE FROM received;\nVACUUM received")


@row("give_back")
def give_back_row(bench):
    """a generation of 10 million ids given back, against DELETE and VACUUM"""
    prepare(bench)
    bench.server.execute("CREATE UNLOGGED TABLE filled AS SELECT gen_random_uuid()::text AS message_id"
                         " FROM generate_series(1, %d)" % LARGE)
    samples = bench.take_turns({"truncate": lambda number: give_back(bench, number),
                                "delete": lambda number: delete(bench, number)})
    bench.server.execute("DROP TABLE filled; TRUNCATE received, eo.inbox_long_0")
    ratios = [a / b for a, b in zip(samples["truncate"], samples["delete"])]
    return [Result(
        "a generation of %d ids given back, against DELETE and VACUUM" % LARGE,
        Seconds(statistics.median(samples["truncate"])), Seconds(statistics.median(samples["delete"])),
        ratios, "<= 0.01", statistics.median(ratios) <= 0.01,
        "BEGIN; TRUNCATE eo.inbox_long_0; COMMIT, what the relay does, against DELETE FROM received; VACUUM received",
        ["until the TRUNCATE has been done: %s; the rest is the commit, which removes the file when its locks are released" %
         statistics.median(locked for locked, removed in bench.cache["give_back"]),
         "to remove a file of that size by hand: %s" %
         statistics.median(removed for locked, removed in bench.cache["give_back"])])]
