#!/usr/bin/env python3
"""Random statements of several sessions, over tables with every type there is:
what the events say, applied to nothing, gives the tables again; TAP.

    EO_STATEMENTS=200000    as many statements (200,000)
    EO_SEED=...             the same ones as a run that has printed this seed
"""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from compare import FUNCTIONS, applied_equal, create_target, debezium_equal, different, rows_equal, source, target  # noqa: E402
from mutate import MUTATIONS, unnoticed  # noqa: E402
from replay import OPS, Replay  # noqa: E402
from samples import ONE_WAY, OPAQUE, SAMPLES, quote  # noqa: E402
from server import Server  # noqa: E402
from tables import MODES, all_tables, identifier, schema  # noqa: E402
from workload import EXPECTED_ERRORS, Session, TAGS, done  # noqa: E402

SESSIONS = 4
ROUND = 20000               # statements between two comparisons
BATCH = 5000                # events
STATEMENTS = int(os.environ.get("EO_STATEMENTS") or "200000")
LEAST = 1 + STATEMENTS // 20000     # of anything that has to happen
SEED = os.environ.get("EO_SEED") or str(random.SystemRandom().randrange(10 ** 9))

# What has no columns: pseudo-types and what belongs to rows of catalogs.
NO_COLUMNS = {"unknown", "cstring", "record", "internal", "void", "trigger"}

APPLY = """
CREATE SCHEMA applied_fact;
CREATE SCHEMA applied_changelog;
CREATE TABLE rebuilt.target (topic text PRIMARY KEY, target regclass);
CREATE PROCEDURE rebuilt.apply_all() LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	LOOP
		SELECT max(seq) INTO last FROM (SELECT seq, eo.apply_change(target, to_jsonb(e))
			FROM eo.fetch('apply', %d) AS e JOIN rebuilt.target USING (topic) ORDER BY seq OFFSET 0) AS a;
		EXIT WHEN last IS NULL;
		PERFORM eo.ack('apply', last);
		COMMIT;
	END LOOP;
END $$;
"""


