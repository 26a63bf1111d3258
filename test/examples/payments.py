"""payments.py

Payments for the consumers of doc/examples: published to a file, delivered
again and again, and what must have become of them.
"""
import collections
import json
import os
import random
import subprocess
import threading

from server import PATIENCE

PAYMENTS = 120
ACCOUNTS = 7


def publish(server):
    """Payments as the publisher for files writes them, some with headers."""
    origin = server.database("origin")
    path = os.path.join(server.directory, "payments.jsonl")
    origin.execute("CREATE SERVER file FOREIGN DATA WRAPPER eo_file OPTIONS (path '%s')" % path)
    origin.execute("SELECT eo.subscribe('to_file', server => 'file')")
    origin.execute("""
        SELECT eo.enqueue('payments',
            jsonb_build_object('account', 'account-' || i %% %d, 'amount', i),
            headers => CASE i %% 3
                WHEN 1 THEN jsonb_build_object('correlationid', 'order-' || i,
                    'traceparent', '00-' || lpad(i::text, 32, 'a') || '-00f067aa0ba902b7-01')
                WHEN 2 THEN '{"tenant": "acme"}' END)
        FROM generate_series(1, %d) AS i""" % (ACCOUNTS, PAYMENTS))
    assert origin.value("SELECT eo.wait_published('to_file', (SELECT max(seq) FROM eo.events),"
                        " '%d s')" % PATIENCE)
    with open(path) as f:
        return f.readlines()


def deliveries(lines, seed):
    """Each payment one to three times, not far from where it belongs."""
    dice = random.Random(seed)
    places = [(i + dice.random() * 10, line) for i, line in enumerate(lines)
              for _ in range(dice.randint(1, 3))]
    return [line for _, line in sorted(places)]


class Consumer:
    """A running consumer, and what it has acknowledged."""

    def __init__(self, command, environment, lines):
        self.lines = lines
        self.acked = 0
        self.process = subprocess.Popen(command, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.feeder = threading.Thread(target=self.feed, daemon=True)
        self.feeder.start()
        self.guard = threading.Timer(PATIENCE, self.process.kill)
        self.guard.daemon = True
        self.guard.start()

    def feed(self):
        try:
            with self.process.stdin as pipe:
                pipe.writelines(self.lines)
        except BrokenPipeError:
            pass

    def wait_acked(self, count):
        while self.acked < count:
            line = self.process.stdout.readline()
            assert line == "%d\n" % (self.acked + 1), "acknowledged %r" % line
            self.acked += 1

    def kill(self):
        self.process.kill()
        self.wait()

    def finish(self):
        self.wait_acked(len(self.lines))
        assert self.wait() == 0, "ended with %d" % self.process.returncode

    def wait(self):
        status = self.process.wait()
        self.guard.cancel()
        self.feeder.join(PATIENCE)
        self.process.stdout.close()
        return status


def expected_event(event, balance):
    cause = {"causationid": event["id"], "correlationid": event.get("correlationid", event["id"])}
    if "traceparent" in event:
        cause["traceparent"] = event["traceparent"]
    return {"key": event["data"]["account"], "payload": balance, "headers": cause}


def check(lines, database):
    """Each payment was booked once, and caused one event, which says so."""
    events = {e["id"]: e for e in map(json.loads, lines)}
    sums = collections.Counter()
    found = database.events("balances")
    assert sorted(e["headers"]["causationid"] for e in found) == sorted(events)
    for got in found:
        event = events[got["headers"]["causationid"]]
        account = event["data"]["account"]
        sums[account] += event["data"]["amount"]
        expected = expected_event(event, {"account": account, "amount": sums[account]})
        assert got == expected, "%r instead of %r" % (got, expected)
    balances = {row["account"]: row["amount"] for row in database.rows("SELECT * FROM balance")}
    assert balances == sums, "%r instead of %r" % (balances, sums)
