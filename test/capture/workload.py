"""
workload

Random statements: a script for psql, the same for the same seed.
"""
import random
import re

from samples import quote
from tables import Number, identifier

# What a statement may fail with, beside what the application itself raises: a
# constraint, an earlier failure, another session, pending events of triggers.
EXPECTED_ERRORS = {"23502", "23503", "23505", "23514", "25P02", "40001", "40P01", "55006", "21000", "27000", "3B001", "0A000", "P0001"}

# Before the name of a kind of statement, in what psql prints.
KIND = "-- kind "

# The last tag of a command that has done what its kind is for; the others just
# have to end without an error.
TAGS = {kind: re.compile(tag + "$") for kind, tag in {
    "insert": "INSERT 0 [1-9].*", "insert_select": "INSERT 0 [1-9].*", "upsert": "INSERT 0 [1-9].*",
    "swap": "INSERT 0 [1-9].*", "update": "UPDATE [1-9].*", "update_many": "UPDATE [1-9].*",
    "update_key": "UPDATE [1-9].*", "move": "UPDATE [1-9].*", "update_nothing": "UPDATE [1-9].*", "execute": "UPDATE [1-9].*",
    "delete": "DELETE [1-9].*", "delete_many": "DELETE [1-9].*", "merge": "MERGE [1-9].*", "copy": "COPY [1-9].*",
    "truncate": "TRUNCATE TABLE", "block": "DO", "touch": ".*", "chain": ".*", "commit": "COMMIT", "rollback": "ROLLBACK",
    "rollback_to_savepoint": "ROLLBACK", "release_savepoint": "RELEASE"}.items()}


def done(lines):
    """Counts the statements of each kind that have done something."""
    counts = dict.fromkeys(TAGS, 0)
    kind = last = None
    for line in [*lines, KIND]:
        line = line.strip()
        if line.startswith(KIND.strip()):
            if last is not None and kind in TAGS and TAGS[kind].match(last):
                counts[kind] += 1
            kind, last = line[len(KIND):], None
        elif line:
            last = line
    return counts


SETTINGS = (
    "SET timezone = 'UTC';",
    "SET timezone = 'Asia/Kolkata'; SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape';",
    "SET timezone = 'America/St_Johns'; SET datestyle = 'SQL, MDY'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = -3;",
    "SET timezone = 'Europe/Vienna'; SET datestyle = 'Postgres, DMY'; SET intervalstyle = 'postgres_verbose'; SET extra_float_digits = 0;"
    " SET eo_outbox.buffer_memory = '64kB';",
)


def copied(value):
    """As COPY reads it."""
    if value is None:
        return "\\N"
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(plain, escaped)
    return value


