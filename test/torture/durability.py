"""
durability

What is promised of a disk that loses its power, of one that is full, and of
commits that nobody waited for.  Controls take one guarantee away each, and must
be found out: a model that cannot fail proves nothing.
"""
import os
import shutil
import signal
import time
from collections import Counter
from contextlib import contextmanager

import psycopg

from checker import check_database
from consumers import File, claims, untrue
from faults import Fault, fault
from logs import NO_WAL, crashes_without_room, without_room
from powerloss import Disk
from rig import CONSUMERS, Broken, Rig
from server import POLL, kill, wait_until

MOMENT = 0.0005         # s; how closely the file is watched
WAIT_SECONDS = 60


class DiskFile(File):
    """The file publisher's, on a disk that may lose the end of it, after that was read."""

    def __init__(self, server, name, directory):
        super().__init__(server, name, directory)
        self.held = False
        self.still = None
        self.lines = {}         # seq: where the line ends, and the line
        self.lost = {}          # seq: the line, of those that were read and must come again

    def news(self):
        if self.held:
            self.still = True
            return []
        end = self.tail.offset
        found = []
        for line in self.tail.lines():
            end += len(line) + 1
            found.append(self.parse(line))
            self.lines[found[-1].seq] = (end, line)
            self.compare(found[-1].seq, line)
        return found

    def compare(self, seq, line):
        """What was lost with the power was of a transaction that was not: the very same event comes again."""
        before = self.lost.pop(seq, line)
        if line != before:
            self.unexpected.append((None, "event %d came again as %s and was %s" % (seq, line, before)))

    def take_surprises(self):
        never = ["event %d never came again" % seq for seq in sorted(self.lost)[:5]]
        self.lost.clear()
        return super().take_surprises() + never

    def hold(self):
        """Reads nothing from now on."""
        self.still = False
        self.held = True
        wait_until("the file's reader rests", lambda: self.still)

    def forget_what_was_lost(self):
        """
        Goes back to the first line that is not there any more.  What was read
        of it must have been true all the same: it is looked up once more.
        Returns how many lines were lost.
        """
        with open(self.path, "rb") as f:
            data = f.read()
        kept = 0
        for arrival in self.arrivals:
            end, line = self.lines[arrival.seq]
            if data[end - len(line) - 1:end] != line + b"\n":
                self.tail.offset = end - len(line) - 1
                break
            kept += 1
        if self.tail.offset > len(data):
            raise Broken("%s: what was settled long ago is gone" % self.name)
        self.unchecked += claims(self.arrivals)
        lost = self.arrivals[kept:]
        self.lost.update((a.seq, self.lines[a.seq][1]) for a in lost)
        del self.arrivals[kept:]
        return len(lost)

    def caught_up(self):
        with open(self.path, "rb") as f:
            f.seek(self.tail.offset)
            return b"\n" not in f.read()

    def go_back(self):
        """To the end of what is left of it; what was read of the rest stays known."""
        with open(self.path, "rb") as f:
            self.tail.offset = min(self.tail.offset, f.read().rfind(b"\n") + 1)

    def repaired(self):
        """A write that did not reach the disk may have left zeros before one that did."""
        with open(self.path, "rb") as f:
            f.seek(self.tail.offset)
            return b"\0" not in f.read()

    def release(self):
        wait_until("the torn end of %s is cut off" % self.path, self.repaired)
        self.held = False
        self.lines.clear()


CONSUMERS["disk"] = DiskFile


class DiskRig(Rig):
    """Its server, and the file that is published to, are on a disk of our own making."""

    def __init__(self, directory, seed, settings=(), initdb=(), lies=""):
        super().__init__(directory, seed, ("disk",), dict(settings), initdb=initdb)
        self.target = self.consumers[0]
        self.disk = Disk(os.path.join(directory, "disk"), [self.server.data, self.target.path])
        self.disk.environment["EO_POWERLOSS_LIES"] = os.path.join(self.server.data, lies) if lies else ""
        self.server.shut_down("fast")
        self.disk.start(self.server)

    def options(self, r):
        """Data pages can be torn on such a disk."""
        return dict(super().options(r), full_page_writes="on")

    def revive(self):
        """Until it stays: it may find itself unable to go on, and end."""
        def answers():
            if self.server.process.poll() is not None:
                self.disk.start(self.server, wait=False)
            return self.server.answers()
        wait_until("the server answers", answers, WAIT_SECONDS)


