"""
heirs

Databases that come from another one: what a server published that takes the
place of another, or is a copy of it, belongs together with what the other had
published before.
"""
import json
import os
import time
from collections import Counter, deque
from contextlib import ExitStack

from application import Load
from brokers import Tail
from consumers import Consumer, File, Kafka
from rig import CONSUMERS, SETTLE_SECONDS, Broken, Rig
from server import Server, wait_until

EPOCH_BITS = 44
SHARED = "shared"
ADOPTION = ("55000",)       # who pulls is told so until the database is adopted

# All of the log stays, since it tells which events a database has had.
KEEP = {"eo_outbox.retention": "1d", "wal_keep_size": "512MB"}


class Family:
    """Rigs and servers of one test, all ended at its end, however that comes."""

    def __init__(self, directory, seed, r):
        self.directory = directory
        self.seed = seed
        self.r = r
        self.stack = ExitStack()
        self.rigs = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def path(self, name):
        return os.path.join(self.directory, name)

    def origin(self, settings=(), options="{}", consumers=("file",)):
        """With the load on it; the options are the file subscription's."""
        rig = Origin(self.path("t"), self.seed, consumers, settings=settings)
        self.adopt(rig)
        self.stack.callback(end, rig.server)
        rig.set_options(self.r)
        for name, value in KEEP.items():
            rig.server.query_nothing("ALTER SYSTEM SET %s = '%s'" % (name, value))
        rig.server.query_nothing("SELECT pg_reload_conf()")
        rig.server.query_nothing("SELECT eo.unsubscribe('file'), eo.subscribe('file', server => 'file', options => %s)", options)
        rig.cycle = 1
        rig.load.begin(1, synchronous=self.r.choice((0.0, 0.5, 1.0)))
        return rig

    def heir(self, origin, server, cycle=1):
        heir = Heir(self.path("u"), self.seed, origin, server)
        heir.cycle = cycle
        self.adopt(heir)
        return heir

    def adopt(self, rig):
        self.rigs.append(rig)
        self.stack.callback(shut, rig)

    def cluster(self, start=True):
        """An empty one."""
        server = Server(self.path("other"), settings=KEEP)
        server.initialise()
        self.stack.callback(end, server)
        if start:
            server.start()
        return server

    def base_backup(self, rig, name, *options):
        server = rig.server.base_backup(self.path(name), *options)
        self.stack.callback(end, server)
        return server

    def standby(self, rig, name="standby", settings=()):
        """Replicates from it when this returns."""
        server = self.base_backup(rig, name, "--write-recovery-conf")
        server.configure(dict(settings))
        follow(server, rig.server)
        return server

    def totals(self):
        counts = sum((rig.totals() for rig in self.rigs), Counter())
        counts["worst"] = max((rig.worst for rig in self.rigs if rig.worst is not None), default=None)
        return counts


def shut(rig):
    for load in {rig.load, *getattr(rig, "former", ())}:
        load.end()
    for consumer in (*rig.consumers, *getattr(rig, "released", ())):
        consumer.stop()


def end(server):
    if server.postmaster():
        server.kill_all()


def follow(standby, primary):
    standby.standby = True
    standby.start()
    wait_until("the standby follows", lambda: primary.query("SELECT FROM pg_stat_replication WHERE state = 'streaming'"))


def promote(server):
    server.query_nothing("SELECT pg_promote(false)")    # a conflict with recovery may end who waits
    server.standby = False
    server.wait_ready()


def events_of(server):
    """{seq: event_id} of all that the log of a database holds."""
    return dict(server.query("SELECT seq, event_id::text FROM eo.events"))


def last_seq(server):
    return server.one("SELECT last_seq FROM eo.log_status()")


def consumed(server):
    return server.one("SELECT count(*) FROM load.consumed")


def state_of(server, name="file"):
    return server.one("SELECT concat_ws(': ', state, last_error) FROM eo.subscriptions WHERE name = %s", name)


def wait_state(server, *starts, name="file", seconds=60):
    try:
        wait_until("the subscription is %s" % " or ".join(starts),
                   lambda: any(part in state_of(server, name) for part in starts), seconds)
    except TimeoutError as error:
        raise Broken("%s, but %s" % (error, state_of(server, name))) from None


def cursor_of(server, name):
    """Up to where a database believes that it has published, so far as it has written that down."""
    return server.one("SELECT coalesce(c.seq, s.start_seq) FROM eo.subscription AS s LEFT JOIN eo.cursor AS c ON c.subscription = s.id"
                      " WHERE s.name = %s", name)


