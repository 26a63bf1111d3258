"""
drain

How fast a backlog leaves.

The events are committed while nobody is subscribed, 1,000 a transaction; the
clock runs from the commit of eo.subscribe(), so it includes starting the
publisher, to the moment at which the last one is acknowledged
(eo.wait_published).  Each round has a backlog of its own, because reading it
once makes the next time cheaper.
"""
import json
import os
import statistics
import time

from broker import compile_c, kafka
from rows import Result, row
from server import cpu_seconds, payload

EVENTS = 1000000
BATCH = 1000
PAYLOAD = 250

FILL = """
CREATE PROCEDURE fill(batches int, payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. batches LOOP
		{statement};
		COMMIT;
	END LOOP;
END $$;
"""

ENQUEUE = ("PERFORM eo.enqueue('orders', payload, 'customer-4711', 'order.created')"
           " FROM generate_series(1, %d)" % BATCH)
INSERT = ("INSERT INTO outbox (topic, key, payload) SELECT 'orders', 'customer-4711', payload"
          " FROM generate_series(1, %d)" % BATCH)

POLL = """DELETE FROM outbox WHERE id IN (
	SELECT id FROM outbox WHERE published_at IS NULL ORDER BY id LIMIT %d
	FOR UPDATE SKIP LOCKED)
RETURNING id, topic, key, payload, created_at""" % BATCH


class Rate(float):
    """Events a second; `cpu` is what each took of the processes on the way, in us."""

    cpu = None

    def __str__(self):
        return "%d/s" % self