class Reader:
    """Reads a subscription in a session that stays."""

    def __init__(self, server):
        self.process = subprocess.Popen(
            ["psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"],
            env=server.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def lines(self, sql):
        self.process.stdin.write(sql + "\n\\echo -- done\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line == "-- done\n":
                return
            yield line
        raise RuntimeError("psql ended at: " + sql)

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def take(self, replay):
        """Replays all events that there are, in the order in which they come."""
        while True:
            before = replay.seq
            for line in self.lines("COPY (SELECT seq, topic, key, type, payload FROM eo.fetch('replay', %d)) TO STDOUT;" % BATCH):
                replay.take(line)
            if replay.seq == before:
                return
            for _ in self.lines("SELECT eo.ack('replay', %d);" % replay.seq):
                pass


class Rebuild:
    def __init__(self, server):
        self.server = server
        self.tables = all_tables()
        self.replay = Replay(self.tables)
        self.applied = [t for t in self.tables if t.loadable or t.children]
        self.statements = 0
        self.errors = {}
        self.kinds = dict.fromkeys(TAGS, 0)
        self.unexpected = []
        self.wrong = []
        self.seconds = {}

    def prepare(self):
        self.server.script(schema(self.tables) + FUNCTIONS + APPLY % BATCH)
        targets = []
        for mode in ("fact", "changelog"):
            for table in self.applied:
                targets.append("%s INSERT INTO rebuilt.target VALUES (%s, %s);" % (
                    create_target(table, "applied_" + mode), quote(table.topic(mode)), quote(target(table, "applied_" + mode))))
        self.server.script("\n".join(targets) + """
            SELECT eo.subscribe('replay', start_at => 'beginning');
            SELECT eo.subscribe('apply', topics => '{fact.*,changelog.*}', start_at => 'beginning');
        """)

    def timed(self, what, function):
        start = time.monotonic()
        function()
        self.seconds[what] = self.seconds.get(what, 0) + time.monotonic() - start

    def run_sessions(self, number, statements):
        running = []
        for session in range(SESSIONS):
            script = os.path.join(self.server.directory, "session%d.sql" % session)
            work = Session(self.tables, "%s/%d" % (SEED, number), session)
            if number == 1:
                work.fill()
            with open(script, "w", encoding="utf-8", newline="\n") as f:
                f.write(work.script(statements // SESSIONS))
            self.statements += work.count
            log, out = (open(os.path.join(self.server.directory, "session%d.%s" % (session, what)), "w+", encoding="utf-8")
                        for what in ("log", "out"))
            running.append((log, out, subprocess.Popen(
                ["psql", "--no-psqlrc", "--tuples-only", "--echo-errors", "--file", script], env=self.server.environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=log, text=True)))
        for log, out, process in running:
            if process.wait() != 0:
                self.wrong.append("psql ended with %d" % process.returncode)
            log.seek(0)
            self.read_errors(log)
            log.close()
            out.seek(0)
            for kind, count in done(out).items():
                self.kinds[kind] += count
            out.close()

    def read_errors(self, log):
        """Counts them, and keeps the statements that must not fail so."""
        state = None
        for line in log:
            error = re.match(r"psql:.*:\d+: (?:ERROR|FATAL|PANIC): +(\w{5})$", line)
            statement = re.match(r"psql:.*:\d+: STATEMENT: (.*)", line)
            if error or line.startswith("psql:") and not statement:
                state = error.group(1) if error else line.strip()
                self.errors[state] = self.errors.get(state, 0) + 1
            elif statement and state not in EXPECTED_ERRORS:
                self.unexpected.append("%s: %.500s" % (state, statement.group(1)))

    def read(self):
        reader = Reader(self.server)
        reader.take(self.replay)
        reader.close()

    def compare(self):
        """The rows that the events have left against those of the tables."""
        state = os.path.join(self.server.directory, "state")
        with open(state, "w", encoding="utf-8", newline="\n") as f:
            for name, topic in self.replay.topics.items():
                for line in topic.lines():
                    f.write("%s\t%s\n" % (name, line))
        queries = []
        for table in self.tables:
            for mode in MODES[:3]:
                queries += [("%s: %s" % (table.topic(mode), what), sql) for what, sql in rows_equal(table, mode)]
            queries += [("%s: %s" % (table.topic("debezium"), column), sql) for column, sql in debezium_equal(table)]
            queries.append((table.topic("debezium") + ": number", "SELECT abs((SELECT count(*) FROM rebuilt.state"
                            " WHERE topic = %s) - (SELECT count(*) FROM (%s) AS s))" % (quote(table.topic("debezium")), source(table))))
        for table in self.applied:
            queries += [("%s applied" % table.topic(mode), applied_equal(table, "applied_" + mode)) for mode in ("fact", "changelog")]
        sql = ["TRUNCATE rebuilt.state;", "\\copy rebuilt.state FROM %s" % quote(state), "ANALYZE rebuilt.state;"]
        sql += ["SELECT %s, n FROM (%s) AS q (n) WHERE n <> 0;" % (quote(what), query) for what, query in queries]
        self.wrong += ["%s: %s rows differ" % (what, n) for what, n in self.server.values("\n".join(sql))]
        self.compared = len(queries)
        self.compare_again()

    def compare_again(self):
        """What rows are now told to be against what they were told to be."""
        sql = []
        for table in self.tables:
            for mode in ("fact", "debezium"):
                row = "payload" if mode == "fact" else "payload -> 'after'"
                if mode == "fact" and table.zoned:
                    continue
                sql.append("""
                    BEGIN;
                    %s
                    UPDATE %s SET %s = %s;
                    SET CONSTRAINTS ALL IMMEDIATE;
                    SELECT %s, n FROM (%s) AS q (n) WHERE n <> 0;
                    ROLLBACK;""" % (
                    " ".join("ALTER TABLE %s DISABLE TRIGGER %s;" % (table.name, t) for t in table.triggers),
                    table.name, identifier(table.key[0]), identifier(table.key[0]), quote(table.topic(mode) + ": told again"),
                    different("SELECT key, %s FROM eo.pending() WHERE topic = %s" % (row, quote(table.topic(mode))),
                              "SELECT key, row FROM rebuilt.state WHERE topic = %s" % quote(table.topic(mode)))))
        self.wrong += ["%s: %s rows differ" % (what, n) for what, n in self.server.values("\n".join(sql))]

    def happened(self):
        """How often each thing that the events have to survive did."""
        counts = dict(self.kinds)
        for name in ("cascaded_update", "cascaded_delete"):
            counts[name] = int(self.server.values("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM " + name)[0][0])
        counts["moved to another partition"] = sum(t.moves for t in self.replay.topics.values())
        counts["collided with another session"] = self.errors.get("40001", 0) + self.errors.get("40P01", 0)
        for mode in MODES:
            topics = [t for t in self.replay.topics.values() if t.mode == mode]
            for op in sorted({op for t in topics for op in t.ops}):
                counts["%s %s" % (mode, op)] = sum(t.ops.get(op, 0) for t in topics)
        return counts

    def run(self):
        self.prepare()
        number = 0
        while self.statements < STATEMENTS and not self.wrong and not self.replay.deviations:
            number += 1
            count = min(ROUND, STATEMENTS - self.statements)
            self.timed("statements", lambda: self.run_sessions(number, count))
            self.timed("replay", self.read)
            self.replay.keeping = False
            self.timed("apply", lambda: self.server.execute("CALL rebuilt.apply_all()"))
            self.timed("compare", self.compare)
        rows = self.server.values("SELECT sum(n) FROM (%s) AS q" % " UNION ALL ".join(
            "SELECT count(*) AS n FROM " + t.name for t in self.tables))
        print("# %d statements, %d events, %s rows at the end; errors: %s" % (
            self.statements, sum(t.count for t in self.replay.topics.values()), rows[0][0],
            ", ".join("%s %d" % e for e in sorted(self.errors.items(), key=lambda e: -e[1]))))
        print("# done: " + ", ".join("%s %d" % k for k in self.happened().items()))
        print("# seconds: " + ", ".join("%s %.0f" % s for s in self.seconds.items()))


def test_types():
    """the tables have a column of every type that PostgreSQL has"""
    found = {row[0] for row in server.values(
        "SELECT DISTINCT CASE WHEN t.typtype = 'd' THEN 'information_schema.' ELSE '' END || CASE t.typname WHEN 'char' THEN"
        " '\"char\"' ELSE t.typname END FROM pg_type AS t WHERE t.typtype IN ('b', 'r', 'm', 'e', 'd') AND t.oid < 16384"
        " AND t.typelem = 0 OR t.typname IN ('point', 'lseg', 'box', 'line', 'name', 'int2vector', 'oidvector')")}
    missing = found - {name.split("(")[0] for name in (*SAMPLES, *ONE_WAY)} - set(OPAQUE) - NO_COLUMNS
    assert len(found) > 70, found
    assert not missing, missing


def test_statements():
    """statements of several sessions run, and fail only as they may"""
    rebuild.run()
    unexpected = {e: n for e, n in rebuild.errors.items() if e not in EXPECTED_ERRORS}
    assert not unexpected, "%s, seed %s\n%s" % (unexpected, SEED, "\n".join(rebuild.unexpected[:20]))
    assert rebuild.statements >= STATEMENTS or rebuild.wrong or rebuild.replay.deviations, rebuild.statements
    silent = [name for name, topic in rebuild.replay.topics.items() if topic.count == 0]
    assert not silent, "no events of %s" % silent


def test_kinds():
    """every kind of statement has changed something, and every kind of event has come"""
    happened = rebuild.happened()
    rare = {what: n for what, n in happened.items() if n < LEAST}
    assert not rare, "%s, seed %s" % (rare, SEED)
    events = {"%s %s" % (mode, op) for mode, ops in OPS.items() for op in ops}
    assert events == {what for what in happened if what.split()[0] in MODES}, happened


def test_events():
    """each event fits what those before it have left"""
    deviations = rebuild.replay.deviations
    assert not deviations, "%d, seed %s\n" % (len(deviations), SEED) + "\n".join(deviations[:20])


def test_spoilt_events():
    """events that are lost, doubled, late, or say something else are noticed"""
    rng = random.Random(SEED)
    tried = {}
    missed = []
    for table in rebuild.tables:
        for mode in MODES:
            counts, silent = unnoticed(table, mode, rebuild.replay.kept.get(table.topic(mode), ()), rng)
            missed += silent
            for what, n in counts.items():
                tried[mode, what] = tried.get((mode, what), 0) + n
    print("# spoilt: " + ", ".join("%s %s %d" % (*what, n) for what, n in tried.items()))
    assert not missed, "%d, seed %s\n%s" % (len(missed), SEED, "\n".join(missed[:20]))
    assert len(tried) == len(MODES) * len(MUTATIONS) and min(tried.values()) > 20, tried


def test_tables():
    """the rebuilt tables are equal to their sources"""
    assert not rebuild.wrong, "seed %s\n" % SEED + "\n".join(rebuild.wrong[:60])


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("# seed %s" % SEED, flush=True)
directory = tempfile.mkdtemp(prefix="eo-rebuild.")
try:
    with Server(os.path.join(directory, "server"), deadlock_timeout="20ms") as server:
        server.execute("CREATE EXTENSION eo_outbox")
        rebuild = Rebuild(server)
        tap.main(globals())
finally:
    if not os.environ.get("EO_KEEP"):
        shutil.rmtree(directory, ignore_errors=True)
