"""
latency

What a transaction and its event wait for, at 1,000 transactions a second.
"""
import re
import statistics

from broker import compile_c, kafka
from rows import Result, row
from server import payload

CLIENTS = 10
PER_SECOND = 1000
SECONDS = 10
PAYLOAD = 250
LEAST_RATE = 0.95


class Times:
    """Milliseconds."""

    def __init__(self, p50, p99):
        self.p50 = p50
        self.p99 = p99

    def __str__(self):
        return "p50 %.2f p99 %.2f ms" % (self.p50, self.p99)


def median(samples):
    return Times(*(statistics.median(getattr(s, p) for s in samples) for p in ("p50", "p99")))


class Load:
    def __init__(self, bench):
        self.program = compile_c(bench.directory, "commit_latency", "libpq")

    def command(self, *subscription):
        return ["commit_latency", str(CLIENTS), str(PER_SECOND), str(SECONDS), "PAYLOAD",
                *subscription]

    def run(self, database, what, *subscription):
        arguments = self.command(*subscription)
        arguments[0] = self.program
        arguments[arguments.index("PAYLOAD")] = payload(PAYLOAD)
        out = database.run(*arguments, capture_output=True).stdout
        rate = float(re.search(r"rate (\d+)/s", out).group(1))
        if rate < PER_SECOND * LEAST_RATE:
            print("    the load came to %d/s only" % rate, flush=True)
        return Times(*(float(number) for number in re.search(
            what + r" p50 ([\d.]+) ms p99 ([\d.]+) ms", out).groups()))


def subscribe(database, broker, topic):
    database.execute(
        "CREATE SERVER latency_kafka FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '%s');"
        % broker.brokers)
    broker.tool("create", topic + ".orders", "1")
    database.execute("SELECT eo.subscribe('latency', server => 'latency_kafka',"
                     " options => '{\"topic_prefix\": \"%s.\"}')" % topic)
    caught_up(database)


def caught_up(database):
    """Waits until an event of now has come through."""
    database.execute("SELECT eo.enqueue('orders', '{}');"
                     "SELECT eo.wait_published('latency', eo.last_seq(), '2 min')")
    if database.value("SELECT lag_events FROM eo.subscriptions WHERE name = 'latency'") != "0":
        raise RuntimeError("events do not reach Kafka")


@row("ack", "kafka")
def ack(bench):
    """commit to Kafka's acknowledgement, against a bare producer's"""
    broker = kafka(bench)
    load = Load(bench)
    broker.tool("create", "latency-bare", "1")
    with bench.server.database("latency") as database:
        subscribe(database, broker, "ack")
        samples = bench.take_turns({
            "relay": lambda number: load.run(database, "acknowledged", "latency"),
            "bare": lambda number: Times(*broker.produce("latency-bare", "latency", PER_SECOND,
                                                         SECONDS, PAYLOAD))})
    ours, theirs = median(samples["relay"]), median(samples["bare"])
    results = []
    for p in ("p50", "p99"):
        above = statistics.median(getattr(a, p) - getattr(b, p)
                                  for a, b in zip(samples["relay"], samples["bare"]))
        results.append(Result(
            "%s from commit to Kafka's acknowledgement at %d transactions/s" % (p, PER_SECOND),
            "%.2f ms" % getattr(ours, p), "%.2f ms" % getattr(theirs, p), [],
            "<= 2 ms above", above <= 2,
            " ".join(load.command("latency")) + " against kafka_bare BROKERS TOPIC latency %d %d %d"
            % (PER_SECOND, SECONDS, PAYLOAD),
            ["%.2f ms above, the median of the rounds' differences" % above]))
    return results


@row("stopped", "kafka")
def stopped(bench):
    """commit latency while the broker is stopped, against healthy"""
    broker = kafka(bench)
    load = Load(bench)

    def healthy(number):
        caught_up(database)
        return load.run(database, "commit")

    def without(number):
        broker.stop()
        try:
            return load.run(database, "commit")
        finally:
            broker.start()

    with bench.server.database("latency") as database:
        subscribe(database, broker, "stopped")
        samples = bench.take_turns({"healthy": healthy, "stopped": without})
    ratios = [a.p99 / b.p99 for a, b in zip(samples["stopped"], samples["healthy"])]
    return [Result(
        "p99 commit latency with Kafka stopped, against healthy, %d transactions/s" % PER_SECOND,
        "%.2f ms" % median(samples["stopped"]).p99, "%.2f ms" % median(samples["healthy"]).p99,
        ratios, "<= 1.1", statistics.median(ratios) <= 1.1, " ".join(load.command()),
        ["p50 %.2f ms against %.2f ms" % (median(samples["stopped"]).p50,
                                          median(samples["healthy"]).p50)])]