def source_of(server):
    """By which a consumer tells what a database publishes."""
    return server.one("SELECT 'urn:eo-outbox:' || system_identifier || '/' || d.oid FROM pg_control_system(), pg_database AS d"
                      " WHERE datname = current_database()")


def published(rig):
    """All that was ever written to the file of a rig."""
    return [File.parse(line) for line in Tail(rig.consumers[0].path).lines()]


def require_events(what, arrivals, seqs):
    """Those came, and no others."""
    came, wanted = {a.seq for a in arrivals}, set(seqs)
    if came != wanted:
        raise Broken("%s: %d events are lacking, as %s, and %d should not be there, as %s" % (
            what, len(wanted - came), sorted(wanted - came)[:5], len(came - wanted), sorted(came - wanted)[:5]))


def require_no_attempt(server):
    """No publisher was ever in want of something there."""
    tried = server.query("SELECT name, restarts, last_error FROM eo.subscriptions WHERE restarts > 0 OR last_error <> ''"
                         " OR published > 0 OR publisher_pid IS NOT NULL")
    if tried:
        raise Broken("it has tried to publish before it was adopted: %s" % tried)


def require_order(arrivals):
    """Whoever published them."""
    last = {}
    for a in arrivals:
        if a.seq <= last.get(a.stream, 0):
            raise Broken("event %d came after %d" % (a.seq, last[a.stream]))
        last[a.stream] = a.seq


def require_same(known, arrivals):
    """An event's number and id belong together, for ever."""
    changed = [a.seq for a in arrivals if known.get(a.seq, a.event_id) != a.event_id]
    if changed:
        raise Broken("%d numbers belong to other events now: %s" % (len(changed), changed[:10]))


