#!/usr/bin/env python3
"""file_test.py

eo-publish-file: the form of a line, where it resumes after every kind of end,
what an operator may do to the file, and that a failing disk is never
acknowledged.  EO_BUILD names the folder of the executables.
"""

import base64
import json
import os
import random
import resource
import stat
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap
from publisher_driver import Ended, Publisher, RETRY, event_frame, frame

BUILD = os.environ.get("EO_BUILD", "build")
FILE = os.path.join(BUILD, "unit", "eo-publish-file")
PLAIN_FILE = os.path.join(BUILD, "eo-publish-file")
SHIM = os.path.abspath(os.path.join(BUILD, "unit", "fault_shim.so"))

scratch = tempfile.TemporaryDirectory(prefix="eo-file-test.")
count = 0


def new_path():
    global count
    count += 1
    return os.path.join(scratch.name, "%d.jsonl" % count)


def publisher(path, executable=FILE, source="/test", **more):
    return Publisher(executable, server={"path": path}, source=source, **more)


def publish(path, first, last, **fields):
    """Publishes that range; returns what READY said."""
    with publisher(path) as p:
        ready = p.wait_ready()
        p.send(b"".join(event_frame(seq, **fields) for seq in range(first, last + 1)))
        p.wait_ack(last)
        assert p.stop() == 0
    return ready


def position(path, **more):
    """What a publisher that starts now says that the file holds; None: nothing."""
    with publisher(path, **more) as p:
        ready = p.wait_ready()
        assert p.stop() == 0
    return ready["last_seq"] if ready["knows_position"] else None


def refusal(path, **more):
    """The reason with which a publisher refuses to start."""
    with publisher(path, **more) as p:
        assert p.wait_end() == 1
        nack, = p.messages("N")
        assert nack["seq"] == 0 and not nack["permanent"] and not p.messages("R")
        return nack["reason"]


def lines(path):
    with open(path, "rb") as file:
        content = file.read()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def sequences(path):
    return [int(line["sequence"]) for line in lines(path)]


def test_line():
    """a line has the attributes of CloudEvents and ours, and nothing else"""
    path = new_path()
    with publisher(path, source="/eo/shop \"1\"") as p:
        p.send(event_frame(7, key="k\u00e9", type="order.created", position=3,
                           payload={"a": [1, "\u20ac"]}, headers={"traceparent": "00-1-2-01"}))
        p.send(event_frame(8, payload=None))
        p.send(event_frame(9, payload=b"\0\xff", content_type="application/octet-stream"))
        p.send(event_frame(10, payload=b"plain \xe2\x82\xac", content_type="text/plain"))
        p.wait_ack(10)
    got = lines(path)
    common = {"specversion": "1.0", "source": "/eo/shop \"1\"", "topic": "orders",
              "time": "2026-09-21T14:13:20.000000Z"}
    identifier = "01900000-0000-7000-8000-%012x"
    assert got[0] == dict(common, id=identifier % 7, type="order.created", partitionkey="k\u00e9",
                          sequence="7", position=3, traceparent="00-1-2-01",
                          datacontenttype="application/json", data={"a": [1, "\u20ac"]})
    assert got[1] == dict(common, id=identifier % 8, type="orders", sequence="8", position=8,
                          data=None)
    assert got[2] == dict(common, id=identifier % 9, type="orders", sequence="9", position=9,
                          datacontenttype="application/octet-stream", data_base64="AP8=")
    assert got[3] == dict(common, id=identifier % 10, type="orders", sequence="10", position=10,
                          datacontenttype="text/plain", data="plain \u20ac")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_hostile_text():
    """whatever is in an event, a line stays one valid JSON object"""
    seed = random.SystemRandom().randrange(1 << 32)
    print("# seed %d" % seed)
    rnd = random.Random(seed)
    path = new_path()
    reserved = ["specversion", "id", "source", "type", "time", "partitionkey", "sequence",
                "topic", "position", "datacontenttype", "data", "data_base64", "redelivered"]

    def junk(limit=40):
        return bytes(rnd.choice((rnd.randrange(256), rnd.randrange(32), 0x22, 0x5c, 0xe2, 0x80))
                     for _ in range(rnd.randrange(limit)))

    expected = []
    with publisher(path) as p:
        for seq in range(1, 301):
            payload = junk(3000)
            expected.append(payload)
            names = rnd.sample(reserved, 3) + ["x%d\"\\\n" % n for n in range(rnd.randrange(4))]
            p.send(event_frame(seq, topic=junk(), key=junk(), type=junk(), payload=payload,
                               content_type=rnd.choice(("text/x", "a/b")), headers={n: junk() for n in names}))
        p.wait_ack(300)

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    with open(path, "rb") as file:
        got = [json.loads(line.decode("utf-8"), object_pairs_hook=unique) for line in file]
    assert [int(line["sequence"]) for line in got] == list(range(1, 301))
    for line, payload in zip(got, expected):
        data = (base64.b64decode(line["data_base64"]) if "data_base64" in line
                else line["data"].encode())
        assert data == payload


