"""languages.py

The examples of doc/examples, built and ready to be started in five languages.
"""
import glob
import os
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
EXAMPLES = os.path.join(TOP, "doc", "examples")
NAMES = ("python", "node", "go", "java", "c")
JDBC = "/usr/share/java/postgresql.jar"


class Languages:
    """How to start each example, built in a directory of the caller's."""

    def __init__(self, directory):
        self.directory = directory
        modules = subprocess.run([os.path.join(HERE, "fetch")], check=True, text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.go_home, self.node_home = modules.stdout.split()
        for name in NAMES:
            shutil.copytree(os.path.join(EXAMPLES, name), self.path(name))
            getattr(self, "build_" + name)()

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def run(self, folder, *command, **environment):
        subprocess.run(command, check=True, cwd=self.path(folder), stdin=subprocess.DEVNULL,
                       env=dict(os.environ, **environment))

    def build_python(self):
        pass

    def build_node(self):
        os.symlink(os.path.join(self.node_home, "node_modules"), self.path("node", "node_modules"))

    def build_go(self):
        environment = {"GOMODCACHE": os.path.join(self.go_home, "modules"), "GOPROXY": "off",
                       "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        self.run("go", "go", "vet", "./...", **environment)
        self.run("go", "go", "build", "-o", "bin/", "./consumer", "./handler", **environment)

    def build_java(self):
        sources = [os.path.basename(f) for f in glob.glob(self.path("java", "*.java"))]
        self.run("java", "javac", "-Xlint:all", "-Werror", *sources)

    def build_c(self):
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libpq"], check=True,
                               text=True, stdout=subprocess.PIPE).stdout.split()
        for program in ("consumer", "handler"):
            self.run("c", "cc", "-Wall", "-Wextra", "-Werror", "-o", program,
                     program + ".c", "transaction.c", *flags)

    def command(self, name, program, url, *arguments):
        """The command of an example; `url` is for JDBC, which has no other way."""
        if name == "python":
            return ["/usr/bin/python3", self.path("python", program + ".py"), *arguments]
        if name == "node":
            return ["node", self.path("node", program + ".js"), *arguments]
        if name == "go":
            return [self.path("go", "bin", program), *arguments]
        if name == "java":
            return ["java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                    "-cp", self.path("java") + ":" + JDBC, program.capitalize(), *arguments, url]
        return [self.path("c", program), *arguments]
