"""
faults

What can be done to the system in a cycle; each group's module registers its own.
"""
import random
from typing import Callable, NamedTuple


class Fault(NamedTuple):
    group: str
    name: str
    run: Callable           # of the rig and a random source; returns how many faults it was
    moods: tuple = ("calm",)    # of the load
    expected: tuple = ()    # SQLSTATEs that clients, and processes of ours, may get
    needs: str = ""         # the consumer without which it makes no sense
    alone: bool = False     # brings its own servers: a function of a directory, a seed and a random source
    long: bool = False      # takes more than a minute
    namespace: bool = False     # of the network, that is ours; without it is left out when its turn comes


class Round:
    """What holds for all cycles."""
    long = False            # there is time for a fault of some minutes


FAULTS = []


def fault(group, **properties):
    def register(function):
        FAULTS.append(Fault(group, function.__name__, function, **properties))
        return function
    return register


def as_part(group, run):
    """
    What is a fault of its own, done among others in a cycle of that group: it
    excuses there what it excuses alone, and nothing more.
    """
    own = next((one for one in FAULTS if one.run is run), Fault(group, run.__name__, run))
    return own._replace(group=group)


def choose(only, consumers, long):
    """Those that can be run, in groups."""
    groups = {}
    for one in FAULTS:
        if ((not only or one.group in only or one.name in only) and (not one.needs or one.needs in consumers)
                and (long or not one.long or one.name in only)):
            groups.setdefault(one.group, []).append(one)
    return groups


def schedule(seed, groups):
    """
    Endless.  Each turn takes every group once, and of each group the faults in
    another order, all of them before one comes again.
    """
    decks = {group: [] for group in groups}
    turn = 0
    while groups:
        r = random.Random("%s turn %d" % (seed, turn))
        order = sorted(groups)
        r.shuffle(order)
        for group in order:
            if not decks[group]:
                decks[group] = list(groups[group])
                r.shuffle(decks[group])
            yield decks[group].pop()
        turn += 1
