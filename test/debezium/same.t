#!/usr/bin/env python3
"""What eo.capture(..., format => 'debezium') enqueues is what Debezium's connector for
PostgreSQL emits for the same statements, field by field; TAP."""
import base64
import json
import os
import re
import shutil
import struct
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from connector import PREFIX, Connector, LogicalServer  # noqa: E402

# Of the envelope and its source: when and where it was written, and by whom.
OWN = ("ts_ms", "ts_us", "ts_ns")
OWN_SOURCE = OWN + ("version", "lsn", "sequence")


def same_hstore(theirs, ours):
    """Java keeps the keys in another order."""
    return json.loads(theirs) == json.loads(ours)


def same_numbers(theirs, ours):
    """Java writes (1.0,2.0), PostgreSQL (1,2)."""
    def numbers(value):
        return [float(n) for n in re.findall(r"[-0-9.e]+", base64.b64decode(value).decode())]
    return re.sub(r"[-0-9.e]+", "", base64.b64decode(theirs).decode()) == \
        re.sub(r"[-0-9.e]+", "", base64.b64decode(ours).decode()) and numbers(theirs) == numbers(ours)


def same_float4(theirs, ours):
    """Java before 19 does not always find the shortest text."""
    return struct.pack("f", theirs) == struct.pack("f", ours)


def are(theirs, ours):
    """The values of a row where they are known to differ."""
    return lambda value, own: value == theirs and own == ours


def lists_at(ours):
    """Lists of lists come as what Java calls its own lists, or as nulls."""
    return lambda value, own: value != ours and own == ours


def base64_of(*texts):
    return [text and base64.b64encode(text.encode()).decode() for text in texts]


# Where the connector and the encoder differ: FORMAT.md says why.
DIFFERENCES = {
    "numbers.f4": same_float4,
    "others.h": same_hstore,
    "limits.h": same_hstore,
    "geometry.b": same_numbers,
    "geometry.l": same_numbers,
    "geometry.p": same_numbers,
    "geometry.g": same_numbers,
    "geometry.c": same_numbers,
    "geometry.li": same_numbers,
    "unknown_lists.bx": lambda theirs, ours: same_numbers(theirs[0], ours[0]),
    "unknowns.iv": are([], [1, 2]),
    "unknowns.ov": are([], [3, 4]),
    "lists.ti": are([45296789000, None], [45296789012, None]),
    "lists.tz": are(["07:04:56Z", None], ["07:04:56.789Z", None]),
    "lists.e": are(None, ["sad", None, "very happy"]),
    "lists.b8": lambda theirs, ours: theirs is None and ours in (["gA==", None], []),
    "limits.n_2": lambda theirs, ours: len(theirs) > 1000 and ours == "MAw=",
    "limits.b8": are(None, ["gA=="]),
    "limits.i": lists_at([[1, 2], [3, 4]]),
    "limits.t2": lists_at([["a", "b"], ["c", None]]),
    "limits.by": lists_at([["AQ=="], ["Ag=="]]),
    "limits.ts": are(-9223372036853775810, 9224318015999999999),
    "limits.nn": are(None, [None, {"scale": 0, "value": "AQ=="}]),
    "limits.dn": are([-622191234], [-2147472692]),
    "unknown_lists.dp": are(None, base64_of("1.500", None)),
    "unknown_lists.r": are(None, base64_of("(1,a)", None)),
    "unknown_lists.mr": are(None, base64_of("{[1,3)}", None)),
    "unknown_lists.q": are(None, base64_of("'a' & 'b'", None)),
}

# Columns that the connector has no place for.
MORE = {
    "unknown_lists": {"m", "n", "i", "vb", "x", "p"},
}

# Columns that PostgreSQL 18 must be told to publish, as it lets nobody update a
# table whose replica identity has others; we leave them out, as all do before 18.
COMPUTED = {"computed": "twice"}

UNAVAILABLE = "__debezium_unavailable_value"

directory = tempfile.mkdtemp(prefix="eo-debezium-")


def exactly(a, b):
    """Equal, and of the same types: 1 is not 1.0, nor true."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def topic_of(schema, table):
    return "%s.%s.%s" % (PREFIX, schema, re.sub("[^A-Za-z0-9._-]", "_", table))


def capture_all(database):
    for row in database.rows("""
            SELECT n.nspname AS schema, c.relname AS name, c.oid::regclass::text AS sql
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname IN ('public', 'identity') AND c.relkind IN ('r', 'p')
                AND NOT c.relispartition"""):
        database.execute("SELECT eo.capture('%s', topic => '%s', format => 'debezium')"
                         % (row["sql"], topic_of(row["schema"], row["name"])))


def run():
    """The connector's records, and ours, as alike as they can be had."""
    with LogicalServer(os.path.join(directory, "server")) as server:
        database = server.tables("compared")
        capture_all(database)
        with Connector(database, server.port) as connector:
            if database.value("SELECT current_setting('server_version_num')::int >= 180000"):
                database.execute("ALTER PUBLICATION publication_compared SET (publish_generated_columns = stored)")
            database.psql("--file", os.path.join(HERE, "statements.sql"))
            theirs = connector.finish()
        ours = [{"topic": row["topic"], "key": row["key"], "value": row["payload"],
                 "headers": {name: json.loads(value)
                             for name, value in (row["headers"] or {}).items()}}
                for row in database.rows("SELECT topic, key, payload, headers FROM eo.events"
                                         " ORDER BY seq")]
    for record in theirs:
        record["headers"] = {name: value for name, value in record["headers"].items()
                             if not name.startswith("__debezium.context.")}
    return theirs, ours