def test_large():
    """large payloads pass through, in each form"""
    path = new_path()
    text = b"abc\"\n" * 4_000_000
    with publisher(path) as p:
        p.send(event_frame(1, payload=text, content_type="text/plain"))
        p.send(event_frame(2, payload=text, content_type="a/b"))
        p.send(event_frame(3, payload=b"[" + b"1,\n" * 5_000_000 + b"1]"))
        p.send(event_frame(4))
        p.wait_ack(4)
    got = lines(path)
    assert got[0]["data"].encode() == text
    assert base64.b64decode(got[1]["data_base64"]) == text
    assert got[2]["data"] == [1] * 5_000_001
    with open(path, "r+b") as file:      # torn within the large line
        file.truncate(os.path.getsize(path) - 1_000_000)
    assert position(path) == 2
    assert sequences(path) == [1, 2]


def test_resume():
    """a publisher resumes from the last line of the file"""
    path = new_path()
    assert publish(path, 5, 9) == {"version": 1, "knows_position": False, "last_seq": 0}
    assert publish(path, 10, 10) == {"version": 1, "knows_position": True, "last_seq": 9}
    assert position(path) == 10
    assert sequences(path) == [5, 6, 7, 8, 9, 10]


def test_torn():
    """a torn last line is cut away, wherever it was torn"""
    path = new_path()
    publish(path, 1, 3, key="k")
    with open(path, "rb") as file:
        content = file.read()
    ends = [i + 1 for i, c in enumerate(content) if c == 10]
    sizes = sorted(set(range(0, len(content) + 1, 11)) | set(ends) | {e - 1 for e in ends} |
                   {e + 1 for e in ends[:-1]} | {0, 1})
    for size in sizes:
        with open(path, "wb") as file:
            file.write(content[:size])
        whole = sum(end <= size for end in ends)
        assert position(path) == (whole or None), size
        assert sequences(path) == list(range(1, whole + 1)), size


def test_zeros():
    """zeros that a power cut left are cut away, with what follows them"""
    path = new_path()
    publish(path, 1, 4)
    with open(path, "rb") as file:
        content = file.read()
    ends = [i + 1 for i, c in enumerate(content) if c == 10]
    for zeroed in (content + bytes(100_000), content + bytes(10) + b"\n",
                   content[:ends[3] - 20] + bytes(20),
                   content[:ends[3]] + bytes(50) + content[ends[2]:],
                   content[:ends[2] - 90] + bytes(80) + content[ends[2] - 10:]):
        with open(path, "wb") as file:
            file.write(zeroed)
        expected = 3 if zeroed[ends[3] - 1] == 0 else 4
        if bytes(1) in zeroed[:ends[2]]:
            expected = 2
        assert position(path) == expected
        assert sequences(path) == list(range(1, expected + 1))


