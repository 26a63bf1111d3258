// Books payments, each of them once, however often it is delivered.
//
// Takes events from standard input, one a line, as eo_outbox publishes them to
// a file, and prints the number of each once it is done for good. That is the
// acknowledgement: a source begins again after the last number it has read.
//
//   npm ci
//   tail -n +1 -F /tmp/events.jsonl | node consumer.js
import { createInterface } from "node:readline";
import pg from "pg";
import { inTransaction } from "./transaction.js";

async function book(client, messageId, headers, payload) {
  const received = await client.query(
    "SELECT eo.receive('booking', $1, $2) AS first", [messageId, headers]);
  if (!received.rows[0].first) return;
  const booked = await client.query(
    `INSERT INTO balance AS b (account, amount) VALUES ($1, $2)
     ON CONFLICT (account) DO UPDATE SET amount = b.amount + EXCLUDED.amount
     RETURNING account, amount`, [payload.account, payload.amount]);
  const balance = booked.rows[0];
  await client.query(
    "SELECT eo.enqueue('balances', $1, key => $2)", [balance, balance.account]);
}

const client = new pg.Client();
await client.connect();
let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { data, ...headers } = JSON.parse(line);
  await inTransaction(client, () => book(client, headers.id, headers, data));
  console.log(++number);
}
await client.end();
