/*
 * enqueue.c
 *
 * eo.enqueue() and what belongs to it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/api.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "txn/event_buffer.h"
#include "txn/produce.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(eo_outbox_enqueue);
PG_FUNCTION_INFO_V1(eo_outbox_enqueue_bytes);
PG_FUNCTION_INFO_V1(eo_outbox_pending);
PG_FUNCTION_INFO_V1(eo_outbox_last_seq);

/* An argument as text, checked; NULL if it is NULL. */
static text *
name_argument(FunctionCallInfo fcinfo, int arg, const char *what, int limit)
{
	text	   *value;

	if (PG_ARGISNULL(arg))
		return NULL;
	value = PG_GETARG_TEXT_PP(arg);
	eo_produce_check_name(what, value, limit);
	return value;
}

/*
 * What both functions have in common: arguments 0 topic, 2 key, 3 type,
 * 4 headers; the event's id at `id_arg`.
 */
static pg_uuid_t *
enqueue(FunctionCallInfo fcinfo, EoEvent *event, int id_arg)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	eo_produce_check_transaction();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("topic of an event must not be null"),
				 errhint("Give the topic that subscriptions select events by.")));
	event->topic = name_argument(fcinfo, 0, "topic", EO_TOPIC_MAX);
	event->key = name_argument(fcinfo, 2, "key", EO_KEY_MAX);
	event->type = name_argument(fcinfo, 3, "type", EO_TYPE_MAX);
	eo_produce_prepare(event, PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4),
					   PG_ARGISNULL(id_arg) ? NULL : PG_GETARG_UUID_P(id_arg));
	eo_buffer_add(event, &(EoEventPlace) {.cid = GetCurrentCommandId(false)});
	*id = event->event_id;
	return id;
}

/*
 * eo.enqueue(topic text, payload jsonb, key text, type text, headers jsonb,
 *			  event_id uuid) RETURNS uuid
 */
Datum
eo_outbox_enqueue(PG_FUNCTION_ARGS)
{
	EoEvent		event = {0};

	if (!PG_ARGISNULL(1))
		event.payload = (struct varlena *) PG_GETARG_JSONB_P(1);
	PG_RETURN_UUID_P(enqueue(fcinfo, &event, 5));
}

/*
 * eo.enqueue_bytes(topic text, payload bytea, key text, type text,
 *					headers jsonb, content_type text, event_id uuid) RETURNS uuid
 */
Datum
eo_outbox_enqueue_bytes(PG_FUNCTION_ARGS)
{
	EoEvent		event = {0};

	if (!PG_ARGISNULL(1))
	{
		event.body = (struct varlena *) PG_GETARG_BYTEA_PP(1);
		event.content_type = name_argument(fcinfo, 5, "content type", EO_TYPE_MAX);
		if (event.content_type == NULL)
			event.content_type = cstring_to_text("application/octet-stream");
	}
	PG_RETURN_UUID_P(enqueue(fcinfo, &event, 6));
}

static void
put_pending(const EoEvent *event, void *arg)
{
	ReturnSetInfo *rsinfo = arg;

	eo_api_put_event(rsinfo, event, 0);
}

/* eo.pending() RETURNS SETOF eo.event */
Datum
eo_outbox_pending(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	eo_buffer_walk(put_pending, rsinfo);
	return (Datum) 0;
}

/* eo.last_seq() RETURNS bigint */
Datum
eo_outbox_last_seq(PG_FUNCTION_ARGS)
{
	int64		seq = eo_buffer_last_seq();

	if (seq == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(seq);
}
