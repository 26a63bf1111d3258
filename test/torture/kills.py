"""
kills

Processes that are killed, cancelled, terminated, stopped; servers that are shut
down in every way.
"""
import signal
import time

from faults import fault
from server import POLL, kill, wait_gone, wait_until


def signal_some(rig, pids, number, r):
    """Sends it to one of them; returns whether there was one."""
    if not pids:
        return 0
    kill(r.choice(sorted(pids)), number)
    return 1


def until_there(find):
    """Looks again for a process that may just be starting."""
    for _ in range(100):
        pid = find()
        if pid:
            return [pid] if isinstance(pid, int) else pid
        time.sleep(POLL)
    return []


@fault("kill", crashes=True)
def backend(rig, r):
    return signal_some(rig, rig.server.clients(), signal.SIGKILL, r)


@fault("kill", crashes=True)
def everything(rig, r):
    rig.server.kill_all()
    rig.server.start()
    return 1


@fault("kill", crashes=True)
def postmaster(rig, r):
    """Alone; what is left must notice, and end by itself."""
    pids = rig.server.descendants()
    kill(pids[0])
    rig.server.process.wait()
    wait_gone(pids)
    wait_until("what the postmaster left ends", lambda: not rig.server.processes())
    rig.server.start()
    return 1


@fault("kill", crashes=True)
def recovery(rig, r):
    """Again and again while the server recovers."""
    times = r.randint(2, 6)
    rig.server.kill_all()
    for _ in range(times):
        rig.server.start(wait=False)
        time.sleep(r.uniform(0.02, 0.4))
        rig.server.kill_all()
    rig.server.start()
    return times + 1


@fault("kill", crashes=True)
def relay(rig, r):
    return signal_some(rig, until_there(rig.server.relay), signal.SIGKILL, r)


@fault("kill", crashes=True)
def launcher(rig, r):
    return signal_some(rig, until_there(rig.server.launcher), signal.SIGKILL, r)


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
    for pid in until_there(rig.server.launcher):
        rig.server.query("SELECT pg_terminate_backend(%s)", pid)
        return 1
    return 0


@fault("kill")
def publisher(rig, r):
    """In every way that a process can end, some times."""
    done = 0
    for _ in range(r.randint(1, 8)):
        done += signal_some(rig, until_there(rig.server.publishers),
                            r.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)), r)
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


@fault("kill", crashes=True)
def publisher_and_relay(rig, r):
    for pid in until_there(rig.server.publishers) + until_there(rig.server.relay):
        kill(pid)
    return 2


@fault("kill", crashes=True)
def immediate(rig, r):
    rig.server.shut_down("immediate")
    rig.server.start()
    return 1


@fault("kill")
def fast(rig, r):
    rig.server.shut_down("fast")
    rig.server.start()
    return 1


@fault("kill")
def clients_ended(rig, r):
    done = 0
    for _ in range(r.randint(3, 15)):
        for pid in rig.server.clients()[:r.randint(1, 3)]:
            rig.server.query(r.choice(("SELECT pg_terminate_backend(%s)", "SELECT pg_cancel_backend(%s)")), pid)
            done += 1
        time.sleep(r.uniform(0, 0.1))
    return done