class Origin(Rig):
    """Its server may be replaced by one that lacks the latest of what was published."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.former = []            # loads of servers that are no more
        self.divergence = None      # may be there, if it is a number: the epoch of what may be there at most
        self.followed = False
        self.released = []          # consumers that are asked no more
        self.early = []             # what was published before it was committed where it was made
        self.complaints = []        # about servers that are no more

    def follow(self, server, name, divergence):
        """From now on that one is the truth; what it lacks may be published up to that epoch."""
        for consumer in self.consumers:     # who has asked the server that made them: the new one need not have them
            self.early += [name for name in consumer.phantoms if name.startswith(self.load.name + ".")]
        self.complaints += self.server.log.complaints(self.looked_at, self.server.expected)
        self.server = server
        self.looked_at = (0, 0, 0)          # what it has done so far belongs to this as well
        for one in (*self.consumers, *self.checkers):
            one.server = server
        self.former.append(self.load)
        directory = os.path.join(self.directory, name)
        os.makedirs(directory)
        self.load = Load(server, directory, self.seed, name)
        self.name = name
        self.divergence = divergence
        self.followed = True
        self.healed()

    def settle(self, part=""):
        super().settle(part)
        if self.early:
            raise Broken("%d events were published before they were committed: %s" % (len(self.early), self.early[:5]))
        if self.complaints:
            raise Broken("where it was before, " + "\n".join(self.complaints))
        for consumer in self.consumers[:-1] if self.followed else ():   # the last one pulls
            self.set_divergence_aside(consumer)

    def reach(self, consumer):
        """Waits until an event of now has come there, and with it all that was published before it, by whomever."""
        marker = "%s.marker.%d.now" % (self.name, self.cycle)
        self.server.query_nothing("SELECT load.mark(%s, %s)", marker, self.cycle)
        self.wait_arrival(consumer, marker, time.monotonic() + SETTLE_SECONDS)

    def release(self, consumer):
        """Its subscription has stopped for good."""
        self.consumers.remove(consumer)
        self.checkers = [checker for checker in self.checkers if checker.consumer is not consumer]
        self.released.append(consumer)

    def set_divergence_aside(self, consumer):
        known = events_of(self.server)
        arrivals = consumer.take()
        require_same(known, arrivals)
        require_order(arrivals)
        divergent = [a for a in arrivals if a.seq not in known]
        names = {a.claim for a in divergent}
        late = [a for a in divergent if self.divergence is None or a.seq >> EPOCH_BITS > self.divergence]
        if late:
            raise Broken("%d events were published that the new server does not have: %s" % (len(late), late[:3]))
        self.counts["divergent"] += len(divergent)
        consumer.arrivals[:0] = [a for a in arrivals if a.seq in known]
        consumer.phantoms = [name for name in consumer.phantoms if name not in names]


class SharedKafka(Kafka):
    """
    What its database publishes, set apart from what copies of that do: theirs has
    another source, or at least a higher epoch.
    """

    def __init__(self, server, name, directory):
        super().__init__(server, name, directory)
        self.read = []              # (source, arrival) of all that was ever there
        self.others = deque()       # those of copies, until one takes them

    def subscribe(self):
        super().subscribe()
        self.source = source_of(self.server)

    def is_own(self, source, arrival):
        return source == self.source and arrival.seq >> EPOCH_BITS == 0

    def own(self):
        return [arrival for source, arrival in self.read if self.is_own(source, arrival)]

    def news(self):
        lines = self.broker.tail.lines()
        news = [(dict(json.loads(line)["headers"])["ce_source"], self.parse(line)) for line in lines]
        self.read += news
        self.others += [one for one in news if not self.is_own(*one)]
        return [arrival for source, arrival in news if self.is_own(source, arrival)]


CONSUMERS[SHARED] = SharedKafka


def require_heritage(server, origin, news, boundary):
    """
    What came of a database's log in all: up to there it was its origin that
    published it, after that it was itself, and neither did anything else.
    """
    known = events_of(server)
    before = [a for a in origin if a.seq <= boundary]
    require_same(known, before + news)
    require_events("up to the copy's cursor, published by its origin", before, [seq for seq in known if seq <= boundary])
    require_events("after the copy's cursor, published by the copy", news, [seq for seq in known if seq > boundary])
    return before + news


class HeirFile(File):
    """
    A copy's own file.  What the copy's cursor says was published before is in the
    origin's; all that comes after it in the log must be here, and only that.
    """

    def __init__(self, server, name, directory, origin):
        super().__init__(server, name, directory)
        self.cursor = cursor_of(server, name)
        self.heritage = published(origin)       # what comes there later the cursor cannot have known

    def take(self):
        return require_heritage(self.server, self.heritage, super().take(), self.cursor)


class HeirKafka(Consumer):
    """
    What a copy publishes into the Kafka of its origin.  To Kafka, a copy with the
    same source is its origin, and goes on after what that had published last.
    """

    def __init__(self, server, shared, inherited):
        super().__init__(server, shared.name)
        self.shared = shared
        self.inherited = inherited
        self.cursor = cursor_of(server, self.name)
        self.source = source_of(server)
        self.strangers = []

    def news(self):
        found = []
        while self.shared.others:
            source, arrival = self.shared.others.popleft()
            found.append(arrival)
            if source != self.source:
                self.strangers.append((source, arrival.seq))
        return found

    def boundary(self):
        if self.source != self.shared.source:
            return self.cursor
        return max(self.cursor, min(self.inherited, max((a.seq for a in self.shared.own()), default=0)))

    def take(self):
        if self.strangers:
            raise Broken("%d events have another source than %s: %s" % (len(self.strangers), self.source, self.strangers[:5]))
        require_order([arrival for source, arrival in self.shared.read if source == self.source])
        return require_heritage(self.server, self.shared.own(), super().take(), self.boundary())


class Heir(Rig):
    """A database that is a copy of an origin's, from the time on at which it can be used."""

    def __init__(self, directory, seed, origin, server):
        os.makedirs(directory)
        self.origin = origin
        self.pulled = consumed(server)
        self.inherited = max(events_of(server), default=0)      # the last that was made before the copy was
        self.shared = [HeirKafka(server, one, self.inherited) for one in origin.consumers if one.name == SHARED]
        self.attach(server, directory, seed, "u", [HeirFile(server, "file", directory, origin), *self.shared])
        self.file = self.consumers[0]
        self.consumers[-1].excused += ADOPTION

    def use_own_file(self):
        self.server.query_nothing("ALTER SERVER file OPTIONS (SET path '%s')" % self.file.path)

    def own_events(self):
        """The numbers of those that were made here."""
        return {seq for seq in events_of(self.server) if seq > self.inherited}

    def require_silence(self):
        """It has published nothing, and not tried to: the copy waits for eo.adopt()."""
        wait_state(self.server, "waiting for adoption")
        leaked = sorted(self.own_events() & {a.seq for a in published(self.origin)})
        if leaked or os.path.exists(self.file.path):
            raise Broken("a copy has published before it was adopted: %s" % (leaked[:10] or self.file.path))
        leaked = [a.seq for one in self.shared for source, a in one.shared.read if not one.shared.is_own(source, a)]
        if leaked:
            raise Broken("a copy has published to Kafka before it was adopted: %s" % leaked[:10])
        require_no_attempt(self.server)
        if consumed(self.server) != self.pulled:
            raise Broken("a copy could be pulled from before it was adopted")

    def begin_afresh(self):
        """It has the state, but nothing of the log that led to it."""
        self.server.query_nothing("TRUNCATE load.consumed")
        self.pulled = 0
        for checker in self.checkers:
            checker.begin_afresh()
