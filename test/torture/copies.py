"""
copies

Servers that take the place of another, and copies of databases, made at random
moments of a load: what goes on, what waits for eo.adopt(), and that no number
is used twice.
"""
import os
import shutil
import signal
import subprocess
import time

from faults import Round, fault
from heirs import (
    ADOPTION, EPOCH_BITS, SHARED, Family, consumed, events_of, follow, last_seq, promote, published, require_events, require_no_attempt,
    require_order, state_of, wait_state)
from rig import Broken
from server import Server, kill, wait_until

OTHERS = "which did not come from this database"    # of who finds what another one published in its place


def a_while(r, least=0.2, most=1.0):
    time.sleep(r.uniform(least, most))


def hold_up_publisher(rig, r):
    """Half of the times: events gather; returns the publishers that were stopped."""
    held_up, seconds = r.random() < 0.5, r.uniform(0.1, 0.4)
    if not held_up:
        return []
    wait_until("a publisher runs", rig.server.publishers)
    pids = rig.server.publishers()
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    here = last_event(rig.server)
    time.sleep(seconds)
    wait_until("events wait", lambda: last_event(rig.server) > here)
    return pids


def last_event(server):
    return server.one("SELECT coalesce(max(seq), 0) FROM eo.events")


# ---- failover ---------------------------------------------------------------


def hold_up_standby(standby, r):
    """Makes it lack more: its receiver stops, or all of it is down; or nothing happens."""
    how = r.choice(("nothing", "receiver", "down"))
    if how == "receiver":
        for pid in standby.backends("walreceiver"):
            kill(pid, signal.SIGSTOP)
    elif how == "down":
        standby.kill_all()
    a_while(r, 0.1, 0.5)


def take_place(rig, standby, r):
    """The primary dies, the standby is promoted; returns what clients got that they may not get."""
    rig.server.kill_all()
    unexpected = rig.load.pause()
    if standby.postmaster():
        standby.thaw()
    else:
        standby.start()
    promote(standby)
    if r.random() < 0.3:
        standby.kill_all()      # before or after the new epoch is written down
        standby.start()
    return unexpected


def load_on(rig, r, cycle=1):
    """Clients work with the new server for a while; what it has acknowledged before still counts."""
    acknowledged = rig.load.acknowledged
    rig.load.begin(cycle, synchronous=r.choice((0.0, 0.5, 1.0)))
    a_while(r)
    unexpected = rig.load.pause()
    rig.load.acknowledged = acknowledged + rig.load.acknowledged
    return unexpected


def succession(rig, standby, number, r):
    """The standby takes the primary's place, and is worked with; returns errors that the load had not to expect."""
    a_while(r)
    hold_up_standby(standby, r)
    unexpected = take_place(rig, standby, r)
    rig.follow(standby, "t%d" % number, divergence=number)
    rig.load.begin(1, synchronous=r.choice((0.0, 0.5, 1.0)))
    a_while(r)
    wait_until("the epoch rises by one", lambda: last_seq(standby) >> EPOCH_BITS == number + 1)
    return unexpected


@fault("copy", alone=True)
def asynchronous_standby(directory, seed, r):
    """Promoted, once or twice: what it lacks may have been published, but only before."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        unexpected = []
        for number in range(r.randint(1, 2)):
            unexpected += succession(rig, family.standby(rig, "standby%d" % number), number, r)
        rig.check(unexpected + rig.load.pause())
        return family.totals()


def disturb_relay(server, really):
    """Another one finds what this one has found."""
    if really:
        server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     " WHERE backend_type = 'eo_outbox relay' AND datname = current_database()")


@fault("copy", alone=True)
def paused_standby(directory, seed, r):
    """Promoted with on_new_timeline = pause: it is worked with, and publishes nothing before eo.adopt(), and then all."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        standby = family.standby(rig, settings={"eo_outbox.on_new_timeline": "pause"})
        disturbed = r.random() < 0.3
        a_while(r)
        hold_up_standby(standby, r)
        unexpected = take_place(rig, standby, r)
        there, pulled = published(rig), consumed(standby)
        rig.consumers[-1].excused += ADOPTION
        rig.follow(standby, "t0", divergence=0)
        unexpected += load_on(rig, r)
        disturb_relay(standby, disturbed)
        wait_state(standby, "waiting for adoption")
        require_no_attempt(standby)
        if (published(rig), consumed(standby)) != (there, pulled):
            raise Broken("it has published before it was adopted")
        if not standby.one("SELECT eo.adopt()") or standby.one("SELECT eo.adopt()"):
            raise Broken("there was nothing to adopt, or twice")
        rig.healed()
        unexpected += load_on(rig, r)
        if last_seq(standby) >> EPOCH_BITS != 1:
            raise Broken("the epoch has not risen by one")
        rig.check(unexpected)
        return family.totals()


