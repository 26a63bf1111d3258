#!/usr/bin/env python3
"""
assertions

A PostgreSQL that checks itself: of the version that is tested, built from the
sources of Debian with assertions, what gdb wants, and word to Valgrind of what
memory contexts hand out (USE_VALGRIND).

    assertions.py install   build it (once; cached in EO_CACHE); prints its pg_config

PG_CONFIG tells the server.  Valgrind's header must be there.
"""
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "capture"))
import source  # noqa: E402

CONFIGURE = ("--enable-cassert", "--enable-debug", "--enable-tap-tests", "--without-readline", "--without-zlib",
             "--with-libxml")
CFLAGS = "-O1 -g -fno-omit-frame-pointer -DUSE_VALGRIND"
# Those of contrib that tests create.
CONTRIB = ("citext", "hstore", "ltree")


def run(directory, log, *command):
    status = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
    if status != 0:
        log.flush()
        with open(log.name, errors="replace") as f:
            raise RuntimeError("%s failed:\n%s" % (" ".join(command), f.read()[-3000:]))


def help_of(folder):
    """The options that this version's configure knows."""
    return subprocess.run(["./configure", "--help"], cwd=folder, stdout=subprocess.PIPE, text=True).stdout


def build(folder, prefix, log):
    options = list(CONFIGURE)
    if "--without-icu" in help_of(folder):
        options.append("--without-icu")
    run(folder, log, "./configure", "-q", "--prefix=" + prefix, "CFLAGS=" + CFLAGS, *options)
    jobs = "-j%d" % (os.cpu_count() or 1)
    run(folder, log, "make", "-s", jobs)
    run(folder, log, "make", "-s", "install")
    for name in CONTRIB:
        run(folder, log, "make", "-s", jobs, "-C", "contrib/" + name, "install")
    shutil.copy(os.path.join(folder, "src/tools/valgrind.supp"), prefix)


def install():
    """Returns its pg_config."""
    home = os.path.realpath(source.home())
    how = hashlib.sha256(repr((CONFIGURE, CFLAGS, CONTRIB)).encode()).hexdigest()[:8]
    prefix = os.path.join(home, "assertions-" + how)
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "assertions.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(prefix, "complete")):
            shutil.rmtree(prefix, ignore_errors=True)
            print("assertions: building %s in %s; takes some minutes" % (source.wanted()[0], prefix), file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=home) as directory, \
                    open(os.path.join(home, "assertions.log"), "w") as log:
                archive, version = source.download(directory)
                with tarfile.open(archive) as tar:
                    tar.extractall(os.path.join(directory, "unpacked"))
                folder, = os.listdir(os.path.join(directory, "unpacked"))
                build(os.path.join(directory, "unpacked", folder), prefix, log)
            with open(os.path.join(prefix, "complete"), "w") as f:
                f.write(version + "\n")
    return os.path.join(prefix, "bin", "pg_config")


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    try:
        print(install())
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit("assertions.py: %s" % error)
