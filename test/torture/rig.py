"""
rig

What a cycle acts on: a server, the load, and those who receive what it makes.
"""
import itertools
import os
import subprocess
import time
from collections import Counter
from contextlib import contextmanager, nullcontext

from application import Load
from checker import Checker, Ledger, check_database
from consumers import KAFKA, File, Kafka, KafkaAtLeastOnce, Pull
from server import HERE, POLL, Server, wait_until, zombie
from watch import Watch

SETTLE_SECONDS = 30     # after a fault, in which the lag must be small again
LAG_SECONDS = 1         # which is that small
COMMIT_SECONDS = 5      # beside a broker that starts on the same two processors
CONSUMERS = {"file": File, "kafka": Kafka}
ORPHAN_SECONDS = 10
WORKER_SECONDS = 10     # until one that was ended is there again: five, and the start
SOON = ("0", "2s")      # is the log's space given back
GIVE_BACK_SECONDS = 30
RSS_LIMIT_KB = 128 * 1024
FD_LIMIT = 60
AGAIN_AT_MOST = 20      # more than are acknowledged


class Broken(Exception):
    """A promise was not kept."""


class Rig:
    kinds = CONSUMERS
    attached = []               # all of a cycle, or of several that share one

    def __init__(self, directory, seed, consumers=("file",), settings=(), name="t", initdb=()):
        os.makedirs(directory)
        server = Server(os.path.join(directory, "server"), settings=settings)
        server.create(*initdb)
        server.run("psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", os.path.join(HERE, "schema.sql"),
                   stdout=subprocess.DEVNULL)
        self.attach(server, directory, seed, name, [self.kinds[one](server, one, directory) for one in consumers])
        for consumer in self.consumers:
            consumer.subscribe()

    def attach(self, server, directory, seed, name, consumers):
        """Begins to watch and to load a server that runs."""
        Rig.attached.append(self)
        self.server = server
        self.directory = directory
        self.seed = seed
        self.name = name
        self.cycle = 0
        self.group = None       # of the fault
        self.turn = 0           # of this cycle's fault: its first, second ...
        self.counts = Counter()
        self.worst = None           # seconds from the end of a fault until the lag was small
        self.healed_at = None
        self.looked_at = server.log.place()
        self.watch = Watch()
        self.leftovers = []         # connections to be closed after the check
        self.consumers = [*consumers, Pull(server, "pull")]
        for consumer in self.consumers:
            consumer.start()
        ledger = Ledger()
        self.checkers = [Checker(server, consumer, ledger) for consumer in self.consumers]
        self.load = Load(server, directory, seed, name)

    def close(self, keep=False):
        """What it has written goes, unless that is wanted."""
        self.load.end()
        for consumer in self.consumers:
            consumer.stop()
        if keep:
            self.server.stop()
        else:
            self.server.remove()

    @contextmanager
    def used(self):
        """As long as that lasts; its logs stay if it fails."""
        try:
            yield self
        except BaseException:
            self.close(keep=True)
            raise
        self.close()

    # ---- a cycle -------------------------------------------------------------

    def options(self, r):
        """What a user may have set, another way each time."""
        return {
            "eo_outbox.segment_size": r.choice(("1MB", "4MB", "64MB")),
            "eo_outbox.segment_age": r.choice(("1s", "1d")),
            "eo_outbox.retention": r.choice(SOON),
            "eo_outbox.batch_events": r.choice(("1", "50", "2000")),
            "eo_outbox.batch_bytes": r.choice(("64kB", "1MB")),
            # fewer would wait for the disk too often to be done in time
            "eo_outbox.max_in_flight": r.choice(("100", "500", "50000")),
            "eo_outbox.buffer_memory": r.choice(("64kB", "8MB")),
            "wal_writer_delay": r.choice(("10ms", "200ms", "10s")),
            "commit_delay": r.choice(("0", "1000")),
            "full_page_writes": r.choice(("on", "on", "off")),
        }

    def set_options(self, r):
        for name, value in self.options(r).items():
            self.server.query_nothing("ALTER SYSTEM SET %s = '%s'" % (name, value))
        self.server.query_nothing("SELECT pg_reload_conf()")

    def run(self, cycle, fault, r):
        """One cycle; raises Broken if a promise was not kept."""
        self.cycle = cycle
        self.group = fault.group
        self.set_options(r)
        self.load.begin(cycle, r.choice(fault.moods), r.choice((0.0, 0.5, 1.0)), fault.expected)
        try:
            time.sleep(r.uniform(0.2, 1.2))
            done = fault.run(self, r)
            if not done:
                raise Broken("nobody was there to be disturbed")
            self.counts["faults"] += done
            self.healed()
            time.sleep(r.uniform(0.1, 0.5))
        finally:
            unexpected = self.load.pause()
        try:
            self.check(unexpected, self.check_load())
        finally:
            while self.leftovers:
                self.leftovers.pop().close()

    def healed(self):
        """The fault is over: from now on it must recover."""
        self.server.wait_ready()
        self.healed_at = time.monotonic()

    def totals(self):
        return sum((checker.counts for checker in self.checkers), self.counts)

    def check(self, unexpected, broken=()):
        broken = [*broken, *("a client got: " + text for text in unexpected[:5])]
        try:
            self.settle()
        except (Broken, TimeoutError) as error:
            broken.append(str(error))       # what else is wrong tells why
        for checker in self.checkers:
            broken += checker.check(self.cycle)
        log = self.server.log
        broken += check_database(self.server, self.load, self.cycle, log.recovered_at() if log.crashes() > self.looked_at[1] else 0)
        broken += self.check_speed()
        broken += self.check_processes()
        broken += self.check_files()
        broken += self.check_log()
        broken += self.server.log.complaints(self.looked_at, self.server.expected)
        self.looked_at = self.server.log.place()
        self.counts["commits"] += len(self.load.acknowledged)
        if broken:
            raise Broken("\n".join(broken))

    def check_load(self):
        """Who is told to do it again, and again, has not been served."""
        done, again = len(self.load.acknowledged), sum(client.again for client in self.load.clients)
        if not done:
            return ["no transaction of the load was acknowledged"]
        if again > done + AGAIN_AT_MOST:
            return ["%d transactions must be done again, and %d were acknowledged" % (again, done)]
        return []

    def check_speed(self):
        """Recovery, and commits where nobody but a broker was disturbed: they do not wait for that."""
        broken = []
        if self.worst is not None and self.worst > SETTLE_SECONDS + LAG_SECONDS:
            broken.append("the lag was small again after %.1f s" % self.worst)
        slowest = max(client.slowest for client in self.load.clients)
        if self.group == "broker" and slowest > COMMIT_SECONDS:
            broken.append("a commit took %.1f s" % slowest)
        return broken

    def settle(self, part=""):
        """
        Waits until the lag is small again: until everybody has an event soon
        after its commit.  Once in a cycle for each part.
        """
        self.server.wait_ready()
        wait_until("clients end", lambda: not self.server.clients())
        until = (self.healed_at or time.monotonic()) + SETTLE_SECONDS
        for number in itertools.count():
            began = time.monotonic()
            marker = "%s.marker.%d%s.%d" % (self.name, self.cycle, part, number)
            self.server.query_nothing("SELECT load.mark(%s, %s)", marker, self.cycle)
            for consumer in self.consumers:
                self.wait_arrival(consumer, marker, until)
            now = time.monotonic()
            if now - began <= LAG_SECONDS:
                break
            if now > until:
                raise Broken("the lag is %.1f s" % (now - began))
        if self.healed_at is not None:
            self.worst = max(self.worst or 0, now - self.healed_at)
            self.healed_at = None

    def wait_arrival(self, consumer, marker, until):
        try:
            wait_until("an event reaches %s" % consumer.name, lambda: consumer.has(marker), max(1, until - time.monotonic()))
        except TimeoutError as error:
            state = self.server.query("SELECT name, state, lag_events, last_error FROM eo.subscriptions")
            raise Broken("%s; %s" % (error, state)) from None

    def broker(self, command, *arguments):
        """Starts, stops or kills the Kafka."""
        kafka = next(consumer for consumer in self.consumers if consumer.name == "kafka")
        with self.rest() if command == "start" else nullcontext():
            self.server.run(KAFKA, command, kafka.broker.directory, *arguments, stdout=subprocess.DEVNULL)

    @contextmanager
    def rest(self):
        """There is no load for that long: while a broker takes its time to start, say."""
        runs = self.load.running.is_set()
        self.load.pause()
        try:
            yield
        finally:
            if runs:
                self.load.resume()

    # ---- processes -----------------------------------------------------------

    def orphans(self):
        """{pid: command line} of what runs for the cluster and is none of its processes; it may be about to end."""
        until = time.monotonic() + ORPHAN_SECONDS
        while True:
            found = self.server.processes()
            family = self.server.descendants()
            left = {pid: command for pid, command in found.items()
                    if pid not in family and os.path.exists("/proc/%d" % pid) and not zombie(pid)}
            if not left or time.monotonic() > until:
                return left
            time.sleep(POLL)

    def check_files(self):
        """Nobody works: what is temporary is gone."""
        path = os.path.join(self.server.data, "base", "pgsql_tmp")
        return ["a temporary file is left: %s" % name for name in os.listdir(path)] if os.path.exists(path) else []

    def check_log(self):
        """It gives back its space, if that is to be soon and nobody looks into it."""
        if self.server.one("SHOW eo_outbox.retention") not in SOON or self.leftovers:
            return []
        try:
            wait_until("the log gives back its space", lambda: not self.held_segments(), GIVE_BACK_SECONDS)
        except TimeoutError as error:
            return [str(error)]
        return []

    def held_segments(self):
        return self.server.one("SELECT count(*) FROM eo.segment_status() WHERE first_seq > 0 AND NOT active")

    def files_of(self, pid):
        """How many it has open, without those of the database, which PostgreSQL opens and closes as it likes."""
        folder = "/proc/%d/fd" % pid
        files = [os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)]
        return sum(1 for name in files if not name.startswith(self.server.data))

    def workers(self):
        """{what it is: its process id, None if there is none}; the server starts one again that has ended, after some seconds."""
        def found():
            return {"relay": self.server.relay(), "launcher": self.server.launcher()}
        until = time.monotonic() + WORKER_SECONDS
        while not all(found().values()) and time.monotonic() < until:
            time.sleep(POLL)
        return found()

    def check_processes(self):
        broken = ["an orphan: %d %s" % orphan for orphan in self.orphans().items()]
        workers = self.workers()
        broken += ["there is no " + name for name, pid in workers.items() if pid is None]
        for pid in filter(None, (*workers.values(), *self.server.publishers())):
            try:
                with open("/proc/%d/status" % pid) as f:
                    rss = next(int(line.split()[1]) for line in f if line.startswith("RssAnon"))
                files = self.files_of(pid)
            except (FileNotFoundError, ProcessLookupError, StopIteration):
                continue        # it has ended, and another one begins
            if rss > RSS_LIMIT_KB or files > FD_LIMIT:
                broken.append("process %d has %d kB and %d files" % (pid, rss, files))
            self.watch.note(pid, rss, files)
            broken += self.watch.leaks(pid)
        return broken


class AtLeastOnceRig(Rig):
    """The guarantee that is the default: what may have been in Kafka already comes again, the very same."""

    kinds = dict(CONSUMERS, kafka=KafkaAtLeastOnce)
