#!/usr/bin/env python3
"""The tables that PostgreSQL's own regression tests leave behind: each is captured,
and what the events tell of their rows is what to_jsonb() does; TAP."""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import source  # noqa: E402
import tap  # noqa: E402
from samples import quote  # noqa: E402
from server import Server  # noqa: E402

SESSIONS = 2

# What may be said to a table that cannot be captured as it is, and what to do then.
REFUSALS = {
    "55000": ('captured table "*" has no key', "Add a primary key, or name the columns that tell its rows apart:"
              " eo.capture(..., key_columns => '{...}')."),
    "42809": ('table "*" cannot be captured', "Capture a permanent table; see ALTER TABLE ... SET LOGGED."),
}

MAKEFILE = """
MODULES = regress
PGXS := $(shell $(PG_CONFIG) --pgxs)
override with_llvm := no
include $(PGXS)
"""


class Findings:
    """What checked.check() says, of all tables."""

    def __init__(self, lines):
        self.rows = {}
        self.events = {}
        self.tables = {}
        self.wrong = []
        for line in lines:
            if len(line) != 6:
                self.wrong.append(" ".join(line))
                continue
            relation, step, rows, events, wrong, error = line
            self.rows[step] = self.rows.get(step, 0) + int(rows)
            self.events[step] = self.events.get(step, 0) + int(events)
            self.tables.setdefault(step, set()).add(relation)
            if int(wrong) or rows != events or step not in ("updated", "changed", "deleted", "inserted", "refused"):
                self.wrong.append("%s %s: %s rows, %s events, %s differ %s" % (relation, step, rows, events, wrong, error))

    def tell(self, mode):
        print("# %s: %s" % (mode, ", ".join("%s %d rows of %d tables" % (step, self.events[step], len(self.tables[step]))
                                            for step in sorted(self.events))))


