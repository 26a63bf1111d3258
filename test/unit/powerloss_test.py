#!/usr/bin/env python3
"""powerloss_test.py

The disk of the torture rig (test/torture/powerloss.c): what it goes back to is
what was synced, and what it kept of the rest is what was written.
"""

import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "torture"))
import tap
from powerloss import Disk, read_log, revert

SEEDS = range(25)
FILES = ("a", "b", "c")

# Writes to three files in all ways, syncs now and then, and leaves beside them
# what they were when they were synced last.
WRITER = """
import os, random, sys
r = random.Random(sys.argv[2])
for name in %r:
    path = os.path.join(sys.argv[1], name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    synced = os.pread(fd, 1000000, 0)
    for i in range(40):
        what = r.choice(("pwrite",) * 12 + ("write", "writev", "resize", "resize", "allocate", "empty", "sync", "sync"))
        if what == "pwrite":
            os.pwrite(fd, r.randbytes(r.randint(1, 9000)), r.randint(0, 20000))
        elif what == "write":
            os.lseek(fd, 0, os.SEEK_END)
            os.write(fd, r.randbytes(r.randint(1, 3000)))
        elif what == "writev":
            os.writev(fd, [r.randbytes(100), r.randbytes(5000)])
        elif what == "resize":
            os.ftruncate(fd, r.randint(0, 30000))
        elif what == "allocate":
            os.posix_fallocate(fd, 0, r.randint(1, 40000))
        elif what == "empty":
            os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        else:
            r.choice((os.fsync, os.fdatasync))(fd)
            synced = os.pread(fd, 1000000, 0)
    with open(os.path.join(sys.argv[1], "..", name), "wb") as f:
        f.write(synced)
""" % (FILES,)

scratch = tempfile.TemporaryDirectory(prefix="eo-powerloss-test.")
files = os.path.join(scratch.name, "files")
os.makedirs(files)
disk = Disk(os.path.join(scratch.name, "disk"), [files])


def write(program, *arguments):
    return subprocess.run([sys.executable, "-c", program, files, *arguments],
                          env=dict(os.environ, **disk.environment), stdout=subprocess.PIPE, text=True, check=True).stdout


def contents(directory):
    found = []
    for name in FILES:
        with open(os.path.join(directory, name), "rb") as f:
            found.append(f.read())
    return found


def test_nothing_survives():
    """without what was not synced, a file is as it was when it was synced"""
    undone = 0
    for seed in SEEDS:
        write(WRITER, "nothing %d" % seed)
        undone += disk.lose(random.Random(seed), "nothing")[0]
        assert contents(files) == contents(scratch.name), seed
    assert undone > 100


def test_all_survives():
    """with all of it, a file is as it was written"""
    for seed in SEEDS:
        write(WRITER, "all %d" % seed)
        written = contents(files)
        for name in FILES:
            path = os.path.join(files, name)
            revert(path, read_log(os.path.join(disk.directory, "%x" % os.stat(path).st_ino)), random.Random(seed), "all")
        assert contents(files) == written, seed
        disk.lose(random.Random(seed))


def test_new_file_in_old_place():
    """a file that got the inode of another is not mistaken for it"""
    write("import os, sys\n"
          "for i in range(50):\n"
          "    path = os.path.join(sys.argv[1], 'short-lived')\n"
          "    with open(path, 'wb') as f:\n"
          "        f.write(b'x' * 5000)\n"
          "        f.flush()\n"
          "        os.truncate(path, 100)\n"
          "        if i == 49:\n"
          "            os.fsync(f.fileno())\n"
          "    if i < 49:\n"
          "        (os.unlink if i % 2 else lambda old: os.rename(old, old + '2'))(path)\n")
    disk.lose(random.Random(1), "nothing")
    assert os.path.getsize(os.path.join(files, "short-lived")) == 100


def test_full():
    """a full disk takes what goes into the last block, unless the file is exempt"""
    program = ("import os, sys\n"
               "for name in ('full', 'exempt'):\n"
               "    path = os.path.join(sys.argv[1], name)\n"
               "    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)\n"
               "    try:\n"
               "        print(os.write(fd, b'x' * 1000), end=' ')\n"
               "        print(os.write(fd, b'x' * 5000), end=' ')\n"
               "        print(os.write(fd, b'x' * 5000), end=' ')\n"
               "    except OSError as error:\n"
               "        print(error.strerror, end=' ')\n"
               "    os.pwrite(fd, b'y' * 1000, 0)\n")
    with open(os.path.join(files, "full"), "wb") as f:
        f.write(b"x" * 4000)
    with disk.full(files, os.path.join(files, "exempt")):
        said = write(program)
    assert said == "1000 3096 No space left on device 1000 5000 5000 ", said
    disk.lose(random.Random(1), "nothing")
    assert os.path.getsize(os.path.join(files, "full")) == 4000


tap.main(globals())
