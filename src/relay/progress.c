/*
 * progress.c
 *
 * Writes the cursors.
 *
 * A write is one short transaction with asynchronous commit: what a crash
 * forgets is sent again, or found in the broker.  Writes are batched, because
 * acknowledgements come by the thousand; when a subscription has caught up, the
 * last one is written almost at once, since somebody may wait for it
 * (eo.wait_published).  That the reader passed events nobody here wants is
 * worth no write of its own.
 *
 * Dead letters, and positions of the topics, go into the same transaction as
 * the cursor that passes them.
 *
 * No write waits for a lock.  Where somebody holds one, it is tried again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "points.h"
#include "relay/dead_letters.h"
#include "relay/sql.h"
#include "relay/subscription.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* The least time between two writes of a cursor: while busy, and when idle. */
#define BUSY_WRITE_MS	100
#define IDLE_WRITE_MS	2

static EoStatement lock_cursor = {
	"SELECT 1 FROM eo.cursor WHERE subscription = $1 FOR UPDATE SKIP LOCKED",
	1, {INT4OID}
};

static EoStatement update_cursor = {
	"UPDATE eo.cursor SET seq = $2, published_seq = $3, replay_until = $4, seek_number = $5, kept_as = $6"
	" WHERE subscription = $1",
	6, {INT4OID, INT8OID, INT8OID, INT8OID, INT4OID, TEXTOID}
};

static EoStatement upsert_positions = {
	"INSERT INTO eo.position AS p (subscription, topic, position)"
	" SELECT $1, t.topic, t.position FROM unnest($2, $3) AS t (topic, position)"
	" ON CONFLICT (subscription, topic) DO UPDATE SET position = excluded.position",
	3, {INT4OID, TEXTARRAYOID, INT8ARRAYOID}
};

static void
write_positions(EoSubscription *sub)
{
	int			n = list_length(sub->dirty_topics);
	Datum	   *names = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *positions = palloc(sizeof(Datum) * Max(n, 1));
	Datum		values[3];
	ListCell   *lc;

	if (n == 0)
		return;
	foreach(lc, sub->dirty_topics)
	{
		EoTopic    *topic = lfirst(lc);
		int			i = foreach_current_index(lc);

		names[i] = PointerGetDatum(cstring_to_text_with_len(topic->name, topic->len));
		positions[i] = Int64GetDatum(topic->acked);
	}
	values[0] = Int32GetDatum(sub->id);
	values[1] = PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(positions, n, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	eo_statement_run(&upsert_positions, values, NULL, SPI_OK_INSERT);
}

static void
write_cursor(EoSubscription *sub)
{
	Datum		values[6];
	char		nulls[] = "     n";

	values[0] = Int32GetDatum(sub->id);
	values[1] = Int64GetDatum(sub->acked.seq);
	values[2] = Int64GetDatum(sub->acked.published_seq);
	values[3] = Int64GetDatum(sub->acked.replay_until);
	values[4] = Int32GetDatum(sub->acked.seek_number);
	if (sub->acked.position_kept)
	{
		values[5] = CStringGetTextDatum(sub->identity);
		nulls[5] = ' ';
	}
	eo_statement_run(&update_cursor, values, nulls, SPI_OK_UPDATE);
}

/* The write has committed. */
static void
written(EoSubscription *sub)
{
	ListCell   *lc;

	foreach(lc, sub->dirty_topics)
		((EoTopic *) lfirst(lc))->dirty = false;
	list_free(sub->dirty_topics);
	sub->dirty_topics = NIL;
	eo_dead_letters_written(sub);
	sub->durable = sub->acked;
	sub->flush_write = false;
	sub->write_at = EO_NEVER;
	sub->last_write = eo_clock_ms();
	eo_relay.wrote = true;
}

bool
eo_progress_write(EoSubscription *sub)
{
	Datum		id = Int32GetDatum(sub->id);

	eo_relay_begin(true);
	if (!eo_relay_lock_tables(RowExclusiveLock) ||
		eo_statement_run(&lock_cursor, &id, NULL, SPI_OK_SELECT) == 0)
	{
		eo_relay_abort(true);
		sub->write_at = eo_clock_ms() + EO_RETRY_MS;
		return false;
	}
	if (sub->flush_write)
		ForceSyncCommit();
	EO_POINT(cursor_write);
	eo_dead_letters_write(sub);
	write_positions(sub);
	write_cursor(sub);
	EO_POINT(cursor_written);
	eo_relay_commit(true);
	EO_POINT(cursor_committed);
	written(sub);
	return true;
}

/* Whether `acked` says more than that unwanted events were passed. */
static bool
worth_writing(EoSubscription *sub)
{
	return sub->flush_write ||
		sub->dirty_topics != NIL ||
		sub->acked.published_seq != sub->durable.published_seq ||
		sub->acked.replay_until != sub->durable.replay_until ||
		sub->acked.seek_number != sub->durable.seek_number ||
		sub->acked.position_kept != sub->durable.position_kept ||
		sub->acked.seq < sub->durable.seq ||
		eo_retries_to_write(sub);
}

int64
eo_progress_published(EoSubscription *sub)
{
	return worth_writing(sub) ? sub->durable.seq : sub->acked.seq;
}

void
eo_progress_note(EoSubscription *sub)
{
	bool		idle = sub->in_flight_count == 0 && sub->at_tail;
	int64		due;

	if (!worth_writing(sub))
		return;
	due = sub->last_write + (idle || sub->flush_write ? IDLE_WRITE_MS : BUSY_WRITE_MS);
	if (due < sub->write_at)
		sub->write_at = due;
}

bool
eo_progress_step(EoSubscription *sub)
{
	bool		holds_up_reading = sub->flush_write;

	if (sub->write_at > eo_clock_ms() || !eo_progress_write(sub))
		return false;
	return holds_up_reading;
}