def build_library(folder):
    """C functions that the tests load; those without them would leave fewer tables."""
    shutil.copy(os.path.join(folder, "regress.c"), directory)
    with open(os.path.join(directory, "Makefile"), "w") as f:
        f.write(MAKEFILE)
    subprocess.run(["make", "-s"], cwd=directory, check=True, stdin=subprocess.DEVNULL)
    library = subprocess.run(["pg_config", "--pkglibdir"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    for name in ("refint", "autoinc"):
        for path in glob.glob(os.path.join(library, name + ".so")):
            shutil.copy(path, directory)


def test_suite():
    """PostgreSQL's regression tests leave a database behind"""
    build_library(folder)
    os.mkdir(os.path.join(directory, "out"))
    log = os.path.join(directory, "out", "log")
    with open(log, "w") as f:
        subprocess.run([os.environ["PG_REGRESS"], "--bindir=" + os.path.dirname(shutil.which("psql")), "--inputdir=" + folder,
                        "--outputdir=" + os.path.join(directory, "out"), "--dlpath=" + directory,
                        "--host=" + server.directory, "--port=5432", "--user=shop_owner", "--max-concurrent-tests=20",
                        "--schedule=" + os.path.join(folder, "parallel_schedule")],
                       stdin=subprocess.DEVNULL, stdout=f, stderr=f)
    with open(log, errors="replace") as f:
        said = f.read()
    failed = re.findall(r"(?:not ok +\d+ +[-+] +(\w\S*) |^(?:test|) +(\w\S*) +\.\.\. .*FAILED)", said, re.M)
    good = re.findall(r"^(?:ok +\d+ +[-+] |(?:test|) +\w\S* +\.\.\. ok )", said, re.M)
    print("# the tests of %s: %d as expected, %d not: %s" % (version, len(good), len(failed), " ".join("".join(f) for f in failed)))
    # those of another minor version, or of a server without some option, may differ
    assert len(good) > 150 and len(failed) < 30, said[-3000:]
    server.environment["PGDATABASE"] = "regression"
    # some refuse an UPDATE of what they publish
    server.script("SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication \\gexec\nCREATE EXTENSION eo_outbox;")
    server.psql("--file", os.path.join(HERE, "check_rows.sql"))


def test_capture():
    """every table is captured, after what the refusal says to do"""
    server.execute("CALL checked.capture('fact')")
    refused = server.values("SELECT state, regexp_replace(message, '\".*\"', '\"*\"'), hint, count(*) FROM checked.refused"
                            " GROUP BY 1, 2, 3")
    assert {line[0]: (line[1], line[2]) for line in refused} == REFUSALS, refused
    assert len(refused) == len(REFUSALS), refused
    numbers = dict(server.values("""
        SELECT 'left out', count(*) FROM checked.tables WHERE root AND relation NOT IN (SELECT relation FROM eo.captures)
        UNION ALL SELECT 'captured', count(*) FROM eo.captures
        UNION ALL SELECT 'partitioned', count(*) FROM checked.tables WHERE relkind = 'p'
        UNION ALL SELECT 'partitions', count(*) FROM pg_class WHERE relkind = 'r' AND relispartition
        UNION ALL SELECT 'children', count(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r' AND NOT relispartition
        UNION ALL SELECT 'dropped columns', count(*) FROM pg_attribute JOIN checked.tables ON attrelid = relation WHERE attisdropped
        UNION ALL SELECT 'generated columns', count(*) FROM pg_attribute JOIN checked.tables ON attrelid = relation WHERE attgenerated <> ''
        UNION ALL SELECT 'types', count(DISTINCT atttypid) FROM pg_attribute JOIN checked.tables ON attrelid = relation WHERE attnum > 0
        UNION ALL SELECT 'other access methods', count(*) FROM pg_class JOIN pg_am ON pg_am.oid = relam
            WHERE relkind = 'r' AND amname <> 'heap'
        """))
    print("# " + ", ".join("%s %s" % n for n in numbers.items()))
    least = {"captured": 300, "partitioned": 50, "partitions": 100, "children": 20, "dropped columns": 20,
             "generated columns": 5, "types": 80, "other access methods": 1}
    few = {what: numbers[what] for what, n in least.items() if int(numbers[what]) < n}
    assert not few, few
    assert numbers["left out"] == "0", server.values(
        "SELECT relation FROM checked.tables WHERE root AND relation NOT IN (SELECT relation FROM eo.captures)")


def check(mode, condition):
    """Checks the tables, each in a transaction that is rolled back, in several sessions."""
    tables = [line[0] for line in server.values(
        "SELECT relation FROM checked.tables WHERE relkind = 'r' AND %s ORDER BY pg_table_size(relation) DESC" % condition)]
    running = []
    for session in range(SESSIONS):
        path = os.path.join(server.directory, "check%d.sql" % session)
        with open(path, "w") as f:
            f.writelines("BEGIN;\nSELECT * FROM checked.check(%s, %s);\nROLLBACK;\n" % (quote(t), quote(mode))
                         for t in tables[session::SESSIONS])
        out = open(path + ".out", "w+")
        running.append((out, subprocess.Popen(
            ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator", "\t", "--file", path],
            env=server.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, text=True)))
    lines = []
    for out, process in running:
        assert process.wait() == 0
        out.seek(0)
        lines += [line.rstrip("\n").split("\t") for line in out]
        out.close()
    found = Findings(lines)
    found.tell(mode)
    assert not found.wrong, "\n".join(found.wrong[:30])
    missing = set(tables) - found.tables["deleted"]
    assert not missing, missing
    return found


def test_fact():
    """facts tell of each row, put, changed and deleted, what to_jsonb() does"""
    found = check("fact", "true")
    assert min(found.events[step] for step in ("updated", "changed", "deleted", "inserted")) > 100000, found.events
    assert len(found.tables["changed"]) > 300, len(found.tables["changed"])


def test_delta():
    """so do deltas, of rows that come and go"""
    server.execute("CALL checked.uncapture()")
    server.execute("CALL checked.capture('delta')")
    found = check("delta", "pg_table_size(relation) < 500000")
    assert min(found.events[step] for step in ("deleted", "inserted")) > 10000, found.events


def test_notices():
    """a payload with another value is noticed"""
    server.execute("CALL checked.uncapture()")
    server.script("""
        CREATE TRIGGER spoilt AFTER INSERT OR DELETE OR UPDATE ON onek FOR EACH ROW
            EXECUTE FUNCTION eo.capture_row('topic=public.onek', 'key=unique1', 'exclude=hundred');
        CREATE TRIGGER half AFTER DELETE ON onek2 FOR EACH ROW WHEN (old.unique1 > 10)
            EXECUTE FUNCTION eo.capture_row('topic=public.onek2', 'key=unique1');
    """)
    for table in ("onek", "onek2"):
        found = Findings(server.values("BEGIN; SELECT * FROM checked.check('%s', 'fact'); ROLLBACK;" % table))
        assert any("deleted" in wrong for wrong in found.wrong), (table, found.wrong)


try:
    folder, version = source.path()
except RuntimeError as error:
    print("1..0 # SKIP %s" % error)
    sys.exit()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
directory = tempfile.mkdtemp(prefix="eo-tables.")
try:
    with Server(os.path.join(directory, "server"), max_connections="50") as server:
        tap.main(globals())
finally:
    shutil.rmtree(directory, ignore_errors=True)
