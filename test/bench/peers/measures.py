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

from lab import CLIENTS, LOOK_SECONDS, PROBES, processor_seconds, wait

LIVE_SECONDS = 120      # for a relay to begin; JVMs need some
WARM_RATE = 1000        # before the rates whose latencies are measured
QUIET_SECONDS = 20      # without anything new, what is missing is lost
CATCH_UP_SECONDS = 120
CHECK_SECONDS = 5       # asking costs the server time that is measured


class Scale:
    """How much is measured."""

    def __init__(self, quick, backlog, limit):
        self.transactions = 2000 if quick else 20000
        self.seconds = 4 if quick else 10
        self.warm = 1 if quick else 8       # relays in Java compile themselves meanwhile
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


PGBENCH = """BEGIN;
INSERT INTO bench.orders (customer, total) VALUES (:key, 12.5);
{statement}
END;
"""


def pgbench(lab, scale, statement):
    """Returns (us on the clock, us of the server's processors, WAL bytes) of a transaction."""
    path = os.path.join(lab.directory, "transaction.pgbench")
    with open(path, "w") as f:
        f.write(PGBENCH.format(statement=statement + ";" if statement else ""))
    payload = lab.server.value("SELECT bench.payload(1)")
    command = ["pgbench", "--no-vacuum", "--client", "1", "--protocol", "prepared", "--file", path,
               "--define", "topic=" + lab.topic, "--define", "key=customer-1",
               "--define", "payload=" + payload, "--transactions", str(scale.transactions)]
    environment = dict(lab.server.environment, PGOPTIONS="-c synchronous_commit=off")
    cpu, wal = lab.processor_of_server(), lab.server.wal_position()
    out = lab.server.run(*command, env=environment, capture_output=True).stdout
    cpu, wal = lab.processor_of_server() - cpu, lab.server.wal_position() - wal
    latency = float(re.search(r"latency average = ([\d.]+) ms", out).group(1)) * 1e3
    return latency, cpu * 1e6 / scale.transactions, wal / scale.transactions


@measure(idle=True)
def cost(rig, peer, scale, idle):
    """what one event adds to a transaction that writes a row: time, processor, WAL"""
    with rig.lab(peer, idle) as lab:
        statements = {"without": "", "with": peer.write()}
        pgbench(lab, scale, peer.write())
        lab.server.execute("CHECKPOINT")
        turns = [{name: pgbench(lab, scale, statements[name]) for name in statements}
                 for _ in range(3)]
    clock, cpu, wal = (statistics.median(turn["with"][i] - turn["without"][i] for turn in turns)
                       for i in range(3))
    return {"commit_us": clock, "commit_cpu_us": cpu, "commit_wal": wal}


@measure(idle=True)
def throughput(rig, peer, scale, idle):
    """events/s into Kafka while ten clients commit as fast as they can"""
    most = 40000
    with rig.lab(peer, idle) as lab:
        lab.consume(PROBES + most * (scale.warm + scale.seconds))
        lab.start()
        lab.live(LIVE_SECONDS)
        arrived(lab, [lab.load(most, scale.warm).finish()], scale.limit, scale.quiet)
        before = lab.consumer.account()
        load = lab.load(most, scale.seconds, PROBES + most * scale.warm)
        wait(lambda: load.process.poll() is not None, scale.seconds + 60, "the load to end")
        after, ended = lab.consumer.account(), time.time()
        load.finish()
        seconds = ended - min(us for us in load.sent_at if us) / 1e6
        lab.relay.check()
    return {"throughput": (after.distinct - before.distinct) / seconds, "written": load.rate}


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
    first_id = loads[-1].first_id + len(loads[-1].sent_at)
    loads.append(lab.load(rate, scale.seconds, first_id).finish())
    arrived(lab, loads, scale.limit, scale.quiet)
    lab.relay.check()
    cpu, wal = spent.since()
    return {"came_to_%d" % rate: loads[-1].rate, "cpu_%d" % rate: cpu * 1e6 / loads[-1].committed,
            "wal_%d" % rate: wal / loads[-1].committed}


@measure(idle=True)
def latency(rig, peer, scale, idle):
    """from commit to a consumer of Kafka, at 100, 1,000 and 5,000 events/s"""
    result = {}
    with rig.lab(peer, idle) as lab:
        lab.consume(PROBES + scale.warm * WARM_RATE + scale.seconds * sum(scale.rates))
        lab.start()
        lab.live(LIVE_SECONDS)
        loads = [lab.load(WARM_RATE, scale.warm).finish()]
        arrived(lab, loads, scale.limit, scale.quiet)
        for rate in scale.rates:
            result.update(at_rate(lab, scale, loads, rate))
        received = lab.consumer.close()
    for rate, load in zip(scale.rates, loads[1:]):
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
            "filled": count / filled, "relay_cpu": relay * 1e6 / done if lab.relay.pids() else None,
            "server_cpu": cpu * 1e6 / done, "total_cpu": (relay + cpu) * 1e6 / done,
            "relay_wal": wal / done, "disk": disk, "disk_before": peak / count,
            "drain_duplicates": account.duplicates, "drain_disordered": account.disordered}


def missing(load, received):
    """Events of which the application knows that they are committed, and that never came."""
    return sum(1 for number, committed in enumerate(load.committed_at)
               if committed and not received[load.first_id + number])


@measure(idle=False)
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
            rig.kafka.start()
            back = time.time()
        account = arrived(lab, [healthy, without], CATCH_UP_SECONDS, 4 * scale.quiet)
        lab.relay.check()
        received = lab.consumer.close()
    lost = missing(healthy, received) + missing(without, received)
    return {"healthy_p99": healthy.p99, "down_p99": without.p99, "down_lost": lost,
            "down_duplicates": account.duplicates, "down_disordered": account.disordered,
            "down_resume_s": None if lost else max(account.last_us / 1e6 - back, 0)}


def resumed(load, received, killed):
    """Seconds to the receipt of the first event that was sent when the relay was dead already."""
    after = [received[load.first_id + number] for number, sent in enumerate(load.sent_at)
             if sent > killed and received[load.first_id + number]]
    return (min(after) - killed) / 1e6 if after else None


def one_kill(rig, peer, scale, part):
    rate, seconds = 500, 3 * scale.seconds
    with rig.lab(peer) as lab:
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


@measure(idle=False)
def kill(rig, peer, scale, idle):
    """the relay killed with kill -9 at 500 events/s: time to resume, duplicates, losses"""
    result = {}
    for part in peer.parts:
        with part_of(result):
            result.update(one_kill(rig, peer, scale, part))
    return result


# For the head of the section.
CONDITIONS = ("%d clients with a connection each; a statement is a transaction, save in `cost`"
              % CLIENTS)