def rewind(old, primary):
    """What it had alone is gone, and the rest as it is there; its configuration, too."""
    primary.query_nothing("CHECKPOINT")     # the timeline is where pg_rewind looks for it
    with open(old.log.path, "a") as log:
        old.run("pg_rewind", "--no-sync", "--target-pgdata", old.data, "--write-recovery-conf", "--source-server",
                "host=%s port=%s user=shop_owner dbname=postgres" % (primary.directory, primary.environment["PGPORT"]), stderr=log, stdout=log)
    old.configure({"unix_socket_directories": old.directory})


@fault("copy", alone=True)
def rewound_primary(directory, seed, r):
    """It follows who took its place, and takes that one's place in turn, with what it had published alone still in the file."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        rig.server.query_nothing("ALTER SYSTEM SET full_page_writes = 'on'")
        rig.server.query_nothing("SELECT pg_reload_conf()")
        one, other = rig.server, family.standby(rig)
        unexpected = []
        for number in range(4 if Round.long else 2):
            unexpected += succession(rig, other, number, r)
            rewind(one, other)
            follow(one, other)
            rig.healed()
            one, other = other, one
        rig.check(unexpected + rig.load.pause())
        return family.totals()


def outlive(rig, standby, r):
    """The primary goes on after the promotion, until it finds another one in its place in Kafka."""
    old, load = rig.server, rig.load
    a_while(r)
    promote(standby)
    rig.follow(standby, "t0", divergence=0)
    wait_until("consumers have left the primary", lambda: not old.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'consumer'"))
    rig.load.begin(1, synchronous=r.choice((0.0, 0.5, 1.0)))
    wait_state(old, OTHERS, name="kafka")
    unexpected = load.pause()
    old.kill_all()
    rig.healed()
    return unexpected


@fault("copy", needs="kafka", alone=True)
def standby_with_kafka(directory, seed, r):
    """It goes on in Kafka where the primary stopped, which is dead, or is kept from going on."""
    with Family(directory, seed, r) as family:
        rig = family.origin(consumers=("file", "kafka"))
        standby = family.standby(rig)
        if r.random() < 0.5:
            unexpected = outlive(rig, standby, r)
        else:
            unexpected = succession(rig, standby, 0, r)
        rig.check(unexpected + rig.load.pause())
        return family.totals()


def require_synchronous(rig):
    """A subscription that waits for the standbys, and commits that do."""
    rig.server.query_nothing("ALTER SYSTEM SET synchronous_standby_names = '*'")
    rig.server.query_nothing("SELECT pg_reload_conf()")
    wait_until("the standby is synchronous", lambda: rig.server.query("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"))
    time.sleep(0.5)             # lasts: until all processes know it
    here = rig.server.one("SELECT pg_current_wal_lsn()")
    wait_until("the standby has the rest", lambda: rig.server.query("SELECT FROM pg_stat_replication WHERE flush_lsn >= %s", here))


def synchronous(directory, seed, r, cancel):
    with Family(directory, seed, r) as family:
        rig = family.origin(options='{"synchronous_standbys": true}')
        standby = family.standby(rig)
        require_synchronous(rig)
        a_while(r)
        hold_up_standby(standby, r)
        if cancel:
            cancel_waits(rig, r)
        unexpected = take_place(rig, standby, r)
        acknowledged = [] if cancel else [one for one in rig.load.acknowledged if one.synchronous]
        rig.follow(standby, "t0", divergence=None)
        unexpected += load_on(rig, r)
        rig.load.acknowledged += acknowledged
        rig.check(unexpected)
        return family.totals()


def cancel_waits(rig, r):
    """Who waits for the standby is cancelled: it has committed, though only here; or just then waits no more, and is in another command."""
    rig.server.expected = ("57014",)
    for _ in range(r.randint(5, 30)):
        rig.server.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        a_while(r, 0, 0.05)


@fault("copy", alone=True)
def synchronous_standby(directory, seed, r):
    """Nothing that was published or acknowledged is lacking in it."""
    return synchronous(directory, seed, r, False)


@fault("copy", alone=True)
def synchronous_standby_cancelled(directory, seed, r):
    """Nothing that was published, though clients have stopped waiting for it."""
    return synchronous(directory, seed, r, True)


@fault("copy", alone=True)
def old_primary_with_the_file(directory, seed, r):
    """Stopped, and going on after the promotion: it keeps the file for as long as it lives, and never after."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        old = rig.server
        standby = family.standby(rig)
        a_while(r)
        old.freeze()
        promote(standby)
        old_load = rig.load
        wait_state(standby, "another process publishes")
        old.thaw()
        a_while(r)
        if "another process publishes" not in state_of(standby):
            raise Broken("two publish to one file: %s" % state_of(standby))
        unexpected = old_load.pause()
        rig.settle()
        old.kill_all()
        rig.follow(standby, "t0", divergence=0)
        unexpected += load_on(rig, r)
        rig.check(unexpected)
        standby.shut_down("fast")
        old.start()
        wait_state(old, OTHERS)
        return family.totals()


