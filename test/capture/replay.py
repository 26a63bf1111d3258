"""
replay

Rebuilds tables from their events, one by one in the order of seq, by what the
events say and nothing else, and is strict about it: what is inserted was not
there, what is updated or deleted was.
"""
import json
import re

# Numbers of JSON that Python would round are kept as texts with this before them.
EXACT = "\ue000"
EXACT_TEXT = re.compile('"%s([^"]*)"' % EXACT)
ESCAPED = re.compile(r"\\(.)")
UNESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}


def load(text):
    return json.loads(text, parse_float=lambda s: EXACT + s,
                      parse_int=lambda s: int(s) if len(s) < 18 else EXACT + s)


def dump(value):
    return EXACT_TEXT.sub(r"\1", json.dumps(value, ensure_ascii=False))


def field(text):
    """A field as COPY writes it."""
    if text == "\\N":
        return None
    if "\\" in text:
        return ESCAPED.sub(lambda m: UNESCAPED.get(m.group(1), m.group(1)), text)
    return text


# What the types of events end with in each mode.
OPS = {
    "fact": {"inserted", "updated", "deleted", "truncated"},
    "delta": {"inserted", "updated", "deleted", "truncated"},
    "changelog": {"inserted", "updated", "deleted"},
    "debezium": {"inserted", "updated", "deleted", "truncated"},
}


class Deviation(Exception):
    """The events do not fit what they are applied to."""


class Topic:
    """The rows that its events have left."""

    def __init__(self, table, mode):
        self.table = table
        self.mode = mode
        self.rows = {}
        self.tombstones = set()         # the keys of which one has to be the next event
        self.count = 0
        self.ops = {}                   # how many of each
        self.moves = 0                  # to another partition, under the same key
        self.gone = (None, None)        # the key and the partition of a row that was just deleted
        self.apply = getattr(self, mode)

    def take(self, key, kind, payload):
        self.count += 1
        if kind.rpartition(".")[0] != self.table.topic(self.mode):
            raise Deviation("type %s" % kind)
        op = kind.rpartition(".")[2]
        self.ops[op] = self.ops.get(op, 0) + 1
        self.apply(op, key, payload)

    def expect(self, key, there):
        if (key in self.rows) != there:
            raise Deviation("the row is %s there" % ("already" if not there else "not"))

    def fact(self, op, key, payload):
        if op == "truncated":
            if key is not None or payload != "{}":
                raise Deviation("not a truncation")
            self.rows.clear()
            return
        self.expect(key, op != "inserted")
        if op == "deleted":
            if self.rows.pop(key) != payload and not self.table.zoned:
                raise Deviation("another row than there was is deleted")
        else:
            self.rows[key] = payload
        if self.table.partition:
            place = self.table.partition(load(payload))
            # PostgreSQL deletes the row there and inserts it here
            self.moves += op == "inserted" and self.gone[0] == key and self.gone[1] != place
            self.gone = (key if op == "deleted" else None, place)

    def changelog(self, op, key, payload):
        self.expect(key, op != "inserted")
        if op not in ("inserted", "updated", "deleted") or (payload is None) != (op == "deleted"):
            raise Deviation("not of a changelog")
        if op == "deleted":
            del self.rows[key]
        else:
            self.rows[key] = payload

    def delta(self, op, key, payload):
        change = load(payload)
        if op == "truncated":
            if key is not None or change:
                raise Deviation("not a truncation")
            self.rows.clear()
            return
        self.expect(key, op != "inserted")
        if op == "inserted":
            self.rows[key] = {column: sides["new"] for column, sides in change.items()}
            return
        row = self.rows[key]
        if not change or op == "deleted" and set(change) != set(row):
            raise Deviation("not the columns that there are")
        for column, sides in change.items():
            if row[column] != sides["old"] and not self.table.zoned:
                raise Deviation("%s was %r" % (column, row[column]))
            if op == "updated":
                row[column] = sides["new"]
        if op == "deleted":
            del self.rows[key]

    def debezium(self, op, key, payload):
        # Not the topic's next: a long transaction is appended in batches, others between them.
        if key in self.tombstones:
            if payload is not None:
                raise Deviation("no tombstone")
            self.tombstones.remove(key)
            return
        envelope = load(payload)
        op = envelope["op"]
        if op == "t":
            self.rows.clear()
            return
        self.expect(key, op != "c")
        if op == "d":
            if envelope["after"] is not None or envelope["before"] != self.rows.pop(key):
                raise Deviation("another row than there was is deleted")
            self.tombstones.add(key)
        else:
            if envelope["before"] != (self.rows[key] if op == "u" else None):
                raise Deviation("another row than there was is updated")
            self.rows[key] = envelope["after"]

    def lines(self):
        """The rows as COPY reads them: key and JSON."""
        for key, row in self.rows.items():
            yield "%s\t%s" % (escape(key), escape(row if isinstance(row, str) else dump(row)))


def escape(text):
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text


class Replay:
    def __init__(self, tables):
        self.topics = {}
        for table in tables:
            for mode in ("fact", "delta", "changelog", "debezium"):
                self.topics[table.topic(mode)] = Topic(table, mode)
        self.seq = 0
        self.deviations = []
        self.kept = {}                  # the events of each topic
        self.keeping = True

    def take(self, line):
        """A line of COPY: seq, topic, key, type, payload."""
        seq, topic, key, kind, payload = line.rstrip("\n").split("\t")
        key, payload = field(key), field(payload)
        if int(seq) <= self.seq:
            raise Deviation("seq %s after %s" % (seq, self.seq))
        self.seq = int(seq)
        topic, kind = field(topic), field(kind)
        if self.keeping:
            self.kept.setdefault(topic, []).append((key, kind, payload))
        try:
            self.topics[topic].take(key, kind, payload)
        except (Deviation, KeyError, TypeError) as error:
            self.deviations.append("%s, seq %s, key %s, %s: %r\n%.300s" % (topic, seq, key, kind, error, payload))
