"""
forwarder

Takes batches of events out of something in PostgreSQL and gives them to Kafka:
the relay of the peers that have none of their own for Kafka.

    forwarder.py SOURCE BROKERS TOPIC BATCH POLL_SECONDS

A batch is done, in the database, when Kafka has acknowledged all of it.  Looks
for the next one at once if there was one, and otherwise POLL_SECONDS later.
Ends when anything fails; whoever started it starts it again.
"""
import functools
import signal
import sys
import threading

import psycopg
from confluent_kafka import Producer

QUEUE = "events"
CONSUMER = "forwarder"


class Table:
    """The hand-written outbox table: DELETE ... SKIP LOCKED, one transaction a batch."""

    def __init__(self, connection, limit):
        self.connection = connection
        self.limit = limit

    def take(self):
        rows = self.connection.execute("""
            DELETE FROM outbox WHERE id IN (
                SELECT id FROM outbox ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
            RETURNING id, key, payload::text""", (self.limit,)).fetchall()
        rows.sort()     # RETURNING has no order of its own
        return [row[1:] for row in rows]

    def done(self):
        """The commit is all."""


class PgQ:
    """PgQ's own loop: next_batch, its events by a cursor, finish_batch."""

    def __init__(self, connection, limit):
        self.connection = connection
        self.limit = limit
        self.batch = None

    def take(self):
        self.batch = self.connection.execute(
            "SELECT pgq.next_batch(%s, %s)", (QUEUE, CONSUMER)).fetchone()[0]
        if self.batch is None:
            return None
        # A batch is as large as what was written between two ticks.
        return self.events(self.connection.execute(
            "SELECT * FROM pgq.get_batch_cursor(%s, 'batch', %s)", (self.batch, self.limit)))

    def events(self, cursor):
        names = [column.name for column in cursor.description]
        key, data = names.index("ev_extra1"), names.index("ev_data")
        rows = cursor.fetchall()
        while rows:
            for row in rows:
                yield row[key], row[data]
            rows = self.connection.execute("FETCH %d FROM batch" % self.limit).fetchall()
        self.connection.execute("CLOSE batch")

    def done(self):
        self.connection.execute("SELECT pgq.finish_batch(%s)", (self.batch,))


class PgQue:
    """receive() all of a batch, then ack()."""

    def __init__(self, connection, limit):
        self.connection = connection
        self.batch = None

    def take(self):
        rows = self.connection.execute(
            "SELECT batch_id, extra1, payload FROM pgque.receive(%s, %s, 2000000000)",
            (QUEUE, CONSUMER)).fetchall()
        if not rows:
            return None     # an empty batch is finished by receive()
        self.batch = rows[0][0]
        return [row[1:] for row in rows]

    def done(self):
        self.connection.execute("SELECT pgque.ack(%s)", (self.batch,))


class Pgmq:
    """read() makes messages invisible for a while, delete() ends them."""
    invisible_seconds = 10

    def __init__(self, connection, limit):
        self.connection = connection
        self.limit = limit
        self.ids = []

    def take(self):
        rows = self.connection.execute(
            "SELECT msg_id, headers->>'key', message::text FROM pgmq.read(%s, %s, %s)",
            (QUEUE, self.invisible_seconds, self.limit)).fetchall()
        self.connection.commit()
        rows.sort()
        self.ids = [row[0] for row in rows]
        return [row[1:] for row in rows]

    def done(self):
        self.connection.execute("SELECT count(*) FROM pgmq.delete(%s, %s)", (QUEUE, self.ids))


class MessageDb:
    """A category's messages by position, and the position in a stream of its own."""
    positions = "orders:position-forwarder"

    def __init__(self, connection, limit):
        self.connection = connection
        self.limit = limit
        found = connection.execute(
            "SELECT (data::jsonb->>'position')::bigint FROM get_last_stream_message(%s)",
            (self.positions,)).fetchone()
        self.position = found[0] if found else 1

    def take(self):
        rows = self.connection.execute(
            "SELECT global_position, stream_name, data FROM get_category_messages('orders', %s, %s)",
            (self.position, self.limit)).fetchall()
        if rows:
            self.position = rows[-1][0] + 1
        return [(row[1].partition("-")[2], row[2]) for row in rows]

    def done(self):
        self.connection.execute(
            "SELECT write_message(gen_random_uuid()::text, %s, 'Recorded',"
            " jsonb_build_object('position', %s::bigint))", (self.positions, self.position))


SOURCES = {"table": Table, "pgq": PgQ, "pgque": PgQue, "pgmq": Pgmq, "message_db": MessageDb}


class Sink:
    """
    librdkafka, with the settings that are the same for all that use it.  Its
    linger.ms of 5 is left, which makes requests of many rows, and flush() does
    not wait for it.
    """

    def __init__(self, brokers, topic):
        self.topic = topic
        self.failure = None
        self.producer = Producer({
            "bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True,
            "socket.nagle.disable": True, "partitioner": "murmur2_random",
            "message.timeout.ms": 300000, "reconnect.backoff.max.ms": 500,
            "queue.buffering.max.messages": 100000})

    def acknowledged(self, error, message):
        if error is not None:
            self.failure = error

    def send(self, rows):
        """Returns how many, when all are acknowledged."""
        count = 0
        for key, payload in rows:
            while True:
                try:
                    self.producer.produce(self.topic, payload, key, on_delivery=self.acknowledged)
                    break
                except BufferError:
                    self.producer.poll(0.1)
            count += 1
            if count % 1000 == 0:
                self.producer.poll(0)
        self.producer.flush()
        if self.failure:
            sys.exit("forwarder: %s" % self.failure)
        return count


def step(connection, source, sink):
    """Moves a batch; returns whether there was one."""
    rows = source.take()
    moved = rows is not None and (sink.send(rows) > 0 or source.__class__ is PgQ)
    if moved:
        source.done()
    connection.commit()
    return moved


def main():
    name, brokers, topic, limit, poll = sys.argv[1:]
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ending.set())
    # Ids and keys are short; nothing needs the binary format.
    with psycopg.connect("", prepare_threshold=1) as connection:
        source = SOURCES[name](connection, int(limit))
        connection.commit()
        sink = Sink(brokers, topic)
        move = functools.partial(step, connection, source, sink)
        while not ending.is_set():
            if not move():
                ending.wait(float(poll))


if __name__ == "__main__":
    main()
