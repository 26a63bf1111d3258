/*
 * pull.c
 *
 * Subscriptions without a server: the application reads the events itself.
 *
 * eo.fetch() returns what comes after the cursor and leaves it; eo.ack() moves
 * it, in the caller's transaction, so that a consumer in the same database
 * processes each event exactly once.  One consumer at a time: eo.ack() locks
 * the cursor's row until the transaction ends.
 */
#include "postgres.h"

#include "api/api.h"
#include "api/configuration.h"
#include "api/pull.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "points.h"
#include "settings.h"
#include "storage/ipc.h"
#include "store/append.h"
#include "store/catalog.h"
#include "store/lineage.h"
#include "store/log_reader.h"
#include "store/topics.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(eo_outbox_fetch);
PG_FUNCTION_INFO_V1(eo_outbox_ack);

#define TOPIC_SIZE	256			/* the limit of eo.enqueue() and a NUL */

/* A pull subscription, with its cursor. */
typedef struct Pull
{
	int32		id;
	List	   *patterns;
	bool		paused;
	int64		seq;
	HTAB	   *positions;		/* of Position */
} Pull;

typedef struct Position
{
	char		topic[TOPIC_SIZE];	/* hash key */
	int64		position;
	bool		changed;
} Position;

static Position *
find_position(Pull *pull, const char *topic, int len)
{
	char		key[TOPIC_SIZE];
	Position   *entry;
	bool		found;

	memcpy(key, topic, Min(len, TOPIC_SIZE - 1));
	key[Min(len, TOPIC_SIZE - 1)] = '\0';
	entry = hash_search(pull->positions, key, HASH_ENTER, &found);
	if (!found)
	{
		entry->position = 0;
		entry->changed = false;
	}
	return entry;
}

static void
load_positions(Pull *pull, MemoryContext context)
{
	HASHCTL		info = {.keysize = TOPIC_SIZE,.entrysize = sizeof(Position),.hcxt = context};
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(pull->id)};

	pull->positions = hash_create("eo_outbox positions", 16, &info,
								  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	if (SPI_execute_with_args("SELECT topic, position FROM eo.position WHERE subscription OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the positions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;
		text	   *topic = DatumGetTextPP(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));

		find_position(pull, VARDATA_ANY(topic), VARSIZE_ANY_EXHDR(topic))->position =
			DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
}

/* Refuses what is not a pull subscription of this database. */
static void
check_pull(EoDatabase *db, const char *name, bool pushed, const char *home)
{
	if (pushed)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("subscription \"%s\" is published to a server", name),
				 errhint("Only a subscription without a server can be fetched.")));
	if (strcmp(home, eo_lineage_home()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" belongs to another database", name),
				 errdetail("This database is a copy."),
				 errhint("Run eo.adopt() if it should have a life of its own.")));
	if (eo_lineage_is_foreign(db))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" waits for adoption", name),
				 errdetail("This database was restored, or its server promoted while \"eo_outbox.on_new_timeline\" is \"pause\"."),
				 errhint("Run eo.adopt() if it should go on here.")));
}

/*
 * Looks the subscription up, in the current memory context.  Caller has
 * prepared the log and connected to SPI as the extension's owner.
 */
static void
load_pull(EoDatabase *db, text *name, bool lock, MemoryContext context, Pull *pull)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(name)};
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;
	MemoryContext old;

	if (SPI_execute_with_args(lock ?
							  "SELECT s.id, s.topics, s.paused, s.server IS NOT NULL, s.home, c.seq"
							  " FROM eo.subscription AS s JOIN eo.cursor AS c ON c.subscription OPERATOR(pg_catalog.=) s.id"
							  " WHERE s.name OPERATOR(pg_catalog.=) $1 FOR UPDATE OF c" :
							  "SELECT s.id, s.topics, s.paused, s.server IS NOT NULL, s.home, coalesce(c.seq, s.start_seq)"
							  " FROM eo.subscription AS s LEFT JOIN eo.cursor AS c ON c.subscription OPERATOR(pg_catalog.=) s.id"
							  " WHERE s.name OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up the subscription");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", text_to_cstring(name)),
				 errhint("See the view eo.subscriptions.")));
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	check_pull(db, text_to_cstring(name), DatumGetBool(SPI_getbinval(row, desc, 4, &isnull)),
			   TextDatumGetCString(SPI_getbinval(row, desc, 5, &isnull)));
	pull->id = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	pull->paused = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
	pull->seq = DatumGetInt64(SPI_getbinval(row, desc, 6, &isnull));
	old = MemoryContextSwitchTo(context);
	pull->patterns = eo_topic_patterns(DatumGetArrayTypeP(SPI_getbinval(row, desc, 2, &isnull)));
	MemoryContextSwitchTo(old);
	load_positions(pull, context);
}

