"""
cluster

A private PostgreSQL cluster in a directory, reachable through a socket there.
The programs are those that come first in PATH.
"""
import json
import os
import subprocess


class Cluster:
    def __init__(self, directory):
        self.directory = directory
        self.data = os.path.join(directory, "data")
        self.environment = dict(os.environ, PGHOST=directory, PGPORT="5432",
                                PGDATABASE="shop", PGUSER="shop_owner",
                                PGOPTIONS="", PGAPPNAME="demo")

    def run(self, *command, **options):
        return subprocess.run(command, env=self.environment, check=True, text=True,
                              stdin=subprocess.DEVNULL, **options)

    def start(self, settings):
        self.run("initdb", "--pgdata", self.data, "--username", "shop_owner", "--auth",
                 "trust", "--no-locale", "--encoding", "UTF8", "--no-sync",
                 "--no-instructions", stdout=subprocess.DEVNULL)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.write("listen_addresses = ''\n"
                       "unix_socket_directories = '%s'\n" % self.directory)
            conf.writelines("%s = '%s'\n" % item for item in settings.items())
        self.run("pg_ctl", "--pgdata", self.data, "--wait", "--silent",
                 "--log", os.path.join(self.directory, "server.log"), "start")
        self.run("createdb", "--maintenance-db", "postgres", "shop")

    def stop(self):
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            self.run("pg_ctl", "--pgdata", self.data, "--wait", "--silent",
                     "--mode", "fast", "stop")

    def psql(self, *arguments, **options):
        return self.run("psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1",
                        *arguments, **options)

    def execute(self, sql):
        self.psql("--command", sql, stdout=subprocess.DEVNULL)

    def rows(self, query):
        """The rows of a query, each a dict."""
        out = self.psql("--tuples-only", "--no-align", "--command",
                        "SELECT coalesce(json_agg(q), '[]') FROM (%s) AS q" % query,
                        stdout=subprocess.PIPE).stdout
        return json.loads(out)

    def value(self, query):
        return next(iter(self.rows(query)[0].values()))