def of_table(name):
    topic = topic_of(*(name.split(".") if "." in name else ("public", name)))
    return ([record for record in theirs if record["topic"] == topic],
            [record for record in ours if record["topic"] == topic])


def check_row(table, their_row, our_row):
    if their_row is None or our_row is None:
        assert their_row is our_row, (their_row, our_row)
        return
    assert set(our_row) - set(their_row) == MORE.get(table, set()), (their_row, our_row)
    for column, value in their_row.items():
        if COMPUTED.get(table) == column and column not in our_row:
            continue
        if exactly(value, our_row[column]):
            continue
        differ = DIFFERENCES.get(table + "." + column)
        what = "%s.%s: %r, but ours %r" % (table, column, value, our_row[column])
        assert differ is not None and differ(value, our_row[column]), what


def check_envelope(theirs, ours):
    """All but the rows."""
    def common(value):
        source = {name: value["source"][name] for name in value["source"] if name not in OWN_SOURCE}
        return {"op": value["op"], "transaction": value["transaction"], "source": source}

    assert exactly(common(theirs), common(ours)), (common(theirs), common(ours))
    assert set(theirs) == set(ours), (set(theirs), set(ours))
    assert set(theirs["source"]) == set(ours["source"]), (theirs["source"], ours["source"])
    for times in (ours, ours["source"]):
        assert times["ts_ns"] // 1000 == times["ts_us"], times
        assert times["ts_us"] // 1000 == times["ts_ms"], times
        assert abs(times["ts_ms"] - theirs["source"]["ts_ms"]) < 3600000, (times, theirs)
    assert json.loads(ours["source"]["sequence"]) == [None, str(ours["source"]["lsn"])], ours


def check_records(name, check_rows):
    their_records, our_records = of_table(name)
    assert len(their_records) == len(our_records) > 0, (len(their_records), len(our_records))
    for their_record, our_record in zip(their_records, our_records):
        assert their_record["key"] == our_record["key"], (their_record, our_record)
        assert exactly(their_record["headers"], our_record["headers"]), (their_record, our_record)
        if their_record["value"] is None:
            assert our_record["value"] is None, our_record
            continue
        check_envelope(their_record["value"], our_record["value"])
        check_rows(name, their_record["value"], our_record["value"])


def check_full(name, theirs, ours):
    check_row(name, theirs["before"], ours["before"])
    check_row(name, theirs["after"], ours["after"])


def check_default(name, theirs, ours):
    """Without REPLICA IDENTITY FULL the connector knows less."""
    if theirs["before"] is None:
        assert (ours["before"] is None) == (ours["op"] == "c"), ours
    else:
        assert theirs["before"]["id"] == ours["before"]["id"], (theirs, ours)
    for column, value in (theirs["after"] or {}).items():
        assert value in (ours["after"][column], UNAVAILABLE), (value, ours)
    assert set(theirs["after"] or {}) == set(ours["after"] or {}), (theirs, ours)


def test_order():
    """The records come in the same order, under the same keys"""
    def places(records):
        return [(record["topic"], record["key"], record["value"] and record["value"]["op"])
                for record in records]

    assert places(theirs) == places(ours)


def test_places():
    """Places in the WAL never go back"""
    places = [record["value"]["source"]["lsn"] for record in ours if record["value"]]
    assert places == sorted(places), places


def test_differences():
    """The connector still differs where it is said to"""
    unused = set(DIFFERENCES)
    for name in {difference.split(".")[0] for difference in DIFFERENCES}:
        for their_record, our_record in zip(*of_table(name)):
            for row in ("before", "after"):
                for column, value in ((their_record["value"] or {}).get(row) or {}).items():
                    if not exactly(value, our_record["value"][row][column]):
                        unused.discard(name + "." + column)
    # what another Java may tell as we do
    unused -= {"others.h", "limits.h", "numbers.f4"}
    assert not unused, unused


def full(name):
    def test():
        check_records(name, check_full)
    test.__doc__ = "table %s: keys, headers, envelopes and rows are the same" % name
    return test


def default(name):
    def test():
        check_records(name, check_default)
    test.__doc__ = "table %s, REPLICA IDENTITY DEFAULT: what the connector knows is the same" % name
    return test


TESTS = {"test_order": test_order}
for table in ("numbers", "texts", "times", "others", "unknowns", "geometry", "lists", "unknown_lists",
              "limits", 'Quoted "Table', "numeric_keys", "computed", "by_index", "large", "altered",
              "parted"):
    TESTS["test_" + table] = full(table)
for table in ("identity.plain", "identity.toasted"):
    TESTS["test_" + table] = default(table)
TESTS.update(test_places=test_places, test_differences=test_differences)

try:
    theirs, ours = run()
    tap.main(TESTS)
finally:
    shutil.rmtree(directory, ignore_errors=True)
