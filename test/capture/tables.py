"""
tables

The tables that the random statements change, each captured in every way.
"""
from samples import LOSSY, ONE_WAY, OPAQUE, SAMPLES, Type, USER_TYPES, every_type, quote

MODES = ("fact", "delta", "changelog", "debezium")

# Columns in one table of types
WIDTH = 16

T = {name: Type(name, samples) for name, samples in SAMPLES.items()}


class Number(Type):
    """Integers up to `limit`."""

    def __init__(self, limit, declared="int", nulls=0.1):
        super().__init__(declared)
        self.limit = limit
        self.nulls = nulls

    def value(self, rng):
        return None if rng.random() < self.nulls else str(rng.randrange(self.limit))


class Large(Type):
    """Values that are stored out of line, or compressed, or not."""

    def value(self, rng):
        kind = rng.randrange(6)
        if kind == 0:
            return None
        if kind == 1:
            return self.wrap("short %d" % rng.randrange(1000))
        if kind < 4:
            return self.wrap("compressible " * rng.randrange(100, 2500))
        return self.wrap("".join("%016x" % rng.getrandbits(64) for _ in range(rng.randrange(100, 900))))

    def wrap(self, text):
        if self.declared == "bytea":
            return "\\x" + text.encode().hex()
        if self.declared == "jsonb":
            return '{"large": "%s", "n": [1, 2.50]}' % text
        if self.declared == "text[]":
            return '{"%s",NULL}' % text
        return text


class Table:
    """
    name        as in SQL
    label       the last part of its topics
    create      SQL
    key         names of the columns of the key
    keys        the types of their values; None: rows get their key from a default
    columns     pairs of a name and a type, of those that are written
    children    tables that inherit from it
    parts       partitions
    whole       JSON tells all of every value
    loadable    values have a text that can be read back
    named_key   the key has to be named
    triggers    of the application
    partition   the one that a row is in, where that is not told by its key
    deferred    what is captured by hand is captured at the end of the transaction
    """

    def __init__(self, name, create, key, keys, columns, label=None, children=(), parts=(),
                 whole=True, loadable=True, named_key=False, deferred=False, triggers=(),
                 after="", partition=None):
        self.name = name
        self.label = label or name
        self.create = create
        self.key = key
        self.keys = keys
        self.columns = columns
        self.children = children
        self.parts = parts
        self.whole = whole
        self.loadable = loadable
        self.named_key = named_key
        self.deferred = deferred
        self.triggers = triggers
        self.after = after
        self.partition = partition
        self.zoned = any(t.zoned for _, t in columns) or any(t.zoned for t in keys or ())

    def topic(self, mode):
        return mode + "." + self.label

    def capture(self, by_call):
        """SQL: one mode as eo.capture() does it, the others by triggers made by hand."""
        sql = []
        for number, mode in enumerate(MODES):
            key = ",".join('"%s"' % k.replace('"', '""') for k in self.key)
            if mode == by_call and not self.deferred:
                keys = "ARRAY[%s]" % ",".join(quote(k) for k in self.key) if self.named_key else "NULL"
                sql.append("SELECT eo.capture(%s, topic => %s, mode => %s, format => %s, key_columns => %s);" % (
                    quote(self.name), quote(self.topic(mode)),
                    quote("fact" if mode == "debezium" else mode),
                    quote("debezium" if mode == "debezium" else "plain"), keys))
                continue
            arguments = [quote("topic=" + self.topic(mode))]
            arguments.append("'mode=fact', 'format=debezium'" if mode == "debezium" else "'mode=%s'" % mode)
            if self.named_key or self.parts or self.children:
                arguments.append(quote("key=" + key))
            sql += self.by_hand("%s_%s" % ("abfz"[number], mode), arguments)
        return "\n".join(sql)

    def by_hand(self, name, arguments):
        """Partitions get the triggers on rows from their parent, but not those on TRUNCATE."""
        for place in (self.name, *self.children):
            child = ", 'child=yes'" if place != self.name else ""
            yield "CREATE %s %s AFTER INSERT OR UPDATE OR DELETE ON %s%s FOR EACH ROW EXECUTE FUNCTION eo.capture_row(%s%s);" % (
                "CONSTRAINT TRIGGER" if self.deferred else "TRIGGER", name, place,
                " DEFERRABLE INITIALLY DEFERRED" if self.deferred else "", ", ".join(arguments), child)
        for place in (self.name, *self.children, *self.parts):
            child = ", 'child=yes'" if place in self.children else ""
            yield "CREATE TRIGGER %s_t BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION eo.capture_row(%s%s);" % (
                name, place, ", ".join(arguments), child)