def fill(database):
    """Returns the seq before the events that it adds to the log."""
    before = database.value("SELECT last_seq FROM eo.log_status()")
    database.psql("SET synchronous_commit = off; CALL fill(%d, :'payload');" % (EVENTS // BATCH),
                  "--set", "payload=" + payload(PAYLOAD))
    database.execute("CHECKPOINT")
    return before


def drain(database, server, options="{}"):
    """Adds a backlog, subscribes, waits for the end, and returns the rate."""
    before = fill(database)
    last = database.value("SELECT last_seq FROM eo.log_status()")
    relay = int(database.value("SELECT relay_pid FROM eo.log_status()"))
    relay_cpu = cpu_seconds(relay)
    out = database.psql(
        "SELECT eo.subscribe('drain', server => '%s', options => '%s', start_at => '%s') AS s \\gset\n"
        "SELECT extract(epoch FROM clock_timestamp()) AS begun \\gset\n"
        "SELECT eo.wait_published('drain', %s, '10 min') AS done \\gset\n"
        "SELECT :'done', extract(epoch FROM clock_timestamp()) - :begun,"
        " published, publisher_pid FROM eo.subscriptions WHERE name = 'drain';\n"
        % (server, options, before, last))
    done, seconds, published, publisher = out[-1].split("|")
    cpu = [cpu_seconds(relay) - relay_cpu, cpu_seconds(int(publisher))]
    database.execute("SELECT eo.unsubscribe('drain')")
    if done not in ("t", "true") or int(published) < EVENTS:
        raise RuntimeError("the backlog did not drain: %s" % out[-1])
    rate = Rate(EVENTS / float(seconds))
    rate.cpu = [one * 1e6 / EVENTS for one in cpu]
    return rate


def cpu_note(samples):
    return ("processor time of an event: %.2f us in the relay, %.2f us in the publisher"
            % tuple(statistics.median(s.cpu[i] for s in samples) for i in (0, 1)))


def drain_to_file(bench, database):
    path = os.path.join(bench.directory, "drain.jsonl")
    if os.path.exists(path):
        os.unlink(path)
    rate = drain(database, "drain_file")
    with open(path, "rb") as f:
        lines = sum(1 for line in f)
    os.unlink(path)
    if lines != EVENTS:
        raise RuntimeError("%d lines in the file instead of %d" % (lines, EVENTS))
    return rate


def poll(bench):
    server = bench.server
    poller = compile_c(bench.directory, "poller", "libpq")
    server.table()
    server.execute("DROP PROCEDURE IF EXISTS fill;" + FILL.format(statement=INSERT))
    server.psql("SET synchronous_commit = off; CALL fill(%d, :'payload');" % (EVENTS // BATCH),
                "--set", "payload=" + payload(PAYLOAD))
    server.execute("ANALYZE outbox; CHECKPOINT")
    path = os.path.join(bench.directory, "poller.jsonl")
    begun = time.monotonic()
    taken = server.run(poller, POLL, path, capture_output=True).stdout
    seconds = time.monotonic() - begun
    os.unlink(path)
    if int(taken) != EVENTS:
        raise RuntimeError("the poller took %s rows instead of %d" % (taken, EVENTS))
    server.execute("DROP TABLE outbox")
    return Rate(EVENTS / seconds)


@row("file")
def to_file(bench):
    """a backlog of 1,000,000 events to `file`, against a polled table"""
    with bench.server.database("drain") as database:
        database.execute(FILL.format(statement=ENQUEUE))
        database.execute("CREATE SERVER drain_file FOREIGN DATA WRAPPER eo_file OPTIONS (path '%s')"
                         % os.path.join(bench.directory, "drain.jsonl"))
        samples = bench.take_turns({
            "file": lambda number: drain_to_file(bench, database),
            "poller": lambda number: poll(bench)})
    ratios = [a / b for a, b in zip(samples["file"], samples["poller"])]
    rate, polled = (Rate(statistics.median(samples[name])) for name in ("file", "poller"))
    command = ("eo.subscribe('drain', server => 'drain_file', start_at => ...) to "
               "eo.wait_published('drain', last seq)")
    return [
        Result("%d events of %d bytes drained to file, events/s" % (EVENTS, PAYLOAD),
               rate, "", [], ">= 200000/s", rate >= 200000, command,
               [cpu_note(samples["file"])]),
        Result("the same against a DELETE ... FOR UPDATE SKIP LOCKED poller",
               rate, polled, ratios, ">= 10",
               statistics.median(ratios) >= 10,
               command + " against poller.c with " + " ".join(POLL.split())),
    ]


def bare_rate(broker, number):
    topic = "bare-%d" % number
    broker.tool("create", topic, "1")
    rate = Rate(broker.produce(topic, "rate", EVENTS, PAYLOAD))
    broker.tool("delete", topic)
    return rate


def kafka_rate(broker, database, guarantee, number):
    prefix = "%s-%d." % (guarantee, number)
    broker.tool("create", prefix + "orders", "1")
    rate = drain(database, "drain_kafka",
                 '{"guarantee": "%s", "topic_prefix": "%s"}' % (guarantee, prefix))
    ends = broker.tool("ends", prefix + "orders", "read_committed")
    if sum(map(int, json.loads(ends).values())) < EVENTS:
        raise RuntimeError("Kafka has fewer than %d records: %s" % (EVENTS, ends))
    broker.tool("delete", prefix + "orders")
    return rate


@row("kafka", "kafka")
def to_kafka(bench):
    """a backlog of 1,000,000 events to Kafka, against a bare librdkafka producer"""
    broker = kafka(bench)
    with bench.server.database("drain") as database:
        database.execute(FILL.format(statement=ENQUEUE))
        database.execute("CREATE SERVER drain_kafka FOREIGN DATA WRAPPER eo_kafka"
                         " OPTIONS (brokers '%s')" % broker.brokers)
        samples = bench.take_turns({
            "bare": lambda number: bare_rate(broker, number),
            "at_least_once": lambda number: kafka_rate(broker, database, "at_least_once", number),
            "exactly_once": lambda number: kafka_rate(broker, database, "exactly_once", number)})
    bare = Rate(statistics.median(samples["bare"]))
    results = []
    for guarantee, limit in (("at_least_once", 0.8), ("exactly_once", 0.7)):
        ratios = [a / b for a, b in zip(samples[guarantee], samples["bare"])]
        results.append(Result(
            "the same to Kafka, %s, against a bare librdkafka producer" % guarantee,
            Rate(statistics.median(samples[guarantee])), bare, ratios, ">= %.1f" % limit,
            statistics.median(ratios) >= limit,
            "eo.subscribe('drain', server => 'drain_kafka', options => '{\"guarantee\": \"%s\"}', "
            "start_at => ...) to eo.wait_published('drain', last seq) against kafka_bare BROKERS "
            "TOPIC rate %d %d" % (guarantee, EVENTS, PAYLOAD),
            [cpu_note(samples[guarantee])]))
    return results