@fault("copy", alone=True)
def old_primary_with_its_own_file(directory, seed, r):
    """Both go on, each with a file: each keeps the promises, and no number is in both."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        standby = family.standby(rig)
        a_while(r)
        rig.server.freeze()
        promote(standby)
        heir = family.heir(rig, standby)
        heir.use_own_file()
        rig.server.thaw()
        check_both(rig, heir, r)
        return family.totals()


def ever_had(rig):
    """{seq: event_id} of all that is in its log or was published from it."""
    return {**events_of(rig.server), **{a.seq: a.event_id for a in published(rig)}}


def require_apart(rig, heir):
    """What both have is what both had when one was copied: no number was given out by both, whoever published it."""
    one, other = ever_had(rig), ever_had(heir)
    both = one.keys() & other.keys()
    twice = sorted(seq for seq in both if seq > heir.inherited or one[seq] != other[seq])
    if twice:
        raise Broken("%d numbers were given out by both: %s" % (len(twice), twice[:10]))


def check_both(rig, heir, r):
    """Both are used for a while, and then each is asked."""
    unexpected = load_on(heir, r, heir.cycle)
    former = rig.load.pause()
    heir.check(unexpected)
    rig.check(former)
    require_apart(rig, heir)


# ---- copies -----------------------------------------------------------------


def troubles(rig):
    """What its publishers have met with, if it lives."""
    return rig.server.postmaster() and rig.server.query("SELECT name, restarts, last_error FROM eo.subscriptions ORDER BY name")


def adopt(heir, r):
    """
    It is used while it waits, and started again perhaps; then it may publish.
    All the while it has a file that no other process locks, and its origin is
    not disturbed.
    """
    before = troubles(heir.origin)
    heir.use_own_file()
    heir.require_silence()
    unexpected = load_on(heir, r, heir.cycle)
    disturb_relay(heir.server, r.random() < 0.3)
    for kafka in heir.shared:
        heir.origin.reach(kafka.shared)
    heir.require_silence()
    if troubles(heir.origin) != before:
        raise Broken("a copy that waits has disturbed its origin: %s" % troubles(heir.origin))
    if not heir.server.one("SELECT eo.adopt()"):
        raise Broken("there was nothing to adopt")
    if unexpected:
        raise Broken("a client got: %s" % unexpected[0])


def create_from_template(family, rig, r):
    """For which nobody may be in the database."""
    strategy = r.choice(("wal_log", "file_copy"))
    stopped = hold_up_publisher(rig, r)
    with rig.server.connect(dbname="postgres") as connection:
        connection.execute("ALTER DATABASE torture ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                           " WHERE datname = 'torture' AND backend_type = 'client backend'")
        connection.execute("CREATE DATABASE copied TEMPLATE torture STRATEGY %s" % strategy)
        connection.execute("ALTER DATABASE torture ALLOW_CONNECTIONS true")
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    return family.heir(rig, rig.server.database("copied"))


def restore_dump(family, rig, r):
    """Into the same cluster or another one: the state is there, and none of the log."""
    text, here = r.random() < 0.5, r.random() < 0.5
    path = family.path("dump")
    rig.server.run("pg_dump", "--format", "plain" if text else "custom", "--file", path)
    server = rig.server.database("restored") if here else family.cluster()
    server.run("createdb", "--maintenance-db", "postgres", server.environment["PGDATABASE"])
    if text:
        server.psql("--file", path, stdout=subprocess.DEVNULL)
    else:
        server.run("pg_restore", "--exit-on-error", "--dbname", server.environment["PGDATABASE"], path)
    heir = family.heir(rig, server, cycle=2)
    heir.begin_afresh()
    return heir


def copy_beside(directory, seed, r, make_copy, consumers):
    """Its origin goes on."""
    with Family(directory, seed, r) as family:
        rig = family.origin(consumers=consumers)
        a_while(r)
        heir = make_copy(family, rig, r)
        adopt(heir, r)
        check_both(rig, heir, r)
        return family.totals()


@fault("copy", alone=True)
def template(directory, seed, r):
    """CREATE DATABASE ... TEMPLATE."""
    return copy_beside(directory, seed, r, create_from_template, ("file",))


@fault("copy", alone=True)
def dump(directory, seed, r):
    """pg_dump, restored."""
    return copy_beside(directory, seed, r, restore_dump, ("file",))


@fault("copy", needs="kafka", alone=True)
def template_with_kafka(directory, seed, r):
    """Both publish into one Kafka, each from a source of its own."""
    return copy_beside(directory, seed, r, create_from_template, ("file", SHARED))


@fault("copy", needs="kafka", alone=True)
def dump_with_kafka(directory, seed, r):
    """Both publish into one Kafka, each from a source of its own."""
    return copy_beside(directory, seed, r, restore_dump, ("file", SHARED))


def recover(server, archive, pause):
    """Starts a base backup, and recovers it up to the restore point "here"."""
    server.configure({"restore_command": "cp %s/%%f %%p" % archive, "recovery_target_name": "here",
                      "recovery_target_action": "promote", "eo_outbox.on_new_timeline": "pause" if pause else "continue"})
    with open(os.path.join(server.data, "recovery.signal"), "w"):
        pass
    server.start()


def backup_and_restore_point(family, r, consumers=("file",)):
    """The origin, a base backup, and where the archive is that leads on to a moment of the load."""
    archive = family.path("archive")
    os.makedirs(archive)
    rig = family.origin(settings={"archive_mode": "on", "archive_command": "cp %%p %s/%%f" % archive}, consumers=consumers)
    clone = family.base_backup(rig, "clone")
    a_while(r)
    rig.server.query("SELECT pg_create_restore_point('here')")
    a_while(r)
    segment = os.path.join(archive, rig.server.one("SELECT pg_walfile_name(pg_switch_wal())"))
    wait_until("the log is archived", lambda: os.path.exists(segment) and os.path.getsize(segment) == 16 << 20)
    return rig, clone, archive


@fault("copy", alone=True)
def recovered_clone(directory, seed, r):
    """PITR beside the origin, with on_new_timeline = pause."""
    with Family(directory, seed, r) as family:
        rig, clone, archive = backup_and_restore_point(family, r)
        recover(clone, archive, pause=True)
        heir = family.heir(rig, clone)
        adopt(heir, r)
        check_both(rig, heir, r)
        return family.totals()


def require_taken_over(rig, kafka):
    """What its origin had published there is the front of what it made, and in order."""
    own = kafka.own()
    require_events("published by the origin, before another took its place", own,
                   [seq for seq in events_of(rig.server) if seq <= max(a.seq for a in own)])
    require_order(own)
    if kafka.phantoms:
        raise Broken("%d events were published before they were committed: %s" % (len(kafka.phantoms), kafka.phantoms[:5]))


@fault("copy", needs="kafka", alone=True)
def recovered_clone_with_kafka(directory, seed, r):
    """To Kafka the clone is its origin: once adopted it takes the origin's place, which stops there and says so."""
    with Family(directory, seed, r) as family:
        rig, clone, archive = backup_and_restore_point(family, r, ("file", SHARED))
        kafka = rig.consumers[1]
        recover(clone, archive, pause=True)
        heir = family.heir(rig, clone)
        adopt(heir, r)
        unexpected = load_on(heir, r, heir.cycle)
        wait_state(rig.server, OTHERS, name=SHARED)
        wait_state(clone, "streaming", name=SHARED)
        former = rig.load.pause()
        heir.check(unexpected)
        rig.release(kafka)
        rig.check(former)
        require_taken_over(rig, kafka)
        require_apart(rig, heir)
        return family.totals()


