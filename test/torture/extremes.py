"""
extremes

A transaction of very many events, and a cluster whose transaction ids come to
the end of their numbers.
"""
import os
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager

import psycopg

from faults import Fault, Round, fault
from rig import RSS_LIMIT_KB, Broken, Rig
from server import POLL, Server, kill

# ---- a transaction of ten million events ------------------------------------------

HUGE = 10000000
LARGE = 300000
SECONDS = 1800
PIECE = 1 << 23
MAKE = ("SELECT count(eo.enqueue('huge', to_jsonb(i), key => 'k' || i %% 1000)) FROM generate_series(1, %s) AS i")
EVENT = re.compile(rb'"sequence":"(\d+)",.*"topic":"(\w+)","position":(\d+),.*"data":(\d+)}$')
SMALL = "SELECT eo.enqueue('small', to_jsonb(%s), key => 'small')"


class Small(threading.Thread):
    """Commits events one by one meanwhile, as far as it can."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.acknowledged = []
        self.tried = 0
        self.ending = threading.Event()

    def run(self):
        connection = None
        while not self.ending.is_set():
            try:
                if connection is None or connection.closed:
                    connection = self.server.connect(application_name="small")
                self.tried += 1
                connection.execute(SMALL, (self.tried,))
                self.acknowledged.append(self.tried)
                time.sleep(POLL)
            except psycopg.Error:
                connection = None
                time.sleep(POLL)

    def stop(self):
        self.ending.set()
        self.join(30)


class Stream:
    """What has come to the file, looked at as it comes and then forgotten."""

    def __init__(self, path):
        self.path = path
        self.offset = 0
        self.seq = 0
        self.positions = Counter()
        self.huge = 0
        self.small = []

    def lines(self):
        """A few of those that are complete."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            data = f.read(PIECE)
        end = data.rfind(b"\n") + 1
        self.offset += end
        return data[:end].splitlines()

    def read(self):
        """Returns how many there were."""
        lines = self.lines()
        for line in lines:
            seq, topic, position, number = EVENT.search(line).groups()
            seq, position, number = int(seq), int(position), int(number)
            if seq <= self.seq:
                raise Broken("seq %d came after %d" % (seq, self.seq))
            self.seq = seq
            self.positions[topic] += 1
            if position != self.positions[topic]:
                raise Broken("position %d of %s came for %d" % (position, topic, self.positions[topic]))
            if topic == b"small":
                self.small.append(number)
                continue
            self.huge += 1
            if number != self.huge:
                raise Broken("event %d of the large transaction came for %d" % (number, self.huge))
        return len(lines)


@contextmanager
def file_server(directory):
    server = Server(os.path.join(directory, "server"), settings={"max_wal_size": "4GB", "eo_outbox.segment_size": "128MB"})
    path = os.path.join(directory, "file.jsonl")
    server.create()
    server.execute("CREATE SERVER file FOREIGN DATA WRAPPER eo_file OPTIONS (path '%s'); SELECT eo.subscribe('file', server => 'file')" % path)
    small = Small(server)
    try:
        yield server, small, Stream(path)
    except BaseException:
        server.stop()
        raise
    finally:
        small.stop()
    server.remove()


def make_huge(server, size, r, end):
    """Returns whether it has committed, for all that its client knows: None if that was told nothing."""
    with server.connect(application_name="huge") as connection:
        killer = threading.Timer(r.uniform(0, size / 1000000), lambda: server.crash(connection.info.backend_pid))
        try:
            connection.execute("SET statement_timeout = 0")
            connection.execute("BEGIN")
            connection.execute(MAKE, (size,))
            if end == "killed":         # amid the append, or before
                killer.start()
            connection.execute("ROLLBACK" if end == "rolled back" else "COMMIT")
            return end != "rolled back"
        except psycopg.OperationalError:
            return None
        finally:
            killer.cancel()
            if killer.is_alive():
                killer.join()


def await_small(server, stream, number):
    """Reads what comes until that one has come."""
    until = time.monotonic() + SECONDS
    while not stream.small or stream.small[-1] < number:
        if time.monotonic() > until:
            raise Broken("the last event did not come: %s" % server.query("SELECT state, lag_events, last_error FROM eo.subscriptions"))
        if not stream.read():
            time.sleep(POLL)
        check_memory(server)


