#!/usr/bin/env python3
"""
source

PostgreSQL's own regression tests, from Debian's source package of the server
that is tested.

    source.py install       fetch them (once; cached in EO_CACHE)

apt gets lists and settings of its own, so that those of the machine stay as
they are; nobody has to be root.  PG_CONFIG tells the server.
"""
import fcntl
import glob
import os
import re
import subprocess
import sys
import tarfile
import tempfile

CACHE = os.environ.get("EO_CACHE") or os.path.expanduser("~/.cache/eo_outbox")
PG_CONFIG = os.environ.get("PG_CONFIG") or "pg_config"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SANDBOX = ["-o", "APT::Sandbox::User=root"] if os.getuid() == 0 else []
FOLDER = "src/test/regress/"


def output(*command):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout


def wanted():
    """The source package, and its version if Debian has built the server."""
    major = re.search(r" (\d+)", output(PG_CONFIG, "--version")).group(1)
    package = "postgresql-" + major
    query = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${source:Version}", package],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    status, _, version = query.stdout.partition(" ")
    return package, version if query.returncode == 0 and status == "installed" else None


def home():
    package, version = wanted()
    return os.path.join(CACHE, "%s-%s" % (package, re.sub(r"[^\w.+~-]", "_", version or "latest")))


def path():
    """Where the tests are, and the version of the package that they are from."""
    folder = os.path.join(home(), "regress")
    try:
        with open(os.path.join(home(), "complete")) as f:
            return folder, f.read().strip()
    except FileNotFoundError:
        raise RuntimeError("%s is not complete; see test/setup --sources" % folder) from None


def archives(directory):
    """The archives of Debian that the machine uses, for sources."""
    private = ["-o", "Dir::State::Lists=" + os.path.join(directory, "lists")]
    for options in ([], private):
        lines = run(directory, "apt-get", *options, "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)",
                    "Created-By: Packages").splitlines()
        found = sorted({line.split(" ", 1)[1] for line in lines if line.startswith("Debian ")})
        if found:
            signed = "[signed-by=%s] " % KEYRING if os.path.exists(KEYRING) else ""
            return "".join("deb-src %s%s\n" % (signed, archive) for archive in found)
        if not options:
            # the machine has no lists
            run(directory, "apt-get", *private, *SANDBOX, "-q", "update")
    raise RuntimeError("found no archive of Debian in apt's configuration")


def download(directory):
    """Returns the file with the sources as PostgreSQL has released them, and their version."""
    for name in ("lists/partial", "cache/archives/partial", "package"):
        os.makedirs(os.path.join(directory, name))
    sources = os.path.join(directory, "sources.list")
    with open(sources, "w") as f:
        f.write(archives(directory))
    options = {"Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null",
               "Dir::State::Lists": os.path.join(directory, "lists"), "Dir::Cache": os.path.join(directory, "cache")}
    settings = SANDBOX + [o for name, value in options.items() for o in ("-o", "%s=%s" % (name, value))]
    package, version = wanted()
    said = run(directory, "apt-get", *settings, "-q", "update")
    known = re.findall(r"^Version: (.*)$", run(directory, "apt-cache", *settings, "showsrc", package), re.M)
    # that of the server first; archives do not keep all for long
    for version in sorted(known, key=lambda v: v != version):
        said += run(directory, "apt-get", *settings, "-q", "source", "--download-only", "%s=%s" % (package, version))
        found = [f for f in glob.glob(os.path.join(directory, "package", "*.orig.tar.*")) if not f.endswith(".asc")]
        if found:
            return found[0], version
    raise RuntimeError("apt-get found no sources of %s:\n%s" % (package, said[-3000:]))


def run(directory, *command):
    """Returns what it says, whether it fails or not."""
    return subprocess.run(command, cwd=os.path.join(directory, "package"), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def unpack(archive, directory):
    with tarfile.open(archive) as tar:
        for member in tar:
            top, _, name = member.name.partition("/")
            if name.startswith(FOLDER) and ".." not in name.split("/") and member.isfile():
                member.name = name[len(FOLDER):]
                tar.extract(member, directory, set_attrs=False)


def install():
    target = home()
    complete = os.path.join(target, "complete")
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(complete):
            return
        print("setup: fetching the sources of %s into %s" % (wanted()[0], CACHE), file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=target) as directory:
            archive, version = download(directory)
            unpack(archive, os.path.join(target, "regress"))
        if not os.path.exists(os.path.join(target, "regress", "parallel_schedule")):
            raise RuntimeError("the sources have no %sparallel_schedule" % FOLDER)
        with open(complete, "w") as f:
            f.write(version + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    try:
        install()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit("source.py: %s" % error)
