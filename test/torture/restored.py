"""
restored

A Kafka that is put back to an older copy of its data, of which it says nothing:
the publisher must find that out, and send again what was lost, or stop with an
error that says what is to be done.
"""
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from contextlib import nullcontext

from consumers import KAFKA, Kafka
from faults import Fault, Round, fault
from rig import CONSUMERS, Broken, Rig
from server import kill, wait_until

LOST = "has lost what came after event"
FORGOTTEN = "no longer keeps a position"
NAME = "restored"
WAIT_SECONDS = 60
KEEP = {"eo_outbox.retention": "1d"}
FORGET = {"eo_outbox.retention": "0", "eo_outbox.segment_size": "1MB", "eo_outbox.segment_age": "1s"}


class RestoredKafka(Kafka):
    """Its reader begins anew when it was put back; what it has read before must be there again, and the same."""

    def __init__(self, server, name, directory):
        super().__init__(server, name, directory)
        self.data = os.path.join(self.broker.directory, "data")
        self.copies = 0
        self.known = {}         # seq: (topic, position, event_id) of all that was ever read
        self.taken = 0          # the last seq that was checked
        self.again = set()      # seqs read since the reader began
        self.last = {}          # the last one of them, by topic
        self.wrong = []
        self.held = False
        self.still = False

    def news(self):
        if self.held:
            self.still = True
            return []
        found = []
        for a in super().news():
            what = (a.topic, a.position, a.event_id)
            if self.known.setdefault(a.seq, what) != what:
                self.wrong.append("event %d was %s and is %s" % (a.seq, self.known[a.seq], what))
            if a.seq <= self.last.get(a.topic, 0):
                self.wrong.append("event %d of %s comes after %d" % (a.seq, a.topic, self.last[a.topic]))
            self.last[a.topic] = a.seq
            self.again.add(a.seq)
            if a.seq > self.taken:
                found.append(a)
        return found

    def take(self):
        taken = super().take()
        self.taken = max([self.taken, *(a.seq for a in taken)])
        return taken

    def command(self, *arguments):
        subprocess.run([KAFKA, arguments[0], self.broker.directory, *arguments[1:]], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def copy(self, how, rig):
        """Its data as they are at one moment; returns where they are."""
        self.copies += 1
        path = "%s.%d" % (self.data, self.copies)
        before, after = {"frozen": (("kill", "STOP"), ("kill", "CONT")), "killed": (("stop", "--now"), ("start",)),
                         "stopped": (("stop",), ("start",))}[how]
        self.command(*before)
        copy_tree(self.data, path)
        with rig.rest() if after == ("start",) else nullcontext():
            self.command(*after)
        return path

    def put_back(self, path, rig, disturb):
        self.command("stop", "--now")
        with rig.rest():
            self.replace(path, lambda: rig.disturb_publisher(disturb))

    def replace(self, path, meanwhile):
        self.broker.unfollow()
        self.still = False
        self.held = True
        wait_until("the reader rests", lambda: self.still)
        shutil.rmtree(self.data)
        copy_tree(path, self.data)
        meanwhile()
        del self.arrivals[:]
        self.again, self.last = set(), {}
        self.command("start")
        self.broker.follow("followed.%d" % self.copies)
        self.held = False

    def missing(self):
        return self.known.keys() - self.again


CONSUMERS[NAME] = RestoredKafka


def copy_tree(source, target):
    subprocess.run(["cp", "--archive", "--sparse=always", source, target], check=True)


class RestoredRig(Rig):
    def __init__(self, directory, seed):
        super().__init__(directory, seed, (NAME,))
        self.kafka = self.consumers[0]
        self.kept = KEEP

    def options(self, r):
        return dict(super().options(r), **self.kept)

    def losses(self):
        """How often the server has noticed one."""
        return self.server.log.count(LOST)

    def has_stopped(self, reason):
        return self.subscription("state") == "failed" and reason in self.subscription("last_error")

    def seek(self, seq):
        self.server.query_nothing("SELECT eo.seek('%s', %d)" % (NAME, seq))

    def subscription(self, field):
        return self.server.one("SELECT %s FROM eo.subscriptions WHERE name = '%s'" % (field, NAME))

    def disturb_publisher(self, really):
        """Another one finds the restored broker, or the one that had known it before."""
        if really:
            for pid in self.server.publishers():
                kill(pid)

    def wait_state(self, what, condition):
        try:
            wait_until(what, condition, WAIT_SECONDS)
        except TimeoutError as error:
            raise Broken("%s; %s" % (error, self.server.query("SELECT name, state, seq, last_error FROM eo.subscriptions"))) from None

    def wait_reader(self):
        """It is a program of its own that has begun anew, and takes its time on a busy machine."""
        self.wait_state("the reader of the restored broker finds something", lambda: self.kafka.again)

    def require_all(self):
        """Of what was ever read there."""
        if self.kafka.wrong:
            raise Broken("; ".join(self.kafka.wrong[:5]))
        if self.kafka.missing():
            raise Broken("%d events that the broker has lost did not come again: %s" % (
                len(self.kafka.missing()), sorted(self.kafka.missing())[:10]))


def restored_rig(directory, seed):
    return RestoredRig(os.path.join(directory, "rig"), seed).used()


def run_cycle(rig, number, run):
    """With choices of its own, since it may depend on the time how many cycles there are."""
    r = random.Random("%s restored %d" % (rig.seed, number))
    rig.run(number, Fault("broker", run.__name__, run), r)


def counts_of(rig):
    return Counter(rig.totals(), worst=rig.worst)


# ---- what the log still has ----------------------------------------------------

def wait_later(rig):
    """An event has been read that came after this moment."""
    before = max(rig.kafka.known, default=0)
    rig.wait_state("something is published after the copy", lambda: max(rig.kafka.known, default=0) > before)


def lose_the_latest(rig, r):
    """Amid the load: what the broker lost, and nothing else, is sent again."""
    how, seconds, disturb = r.choice(("frozen", "frozen", "killed", "stopped")), r.uniform(0, 2), r.random() < 0.5
    losses = rig.losses()
    path = rig.kafka.copy(how, rig)
    wait_later(rig)
    time.sleep(seconds)
    rig.kafka.put_back(path, rig, disturb)
    rig.wait_state("the loss is noticed", lambda: rig.losses() > losses or rig.has_stopped(FORGOTTEN))
    if rig.has_stopped(FORGOTTEN):      # a copy from before the first event
        rig.seek(0)
    rig.wait_reader()
    return 1


@fault("broker", needs="kafka", alone=True)
def older_copy(directory, seed, r):
    """Healed from the log, which keeps what was published for a while."""
    with restored_rig(directory, seed) as rig:
        for number in range(1, 5 if Round.long else 2):
            run_cycle(rig, number, lose_the_latest)
            rig.require_all()
        return counts_of(rig)


# ---- what the log has no more --------------------------------------------------

def nothing(rig, r):
    return 1


def make_log_forget(rig, seq):
    """Works on until it no longer has all that came after that one; returns the number of the last cycle."""
    for number in range(2, 20):
        run_cycle(rig, number, nothing)
        if rig.server.one("SELECT floor_seq FROM eo.log_status()") > seq:
            return number
    raise Broken("the log forgets nothing")


@fault("broker", needs="kafka", alone=True)
def copy_older_than_the_log(directory, seed, r):
    """It says so, and stops, until an operator has accepted the loss; then it goes on."""
    with restored_rig(directory, seed) as rig:
        rig.kept = FORGET
        disturb, at_floor = r.random() < 0.5, r.random() < 0.5
        run_cycle(rig, 1, nothing)
        path = rig.kafka.copy("frozen", rig)
        place = rig.subscription("seq")
        number = make_log_forget(rig, place)
        rig.kafka.put_back(path, rig, disturb)
        rig.wait_state("it stops and says why", lambda: rig.has_stopped(LOST))
        goes_on = rig.server.one("SELECT floor_seq FROM eo.log_status()") if at_floor else rig.subscription("seq")
        rig.seek(goes_on)
        rig.wait_reader()
        run_cycle(rig, number + 1, nothing)
        kept = [seq for seq in rig.kafka.missing() if not place < seq <= goes_on]
        if rig.kafka.wrong or kept:
            raise Broken("%s; %d events were lost that the log had: %s" % (rig.kafka.wrong[:5], len(kept), kept[:10]))
        return counts_of(rig)


# ---- a broker without any position ---------------------------------------------

@fault("broker", needs="kafka", alone=True)
def copy_without_position(directory, seed, r):
    """From before the first event: it says so, and an operator says from where on to send."""
    with restored_rig(directory, seed) as rig:
        disturb = r.random() < 0.5
        path = rig.kafka.copy("frozen", rig)
        run_cycle(rig, 1, nothing)
        rig.kafka.put_back(path, rig, disturb)
        rig.wait_state("it stops and says why", lambda: rig.has_stopped(FORGOTTEN))
        rig.seek(0)
        rig.wait_reader()
        run_cycle(rig, 2, nothing)
        rig.require_all()
        return counts_of(rig)
