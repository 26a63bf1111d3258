"""
outages

A broker that stops, hangs, dies, or comes back without what it had; and a target
of the file publisher that cannot be written.
"""
import os
import signal
import time

from faults import fault


@fault("broker", needs="kafka")
def hangs(rig, r):
    rig.broker("kill", "STOP")
    time.sleep(r.uniform(0.5, 8))
    rig.broker("kill", "CONT")
    return 1


@fault("broker", needs="kafka")
def dies(rig, r):
    rig.broker("stop", "--now")
    time.sleep(r.uniform(0, 5))
    rig.broker("start")
    return 1


@fault("broker", needs="kafka")
def rests(rig, r):
    rig.broker("stop")
    time.sleep(r.uniform(0, 5))
    rig.broker("start")
    return 1


@fault("broker")
def target_unwritable(rig, r):
    """The file's directory refuses it for a while, and the publisher is started anew in it."""
    path = next(consumer.path for consumer in rig.consumers if consumer.name == "file")
    os.chmod(path, 0o400)
    try:
        for pid in rig.server.publishers():
            os.kill(pid, signal.SIGKILL)
        time.sleep(r.uniform(0.5, 2))
    finally:
        os.chmod(path, 0o600)
    return 1
