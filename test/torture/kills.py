"""
kills

Processes that are killed, cancelled, terminated, stopped; servers that are shut
down in every way.
"""
import signal
import time

from faults import fault
from logs import LINE, PUBLISHERS
from rig import Broken
from server import POLL, kill, wait_gone, wait_until

THERE_SECONDS = 10
RECOVERY_SECONDS = 60
MOMENT = 0.0005         # s; how closely the log is watched
ATTEMPTS = 5


def until_there(find):
    """Process ids; looks again for those that may just be starting."""
    found = []

    def look():
        pids = find()
        found[:] = pids if isinstance(pids, list) else [pids] if pids else []
        return found
    wait_until("there is somebody to be disturbed", look, THERE_SECONDS)
    return found


def crash_one(rig, find, r):
    """SIGKILL to one of these, so that the server crashes; returns how often it did: once."""
    for _ in range(ATTEMPTS):
        if rig.server.crash(r.choice(sorted(until_there(find)))):
            return 1
    return 0


@fault("kill")
def backend(rig, r):
    return crash_one(rig, rig.server.clients, r)


@fault("kill")
def everything(rig, r):
    rig.server.kill_all()
    rig.server.start()
    return 1


@fault("kill")
def postmaster(rig, r):
    """Alone; what is left must notice, and end by itself."""
    pids = rig.server.descendants()
    rig.server.log.planned += 1
    kill(pids[0])
    rig.server.process.wait()
    wait_gone(pids)
    wait_until("what the postmaster left ends", lambda: not rig.server.processes())
    rig.server.start()
    return 1


def kill_recovery(rig, pause):
    """Starts the server and kills it soon after it has begun to recover; returns whether that was amid its redo."""
    log = rig.server.log
    offset, *_ = log.place()
    rig.server.start(wait=False)
    until = time.monotonic() + RECOVERY_SECONDS
    begun = []
    while not begun:
        if time.monotonic() > until:
            raise TimeoutError("the server recovers: not within %d s" % RECOVERY_SECONDS)
        time.sleep(MOMENT)
        begun = [line for line in log.lines(offset) if "redo starts" in line]
    time.sleep(pause)
    kill(rig.server.process.pid, signal.SIGSTOP)
    kill(int(LINE.match(begun[0])["pid"]))      # it would go on while all the others are looked for
    rig.server.kill_all()
    return not any("redo done" in line for line in log.lines(offset))


@fault("kill")
def recovery(rig, r):
    """
    Again and again while the server recovers: after it has begun to, and before it
    is done.  Where it was done sooner, there is more to do the next time, and it is
    killed at once.
    """
    done, amid = 1, 0
    wanted, late = r.randint(2, 6), 0
    rig.server.kill_all()
    while amid < wanted and late < ATTEMPTS:
        if kill_recovery(rig, r.uniform(0, 0.02) if amid and not late else 0):
            amid += 1
        else:
            late += 1
            rig.server.start()
            time.sleep(r.uniform(0.3, 1) * late)
            rig.server.kill_all()
            done += 1
        done += 1
    rig.server.start()
    if not amid:
        raise Broken("each recovery was over before it was killed")
    rig.counts["recoveries"] += amid
    return done


@fault("kill")
def relay(rig, r):
    return crash_one(rig, rig.server.relay, r)


@fault("kill")
def launcher(rig, r):
    return crash_one(rig, rig.server.launcher, r)


@fault("kill")
def relay_ended(rig, r):
    """pg_terminate_backend(), some times."""
    done = 0
    for _ in range(r.randint(1, 4)):
        for pid in until_there(rig.server.relay):
            rig.server.query("SELECT pg_terminate_backend(%s)", pid)
            done += 1
        time.sleep(r.uniform(0, 0.3))
    return done


@fault("kill")
def relay_cancelled(rig, r):
    """pg_cancel_backend(), many times."""
    done = 0
    for _ in range(r.randint(5, 40)):
        for pid in until_there(rig.server.relay):
            rig.server.query("SELECT pg_cancel_backend(%s)", pid)
            done += 1
        time.sleep(r.uniform(0, 0.03))
    return done


@fault("kill")
def launcher_ended(rig, r):
    rig.server.query("SELECT pg_terminate_backend(%s)", *until_there(rig.server.launcher))
    return 1


@fault("kill", expected=(PUBLISHERS,))
def publisher(rig, r):
    """In every way that a process can end, some times."""
    done = 0
    for _ in range(r.randint(1, 8)):
        kill(r.choice(until_there(rig.server.publishers)), r.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)))
        done += 1
        time.sleep(r.uniform(0, 0.3))
    return done


@fault("kill")
def publisher_stopped(rig, r):
    """SIGSTOP, and on it goes."""
    for pid in until_there(rig.server.publishers)[:1]:
        kill(pid, signal.SIGSTOP)
        time.sleep(r.uniform(0.1, 1.5))
        kill(pid, signal.SIGCONT)
        return 1


@fault("kill")
def publisher_and_relay(rig, r):
    for pid in until_there(rig.server.publishers):
        kill(pid)
    return 1 + crash_one(rig, rig.server.relay, r)


@fault("kill")
def immediate(rig, r):
    rig.server.shut_down("immediate")
    rig.server.start()
    return 1


@fault("kill")
def fast(rig, r):
    rig.server.shut_down("fast")
    rig.server.start()
    return 1


@fault("kill", expected=("57014",))
def clients_ended(rig, r):
    done = 0
    for _ in range(r.randint(3, 15)):
        for pid in rig.server.clients()[:r.randint(1, 3)]:
            rig.server.query(r.choice(("SELECT pg_terminate_backend(%s)", "SELECT pg_cancel_backend(%s)")), pid)
            done += 1
        time.sleep(r.uniform(0, 0.1))
    return done
