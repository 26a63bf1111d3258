#!/usr/bin/env python3
"""The request handlers of doc/examples, in five languages: a request that is
repeated, to whichever of them, is carried out once and gets the same answer; TAP."""
import json
import os
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import tap  # noqa: E402
from languages import NAMES, Languages  # noqa: E402
from server import PATIENCE, Server, wait_until  # noqa: E402

TWINS = 6


class Handler:
    """A running handler; post() returns the code and the bytes of an answer."""

    def __init__(self, language):
        self.process = subprocess.Popen(
            languages.command(language, "handler", database.url, "0"),
            env=database.shop_environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline().split()[-1])

    def post(self, key, body):
        request = urllib.request.Request("http://127.0.0.1:%d/payments" % self.port,
                                         data=body.encode(), method="POST")
        if key is not None:
            request.add_header("Idempotency-Key", key)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as reply:
            with reply:
                return reply.code, reply.read()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class LineHandler:
    """The one in C, which has no HTTP: a process for each request at a time."""

    def __init__(self):
        self.lock = threading.Lock()
        self.processes = []
        self.idle = queue.SimpleQueue()

    def start(self):
        process = subprocess.Popen(languages.command("c", "handler", database.url),
                                   env=database.shop_environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with self.lock:
            self.processes.append(process)
        return process

    def post(self, key, body):
        try:
            process = self.idle.get_nowait()
        except queue.Empty:
            process = self.start()
        process.stdin.write(("" if key is None else key + "\t") + body + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if line == "":
            raise ConnectionResetError("the handler ended")
        self.idle.put(process)
        code, response = line.rstrip("\n").split("\t")
        return int(code), response.encode()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
        self.processes = []
        self.idle = queue.SimpleQueue()


def start(language):
    return LineHandler() if language == "c" else Handler(language)


def payment(account, amount=5):
    return json.dumps({"account": account, "amount": amount})


def payments(account):
    """The numbers of an account's payments; each has its event."""
    paid = database.rows("SELECT id, amount FROM payment WHERE account = '%s' ORDER BY id"
                         % account)
    events = [e["payload"] for e in database.events("payments") if e["key"] == account]
    assert events == [{"account": account, "amount": p["amount"]} for p in paid], \
        "%r for %r" % (events, paid)
    return [p["id"] for p in paid]


def same(got, expected):
    assert got == expected, "%r instead of %r" % (got, expected)


def in_thread(function, *arguments):
    """Returns a function that waits for the result."""
    results = queue.SimpleQueue()

    def run():
        try:
            results.put(function(*arguments))
        except OSError as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    return lambda: results.get(timeout=PATIENCE)


def try_repeat(handler, account):
    """The first answer and the later ones, and other requests with that key."""
    code, answer = handler.post(account, payment(account))
    same((code, json.loads(answer)), (201, {"payment": payments(account)[0]}))
    same(handler.post(account, payment(account)), (201, answer))
    same(handler.post(account, payment(account, 6))[0], 422)
    same(handler.post(None, payment(account))[0], 400)
    same(handler.post(account, "nonsense")[0], 400)
    same(len(payments(account)), 1)


def try_twin(handler, account):
    """A twin that runs, and is rolled back."""
    key = account + "-twin"
    with database.session() as twin:
        twin.execute("BEGIN;")
        same(twin.execute("SELECT state FROM eo.idempotency_begin('payments', '%s', '%s');"
                          % (key, payment(key))), "new")
        same(handler.post(key, payment(key))[0], 409)
        twin.execute("ROLLBACK;")
        same(handler.post(key, payment(key))[0], 201)
    same(len(payments(key)), 1)


def try_twins(handler, account):
    """Many twins at once: one pays, and all that are not told to wait agree."""
    key = account + "-twins"
    waiting = [in_thread(handler.post, key, payment(key)) for _ in range(TWINS)]
    answers = {wait() for wait in waiting}
    answers.add(handler.post(key, payment(key)))
    same({code for code, _ in answers} - {409}, {201})
    same(len({answer for code, answer in answers if code == 201}), 1)
    same(len(payments(key)), 1)


def try_failure(handler, account):
    """Work that fails is not an answer to keep."""
    key = account + "-wrong"
    same(handler.post(key, payment(key, 0))[0], 500)
    same(handler.post(key, payment(key, 1))[0], 201)
    same(len(payments(key)), 1)


def try_kill(language, handler, account):
    """Killed in the middle of the work: the key is free again."""
    key = account + "-killed"
    with database.session() as session:
        session.execute("BEGIN;")
        session.execute("LOCK TABLE payment;")
        answer = in_thread(handler.post, key, payment(key))
        wait_until("the handler waits for the table", lambda: database.rows(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'shop' AND wait_event_type = 'Lock'"))
        handler.kill()
        assert isinstance(answer(), OSError)
    wait_until("its backend has ended", lambda: not database.rows(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'shop' AND state <> 'idle'"))
    handler = start(language)
    same(handler.post(key, payment(key))[0], 201)
    same(len(payments(key)), 1)
    return handler


def try_language(language):
    handler = start(language)
    try:
        before = database.disturbed()
        try_repeat(handler, language)
        try_twin(handler, language)
        try_twins(handler, language)
        try_failure(handler, language)
        handler = try_kill(language, handler, language)
        assert database.disturbed() != before, before
    finally:
        handler.kill()


def test_python():
    """Python, psycopg: a request is carried out once, with one answer"""
    try_language("python")


def test_node():
    """Node, pg: a request is carried out once, with one answer"""
    try_language("node")


def test_go():
    """Go, pgx: a request is carried out once, with one answer"""
    try_language("go")


def test_java():
    """Java, JDBC: a request is carried out once, with one answer"""
    try_language("java")


def test_c():
    """C, libpq: a request is carried out once, with one answer"""
    try_language("c")


def test_all():
    """what one has answered, the others answer"""
    handlers = [start(language) for language in NAMES]
    try:
        for first in NAMES:
            key = "by-" + first
            answers = [handlers[(NAMES.index(first) + i) % len(NAMES)].post(key, payment(key))
                       for i in range(len(NAMES))]
            same({code for code, _ in answers}, {201})
            same({json.loads(answer)["payment"] for _, answer in answers}, set(payments(key)))
    finally:
        for handler in handlers:
            handler.kill()


if __name__ == "__main__":
    work = os.environ["TESTDIR"]
    languages = Languages(os.path.join(work, "examples"))
    with Server(os.path.join(work, "server")) as server:
        database = server.database("handler")
        database.disturb("payment")
        tap.main(globals())
