"""
machine

On what something was measured or tried.
"""
import os
import platform
import subprocess


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f
                      if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as f:
        memory = round(int(f.readline().split()[1]) / 2 ** 20)
    return "%d x %s, %d GB, Linux %s" % (os.cpu_count(), model, memory,
                                        platform.release().split("-")[0])


def version(*command):
    return subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE).stdout.strip()
