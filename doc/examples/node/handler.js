// Takes payments over HTTP; a request that is repeated gets the same answer.
//
//   npm ci
//   node handler.js 8080
//   curl -H 'Idempotency-Key: 7f3a' -d '{"account": "a", "amount": 5}' localhost:8080/payments
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import pg from "pg";
import { inTransaction } from "./transaction.js";

const pool = new pg.Pool();

const refusals = {
  EO409: { code: 409, response: { error: "the request is being processed" } },
  EO422: { code: 422, response: { error: "the key was used for another request" } },
};

async function pay(client, key, request) {
  const begun = await client.query(
    `SELECT state, code, response
     FROM eo.idempotency_begin('payments', $1, $2, wait => false)`, [key, request]);
  const { state, code, response } = begun.rows[0];
  if (state === "replay") return { code, response };
  const paid = await client.query(
    `INSERT INTO payment (account, amount) VALUES ($1, $2)
     RETURNING jsonb_build_object('payment', id) AS response`,
    [request.account, request.amount]);
  await client.query(
    "SELECT eo.enqueue('payments', $1, key => $2)", [request, request.account]);
  await client.query(
    "SELECT eo.idempotency_complete('payments', $1, $2, 201)", [key, paid.rows[0].response]);
  return { code: 201, response: paid.rows[0].response };
}

async function answer(key, body) {
  if (key === undefined) return { code: 400, response: { error: "Idempotency-Key is missing" } };
  let request;
  try {
    request = JSON.parse(body);
  } catch {
    return { code: 400, response: { error: "not a payment" } };
  }
  const client = await pool.connect();
  try {
    return await inTransaction(client, () => pay(client, key, request));
  } catch (error) {
    if (error.code in refusals) return refusals[error.code];
    console.error(error);
    return { code: 500, response: { error: "internal error" } };
  } finally {
    client.release();
  }
}

const server = createServer(async (request, reply) => {
  const { code, response } = await answer(request.headers["idempotency-key"], await text(request));
  reply.writeHead(code, { "Content-Type": "application/json" }).end(JSON.stringify(response));
});
server.listen(Number(process.argv[2]), "127.0.0.1",
  () => console.log("listening on", server.address().port));