@fault("copy", alone=True)
def recovered_in_place(directory, seed, r):
    """PITR after a disaster: it goes on at once, above all numbers that were published."""
    with Family(directory, seed, r) as family:
        rig, clone, archive = backup_and_restore_point(family, r)
        rig.server.kill_all()
        unexpected = rig.load.pause()
        recover(clone, archive, pause=False)
        rig.follow(clone, "t0", divergence=0)
        unexpected += load_on(rig, r)
        rig.check(unexpected)
        return family.totals()


def run_upgrade(old, new):
    programs = os.path.dirname(shutil.which("postgres"))
    new.run("pg_upgrade", "--no-sync", "--old-datadir", old.data, "--new-datadir", new.data, "--old-bindir", programs,
            "--new-bindir", programs, "--socketdir", new.directory, "--username", "shop_owner", cwd=new.directory, stdout=subprocess.DEVNULL)


@fault("copy", alone=True)
def upgrade(directory, seed, r):
    """pg_upgrade, to the same version, with events that wait."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        a_while(r)
        held_up = hold_up_publisher(rig, r)
        rig.server.shut_down("fast")
        unexpected = rig.load.pause()
        new = family.cluster(start=False)
        run_upgrade(rig.server, new)
        new.start()
        heir = family.heir(rig, new)
        if held_up and heir.inherited <= heir.file.cursor:
            raise Broken("the publisher was held up, and no event waits")
        adopt(heir, r)
        heir.check(unexpected + load_on(heir, r))
        return family.totals()


def die_later(rig):
    """Not before it has published what its copies do not have."""
    rig.check(rig.load.pause())
    rig.server.kill_all()


@fault("copy", alone=True)
def started_base_backup(directory, seed, r):
    """A base backup started as it is, which nothing tells from its origin: the file is not written by both."""
    with Family(directory, seed, r) as family:
        rig = family.origin()
        a_while(r)
        clone = family.base_backup(rig, "clone")
        origin_dies = r.choice(("not", "before", "meanwhile"))
        a_while(r)
        unexpected = []
        if origin_dies == "before":
            die_later(rig)
        clone.start()
        heir = family.heir(rig, clone)
        if origin_dies != "before":
            wait_state(clone, "another process publishes")
            unexpected += load_on(heir, r)
        if origin_dies == "meanwhile":
            die_later(rig)
        if origin_dies != "not":
            wait_state(clone, OTHERS)
        heir.use_own_file()
        if origin_dies != "not":
            clone.query_nothing("SELECT eo.resume('file')")
        heir.check(unexpected + load_on(heir, r))
        if origin_dies == "not":
            rig.check(rig.load.pause())
        return family.totals()
