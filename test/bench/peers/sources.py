#!/usr/bin/env python3
"""
sources

Peers that no Debian package brings, from the registries that have them:

    sources.py install      fetches what is not there yet into $EO_CACHE
    sources.py where NAME   prints the folder of a peer; nothing if there is none

A folder NAME in $EO_PEERS_SOURCES comes before what was fetched: so may peers be
measured that are in no registry (pgque: its repository, or pgque.sql alone) and
other versions (pgmq: pgmq.sql; message-db: its database/).
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("EO_CACHE") or os.path.expanduser("~/.cache/eo_outbox")
GO = "/usr/bin/go"

PIP = ["/usr/bin/pip3", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]

# The command that leaves the archives in the current folder, and their digest.
ARCHIVES = {
    # Debian's is the one in pure Python.
    "psycopg": ([*PIP, "psycopg==3.1.20", "psycopg-binary==3.1.20"],
                "01da42b8164d977a0ff7dc225921596f031d911cbf9d44ac5a32f9e0f5cdeb1a"),
    "pgmq": ([*PIP, "pgmq==1.1.4"],
             "4d9e7aa517295669d46a11d3d13106efbdc738d0e127d84c567b6d4c936e7d1d"),
    "message-db": (["npm", "pack", "--silent", "@eventide/message-db@1.3.1"],
                   "d7938e108d950e29da1974e3acad05bcf680045d0961f6a12039fb002140840d"),
}


def digest_of(*paths):
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def home_of(name):
    if name == "go":
        mark = digest_of(*(os.path.join(HERE, "go", one) for one in ("go.mod", "go.sum")))
    elif name in ARCHIVES:
        mark = ARCHIVES[name][1]
    else:
        return None
    return os.path.join(CACHE, "peer-%s-%s" % (name, mark[:16]))


def where(name):
    """The folder of a peer, or None."""
    given = os.environ.get("EO_PEERS_SOURCES")
    if given and os.path.isdir(os.path.join(given, name)):
        return os.path.join(given, name)
    home = home_of(name)
    return home if home and os.path.isdir(home) else None


def find(name, *paths):
    """The first of some paths in the folder of a peer that there is, or None."""
    home = where(name)
    return next((os.path.join(home, path) for path in paths
                 if os.path.exists(os.path.join(home, path))), None) if home else None


def fetch_archive(name, folder):
    command, expected = ARCHIVES[name]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    archives = sorted(os.path.join(folder, one) for one in os.listdir(folder))
    if digest_of(*archives) != expected:
        raise OSError("it is not what it was: %s" % digest_of(*archives))
    for archive in archives:
        if archive.endswith(".tgz"):
            with tarfile.open(archive) as one:
                one.extractall(folder)
        else:
            with zipfile.ZipFile(archive) as one:
                one.extractall(folder)
        os.unlink(archive)


def fetch_go(folder):
    for one in ("go.mod", "go.sum"):
        shutil.copy(os.path.join(HERE, "go", one), folder)
    subprocess.run([GO, "mod", "download"], cwd=folder, check=True, stdin=subprocess.DEVNULL,
                   stdout=sys.stderr, env=dict(
                       os.environ, GOMODCACHE=os.path.join(folder, "modules"),
                       GOFLAGS="-modcacherw", GOTOOLCHAIN="local"))


def install(name):
    """Fetches one, unless it is there or cannot be had, which is said."""
    home = home_of(name)
    if os.path.isdir(home):
        return
    os.makedirs(CACHE, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="peer-%s." % name, dir=CACHE)
    try:
        print("setup: fetching %s into %s" % (name, CACHE), file=sys.stderr)
        if name == "go":
            fetch_go(folder)
        else:
            fetch_archive(name, folder)
        os.chmod(folder, 0o755)
        os.rename(folder, home)
    except (OSError, subprocess.CalledProcessError) as error:
        print("setup: %s cannot be fetched: %s" % (name, error), file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments):
    if arguments == ["install"]:
        for name in ("go", *ARCHIVES):
            install(name)
    elif len(arguments) == 2 and arguments[0] == "where":
        print(where(arguments[1]) or "")
    else:
        sys.exit(__doc__.strip())


if __name__ == "__main__":
    main(sys.argv[1:])
