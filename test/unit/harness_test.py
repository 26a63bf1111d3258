#!/usr/bin/env python3
"""harness_test.py

The main loop that all publishers share, driven through the stub publisher:
protocol errors, acknowledgements, endings.  EO_BUILD names the folder of the
executables; unit/ below it holds those with sanitizers, which are used.
"""

import os
import platform
import random
import re
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap
from publisher_driver import (Ended, Publisher, RETRY, config_frame, event_frame, frame)

BUILD = os.environ.get("EO_BUILD", "build")
STUB = os.path.join(BUILD, "unit", "eo-publish-stub")
PLAIN_STUB = os.path.join(BUILD, "eo-publish-stub")


def stub(script="", **more):
    return Publisher(STUB, subscription_options={"script": script}, **more)


def events(first, last, **fields):
    return b"".join(event_frame(seq, **fields) for seq in range(first, last + 1))


def expect_error(data, text, configure=True):
    """That what the relay sends ends the publisher with status 1 and a line."""
    with Publisher(STUB, configure=configure) as p:
        try:
            p.send(data)
        except Ended:
            pass
        status = p.wait_end()
        assert status == 1, "status %d, %s" % (status, p.stderr())
        lines = p.stderr().splitlines()
        assert len(lines) == 1 and text in lines[0], lines
        assert lines[0].startswith("eo-publish-stub: protocol error: "), lines


def test_ready():
    """READY is the answer to the configuration"""
    with stub() as p:
        assert p.wait_ready() == {"version": 1, "knows_position": False, "last_seq": 0}
        assert len(p.received) == 1
        assert p.stop() == 0
        assert p.stderr() == ""


def test_position():
    """READY carries the position that the broker knows"""
    with stub("position:77") as p:
        assert p.wait_ready() == {"version": 1, "knows_position": True, "last_seq": 77}


def test_before_config():
    """an event, a PING or STOP before the configuration is an error"""
    expect_error(event_frame(1), "before the configuration", configure=False)
    expect_error(frame("P", bytes(8)), "before the configuration", configure=False)
    expect_error(frame("S"), "before the configuration", configure=False)


def test_bad_config():
    """a malformed, repeated or foreign configuration is an error"""
    expect_error(config_frame()[:-4] + b"\0\0\0\1", "malformed configuration", configure=False)
    expect_error(config_frame(), "second configuration")
    expect_error(config_frame(version=2), "version 2, this publisher 1", configure=False)


def test_bad_frames():
    """malformed frames of every kind are errors"""
    expect_error(b"\0\0\0\0\0\0\0\0", "frame length")
    expect_error(b"\xff\xff\xff\xffE", "frame length")
    expect_error(frame("z"), "unknown type 0x7a")
    expect_error(frame("A", bytes(8)), "unknown type 0x41")
    expect_error(frame("F", b"x"), "with a body")
    expect_error(frame("S", b"x"), "with a body")
    expect_error(frame("P", b"1234567"), "malformed ping")
    expect_error(frame("E", b"x"), "malformed event")
    expect_error(frame("E", event_frame(1)[5:] + b"x"), "malformed event")


def test_order():
    """a seq that does not increase is an error"""
    expect_error(event_frame(5) + event_frame(5), "event 5 came after event 5")
    expect_error(event_frame(5) + event_frame(4), "event 4 came after event 5")


def test_retry():
    """an event sent again is answered by itself and moves nothing"""
    with stub() as p:
        p.send(event_frame(10) + event_frame(3, flags=RETRY) + event_frame(10, flags=RETRY) +
               event_frame(900, flags=RETRY) + event_frame(11))
        p.wait_ack(11)
        assert [m["number"] for m in p.messages("T")] == [3, 10, 900]
        assert set(m["number"] for m in p.messages("A")) <= {10, 11}
        assert p.stop() == 0
        assert p.acked == 11


def test_retry_refused():
    """an event sent again may be refused again"""
    with stub("nack:permanent,no@retry") as p:
        p.send(event_frame(10) + event_frame(3, flags=RETRY))
        assert p.wait_message("N") == {"seq": 3, "permanent": True, "reason": "no"}
        p.wait_ack(10)
        assert p.messages("T") == []


