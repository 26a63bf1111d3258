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


class File:
    title = "a file of JSON lines"
    wrapper = "eo_file"
    subscription_options = "{}"

    def __init__(self, directory):
        self.path = os.path.join(directory, "events.jsonl")
        self.offset = 0
        self.options = "path '%s'" % self.path

    def start(self):
        pass

    def stop(self):
        pass

    @staticmethod
    def arrival(line):
        event = json.loads(line)
        return Arrival("file", event["id"], event["topic"], event["partitionkey"],
                       event["data"]["n"], int(event["sequence"]), event["position"]), \
            event["data"]

    def news(self):
        """What has arrived since the last call."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            data = f.read()
        end = data.rfind(b"\n") + 1
        self.offset += end
        return [self.arrival(line) for line in data[:end].splitlines()]

    def read_back(self):
        self.offset = 0
        return [arrival for arrival, data in self.news()]

    def sample(self):
        with open(self.path) as f:
            return f.readline().rstrip()


class Kafka:
    title = "Apache Kafka, exactly once"
    wrapper = "eo_kafka"
    subscription_options = '{"guarantee": "exactly_once"}'

    def __init__(self, directory):
        self.directory = os.path.join(directory, "kafka")
        self.first = None

    def start(self):
        out = subprocess.run([KAFKA, "start", self.directory], check=True, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
        self.options = "brokers '%s'" % out.strip()
        for topic in TOPICS:
            self.tool("create", topic, "3")

    def stop(self):
        subprocess.run([KAFKA, "stop", self.directory], check=True)

    def tool(self, *arguments):
        return subprocess.run([KAFKA, "tool", self.directory, *arguments], check=True,
                              text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE).stdout

    def news(self):
        return []

    def read_back(self):
        """By Kafka's own Java client, which knows nothing of the publisher."""
        arrived = []
        for topic in TOPICS:
            for line in self.tool("dump", topic, "read_committed").splitlines():
                self.first = self.first or line
                record = json.loads(line)
                headers = dict(record["headers"])
                arrived.append(Arrival(
                    (topic, record["partition"]), headers["ce_id"], topic, record["key"],
                    json.loads(record["value"])["n"], int(headers["ce_sequence"]),
                    int(headers["ce_position"])))
        return arrived

    def sample(self):
        return self.first


BROKERS = {"file": File, "kafka": Kafka}
