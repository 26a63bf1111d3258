"""
consumers

Who receives the events, each with a journal of what it got and in which order.
A consumer looks at the moment of receipt whether the state that the event tells
of is there: an event without it is a phantom, however soon it would be undone.
"""
import json
import os
import sys
import threading
import time

import psycopg

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

from arrival import Arrival  # noqa: E402
from brokers import KAFKA, Kafka as KafkaBroker, Tail  # noqa: E402
from captured import MODES  # noqa: E402
from errors import surprise  # noqa: E402
from network import Proxy  # noqa: E402
from server import POLL  # noqa: E402


TOPICS = ("orders", "stock", *MODES)


def claims(arrivals):
    """What must have been committed, markers excepted."""
    return [a.claim for a in arrivals if a.claim and not a.is_marker]


def untrue(connection, ids):
    """Those of some claims of which the database knows nothing now."""
    return [row[0] for row in connection.execute(
        "SELECT DISTINCT a.id FROM unnest(%s::text[]) AS a(id) WHERE NOT EXISTS (SELECT FROM load.truth AS t WHERE t.id = a.id)"
        " AND NOT EXISTS (SELECT FROM load.kept AS k WHERE k.txn = a.id)", (ids,))]


class Consumer:
    """Watches what arrives, in a thread of its own."""

    excused = ()                # SQLSTATEs that do not matter, whenever they came

    def __init__(self, server, name):
        self.server = server
        self.name = name
        self.arrivals = []
        self.phantoms = []
        self.unexpected = []    # errors, as (SQLSTATE, text)
        self.unchecked = []
        self.markers = set()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        connection = None
        while not self.ending.is_set():
            news = self.news()
            self.arrivals += news
            self.unchecked += claims(news)
            # Who sees a marker finds what came before it in `unchecked`.
            self.markers.update((a.claim, a.topic) for a in news if a.is_marker)
            if not self.unchecked:
                time.sleep(POLL)
                continue
            try:
                if connection is None or connection.closed:
                    connection = self.server.connect(application_name="consumer")
                self.phantoms += untrue(connection, self.unchecked)
                self.unchecked = []
            except psycopg.Error as error:
                self.failed(error, connection)
                connection = None
                time.sleep(POLL)

    def failed(self, error, connection):
        text = surprise(error, connection, self.server.expected)
        if text:
            self.unexpected.append((getattr(error, "sqlstate", None), text))

    def take_surprises(self):
        """The errors since the last call."""
        taken, self.unexpected = self.unexpected, []
        return [text for state, text in taken if state not in self.excused]

    def has(self, marker):
        """Whether the event of that name has come, of each topic."""
        return all((marker, topic) in self.markers for topic in TOPICS)

    def take(self):
        """What has arrived since the last call, in order; all of it has been looked at."""
        until = time.monotonic() + 30
        while self.unchecked:
            if time.monotonic() > until:
                raise TimeoutError("%s cannot look for phantoms" % self.name)
            time.sleep(POLL)
        taken, self.arrivals = self.arrivals, []
        self.markers.clear()
        return taken

    def start(self):
        self.thread.start()

    def stop(self):
        self.ending.set()
        self.thread.join(30)


class File(Consumer):
    """What the file publisher writes."""

    def __init__(self, server, name, directory):
        super().__init__(server, name)
        self.path = os.path.join(directory, name + ".jsonl")
        self.tail = Tail(self.path)

    def subscribe(self):
        self.server.execute("CREATE SERVER %s FOREIGN DATA WRAPPER eo_file OPTIONS (path '%s');"
                            "SELECT eo.subscribe('%s', server => '%s')" % (self.name, self.path, self.name, self.name))

    def news(self):
        return [self.parse(line) for line in self.tail.lines()]

    @staticmethod
    def parse(line):
        event = json.loads(line)
        return Arrival("all", int(event["sequence"]), event["position"], event["topic"], event["id"], event["type"],
                       event.get("partitionkey"), event.get("data"))