def test_coalescing():
    """one ACK stands for many events, and ACKs rise"""
    with stub() as p:
        p.send(events(1, 20000))
        p.wait_ack(20000)
        acks = [m["number"] for m in p.messages("A")]
        assert acks == sorted(set(acks)) and len(acks) < 4000, len(acks)


def test_out_of_order():
    """an ACK never passes an event that is not settled"""
    with stub("hold@3") as p:
        p.send(events(1, 10))
        p.ping(1)
        p.wait_ack(2)
        assert p.acked == 2
        p.flush()
        p.wait_ack(10)


def test_refused():
    """a refusal comes before the ACK that covers it"""
    with stub("nack:permanent,too large@3-4") as p:
        p.send(events(1, 5))
        p.wait_ack(5)
        kinds = [(m.type, m.values.get("seq", m.values.get("number"))) for m in p.received]
        for seq in (3, 4):
            assert ("N", seq) in kinds
            covering = [i for i, (kind, n) in enumerate(kinds) if kind == "A" and n >= seq]
            assert kinds.index(("N", seq)) < covering[0], kinds
        assert p.messages("N")[0] == {"seq": 3, "permanent": True, "reason": "too large"}


def test_retryable():
    """a failure acknowledges what is done, names the oldest event and exits"""
    with stub("ack:100;nack:retry,broker away") as p:
        p.send(events(1, 150))
        assert p.wait_end() == 1
        assert p.acked == 100
        assert p.messages("N") == [{"seq": 101, "permanent": False, "reason": "broker away"}]
        assert p.stderr() == ""


def test_failed_open():
    """a failure to connect is told without READY"""
    with stub("fail:no such host") as p:
        assert p.wait_end() == 1
        assert p.received[0] == ("N", {"seq": 0, "permanent": False, "reason": "no such host"})
        assert len(p.received) == 1


def test_pieces():
    """frames may come in any pieces"""
    data = config_frame() + events(1, 40) + frame("P", struct.pack(">q", 7)) + events(41, 50)
    seed = random.SystemRandom().randrange(1 << 32)
    print("# seed %d" % seed)
    pieces = random.Random(seed)
    with Publisher(STUB, configure=False) as p:
        at = 0
        while at < len(data):
            n = pieces.choice((1, 2, 3, 5, 50, 500))
            p.send(data[at:at + n])
            at += n
        p.wait_ack(50)
        assert p.messages("O") == [{"number": 7}]


def test_large_event():
    """events far larger than any buffer arrive, small ones between them"""
    with stub("log") as p:
        for seq in range(1, 7):
            p.send_event(seq, payload=b"x" * (20_000_000 if seq % 2 else 10), flags=0,
                         content_type="application/x")
        p.wait_ack(6)
        assert [m["text"].split()[1] for m in p.messages("L") if m["text"].startswith("event")] \
            == ["seq=%d" % seq for seq in range(1, 7)]


def test_both_full():
    """neither direction waits for the other"""
    with stub("nack:permanent," + "x" * 500) as p:
        p.wait_ready()
        # Nothing is read here while more goes in than both sockets can hold.
        p.socket.settimeout(p.limit)
        p.socket.sendall(events(1, 20000))
        p.wait_ack(20000)
        assert [m["seq"] for m in p.messages("N")] == list(range(1, 20001))


def test_log_limit():
    """log lines are dropped, and counted, rather than stored without bound"""
    with stub("log") as p:
        p.wait_ready()
        p.socket.settimeout(p.limit)
        p.socket.sendall(events(1, 20000, payload=b'"' + b"x" * 300 + b'"'))
        p.wait_ack(20000)
        p.send(events(20001, 20001))
        p.wait_ack(20001)
        texts = [m["text"] for m in p.messages("L")]
        told = sum(t.startswith("event") for t in texts)
        dropped = sum(int(t.split()[0]) for t in texts if "dropped" in t)
        assert dropped > 0 and told + dropped == 20001, (told, dropped)


def test_eof():
    """end of file ends it with status 0, also while it is busy or waits"""
    for script in ("", "busy@2", "stall@2"):
        with stub(script) as p:
            p.send(events(1, 3))         # in one piece, so that 2 is known with 1
            p.wait_ack(1)
            assert p.close() == 0, script
            assert p.stderr() == ""
    with stub("log;noready") as p:
        p.wait_message("L")
        assert p.close() == 0


