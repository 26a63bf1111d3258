"""
measures

What is measured of each peer, the same for all.  Each measure is a function of a
Rig, a peer, a Scale and whether a transaction is idle meanwhile; it returns
{metric: number or None}.
"""
import array
import contextlib
import os
import re
import statistics
import time
import traceback

from cost import PROBE
from lab import CLIENTS, LOOK_SECONDS, PROBES, processor_seconds, wait

LIVE_SECONDS = 120      # for a relay to begin; JVMs need some
MOST_RATE = 40000       # more than ten clients can commit
WARM_TURNS = 6          # of load, at most, until the broker hardly compiles itself any more
COMPILING = 0.05        # of a processor
QUIET_SECONDS = 20      # without anything new, what is missing is lost
CATCH_UP_SECONDS = 120
CHECK_SECONDS = 5       # asking costs the server time that is measured


class Scale:
    """How much is measured."""

    def __init__(self, quick, backlog, limit):
        self.transactions = 500         # without and with an event in turn, so many each time
        self.turns = 4 if quick else 20
        self.seconds = 3 if quick else 6
        self.warm = 1 if quick else 6       # a turn of warming up, as relays in Java need as well
        self.rates = (100, 1000, 5000)
        self.backlog = backlog or (20000 if quick else 5000000)
        self.limit = limit or (60 if quick else 600)
        self.fill = self.limit / 2
        self.settle = 3 if quick else 60
        self.quiet = 5 if quick else QUIET_SECONDS


class Measure:
    def __init__(self, function, idle, long):
        self.name = function.__name__
        self.function = function
        self.idle = idle
        self.long = long
        self.help = function.__doc__.strip().splitlines()[0]


MEASURES = []


def measure(idle, long=False):
    """
    Registers a measure.  `idle` says whether to take it with an idle transaction
    too, `long` that a round is so long that there are fewer.
    """
    def register(function):
        MEASURES.append(Measure(function, idle, long))
        return function
    return register


TRANSACTIONS = """
CREATE PROCEDURE bench.transactions_{name}(count bigint, event_topic text) LANGUAGE plpgsql AS $$
DECLARE
	event_key text;
	event_payload text;
BEGIN
	FOR number IN 1..count LOOP
		event_key := bench.key(number);
		event_payload := bench.payload(number);
		INSERT INTO bench.orders (customer, total) VALUES (event_key, 12.5);
		{statement};
		COMMIT;
	END LOOP;
END $$
"""


def in_procedure(statement):
    """As a statement of PL/pgSQL, with variables of that."""
    statement = re.sub(r"^SELECT\b", "PERFORM", statement)
    return re.sub(r"(?<!:):(topic|key|payload)\b", r"event_\1", statement)


def turn(name, scale, topic):
    """Lines of psql for some transactions of a procedure: they print its name, seconds, processor time in ns, bytes of WAL."""
    wal = "SELECT pg_current_wal_insert_lsn() AS wal%d \\gset"
    return [PROBE.format(0), wal % 0,
            "CALL bench.transactions_%s(%d, '%s');" % (name, scale.transactions, topic),
            PROBE.format(1), wal % 1,
            "SELECT '%s', :at1 - :at0, :cpu1 - :cpu0, :'wal1'::pg_lsn - :'wal0'::pg_lsn;" % name]


@measure(idle=True)
def cost(rig, peer, scale, idle):
    """what one event adds to a transaction that writes a row: time, processor, WAL"""
    names = ("without", "with")
    with rig.lab(peer, idle) as lab:
        for name, statement in zip(names, ("NULL", in_procedure(peer.write()))):
            lab.server.execute(TRANSACTIONS.format(name=name, statement=statement))
        lab.server.execute("CHECKPOINT")
        turns = [line for _ in range(1 + scale.turns) for name in names for line in turn(name, scale, lab.topic)]
        taken = {name: [] for name in names}
        for line in lab.server.psql("\n".join(["SET synchronous_commit = off;", *turns])):
            name, *values = line.split("|")
            taken[name].append([float(value) / scale.transactions for value in values])
    clock, cpu, wal = (statistics.median(one[i] - other[i] for one, other in zip(
        taken["with"][1:], taken["without"][1:])) for i in range(3))
    return {"commit_us": clock * 1e6, "commit_cpu_us": cpu / 1e3, "commit_wal": wal}


def percentiles(values):
    values = sorted(values)
    return tuple(values[min(len(values) - 1, int(len(values) * part))] / 1e3
                 for part in (0.5, 0.99, 0.999))


def latencies(load, received):
    """From the commit to the receipt, in us."""
    return array.array("q", (
        received[load.first_id + number] - committed
        for number, committed in enumerate(load.committed_at)
        if committed and received[load.first_id + number]))


