// Runs work in a transaction, again if it could not be serialized or was
// chosen to end a deadlock.
export async function inTransaction(client, work) {
  for (;;) {
    await client.query("BEGIN");
    try {
      const result = await work();
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK");
      if (error.code !== "40001" && error.code !== "40P01") throw error;
    }
  }
}
