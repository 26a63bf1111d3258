/*
 * monitoring.c
 *
 * What the views show of shared memory, and eo.wait_published().
 *
 * Nothing here reads the log or takes a lock that an append waits for.
 */
#include "postgres.h"

#include "api/api.h"
#include "api/configuration.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(eo_outbox_subscription_status);
PG_FUNCTION_INFO_V1(eo_outbox_segment_status);
PG_FUNCTION_INFO_V1(eo_outbox_log_status);
PG_FUNCTION_INFO_V1(eo_outbox_wait_published);

static const char *
state_name(EoSubscriptionState state)
{
	switch (state)
	{
		case EO_SUB_NONE:
			return "unknown";
		case EO_SUB_PAUSED:
			return "paused";
		case EO_SUB_WAITING_ADOPTION:
			return "waiting for adoption";
		case EO_SUB_STARTING:
			return "starting";
		case EO_SUB_CATCHING_UP:
			return "catching up";
		case EO_SUB_STREAMING:
			return "streaming";
		case EO_SUB_BACKOFF:
			return "backoff";
		case EO_SUB_FAILED:
			return "failed";
		case EO_SUB_PULL:
			return "pull";
	}
	return "unknown";
}

static const char *
lineage_name(EoLineageState state)
{
	switch (state)
	{
		case EO_LINEAGE_UNKNOWN:
			return "unknown";
		case EO_LINEAGE_OURS:
			return "ours";
		case EO_LINEAGE_CONTINUED:
			return "continued";
		case EO_LINEAGE_FOREIGN:
			return "foreign";
	}
	return "unknown";
}

static void
set_timestamp(Datum *value, bool *null, TimestampTz timestamp)
{
	*value = TimestampTzGetDatum(timestamp);
	*null = timestamp == 0;
}

/*
 * eo.subscription_status() RETURNS SETOF record: id, state, publisher_pid,
 * read_seq, acked_seq, published, published_bytes, refused, in_flight,
 * lag_bytes, restarts, oldest_unpublished, last_ack_at, next_start_at,
 * last_error_at, last_error
 */
Datum
eo_outbox_subscription_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < eo_shared->nsubscriptions; i++)
	{
		EoSubscriptionSlot *slot = &eo_shared->subscriptions[i];
		EoSubscriptionStats stats;
		Datum		values[16];
		bool		nulls[16] = {0};
		bool		ours;
		int32		id;

		LWLockAcquire(eo_shared->lock, LW_SHARED);
		ours = slot->dboid == MyDatabaseId;
		id = slot->id;
		LWLockRelease(eo_shared->lock);
		if (!ours)
			continue;
		stats = eo_subscription_stats(slot);
		values[0] = Int32GetDatum(id);
		values[1] = CStringGetTextDatum(state_name(stats.state));
		values[2] = Int32GetDatum((int32) stats.publisher_pid);
		nulls[2] = stats.publisher_pid == 0;
		values[3] = Int64GetDatum(stats.read_seq);
		values[4] = Int64GetDatum(stats.acked_seq);
		values[5] = Int64GetDatum(stats.published);
		values[6] = Int64GetDatum(stats.published_bytes);
		values[7] = Int64GetDatum(stats.refused);
		values[8] = Int64GetDatum(stats.in_flight);
		values[9] = Int64GetDatum(stats.lag_bytes);
		values[10] = Int64GetDatum(stats.restarts);
		set_timestamp(&values[11], &nulls[11], stats.oldest_unpublished);
		set_timestamp(&values[12], &nulls[12], stats.last_ack_at);
		set_timestamp(&values[13], &nulls[13], stats.next_start_at);
		set_timestamp(&values[14], &nulls[14], stats.last_error_at);
		values[15] = CStringGetTextDatum(stats.last_error);
		nulls[15] = stats.last_error[0] == '\0';
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * eo.segment_status() RETURNS SETOF record: segment, active, first_seq,
 * last_seq, last_append
 */
Datum
eo_outbox_segment_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EoDatabase *db = eo_my_database();
	bool		ready = pg_atomic_read_u32(&db->log_ready) != 0;

	/* What is read before it is complete is not told. */
	pg_read_barrier();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		EoSegment  *segment = &db->segments[i];
		int64		first_seq = (int64) pg_atomic_read_u64(&segment->first_seq);
		Datum		values[5];
		bool		nulls[5] = {0};

		values[0] = Int32GetDatum(i);
		values[1] = BoolGetDatum(pg_atomic_read_u32(&db->active_segment) == (uint32) i);
		nulls[1] = !ready;
		values[2] = Int64GetDatum(first_seq);
		values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&segment->last_seq));
		nulls[2] = nulls[3] = !ready || first_seq == 0;
		set_timestamp(&values[4], &nulls[4], (TimestampTz) pg_atomic_read_u64(&segment->last_append));
		nulls[4] |= nulls[2];
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * eo.log_status() RETURNS record: relay_pid, lineage, epoch, last_seq,
 * floor_seq, stall_xid, stall_seq, stall_since
 */
