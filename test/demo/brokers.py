"""
brokers

Where the demonstration's events go, and how they are read back: from the file
that the file publisher writes, or from a Kafka that is started for it.
"""
import json
import os
import subprocess

from check import Arrival

TOPICS = ("orders", "stock", "payments", "gifts")
KAFKA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                     "brokers", "kafka", "kafka")


class Tail:
    """The complete lines that were added to a file since the last look."""

    def __init__(self, path):
        self.path = path
        self.offset = 0

    def lines(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            data = f.read()
        end = data.rfind(b"\n") + 1
        self.offset += end
        return data[:end].splitlines()


class File:
    title = "a file of JSON lines"
    wrapper = "eo_file"
    subscription_options = "{}"

    def __init__(self, directory):
        self.path = os.path.join(directory, "events.jsonl")
        self.tail = Tail(self.path)
        self.options = "path '%s'" % self.path

    def start(self):
        pass

    def stop(self):
        pass

    @staticmethod
    def parse(line):
        """An Arrival, and the event's payload."""
        event = json.loads(line)
        return Arrival("file", event["id"], event["topic"], event["partitionkey"],
                       event["data"]["n"], int(event["sequence"]),
                       event["position"]), event["data"]

    def news(self):
        """What has arrived since the last call."""
        return [self.parse(line) for line in self.tail.lines()]

    def read_back(self):
        """All that has arrived."""
        return [self.parse(line)[0] for line in Tail(self.path).lines()]

    def sample(self):
        with open(self.path) as f:
            return f.readline().rstrip()


class Kafka:
    """Read by Kafka's own Java client, which knows nothing of the publisher."""
    title = "Apache Kafka, exactly once"
    wrapper = "eo_kafka"
    subscription_options = '{"guarantee": "exactly_once"}'

    def __init__(self, directory, topics=TOPICS, partitions=3, options=()):
        self.directory = os.path.join(directory, "kafka")
        self.start_options = options    # of "kafka start"
        self.topics = topics
        self.partitions = partitions
        self.follower = None
        self.first = None

    def start(self):
        out = subprocess.run([KAFKA, "start", self.directory, *self.start_options], check=True, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
        self.options = "brokers '%s'" % out.strip()
        for topic in self.topics:
            self.tool("create", topic, str(self.partitions))
        self.follow("followed")

    def follow(self, name):
        """Reads everything from the beginning on, into that file."""
        path = os.path.join(self.directory, name)
        patient = os.path.join(self.directory, "follower.properties")
        with open(patient, "w") as properties:
            properties.write("default.api.timeout.ms=600000\n")    # the broker may be away meanwhile
        with open(path, "w") as followed:
            self.follower = subprocess.Popen(self.command("--client", patient, "follow", *self.topics),
                                             stdin=subprocess.DEVNULL, stdout=followed)
        self.tail = Tail(path)

    def unfollow(self):
        if self.follower:
            self.follower.kill()
            self.follower.wait()

    def stop(self):
        self.unfollow()
        subprocess.run([KAFKA, "stop", self.directory], check=True)

    def command(self, *arguments):
        return [KAFKA, "tool", self.directory, *arguments]

    def tool(self, *arguments):
        return subprocess.run(self.command(*arguments), check=True, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout

    @staticmethod
    def parse(line):
        record = json.loads(line)
        headers = dict(record["headers"])
        data = json.loads(record["value"])
        return Arrival((headers["ce_topic"], record["partition"]), headers["ce_id"],
                       headers["ce_topic"], record["key"], data["n"],
                       int(headers["ce_sequence"]), int(headers["ce_position"])), data

    def news(self):
        return [self.parse(line) for line in self.tail.lines()]

    def read_back(self):
        lines = [line for topic in self.topics
                 for line in self.tool("dump", topic, "read_committed").splitlines()]
        self.first = lines[0] if lines else ""
        return [self.parse(line)[0] for line in lines]

    def sample(self):
        return self.first


BROKERS = {"file": File, "kafka": Kafka}
