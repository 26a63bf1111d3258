"""
server

The PostgreSQL cluster under test, and the means to disturb it.  The programs are
those that come first in PATH.
"""
import copy
import os
import shutil
import signal
import subprocess
import sys
import time

import psycopg

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

from cluster import Cluster  # noqa: E402
from logs import PREFIX, Log  # noqa: E402

SETTINGS = {
    "shared_preload_libraries": "eo_outbox",
    "max_connections": "40",
    "max_worker_processes": "16",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "restart_after_crash": "on",
    "log_min_messages": "info",
    "log_line_prefix": PREFIX,
    "log_timezone": "UTC",
    "log_statement": "none",
    "autovacuum_naptime": "5s",
    "eo_outbox.restart_limit": "1000",
    "eo_outbox.segment_size": "2MB",
    "eo_outbox.retention": "0",
}

NOTICE_SECONDS = 20
POLL = 0.02     # s, between two looks at what is waited for
STATEMENT_TIMEOUT = "-c statement_timeout=300s"     # of what the rig itself asks; nothing takes as long unless it hangs


def wait_until(what, condition, seconds=60):
    """Waits for it, and raises TimeoutError if it does not come."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("%s: not within %d s" % (what, seconds))
        time.sleep(POLL)


def parent_of(pid):
    with open("/proc/%d/stat" % pid) as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Server(Cluster):
    def __init__(self, directory, port="5432", settings=()):
        super().__init__(directory)
        self.environment.update(PGUSER="shop_owner", PGDATABASE="torture", PGPORT=port, PGAPPNAME="torture")
        self.log = Log(os.path.join(directory, "server.log"))
        self.process = None
        self.first_database = "postgres"
        self.standby = False
        self.expected = ()      # SQLSTATEs that who talks to it may get at present
        self.settings = dict(SETTINGS, port=port, unix_socket_directories=directory, listen_addresses="", **dict(settings))
        self.dsn = "host=%s port=%s user=shop_owner dbname=torture" % (directory, port)

    def initialise(self, *initdb):
        os.makedirs(self.directory)
        self.run("initdb", "--pgdata", self.data, "--username", "shop_owner", "--auth", "trust", "--no-locale",
                 "--encoding", "UTF8", "--no-sync", "--no-instructions", "--data-checksums", *initdb, stdout=subprocess.DEVNULL)
        self.configure(self.settings)

    def create(self, *initdb):
        self.initialise(*initdb)
        self.start()
        self.run("createdb", "--maintenance-db", "postgres", "torture")
        self.execute("CREATE EXTENSION eo_outbox")

    def base_backup(self, directory, *options):
        """One on a base backup of this one, not started."""
        other = Server(directory)
        other.settings = dict(self.settings, unix_socket_directories=directory)
        os.makedirs(directory)
        self.run("pg_basebackup", "--pgdata", other.data, "--checkpoint", "fast", "--no-sync", *options)
        other.configure({"unix_socket_directories": directory})
        return other

    def database(self, name):
        """The same server, seen from another database of it."""
        other = copy.copy(self)
        other.environment = dict(self.environment, PGDATABASE=name)
        other.dsn = "%s dbname=%s" % (self.dsn.rsplit(" ", 1)[0], name)
        return other

    def configure(self, settings):
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.writelines("%s = %s\n" % (name, value if value.startswith("'") else "'%s'" % value)
                            for name, value in settings.items())

    def start(self, wait=True):
        """As a child of ours, so that it is known from its first moment on and leaves no zombie."""
        with open(self.log.path, "a") as log:
            self.process = subprocess.Popen(["postgres", "-D", self.data], env=self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        if wait:
            self.wait_ready()

    def shut_down(self, mode):
        """Waits for its end, which may not take longer than a minute."""
        self.log.planned += mode == "immediate"
        self.process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self.process.wait(60)

    def stop(self):
        if self.postmaster():
            self.shut_down("immediate")

    def remove(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, options="", **parameters):
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=10,
                               options="%s %s" % (STATEMENT_TIMEOUT, options), **parameters)

    def query(self, sql, *parameters):
        with self.connect() as connection:
            return connection.execute(sql, parameters or None).fetchall()

    def query_nothing(self, sql, *parameters):
        with self.connect() as connection:
            connection.execute(sql, parameters or None)

    def one(self, sql, *parameters):
        return self.query(sql, *parameters)[0][0]

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError("the server has ended with %d" % self.process.returncode)
        try:
            with self.connect(dbname=self.first_database) as connection:
                return connection.execute("SELECT NOT pg_is_in_recovery() OR %s", (self.standby,)).fetchone()[0]
        except psycopg.Error:
            return False

    def wait_ready(self, seconds=120):
        wait_until("the server answers", self.answers, seconds)

    # ---- processes -----------------------------------------------------------

    def postmaster(self):
        """Its process id; None if there is none."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def processes(self):
        """{pid: command line} of all that runs in this cluster's directory, publishers included."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                ours = os.readlink("/proc/%s/cwd" % name) == self.data
                with open("/proc/%s/cmdline" % name, "rb") as f:
                    command = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if ours and not zombie(int(name)):
                found[int(name)] = command
        return found

    def descendants(self):
        """Process ids of the postmaster and all below it, in that order."""
        children = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    children.setdefault(parent_of(int(name)), []).append(int(name))
                except (FileNotFoundError, ProcessLookupError):
                    pass
        found = [self.postmaster()] if self.postmaster() else []
        for pid in found:
            found += children.get(pid, [])
        return found

    def backends(self, kind):
        return [row[0] for row in self.query("SELECT pid FROM pg_stat_activity WHERE backend_type = %s", kind)]

    def relay(self):
        """The relay's process id; None while there is none."""
        pids = self.backends("eo_outbox relay")
        return pids[0] if pids else None

    def launcher(self):
        pids = self.backends("eo_outbox launcher")
        return pids[0] if pids else None

    def publishers(self):
        return [row[0] for row in self.query("SELECT publisher_pid FROM eo.subscriptions WHERE publisher_pid IS NOT NULL")]

    def clients(self):
        return [row[0] for row in self.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'load' AND pid <> pg_backend_pid()")]

    def crash(self, pid):
        """SIGKILL to one of its processes; returns whether it crashed by that: not if the process was about to end."""
        before = self.log.crashes()
        self.log.planned += 1
        kill(pid)
        try:
            wait_until("the crash is noticed", lambda: self.log.crashes() > before, NOTICE_SECONDS)
        except TimeoutError:
            self.log.planned -= 1
            return False
        return True

    def freeze(self):
        """Stops all of it where it is; thaw() lets it go on."""
        kill(self.process.pid, signal.SIGSTOP)      # it starts no other
        for pid in self.descendants():
            kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self.descendants():
            kill(pid, signal.SIGCONT)

    def kill_all(self):
        """Ends everything at once, as a loss of power does for who runs on it."""
        self.log.planned += 1
        kill(self.process.pid, signal.SIGSTOP)      # it starts no other
        pids = self.descendants()
        for pid in pids:
            kill(pid)
        self.process.wait(60)
        wait_gone(pids)


def wait_gone(pids):
    wait_until("killed processes end", lambda: not any(os.path.exists("/proc/%d" % pid) and not zombie(pid) for pid in pids))


def zombie(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):     # the latter if it ends between open and read
        return True