def arrived(lab, loads, seconds, quiet):
    """Waits until all that was committed has come, or nothing comes for `quiet` seconds."""
    committed = sum(load.committed for load in loads)
    deadline = time.monotonic() + seconds
    account, since = lab.consumer.account(), time.monotonic()
    while account.distinct < committed + lab.probes and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        now = lab.consumer.account()
        if now.distinct != account.distinct:
            since = time.monotonic()
        elif time.monotonic() - since > quiet:
            break
        account = now
    return lab.consumer.account()


@contextlib.contextmanager
def part_of(result):
    """What fails in it is told, in `result`; the other parts are measured all the same."""
    try:
        yield
    except Exception as error:      # pylint: disable=broad-except
        traceback.print_exc()
        result.setdefault("failures", []).append(str(error))


class Spent:
    """Processor time of the server and the relay together, and WAL, from now on."""

    def __init__(self, lab):
        self.lab = lab
        self.cpu, self.wal = self.now()

    def now(self):
        return (self.lab.processor_of_server() + self.lab.processor_of_relay(),
                self.lab.server.wal_position())

    def since(self):
        cpu, wal = self.now()
        return cpu - self.cpu, wal - self.wal


def at_rate(lab, scale, loads, rate):
    """A load after those before it, until all has come; what it took of processors and WAL."""
    spent = Spent(lab)
    loads.append(lab.load(rate, scale.seconds, next_id(loads)).finish())
    arrived(lab, loads, scale.limit, scale.quiet)
    lab.relay.check()
    cpu, wal = spent.since()
    return {"came_to_%d" % rate: loads[-1].rate, "cpu_%d" % rate: cpu * 1e6 / loads[-1].committed,
            "wal_%d" % rate: wal / loads[-1].committed}


def next_id(loads):
    return loads[-1].first_id + len(loads[-1].sent_at) if loads else PROBES


def warm_up(lab, scale):
    """
    Loads until the broker has compiled what this peer's messages need of it, or
    who comes first in a run pays for all: that takes a third of a processor.
    """
    loads = []
    while len(loads) < WARM_TURNS:
        begun, compiled = time.monotonic(), lab.rig.kafka.compiled()
        loads.append(lab.load(MOST_RATE, scale.warm, next_id(loads)).finish())
        arrived(lab, loads, scale.limit, scale.quiet)
        if lab.rig.kafka.compiled() - compiled < COMPILING * (time.monotonic() - begun):
            break
    return loads


def throughput(lab, scale, loads):
    """What comes while the clients commit as fast as they can."""
    before = lab.consumer.account()
    load = lab.load(MOST_RATE, scale.seconds, next_id(loads))
    loads.append(load)
    wait(lambda: load.process.poll() is not None, scale.seconds + 60, "the load to end")
    after, ended = lab.consumer.account(), time.time()
    load.finish()
    seconds = ended - min(us for us in load.sent_at if us) / 1e6
    lab.relay.check()
    return {"throughput": (after.distinct - before.distinct) / seconds, "written": load.rate}


@measure(idle=True)
def latency(rig, peer, scale, idle):
    """from commit to a consumer of Kafka, at 100, 1,000 and 5,000 events/s; and as many as there can be"""
    result = {}
    with rig.lab(peer, idle) as lab:
        lab.consume(PROBES + scale.seconds * (sum(scale.rates) + MOST_RATE) + WARM_TURNS * scale.warm * MOST_RATE)
        lab.start()
        lab.live(LIVE_SECONDS)
        loads = warm_up(lab, scale)
        measured = len(loads)
        for rate in scale.rates:
            result.update(at_rate(lab, scale, loads, rate))
        with part_of(result):
            result.update(throughput(lab, scale, loads))
        arrived(lab, loads, scale.limit, scale.quiet)
        account, received = lab.consumer.account(), lab.consumer.close()
    result.update(live_duplicates=account.duplicates, live_disordered=account.disordered)
    for rate, load in zip(scale.rates, loads[measured:]):
        with part_of(result):
            lost = missing(load, received)
            if lost:
                raise RuntimeError("at %d/s %d of %d events have not come" % (rate, lost, load.committed))
            result.update(zip(("p50_%d" % rate, "p99_%d" % rate, "p999_%d" % rate),
                              percentiles(latencies(load, received))))
    return result


def wait_drained(lab, count, limit):
    """
    Returns the last account: when all has come, or the time is over, or a
    quarter of it if the rest cannot come in time.
    """
    begun = time.monotonic()
    checked = 0
    while True:
        account, passed = lab.consumer.account(), time.monotonic() - begun
        hopeless = passed > limit / 4 and account.distinct * limit < count * passed
        if account.distinct >= count or passed > limit or hopeless:
            return account
        if passed - checked > CHECK_SECONDS:
            lab.relay.check()
            checked = passed
        time.sleep(LOOK_SECONDS)


def settle(lab, seconds):
    """Life goes on with an event a second, so that there is an occasion to clean up."""
    for _ in range(seconds):
        lab.probe()
        time.sleep(1)
    lab.server.execute("CHECKPOINT")


