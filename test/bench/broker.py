"""
broker

The private Kafka that is measured, and the bare producer beside it.
"""
import contextlib
import functools
import os
import re
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
RIG = os.path.join(os.path.dirname(HERE), "brokers", "kafka", "kafka")


def compile_c(directory, name, library):
    """Compiles a program that lies beside this file or below; returns its path."""
    program = os.path.join(directory, os.path.basename(name))
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", library], check=True,
                           text=True, stdout=subprocess.PIPE).stdout.split()
    subprocess.run(["cc", "-std=gnu99", "-O2", "-Wall", "-Wextra", "-I", HERE,
                    os.path.join(HERE, name + ".c"), "-o", program, *flags, "-lpthread"],
                   check=True)
    return program


class Kafka:
    def __init__(self, directory):
        self.directory = os.path.join(directory, "kafka")
        self.brokers = None

    @functools.cached_property
    def bare(self):
        return compile_c(os.path.dirname(self.directory), "kafka_bare", "rdkafka")

    def rig(self, command, *arguments):
        return subprocess.run([RIG, command, self.directory, *arguments], check=True, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout

    def start(self):
        self.brokers = self.rig("start").strip()

    def stop(self):
        self.rig("stop")

    def compiled(self):
        """Processor seconds that the broker has spent on compiling itself so far."""
        with open(os.path.join(self.directory, "pid")) as f:
            tasks = "/proc/%s/task" % f.read().split()[0]
        ticks = 0
        for task in os.listdir(tasks):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open("%s/%s/stat" % (tasks, task)) as f:
                name, fields = f.read().partition("(")[2].rsplit(")", 1)
                if "CompilerThre" in name:
                    ticks += sum(map(int, fields.split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def tool(self, *arguments):
        return self.rig("tool", *arguments)

    def produce(self, topic, mode, *arguments):
        """What the bare producer prints, as numbers."""
        out = subprocess.run([self.bare, self.brokers, topic, mode, *map(str, arguments)],
                             check=True, text=True, stdout=subprocess.PIPE).stdout
        if mode == "rate":
            return float(re.search(r": (\d+) events/s", out).group(1))
        return tuple(float(number) for number in re.search(
            r"p50 ([\d.]+) ms p99 ([\d.]+) ms", out).groups())


def kafka(bench):
    """The broker of this run, started when first asked for."""
    if "kafka" not in bench.cache:
        bench.say("starting Kafka")
        one = Kafka(bench.directory)
        bench.closers.append(one.stop)
        one.start()
        bench.cache["kafka"] = one
    return bench.cache["kafka"]
