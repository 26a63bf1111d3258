"""
server

A private server with the extension, for programs that talk to it through psql.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "demo"))

from cluster import Cluster  # noqa: E402

SETTINGS = {"shared_preload_libraries": "eo_outbox", "fsync": "off", "max_wal_size": "4GB", "shared_buffers": "256MB",
            "eo_outbox.retention": "1h", "max_worker_processes": "20", "log_min_messages": "warning"}


class Server(Cluster):
    def __init__(self, directory, **settings):
        super().__init__(directory)
        self.settings = {**SETTINGS, **settings}

    def __enter__(self):
        self.environment["PGOPTIONS"] = "-c client_min_messages=error"
        os.makedirs(self.directory)
        self.start(self.settings)
        return self

    def __exit__(self, *_):
        self.stop()

    def script(self, sql):
        """Runs it, errors end it."""
        path = os.path.join(self.directory, "script.sql")
        with open(path, "w") as f:
            f.write(sql)
        self.psql("--file", path, stdout=subprocess.DEVNULL)

    def values(self, sql):
        """Lines of fields with tabs between them; errors are such lines, too."""
        path = os.path.join(self.directory, "values.sql")
        with open(path, "w") as f:
            f.write(sql)
        out = self.psql("--set", "ON_ERROR_STOP=0", "--tuples-only", "--no-align", "--field-separator", "\t", "--file", path,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        errors = [(line, "an unknown number of") for line in out.stderr.splitlines() if "ERROR" in line]
        return [line.split("\t") for line in out.stdout.splitlines()] + errors
