#!/usr/bin/env python3
"""What doc/receiving.md shows works, statement by statement, and returns what
stands behind the arrow; its links lead somewhere; TAP."""
import os
import re
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from server import Server  # noqa: E402

GUIDE = os.path.join(HERE, "..", "..", "doc", "receiving.md")


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


def test_statements():
    """every statement returns what the guide says"""
    wrong = []
    count = 0
    with server.bare_database("guide").session() as session:
        session.execute("\\set ON_ERROR_STOP off\n\\set VERBOSITY verbose")
        for block in re.findall(r"^```sql\n(.*?)^```$", guide, re.M | re.S):
            for statement, expected in statements(block):
                got = returned(session, statement)
                count += expected is not None
                if got != expected and (expected is not None or got.startswith("ERROR")):
                    wrong.append("%s\nreturns %s" % (statement, got))
    assert not wrong, "\n".join(wrong)
    assert count > 15, "only %d results to compare" % count


def test_links():
    """its links lead somewhere"""
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-")
                for h in re.findall(r"^#+ (.*)$", guide, re.M)}
    targets = re.findall(r"\]\(([^)]+)\)", guide)
    lost = [t for t in targets
            if (t[1:] not in headings if t.startswith("#")
                else not os.path.exists(os.path.join(os.path.dirname(GUIDE), t)))]
    assert targets and not lost, lost


if __name__ == "__main__":
    with open(GUIDE, encoding="utf-8") as f:
        guide = f.read()
    with Server(os.path.join(os.environ["TESTDIR"], "server")) as server:
        tap.main(globals())
