"""
logs

What a server's log tells of it: how often it has crashed, and what no fault is an
excuse for.
"""
import os
import re
from datetime import datetime

PREFIX = "'%m [%p] %b %e '"
LINE = re.compile(r"^\S+ \S+ \S+ \[(?P<pid>\d+)\] (?P<who>.*?) (?P<state>[0-9A-Z]{5}) (?P<severity>[A-Z]+[0-9]?):  (?P<text>.*)")

# Each crash that is survived leads to one of these, unless the next one is faster.
RECOVERY = "was not properly shut down; automatic recovery in progress"
SIGNALLED = re.compile(r"\(PID (\d+)\) was terminated by signal (\d+)")
SIGKILL, SIGABRT = "9", "6"

# What ends a server that has no room for WAL; the second one while it recovers.
NO_ROOM = re.compile(r"\[(?P<pid>\d+)\] (?:.*? 53100 PANIC|startup 53100 FATAL):  .*No space left")
NO_WAL = "no WAL"               # expected, like an SQLSTATE, where there is no room for it

# A publisher that was not killed, and did not end in good order either.
PUBLISHER = re.compile(r": the publisher (was killed by signal (4|6|7|8|11)\b|exited with status (?!0\b|1\b)\d)")
PUBLISHERS = "publishers"       # expected, like an SQLSTATE, where somebody sends them such signals

SHUTDOWN = ("57P01", "57P02", "57P03")
INTERNAL = re.compile("XX00[0-9]")
MOST = 5                # lines that are shown of what is found


class Log:
    """Grows with its server; databases of one server share it."""

    def __init__(self, path):
        self.path = path
        self.planned = 0        # crashes of the server that were somebody's intention

    def lines(self, offset=0):
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as f:
            f.seek(offset)
            return f.read().decode(errors="replace").splitlines()

    def count(self, *parts):
        """How many lines have all of that."""
        return sum(all(part in line for part in parts) for line in self.lines())

    def crashes(self):
        """How often the server has found that it must recover."""
        return self.count(RECOVERY)

    def recovered_at(self):
        """When the server last found that it must recover, in seconds since 1970; None if it never did."""
        found = [line for line in self.lines() if RECOVERY in line]
        if not found:
            return None
        return datetime.strptime(found[-1][:23] + "+0000", "%Y-%m-%d %H:%M:%S.%f%z").timestamp()

    def place(self):
        """Where it is now."""
        return os.path.getsize(self.path), self.crashes(), self.planned

    def complaints(self, place, expected):
        """What is wrong in what came after that place, in words; the SQLSTATEs are expected."""
        offset, crashes, planned = place
        lines = self.lines(offset)
        panicked = without_room(lines) if NO_WAL in expected else ()
        found = [line for line in lines if is_wrong(line, expected, panicked)]
        wrong = ["the log has: " + line for line in found[:MOST]]
        crashes, planned = self.crashes() - crashes, self.planned - planned
        if NO_WAL in expected:
            planned += crashes_without_room(lines)
        if crashes > planned:
            wrong.append("the server crashed %d times where %d were planned" % (crashes, planned))
        return wrong


def without_room(lines):
    """Process ids of those that could not go on for want of room for WAL."""
    return {found["pid"] for found in map(NO_ROOM.search, lines) if found}


def crashes_without_room(lines):
    """How many of the crashes came of that: one each, however many processes say so."""
    crashes = said = 0
    for line in lines:
        if NO_ROOM.search(line):
            said = 1
        elif RECOVERY in line:
            crashes += said
            said = 0
    return crashes


def is_wrong(line, expected, panicked=()):
    """
    A line that no crash, however planned, and no error of a client accounts for:
    a process that ends by itself, a publisher included, an error that says that
    it cannot happen, or one in a process of ours.  Who has panicked, and may, ends
    with SIGABRT.
    """
    signalled = SIGNALLED.search(line)
    if signalled:
        pid, number = signalled.groups()
        return number != SIGKILL and not (number == SIGABRT and pid in panicked)
    if "TRAP:" in line or (PUBLISHER.search(line) and PUBLISHERS not in expected):
        return True
    found = LINE.match(line)
    if not found:
        return False
    if found["severity"] == "PANIC":
        return found["pid"] not in panicked
    if found["state"] in (*SHUTDOWN, *expected):
        return False
    if INTERNAL.match(found["state"]):
        return True
    return found["who"].startswith("eo_outbox") and found["severity"] in ("ERROR", "FATAL")