def test_busy():
    """a busy publisher takes the same event later, and everything in order"""
    with stub("log;busy:3@3") as p:
        p.send(events(1, 5))
        p.wait_ack(5)
        told = [m["text"].split()[1] for m in p.messages("L") if m["text"].startswith("event")]
        assert told == ["seq=%d" % seq for seq in range(1, 6)], told
    with stub("log;busy@3") as p:
        p.send(events(1, 5) + frame("P", bytes(8)))
        p.wait_ack(2)
        assert p.messages("O") == []


def test_stop():
    """STOP flushes, acknowledges, counts and exits with 0"""
    with stub("hold") as p:
        p.send(events(1, 1000, payload=b"12345"))
        assert p.stop() == 0
        assert p.acked == 1000
        assert p.messages("I")[-1] == {"events": 1000, "bytes": 5000, "retries": 0}


def test_idle():
    """an idle publisher waits without a time limit"""
    with stub() as p:
        p.send(events(1, 100))
        p.wait_ack(100)
        # poll(fds, 2, -1) on x86-64, ppoll(fds, 2, NULL, ...) elsewhere
        pattern = (r"^7 \S+ 0x2 0xffffffff" if platform.machine() == "x86_64"
                   else r"^73 \S+ 0x2 0x0 ")
        deadline = time.monotonic() + p.limit
        while True:
            with open("/proc/%d/syscall" % p.process.pid) as state:
                now = state.read()
            if re.match(pattern, now):
                break
            assert time.monotonic() < deadline, now


def test_secrets():
    """secrets do not stay in memory"""
    secret = b"7h1s-1s-a-s3cr3t"
    control = b"this-stays-in-the-script"
    with Publisher(PLAIN_STUB, secrets={"password": secret}, subscription_options={
            "script": "log;nack:permanent,%s@99" % control.decode()}) as p:
        p.wait_ready()
        assert any("secret password of 16 bytes" in m["text"] for m in p.messages("L"))
        found = set()
        with open("/proc/%d/maps" % p.process.pid) as maps, \
                open("/proc/%d/mem" % p.process.pid, "rb", 0) as memory:
            for line in maps:
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                if " rw" in line:
                    memory.seek(start)
                    content = memory.read(end - start)
                    found |= {t for t in (secret, control) if t in content}
        assert found == {control}, found


def test_stub_endings():
    """the stub ends as told, with acknowledgements sent before"""
    for script, status in (("exit:3@5", 3), ("die:9@5", -9), ("die:15@5", -15), ("abort@5", -6)):
        with Publisher(PLAIN_STUB, subscription_options={"script": script}) as p:
            p.send(events(1, 4))
            p.send(events(5, 10))
            assert p.wait_end() == status, script
            assert p.acked == 4, script
    with stub("vanish@5") as p:
        p.send(events(1, 10))
        assert p.wait_end() == -9


def test_stub_breaches():
    """the stub breaks the protocol as told"""
    ready = frame("R", struct.pack(">I?q", 1, False, 0))
    wire = {"garbage": b"z", "zeroframe": b"\0\0\0\0\0\0\0\0", "hugeframe": b"\xff\xff\xff\xffA",
            "shortframe": b"\0\0\0\5A\0\0\0\0", "forge": frame("A", struct.pack(">q", 1000002)),
            "backwards": frame("A", struct.pack(">q", 2)) * 2,
            "retried": frame("T", struct.pack(">q", 2)),
            "ready@0": ready + ready,
            "version:9@0": frame("R", struct.pack(">I?q", 9, False, 0))}
    for script, expected in wire.items():
        with stub(script if "@" in script else script + "@2") as p:
            p.socket.settimeout(p.limit)
            p.socket.sendall(events(1, 2))
            got = b""
            while expected not in got:
                data = p.socket.recv(65536)
                assert data, "%s: %r" % (script, got)
                got += data


def test_stub_script():
    """a script that is not understood is refused"""
    for script in ("what", "ack:x", "nack:retry@x", "log@3"):
        with stub(script) as p:
            assert p.wait_end() == 1
            assert "script" in p.messages("N")[0]["reason"]


tap.main(globals())