def test_broken_line():
    """a last line that is no event is cut away, and that is told"""
    for end in (b"{}\n", b"x\n", b'{"specversion":"1.0","id":"x"}\n', b"\n"):
        path = new_path()
        publish(path, 1, 2)
        with open(path, "ab") as file:
            file.write(end)
        with publisher(path) as p:
            assert p.wait_ready()["last_seq"] == 2
            log, = p.messages("L")
            assert log["level"] == 2 and "torn end of %d bytes" % len(end) in log["text"]
        assert sequences(path) == [1, 2]


def test_redelivered():
    """dead letters that came again are marked and tell no position"""
    path = new_path()
    with publisher(path) as p:
        p.send(event_frame(4) + event_frame(5) + event_frame(2, flags=RETRY, payload=None) +
               event_frame(3, flags=RETRY, payload=None))
        p.wait_message("T", 2)
        p.wait_ack(5)
        assert p.stop() == 0
    assert position(path) == 5
    assert [line.get("redelivered") for line in lines(path)] == [None, None, True, True]
    path = new_path()
    with publisher(path) as p:
        p.send(event_frame(3, flags=RETRY, payload=None))
        p.wait_message("T")
    assert position(path) is None


def test_foreign_file():
    """a file that holds something else is refused and stays as it is"""
    for content in (b"hello\n", b"hello", b"\0" * 50, b'{"specversion":"1.0"}\n'):
        path = new_path()
        with open(path, "wb") as file:
            file.write(content)
        assert "holds something other than events" in refusal(path)
        with open(path, "rb") as file:
            assert file.read() == content


def test_other_source():
    """a file of another source is refused and stays as it is"""
    path = new_path()
    publish(path, 1, 2)
    before = os.path.getsize(path)
    for source in ("/tes", "/test2", "/"):
        assert "another source" in refusal(path, source=source), source
    assert os.path.getsize(path) == before and position(path) == 2


def test_not_a_file():
    """links, folders, pipes and missing folders are refused"""
    target = new_path()
    publish(target, 1, 1)
    os.symlink(target, target + ".link")
    assert "symbolic link" in refusal(target + ".link")
    assert "directory" in refusal(scratch.name)
    os.mkfifo(target + ".pipe")
    assert "not a regular file" in refusal(target + ".pipe")
    assert "No such file or directory" in refusal(scratch.name + "/none/x")
    assert "must be an absolute path" in refusal("relative")
    assert "must be an absolute path" in refusal("")
    assert "is too long" in refusal("/" + "x" * 4095)
    assert refusal("/" + "x" * 4094).startswith("could not open file")
    assert "is too long" in refusal("/tmp/x\0y")
    with Publisher(FILE) as p:
        assert p.wait_end() == 1
        assert "must be an absolute path" in p.messages("N")[0]["reason"]


def test_lock():
    """two publishers never write to one file"""
    path = new_path()
    with publisher(path) as p:
        p.send(event_frame(1))
        p.wait_ack(1)
        assert refusal(path) == "another process publishes to \"%s\"" % path
        p.send(event_frame(2))
        p.wait_ack(2)
        p.kill()
    assert position(path) == 2


def test_rotation():
    """a file that is renamed or removed is followed by a new one"""
    path = new_path()
    with publisher(path) as p:
        p.send(event_frame(1))
        p.wait_ack(1)
        os.rename(path, path + ".1")
        p.send(event_frame(2) + event_frame(3))
        p.wait_ack(3)
        os.unlink(path)
        p.send(event_frame(4))
        p.wait_ack(4)
        os.rename(path, path + ".2")
        open(path, "w").close()          # as logrotate's "create"
        p.send(event_frame(5))
        p.wait_ack(5)
        assert p.stop() == 0
    assert sequences(path + ".1") == [1]
    assert sequences(path + ".2") == [4]
    assert sequences(path) == [5] and position(path) == 5


