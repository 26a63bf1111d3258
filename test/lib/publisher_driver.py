"""publisher_driver.py

Plays the relay: starts a publisher over a socketpair and speaks frames with it.
Standard library only.  src/wire/PROTOCOL.md is the byte table.

    with Publisher("build/eo-publish-file", server={"path": "/tmp/x"}) as p:
        p.wait_ready()
        p.send_event(1, topic="orders", payload=b"{}")
        p.wait_ack(1)
        assert p.stop() == 0

A publisher that does not answer within the limit raises Timeout; one that ends
raises Ended.  Everything received stays in p.received, as Message tuples.
"""

import collections
import json
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

# Seconds, for whatever a publisher is waited for
LIMIT = int(os.environ.get("PG_TEST_TIMEOUT_DEFAULT") or 180)

RETRY = 1
JSON = 2
NULL = 0xFFFFFFFF

Message = collections.namedtuple("Message", "type values")


class Timeout(Exception):
    """The publisher did not answer in time."""


class Ended(Exception):
    """The publisher closed its end."""


def frame(kind, body=b""):
    return struct.pack(">IB", len(body) + 1, ord(kind)) + body


def put_bytes(value):
    if value is None:
        return struct.pack(">I", NULL)
    if isinstance(value, str):
        value = value.encode()
    return struct.pack(">I", len(value)) + value


def put_pairs(pairs):
    items = list(pairs.items() if isinstance(pairs, dict) else pairs)
    return struct.pack(">I", len(items)) + b"".join(
        put_bytes(str(name)) + put_bytes(value if isinstance(value, bytes) else str(value))
        for name, value in items)


def config_frame(server=(), secrets=(), subscription_options=(), subscription="test",
                 identity="eo/1/1/test", source="/test", published_seq=0, version=1):
    return frame("C", struct.pack(">I", version) + put_bytes(subscription) +
                 put_bytes(identity) + put_bytes(source) + struct.pack(">q", published_seq) +
                 put_pairs(server) + put_pairs(secrets) + put_pairs(subscription_options))


def event_id(seq):
    return struct.pack(">QQ", 0x0190_0000_0000_7000, (0x8000 << 48) + seq)


def event_frame(seq, topic="orders", payload=b"{}", key=None, type=None, headers=(),
                position=None, time_us=1790000000000000, flags=None, content_type=None, id=None):
    if isinstance(payload, (dict, list)):
        payload = json.dumps(payload).encode()
    if flags is None:
        flags = JSON if content_type is None and payload is not None else 0
    if content_type is None and payload is not None:
        content_type = "application/json"
    return frame("E", struct.pack(">Bqqq", flags, seq, position or seq, time_us) +
                 (id or event_id(seq)) + put_bytes(topic) + put_bytes(key) + put_bytes(type) +
                 put_bytes(content_type) + put_bytes(payload) + put_pairs(headers))


def _bytes_at(body, at):
    length, = struct.unpack_from(">I", body, at)
    return body[at + 4:at + 4 + length].decode(errors="replace")


def decode(kind, body):
    """The fields of a message from a publisher, as a dictionary."""
    if kind == "R":
        return dict(zip(("version", "knows_position", "last_seq"), struct.unpack(">I?q", body)))
    if kind in "ATO":
        return {"number": struct.unpack(">q", body)[0]}
    if kind == "N":
        seq, permanent = struct.unpack_from(">q?", body)
        return {"seq": seq, "permanent": permanent, "reason": _bytes_at(body, 9)}
    if kind == "L":
        return {"level": body[0], "text": _bytes_at(body, 1)}
    if kind == "I":
        return dict(zip(("events", "bytes", "retries"), struct.unpack(">qqq", body)))
    raise ValueError("message of unknown type %r" % kind)


class Publisher:
    """A running publisher, and the relay's end of its socket."""

    def __init__(self, executable, configure=True, limit=LIMIT, env=None, **config):
        self.limit = limit
        self.received = []
        self.acked = 0
        self.buffer = bytearray()
        self.stderr_file = tempfile.TemporaryFile()
        self.socket, theirs = socket.socketpair()
        argv = [executable] if isinstance(executable, str) else list(executable)
        self.process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=self.stderr_file, env=env)
        theirs.close()
        if configure:
            self.send(config_frame(**config))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends it for sure; returns its status."""
        self.socket.close()
        if self.process.poll() is None:
            try:
                self.process.wait(self.limit)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.process.wait(self.limit)

    def stderr(self):
        """What it wrote to stderr so far."""
        self.stderr_file.flush()
        size = os.fstat(self.stderr_file.fileno()).st_size
        return os.pread(self.stderr_file.fileno(), size, 0).decode(errors="replace")

    def send(self, data):
        """Sends it all, and takes in meanwhile what comes back."""
        view = memoryview(data)
        deadline = time.monotonic() + self.limit
        while view:
            readable, writable, _ = select.select(
                [self.socket], [self.socket], [], max(0, deadline - time.monotonic()))
            if not readable and not writable:
                raise Timeout("the publisher does not read")
            if readable:
                self._take()
            if writable:
                try:
                    view = view[self.socket.send(view, socket.MSG_DONTWAIT):]
                except BlockingIOError:
                    pass
                except (BrokenPipeError, ConnectionResetError):
                    raise Ended(self.stderr())

    def send_event(self, seq, **fields):
        self.send(event_frame(seq, **fields))

    def _status(self):
        try:
            return self.process.wait(1)
        except subprocess.TimeoutExpired:
            return None

    def _take(self):
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Ended("status %s, said %s, stderr %r" % (
                self._status(), self.received[-3:], self.stderr()))
        self.buffer += data
        while len(self.buffer) >= 5:
            length, kind = struct.unpack_from(">IB", self.buffer)
            if len(self.buffer) < length + 4:
                break
            body = bytes(self.buffer[5:length + 4])
            del self.buffer[:length + 4]
            message = Message(chr(kind), decode(chr(kind), body))
            self.received.append(message)
            if message.type == "A":
                self.acked = message.values["number"]

    def drain(self, seconds=0):
        """Takes what has come, waiting for more no longer than that."""
        while select.select([self.socket], [], [], seconds)[0]:
            self._take()

    def wait(self, condition, what="condition"):
        """Takes messages until condition() returns something true; returns that."""
        deadline = time.monotonic() + self.limit
        while True:
            result = condition()
            if result:
                return result
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise Timeout("waited for %s" % what)
            self._take()

    def messages(self, kind):
        return [m.values for m in self.received if m.type == kind]

    def wait_message(self, kind, count=1):
        """The values of the count-th message of that type."""
        return self.wait(lambda: self.messages(kind)[count - 1:count],
                         "message %s number %d" % (kind, count))[0]

    def wait_ready(self):
        return self.wait_message("R")

    def wait_ack(self, seq):
        self.wait(lambda: self.acked >= seq, "ACK of %d" % seq)
        return self.acked

    def wait_end(self):
        """Its status, once it has closed its end; takes what it still says."""
        try:
            self.wait(lambda: False, "its end")
        except Ended:
            pass
        return self.process.wait(self.limit)

    def ping(self, token):
        """Returns once everything sent before has been read."""
        self.send(frame("P", struct.pack(">q", token)))
        self.wait(lambda: {"number": token} in self.messages("O"), "PONG")

    def flush(self):
        self.send(frame("F"))

    def stop(self):
        """STOP, and its status."""
        self.send(frame("S"))
        return self.wait_end()
