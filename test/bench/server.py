"""
server

The private cluster that is measured, and the programs that load it.
"""
import contextlib
import copy
import os
import subprocess

SETTINGS = {
    "shared_preload_libraries": "eo_outbox",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    # Otherwise a round that happens to have a checkpoint in it pays for it.
    "checkpoint_timeout": "1h",
    "listen_addresses": "",
    "max_connections": "50",
    "log_checkpoints": "off",
    "jit": "off",
}


def payload(size):
    """A JSON object whose text is `size` bytes long, as jsonb prints it."""
    frame = ('{"order": 4711, "customer": "customer-4711", "lines": [{"sku": "A-17", '
             '"price": 12.5, "quantity": 3}], "total": 37.5, "note": "%s"}')
    words = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod "
    room = size - len(frame % "")
    if room < 0:
        raise ValueError("a payload has at least %d bytes" % len(frame % ""))
    return frame % (words * (room // len(words) + 1))[:room]


def cpu_seconds(pid):
    """The processor time that a process's threads have taken, to the nanosecond."""
    total = 0
    for thread in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, thread)) as f:
            total += int(f.read().split()[0])
    return total / 1e9


class Server:
    def __init__(self, directory):
        self.directory = directory
        self.data = os.path.join(directory, "data")
        self.environment = dict(os.environ, PGHOST=directory, PGPORT="5432",
                                PGDATABASE="postgres", PGUSER="bench", PGOPTIONS="-c client_min_messages=warning",
                                PGAPPNAME="bench")

    def run(self, *command, **options):
        options.setdefault("env", self.environment)
        done = subprocess.run(command, text=True, stdin=subprocess.DEVNULL, **options)
        if done.returncode != 0:
            raise RuntimeError("%s failed\n%s" % (" ".join(command), done.stderr or ""))
        return done

    def start(self):
        self.run("initdb", "--pgdata", self.data, "--username", "bench", "--auth", "trust",
                 "--no-locale", "--encoding", "UTF8", "--no-instructions",
                 stdout=subprocess.DEVNULL)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.write("unix_socket_directories = '%s'\n" % self.directory)
            conf.writelines("%s = '%s'\n" % item for item in SETTINGS.items())
        self.run("pg_ctl", "--pgdata", self.data, "--wait", "--silent",
                 "--log", os.path.join(self.directory, "server.log"), "start")
        self.execute("CREATE EXTENSION eo_outbox")

    @contextlib.contextmanager
    def database(self, name):
        """A server whose commands go to a new database, dropped at the end."""
        self.execute("CREATE DATABASE %s" % name)
        one = copy.copy(self)
        one.environment = dict(self.environment, PGDATABASE=name)
        try:
            one.execute("CREATE EXTENSION eo_outbox")
            yield one
        finally:
            self.execute("DROP DATABASE %s WITH (FORCE)" % name)

    def stop(self):
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            self.run("pg_ctl", "--pgdata", self.data, "--wait", "--silent",
                     "--mode", "fast", "stop")

    def psql(self, script, *arguments, **options):
        """Runs a script in one session and returns what it prints, in lines."""
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
                   "--set", "ON_ERROR_STOP=1", "--file", "-", *arguments]
        out = subprocess.run(command, env=self.environment, check=True, text=True,
                             input=script, stdout=subprocess.PIPE, **options).stdout
        return out.splitlines()

    def execute(self, sql):
        self.psql(sql)

    def value(self, query):
        return self.psql(query)[-1]

    def background_cpu(self):
        """The processor time of the server's processes that serve no client."""
        rows = self.psql("SELECT pid FROM pg_stat_activity"
                         " WHERE backend_type NOT IN ('client backend', 'autovacuum worker')")
        return sum(cpu_seconds(int(row)) for row in rows)

    def table(self):
        """The table that applications use as an outbox."""
        self.execute("""
            DROP TABLE IF EXISTS outbox;
            CREATE TABLE outbox (
                id bigserial PRIMARY KEY,
                topic text NOT NULL,
                key text,
                payload jsonb NOT NULL,
                created_at timestamptz NOT NULL DEFAULT now(),
                published_at timestamptz
            );
            CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;""")