@measure(idle=True, long=True)
def drain(rig, peer, scale, idle):
    """a backlog to Kafka: events/s, processor, WAL, and the disk that is taken afterwards"""
    with rig.lab(peer, idle) as lab:
        size = lab.server.size()
        begun = time.monotonic()
        count = lab.fill(scale.backlog, 1, scale.fill)
        filled = time.monotonic() - begun
        peak = lab.server.size() - size + peer.held(lab)
        lab.consume(count)
        # What has run while the backlog came in.
        helpers = sum(processor_seconds(one.pids()) for one in lab.helpers)
        cpu, wal, begun = lab.processor_of_server(), lab.server.wal_position(), time.time()
        lab.start()
        account = wait_drained(lab, count, scale.limit)
        outside = bool(lab.relay.pids())
        relay = lab.processor_of_relay() - helpers
        cpu, wal = lab.processor_of_server() - cpu, lab.server.wal_position() - wal
        done = max(account.distinct, 1)
        seconds = account.last_us / 1e6 - begun if account.distinct == count else time.time() - begun
        disk = None
        if account.distinct == count:
            settle(lab, scale.settle)
            disk = (lab.server.size() - size + peer.held(lab)) / count
    return {"drain": account.distinct / seconds, "backlog": count, "drained": account.distinct,
            "first_s": account.first_us / 1e6 - begun if account.distinct else None,
            "filled": count / filled, "relay_cpu": relay * 1e6 / done if outside else None,
            "server_cpu": cpu * 1e6 / done, "total_cpu": (relay + cpu) * 1e6 / done,
            "relay_wal": wal / done, "disk": disk, "disk_before": peak / count,
            "drain_duplicates": account.duplicates, "drain_disordered": account.disordered}


def missing(load, received):
    """Events of which the application knows that they are committed, and that never came."""
    return sum(1 for number, committed in enumerate(load.committed_at)
               if committed and not received[load.first_id + number])


def resumed(load, received, killed):
    """Seconds to the receipt of the first event that was sent when the relay was dead already."""
    after = [received[load.first_id + number] for number, sent in enumerate(load.sent_at)
             if sent > killed and received[load.first_id + number]]
    return (min(after) - killed) / 1e6 if after else None


def one_kill(rig, peer, scale, part, idle):
    rate, seconds = 500, 3 * scale.seconds
    with rig.lab(peer, idle) as lab:
        lab.consume(PROBES + rate * seconds)
        lab.start()
        lab.live(LIVE_SECONDS)
        load = lab.load(rate, seconds)
        begun = time.monotonic()
        wait(lambda: time.monotonic() - begun > scale.seconds / 2, seconds, "the load to run")
        lab.relay.kill(part)
        killed = time.time() * 1e6
        lab.relay.revive(part)
        load.finish()
        account = arrived(lab, [load], CATCH_UP_SECONDS, 4 * scale.quiet)
        lab.relay.check()
        received = lab.consumer.close()
    worst = max(latencies(load, received), default=None)
    return {"resume_s_" + part: resumed(load, received, killed),
            "worst_ms_" + part: worst / 1e3 if worst is not None else None,
            "duplicates_" + part: account.duplicates, "lost_" + part: missing(load, received),
            "disordered_" + part: account.disordered, "failed_" + part: load.failed}


@measure(idle=True)
def kill(rig, peer, scale, idle):
    """the relay killed with kill -9 at 500 events/s: time to resume, duplicates, losses"""
    result = {}
    for part in peer.parts:
        with part_of(result):
            result.update(one_kill(rig, peer, scale, part, idle))
    return result


@measure(idle=True)
def down(rig, peer, scale, idle):
    """commits' p99 with Kafka stopped, against before; what comes after it is back"""
    rate = 1000
    events = rate * scale.seconds
    with rig.lab(peer, idle) as lab:
        lab.consume(PROBES + 2 * events)
        lab.start()
        lab.live(LIVE_SECONDS)
        healthy = lab.load(rate, scale.seconds).finish()
        rig.kafka.stop()
        try:
            without = lab.load(rate, scale.seconds, PROBES + events).finish()
        finally:
            rig.start_kafka()
            back = time.time()
        account = arrived(lab, [healthy, without], CATCH_UP_SECONDS, 4 * scale.quiet)
        lab.relay.check()
        received = lab.consumer.close()
    lost = missing(healthy, received) + missing(without, received)
    return {"healthy_p99": healthy.p99, "down_p99": without.p99, "down_lost": lost,
            "down_duplicates": account.duplicates, "down_disordered": account.disordered,
            "down_resume_s": None if lost else max(account.last_us / 1e6 - back, 0)}


# For the head of the section.
CONDITIONS = ("%d clients with a connection each; a statement is a transaction, save in `cost`"
              % CLIENTS)
