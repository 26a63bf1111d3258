"""
wins

Why a peer is better than the extension in a row, where it is: what the report
says beside the figures.  The most particular entry counts: by metric, with the
rate or part if it has one, and by peer, or by one of ours.
"""
import re

EMIT = ("pg_logical_emit_message writes the message to WAL and nowhere else: no event id, no place in a log"
        " that SQL can read, and reading it takes a replication slot.")
SERVER = ("The peer's relay is a program outside the server; ours is a background worker, and PostgreSQL restarts"
          " the whole server when one of those is killed with SIGKILL. The publisher, which is where"
          " Kafka's client runs and crashes, is a process of its own for this reason.")
TEXT = ("Its events are rows of text, without an id of their own beyond a number; ours are jsonb, with a uuid.")
EXACTLY_ONCE = ("Exactly once is a transaction of Kafka for each batch, which takes the broker some milliseconds and its"
                " readers until the end of it; no peer offers that.")

WAITS = ("An event that comes just after a batch has left waits for its answer, or 25 ms, and then for its own.")
SATURATED = (WAITS + " Where two processors were not enough for the load, that adds up: in six runs of six seconds"
             " the p99 was 26 ms where it came to 5,000/s, and 50 to 75 ms, once 231, where it came to 4,000 to 4,750/s."
             " That segments are emptied meanwhile made no difference.")
TICKS = "Its events wait for the next tick, a tenth of a second at most, and so leave in fewer batches; ours leave at once."
IDLE = "To gather what comes for longer would cost less, and take longer."

HEADERS = ("Its messages have no headers; ours carry those of CloudEvents, the position among them. Without them our relay and"
           " publisher took 5.5 us of processor for an event instead of 9.2, and a backlog of 600,000 left at 126,000 and"
           " 132,000/s instead of 106,000 and 74,000 (two rounds in turn, beside other load).")
START = ("50 to 100 ms of it are the pause before a publisher that has ended is started again, so that one that ends at"
         " once does not take a processor; the rest is starting, connecting and asking the broker for its topics.")
TAKEN_OVER = ("A new publisher takes the transactional id over, which ends its predecessor's transaction, and reads the"
              " position, before it sends anything.")
AGAIN = ("At least once: what is on its way when the publisher is killed comes again. Which of the peers was killed with"
         " something on its way is chance, with one kill a round; exactly once there is none in any.")

CALM = ("Nobody's commit waits for a relay, so this is what ten clients and Kafka's absence leave of two processors in some"
        " seconds; as far as one round can tell, no more than noise.")
WAITING = ("Who happens to try while Kafka is starting has sent all when its start is noticed; ours waits for up to two seconds"
           " between two attempts to connect.")

REASONS = {
    ("commit_us", "debezium-message"): EMIT,
    ("commit_cpu_us", "debezium-message"): EMIT,
    ("commit_wal", "debezium-message"): EMIT,
    ("wal", "debezium-message"): EMIT,
    ("disk_before", "debezium-message"): "The events are in WAL, which other transactions fill as well,"
                                          " and in no relation.",
    ("disk", "debezium-message"): "The events are in WAL, which is recycled, and in no relation.",
    **{(metric, name): TEXT for name in ("pgq", "pgque") for metric in ("disk_before", "commit_wal", "wal")},
    ("p50", "eo_exactly_once"): EXACTLY_ONCE,
    ("p99", "eo_exactly_once"): EXACTLY_ONCE,
    ("p999", "eo_exactly_once"): EXACTLY_ONCE,
    ("throughput", "debezium-message"): EMIT,
    ("throughput", "eo_exactly_once"): EXACTLY_ONCE,
    ("came_to", "eo_exactly_once"): EXACTLY_ONCE,
    ("drain", "debezium-message"): HEADERS,
    ("drain", "pgq"): HEADERS,
    ("total_cpu", "pgq"): HEADERS,
    "p99_5000": SATURATED,
    "p999_5000": SATURATED,
    "p99_1000": WAITS,
    "p999_1000": WAITS,
    ("cpu", "pgq"): TICKS,
    ("cpu", "pgque"): TICKS,
    ("cpu", "eo_exactly_once"): EXACTLY_ONCE,
    ("total_cpu", "eo_exactly_once"): EXACTLY_ONCE,
    "cpu": IDLE,
    ("resume_s_publisher", "eo_exactly_once"): TAKEN_OVER,
    ("worst_ms_publisher", "eo_exactly_once"): TAKEN_OVER,
    "resume_s_publisher": START,
    "worst_ms_publisher": START,
    "duplicates": AGAIN,
    "failed_relay": SERVER,
    "resume_s_relay": SERVER,
    "worst_ms_relay": SERVER,
    "disk_before": "An event has a uuid, a type and places in the log and in its topic beside what a row of a poller's table has.",
    "down_p99": CALM,
    "down_resume_s": WAITING,
    "first_s": "Starting is a matter of once; a backlog does not wait for it.",
}


def reason(metric, suffix, peer, ours):
    """Of `ours`, killed part included, against `peer`."""
    full = metric + suffix
    general = re.sub(r"_(\d+|relay|publisher)$", "", full)
    for key in ((full, peer), (general, peer), (full, ours), (general, ours), full, general):
        if key in REASONS:
            return REASONS[key]
    return "Not explained yet."
