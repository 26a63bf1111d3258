#!/usr/bin/env python3
"""Kafka, at least once: what arrives, in which order and form, and what is
refused without harm to the rest."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "kafka"))
from rig import Broker, Tap, driver  # noqa: E402

tap = Tap()


def test_form():
    """An event as a message"""
    broker.create("shop.orders", 1)
    with broker.publisher(server={"topic_prefix": "shop."}, source="/db/shop") as p:
        tap.same(p.wait_ready(), {"version": 1, "knows_position": False, "last_seq": 0},
                 "ready, without a position")
        p.send_event(41, topic="orders", key="k", type="order.created", position=7,
                     payload=b'{"a": "\xc3\xa9"}', time_us=1790000000123456,
                     headers={"traceparent": "00-ab-cd-01", "baggage": "x=y",
                              "tenant": "acme", "id": "forged"})
        p.send_event(42, topic="orders", key="k", payload=None)
        p.send_event(43, topic="orders", payload=b"\x00\xff", content_type="application/octet-stream")
        p.send_event(44, topic="orders", payload=b"", content_type="text/plain", key="")
        p.send_event(9, topic="orders", flags=driver.JSON | driver.RETRY)
        p.wait_message("T")
        p.wait_ack(44)
        tap.same(p.stop(), 0, "ends with status 0")
    records = broker.dump("shop.orders")
    tap.same([r["headers"] for r in records[:1]], [[
        ["ce_specversion", "1.0"],
        ["ce_id", "01900000-0000-7000-8000-000000000029"],
        ["ce_source", "/db/shop"],
        ["ce_type", "order.created"],
        ["ce_time", "2026-09-21T14:13:20.123456Z"],
        ["ce_sequence", "41"],
        ["ce_topic", "orders"],
        ["ce_position", "7"],
        ["ce_partitionkey", "k"],
        ["content-type", "application/json"],
        ["traceparent", "00-ab-cd-01"],
        ["baggage", "x=y"],
        ["ce_tenant", "acme"]]], "the headers of an event; it cannot forge its envelope")
    tap.same([(r["key"], r["value"], r["timestamp"]) for r in records[:1]],
             [("k", '{"a": "\u00e9"}', 1790000000123)], "key, value and time")
    tap.same([(r["key"], r["value"], "content-type" in r["h"]) for r in records[1:2]],
             [("k", None, False)], "a tombstone has no value and no content type")
    tap.same([(r["key"], r["value"], r["h"]["content-type"]) for r in records[2:4]],
             [(None, {"base64": "AP8="}, "application/octet-stream"), ("", "", "text/plain")],
             "bytes, no key, empty value and empty key are told apart")
    tap.same(records[1]["h"]["ce_type"], "orders", "the type of an event without one is its topic")
    tap.same([(r["seq"], r["h"].get("ce_redelivered")) for r in records[4:]], [(9, "true")],
             "a dead letter sent again says so")


def test_order():
    """Many events over many partitions"""
    broker.create("many", 6)
    keys = ["key-%d" % i for i in range(97)]
    with broker.publisher() as p:
        p.wait_ready()
        for start in range(1, 20001, 500):
            p.send(b"".join(driver.event_frame(seq, topic="many", key=keys[seq % 97])
                            for seq in range(start, start + 500)))
        p.wait_ack(20000)
        p.stop()
        acks = [m["number"] for m in p.messages("A")]
    records = broker.dump("many")
    tap.same(sorted(r["seq"] for r in records), list(range(1, 20001)), "all arrive, once")
    tap.ok(len({r["partition"] for r in records}) == 6, "on all partitions")
    tap.ok(all([r["seq"] for r in records if r["key"] == key]
               == [seq for seq in range(1, 20001) if keys[seq % 97] == key] for key in keys),
           "each key in order")
    tap.ok(acks == sorted(acks), "acknowledged in order")


def check_refusal(name, topic, mode, seqs, refused, p):
    tap.same(sorted(m["seq"] for m in p.messages("N")), sorted(refused),
             "%s, %s: the guilty are refused" % (name, mode))
    tap.ok(all(m["permanent"] and topic in m["reason"] for m in p.messages("N")),
           "%s, %s: for good, with the reason" % (name, mode))
    tap.same([seq for seq in dict.fromkeys(broker.seqs(topic))],
             [seq for seq in seqs if seq not in refused],
             "%s, %s: all others arrive in order" % (name, mode))
    if mode == "exactly_once":
        got = broker.seqs(topic)
        tap.same(len(got), len(set(got)), "%s: and once" % name)


def refusal(name, mode, events, refused, before=None, after_ack=None, **configs):
    topic = "%s.%s" % (name.replace(" ", "-"), mode)
    broker.create(topic, 1, **configs)
    with broker.publisher(server={"guarantee": mode}, identity=topic) as p:
        p.wait_ready()
        if before:
            before(p, topic)
        p.send(b"".join(driver.event_frame(seq, topic=topic, **fields)
                        for seq, fields in events))
        p.wait_ack(events[-1][0])
        p.stop()
        check_refusal(name, topic, mode, ([1] if before else []) + [seq for seq, _ in events],
                      refused, p)
        return p


def each_mode(test):
    for mode in ("at_least_once", "exactly_once"):
        test(mode)


def test_too_large():
    """Events too large for their topic, in the middle of a batch"""
    def run(mode):
        events = [(seq, {"key": "k", "payload": b'"%s"' % (b"x" * (200000 if seq in (50, 51, 90) else 100))})
                  for seq in range(1, 101)]
        p = refusal("too large", mode, events, [50, 51, 90], max_message_bytes=100000)
        tap.ok(all("100000" in m["reason"] for m in p.messages("N")),
               "%s: the reason names the limit" % mode)
        tap.ok(not any("starting a new" in m["text"] for m in p.messages("L")),
               "%s: found without trying" % mode)
    each_mode(run)


def test_exact_limit():
    """The size that is computed is the size that the broker sees"""
    def run(mode):
        topic = "exact." + mode
        broker.create(topic, 1, max_message_bytes=20000)
        with broker.publisher(server={"guarantee": mode}, identity=topic) as p:
            p.wait_ready()
            for seq in range(1, 801):
                p.send_event(seq, topic=topic, key="k", headers={"h": "v" * (seq % 130)},
                             payload=b"x" * (19200 + seq), content_type="text/plain")
            p.wait_ack(800)
            p.stop()
            refused = [m["seq"] for m in p.messages("N")]
            tap.ok(0 < len(refused) < 800, "%s: some fit, some do not" % mode)
            tap.ok(not any("starting a new" in m["text"] for m in p.messages("L")),
                   "%s: the broker took each that was sent" % mode)
        tap.same(sorted(refused + broker.seqs(topic)), list(range(1, 801)),
                 "%s: each event is one or the other" % mode)
    each_mode(run)


def test_limit_lowered():
    """A limit that is lowered behind the publisher's back"""
    def run(mode):
        def lower(p, topic):
            p.send_event(1, topic=topic, key="k")
            p.wait_ack(1)
            broker.tool("alter", topic, "max.message.bytes=5000")
        events = [(seq, {"key": "k", "payload": b'"%s"' % (b"x" * (9000 if seq in (30, 60) else 200))})
                  for seq in range(2, 201)]
        refusal("lowered", mode, events, [30, 60], before=lower)
    each_mode(run)


