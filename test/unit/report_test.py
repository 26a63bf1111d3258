#!/usr/bin/env python3
"""report_test.py

The report of make bench-peers (test/bench/peers/report.py): where a peer has the
better figure, whichever it is, the report says so, and nowhere else.
"""

import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../lib", "../bench", "../bench/peers"):
    sys.path.insert(0, os.path.join(HERE, folder))
import tap
from notes import NOTES
from report import HEADING, TABLES, Report

import eo  # noqa: F401
import tables  # noqa: F401
from peer import PEERS

OURS, THEIRS = "eo_outbox", "psycopg"
LOADS = {"came_to_100": 100, "came_to_1000": 1000, "came_to_5000": 5000}
FIGURES = [(table, column, metric) for table in TABLES for column in table.columns if column.better for metric in column.metrics]


def table_of(metric):
    return next(table for table, _, figure in FIGURES if figure == metric)


def sample(table, peer, metric, value, **others):
    """One round of a measure, of each part that can be killed."""
    parts = next(one.parts for one in PEERS if one.name == peer) if table.parts else ("",)
    return dict(LOADS, backlog=1000, drained=1000, **{metric + ("_" + part if part else ""): value for part in parts}, **others)


def wins(table, metric, ours, theirs, idle=False):
    key = "%%s/%s%s" % (table.measure, "/idle" if idle else "")
    report = Report({"conditions": {}, "versions": {}, "missing": {}, "failed": {},
                     "taken": {key % OURS: [ours], key % THEIRS: [theirs]}}, PEERS)
    return report.wins(next(one for one in TABLES if one is table))


def test_each_figure():
    """a peer that is better in any figure is named, and one that is not is not"""
    for table, column, metric in FIGURES:
        for idle in (False, True):
            better, worse = (200, 100) if column.better > 0 else (100, 200)
            found = wins(table, metric, sample(table, OURS, metric, worse), sample(table, THEIRS, metric, better), idle)
            if metric == "p999_100":        # too few to tell
                assert found == [], metric
                continue
            assert any(column.heading in line and "psycopg" in line for line in found), (metric, found)
            assert wins(table, metric, sample(table, OURS, metric, better), sample(table, THEIRS, metric, worse), idle) == [], metric


def test_smaller_backlog():
    """of a smaller backlog the rates are compared, and not what it takes of disk"""
    drain = table_of("drain")
    for metric, value, expected in (("drain", 200, True), ("disk", 1, False), ("relay_wal", 1, False)):
        theirs = dict(sample(drain, THEIRS, metric, value), backlog=500, drained=300)
        assert bool(wins(drain, metric, sample(drain, OURS, metric, 100), theirs)) == expected, metric


def test_missed_load():
    """who could not keep up with the load has no latencies to compare"""
    latency = table_of("p50_5000")
    ours, theirs = sample(latency, OURS, "p50_5000", 5), sample(latency, THEIRS, "p50_5000", 1)
    assert wins(latency, "p50_5000", ours, theirs) != []
    assert wins(latency, "p50_5000", ours, dict(theirs, came_to_5000=3000)) == []


def test_our_missed_load():
    """what we could not keep up with is told, and our latencies are compared all the same"""
    latency = table_of("p50_5000")
    ours = dict(sample(latency, OURS, "p50_5000", 5), came_to_5000=3000)
    found = wins(latency, "p50_5000", ours, sample(latency, THEIRS, "p50_5000", 1))
    assert any("p50 at 5000/s" in line for line in found), found
    assert any("the load came to at 5000/s" in line and "3000" in line for line in found), found


def test_overlap():
    """a peer that is better in the median is named, with a word where not every round was"""
    cost = table_of("commit_us")
    ours = [sample(cost, OURS, "commit_us", value) for value in (100, 200, 200)]
    for values, word in (((50, 150, 150), True), ((50, 60, 60), False)):
        theirs = [sample(cost, THEIRS, "commit_us", value) for value in values]
        report = Report({"conditions": {}, "versions": {}, "missing": {}, "failed": {},
                         "taken": {OURS + "/cost": ours, THEIRS + "/cost": theirs}}, PEERS)
        found = report.wins(cost)
        assert len(found) == 4 and ("not in every round" in found[3]) == word, found


def test_notes():
    """what was written by hand into the section stays, and so do the other sections"""
    report = Report({"conditions": {}, "versions": {}, "missing": {}, "failed": {}, "taken": {}}, PEERS)
    kept = "%s\nby hand\n%s" % NOTES
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "RESULTS.md")
        with open(path, "w") as f:
            f.write("# Results\n\nbefore\n\n%s\n\nold\n\n%s\n\n## Another\n\nafter\n" % (HEADING, kept))
        for _ in range(2):
            report.write(path, path)
        with open(path) as f:
            text = f.read()
    assert text.startswith("# Results\n\nbefore\n\n%s\n" % HEADING), text
    assert text.endswith("\n## Another\n\nafter\n") and text.count(kept) == 1 and "old" not in text, text


tap.main(globals())
