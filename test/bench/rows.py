"""
rows

What a row of the table is, and how rounds are taken.
"""
import statistics
import time


class Bench:
    """What the rows share: the server, the number of rounds, the progress."""

    def __init__(self, server, directory, rounds):
        self.server = server
        self.directory = directory
        self.rounds = rounds
        self.started = time.monotonic()
        self.cache = {}
        self.closers = []

    def say(self, text):
        seconds = int(time.monotonic() - self.started)
        print("  %2d:%02d  %s" % (seconds // 60, seconds % 60, text), flush=True)

    def take_turns(self, variants, rounds=None):
        """
        Runs each of `variants` ({name: function of the round}) once a round, in
        turn, and returns {name: [what it returned]}.
        """
        samples = {name: [] for name in variants}
        for number in range(rounds or self.rounds):
            for name, function in variants.items():
                samples[name].append(function(number))
            self.say("round %d: %s" % (number + 1, ", ".join(
                "%s %s" % (name, taken[-1]) for name, taken in samples.items())))
        return samples

    def close(self):
        for closer in reversed(self.closers):
            closer()


class Result:
    """
    One line of the table.  `ratios` are those of the rounds, whose median counts;
    `reached` is given where the target is not a limit of the ratio.
    """

    def __init__(self, what, ours, theirs, ratios, reach, reached, command, notes=()):
        self.what = what
        self.ours = str(ours)
        self.theirs = str(theirs)
        self.ratios = ratios
        self.reach = reach
        self.reached = reached
        self.command = command
        self.notes = notes

    @property
    def ratio(self):
        if not self.ratios:
            return ""
        return "%.2f (%.2f-%.2f)" % (statistics.median(self.ratios), min(self.ratios),
                                     max(self.ratios))


class Row:
    def __init__(self, name, needs, function):
        self.name = name
        self.needs = needs
        self.function = function
        self.help = function.__doc__.strip().splitlines()[0]


ROWS = []


def row(name, needs=""):
    """Registers a function of a Bench that returns Results."""
    def register(function):
        ROWS.append(Row(name, needs, function))
        return function
    return register