def test_compacted():
    """A compacted topic takes nothing without a key"""
    def run(mode):
        events = [(seq, {"key": None if seq == 5 else "k%d" % seq}) for seq in range(1, 11)]
        refusal("compacted", mode, events, [5], cleanup_policy="compact")
    each_mode(run)


def test_timestamp():
    """A rule of the topic that the publisher does not know beforehand"""
    def run(mode):
        def first(p, topic):
            p.send_event(1, topic=topic, key="k")
            p.wait_ack(1)
        events = [(seq, {"key": "k", "time_us": 4000000000000000 if seq in (7, 20) else 1790000000000000})
                  for seq in range(2, 31)]
        refusal("timestamp", mode, events, [7, 20], before=first,
                message_timestamp_after_max_ms="3600000")
    each_mode(run)


def test_no_topic():
    """Topics that are not there, or cannot be"""
    def run(mode):
        broker.create("there." + mode)
        with broker.publisher(server={"guarantee": mode}, identity="no-topic-" + mode) as p:
            p.wait_ready()
            p.send_event(1, topic="there." + mode)
            p.send_event(2, topic="not.there." + mode)
            p.send_event(3, topic="not/legal")
            p.send_event(4, topic="there." + mode)
            p.wait_ack(4)
            p.stop()
            tap.same([(m["seq"], m["permanent"]) for m in p.messages("N")],
                     [(2, True), (3, True)], "%s: refused" % mode)
            tap.ok("does not exist" in p.messages("N")[0]["reason"]
                   and "cannot exist" in p.messages("N")[1]["reason"], "%s: with the reason" % mode)
        tap.same(broker.seqs("there." + mode), [1, 4], "%s: the others arrive" % mode)
    each_mode(run)