static void
store_positions(Pull *pull)
{
	HASH_SEQ_STATUS scan;
	Position   *entry;
	Oid			types[] = {INT4OID, TEXTOID, INT8OID};

	hash_seq_init(&scan, pull->positions);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		Datum		values[] = {Int32GetDatum(pull->id), CStringGetTextDatum(entry->topic), Int64GetDatum(entry->position)};

		if (entry->changed &&
			SPI_execute_with_args("INSERT INTO eo.position (subscription, topic, position) VALUES ($1, $2, $3)"
								  " ON CONFLICT (subscription, topic) DO UPDATE SET position = EXCLUDED.position",
								  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not store a position");
	}
}

static void
store_cursor(Pull *pull, int64 seq)
{
	Oid			types[] = {INT4OID, INT8OID};
	Datum		values[] = {Int32GetDatum(pull->id), Int64GetDatum(seq)};

	EO_POINT(pull_ack);
	if (SPI_execute_with_args("UPDATE eo.cursor SET seq = $2, published_seq = $2"
							  " WHERE subscription OPERATOR(pg_catalog.=) $1",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not store the cursor");
	store_positions(pull);
	EO_POINT(pull_acked);
}

/*
 * Adds `sign` for each event of the subscription in (from, upto] to its topic's
 * position.  An ERROR if the log is not final up to there.
 */
static void
count_events(EoDatabase *db, Pull *pull, int64 from, int64 upto, int sign)
{
	EoLogReader *reader = eo_log_reader_create(db, from);
	EoReadLimits limits = {
		.events = eo_batch_events,.bytes = (Size) eo_batch_bytes * 1024,
		.wants = eo_topic_filter,.wants_arg = pull->patterns,.subscription = pull->id,
		.through_seq = upto
	};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eo_outbox count",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		before;
	EoReadResult result = {.through_seq = from};

	/* A number is given out a moment before its row is there; not after this. */
	eo_append_lock();
	eo_append_unlock();
	do
	{
		before = result.through_seq;
		MemoryContextReset(context);
		if (!eo_log_reader_next(reader, &limits, &result))
			break;
		for (int i = 0; i < result.nevents; i++)
		{
			text	   *topic = result.events[i].topic;
			Position   *entry = find_position(pull, VARDATA_ANY(topic), VARSIZE_ANY_EXHDR(topic));

			entry->position += sign;
			entry->changed = true;
		}
		if (TransactionIdIsValid(result.stalled_on) && result.stalled_seq <= upto)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("event " INT64_FORMAT " has not been committed yet", result.stalled_seq),
					 errhint("Only acknowledge events that eo.fetch() has returned.")));
	} while (result.through_seq > before && !result.at_tail);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	eo_log_reader_free(reader);
}

static void
stop_waiting(int code, Datum db)
{
	pg_atomic_fetch_sub_u32(&((EoDatabase *) DatumGetPointer(db))->waiters, 1);
}

/* Waits until some transaction with events has ended, or the time is over. */
static bool
wait_for_events(EoDatabase *db, uint64 ended, TimestampTz until)
{
	bool		more = false;

	pg_atomic_fetch_add_u32(&db->waiters, 1);
	PG_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(db));
	{
		ConditionVariablePrepareToSleep(&db->events_ended);
		for (;;)
		{
			long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

			more = pg_atomic_read_u64(&db->ended) != ended;
			if (more || left <= 0)
				break;
			(void) ConditionVariableTimedSleep(&db->events_ended, left, PG_WAIT_EXTENSION);
		}
		ConditionVariableCancelSleep();
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(db));
	stop_waiting(0, PointerGetDatum(db));
	return more;
}