class Session:
    """The statements of one session."""

    def __init__(self, tables, seed, number):
        self.tables = tables
        self.rng = random.Random("%s/%d" % (seed, number))
        self.number = number
        self.often = [t for t in tables if not t.label.startswith("types_")]
        self.out = []
        self.count = 0
        self.prepared = {}
        self.kinds = (
            (20, self.insert), (8, self.upsert), (3, self.insert_select), (28, self.update), (6, self.update_many),
            (7, self.update_key), (5, self.update_nothing), (12, self.delete), (4, self.delete_many),
            (4, self.merge), (4, self.copy), (0.25, self.truncate), (3, self.swap), (3, self.chain),
            (4, self.execute), (5, self.block), (2, self.touch), (1, self.move))

    # ---- parts of statements --------------------------------------------------

    def columns(self, table, some=False):
        columns = [c for c in table.columns if not some or self.rng.random() < 0.35]
        return columns or [self.rng.choice(table.columns)]

    def key(self, table):
        return [t.literal(self.rng) for t in table.keys]

    def names(self, table, columns):
        names = table.key if table.keys else []
        return ", ".join(identifier(c) for c in [*names, *(c for c, _ in columns)])

    def row(self, table, columns):
        values = self.key(table) if table.keys else []
        return "(" + ", ".join([*values, *(t.literal(self.rng) for _, t in columns)]) + ")"

    def rows(self, table, columns, most=5):
        return ", ".join(self.row(table, columns) for _ in range(self.rng.choice((1, 1, 1, 2, most))))

    def assignments(self, table, some=True):
        return ", ".join("%s = %s" % (identifier(c), t.literal(self.rng)) for c, t in self.columns(table, some))

    def where(self, table):
        if table.keys is None:
            return "%s %% 97 = %d" % (identifier(table.key[0]), self.rng.randrange(97))
        return " AND ".join("%s = %s" % (identifier(c), v) for c, v in zip(table.key, self.key(table)))

    def range(self, table):
        """A condition for some rows."""
        number = next((c for c, t in zip(table.key, table.keys or [])
                       if isinstance(t, Number)), None)
        if table.keys is None:
            return "%s %% 13 = %d" % (identifier(table.key[0]), self.rng.randrange(13))
        if number is None:
            return "n %% 5 = %d" % self.rng.randrange(5)
        start = self.rng.randrange(60)
        return "%s BETWEEN %d AND %d" % (identifier(number), start, start + self.rng.randrange(8))

    def place(self, table):
        """The table, or a part of it."""
        places = [p for p in table.parts or table.children if self.rng.random() < 0.1]
        return places[0] if places else table.name

    # ---- statements -----------------------------------------------------------

    def insert(self, table):
        columns = self.columns(table, some=self.rng.random() < 0.3)
        where = self.rng.choice(table.children) if table.children and self.rng.random() < 0.6 else table.name
        sql = "INSERT INTO %s (%s) VALUES %s" % (where, self.names(table, columns), self.rows(table, columns))
        if table.keys and self.rng.random() < 0.6:
            sql += " ON CONFLICT DO NOTHING"
        return sql

    def upsert(self, table):
        if not table.keys:
            return self.insert(table)
        columns = self.columns(table)
        key = ", ".join(identifier(c) for c in table.key)
        changed = self.columns(table, True)
        sets = ", ".join("%s = %s" % (identifier(c), self.rng.choice(("excluded." + identifier(c), t.literal(self.rng))))
                         for c, t in changed)
        if self.rng.random() < 0.1 and len(table.key) == 1 and isinstance(table.keys[0], Number):
            sets += ", %s = %s" % (key, self.key(table)[0])
        return "INSERT INTO %s (%s) VALUES %s ON CONFLICT (%s) DO UPDATE SET %s" % (
            table.name, self.names(table, columns), self.rows(table, columns, 3), key, sets)

    def insert_select(self, table):
        """Copies of rows under other keys."""
        if table.keys is None:
            names = ", ".join(identifier(c) for c, _ in table.columns)
            return "INSERT INTO %s (%s) SELECT %s FROM %s ORDER BY 1 LIMIT 3" % (table.name, names, names, table.name)
        names = ", ".join(identifier(c) for c, _ in table.columns)
        return "INSERT INTO %s (%s) SELECT %s, %s FROM %s WHERE %s LIMIT 1 ON CONFLICT DO NOTHING" % (
            table.name, self.names(table, table.columns), ", ".join(self.key(table)), names, table.name, self.range(table))

    def update(self, table):
        return "UPDATE %s SET %s WHERE %s" % (self.place(table), self.assignments(table), self.where(table))

    def update_many(self, table):
        return "UPDATE %s SET %s WHERE %s" % (self.place(table), self.assignments(table), self.range(table))

    def update_key(self, table):
        if table.keys is None:
            return self.update(table)
        sets = ["%s = %s" % (identifier(c), v) for c, v in zip(table.key, self.key(table))
                if len(table.key) == 1 or self.rng.random() < 0.7]
        if self.rng.random() < 0.5 or not sets:
            sets.append(self.assignments(table))
        return "UPDATE %s SET %s WHERE %s" % (table.name, ", ".join(sets), self.where(table))

    def update_nothing(self, table):
        column = identifier(self.rng.choice([*table.key, *(c for c, _ in table.columns)]))
        return "UPDATE %s SET %s = %s WHERE %s" % (table.name, column, column, self.range(table))

    def delete(self, table):
        return "DELETE FROM %s WHERE %s" % (self.place(table), self.where(table))

    def delete_many(self, table):
        return "DELETE FROM %s WHERE %s" % (self.place(table), self.range(table))

    def merge(self, table):
        if not table.keys:
            return self.update(table)
        columns = self.columns(table)
        on = " AND ".join("t.%s = s.%s" % (identifier(c), identifier(c)) for c in table.key)
        sets = ", ".join("%s = s.%s" % (identifier(c), identifier(c)) for c, _ in columns)
        values = ", ".join("s." + identifier(c) for c in [*table.key, *(c for c, _ in columns)])
        return ("MERGE INTO %s AS t USING (SELECT DISTINCT ON (%s) * FROM (VALUES %s) AS v (%s)) AS s ON %s"
                " WHEN MATCHED THEN %s WHEN NOT MATCHED THEN INSERT (%s) VALUES (%s)") % (
            table.name, ", ".join(identifier(c) for c in table.key), self.rows(table, columns, 4),
            self.names(table, columns), on, self.rng.choice(("UPDATE SET " + sets, "DELETE", "DO NOTHING")),
            self.names(table, columns), values)

    def copy(self, table):
        if table.label == "opaque":
            return self.insert(table)
        columns = self.columns(table)
        lines = []
        for _ in range(self.rng.choice((1, 2, 6))):
            values = [t.value(self.rng) for t in table.keys or []] + [t.value(self.rng) for _, t in columns]
            lines.append("\t".join(copied(v) for v in values))
        # as most keys are taken
        before = "DELETE FROM %s WHERE %s;\n" % (table.name, self.range(table)) if table.keys and self.rng.random() < 0.6 else ""
        return "%sCOPY %s (%s) FROM STDIN;\n%s\n\\." % (before, table.name, self.names(table, columns), "\n".join(lines))

    def truncate(self, table):
        places = [table.name, *table.parts, *table.children]
        place = self.rng.choice(places)
        only = "ONLY " if table.children and self.rng.random() < 0.4 else ""
        return "TRUNCATE %s%s%s" % (only, place, self.rng.choice((" CASCADE", " CASCADE", " RESTART IDENTITY CASCADE", "")))

    def swap(self, table):
        """A row leaves and another comes under its key, in one statement."""
        if not table.keys:
            return self.delete_many(table)
        names = ", ".join(identifier(c) for c, _ in table.columns)
        key = ", ".join(identifier(c) for c in table.key)
        return "WITH gone AS (DELETE FROM %s WHERE %s RETURNING *) INSERT INTO %s (%s, %s) SELECT %s, %s FROM gone" % (
            table.name, self.range(table), table.name, key, names, key, names)

    def chain(self, table):
        """Several changes in one statement, in an order that nobody knows."""
        other = self.rng.choice(self.tables)
        return "WITH a AS (%s RETURNING 1), b AS (%s RETURNING 1) SELECT count(*) FROM a, b" % (
            self.update(table), self.delete(other))

    def execute(self, table):
        """A prepared statement, planned once."""
        if not table.keys:
            return self.update(table)
        column, kind = table.columns[self.rng.randrange(len(table.columns))]
        name = "p_%s_%s" % (table.label, table.columns.index((column, kind)))
        self.prepared[name] = "PREPARE %s AS UPDATE %s SET %s = $1 WHERE %s;" % (
            name, table.name, identifier(column),
            " AND ".join("%s = $%d" % (identifier(c), n) for n, c in enumerate(table.key, 2)))
        return "EXECUTE %s(%s)" % (name, ", ".join([kind.literal(self.rng), *self.key(table)]))

    def block(self, table):
        """PL/pgSQL, with a part that is rolled back."""
        kinds = (self.insert, self.update, self.update_key, self.delete, self.upsert)
        inner = [self.rng.choice(kinds)(self.rng.choice((table, self.some_table()))) for _ in range(self.rng.randrange(1, 4))]
        self.count += len(inner)
        fails = "RAISE 'no';" if self.rng.random() < 0.5 else ""
        after = self.rng.choice(kinds)(table)
        return ("DO $do$ BEGIN BEGIN %s; %s EXCEPTION WHEN raise_exception OR integrity_constraint_violation OR"
                " cardinality_violation THEN NULL; END; %s; EXCEPTION WHEN integrity_constraint_violation OR"
                " cardinality_violation THEN NULL; END $do$") % ("; ".join(inner), fails, after)

    def touch(self, _):
        """Changes what it has just inserted."""
        ids = self.rng.sample(range(150), 3)
        return self.rng.choice((
            "WITH i AS (INSERT INTO account (id, n) VALUES (%d, %d), (%d, 1), (%d, 2) ON CONFLICT DO NOTHING RETURNING id)"
            " SELECT touch(id) FROM i" % (ids[0], self.rng.randrange(300), ids[1], ids[2]),
            "WITH i AS (UPDATE account SET n = n + 1 WHERE id BETWEEN %d AND %d RETURNING id) SELECT touch(id) FROM i" % (
                ids[0], ids[0] + 5),
            "WITH i AS (DELETE FROM account WHERE id = %d RETURNING id) INSERT INTO account (id, n) SELECT id, 5 FROM i" % ids[0]))

    def move(self, _):
        """Rows go to other partitions."""
        return self.rng.choice((
            "UPDATE moved SET region = %d WHERE id %% 7 = %d" % (self.rng.randrange(8), self.rng.randrange(7)),
            "UPDATE parted SET region = %s WHERE id BETWEEN %d AND 59" % (quote(self.rng.choice("abcd")), self.rng.randrange(40, 60)),
            "UPDATE parted SET id = (id + 40) %% 80 WHERE region = %s" % quote(self.rng.choice("bc"))))

    # ---- transactions ---------------------------------------------------------

    def some_table(self):
        # every fourth statement meets the types
        if self.rng.random() < 0.25:
            return self.rng.choice(self.tables)
        return self.rng.choice(self.often)

    def statement(self):
        table = self.some_table()
        kind = self.rng.choices([k for _, k in self.kinds], [w for w, _ in self.kinds])[0]
        sql = kind(table)
        self.tell(kind.__name__)
        self.out.append(sql if sql.endswith("\n\\.") else sql + ";")
        self.count += 1

    def tell(self, kind):
        """What comes next, for those who read what psql prints."""
        self.out.append("\\echo %s%s" % (KIND, kind))

    def savepoint(self, depth):
        """Some statements that may be taken back."""
        self.out.append("SAVEPOINT s%d;" % depth)
        for _ in range(self.rng.randrange(1, 4)):
            self.statement()
            if depth < 3 and self.rng.random() < 0.2:
                self.savepoint(depth + 1)
        back = self.rng.random() < 0.4
        self.tell("rollback_to_savepoint" if back else "release_savepoint")
        self.out.append("%s s%d;" % ("ROLLBACK TO" if back else "RELEASE", depth))

    def transaction(self):
        level = self.rng.choice(("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ"))
        self.out.append("BEGIN ISOLATION LEVEL %s;" % level)
        # errors take back one statement only, or all
        self.out.append("\\set ON_ERROR_ROLLBACK %s" % self.rng.choice(("on", "on", "off")))
        if self.rng.random() < 0.1:
            self.out.append("SET CONSTRAINTS ALL %s;" % self.rng.choice(("IMMEDIATE", "DEFERRED")))
        for _ in range(self.rng.randrange(1, 8)):
            self.statement()
            if self.rng.random() < 0.15:
                self.savepoint(1)
        back = self.rng.random() < 0.12
        self.tell("rollback" if back else "commit")
        self.out.append("ROLLBACK;" if back else "COMMIT;")

    def fill(self):
        """Rows to begin with."""
        for table in self.tables:
            for _ in range(8):
                self.out.append("INSERT INTO %s (%s) VALUES %s%s;" % (
                    table.name, self.names(table, table.columns), self.rows(table, table.columns),
                    " ON CONFLICT DO NOTHING" if table.keys else ""))
                self.count += 1

    def script(self, statements):
        while self.count < statements:
            if self.rng.random() < 0.3:
                self.statement()
            else:
                self.transaction()
        first = ["\\set VERBOSITY sqlstate", SETTINGS[self.number % len(SETTINGS)], "SET client_min_messages = error;"]
        return "\n".join([*first, *self.prepared.values(), *self.out]) + "\n"
