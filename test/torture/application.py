"""
application

The load: clients that change state and make events of it in one transaction, and
a journal, on disk before the next transaction begins, of what was acknowledged
and what the client was told on the way there.
"""
import itertools
import json
import os
import random
import threading
import time
from contextlib import contextmanager
from typing import NamedTuple

import psycopg

from errors import again, surprise
from server import POLL

KEYS = 40
MESSAGES = 200
REQUESTS = 20
SOURCES = 3
RECENT_SECONDS = 2      # is an id recognised by the consumer that forgets soon
TRICKLE_SECONDS = 0.3   # between two transactions
LEASES = ("50 ms", "1 second")
DEPTHS = (1, 2, 5, 40, 100)      # more than 64 subtransactions are no longer in shared memory
TOPICS = ("orders", "stock")
TABLES = ("account", "fact", "delta")

# What may come of a transaction, and how often, unless a cycle says otherwise.
MOODS = {
    "calm": {"abort": 0.1, "savepoint": 0.2, "large": 0.01},
    "aborting": {"abort": 0.9, "savepoint": 0.5, "large": 0.0},
    "nested": {"abort": 0.2, "savepoint": 0.9, "large": 0.0},
}


class Done(NamedTuple):
    """A transaction that was acknowledged."""
    txn: str
    synchronous: bool
    received: tuple = ()    # (message, whether it was new)
    answered: tuple = ()    # (request, its answer: the transaction's own, or one that was replayed)
    at: float = 0           # when COMMIT was sent, in seconds since 1970


MAKE = "SELECT load.make(%s, %s, %s, %s, %s, %s, %s)"
MAKE_IN_VAIN = "SELECT load.make_in_vain(%s, %s, %s, %s, %s, %s, %s)"


def savepoints(r, depth):
    """
    What is done at one level: a list of (whether it is kept, None) for an event,
    and (whether it is kept, what is done in it) for a savepoint.
    """
    level = [(True, None)]
    if depth > 3:           # a chain, or it would be all too many
        level.append((r.random() < 0.9, savepoints(r, depth - 1)))
    elif depth:
        level += [(r.random() < 0.6, savepoints(r, depth - 1)) if r.random() < 0.7 else (True, None)
                  for _ in range(r.randint(1, 2))]
    r.shuffle(level)
    return level


def leaves(level, kept=True):
    """Of each event whether it stays."""
    for stays, inner in level:
        if inner is None:
            yield kept and stays
        else:
            yield from leaves(inner, kept and stays)


