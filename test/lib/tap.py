"""tap.py

The least that a Python program needs to speak TAP: functions named test_* are
run in the order they stand in, one test each; an assertion or any other
exception fails it.
"""

import sys
import traceback


def main(namespace):
    tests = [f for name, f in namespace.items() if name.startswith("test_") and callable(f)]
    failed = 0
    print("1..%d" % len(tests), flush=True)
    for number, test in enumerate(tests, 1):
        name = (test.__doc__ or test.__name__).strip().splitlines()[0].rstrip(".")
        try:
            test()
            print("ok %d - %s" % (number, name), flush=True)
        except Exception:
            failed += 1
            print("not ok %d - %s" % (number, name))
            for line in traceback.format_exc().splitlines():
                print("# " + line, flush=True)
    sys.exit(1 if failed else 0)