class Kafka(Consumer):
    """
    What Kafka's own client reads, committed events only.  The publisher reaches
    the broker through a proxy; the client does not need it.
    """

    guarantee = "exactly_once"

    def __init__(self, server, name, directory):
        super().__init__(server, name)
        self.proxy = Proxy()
        self.broker = KafkaBroker(directory, TOPICS, partitions=1, options=("--proxy", self.proxy.address))

    def start(self):
        self.broker.start()
        with open(os.path.join(self.broker.directory, "behind")) as f:
            self.proxy.target = int(f.read())
        super().start()

    def stop(self):
        super().stop()
        self.proxy.close()
        self.broker.stop()

    def subscribe(self):
        self.server.execute("CREATE SERVER %s FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '%s');"
                            "SELECT eo.subscribe('%s', server => '%s', options => '{\"guarantee\": \"%s\"}')"
                            % (self.name, self.proxy.address, self.name, self.name, self.guarantee))

    def broker_pid(self):
        with open(os.path.join(self.broker.directory, "pid")) as f:
            return int(f.read().split()[0])

    def news(self):
        return [self.parse(line) for line in self.broker.tail.lines()]

    @staticmethod
    def parse(line):
        record = json.loads(line)
        headers = dict(record["headers"])
        return Arrival(headers["ce_topic"], int(headers["ce_sequence"]), int(headers["ce_position"]), headers["ce_topic"], headers["ce_id"],
                       headers["ce_type"], record["key"], json.loads(record["value"]) if record["value"] else None)


class KafkaAtLeastOnce(Kafka):
    """Some come again, and are the very same; of all others everything is asked."""

    guarantee = "at_least_once"

    def __init__(self, server, name, directory):
        super().__init__(server, name, directory)
        self.seen = {}              # by seq

    def take(self):
        taken = super().take()
        first = [a for a in taken if self.seen.setdefault(a.seq, a) is a]
        self.unexpected += [(None, "seq %d came again, and is another event" % a.seq) for a in taken if self.seen[a.seq] != a]
        return first


class Pull(Consumer):
    """A handler in the database: what it got it writes down, and acknowledges, in one transaction."""

    excused = ("42704",)        # it may begin before it is subscribed

    def subscribe(self):
        self.server.execute("SELECT eo.subscribe('%s')" % self.name)

    def run(self):
        connection = None
        turns = 0
        while not self.ending.is_set():
            turns += 1
            try:
                if connection is None or connection.closed:
                    connection = self.server.connect(application_name="consumer")
                self.turn(connection, turns % 7 == 0)
            except (psycopg.Error, psycopg.Rollback) as error:      # the latter if it cannot be done
                self.failed(error, connection)
                connection = None
                time.sleep(POLL)

    def turn(self, connection, undo):
        with connection.transaction() as transaction:
            last, ids = connection.execute(
                "WITH got AS (INSERT INTO load.consumed (seq, position, topic, event_id, type, key, payload)"
                " SELECT seq, position, topic, event_id, type, key, payload FROM eo.fetch(%s, 500, '100 ms') RETURNING seq, payload)"
                " SELECT max(seq), array_agg(payload ->> 'id') FILTER (WHERE payload ? 'txn' AND payload ->> 'id' NOT LIKE '%%.marker.%%')"
                " FROM got", (self.name,)).fetchone()
            if ids:
                self.phantoms += [row[0] for row in connection.execute(
                    "SELECT a.id FROM unnest(%s::text[]) AS a(id) WHERE NOT EXISTS (SELECT FROM load.truth AS t WHERE t.id = a.id)", (ids,))]
            if last is not None:
                connection.execute("SELECT eo.ack(%s, %s)", (self.name, last))
            if undo:
                raise psycopg.Rollback(transaction)

    def has(self, marker):
        return self.server.one("SELECT count(DISTINCT topic) = %s FROM load.consumed WHERE %s IN"
                               " (payload ->> 'id', payload ->> 'note', payload #>> '{note,new}')",
                               len(TOPICS), marker)

    def take(self):
        rows = self.server.query("WITH gone AS (DELETE FROM load.consumed RETURNING *)"
                                 " SELECT 'all', seq, position, topic, event_id, coalesce(type, topic), key, payload FROM gone ORDER BY arrival")
        return [Arrival(*row) for row in rows]
