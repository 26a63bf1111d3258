"""
mutate

Spoils streams of events, to prove that a replay notices.  Only where it could:
a fact that a later one of its key replaces leaves no trace.
"""
from replay import Deviation, Topic, dump, load

EXAMPLES = 15               # of each mutation in each topic


class Event:
    def __init__(self, key, kind, payload):
        self.key = key
        self.kind = kind
        self.payload = payload
        self.op = kind.rpartition(".")[2]
        self.next = None    # the index of the next event of its key
        self.last = False   # no other event tells of its key
        self.told = False   # it tells the old row, too, and that it is another
        self.lasts = False  # the rows at the end are other ones for it


def events_of(table, mode, records):
    """The events since the last truncation that knows no keys, each knowing what follows it."""
    events = [Event(*r) for r in records]
    following = {}
    start = 1 + max((i for i, e in enumerate(events) if e.key is None), default=-1)
    for index in reversed(range(start, len(events))):
        event = events[index]
        event.next = following.get(event.key)
        event.last = event.next is None
        event.told = event.op == "updated" and not (mode == "delta" and table.zoned) and tells_change(mode, event.payload)
        if event.next is not None and mode in ("fact", "changelog"):
            events[event.next].lasts &= events[event.next].payload != event.payload
        event.lasts = event.last and (mode in ("fact", "changelog") or mode == "delta" and event.op == "updated" and
                                      tells_change(mode, event.payload))
        following[event.key] = index
    return events, start


def tells_change(mode, payload):
    """Whether the old row, as JSON tells it, is told and is another one."""
    told = load(payload) if mode in ("delta", "debezium") else {}
    if mode == "debezium":
        return told["before"] != told["after"]
    return any(sides["old"] != sides["new"] for sides in told.values())


def lost(events, index):
    event = events[index]
    return (event.op != "updated" or event.told or event.lasts) and events[:index] + events[index + 1:]


def twice(events, index):
    event = events[index]
    return (event.op != "updated" or event.told) and events[:index] + [event] + events[index:]


def later(events, index):
    """Comes after the next one of its key."""
    event = events[index]
    # deltas of different columns come to the same in any order
    if event.next is None or event.op == "updated" and (not event.told or '"before"' not in event.payload):
        return None
    return events[:index] + events[index + 1:event.next + 1] + [event] + events[event.next + 1:]


def other_key(events, index):
    event = events[index]
    return events[:index] + [Event(event.key + "x", event.kind, event.payload)] + events[index + 1:]


def other_value(events, index):
    """One column of a new row has another value."""
    event = events[index]
    if event.payload is None or event.op == "deleted" or not (event.last or event.told):
        return None
    payload = load(event.payload)
    row = payload.get("after", payload)
    column = sorted(row)[index % len(row)]
    value = row[column]
    if isinstance(value, dict) and "new" in value:
        value["new"] = [value["new"]]
    else:
        row[column] = [value]
    return events[:index] + [Event(event.key, event.kind, dump(payload))] + events[index + 1:]


MUTATIONS = (lost, twice, later, other_key, other_value)


def outcome(table, mode, events):
    """The rows at the end; None: the replay has noticed that something is wrong."""
    topic = Topic(table, mode)
    try:
        for event in events:
            topic.take(event.key, event.kind, event.payload)
        return sorted(topic.lines()) if not topic.tombstones else None
    except (Deviation, KeyError, TypeError, AttributeError):
        return None


def unnoticed(table, mode, records, rng):
    """Returns how many streams were spoilt in each way, and those that nobody notices."""
    events, start = events_of(table, mode, records)
    right = outcome(table, mode, events)
    assert right is not None, table.topic(mode)
    tried = {}
    missed = []
    for mutation in MUTATIONS:
        indexes = list(range(start, len(events)))
        for index in rng.sample(indexes, min(len(indexes), EXAMPLES)):
            spoilt = mutation(events, index)
            if not spoilt:
                continue
            tried[mutation.__name__] = tried.get(mutation.__name__, 0) + 1
            if outcome(table, mode, spoilt) == right:
                missed.append("%s: %s of event %d, key %s, %s" % (
                    table.topic(mode), mutation.__name__, index, events[index].key, events[index].kind))
    return tried, missed
