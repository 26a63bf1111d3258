/*
 * dead_letters.c
 *
 * Events that a broker refused for good, and their second chance.
 *
 * No copy of the payload is kept for the case that an event is refused.  The
 * refusal is noted with its seq, and when the cursor passes it the event is
 * read from the log again, into eo.dead_letter, in the transaction that moves
 * the cursor.  Notes outlive the publisher: when it is killed after later
 * events have reached the broker, the next publisher is not sent the refused
 * one again.
 *
 * A row of eo.dead_letter_retry asks for another try.  Such events are sent
 * outside the order, are answered one by one, and leave both tables when they
 * are published.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "points.h"
#include "relay/dead_letters.h"
#include "relay/delivery.h"
#include "relay/sql.h"
#include "relay/supervision.h"
#include "settings.h"
#include "store/topics.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* Retries that are sent at once; the next ones when they are settled. */
#define RETRY_ROUND		100
#define RETRY_ROUND_TEXT	"100"

static EoStatement insert_dead_letter = {
	"INSERT INTO eo.dead_letter AS d (subscription, seq, position, event_id, topic, key, type,"
	" headers, payload, body, content_type, enqueued_at, reason)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
	" ON CONFLICT (subscription, seq) DO UPDATE"
	" SET reason = excluded.reason, failed_at = clock_timestamp(), attempts = d.attempts + 1",
	13, {INT4OID, INT8OID, INT8OID, UUIDOID, TEXTOID, TEXTOID, TEXTOID,
		JSONBOID, JSONBOID, BYTEAOID, TEXTOID, TIMESTAMPTZOID, TEXTOID}
};

static EoStatement select_retries = {
	"SELECT d.seq, d.position, d.event_id, d.topic, d.key, d.type, d.headers, d.payload,"
	" d.body, d.content_type, d.enqueued_at"
	" FROM eo.dead_letter d JOIN eo.dead_letter_retry r USING (subscription, seq)"
	" WHERE d.subscription = $1 AND d.seq <= $2 ORDER BY d.seq LIMIT " RETRY_ROUND_TEXT,
	2, {INT4OID, INT8OID}
};

static EoStatement delete_dead_letter = {
	"DELETE FROM eo.dead_letter WHERE subscription = $1 AND seq = $2",
	2, {INT4OID, INT8OID}
};

static EoStatement delete_retry = {
	"DELETE FROM eo.dead_letter_retry WHERE subscription = $1 AND seq = $2",
	2, {INT4OID, INT8OID}
};

static EoStatement update_dead_letter = {
	"UPDATE eo.dead_letter SET reason = $3, failed_at = clock_timestamp(), attempts = attempts + 1"
	" WHERE subscription = $1 AND seq = $2",
	3, {INT4OID, INT8OID, TEXTOID}
};

/*----------
 * Refusals
 *----------
 */

