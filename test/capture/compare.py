"""
compare

SQL that compares rebuilt tables with their source.
"""
from samples import quote
from tables import identifier

FUNCTIONS = r"""
CREATE SCHEMA rebuilt;
CREATE TABLE rebuilt.state (topic text, key text, row jsonb);

-- How Debezium writes numbers: bytes, the highest first, in two's complement.
CREATE FUNCTION rebuilt.unscaled(value text) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
	SELECT sum(get_byte(b, i) * 256::numeric ^ (length(b) - 1 - i)) - CASE WHEN get_byte(b, 0) > 127 THEN 256::numeric ^ length(b) ELSE 0 END
	FROM decode(value, 'base64') AS b, generate_series(0, length(b) - 1) AS i GROUP BY b
$$;
CREATE FUNCTION rebuilt.number(value jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
	SELECT rebuilt.unscaled(value ->> 'value') * ('1e' || -(value ->> 'scale')::int)::numeric
$$;
CREATE FUNCTION rebuilt.moment(micros numeric) RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$
	SELECT timestamp '1970-01-01' + div(micros, 86400000000)::int * interval '1 day' + (micros % 86400000000)::bigint * interval '1 us'
$$;
"""

PLAIN = ("bool", "int2", "int4", "int", "int8", "oid", "float4", "float8", "name", '"char"', "xml", "jsonb", "doc", "uuid",
         "inet", "cidr", "macaddr", "macaddr8", "int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange",
         "tsvector", "mood", "ltree", "text", "varchar", "bpchar", "json", "citext", "span", "positive",
         "small", "text[]", "int4[]", "float8[]", "uuid[]", "bool[]")

# Where Debezium tells less than the value, or another name for it.
OTHERWISE = ("interval", "timetz", "bit", "varbit", "hstore", "time")


def debezium_value(declared, j, name):
    """SQL: a value of Debezium's as a value of the type; None: it may tell less."""
    value = "(%s ->> %s)" % (j, quote(name))
    base = declared.split("(")[0]
    if declared in PLAIN or base in ("char", "varchar"):
        if declared.endswith("[]"):
            return "(SELECT x FROM jsonb_to_record(jsonb_build_object('x', %s -> %s)) AS x (x %s))" % (j, quote(name), declared)
        return "%s::%s" % (value, declared)
    if declared.endswith("[]") or base in OTHERWISE or base.startswith("information_schema"):
        return None
    known = {
        "bytea": "decode({v}, 'base64')",
        "numeric": "trim_scale(rebuilt.number({j} -> {n}))",
        "money": "(rebuilt.unscaled({v}) / 100)::money",
        "money2": "round(rebuilt.unscaled({v}) / 100, 2)",
        "date": "date '1970-01-01' + {v}::int",
        "timestamp": "rebuilt.moment({v}::numeric)",
        "timestamp(3)": "rebuilt.moment({v}::numeric * 1000)",
        "stamp": "rebuilt.moment({v}::numeric * 1000)",
        "numeric(10,2)": "round(rebuilt.unscaled({v}) / 100, 2)",
        "numeric(12,3)": "round(rebuilt.unscaled({v}) / 1000, 3)",
        # its years of more than four digits have a sign, as in Java
        "timestamptz": "ltrim({v}, '+')::timestamptz",
        # its cast from text takes no numbers
        "regclass": "regclassin(textout(convert_from(decode({v}, 'base64'), 'UTF8')))",
        "point": "point(({j} -> {n} ->> 'x')::float8, ({j} -> {n} ->> 'y')::float8)",
    }
    if declared == "ints":
        return None
    # the bytes of its text
    unknown = "convert_from(decode({v}, 'base64'), 'UTF8')::" + declared
    return known.get(declared, unknown).format(v=value, j=j, n=quote(name))


def source(table):
    """All rows as JSON, as each table that they are in tells them."""
    return " UNION ALL ".join("SELECT to_jsonb(r) FROM ONLY %s AS r" % place for place in (table.name, *table.children)) \
        if table.children else "SELECT to_jsonb(r) FROM %s AS r" % table.name


def different(one, other):
    """SQL: a number of rows that only one has."""
    return "SELECT count(*) FROM ((({0}) EXCEPT ALL ({1})) UNION ALL (({1}) EXCEPT ALL ({0}))) AS d".format(one, other)


def target(table, schema):
    return "%s.%s" % (schema, identifier(table.label))


def create_target(table, schema):
    """SQL: an empty table for the rows."""
    return "CREATE TABLE %s (LIKE %s, %sPRIMARY KEY (%s));" % (
        target(table, schema), table.name, "extra text, more jsonb, " if table.children else "",
        ", ".join(identifier(k) for k in table.key))


def applied_equal(table, schema):
    rows = source(table)
    if table.children:
        rows = "SELECT to_jsonb(s.r) FROM (%s) AS j, LATERAL jsonb_populate_record(NULL::%s, j.to_jsonb) AS r" % (
            rows, target(table, schema))
        rows = rows.replace("s.r", "r")
    return different(rows, "SELECT to_jsonb(r) FROM %s AS r" % target(table, schema))


def rows_equal(table, mode):
    """SQL: pairs of what is compared, and the number of rows that differ."""
    state = "(SELECT row FROM rebuilt.state WHERE topic = %s)" % quote(table.topic(mode))
    if not table.zoned:
        yield "JSON", different(source(table), state)
    if table.loadable and not table.children:
        rows = "SELECT r FROM rebuilt.state, LATERAL jsonb_populate_record(NULL::%s, row) AS r WHERE topic = %s" % (
            table.name, quote(table.topic(mode)))
        yield "rows as JSON", different(source(table), "SELECT to_jsonb(q.r) FROM (%s) AS q" % rows)
        if table.whole:
            yield "rows as text", different("SELECT r::text FROM %s AS r" % table.name, "SELECT q.r::text FROM (%s) AS q" % rows)


def debezium_equal(table):
    """SQL: the number of values of one column that differ, for each."""
    if not table.loadable or table.children or not table.whole or \
            any(k.declared not in ("int", "text") for k in table.keys or ()):
        return
    for name, kind in table.columns:
        sql = debezium_value(kind.declared, "s.row", name)
        if sql is None:
            continue
        column = "r." + identifier(name)
        own = "trim_scale(%s)" % column if kind.declared == "numeric" else column
        special = "coalesce(%s::text ~ '(NaN|nfinity| BC)', false)" % column
        yield name, ("SELECT count(*) FROM %s AS r LEFT JOIN rebuilt.state AS s ON topic = %s AND %s"
                     " WHERE NOT (CASE WHEN %s THEN true ELSE (%s)::text IS NOT DISTINCT FROM (%s)::text END)") % (
            table.name, quote(table.topic("debezium")),
            " AND ".join("s.row ->> %s = r.%s::text" % (quote(k), identifier(k)) for k in table.key),
            special, sql, own)
