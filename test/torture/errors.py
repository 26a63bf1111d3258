"""
errors

What somebody who talks to the server may be told while it is killed, stopped and
started: that the connection is gone, or that the transaction must be done again.
All else is a surprise, unless the fault brings it about.
"""
ENDED = ("57P01", "57P02", "57P03")     # by an administrator, by a crash; not ready yet
CONNECTION = "08"
AGAIN = ("40001", "40P01")


def again(error):
    """Whether the transaction must be done again, as others were in its way."""
    return getattr(error, "sqlstate", None) in AGAIN


def surprise(error, connection, expected):
    """What it says if nothing accounts for it, else None; the connection is the one that got it, None if it could not be made."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        accounted = connection is None or connection.closed
    else:
        accounted = again(error) or state in (*ENDED, *expected) or state.startswith(CONNECTION)
    return None if accounted else "%s %s" % (state or type(error).__name__, error)