class Client(threading.Thread):
    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load = load
        self.number = number
        self.connection = None
        self.rests = threading.Event()
        self.made = 0
        self.begin()

    def begin(self):
        """Of a cycle."""
        self.turn = 0
        self.slowest = 0        # commit, in seconds
        self.unexpected = []
        self.again = 0          # transactions that others were in the way of
        self.recent = None      # a message that came for certain, and when
        self.lease = None       # a request that we have taken on, and its token

    # ---- transactions --------------------------------------------------------

    def run(self):
        while not self.load.ending.is_set():
            trickles = self.load.trickles(self.number)
            if not trickles and not self.load.running.is_set():
                self.idle()
                continue
            try:
                self.transaction()
            except psycopg.Error as error:
                self.failed(error)
            if trickles:
                self.load.ending.wait(TRICKLE_SECONDS)

    def idle(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.rests.set()
        self.load.running.wait(0.05)

    def failed(self, error):
        self.again += again(error)
        text = surprise(error, self.connection, self.load.server.expected)
        if text:
            self.unexpected.append(text)
        try:
            if self.connection is not None:
                self.connection.execute("ROLLBACK")
                return
        except psycopg.Error:
            self.connection = None
        time.sleep(POLL)

    def execute(self, sql, *parameters):
        return self.connection.execute(sql, parameters)

    def draw(self):
        """
        What the next transaction does is drawn from this: the same for the same
        turn of the same cycle, however the ones before it have ended.
        """
        self.turn += 1
        load = self.load
        self.random = random.Random("%s %s cycle %d client %d turn %d" % (load.seed, load.name, load.cycle, self.number, self.turn))
        return self.random

    def transaction(self):
        r = self.draw()
        mood = MOODS[self.load.mood]
        if self.connection is None:
            self.connection = psycopg.connect(self.load.dsn, autocommit=True, connect_timeout=5, application_name="load")
        self.made += 1
        txn = "%s.%d.%d" % (self.load.name, self.number, self.made)
        self.received, self.answered = [], []
        self.coming = None
        self.leased = None
        lease, self.lease = self.lease, None
        synchronous = r.random() < self.load.synchronous
        self.execute("BEGIN ISOLATION LEVEL %s" % r.choice(("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")))
        self.execute("SET LOCAL synchronous_commit = %s" % ("on" if synchronous else "off"))
        self.execute("INSERT INTO load.kept VALUES (%s, %s)", txn, self.load.cycle)
        if self.load.mood == "nested" and r.random() < 0.5:
            self.make_tree(txn)
        else:
            r.choice((self.make_events, self.make_events, self.make_events, self.change_rows, self.receive))(txn, mood)
        if lease:
            self.finish(*lease, txn)
        if r.random() < mood["abort"]:
            self.execute("ROLLBACK")
            return
        at, began = time.time(), time.monotonic()
        committed = self.execute("COMMIT").statusmessage == "COMMIT"
        self.slowest = max(self.slowest, time.monotonic() - began)
        if committed:
            self.load.journal(self.number, Done(txn, synchronous, tuple(self.received), tuple(self.answered), at))
            self.lease = self.leased
            if self.coming and synchronous:
                self.recent = self.coming

    def make_events(self, txn, mood):
        """Events of a few keys, some of them in savepoints that are rolled back."""
        r = self.random
        keys = sorted(r.choice(range(KEYS)) for _ in range(r.choice((1, 1, 1, 2, 3, 8))))
        if r.random() < mood["large"]:
            keys = sorted(r.choice(range(KEYS)) for _ in range(300))
        plan = [r.random() < mood["savepoint"] for _ in keys]
        lost = [nested and r.random() < 0.5 for nested in plan]
        size = lost.count(False)
        for i, key in enumerate(keys):
            event = self.event(txn, i, key, size)
            if lost[i] and r.random() < 0.3:
                self.execute(MAKE_IN_VAIN, *event)
                continue
            if plan[i]:
                self.execute("SAVEPOINT s0")
            self.execute(MAKE, *event)
            if lost[i]:
                self.execute("ROLLBACK TO s0")
            elif plan[i]:
                self.execute("RELEASE s0")

    def event(self, txn, number, key, size):
        r = self.random
        filler = r.choice((0, 10, 100)) if r.random() < 0.97 else r.choice((9000, 60000))
        return "%s.%d" % (txn, number), self.load.cycle, TOPICS[key % 2], "k%d" % key, txn, size, filler

    def make_tree(self, txn):
        """Events at all levels of savepoints in savepoints, of which any may be rolled back, with all that was released in it."""
        r = self.random
        tree = savepoints(r, r.choice(DEPTHS))
        keys = iter(sorted(r.choice(range(KEYS)) for _ in leaves(tree)))
        size = sum(leaves(tree))
        numbers = itertools.count()

        def play(children, level):
            for kept, inner in children:
                if inner is None:
                    self.execute(MAKE, *self.event(txn, next(numbers), next(keys), size))
                    continue
                self.execute("SAVEPOINT s%d" % level)
                play(inner, level + 1)
                if not kept:
                    self.execute("ROLLBACK TO s%d" % level)
                if kept or r.random() < 0.5:        # else the next one of that name is made above it
                    self.execute("RELEASE s%d" % level)
        play(tree, 0)

    def change_rows(self, txn, mood):
        """Of captured tables, some more than once, and some in savepoints that are rolled back."""
        r = self.random
        for table, row in sorted((r.choice(TABLES), r.randrange(50)) for _ in range(r.choice((1, 2, 5, 10)))):
            nested = r.random() < mood["savepoint"]
            if nested:
                self.execute("SAVEPOINT s0")
            if r.random() < 0.2:
                self.execute("DELETE FROM load.%s WHERE id = %%s" % table, row)
            else:
                self.execute("INSERT INTO load.%s AS a VALUES (%%s, 1, %%s)"
                             " ON CONFLICT (id) DO UPDATE SET amount = a.amount + 1, note = excluded.note" % table, row, txn)
            if nested and r.random() < 0.5:
                self.execute("ROLLBACK TO s0")

    def receive(self, txn, mood):
        """Messages that others receive too, some in savepoints that are rolled back, and requests that come again."""
        r = self.random
        for message in sorted(r.sample(range(MESSAGES), r.choice((1, 3)))):
            nested = r.random() < mood["savepoint"]
            undone = nested and r.random() < 0.5
            if nested:
                self.execute("SAVEPOINT s0")
            self.receive_one("m%d.%d" % (self.load.cycle, message), txn)
            if undone:
                self.execute("ROLLBACK TO s0")
                self.received.pop()
        self.post("m%d.%d" % (self.load.cycle, r.randrange(MESSAGES)), txn)
        source = "source%d" % r.randrange(SOURCES)
        self.received.append((self.execute("SELECT load.consume_next(%s, %s, %s)", source, self.load.cycle, txn).fetchone()[0], True))
        self.receive_recent(txn)
        request = "r%d.%d" % (self.load.cycle, r.randrange(REQUESTS))
        how, lease = r.random(), r.choice(LEASES)
        if how < 0.3:
            self.answer(request, txn)
        elif how < 0.6:
            self.take_on(request, lease)

    def receive_one(self, message, txn):
        new = self.execute("SELECT load.consume(%s, %s, %s)", message, self.load.cycle, txn).fetchone()[0]
        if not new and not self.execute("SELECT FROM load.effect WHERE message = %s", message).fetchall():
            self.unexpected.append("message %s was received before, they say, but had no effect" % message)
        self.received.append((message, new))

    def post(self, message, txn):
        """Into a table that takes each once."""
        new = self.execute("INSERT INTO load.posted VALUES (%s, %s, %s)", message, self.load.cycle, txn).rowcount == 1
        self.received.append(("posted " + message, new))

    def receive_recent(self, txn):
        """Of a consumer that forgets soon, but not so soon: what came for certain a moment ago is known."""
        message, since = self.recent or (txn, time.monotonic())
        new = self.execute("SELECT eo.receive('recent', %s)", message).fetchone()[0]
        if new != (not self.recent) and time.monotonic() - since < RECENT_SECONDS:
            self.unexpected.append("message %s came %.1f s ago, and receive says %s" % (message, time.monotonic() - since, new))
        self.coming, self.recent = (None if self.recent else (message, since)), None

    def unless(self, state, sql, *parameters):
        """What it returns; None if it fails for that reason."""
        self.execute("SAVEPOINT attempt")
        try:
            return self.execute(sql, *parameters)
        except psycopg.Error as error:
            if error.sqlstate != state:
                raise
            self.execute("ROLLBACK TO attempt")
            return None

    def take_on(self, request, lease):
        """To be finished by the next transaction, before the lease ends or after it."""
        row = self.unless("EO409", "SELECT state, response, token FROM eo.idempotency_begin('torture', %s, '{}', false, %s)", request, lease)
        state, response, token = row.fetchone() if row else (None, None, None)
        if state == "new":
            self.leased = (request, token)
        elif state:
            self.require_answer(request, response, state)

    def finish(self, request, token, txn):
        """Unless somebody else has taken it over."""
        if self.unless("EO410", "SELECT eo.idempotency_complete('torture', %s, to_jsonb(%s::text), token => %s)", request, txn, token):
            self.execute("INSERT INTO load.answered VALUES (%s, %s, to_jsonb(%s::text))", request, self.load.cycle, txn)
            self.answered.append((request, txn))

    def answer(self, request, txn):
        """Anew, or as it was answered before."""
        state, response = self.execute("SELECT state, response FROM eo.idempotency_begin('torture', %s, '{}')", request).fetchone()
        if state == "new":
            response = txn
            self.execute("INSERT INTO load.answered VALUES (%s, %s, to_jsonb(%s::text))", request, self.load.cycle, txn)
            self.execute("SELECT eo.idempotency_complete('torture', %s, to_jsonb(%s::text))", request, txn)
        else:
            self.require_answer(request, response, state)
        self.answered.append((request, response))

    def require_answer(self, request, response, state):
        if (response,) not in self.execute("SELECT response FROM load.answered WHERE request = %s", request).fetchall():
            self.unexpected.append("request %s was answered %s by %s" % (request, response, state))


class Load:
    """Clients that run while the load is on, over all cycles."""

    def __init__(self, server, directory, seed, name="t", clients=4):
        self.server = server
        self.dsn = server.dsn
        self.seed = seed
        self.name = name
        self.directory = directory
        self.running = threading.Event()
        self.trickling = False
        self.ending = threading.Event()
        self.cycle = 0
        self.mood = "calm"
        self.synchronous = 0.5
        self.acknowledged = []      # Done, of this cycle
        self.lock = threading.Lock()
        self.journals = [open(os.path.join(directory, "journal.%d" % i), "a") for i in range(clients)]
        self.clients = [Client(self, i) for i in range(clients)]
        for client in self.clients:
            client.start()

    def journal(self, number, done):
        f = self.journals[number]
        f.write(json.dumps(done) + "\n")
        f.flush()
        os.fdatasync(f.fileno())
        with self.lock:
            self.acknowledged.append(done)

    @staticmethod
    def messages(cycle):
        """All that may have come in it."""
        return ["m%d.%d" % (cycle, i) for i in range(MESSAGES)]

    @staticmethod
    def requests(cycle):
        return ["r%d.%d" % (cycle, i) for i in range(REQUESTS)]

    def begin(self, cycle, mood="calm", synchronous=0.5, expected=()):
        self.cycle, self.mood, self.synchronous, self.server.expected = cycle, mood, synchronous, expected
        self.acknowledged = []
        for client in self.clients:
            client.begin()
        self.resume()

    def resume(self):
        """Goes on with the same cycle."""
        self.running.set()

    def pause(self):
        """Waits until no client is in a transaction."""
        self.running.clear()
        resting = [client for client in self.clients if not self.trickles(client.number)]
        for client in resting:
            client.rests.clear()        # who rests says so again
        if not all(client.rests.wait(60) for client in resting):
            raise TimeoutError("a client hangs")
        return [text for client in self.clients for text in client.unexpected]

    def trickles(self, number):
        """Whether that client goes on, slowly, while the others rest."""
        return self.trickling and number == 0

    @contextmanager
    def trickle(self):
        """One client alone goes on for that long, slowly."""
        self.trickling = True
        try:
            self.pause()
            yield
        finally:
            self.trickling = False
            self.resume()

    def end(self):
        self.ending.set()
        for client in self.clients:
            client.join(30)
        for f in self.journals:
            f.close()