@contextmanager
def disk_rig(directory, seed, **options):
    rig = DiskRig(os.path.join(directory, "rig"), seed, **options)
    try:
        with rig.disk.publisher("file"):
            for pid in rig.server.publishers():
                kill(pid, signal.SIGTERM)
            yield rig
    except BaseException:
        rig.close(keep=True)
        shutil.rmtree(rig.disk.directory)
        raise
    rig.close()


def cycles(directory, seed, r, run, turns, expected=(), **options):
    """Some cycles with that fault, on a disk of their own."""
    with disk_rig(directory, seed, **options) as rig:
        one = Fault("durability", run.__name__, run, ("calm", "nested"), expected)
        for turn in range(1, turns + 1):
            rig.run(turn, one, r)
        return Counter(rig.totals(), worst=rig.worst)


# ---- commits that nobody waits for -----------------------------------------

def let_commits_wait(rig):
    """Nothing is flushed but what somebody needs to be."""
    rig.load.synchronous = 0.0
    for name, value in (("wal_writer_delay", "10s"), ("wal_writer_flush_after", "1GB"), ("commit_delay", "0")):
        rig.server.query_nothing("ALTER SYSTEM SET %s = '%s'" % (name, value))
    rig.server.query_nothing("SELECT pg_reload_conf()")


def await_publication(path, act=lambda: None):
    """Does that, if anything, and waits until something is added to the file."""
    size = os.path.getsize(path) if os.path.exists(path) else 0
    act()
    until = time.monotonic() + WAIT_SECONDS
    while not os.path.exists(path) or os.path.getsize(path) <= size:
        if time.monotonic() > until:
            raise Broken("nothing was published for %d s" % WAIT_SECONDS)
        time.sleep(MOMENT)


def commit_one(rig, name):
    """With nobody else at work: so nobody but the relay has a reason to flush it."""
    with rig.server.connect(options="-c synchronous_commit=off") as connection:
        connection.execute("SELECT load.make(%s, %s, 'orders', 'k0', %s, 1, 0)", (name, rig.cycle, name))


def kill_when_published(rig, path, quiet=None):
    """Everything, when an event has just come out: any, or the only one."""
    if quiet:
        # A relay that begins flushes what it notes of that; the next is published without.
        await_publication(path, lambda: commit_one(rig, quiet + ".before"))
    pids = rig.server.descendants()
    await_publication(path, (lambda: commit_one(rig, quiet)) if quiet else (lambda: None))
    kill(pids[0], signal.SIGSTOP)       # it starts no other
    for pid in pids[1:]:
        kill(pid)
    rig.server.kill_all()


@fault("durability")
def published_unflushed(rig, r):
    path = next(consumer.path for consumer in rig.consumers if isinstance(consumer, File))
    times = r.randint(1, 3)
    let_commits_wait(rig)
    quiet = r.random() < 0.5
    if quiet:
        rig.load.pause()
    for i in range(times):
        kill_when_published(rig, path, "%s.quiet.%d.%d" % (rig.name, rig.cycle, i) if quiet else None)
        rig.server.start()
    rig.server.query_nothing("ALTER SYSTEM RESET wal_writer_flush_after")
    return times


# ---- a loss of power -------------------------------------------------------

def remove_empty_lock(path):
    """PostgreSQL leaves that to its operator, who knows that nobody else is starting it."""
    if os.path.exists(path) and os.path.getsize(path) == 0:
        os.remove(path)


def lose_power(rig, r):
    """Of what may have been killed already."""
    if rig.server.postmaster():
        rig.server.kill_all()
    rig.target.hold()
    lost, writes = rig.disk.lose(r)
    remove_empty_lock(os.path.join(rig.server.data, "postmaster.pid"))
    rig.counts["unsynced"] += writes
    rig.counts["undone"] += lost
    rig.counts["unread"] += rig.target.forget_what_was_lost()


def lose_power_amid_all(rig, r):
    """Some times, also while it recovers from the last one."""
    times = r.choice((1, 1, 2, 3))
    if r.random() < 0.5:
        let_commits_wait(rig)
    time.sleep(r.uniform(0, 1))
    if r.random() < 0.7:
        kill_when_published(rig, rig.target.path)
    for left in reversed(range(times)):
        lose_power(rig, r)
        rig.disk.start(rig.server, wait=not left)
        if left:
            time.sleep(r.uniform(0.02, 0.5))
    rig.target.release()
    return times


@fault("durability", alone=True)
def power_loss(directory, seed, r):
    counts = cycles(directory, seed, r, lose_power_amid_all, 5)
    if not counts["undone"]:
        raise Broken("none of %d writes was lost" % counts["unsynced"])
    return counts


# ---- a full disk -----------------------------------------------------------