/* The place in the list, which is sorted, of a refusal or where it belongs. */
static int
refusal_place(EoSubscription *sub, int64 seq)
{
	int			low = 0;
	int			high = list_length(sub->refusals);

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (((EoRefusal *) list_nth(sub->refusals, middle))->seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static EoRefusal *
find_refusal(EoSubscription *sub, int64 seq)
{
	int			place = refusal_place(sub, seq);
	EoRefusal  *refusal;

	if (place == list_length(sub->refusals))
		return NULL;
	refusal = list_nth(sub->refusals, place);
	return refusal->seq == seq ? refusal : NULL;
}

void
eo_dead_letter_note(EoSubscription *sub, EoInFlight *event, const char *reason)
{
	MemoryContext old = MemoryContextSwitchTo(sub->context);
	EoRefusal  *refusal = find_refusal(sub, event->seq);

	if (refusal == NULL)
	{
		refusal = palloc0(sizeof(EoRefusal));
		refusal->seq = event->seq;
		refusal->position = event->position;
		sub->refusals = list_insert_nth(sub->refusals,
										refusal_place(sub, event->seq), refusal);
	}
	else
		pfree(refusal->reason);
	refusal->reason = pstrdup(reason);
	MemoryContextSwitchTo(old);

	ereport(WARNING,
			(errmsg("subscription \"%s\": event " INT64_FORMAT " of topic \"%s\" was refused: %s",
					sub->name, event->seq, event->topic->name, reason),
			 errdetail("It is kept in eo.dead_letters; the subscription goes on.")));
}

static void
free_refusal(EoRefusal *refusal)
{
	pfree(refusal->reason);
	pfree(refusal);
}

void
eo_dead_letter_forget(EoSubscription *sub, int64 seq)
{
	EoRefusal  *refusal = sub->refusals == NIL ? NULL : find_refusal(sub, seq);

	if (refusal == NULL)
		return;
	sub->refusals = list_delete_ptr(sub->refusals, refusal);
	free_refusal(refusal);
}

bool
eo_dead_letter_noted(EoSubscription *sub, int64 seq)
{
	return sub->refusals != NIL && find_refusal(sub, seq) != NULL;
}

static Datum
optional(void *value, int column, char *nulls)
{
	nulls[column] = value == NULL ? 'n' : ' ';
	return PointerGetDatum(value);
}

static void
insert_refused(EoSubscription *sub, EoEvent *event, EoRefusal *refusal)
{
	Datum		values[13];
	char		nulls[13];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(sub->id);
	values[1] = Int64GetDatum(event->seq);
	values[2] = Int64GetDatum(refusal->position);
	values[3] = UUIDPGetDatum(&event->event_id);
	values[4] = PointerGetDatum(event->topic);
	values[5] = optional(event->key, 5, nulls);
	values[6] = optional(event->type, 6, nulls);
	values[7] = optional(event->headers, 7, nulls);
	values[8] = optional(event->payload, 8, nulls);
	values[9] = optional(event->body, 9, nulls);
	values[10] = optional(event->content_type, 10, nulls);
	values[11] = TimestampTzGetDatum(event->enqueued_at);
	values[12] = CStringGetTextDatum(refusal->reason);
	EO_POINT(dead_letter_write);
	eo_statement_run(&insert_dead_letter, values, nulls, SPI_OK_INSERT);
	EO_POINT(dead_letter_written);
}

/* Refusals that the cursor has passed stand at the front. */
static bool
is_passed(EoSubscription *sub, ListCell *lc)
{
	return lc != NULL && ((EoRefusal *) lfirst(lc))->seq <= sub->acked.seq;
}

static void
write_refusals(EoSubscription *sub)
{
	ListCell   *next = list_head(sub->refusals);
	EoReadLimits limits = {.events = eo_batch_events,.bytes = (Size) eo_batch_bytes * 1024};
	EoReadResult result;
	EoLogReader *reader;

	if (!is_passed(sub, next))
		return;
	limits.wants = eo_topic_filter;
	limits.wants_arg = sub->topics;
	limits.subscription = sub->id;
	limits.through_seq = sub->acked.seq;
	reader = eo_log_reader_create(eo_relay.db, ((EoRefusal *) lfirst(next))->seq - 1);
	do
	{
		if (!eo_log_reader_next(reader, &limits, &result))
			eo_relay_leave();
		for (int i = 0; i < result.nevents && is_passed(sub, next); i++)
		{
			EoRefusal  *refusal = lfirst(next);

			if (result.events[i].seq != refusal->seq)
				continue;
			insert_refused(sub, &result.events[i], refusal);
			next = lnext(sub->refusals, next);
		}
	} while (is_passed(sub, next) && result.nevents > 0);
	if (is_passed(sub, next))
		elog(ERROR, "refused event " INT64_FORMAT " is not in the log",
			 ((EoRefusal *) lfirst(next))->seq);
}

/*----------
 * Retries
 *----------
 */

EoRetry *
eo_retry_find(EoSubscription *sub, int64 seq)
{
	ListCell   *lc;

	foreach(lc, sub->retries)
	{
		EoRetry    *retry = lfirst(lc);

		if (retry->seq == seq && retry->state == EO_RETRY_SENT)
			return retry;
	}
	return NULL;
}

bool
eo_retries_unsettled(EoSubscription *sub)
{
	ListCell   *lc;

	foreach(lc, sub->retries)
	{
		if (((EoRetry *) lfirst(lc))->state == EO_RETRY_SENT)
			return true;
	}
	return false;
}

bool
eo_retries_to_write(EoSubscription *sub)
{
	ListCell   *lc;

	foreach(lc, sub->retries)
	{
		if (((EoRetry *) lfirst(lc))->state != EO_RETRY_SENT)
			return true;
	}
	return false;
}

void
eo_retry_refused(EoSubscription *sub, EoRetry *retry, const char *reason)
{
	retry->state = EO_RETRY_REFUSED;
	retry->reason = MemoryContextStrdup(sub->context, reason);
	ereport(WARNING,
			(errmsg("subscription \"%s\": event " INT64_FORMAT " was refused again: %s",
					sub->name, retry->seq, reason),
			 errdetail("It stays in eo.dead_letters.")));
}

static void
write_retries(EoSubscription *sub)
{
	ListCell   *lc;

	foreach(lc, sub->retries)
	{
		EoRetry    *retry = lfirst(lc);
		Datum		values[3];

		if (retry->state == EO_RETRY_SENT)
			continue;
		values[0] = Int32GetDatum(sub->id);
		values[1] = Int64GetDatum(retry->seq);
		if (retry->state == EO_RETRY_REFUSED)
		{
			values[2] = CStringGetTextDatum(retry->reason);
			eo_statement_run(&update_dead_letter, values, NULL, SPI_OK_UPDATE);
		}
		else
			eo_statement_run(&delete_dead_letter, values, NULL, SPI_OK_DELETE);
		eo_statement_run(&delete_retry, values, NULL, SPI_OK_DELETE);
	}
}

static void
free_retry(EoRetry *retry)
{
	if (retry->reason != NULL)
		pfree(retry->reason);
	pfree(retry);
}

void
eo_retries_rewind(EoSubscription *sub)
{
	ListCell   *lc;

	foreach(lc, sub->retries)
	{
		EoRetry    *retry = lfirst(lc);

		if (retry->state != EO_RETRY_SENT)
			continue;
		free_retry(retry);
		sub->retries = foreach_delete_current(sub->retries, lc);
		sub->load_retries = true;
	}
}

/* A column of a dead letter that may be NULL, copied out of SPI's memory. */
static void *
optional_column(uint64 row, int column)
{
	bool		isnull;
	Datum		value = eo_statement_column(row, column, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM(value);
}

static void
send_retry(EoSubscription *sub, uint64 row)
{
	EoEvent		event = {0};
	EoRetry    *retry;
	int64		position;
	uint32		bytes;
	bool		isnull;
	const char *problem;

	event.seq = DatumGetInt64(eo_statement_column(row, 1, &isnull));
	position = DatumGetInt64(eo_statement_column(row, 2, &isnull));
	event.event_id = *DatumGetUUIDP(eo_statement_column(row, 3, &isnull));
	event.topic = optional_column(row, 4);
	event.key = optional_column(row, 5);
	event.type = optional_column(row, 6);
	event.headers = optional_column(row, 7);
	event.payload = optional_column(row, 8);
	event.body = optional_column(row, 9);
	event.content_type = optional_column(row, 10);
	event.enqueued_at = DatumGetTimestampTz(eo_statement_column(row, 11, &isnull));

	problem = eo_delivery_encode(sub, &event, position, EO_EVENT_RETRY, &bytes);
	retry = MemoryContextAllocZero(sub->context, sizeof(EoRetry));
	retry->seq = event.seq;
	MemoryContextSwitchTo(sub->context);
	sub->retries = lappend(sub->retries, retry);
	MemoryContextSwitchTo(eo_relay.scratch);
	if (problem != NULL)
		eo_retry_refused(sub, retry, problem);
}

void
eo_retries_send(EoSubscription *sub)
{
	Datum		values[2];
	uint64		n;

	if (!sub->load_retries || sub->retries != NIL ||
		sub->phase != EO_PUBLISHER_RUNNING || sub->recount.active)
		return;
	eo_relay_begin(true);
	if (!eo_relay_lock_tables(AccessShareLock))
	{
		eo_relay_abort(true);
		sub->retries_at = eo_clock_ms() + EO_RETRY_MS;
		return;
	}
	values[0] = Int32GetDatum(sub->id);
	values[1] = Int64GetDatum(sub->acked.seq);
	n = eo_statement_run(&select_retries, values, NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
		send_retry(sub, row);
	eo_relay_commit(true);
	sub->load_retries = n == RETRY_ROUND;
	sub->retries_at = EO_NEVER;
	if (eo_retries_unsettled(sub))
		eo_supervision_expect_answer(sub);
	eo_progress_note(sub);		/* some may have been refused right here */
}

/*----------
 * Both
 *----------
 */

void
eo_dead_letters_write(EoSubscription *sub)
{
	write_refusals(sub);
	write_retries(sub);
}

void
eo_dead_letters_written(EoSubscription *sub)
{
	ListCell   *lc;
	int			passed = 0;

	foreach(lc, sub->refusals)
	{
		if (!is_passed(sub, lc))
			break;
		free_refusal(lfirst(lc));
		passed++;
	}
	sub->refusals = list_delete_first_n(sub->refusals, passed);
	sub->refused += passed;
	foreach(lc, sub->retries)
	{
		EoRetry    *retry = lfirst(lc);

		if (retry->state == EO_RETRY_SENT)
			continue;
		if (retry->state == EO_RETRY_DELIVERED)
			sub->published++;
		free_retry(retry);
		sub->retries = foreach_delete_current(sub->retries, lc);
	}

	/* The next round can go out. */
	if (sub->load_retries && sub->retries == NIL)
		sub->retries_at = eo_clock_ms();
}