def identifier(name):
    return '"' + name.replace('"', '""') + '"'


def typed_table(name, types, **options):
    columns = [("c%d" % n, t) for n, t in enumerate(types, 1)]
    create = "CREATE TABLE %s (id int PRIMARY KEY, %s);" % (
        name, ", ".join("%s %s" % (c, t.declared) for c, t in columns))
    return Table(name, create, ["id"], [Number(60, nulls=0)], columns, **options)


def type_tables():
    """Tables that together have a column of every type."""
    types = [t for pair in every_type() for t in pair if t is not None]
    types.sort(key=lambda t: t.zoned)       # those few together
    count = -(-len(types) // WIDTH)
    tables = [typed_table("types_%d" % n, types[n * WIDTH:(n + 1) * WIDTH]) for n in range(count)]
    tables.append(typed_table("lossy", [Type(name, values) for name, values in LOSSY.items()],
                              whole=False))
    tables.append(typed_table("one_way", [Type(name, values) for name, values in ONE_WAY.items()],
                              whole=False, loadable=False))
    tables.append(typed_table("opaque", [Type(name, [sql]) for name, sql in OPAQUE.items()],
                              whole=False, loadable=False))
    return tables


# Changes that a foreign key makes, counted whatever becomes of them.
CASCADES = """
CREATE SEQUENCE cascaded_update;
CREATE SEQUENCE cascaded_delete;
CREATE FUNCTION cascaded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('cascaded_' || lower(TG_OP));
	RETURN NULL;
END $$;
""" + "".join("""
CREATE TRIGGER cascaded AFTER UPDATE OR DELETE ON %s FOR EACH ROW WHEN (pg_trigger_depth() > 0) EXECUTE FUNCTION cascaded();
""" % name for name in ("tree", "customer", "orders", "lines"))

AGAIN = """
-- Changes again what a statement has changed: before it has been captured, or after.
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() > 2 THEN
		RETURN NULL;
	END IF;
	IF TG_OP = 'DELETE' THEN
		IF old.n % 11 = 0 THEN
			INSERT INTO account (id, n, note) VALUES (old.id, 1, 'again');
		END IF;
	ELSIF new.n % 7 = TG_ARGV[0]::int THEN
		UPDATE account SET n = n + 1, touched = touched + 1 WHERE id = new.id;
	ELSIF new.n % 13 = TG_ARGV[0]::int THEN
		UPDATE account SET id = id + 1000, n = 1 WHERE id = new.id AND id < 1000;
	ELSIF new.n % 17 = TG_ARGV[0]::int THEN
		DELETE FROM account WHERE id = new.id;
	END IF;
	RETURN NULL;
END $$;
-- Called in a query: changes rows that the same statement has just inserted.
CREATE FUNCTION touch(which int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	UPDATE account SET touched = touched + 1 WHERE id = which;
	RETURN which;
END $$;
CREATE FUNCTION amend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.n % 19 = 0 THEN
		RETURN NULL;
	END IF;
	new.note := coalesce(new.note, '') || '.';
	RETURN new;
END $$;
"""

ACCOUNT = """
CREATE TABLE account (gone text, id int PRIMARY KEY, n int NOT NULL DEFAULT 0, also_gone numeric, note text,
	amount numeric(10,2), touched int NOT NULL DEFAULT 0, twice int GENERATED ALWAYS AS (n * 2) STORED, at timestamp,
	day date, flag bool, code uuid, other int UNIQUE);
ALTER TABLE account DROP COLUMN gone, DROP COLUMN also_gone;
CREATE TRIGGER a_again AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION again(0);
CREATE TRIGGER "~again" AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION again(3);
CREATE TRIGGER amend BEFORE INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION amend();
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON account DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (new.n % 23 = 0) EXECUTE FUNCTION again(1);
ALTER TABLE account ADD COLUMN added int NOT NULL DEFAULT 7;
"""

# Partitions of partitions; one that has its columns elsewhere; the default.
PARTED = """
CREATE TABLE parted (region text NOT NULL, id int NOT NULL, v text, m mood, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a');
CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b', 'c') PARTITION BY RANGE (id);
CREATE TABLE parted_b1 PARTITION OF parted_b FOR VALUES FROM (0) TO (40);
CREATE TABLE parted_b2 (m mood, gone int, v text, id int NOT NULL, region text NOT NULL);
ALTER TABLE parted_b2 DROP COLUMN gone;
ALTER TABLE parted_b ATTACH PARTITION parted_b2 FOR VALUES FROM (40) TO (10000);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
"""

# Rows keep their key when they move.
MOVED = """
CREATE SEQUENCE moved_id;
CREATE TABLE moved (id int NOT NULL DEFAULT nextval('moved_id'), region int, v text, at timestamp) PARTITION BY LIST (region);
CREATE TABLE moved_0 PARTITION OF moved FOR VALUES IN (0, 1, 2);
CREATE TABLE moved_1 (v text, region int, gone int, at timestamp, id int NOT NULL DEFAULT nextval('moved_id'));
ALTER TABLE moved_1 DROP COLUMN gone;
ALTER TABLE moved ATTACH PARTITION moved_1 FOR VALUES IN (3, 4, 5);
CREATE TABLE moved_rest PARTITION OF moved DEFAULT;
"""

INHERITED = """
CREATE SEQUENCE family_id;
CREATE TABLE family (id int PRIMARY KEY DEFAULT nextval('family_id'), v text, n int);
CREATE TABLE family_a (extra text DEFAULT 'e') INHERITS (family);
CREATE TABLE family_b (n int, more jsonb DEFAULT '[1]', id int, v text);
ALTER TABLE family_b ALTER id SET DEFAULT nextval('family_id'), ALTER id SET NOT NULL, INHERIT family;
"""

TREE = """
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE ON UPDATE CASCADE, v text);
"""

CUSTOMER = """
CREATE TABLE customer (id int PRIMARY KEY, v text, boss int REFERENCES customer ON DELETE SET NULL ON UPDATE CASCADE);
"""

ORDERS = """
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer ON DELETE SET NULL ON UPDATE CASCADE, v text,
	payer int DEFAULT 0 REFERENCES customer ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED);
"""

LINES = """
CREATE TABLE lines (orders int REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, n int, v text, parted text, part int,
	PRIMARY KEY (orders, n),
	FOREIGN KEY (parted, part) REFERENCES parted ON DELETE CASCADE ON UPDATE CASCADE);
"""

LARGE = """
CREATE TABLE large (id int PRIMARY KEY, small int, t text, b bytea, j jsonb, a text[]);
ALTER TABLE large ALTER t SET STORAGE EXTERNAL;
ALTER TABLE large SET (toast_tuple_target = 256);
"""

ODD = '''
CREATE SCHEMA "Odd ""Schema""";
CREATE TABLE "Odd ""Schema"""."Odd.Table, \u00fc" ("Key, A" int, "select" text, "q""uo'te" text, "\u00fcn\u00ef \\ code" text, "b" int, "a" int,
	"key ""b" text COLLATE "C", "  " text, PRIMARY KEY ("Key, A", "key ""b"));
'''

LATER = """
CREATE TABLE later (id int, v text, n int, PRIMARY KEY (id));
"""

SHIFTED = """
CREATE TABLE shifted (id int PRIMARY KEY DEFERRABLE, v text);
"""


def keyed_table(name, key, **options):
    """By another kind of key."""
    create = "CREATE TABLE %s (k %s PRIMARY KEY, v text, n int);" % (name, key.declared)
    return Table(name, create, ["k"], [key], [("v", T["text"]), ("n", Number(100))], **options)


def all_tables():
    text, small = T["text"], Number(50)
    tables = type_tables()
    tables += [
        Table("account", AGAIN + ACCOUNT, ["id"], [Number(150, nulls=0)],
              [("n", Number(1000, nulls=0)), ("note", text), ("amount", Type("numeric(10,2)", ["1.10", "-99999999.99", "0"])),
               ("at", Type("timestamp", ["2024-02-29 12:34:56.789012", "1969-12-31 23:59:59.5"])),
               ("day", Type("date", ["2024-02-29", "1969-12-31"])), ("flag", T["bool"]), ("code", T["uuid"]),
               ("other", Number(10 ** 6, nulls=0.7))],
              triggers=["a_again", '"~again"', "amend", "later"]),
        Table("parted", PARTED, ["region", "id"], [Type("text", ["a", "b", "c", "d"]), Number(60, nulls=0)],
              [("v", text), ("m", T["mood"])],
              parts=["parted_a", "parted_b", "parted_b1", "parted_b2", "parted_rest"]),
        Table("moved", MOVED, ["id"], None, [("region", Number(8)), ("v", text), ("at", T["timestamp"])],
              parts=["moved_0", "moved_1", "moved_rest"], named_key=True,
              partition=lambda row: row["region"] // 3 if row["region"] is not None and row["region"] < 6 else None),
        Table("family", INHERITED, ["id"], None, [("v", text), ("n", small)],
              children=["family_a", "family_b"], loadable=False, named_key=True),
        Table("tree", TREE, ["id"], [Number(80, nulls=0)], [("parent", Number(80, nulls=0.4)), ("v", text)]),
        Table("customer", CUSTOMER, ["id"], [Number(40, nulls=0)], [("v", text), ("boss", Number(40, nulls=0.5))],
              after="INSERT INTO customer VALUES (0);"),
        Table("orders", ORDERS, ["id"], [Number(80, nulls=0)],
              [("customer", Number(40, nulls=0.3)), ("v", text), ("payer", Number(40, nulls=0.3))]),
        Table("lines", LINES, ["orders", "n"], [Number(80, nulls=0), Number(3, nulls=0)],
              [("v", text), ("parted", Type("text", ["a", "b", "d"])), ("part", Number(60, nulls=0.5))]),
        Table("large", LARGE, ["id"], [Number(40, nulls=0)],
              [("small", small), ("t", Large("text")), ("b", Large("bytea")), ("j", Large("jsonb")), ("a", Large("text[]"))]),
        Table('"Odd ""Schema"""."Odd.Table, \u00fc"', ODD, ["Key, A", 'key "b'],
              [Number(20, nulls=0), Type("text", ["x", '"', "\u20ac, [1]", "", "\\"])],
              [("select", text), ('q"uo\'te', text), ("\u00fcn\u00ef \\ code", text), ("b", small), ("a", small), ("  ", text)],
              label="odd"),
        Table("later", LATER, ["id"], [Number(60, nulls=0)], [("v", text), ("n", small)], deferred=True),
        keyed_table("by_text", Type("text", ["a", "A", "\u20ac", '"q"', " ", "a\\b", "[1]", "null"])),
        keyed_table("by_numeric", Type("numeric", ["1", "1.0", "1.00", "NaN", "0.10", "1e20"])),
        keyed_table("by_float", Type("float8", ["1", "1e22", "NaN", "-Infinity", "0.1", "1e-7"])),
        keyed_table("by_time", Type("timestamptz", ["2024-02-29 12:00+00", "2024-02-29 14:00+02", "infinity", "2024-07-01 00:00+00"])),
        keyed_table("by_range", Type("tstzrange", ["empty", "[2024-02-29 12:00+00,)", "[2024-02-29 14:00+02,2024-07-01 00:00+00)"])),
        keyed_table("by_bytea", Type("bytea", [r"\x", r"\x00ff", r"\xdead"])),
        keyed_table("by_interval", Type("interval", ["1 mon", "30 days", "720:00:00", "-1 day"])),
        keyed_table("by_jsonb", Type("jsonb", ['{"a": 1}', "[1]", "1.0", "1", "true"])),
        keyed_table("by_pair", Type("pair", ["(1,x,)", "(2,y,{1})"])),
        keyed_table("by_array", Type("timestamptz[]", ["{2024-02-29 12:00+00}", "{}"])),
        keyed_table("by_bool", T["bool"]),
        keyed_table("by_citext", Type("citext", ["a", "A", "b"])),
    ]
    return tables


# What the opaque columns get
COUNTED = """
CREATE TABLE counted AS SELECT i % 5 AS a, i % 5 AS b, i % 7 AS c FROM generate_series(1, 300) AS i;
CREATE STATISTICS counted_1 ON a, b, c FROM counted;
CREATE STATISTICS counted_2 ON a, b FROM counted;
CREATE STATISTICS counted_3 ON b, c FROM counted;
ANALYZE counted;
"""


def schema(tables):
    sql = [USER_TYPES] + [table.create for table in tables]
    sql += [table.capture(MODES[number % len(MODES)]) for number, table in enumerate(tables)]
    sql += [table.after for table in tables]
    return "\n".join(sql + [COUNTED, CASCADES])