def fill_data(rig, r):
    """Who needs room gets an error; nobody else notices."""
    data = rig.server.data
    with rig.disk.full(data, os.path.join(data, "pg_wal")):
        with rig.server.connect() as connection:
            try:
                connection.execute("CREATE TABLE load.filler AS SELECT repeat('x', 500) FROM generate_series(1, 1000000)")
                raise Broken("the disk was not full")
            except psycopg.errors.DiskFull:
                pass
        time.sleep(r.uniform(0.5, 3))
    return 1


def fill_wal(rig, r):
    """The server cannot go on, and recovers, or ends, until there is room."""
    log = rig.server.log
    offset, *_ = log.place()

    def crashes():
        return crashes_without_room(log.lines(offset))

    with rig.disk.full(os.path.join(rig.server.data, "pg_wal")):
        wait_until("the server has no room for WAL", lambda: without_room(log.lines(offset)), WAIT_SECONDS)
        time.sleep(r.uniform(0, 3))
    rig.revive()
    wait_until("the crash is noticed", crashes)
    return crashes()


def fill_target(rig, r):
    """The publisher fails until there is room, and may be killed when it has written half a line."""
    def refused():
        return rig.server.one("SELECT last_error LIKE '%%No space left%%' FROM eo.subscriptions WHERE name = %s", rig.target.name)
    with rig.disk.full(rig.target.path):
        wait_until("the publisher has no room", refused, WAIT_SECONDS)
        until = time.monotonic() + r.uniform(0, 3)
        while time.monotonic() < until:
            for pid in rig.server.publishers() if r.random() < 0.3 else ():
                kill(pid)
            time.sleep(POLL)
    return 1


@fault("durability", alone=True)
def full_data(directory, seed, r):
    return cycles(directory, seed, r, fill_data, 3, ("53100",))


@fault("durability", alone=True)
def full_wal(directory, seed, r):
    return cycles(directory, seed, r, fill_wal, 3, ("53100", NO_WAL), initdb=("--wal-segsize=1",),
                  settings={"wal_recycle": "off", "min_wal_size": "2MB"})


@fault("durability", alone=True)
def full_target(directory, seed, r):
    return cycles(directory, seed, r, fill_target, 3)


# ---- controls --------------------------------------------------------------

def phantoms(rig):
    """What is found in any cycle: by the consumer itself, or later, if it was faster than the crash that undid it."""
    wait_until("what was read is looked up", lambda: not rig.target.unchecked)
    with rig.server.connect() as connection:
        return rig.target.phantoms + untrue(connection, claims(rig.target.arrivals))


def missing(rig):
    """What is said of commits that were acknowledged."""
    return check_database(rig.server, rig.load, rig.load.cycle)


def found_out(directory, seed, r, lose, breach, **options):
    """Whether one of some losses is found to have broken a promise."""
    with disk_rig(directory, seed, **options) as rig:
        let_commits_wait(rig)
        for rig.cycle in range(1, 6):
            lose(rig, r)
            rig.disk.start(rig.server)
            rig.target.release()
            rig.load.pause()
            if breach(rig):
                return Counter(commits=len(rig.load.acknowledged))
    raise Broken("nobody noticed it")


def lose_all_unsynced(rig, r):
    """After all has been killed."""
    wait_until("the file is read", rig.target.caught_up)
    rig.target.hold()
    rig.disk.lose(r, "nothing")
    rig.target.go_back()


def kill_unflushed(rig, r):
    kill_when_published(rig, rig.target.path, "quiet.%d" % rig.cycle)
    wait_until("the file is read", rig.target.caught_up)


def lose_unflushed(rig, r):
    kill_unflushed(rig, r)
    lose_all_unsynced(rig, r)


def lose_acknowledged(rig, r):
    rig.load.begin(rig.cycle, synchronous=1.0)
    time.sleep(r.uniform(0.3, 1))
    await_publication(rig.target.path)
    rig.server.kill_all()
    lose_all_unsynced(rig, r)


@fault("durability", alone=True)
def control_unflushed_kill(directory, seed, r):
    """Without its flush the log tells of commits that a crash undoes."""
    return found_out(directory, seed, r, kill_unflushed, phantoms, settings={"eo_outbox.test_no_flush": "on"})


@fault("durability", alone=True)
def control_unflushed_power(directory, seed, r):
    return found_out(directory, seed, r, lose_unflushed, phantoms, settings={"eo_outbox.test_no_flush": "on"})


@fault("durability", alone=True)
def control_lying_disk(directory, seed, r):
    """One that does not sync the WAL loses what was acknowledged."""
    return found_out(directory, seed, r, lose_acknowledged, missing, lies="pg_wal")
