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
    crashes: bool           # the server's restart is to be expected
    moods: tuple            # of the load
    expected: tuple         # SQLSTATEs that clients may get
    needs: str              # the consumer without which it makes no sense
    alone: bool             # brings its own servers: a function of a directory, a seed and a random source


FAULTS = []


def fault(group, crashes=False, moods=("calm",), expected=(), needs="", alone=False):
    def register(function):
        FAULTS.append(Fault(group, function.__name__, function, crashes, moods, expected, needs, alone))
        return function
    return register


def schedule(seed, only, consumers):
    """Endless: all of them, in another order each time."""
    chosen = [one for one in FAULTS if (not only or one.group in only or one.name in only) and
              (not one.needs or one.needs in consumers)]
    turn = 0
    while chosen:
        order = list(chosen)
        random.Random("%s turn %d" % (seed, turn)).shuffle(order)
        yield from order
        turn += 1