def test_emptied():
    """a file that is emptied in place is gone on with; other changes are refused"""
    path = new_path()
    with publisher(path) as p:
        p.send(event_frame(1))
        p.wait_ack(1)
        os.truncate(path, 0)
        p.send(event_frame(2))
        p.wait_ack(2)
        assert sequences(path) == [2]
        with open(path, "ab") as file:
            file.write(b"not ours\n")
        p.send(event_frame(3))
        assert p.wait_end() == 1
        assert "changed by another process" in p.messages("N")[0]["reason"]
    assert position(path) == 2


def test_killed():
    """killed at any moment, it loses nothing and doubles nothing"""
    seed = random.SystemRandom().randrange(1 << 32)
    print("# seed %d" % seed)
    rnd = random.Random(seed)
    path = new_path()
    acked = 0
    last = 0
    for _ in range(40):
        with publisher(path, executable=PLAIN_FILE) as p:
            ready = p.wait_ready()
            start = ready["last_seq"] if ready["knows_position"] else 0
            assert start >= acked, "acknowledged %d, but the file ends with %d" % (acked, start)
            data = b"".join(event_frame(seq, payload=b'"%s"' % (b"x" * rnd.randrange(2000)))
                            for seq in range(start + 1, start + 400))
            at = 0
            end = rnd.randrange(len(data))
            while at < end:
                n = rnd.choice((10, 1000, 100_000))
                p.send(data[at:min(at + n, end)])
                at += n
            if rnd.random() < 0.5:
                p.drain()
            p.kill()
            try:
                p.drain()
            except Ended:
                pass
            acked = max(acked, p.acked)
        if rnd.random() < 0.5:           # the machine went down as well
            with open(path, "r+b") as file:
                size = os.path.getsize(path)
                floor = find_end_of(path, acked)
                file.truncate(rnd.randint(floor, size))
    last = position(path)
    assert last is not None and last >= acked > 0
    assert sequences(path) == list(range(1, last + 1))


def find_end_of(path, seq):
    """The offset behind the line of that event: so much is durable for sure."""
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            if seq == 0 or not line.endswith(b"\n"):
                break
            offset += len(line)
            if int(json.loads(line)["sequence"]) == seq:
                return offset
    assert seq == 0, "event %d is not in the file" % seq
    return 0


def test_failing_disk():
    """a failing write or sync is told, never acknowledged, and leaves whole lines"""
    for variable, reason in (("SHIM_SYNC", "could not sync"), ("SHIM_WRITE", "could not write to")):
        failures = 0
        for n in range(1, 9):
            path = new_path()
            environment = dict(os.environ, LD_PRELOAD=SHIM, **{variable: str(n)})
            acked = 0
            with publisher(path, executable=PLAIN_FILE, env=environment) as p:
                try:
                    for seq in range(1, 6):
                        p.send(event_frame(seq))
                        p.wait_ack(seq)
                    p.stop()
                except Ended:
                    pass
                acked = p.acked
                if p.messages("N"):
                    failures += 1
                    assert p.process.wait(p.limit) == 1
                    text = p.messages("N")[0]["reason"]
                    assert reason in text or "cannot be made durable" in text, text
            assert sequences(path) == list(range(1, acked + 1)), (variable, n, acked)
            if acked < 5:
                assert publish(path, acked + 1, 5)["last_seq"] == acked
            assert sequences(path) == [1, 2, 3, 4, 5]
        assert failures >= 4, failures


