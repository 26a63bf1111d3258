"""
eo

The extension itself, with its two guarantees to Kafka.
"""
import json
import os
import signal

from lab import wait
from peer import Peer, Relay, peer

READY_SECONDS = 120

KEPT = "published events are kept for 20 s instead of an hour (retention, segment_age); otherwise default settings"


class Publishing(Relay):
    """The relay and the publisher belong to the server, which starts them again."""

    def __init__(self, lab):
        self.lab = lab
        lab.server.execute("SELECT eo.resume('kafka')")

    def pid_of(self, part):
        return int(self.lab.server.value(
            "SELECT coalesce((SELECT %s), 0)" % {
                "publisher": "publisher_pid FROM eo.subscriptions WHERE name = 'kafka'",
                "relay": "relay_pid FROM eo.log_status()"}[part]))

    def kill(self, part):
        os.kill(wait(lambda: self.pid_of(part), READY_SECONDS, "the " + part), signal.SIGKILL)

    def revive(self, part):
        """Nobody has to."""

    def stop(self):
        """They end with the server."""

    def check(self):
        state = self.lab.server.value("SELECT state || coalesce(': ' || last_error, '')"
                                      " FROM eo.subscriptions WHERE name = 'kafka'")
        if state.startswith("failed"):
            raise RuntimeError(state)


class EoOutbox(Peer):
    guarantee = ""
    parts = ("publisher", "relay")
    # As long as PgQ and PgQue keep what is done with, here.
    settings = {"shared_preload_libraries": "eo_outbox", "eo_outbox.retention": "20s",
                "eo_outbox.segment_age": "20s"}
    caveat = ("kill -9 of the publisher, a process of its own, touches nothing else; of the relay, a background "
              "worker, it restarts the server, as that of any process of PostgreSQL does")

    def version(self, lab):
        return "eo_outbox %s, commit %s" % (
            lab.server.value("SELECT extversion FROM pg_extension WHERE extname = 'eo_outbox'"),
            os.environ.get("EO_COMMIT", "unknown"))

    def install(self, lab):
        options = {"guarantee": self.guarantee}
        lab.server.execute("""
            CREATE EXTENSION eo_outbox;
            CREATE SERVER kafka FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '%s');
            SELECT eo.subscribe('kafka', server => 'kafka', options => '%s');
            SELECT eo.pause('kafka');""" % (lab.brokers, json.dumps(options)))
        wait(lambda: lab.server.value(
            "SELECT state FROM eo.subscriptions WHERE name = 'kafka'") == "paused",
            READY_SECONDS, "the subscription to be paused")

    def write(self):
        return "SELECT eo.enqueue(:topic, :payload::jsonb, :key, 'order.created')"

    def fill(self):
        return ("PERFORM eo.enqueue(topic_name, bench.payload(i)::jsonb, bench.key(i), 'order.created')"
                " FROM generate_series(first_id, last_id) AS i")

    def start(self, lab):
        return Publishing(lab)


@peer
class AtLeastOnce(EoOutbox):
    name = "eo_outbox"
    title = "eo_outbox, at least once"
    guarantee = "at_least_once"
    choices = KEPT


@peer
class ExactlyOnce(EoOutbox):
    name = "eo_exactly_once"
    title = "eo_outbox, exactly once"
    guarantee = "exactly_once"
    choices = KEPT + "; Kafka transactions, seen by the consumer when they are committed"
