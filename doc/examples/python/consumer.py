#!/usr/bin/env python3
"""Books payments, each of them once, however often it is delivered.

Takes events from standard input, one a line, as eo_outbox publishes them to a
file, and prints the number of each once it is done for good. That is the
acknowledgement: a source begins again after the last number it has read.

    tail -n +1 -F /tmp/events.jsonl | python3 consumer.py
"""
import json
import sys

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.types.json import Jsonb


def book(conn, message_id, headers, payload):
    with conn.transaction():
        (first,) = conn.execute("SELECT eo.receive('booking', %s, %s)",
                                (message_id, Jsonb(headers))).fetchone()
        if not first:
            return
        account, amount = conn.execute(
            """INSERT INTO balance AS b (account, amount) VALUES (%s, %s)
               ON CONFLICT (account) DO UPDATE SET amount = b.amount + EXCLUDED.amount
               RETURNING account, amount""",
            (payload["account"], payload["amount"])).fetchone()
        conn.execute("SELECT eo.enqueue('balances', %s, key => %s)",
                     (Jsonb({"account": account, "amount": amount}), account))


def main():
    with psycopg.connect(autocommit=True) as conn:
        for number, line in enumerate(sys.stdin, 1):
            headers = json.loads(line)
            payload = headers.pop("data")
            while True:
                try:
                    book(conn, headers["id"], headers, payload)
                    break
                except (SerializationFailure, DeadlockDetected):
                    continue
            print(number, flush=True)


if __name__ == "__main__":
    main()