def test_failing_disk_under_load():
    """the same where a sync runs beside the writing of what comes next"""
    for n in range(1, 9):
        path = new_path()
        environment = dict(os.environ, LD_PRELOAD=SHIM, SHIM_SYNC=str(n))
        body = b'"%s"' % (b"x" * 2000)
        with publisher(path, executable=PLAIN_FILE, env=environment) as p:
            try:
                for start in range(1, 3001, 300):
                    p.send(b"".join(event_frame(seq, payload=body)
                                    for seq in range(start, start + 300)))
                    if start % 900 == 1:
                        p.wait_ack(start + 200)
                p.wait_ack(3000)
            except Ended:
                pass
            acked = p.acked
            failed = bool(p.messages("N"))
        assert failed or acked == 3000, (n, acked)
        assert failed or n > 3, n
        assert sequences(path) == list(range(1, acked + 1)), (n, acked)
        if acked < 3000:
            assert publish(path, acked + 1, 3000)["last_seq"] == acked
        assert sequences(path) == list(range(1, 3001))


def test_sync_beside_writing():
    """events are acknowledged when they are durable, under a load that does not pause"""
    path = new_path()
    body = b'"%s"' % (b"x" * 500)
    frames = [b"".join(event_frame(seq, payload=body) for seq in range(start, start + 1000))
              for start in range(1, 60001, 1000)]
    with publisher(path, executable=PLAIN_FILE) as p:
        for number, data in enumerate(frames):
            p.send(data)
            if number == 20:
                os.rename(path, path + ".1")
            if number == 40:
                os.rename(path, path + ".2")
        p.wait_ack(60000)
        assert p.stop() == 0
        files = [name for name in (path + ".1", path + ".2", path) if os.path.exists(name)]
    assert len(files) == 3, files
    assert sum((sequences(name) for name in files), []) == list(range(1, 60001))


def test_start_is_durable():
    """what the file holds at the start is made durable before it is claimed"""
    path = new_path()
    environment = dict(os.environ, LD_PRELOAD=SHIM)
    assert "could not sync directory" in refusal(
        path, executable=PLAIN_FILE, env=dict(environment, SHIM_FSYNC="1"))
    publish(path, 1, 2)
    assert "cannot be made durable" in refusal(
        path, executable=PLAIN_FILE, env=dict(environment, SHIM_SYNC="1"))
    assert position(path) == 2


def test_failing_cut():
    """a torn end that cannot be cut off is told, and nothing is put behind it"""
    path = new_path()
    environment = dict(os.environ, LD_PRELOAD=SHIM)
    with publisher(path, executable=PLAIN_FILE,
                   env=dict(environment, SHIM_WRITE="3", SHIM_TRUNCATE="1")) as p:
        for seq in range(1, 3):
            p.send(event_frame(seq))
            p.wait_ack(seq)
        p.send(event_frame(3))
        assert p.wait_end() == 1
        assert p.acked == 2
        reason = p.messages("N")[0]["reason"]
        assert "could not write to file" in reason and "torn end is left" in reason, reason
    with open(path, "rb") as file:
        torn = file.read()
    assert torn.count(b"\n") == 2 and not torn.endswith(b"\n")
    assert "torn end that cannot be cut off: Input/output error" in refusal(
        path, executable=PLAIN_FILE, env=dict(environment, SHIM_TRUNCATE="1"))
    with open(path, "rb") as file:
        assert file.read() == torn
    assert publish(path, 3, 5)["last_seq"] == 2
    assert sequences(path) == [1, 2, 3, 4, 5]


def test_full_disk():
    """a partial line is cut away when there is no room for more"""
    path = new_path()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        p = publisher(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    with p:
        try:
            for seq in range(1, 100):
                p.send(event_frame(seq))
        except Ended:
            pass
        assert p.wait_end() == 1
        assert "File too large" in p.messages("N")[0]["reason"]
        got = sequences(path)
        assert got == list(range(1, len(got) + 1)) and len(got) >= max(p.acked, 20)
    assert os.path.getsize(path) < 10_000
    last = len(got)
    assert publish(path, last + 1, last + 50)["last_seq"] == last
    assert sequences(path) == list(range(1, last + 51))


tap.main(globals())
