#!/usr/bin/env python3
"""
demo DIRECTORY [--broker file|kafka] [--seconds N]

A shop under load, its events as they leave, a publisher killed in the middle,
and the proof that nothing was lost, doubled or out of order.  Runs on a cluster
of its own in DIRECTORY.  Ends with status 1 if the proof fails.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from brokers import BROKERS  # noqa: E402
from check import compare  # noqa: E402
from cluster import Cluster  # noqa: E402
from screen import Screen  # noqa: E402

RATE = 300              # transactions per second
SCRIPTS = ("order.pgbench@7", "refused.pgbench@2", "no_gift.pgbench@1")
DRAIN = "60s"
START_SECONDS = 60
POLL_SECONDS = 0.25


class Load:
    """pgbench, and what it says about transactions that roll back."""

    def __init__(self, cluster, seconds):
        self.undone = []
        self.errors = []
        files = [word for script in SCRIPTS for word in ("-f", os.path.join(HERE, script))]
        self.process = subprocess.Popen(
            ["pgbench", "--no-vacuum", "--client=4", "--jobs=2", "--rate=%d" % RATE,
             "--time=%d" % seconds, *files],
            env=cluster.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()

    def listen(self):
        for line in self.process.stderr:
            if "NOTICE:  undone " in line:
                self.undone.append(json.loads(line.split("undone ", 1)[1]))
            elif "error" in line.lower() or "fatal" in line.lower():
                self.errors.append(line.strip())

    def running(self):
        return self.process.poll() is None

    def finish(self):
        out = self.process.stdout.read()
        self.process.wait()
        self.reader.join()
        if self.process.returncode != 0 or self.errors:
            sys.exit("pgbench failed: %s\n%s" % (out, "\n".join(self.errors[:5])))


def wait_ready(cluster):
    """Until the publisher has told what the broker has."""
    deadline = time.monotonic() + START_SECONDS
    while subscription(cluster)["state"] not in ("catching up", "streaming"):
        if time.monotonic() > deadline:
            sys.exit("the publisher did not start: %s" % subscription(cluster))
        time.sleep(POLL_SECONDS)


def subscription(cluster):
    return cluster.rows("SELECT * FROM eo.subscriptions WHERE name = 'demo'")[0]


def set_up(cluster, broker):
    cluster.start({"shared_preload_libraries": "eo_outbox"})
    cluster.execute("CREATE EXTENSION eo_outbox")
    cluster.psql("--file", os.path.join(HERE, "shop.sql"))
    broker.start()
    cluster.execute("CREATE SERVER demo FOREIGN DATA WRAPPER %s OPTIONS (%s)"
                    % (broker.wrapper, broker.options))
    cluster.execute("SELECT eo.subscribe('demo', '{*}', server => 'demo', options => '%s')"
                    % broker.subscription_options)
    wait_ready(cluster)


class Show:
    """Prints a part of what happens; keeps count of all of it."""

    def __init__(self, screen, cluster, broker, load):
        self.screen, self.cluster, self.broker, self.load = screen, cluster, broker, load
        self.arrived = 0
        self.undone_shown = 0
        self.second = 0

    def tick(self):
        news = self.broker.news()
        self.arrived += len(news)
        undone = self.load.undone[self.undone_shown:]
        self.undone_shown += len(undone)
        left = ["#%-6d %-8s %-13s %s" % (a.seq, a.topic, a.key, data["text"])
                for a, data in sorted(news, key=lambda n: n[0].seq)[-2:]]
        right = ["order %d: %s (%d event%s)"
                 % (u["order"], u["why"], len(u["events"]), "s"[:len(u["events"]) > 1])
                 for u in undone[-1:]]
        for i in range(max(len(left), len(right))):
            self.screen.columns(left[i] if i < len(left) else "",
                                right[i] if i < len(right) else "")

    def summary(self):
        state = subscription(self.cluster)
        self.screen.note("  %d events published, %d waiting; %d transactions rolled back"
                         % (state["published"], state["lag_events"], self.undone_shown))
        return state


def live(screen, cluster, broker, load, seconds):
    """Shows the load; kills the publisher in its middle.  Returns its pid."""
    show = Show(screen, cluster, broker, load)
    started = time.monotonic()
    killed = successor = None
    screen.columns("left the database", "rolled back, and so did not")
    screen.columns("-" * 200, "-" * 200)
    next_summary = 1.0
    while load.running():
        try:
            load.process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        show.tick()
        elapsed = time.monotonic() - started
        if elapsed < next_summary:
            continue
        next_summary += 1.0
        state = show.summary()
        if killed is None and elapsed > seconds * 0.4:
            killed = state["publisher_pid"]
            if killed:
                os.kill(killed, signal.SIGKILL)
                screen.banner("kill -9 %d, the publisher, with %d events on their way"
                              % (killed, state["in_flight"]))
        elif killed and not successor and state["publisher_pid"] not in (None, killed):
            successor = state["publisher_pid"]
            screen.banner("publisher %d has taken over" % successor)
    load.finish()
    show.tick()
    return killed


def prove(screen, cluster, broker, load, killed):
    """Waits for the last event, reads everything back, and compares."""
    last = cluster.value("SELECT max(seq) AS seq FROM eo.events")
    drained = cluster.value("SELECT eo.wait_published('demo', %d, '%s') AS done"
                            % (last, DRAIN))
    truth = {row["event_id"]: (row["topic"], row["key"], row["n"])
             for row in cluster.rows("SELECT * FROM shop.truth")}
    undone = {event for u in load.undone for event in u["events"]}
    arrived = broker.read_back()
    state = subscription(cluster)

    screen.title("What the shop committed, against what arrived in %s" % broker.title)
    results = [
        ("committed by the shop", len(truth), len(truth) > 1000),
        ("arrived", len(arrived), len(arrived) > 0),
        ("enqueued and rolled back", len(undone), len(undone) > 0),
        ("publishers killed and replaced", state["restarts"],
         killed is not None and state["restarts"] > 0),
        ("all published within %s" % DRAIN, "yes" if drained else "no", drained),
    ]
    for finding in compare(truth, undone, arrived):
        results.append((finding.promise, len(finding.offenders), not finding.offenders))
        for offender in finding.offenders[:5]:
            print("    %s: %s" % (finding.promise, offender), file=sys.stderr)
    for name, value, good in results:
        screen.result(good, name, value)
    screen.title("One of them, as it arrived")
    screen.line("  " + broker.sample())
    return all(good for name, value, good in results)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="file")
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()

    screen = Screen()
    os.makedirs(options.directory, exist_ok=True)
    cluster = Cluster(options.directory)
    broker = BROKERS[options.broker](options.directory)
    good = False
    try:
        screen.title("Starting a private PostgreSQL with shared_preload_libraries = 'eo_outbox'"
                     + (", and Apache Kafka" if options.broker == "kafka" else ""))
        set_up(cluster, broker)
        screen.title("The shop is open: %d s, %d transactions/s from 4 clients; "
                     "events go to %s" % (options.seconds, RATE, broker.title))
        load = Load(cluster, options.seconds)
        killed = live(screen, cluster, broker, load, options.seconds)
        good = prove(screen, cluster, broker, load, killed)
        screen.title("SELECT * FROM eo.subscriptions")
        cluster.psql("--expanded", "--command", "SELECT * FROM eo.subscriptions")
    finally:
        broker.stop()
        cluster.stop()
    if not good:
        sys.exit("the proof failed")
    screen.title("Nothing lost, nothing doubled, nothing out of order.")


if __name__ == "__main__":
    main()
