"""
bench

Takes the measurements and prints the table: test/bench/run calls it.

    bench.py --list
    bench.py --needs [ROW...]             what the rows need to be installed
    bench.py --directory DIR [ROW...]     measures
"""
import argparse
import os
import sys
import textwrap

# Each of these registers its rows, which are taken in this order.
import capture  # noqa: F401
import cost  # noqa: F401
import drain  # noqa: F401
import inbox  # noqa: F401
import latency  # noqa: F401
import memory  # noqa: F401
import snapshot  # noqa: F401
from rows import ROWS, Bench
from server import SETTINGS, Server

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from machine import machine, version  # noqa: E402


def describe(bench):
    lines = ["machine: " + machine(),
             "PostgreSQL: " + version("postgres", "--version").split(") ", 1)[-1],
             "eo_outbox: %s, commit %s, release build" % (
                 bench.server.value("SELECT extversion FROM pg_extension"
                                    " WHERE extname = 'eo_outbox'"),
                 os.environ.get("EO_COMMIT", "unknown")),
             "settings: " + ", ".join("%s = %s" % item for item in SETTINGS.items() if item[1]),
             "rounds: %d, the variants in turn; a ratio is the median of the rounds' ratios"
             " (least-greatest)" % bench.rounds]
    return lines


HEADINGS = ("row", "what", "ours", "theirs", "ratio", "reach", "")


def cells(name, result):
    return (name, result.what, result.ours, result.theirs, result.ratio, result.reach,
            "reached" if result.reached else "MISSED")


def print_table(results):
    lines = [HEADINGS, *(cells(name, result) for name, result in results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print()
    for name, result in results:
        print(textwrap.fill("%s: %s" % (name, result.command), 100, subsequent_indent="    ",
                            break_long_words=False, break_on_hyphens=False))
        for note in result.notes:
            print("    " + note)


def other_sections():
    """What stands in RESULTS.md below this table, and others have written."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "RESULTS.md")) as f:
        _, mark, rest = f.read().partition("\n## ")
    return mark + rest


def write_results(path, description, results, names):
    with open(path, "w") as f:
        f.write("# Measured\n\n")
        f.writelines("- %s\n" % line for line in description)
        f.write("- repeat: `make bench%s RESULTS=1`\n\n" % (
            "" if len(names) == len(ROWS) else ' ROWS="%s"' % " ".join(names)))
        f.write("| %s |\n|%s\n" % (" | ".join(HEADINGS), "---|" * len(HEADINGS)))
        f.writelines("| %s |\n" % " | ".join(cells(name, result)) for name, result in results)
        f.write("\nThe commands behind the rows:\n\n")
        for name, result in results:
            f.write("- **%s**: `%s`\n" % (name, result.command.replace("`", "'")))
            f.writelines("  - %s\n" % note for note in result.notes)
        f.write(other_sections())


def measure(directory, rounds, chosen):
    os.makedirs(directory, exist_ok=True)
    server = Server(directory)
    bench = Bench(server, directory, rounds)
    results = []
    try:
        server.start()
        description = describe(bench)
        print("\n".join(description))
        for one in chosen:
            print("== %s: %s" % (one.name, one.help), flush=True)
            for result in one.function(bench):
                results.append((one.name, result))
                bench.say("; ".join(cell for cell in cells(one.name, result) if cell))
    finally:
        bench.close()
        server.stop()
    print_table(results)
    write_results(os.path.join(directory, "RESULTS.md"), description, results,
                  [one.name for one in chosen])
    return all(result.reached for name, result in results)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--needs", action="store_true")
    parser.add_argument("--directory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("rows", nargs="*")
    arguments = parser.parse_args()
    known = {one.name: one for one in ROWS}
    unknown = [name for name in arguments.rows if name not in known]
    if unknown:
        sys.exit("bench: no row %s, but: %s" % (" ".join(unknown), " ".join(known)))
    if arguments.rounds < 5:
        sys.exit("bench: a median needs five rounds at least")
    chosen = [known[name] for name in arguments.rows or known]
    if arguments.list:
        for one in ROWS:
            print("%-10s %s" % (one.name, one.help))
    elif arguments.needs:
        print(" ".join(one.needs for one in chosen))
    else:
        return 0 if measure(arguments.directory, arguments.rounds, chosen) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
