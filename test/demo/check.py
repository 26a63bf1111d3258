"""
check

Compares what arrived with what the application committed.

compare() is given

    truth      {event id: (topic, key, n)}, as committed
    undone     set of event ids that were enqueued and rolled back
    arrived    list of Arrival, in the order of arrival within each stream

and returns a list of Finding, one per promise, each with the offenders.  All is
well when no finding has any.
"""
from collections import Counter, defaultdict, namedtuple

# stream: what keeps an order of its own (the file; a partition of a topic)
Arrival = namedtuple("Arrival", "stream event_id topic key n seq position")
Finding = namedtuple("Finding", "promise offenders")


def compare(truth, undone, arrived):
    times = Counter(a.event_id for a in arrived)
    return [
        Finding("lost", [e for e in truth if e not in times]),
        Finding("doubled", [e for e, n in times.items() if n > 1]),
        Finding("out of order", out_of_order(arrived)),
        Finding("rolled back, yet published", [e for e in times if e in undone]),
        Finding("never committed, yet published", [e for e in times if e not in truth]),
        Finding("changed on the way",
                [a.event_id for a in arrived
                 if a.event_id in truth and truth[a.event_id] != (a.topic, a.key, a.n)]),
        Finding("missing from the numbering", gaps(arrived)),
    ]


def out_of_order(arrived):
    """Within a stream seq rises; in the order of seq each key counts 1, 2, 3."""
    wrong = []
    last = {}
    for a in arrived:
        if a.seq <= last.get(a.stream, 0):
            wrong.append("seq %d after %d" % (a.seq, last[a.stream]))
        last[a.stream] = max(a.seq, last.get(a.stream, 0))
    expected = defaultdict(int)
    for a in sorted(set(arrived), key=lambda a: a.seq):
        expected[a.key] += 1
        if a.n != expected[a.key]:
            wrong.append("%s: number %d in place %d" % (a.key, a.n, expected[a.key]))
            expected[a.key] = a.n
    return wrong


def gaps(arrived):
    """Each topic's positions, in the order of seq, count 1, 2, 3."""
    wrong = []
    expected = defaultdict(int)
    for a in sorted(set(arrived), key=lambda a: a.seq):
        expected[a.topic] += 1
        if a.position != expected[a.topic]:
            wrong.append("%s: position %d in place %d"
                         % (a.topic, a.position, expected[a.topic]))
            expected[a.topic] = a.position
    return wrong
