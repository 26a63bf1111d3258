"""
wins

Why a peer is better than the extension in a row, where it is: what the report
says beside the figures.  By (metric, peer), or by metric for any peer; metrics
of a rate or of a part are named without it.
"""
import re

EMIT = ("pg_logical_emit_message writes the message to WAL and nowhere else: no event id, no place in a log"
        " that SQL can read, and reading it takes a replication slot.")
SERVER = ("The peer's relay is a program outside the server; ours is a background worker, and PostgreSQL restarts"
          " the whole server when one of those is killed with SIGKILL. The publisher, which is where"
          " Kafka's client runs and crashes, is a process of its own for this reason.")
TEXT = ("Its events are rows of text, without an id of their own beyond a number; ours are jsonb, with a uuid and"
        " a type.")

REASONS = {
    ("commit_us", "debezium-message"): EMIT,
    ("commit_cpu_us", "debezium-message"): EMIT,
    ("commit_wal", "debezium-message"): EMIT,
    ("wal", "debezium-message"): EMIT,
    ("disk_before", "debezium-message"): "The events are in WAL, which other transactions fill as well,"
                                          " and in no relation.",
    ("disk", "debezium-message"): "The events are in WAL, which is recycled, and in no relation.",
    **{(metric, name): TEXT for name in ("pgq", "pgque") for metric in ("disk_before", "commit_wal", "wal")},
    "failed": SERVER,
    ("resume_s", "relay"): SERVER,
    "first_s": "Starting is a matter of once; a backlog does not wait for it.",
}


def reason(metric, peer):
    """The most particular one."""
    general, _, suffix = metric.rpartition("_") if re.search(
        r"_(\d+|relay|publisher|ticker)$", metric) else (metric, "", "")
    for key in ((metric, peer), (general, peer), (general, suffix), metric, general):
        if key in REASONS:
            return REASONS[key]
    return "Not explained yet."
