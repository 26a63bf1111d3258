"""rig.py

What the Kafka tests share: a broker, a publisher beside it, and TAP.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(TOP, "test", "lib"))

import publisher_driver as driver  # noqa: E402

EXECUTABLE = os.path.join(TOP, "build", "eo-publish-kafka")
SCRIPT = os.path.join(HERE, "kafka")


# A test that is told to end still stops its broker.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Tap:
    """Counts tests; an exception in a test fails that test, not the others."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, good, name):
        self.count += 1
        self.failed += not good
        print("%sok %d - %s" % ("" if good else "not ", self.count, name), flush=True)
        return good

    def same(self, got, expected, name):
        if not self.ok(got == expected, name):
            self.note("got      %.500r" % (got,))
            self.note("expected %.500r" % (expected,))

    def note(self, text):
        for line in str(text).splitlines():
            print("# " + line, flush=True)

    def run(self, *tests):
        for test in tests:
            self.note(test.__doc__ or test.__name__)
            try:
                test()
            except Exception:
                self.note(traceback.format_exc())
                self.ok(False, test.__name__)
        print("1..%d" % self.count)
        return 1 if self.failed else 0


class Broker:
    def __init__(self, *arguments):
        self.directory = tempfile.mkdtemp(prefix="eo-kafka-")
        self.arguments = arguments
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.script("stop", "--now")
        shutil.rmtree(self.directory, ignore_errors=True)

    def script(self, command, *arguments):
        return subprocess.run([SCRIPT, command, self.directory, *arguments],
                              check=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True).stdout

    def start(self):
        self.script("start", *self.arguments)
        self.bootstrap = self.read("bootstrap").strip()

    def stop(self, *arguments):
        self.script("stop", *arguments)

    def read(self, name):
        with open(os.path.join(self.directory, name)) as f:
            return f.read()

    def tool(self, *arguments):
        return self.script("tool", *arguments)

    def create(self, topic, partitions=1, **configs):
        self.tool("create", topic, str(partitions),
                  *("%s=%s" % (name.replace("_", "."), value)
                    for name, value in configs.items()))

    def dump(self, topic, isolation="read_committed"):
        """The records of a topic, each with its headers as a dictionary too."""
        records = [json.loads(line) for line
                   in self.tool("dump", topic, isolation).splitlines()]
        for record in records:
            record["h"] = dict(record["headers"])
            if "ce_sequence" in record["h"]:
                record["seq"] = int(record["h"]["ce_sequence"])
        return records

    def seqs(self, topic, isolation="read_committed"):
        return [record["seq"] for record in self.dump(topic, isolation)]

    def offsets(self, group):
        return [json.loads(line) for line in self.tool("offsets", group).splitlines()]

    def publisher(self, server=(), **config):
        """A publisher of this broker, with an identity of its own by default."""
        return driver.Publisher(EXECUTABLE, server={"brokers": self.bootstrap, **dict(server)},
                                **config)


def first_appearances(seqs):
    return list(dict.fromkeys(seqs))