/*
 * eo.fetch(subscription text, max_events int, wait interval)
 * RETURNS SETOF eo.event
 */
Datum
eo_outbox_fetch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EoDatabase *db = eo_my_database();
	long		wait;
	TimestampTz until;
	EoReadLimits limits = {.bytes = (Size) eo_batch_bytes * 1024,.wants = eo_topic_filter};
	EoReadResult result;
	EoLogReader *reader;
	EoOwnerScope scope;
	Pull		pull;
	uint64		ended;

	eo_api_refuse_null(fcinfo, 0, "subscription");
	eo_api_refuse_null(fcinfo, 1, "max_events");
	eo_api_refuse_null(fcinfo, 2, "wait");
	limits.events = PG_GETARG_INT32(1);
	wait = eo_configuration_interval_ms(PG_GETARG_INTERVAL_P(2));
	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait);
	if (limits.events < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_events must be at least 1")));
	InitMaterializedSRF(fcinfo, 0);
	PreventCommandDuringRecovery("eo.fetch()");
	eo_log_prepare(db);
	eo_enter_owner(&scope);
	SPI_connect();
	load_pull(db, PG_GETARG_TEXT_PP(0), false, fcinfo->flinfo->fn_mcxt, &pull);
	SPI_finish();
	eo_leave_owner(&scope);
	if (pull.paused)
		return (Datum) 0;

	limits.wants_arg = pull.patterns;
	limits.subscription = pull.id;
	reader = eo_log_reader_create(db, pull.seq);
	do
	{
		ended = pg_atomic_read_u64(&db->ended);
		do
		{
			CHECK_FOR_INTERRUPTS();
			if (!eo_log_reader_next(reader, &limits, &result))
				return (Datum) 0;
		} while (result.nevents == 0 && !result.at_tail);
	} while (result.nevents == 0 && wait > 0 && wait_for_events(db, ended, until));

	for (int i = 0; i < result.nevents; i++)
	{
		EoEvent    *event = &result.events[i];
		Position   *entry = find_position(&pull, VARDATA_ANY(event->topic), VARSIZE_ANY_EXHDR(event->topic));

		eo_api_put_event(rsinfo, event, ++entry->position);
	}
	eo_log_reader_free(reader);
	return (Datum) 0;
}

/*
 * eo.ack(subscription text, seq bigint) RETURNS void
 *
 * A null seq, as the last one of no events is, marks nothing.
 */
Datum
eo_outbox_ack(PG_FUNCTION_ARGS)
{
	EoDatabase *db = eo_my_database();
	int64		seq;
	EoOwnerScope scope;
	Pull		pull;

	PreventCommandDuringRecovery("eo.ack()");
	eo_api_refuse_null(fcinfo, 0, "subscription");
	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	seq = PG_GETARG_INT64(1);
	eo_log_prepare(db);
	eo_configuration_check_seq(db, Max(seq, (int64) pg_atomic_read_u64(&db->floor_seq)));
	eo_enter_owner(&scope);
	SPI_connect();
	load_pull(db, PG_GETARG_TEXT_PP(0), true, CurrentMemoryContext, &pull);
	if (seq > pull.seq)
	{
		count_events(db, &pull, pull.seq, seq, 1);
		store_cursor(&pull, seq);
	}
	SPI_finish();
	eo_leave_owner(&scope);
	PG_RETURN_VOID();
}

/*
 * Moves the cursor of a pull subscription for eo.seek(), and its positions with
 * it: backwards, so that replayed events get the same again; forwards, so that
 * the consumer sees the gap.
 */
void
eo_pull_seek(text *name, int64 seq)
{
	EoDatabase *db = eo_my_database();
	EoOwnerScope scope;
	Pull		pull;

	eo_enter_owner(&scope);
	SPI_connect();
	load_pull(db, name, true, CurrentMemoryContext, &pull);
	if (seq >= pull.seq)
		count_events(db, &pull, pull.seq, seq, 1);
	else
		count_events(db, &pull, seq, pull.seq, -1);
	store_cursor(&pull, seq);
	SPI_finish();
	eo_leave_owner(&scope);
}
