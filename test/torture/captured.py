"""
captured

A captured table as its events tell of it.  Each change of a row counts it up by
one, so an event that is missing, twice or out of its place does not follow from
the row as it was.
"""
MODES = {"load.account": "changelog", "load.fact": "fact", "load.delta": "delta"}


class Table:
    def __init__(self, topic):
        self.topic = topic
        self.mode = MODES[topic]
        self.rows = {}

    def change(self, arrival):
        """Applies it; returns in words what is wrong with it."""
        old = self.rows.get(arrival.key)
        kind = arrival.type.removeprefix(self.topic + ".")
        before, after = self.sides(kind, arrival.payload, old)
        if after is None:
            self.rows.pop(arrival.key, None)
        else:
            self.rows[arrival.key] = after
        if not self.follows(kind, old, before, after, arrival.key):
            return "%s of %s %s to %s, which was %s" % (kind, self.topic, arrival.key, arrival.payload, old)
        return None

    def sides(self, kind, payload, old):
        """The row before and after, as the event has it; what it does not tell is as it was."""
        if self.mode == "delta":
            before, after = ({name: change[side] for name, change in (payload or {}).items() if side in change} for side in ("old", "new"))
            if kind == "updated":
                return {**(old or {}), **before}, {**(old or {}), **after}
            return before or None, after or None
        if kind == "deleted":
            return (payload if self.mode == "fact" else old), (payload if self.mode == "changelog" else None)
        return old, payload

    @staticmethod
    def follows(kind, old, before, after, key):
        if before != old or (after and str(after.get("id")) != key):
            return False
        if kind == "read":
            return after is not None and after == old       # the row as it is, of a snapshot
        if kind == "deleted":
            return old is not None and after is None
        if not after or kind != ("updated" if old else "inserted"):
            return False
        return after.get("amount") == (old or {}).get("amount", 0) + 1

    def differences(self, rows):
        """Keys of which the table itself says otherwise; it is believed."""
        keys = sorted(key for key in self.rows.keys() | rows.keys() if self.rows.get(key) != rows.get(key))
        self.rows = dict(rows)
        return keys