def check_memory(server):
    try:
        pids = [pid for pid in (server.relay(), *server.publishers()) if pid]
        for pid in pids:
            with open("/proc/%d/status" % pid) as f:
                rss = next(int(line.split()[1]) for line in f if line.startswith("RssAnon"))
            if rss > RSS_LIMIT_KB:
                raise Broken("process %d has %d kB" % (pid, rss))
    except (psycopg.Error, FileNotFoundError, StopIteration):
        pass


@fault("transactions", alone=True)
def huge(directory, seed, r):
    """All of its events come, in order, or none; those of others come in between, and nobody's memory grows with it."""
    size = HUGE if Round.long else LARGE
    end = r.choice(("committed", "committed", "rolled back", "killed"))
    disturbance = r.choice(("nothing", "publisher", "everything"))
    with file_server(directory) as (server, small, stream):
        began = server.log.place()
        small.start()
        committed = make_huge(server, size, r, end)
        server.wait_ready()
        if disturbance == "publisher":
            for pid in server.publishers():
                kill(pid)
        elif disturbance == "everything":
            time.sleep(r.uniform(0, 1))
            server.kill_all()
            server.start()
        small.stop()
        server.query_nothing(SMALL, small.tried + 1)
        await_small(server, stream, small.tried + 1)
        if stream.huge not in {True: (size,), False: (0,), None: (0, size)}[committed]:
            raise Broken("%d of %d events came of a transaction that was %s" % (stream.huge, size, end))
        lost = set(small.acknowledged) - set(stream.small)
        if lost or stream.small != sorted(set(stream.small)):
            raise Broken("%d others were lost: %s" % (len(lost), sorted(lost)[:10]))
        complaints = server.log.complaints(began, ())
        if complaints:
            raise Broken("\n".join(complaints))
        return Counter(commits=len(small.acknowledged) + bool(committed), events=stream.huge + len(stream.small))


# ---- transaction ids -----------------------------------------------------------------

PER_FILE = 32 * 8192 * 4        # transaction ids of one file of pg_xact
EDGES = (1 << 31, 1 << 32)
FIRST_NORMAL = 3


def set_next_xid(server, xid, oldest):
    """Of a server that is shut down."""
    path = os.path.join(server.data, "pg_xact", "%04X" % (xid // PER_FILE))
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(bytes(PER_FILE // 4))
    server.run("pg_resetwal", "--pgdata", server.data, "--next-transaction-id", str(xid), "--oldest-transaction-id", str(oldest), stdout=-3)


def freeze(server):
    """All databases, so that the numbers may go on."""
    server.query_nothing("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    server.run("vacuumdb", "--all", "--freeze", "--quiet", "--maintenance-db", "postgres")


def oldest_xid(server):
    return server.one("SELECT min(datfrozenxid::text::bigint) FROM pg_database")


def next_xid(server):
    return server.one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")


def go_to(rig, xid):
    """In steps of which none is half a circle."""
    server = rig.server
    while next_xid(server) < xid:
        freeze(server)
        step = min(xid, next_xid(server) + (1 << 30))
        oldest = oldest_xid(server)
        server.shut_down("fast")
        set_next_xid(server, step, oldest)
        server.start()
    server.wait_ready()


def pass_edge(edge):
    def run(rig, r):
        """Amid the load, with VACUUM FREEZE at its side, and a crash perhaps."""
        with rig.server.connect(application_name="burner") as connection:
            while next_xid(rig.server) <= edge + FIRST_NORMAL:
                connection.execute("SELECT pg_current_xact_id()")
                if r.random() < 0.02:
                    connection.execute("VACUUM (FREEZE) eo.log_%d" % r.randrange(8))
        if r.random() < 0.3:
            rig.server.kill_all()
            rig.server.start()
        time.sleep(r.uniform(0.5, 1.5))
        freeze(rig.server)
        return 1
    return run


@fault("transactions", alone=True)
def wraparound(directory, seed, r):
    """Transaction ids pass the middle of their circle, and its end."""
    with Rig(os.path.join(directory, "rig"), seed).used() as rig:
        for number, edge in enumerate(EDGES, 1):
            go_to(rig, edge - r.randrange(100, 1500))
            rig.run(number, Fault("transactions", "pass_edge", pass_edge(edge), ("calm", "nested")), r)
            if next_xid(rig.server) <= edge:
                raise Broken("the transaction ids are still at %d" % next_xid(rig.server))
        return Counter(rig.totals(), worst=rig.worst)