def test_names():
    """Topics whose names Kafka does not take"""
    def run(mode):
        names = [".", "..", "x" * 250, "a b", "\u00e9"]
        with broker.publisher(server={"guarantee": mode}, identity="names-" + mode) as p:
            p.wait_ready()
            for seq, name in enumerate(names, 1):
                p.send_event(seq, topic=name)
            p.wait_ack(len(names))
            p.stop()
            tap.same([(m["seq"], m["permanent"], "cannot exist" in m["reason"]) for m in p.messages("N")],
                     [(seq, True, True) for seq in range(1, len(names) + 1)], "%s: refused" % mode)
    each_mode(run)
    # The prefix counts.
    with broker.publisher(server={"topic_prefix": "p" * 10}) as p:
        p.send_event(1, topic="x" * 240)
        p.wait_ack(1)
        tap.ok("cannot exist" in p.messages("N")[0]["reason"], "with the prefix it is too long")


def test_own_limit():
    """A limit of the server, below that of the topic"""
    def run(mode):
        topic = "own.limit." + mode
        broker.create(topic)
        with broker.publisher(server={"guarantee": mode, "message.max.bytes": "5000"}, identity=topic) as p:
            p.wait_ready()
            for seq, size in ((1, 10), (2, 9000), (3, 4000)):
                p.send_event(seq, topic=topic, payload=b"x" * size, content_type="text/plain")
            p.wait_ack(3)
            p.stop()
            tap.same([(m["seq"], m["permanent"], "5000 at most (option message.max.bytes)" in m["reason"])
                      for m in p.messages("N")], [(2, True, True)], "%s: refused, by the name of the limit" % mode)
        tap.same(broker.seqs(topic), [1, 3], "%s: the others arrive" % mode)
    each_mode(run)


def fails_with(words, name, server=(), secrets=(), **config):
    with broker.publisher(server={"connect_timeout": "5000", **dict(server)}, secrets=secrets,
                          **config) as p:
        status = p.wait_end()
        nacks = p.messages("N")
        tap.same((status, len(nacks)), (1, 1), "%s: ends with a reason" % name)
        text = nacks[0]["reason"] if nacks else ""
        if not tap.ok(words in text, "%s: \"%s\"" % (name, words)):
            tap.note(text)
        return p


def everything_said(p):
    return repr(p.received) + p.stderr()


def test_wrong():
    """What cannot work says why"""
    fails_with('option "acks" is not known here', "a property that is not allowed",
               server={"acks": "0"})
    fails_with("must be one of", "a wrong value", server={"compression.type": "brotli"})
    fails_with("do not make a Kafka producer", "SASL without a user",
               server={"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"})
    fails_with("no Kafka broker answered", "no broker", server={"brokers": "127.0.0.1:1"})
    with broker.publisher(server={"guarantee": "exactly_once", "position_topic": "not/legal"}, identity="illegal") as p:
        tap.same(p.wait_end(), 1, "a topic for positions that cannot be ends it")
        tap.ok('Kafka topic "not/legal"' in p.messages("N")[0]["reason"] and not p.messages("R"),
               "which is told before READY")
    fails_with("no Kafka broker answered", "a secure broker without TLS",
               server={"brokers": secure, "connect_timeout": "2000"})


def test_secure():
    """TLS and SASL"""
    ca = broker.read("ca.pem")
    options = {"brokers": secure, "security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN",
               "ssl.ca.pem": ca, "ssl.endpoint.identification.algorithm": "https"}
    secrets = {"username": "eo", "password": "eo-secret-word"}
    broker.create("private")
    for mode in ("at_least_once", "exactly_once"):
        with broker.publisher(server={**options, "guarantee": mode}, secrets=secrets,
                              identity="secure") as p:
            p.wait_ready()
            p.send_event(1, topic="private")
            p.wait_ack(1)
            p.stop()
            tap.ok("eo-secret-word" not in everything_said(p), "%s: no secret is said" % mode)
    tap.same(broker.seqs("private"), [1, 1], "events arrive through TLS and SASL")
    p = fails_with("uthentication", "a wrong password", server=options,
                   secrets={"username": "eo", "password": "wrong-secret"})
    tap.ok("wrong-secret" not in everything_said(p), "which is not said")
    fails_with("certificate", "an authority that is not ours", secrets=secrets,
               server={**options, "ssl.ca.pem": other_ca})
    fails_with("ssl.key.pem", "a key that is none", server=options,
               secrets={**secrets, "ssl.key.pem": "not-a-key-but-secret"})


with Broker("--secure", "auto.create.topics.enable=false") as broker, \
        Broker("--secure") as other:
    secure = broker.read("bootstrap.secure").strip()
    other_ca = other.read("ca.pem")
    other.stop("--now")
    status = tap.run(test_form, test_order, test_too_large, test_exact_limit, test_limit_lowered,
                     test_compacted, test_timestamp, test_no_topic, test_names,
                     test_own_limit, test_wrong, test_secure)
sys.exit(status)
