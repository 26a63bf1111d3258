"""
arrival

An event as a consumer has received it.
"""
import hashlib
import json
from typing import NamedTuple


class Arrival(NamedTuple):
    stream: str             # within which seq rises
    seq: int
    position: int
    topic: str
    event_id: str
    type: str
    key: str
    payload: dict

    @property
    def made(self):
        """Whether load.make() or load.mark() has enqueued it; else it is a change of a captured table."""
        return bool(self.payload) and "txn" in self.payload

    @property
    def claim(self):
        """
        What must have been committed where it is received: itself, by its id;
        or of a change the transaction that made it; or the marker that it is.
        """
        if self.made:
            return self.payload["id"]
        note = (self.payload or {}).get("note")
        return note.get("new") if isinstance(note, dict) else note      # a delta has both sides

    @property
    def is_marker(self):
        return ".marker." in (self.claim or "")

    @property
    def digest(self):
        """Of the payload: the same as md5() of the jsonb as text."""
        if self.payload is None:
            return None
        ordered = {name: self.payload[name] for name in sorted(self.payload, key=lambda name: (len(name.encode()), name))}
        return hashlib.md5(json.dumps(ordered, ensure_ascii=False).encode()).hexdigest()
