"""
screen

Two columns on a terminal, or plain lines in a pipe.
"""
import shutil
import sys


class Screen:
    def __init__(self):
        self.colour = sys.stdout.isatty()
        self.width = max(80, min(shutil.get_terminal_size((100, 24)).columns, 120))
        self.left = self.width * 55 // 100

    def paint(self, code, text):
        return "\033[%sm%s\033[0m" % (code, text) if self.colour else text

    def line(self, text=""):
        print(text, flush=True)

    def title(self, text):
        self.line()
        self.line(self.paint("1", text))

    def note(self, text):
        self.line(self.paint("2", text))

    def banner(self, text):
        self.line(self.paint("1;33", ("---- %s " % text).ljust(self.width, "-")))

    def columns(self, left, right):
        left = left[:self.left - 2].ljust(self.left - 2)
        right = right[:self.width - self.left - 1]
        self.line(self.paint("32", left) + " | " + self.paint("31", right))

    def result(self, good, name, value):
        mark = self.paint("1;32", "  ok  ") if good else self.paint("1;31", "FAILED")
        self.line("  %s  %-34s %s" % (mark, name, value))
