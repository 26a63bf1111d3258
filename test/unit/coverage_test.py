#!/usr/bin/env python3
"""coverage_test.py

The least that make coverage wants (test/analysis/coverage.py), on counts that are
made up: just enough is enough, one less is told, and only after all tests.
"""

import contextlib
import io
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../lib", "../analysis"):
    sys.path.insert(0, os.path.join(HERE, folder))
import coverage
import tap


def run(lines, branches, whole=True, macro=(0, 0)):
    """The status and the complaints of a tree whose one file has so many of a hundred lines
    reached, and of a hundred branches; `macro`: (reached, all) of another line, which is a macro's."""
    found = {number: [int(number <= lines), {}] for number in range(1, 101)}
    found[1][1] = {number: int(number < branches) for number in range(100)}
    found[2][1] = {number: int(number < macro[0]) for number in range(macro[1])}
    with tempfile.TemporaryDirectory() as directory:
        tree = os.path.join(directory, "tree")
        os.makedirs(os.path.join(tree, "src"))
        with open(os.path.join(tree, "src", "a.c"), "w") as f:
            f.write("plain\n" + "\tereport(ERROR, (errmsg(\"x\")));\n" + "plain\n" * 98)
        before, coverage.read = coverage.read, lambda _: {"src/a.c": found}
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                status = coverage.main(tree, whole)
        finally:
            coverage.read = before
    return status, [line for line in said.getvalue().splitlines() if line.startswith("coverage.py: ")]


def test_enough():
    """just enough of both is enough"""
    assert run(90, 80) == (0, [])


def test_lines():
    """a line less fails, and is told"""
    status, complaints = run(89, 80)
    assert status == 1
    assert complaints == ["coverage.py: 89 of 100 lines of src/ reached, less than 90 %"], complaints


def test_branches():
    """a branch less fails, and is told"""
    status, complaints = run(90, 79)
    assert status == 1
    assert complaints == ["coverage.py: 79 of 100 branches of src/ reached, less than 80 %"], complaints


def test_both():
    """too little of both is told of both"""
    status, complaints = run(50, 50)
    assert status == 1 and len(complaints) == 2, complaints


def test_macros():
    """a macro's branches neither make it too little nor enough"""
    assert run(90, 80, macro=(0, 1000)) == (0, [])
    assert run(90, 79, macro=(1000, 1000))[0] == 1


def test_part():
    """a part of the tests may reach as little as it does"""
    assert run(1, 1, whole=False) == (0, [])


tap.main(globals())