Datum
eo_outbox_log_status(PG_FUNCTION_ARGS)
{
	EoDatabase *db = eo_my_database();
	bool		ready = pg_atomic_read_u32(&db->log_ready) != 0;
	TransactionId stall_xid = pg_atomic_read_u32(&db->stall_xid);
	TupleDesc	desc;
	Datum		values[8];
	bool		nulls[8] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum((int32) db->relay_pid);
	nulls[0] = db->relay_pid == 0;
	values[1] = CStringGetTextDatum(lineage_name(pg_atomic_read_u32(&db->lineage)));
	values[2] = Int32GetDatum((int32) pg_atomic_read_u32(&db->epoch));
	values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&db->last_seq));
	values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&db->floor_seq));
	nulls[2] = nulls[3] = nulls[4] = !ready;
	values[5] = TransactionIdGetDatum(stall_xid);
	values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&db->stall_seq));
	set_timestamp(&values[7], &nulls[7], (TimestampTz) pg_atomic_read_u64(&db->stall_since));
	nulls[5] = nulls[6] = nulls[7] = !TransactionIdIsValid(stall_xid);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * eo.wait_published(subscription text, seq bigint, timeout interval)
 * RETURNS boolean
 *
 * Waits until everything up to seq has been published; false at the timeout or
 * when the subscription is dropped meanwhile.  A null seq, as eo.last_seq()
 * returns it, is nothing to wait for, and answered by null.
 */
Datum
eo_outbox_wait_published(PG_FUNCTION_ARGS)
{
	bool		pull;
	int32		id;
	int64		seq;
	TimestampTz until;
	EoSubscriptionSlot *slot;
	bool		published;

	eo_api_refuse_null(fcinfo, 0, "subscription");
	eo_api_refuse_null(fcinfo, 2, "timeout");
	id = eo_configuration_subscription_id(PG_GETARG_TEXT_PP(0), &pull);
	if (pull)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("subscription \"%s\" is not published to a server",
						text_to_cstring(PG_GETARG_TEXT_PP(0))),
				 errhint("Its reader says how far it is by eo.ack(); see the column seq of eo.subscriptions.")));
	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	seq = PG_GETARG_INT64(1);
	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										eo_configuration_interval_ms(PG_GETARG_INTERVAL_P(2)));
	slot = eo_subscription_slot(MyDatabaseId, id, true);
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many subscriptions to watch this one"),
				 errhint("Increase eo_outbox.max_subscriptions and restart the server.")));
	ConditionVariablePrepareToSleep(&slot->advanced);
	for (;;)
	{
		long		left;

		/* in this order: the slot may become another subscription's */
		published = eo_subscription_stats(slot).acked_seq >= seq;
		pg_read_barrier();
		published &= slot->dboid == MyDatabaseId && slot->id == id;
		if (published || slot->dboid != MyDatabaseId || slot->id != id)
			break;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&slot->advanced, left, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(published);
}
