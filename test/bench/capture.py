"""
capture

What it adds to an UPDATE or an INSERT that its table is captured, against the
triggers that people write or use instead.

As in cost.py: a procedure that commits after each statement, the backend's
processor time, minus that of the same statement on a table without a trigger.
"""
import statistics

from cost import PROBE
from rows import Result, row

ROWS = 10000
LOOPS = 1000
CHUNKS = 25
BULK = 1000 * 1000

COLUMNS = """(
	id bigint PRIMARY KEY,
	customer integer NOT NULL,
	status text NOT NULL,
	amount numeric(12,2) NOT NULL,
	created timestamptz NOT NULL,
	shipped boolean,
	note text
)"""

FILL = ("INSERT INTO {table} SELECT i, i % 1000, 'open', i * 1.01, '2026-01-01'::timestamptz + i * '1 s'::interval,"
        " i % 2 = 0, 'a note of no great length about order ' || i FROM generate_series(1, {count}) AS i")

UPDATE = "UPDATE {table} SET status = 'paid', amount = amount + 1 WHERE id = 1 + (i * 7919) % 10000"

# The table of each variant, and what is done to it.
VARIANTS = {
    "uncaptured": "",
    "captured": "SELECT eo.capture('captured')",
    "plpgsql": """
CREATE TABLE row_outbox (id bigserial PRIMARY KEY, topic text NOT NULL, key text, type text, payload jsonb, created_at timestamptz DEFAULT now());
CREATE FUNCTION to_row_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO row_outbox (topic, key, type, payload) VALUES ('public.plpgsql', NEW.id::text, TG_OP, to_jsonb(NEW));
	RETURN NULL;
END $$;
CREATE TRIGGER outbox AFTER INSERT OR UPDATE ON plpgsql FOR EACH ROW EXECUTE FUNCTION to_row_outbox()""",
    "logutriga": """
CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench');
CREATE TRIGGER outbox AFTER INSERT OR UPDATE ON logutriga FOR EACH ROW EXECUTE FUNCTION pgq.logutriga('bench')""",
}

PROCEDURE = """
CREATE PROCEDURE update_{table}(first bigint, transactions int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN first .. first + transactions - 1 LOOP
		{statement};
		COMMIT;
	END LOOP;
END $$"""


class Cost(float):
    def __str__(self):
        return "%.2f us" % self


class Seconds(float):
    def __str__(self):
        return "%.2f s" % self


def prepare(bench, name):
    if ("capture", name) in bench.cache:
        return
    bench.cache["capture", name] = True
    bench.server.execute(";".join([
        "CREATE TABLE %s %s" % (name, COLUMNS), FILL.format(table=name, count=ROWS),
        PROCEDURE.format(table=name, statement=UPDATE.format(table=name)), VARIANTS[name]]))


def take(bench, names):
    """One round: {name: microseconds of processor time a transaction}."""
    lines = ["SET synchronous_commit = off;"]
    for chunk in range(-1, CHUNKS):
        for name in names:
            lines += [PROBE.format(0), "CALL update_%s(%d, %d);" % (name, chunk * LOOPS, LOOPS),
                      PROBE.format(1)]
            if chunk >= 0:
                lines.append("SELECT '%s', (:cpu1 - :cpu0) / 1e3 / %d;" % (name, LOOPS))
    bench.server.execute("CHECKPOINT")
    taken = {name: [] for name in names}
    for line in bench.server.psql("\n".join(lines)):
        name, cpu = line.split("|")
        taken[name].append(float(cpu))
    return {name: Cost(statistics.median(chunks)) for name, chunks in taken.items()}


def compare(bench, what, theirs, limit):
    names = ["uncaptured", "captured", theirs]
    for name in names:
        prepare(bench, name)
    rounds = []
    for number in range(bench.rounds):
        rounds.append(take(bench, names))
        bench.say("round %d: %s" % (number + 1, ", ".join("%s %s" % item for item in rounds[-1].items())))
    added = {name: [taken[name] - taken["uncaptured"] for taken in rounds] for name in names[1:]}
    ratios = [a / b for a, b in zip(added["captured"], added[theirs])]
    return Result(
        what, Cost(statistics.median(added["captured"])), Cost(statistics.median(added[theirs])), ratios,
        "<= %.1f" % limit, statistics.median(ratios) <= limit,
        "synchronous_commit=off; LOOP %s; COMMIT; END LOOP, %d turns of %d a round, processor time of"
        " the backend, minus that without a trigger" % (UPDATE.format(table="orders"), CHUNKS, LOOPS))


@row("capture_update")
def capture_update(bench):
    """a captured UPDATE, against a PL/pgSQL trigger that inserts into an outbox table"""
    return [compare(bench, "added cost of a captured UPDATE, against a PL/pgSQL trigger that inserts to_jsonb(NEW)",
                    "plpgsql", 0.4)]


@row("capture_pgq", "pgq")
def capture_pgq(bench):
    """a captured UPDATE, against PgQ's logutriga"""
    return [compare(bench, "added cost of a captured UPDATE, against PgQ's logutriga", "logutriga", 0.7)]


def insert(bench, table):
    bench.server.execute("TRUNCATE bulk_plain, bulk_captured; CHECKPOINT")
    out = bench.server.psql("\n".join([
        "SET synchronous_commit = off;", PROBE.format(0),
        FILL.format(table=table, count=BULK) + ";", PROBE.format(1), "SELECT :at1 - :at0;"]))
    return Seconds(float(out[-1]))


@row("capture_bulk")
def capture_bulk(bench):
    """a million captured rows inserted by one statement, against the same uncaptured"""
    bench.server.execute("CREATE TABLE bulk_plain %s; CREATE TABLE bulk_captured %s;"
                         "SELECT eo.capture('bulk_captured')" % (COLUMNS, COLUMNS))
    for table in ("bulk_plain", "bulk_captured"):
        insert(bench, table)
    samples = bench.take_turns({
        "captured": lambda number: insert(bench, "bulk_captured"),
        "uncaptured": lambda number: insert(bench, "bulk_plain")})
    ratios = [a / b for a, b in zip(samples["captured"], samples["uncaptured"])]
    return [Result(
        "INSERT of %d captured rows, against the same uncaptured" % BULK,
        Seconds(statistics.median(samples["captured"])), Seconds(statistics.median(samples["uncaptured"])),
        ratios, "<= 2.5", statistics.median(ratios) <= 2.5,
        FILL.format(table="orders", count=BULK) + ", time on the clock")]
