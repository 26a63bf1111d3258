#!/usr/bin/env python3
"""Takes payments over HTTP; a request that is repeated gets the same answer.

    python3 handler.py 8080
    curl -H 'Idempotency-Key: 7f3a' -d '{"account": "a", "amount": 5}' localhost:8080/payments
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

REFUSALS = {"EO409": (409, {"error": "the request is being processed"}),
            "EO422": (422, {"error": "the key was used for another request"})}


def pay(conn, key, request):
    with conn.transaction():
        state, code, response = conn.execute(
            """SELECT state, code, response
               FROM eo.idempotency_begin('payments', %s, %s, wait => false)""",
            (key, Jsonb(request))).fetchone()
        if state == "replay":
            return code, response
        (response,) = conn.execute(
            """INSERT INTO payment (account, amount) VALUES (%s, %s)
               RETURNING jsonb_build_object('payment', id)""",
            (request["account"], request["amount"])).fetchone()
        conn.execute("SELECT eo.enqueue('payments', %s, key => %s)",
                     (Jsonb(request), request["account"]))
        conn.execute("SELECT eo.idempotency_complete('payments', %s, %s, 201)",
                     (key, Jsonb(response)))
        return 201, response


def answer(key, request):
    if key is None:
        return 400, {"error": "Idempotency-Key is missing"}
    while True:
        try:
            with pool.connection() as conn:
                return pay(conn, key, request)
        except (SerializationFailure, DeadlockDetected):
            continue
        except psycopg.Error as error:
            if error.sqlstate in REFUSALS:
                return REFUSALS[error.sqlstate]
            print(error, file=sys.stderr)
            return 500, {"error": "internal error"}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            code, response = answer(self.headers["Idempotency-Key"], json.loads(body))
        except (TypeError, ValueError, KeyError):
            code, response = 400, {"error": "not a payment"}
        data = json.dumps(response).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    with ConnectionPool(kwargs={"autocommit": True}) as pool:
        print("listening on", server.server_port, flush=True)
        server.serve_forever()
