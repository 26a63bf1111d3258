"""
ticker

What pg_cron would do for PgQue (pgque.start()), as a program:

    ticker.py MAINTENANCE_SECONDS
"""
import sys
import time

import psycopg

MAINTENANCE = ("SELECT pgque.maint_retry_events()", "SELECT pgque.maint()",
               "SELECT pgque.maint_rotate_tables_step2()")


def main():
    period = float(sys.argv[1])
    with psycopg.connect("", autocommit=True) as connection:
        due = time.monotonic() + period
        while True:
            begun = time.monotonic()
            connection.execute("CALL pgque.ticker_loop()")
            if time.monotonic() > due:
                for statement in MAINTENANCE:
                    connection.execute(statement)
                due = time.monotonic() + period
            # The loop lasts a second less one period at most.
            time.sleep(max(0, min(0.01, begun + 1 - time.monotonic())))


if __name__ == "__main__":
    main()
