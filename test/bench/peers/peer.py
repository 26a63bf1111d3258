"""
peer

What a peer is: one way to bring events from a transaction to Kafka.

peers.py takes every measurement of every peer in a cluster of its own, made for
it with the peer's settings, on a database and a topic of its own, in this order:

    peer.missing()      None, or the words of the table for why it cannot be had
    peer.install(lab)   objects, and whatever makes events be kept from now on:
                        a registered consumer, a subscription, a slot
    peer.write()        is added to transactions, while the relay is stopped,
    peer.fill()         or runs, or is stopped and then started with a backlog
    peer.start(lab)     the relay, as its owner would start it
    relay.pids()        all the while, for processor time
    relay.kill(part)    with kill -9, of peer.parts; then relay.revive(part)
    relay.stop()

A `lab` has what belongs to the one measurement:

    lab.server      Server of server.py, bound to the database (lab.server.execute,
                    .value, .psql, .environment for programs with libpq).
                    It listens in PGHOST, PGPORT of this environment; for TCP,
                    say listen_addresses = 127.0.0.1 in the peer's settings
    lab.brokers     Kafka's bootstrap.servers
    lab.topic       name of the topic, made already, lab.partitions partitions
    lab.directory   for files (logs, offsets, settings); new and empty
    lab.helpers     Processes that install() has started beside the relay
    lab.say(text)   a line of progress

The database has, before install(), two SQL functions that make the events, the
same for all:

    bench.key(id bigint) text      one of some keys
    bench.payload(id bigint) text  JSON text of 250 bytes, with the id in it as
                                   "mark": "#<id>#"

A message in Kafka may wrap the payload as the peer likes (an envelope, a string
of JSON): the consumer looks for #<id># in the message's value.  An event's key
must lead all its events to one partition.
"""
import os
import signal
import subprocess
import sys
import time

# For all, where the peer's client has the setting.
PRODUCER = {"acks": "all", "enable.idempotence": "true"}

# Rows that a poller takes at once, and how often it looks when there were none.
BATCH = 1000
POLL_SECONDS = 0.01

STOP_SECONDS = 30


class Relay:
    """What brings the events from the database to Kafka, when it runs."""

    def pids(self):
        """Processes outside the server; the server's are counted as a whole."""
        return []

    def kill(self, part):
        """Kills the part with SIGKILL."""
        raise NotImplementedError

    def revive(self, part):
        """What its owner does then (a service manager, say), at once."""
        raise NotImplementedError

    def stop(self):
        """Ends it in good order; called once, also after kill()."""
        raise NotImplementedError

    def check(self):
        """Raises if it has ended on its own."""


class Processes(Relay):
    """
    A relay of programs: [(name, command)], started in this order, each writing
    to NAME.log in the lab's directory.  All are killed together, and started
    again, as the default part.
    """

    def __init__(self, lab, commands, environment=None):
        self.lab = lab
        self.commands = commands
        self.environment = dict(lab.server.environment, **(environment or {}))
        self.running = []
        self.begin()

    def begin(self):
        for name, command in self.commands:
            with open(os.path.join(self.lab.directory, name + ".log"), "a") as log:
                self.running.append((name, subprocess.Popen(
                    command, env=self.environment, cwd=self.lab.directory,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)))

    def pids(self):
        return [process.pid for name, process in self.running if process.poll() is None]

    def check(self):
        for name, process in self.running:
            if process.poll() is not None:
                raise RuntimeError("%s ended with %d: %s" % (name, process.returncode,
                                                             self.log(name)))

    def log(self, name):
        with open(os.path.join(self.lab.directory, name + ".log"), errors="replace") as f:
            return f.read()[-2000:]

    def end(self, signal_number):
        for name, process in self.running:
            if process.poll() is None:
                process.send_signal(signal_number)
        deadline = time.monotonic() + STOP_SECONDS
        for name, process in self.running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running = []

    def kill(self, part):
        self.end(signal.SIGKILL)

    def revive(self, part):
        self.begin()

    def stop(self):
        self.end(signal.SIGTERM)


class Peer:
    """One way.  Subclasses register themselves with @peer."""

    name = ""           # a word, for PEERS=
    title = ""          # for the table
    needs = ()          # words for test/setup, without dashes: "pgq", "debezium"
    parts = ("relay",)  # what kill() of its Relay can kill, a line of the table each
    settings = {}       # of the server, besides those of everybody
    choices = ""        # how it was set up, a sentence
    caveat = ""         # what a reader of the figures must know, a sentence

    def missing(self):
        """None, or a few words that say why it cannot be measured here."""
        return None

    def version(self, lab):
        """Of all that is the peer's, after install()."""
        raise NotImplementedError

    def install(self, lab):
        raise NotImplementedError

    def write(self):
        """
        One SQL statement that adds one event inside the user's transaction, with
        the text variables :topic, :key and :payload (each once at most; with
        casts as the peer needs them, e.g. :payload::jsonb).
        """
        raise NotImplementedError

    def fill(self):
        """
        One PL/pgSQL statement (PERFORM, not SELECT) that adds the events with
        the ids first_id to last_id in this order, with the PL/pgSQL variables
        first_id, last_id (bigint), topic_name (text).
        """
        raise NotImplementedError

    def start(self, lab):
        """Returns the Relay, started."""
        raise NotImplementedError

    def held(self, lab):
        """
        Bytes of disk that the peer's events still take and that are in no
        relation of the database: WAL that a slot keeps, say.
        """
        return 0


PEERS = []


def peer(cls):
    """Registers a subclass of Peer, in the order of the table."""
    PEERS.append(cls())
    return cls


def python(program, *arguments):
    """The command of a program in Python that lies beside this file."""
    return [sys.executable, "-B",
            os.path.join(os.path.dirname(os.path.abspath(__file__)), program), *arguments]
