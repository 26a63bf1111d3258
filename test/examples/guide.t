#!/usr/bin/env python3
"""What the guides in doc show works, statement by statement, and returns what
stands behind the arrow; their links lead somewhere; TAP."""
import os
import re
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from server import Server  # noqa: E402

DOC = os.path.join(HERE, "..", "..", "doc")


def statements(text):
    """Those of a block, each with what it should return, or None."""
    statement = ""
    for line in text.splitlines():
        statement += line + "\n"
        end = re.search(r"(;|\\gset)\s*(-- (→ )?(.*))?$", line)
        if end and statement.count("$$") % 2 == 0:
            yield statement, end.group(4) if end.group(3) else None
            statement = ""
    assert not statement.strip(), "no end: " + statement


def returned(session, statement):
    """What a statement returns on one line, or ERROR and its SQLSTATE."""
    lines = session.execute(statement).splitlines()
    errors = [re.search(r"ERROR:  (\w{5}):", line) for line in lines]
    if any(errors):
        return "ERROR " + next(e.group(1) for e in errors if e)
    return " ".join(lines)


def read(name):
    with open(os.path.join(DOC, name), encoding="utf-8") as f:
        return f.read()


def try_statements(name):
    wrong = []
    count = 0
    with server.bare_database(name.split(".")[0]).session() as session:
        session.execute("\\set ON_ERROR_STOP off\n\\set VERBOSITY verbose")
        for block in re.findall(r"^```sql\n(.*?)^```$", read(name), re.M | re.S):
            for statement, expected in statements(block):
                got = returned(session, statement)
                count += expected is not None
                if got != expected and (expected is not None or got.startswith("ERROR")):
                    wrong.append("%s\nreturns %s" % (statement, got))
    assert not wrong, "\n".join(wrong)
    assert count > 15, "only %d results to compare" % count


def test_receiving():
    """every statement of receiving.md returns what the guide says"""
    try_statements("receiving.md")


def test_materialising():
    """every statement of materialising.md returns what the guide says"""
    try_statements("materialising.md")


def test_links():
    """the links of all guides lead somewhere"""
    lost = []
    for name in sorted(f for f in os.listdir(DOC) if f.endswith(".md")):
        targets = re.findall(r"\]\(([^)]+)\)", read(name))
        assert targets, name
        for target in targets:
            path, _, heading = target.partition("#")
            if not os.path.exists(os.path.join(DOC, path or name)):
                lost.append(target)
            elif heading and heading not in headings(path or name):
                lost.append(target)
    assert not lost, lost


def headings(name):
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-")
            for h in re.findall(r"^#+ (.*)$", read(name), re.M)}


if __name__ == "__main__":
    with Server(os.path.join(os.environ["TESTDIR"], "server")) as server:
        tap.main(globals())
