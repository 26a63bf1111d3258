#!/usr/bin/env python3
"""
coverage

    coverage.py TREE        what gcov knows of a tree built with --coverage

Prints the lines and branches of each file of src/, how many were reached, and
the sums; writes the lines that were not to coverage.txt beside the tree.
"""
import collections
import json
import os
import subprocess
import sys


def notes(tree):
    """The .gcno files; those of the unit tests' own builds last."""
    paths = [os.path.join(directory, f) for directory, _, files in os.walk(tree) for f in files if f.endswith(".gcno")]
    return sorted(paths, key=lambda path: (is_unit(tree, path), path))


def is_unit(tree, path):
    return path.startswith(os.path.join(tree, "build", "unit") + os.sep)


def read(tree):
    """
    {file: {line: [count, {branch: count}]}}, summed over what was built of the
    file.  The sanitizers of the unit tests have lines and branches of their own.
    """
    found = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, collections.Counter()]))
    for note in notes(tree):
        said = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities", note], cwd=tree,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        for document in said.splitlines():
            for file in json.loads(document)["files"]:
                name = os.path.relpath(os.path.join(tree, file["file"]), tree)
                if not name.startswith("src/"):
                    continue
                for line in file["lines"]:
                    if is_unit(tree, note):
                        if line["line_number"] in found[name]:
                            found[name][line["line_number"]][0] += line["count"]
                        continue
                    entry = found[name][line["line_number"]]
                    entry[0] += line["count"]
                    for number, branch in enumerate(line["branches"]):
                        entry[1][number] += branch["count"]
    return found


def share(part, whole):
    return "%6.1f %%" % (100.0 * part / whole) if whole else "       -"


def sums(lines):
    branches = [count for _, counters in lines.values() for count in counters.values()]
    return (sum(1 for count, _ in lines.values() if count), len(lines),
            sum(1 for count in branches if count), len(branches))


def show(name, row):
    print("%-40s %6d of %6d %s   %6d of %6d %s" %
          (name, row[0], row[1], share(row[0], row[1]), row[2], row[3], share(row[2], row[3])))


def main(tree):
    found = read(tree)
    if not found:
        sys.exit("coverage.py: %s was not built with --coverage" % tree)
    total = (0, 0, 0, 0)
    print("%-40s %26s   %26s" % ("", "lines", "branches"))
    with open(os.path.join(tree, "..", "coverage.txt"), "w") as missed:
        for name in sorted(found):
            row = sums(found[name])
            total = tuple(a + b for a, b in zip(total, row))
            show(name, row)
            missed.writelines("%s:%d\n" % (name, number) for number, (count, _) in sorted(found[name].items()) if not count)
    show("total", total)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(os.path.abspath(sys.argv[1]))
