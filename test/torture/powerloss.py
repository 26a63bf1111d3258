"""
powerloss

A disk that loses its power: the library of powerloss.c, preloaded into a server
and its file publisher, keeps what was there before each write that has not been
synced.  lose() goes back to a state that such a disk may have: of each file all
that was synced, and of the rest nothing, all, the first writes or any of them,
the last ones torn.
"""
import os
import struct
import subprocess
from contextlib import contextmanager
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = struct.Struct("<QQQ")
RECORD = struct.Struct("<QQQQQ")
SECTOR = 512        # is written as a whole or not at all

# A publisher gets no environment from the server: this stands in its place.
WRAPPER = """#!/bin/sh
. "$0.disk"
exec "$0.real"
"""


class Write(NamedTuple):
    offset: int
    length: int
    size: int           # of the file before
    kept: bytes         # what was there
    resized: bool


class Disk:
    def __init__(self, directory, roots):
        """On it is what is at these paths or below."""
        self.directory = directory
        self.roots = roots
        self.flag = os.path.join(directory, "full")
        self.library = os.path.join(directory, "powerloss.so")
        os.makedirs(directory)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", self.library, os.path.join(HERE, "powerloss.c")], check=True)
        self.environment = {"LD_PRELOAD": self.library, "EO_POWERLOSS": directory, "EO_POWERLOSS_ROOTS": ":".join(roots)}

    # ---- who uses it ---------------------------------------------------------

    def start(self, server, wait=True):
        """The server, with what it starts, on this disk."""
        server.environment.update(self.environment)
        try:
            server.start(wait)
        finally:
            for name in self.environment:
                del server.environment[name]

    @contextmanager
    def publisher(self, kind):
        """Publishers of that kind are started on this disk."""
        library = subprocess.run(["pg_config", "--pkglibdir"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        path = os.path.join(library, "eo_outbox", "eo-publish-" + kind)
        with open(path + ".disk", "w") as f:
            f.writelines("export %s='%s'\n" % item for item in self.environment.items())
        with open(path + ".new", "w") as f:
            f.write(WRAPPER)
        os.chmod(path + ".new", 0o755)
        if os.path.exists(path + ".real"):      # left by a run that was killed; the build has put a new one in place
            os.remove(path + ".real")
        os.link(path, path + ".real")
        os.rename(path + ".new", path)
        try:
            yield
        finally:
            os.rename(path + ".real", path)
            os.remove(path + ".disk")

    # ---- a full disk ---------------------------------------------------------

    @contextmanager
    def full(self, path, exempt=""):
        """Nothing below the path can grow meanwhile, except what is below the other."""
        with open(self.flag + ".new", "w") as f:
            f.write("%s\n%s\n" % (path, exempt))
        os.rename(self.flag + ".new", self.flag)
        try:
            yield
        finally:
            os.remove(self.flag)

    # ---- power ---------------------------------------------------------------

    def files(self):
        for root in self.roots:
            if os.path.isfile(root):
                yield root
            for directory, names, files in os.walk(root):
                names.sort()
                yield from (os.path.join(directory, name) for name in sorted(files))

    def lose(self, r, fate=None):
        """Nobody may use it.  Returns how many writes were lost, and of how many."""
        lost = writes = 0
        fate = fate or r.choice(("nothing", "mixed", "mixed"))
        for path in self.files():
            log = os.path.join(self.directory, "%x" % os.stat(path, follow_symlinks=False).st_ino)
            if os.path.exists(log):
                records = read_log(log)
                writes += len(records)
                lost += revert(path, records, r, fate if fate == "nothing" else r.choice(("nothing", "all", "first", "any")))
        for name in os.listdir(self.directory):
            if os.path.join(self.directory, name) not in (self.flag, self.library):
                os.remove(os.path.join(self.directory, name))
        return lost, writes


def read_log(path):
    """The writes that were not synced."""
    with open(path, "rb") as f:
        data = f.read()
    if len(data) < HEAD.size:
        return []
    base, upto, end = HEAD.unpack_from(data)
    at = HEAD.size + upto - base
    records = []
    while at < HEAD.size + end - base:
        offset, length, size, kept, resized = RECORD.unpack_from(data, at)
        at += RECORD.size
        records.append(Write(offset, length, size, data[at:at + kept], bool(resized)))
        at += kept
    return records


def revert(path, records, r, fate):
    """Undoes them all, the last one first, and does again those that reached the disk; returns how many did not."""
    with open(path, "r+b") as f:
        written = []
        for one in reversed(records):
            f.seek(one.offset)
            written.insert(0, f.read(one.length))
            f.seek(one.offset)
            f.write(one.kept)
            f.truncate(one.size)
        first = r.randint(0, len(records)) if fate == "first" else 0
        lost = 0
        for i, one in enumerate(records):
            survives = {"nothing": False, "all": True, "first": i < first, "any": one.resized or r.random() < 0.5}[fate]
            torn = fate in ("first", "any") and not survives and (i == first or fate == "any") and r.random() < 0.3
            lost += not survives
            if survives and one.resized:
                f.truncate(one.offset)
            elif survives or (torn and not one.resized):
                f.seek(one.offset)
                f.write(written[i] if survives else torn_part(one.offset, written[i], r))
        return lost


def torn_part(offset, data, r):
    """Its first bytes, up to the end of a sector."""
    end = offset + r.randint(0, len(data))
    return data[:max(0, end // SECTOR * SECTOR - offset)]
