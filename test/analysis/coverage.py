#!/usr/bin/env python3
"""
coverage

    coverage.py TREE            what gcov knows of a tree built with --coverage
    coverage.py --whole TREE    likewise, after all tests: too little is an error

Prints the lines and branches of each file of src/, how many were reached, and
the sums; writes what was not to coverage.txt beside the tree.

Branches that others' macros have in a line are not this project's to reach: the
levels that ereport() does not have, the forms that a varlena value did not come
in, the interrupt that was not pending.  Neither are those of the switches for
tests.  So there is a second sum without such lines, and it is the one that must
come to LEAST after all tests.
"""
import collections
import json
import os
import re
import subprocess
import sys

MACROS = re.compile(r"\b(ereport|elog|CHECK_FOR_INTERRUPTS|PG_TRY|PG_CATCH|PG_FINALLY|PG_END_TRY|EO_POINT|EO_MUTANT|"
                    r"PG_GETARG_\w+|PG_FREE_IF_COPY|DatumGet\w+P\w*|VARDATA_ANY|VARSIZE_ANY_EXHDR|"
                    r"appendStringInfoCharMacro)\s*\(")

# What all tests together must reach of src/, in percent.
LEAST = {"lines": 90, "branches": 80}


def notes(tree):
    """The .gcno files; those of the unit tests' own builds last."""
    paths = [os.path.join(directory, f) for directory, _, files in os.walk(tree) for f in files if f.endswith(".gcno")]
    return sorted(paths, key=lambda path: (is_unit(tree, path), path))


def is_unit(tree, path):
    return path.startswith(os.path.join(tree, "build", "unit") + os.sep)


def count(found, document, tree, again):
    """`again`: built a second time; what its lines have that the first lacks is left out."""
    for file in document["files"]:
        name = os.path.relpath(os.path.join(tree, file["file"]), tree)
        if not name.startswith("src/"):
            continue
        known = set(found[name]) if again and name in found else None
        for line in file["lines"]:
            if known is not None and line["line_number"] not in known:
                continue
            entry = found[name][line["line_number"]]
            entry[0] += line["count"]
            if not entry[1] or len(entry[1]) == len(line["branches"]):
                for number, branch in enumerate(line["branches"]):
                    entry[1][number] += branch["count"]


def read(tree):
    """{file: {line: [count, {branch: count}]}}, summed over what was built of the file"""
    found = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, collections.Counter()]))
    for note in notes(tree):
        said = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities", note], cwd=tree,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        for document in said.splitlines():
            count(found, json.loads(document), tree, is_unit(tree, note))
    return found


def own_branches(tree, name, lines):
    """The lines of `lines` whose branches are the project's own"""
    with open(os.path.join(tree, name)) as f:
        source = f.read().splitlines()
    return {number: entry for number, entry in lines.items() if not MACROS.search(source[number - 1])}


def share(part, whole):
    return "%6.1f %%" % (100.0 * part / whole) if whole else "       -"


def sums(lines):
    branches = [count for _, counters in lines.values() for count in counters.values()]
    return (sum(1 for count, _ in lines.values() if count), len(lines),
            sum(1 for count in branches if count), len(branches))


def show(name, row):
    print("%-40s %6d of %6d %s   %6d of %6d %s" %
          (name, row[0], row[1], share(row[0], row[1]), row[2], row[3], share(row[2], row[3])))


def too_little(row):
    """What of a row of sums is below LEAST, in words"""
    reached = {"lines": row[:2], "branches": row[2:]}
    return ["%d of %d %s of src/ reached, less than %d %%" % (part, whole, name, LEAST[name])
            for name, (part, whole) in reached.items() if 100 * part < LEAST[name] * whole or not whole]


def main(tree, whole):
    found = read(tree)
    if not found:
        sys.exit("coverage.py: %s was not built with --coverage" % tree)
    total = own = (0, 0, 0, 0)
    print("%-40s %26s   %26s" % ("", "lines", "branches"))
    with open(os.path.join(tree, "..", "coverage.txt"), "w") as missed:
        for name in sorted(found):
            row = sums(found[name])
            total = tuple(a + b for a, b in zip(total, row))
            show(name, row)
            ours = own_branches(tree, name, found[name])
            own = tuple(a + b for a, b in zip(own, sums(ours)))
            for number, (count, branches) in sorted(found[name].items()):
                if not count:
                    missed.write("%s:%d\n" % (name, number))
                elif number in ours and not all(branches.values()):
                    missed.write("%s:%d branch\n" % (name, number))
    show("total", total)
    own = total[:2] + own[2:]
    show("without the branches of macros", own)
    complaints = too_little(own) if whole else []
    for complaint in complaints:
        print("coverage.py: " + complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    whole = arguments[:1] == ["--whole"]
    if len(arguments) != 1 + whole:
        sys.exit(__doc__)
    sys.exit(main(os.path.abspath(arguments[-1]), whole))
