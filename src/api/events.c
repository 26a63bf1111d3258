/*
 * events.c
 *
 * Events as SQL sees them: rows of eo.event and of the view eo.events.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "api/api.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "store/catalog.h"
#include "store/page.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(eo_outbox_event_payload);
PG_FUNCTION_INFO_V1(eo_outbox_event_body);

/* Attributes of the type eo.event; see src/sql/types.sql */
enum
{
	EVENT_SEQ = 0,
	EVENT_POSITION,
	EVENT_ID,
	EVENT_TOPIC,
	EVENT_KEY,
	EVENT_TYPE,
	EVENT_PAYLOAD,
	EVENT_BODY,
	EVENT_CONTENT_TYPE,
	EVENT_HEADERS,
	EVENT_ENQUEUED_AT,
	EVENT_ATTRIBUTES
};

void
eo_api_put_event(ReturnSetInfo *rsinfo, const EoEvent *event, int64 position)
{
	Datum		values[EVENT_ATTRIBUTES];
	bool		nulls[EVENT_ATTRIBUTES] = {0};
	pg_uuid_t	id = event->event_id;

#define SET_OR_NULL(attribute, pointer) \
	do { \
		values[attribute] = PointerGetDatum(pointer); \
		nulls[attribute] = (pointer) == NULL; \
	} while (0)

	values[EVENT_SEQ] = Int64GetDatum(event->seq);
	nulls[EVENT_SEQ] = event->seq == 0;
	values[EVENT_POSITION] = Int64GetDatum(position);
	nulls[EVENT_POSITION] = position == 0;
	values[EVENT_ID] = UUIDPGetDatum(&id);
	SET_OR_NULL(EVENT_TOPIC, event->topic);
	SET_OR_NULL(EVENT_KEY, event->key);
	SET_OR_NULL(EVENT_TYPE, event->type);
	SET_OR_NULL(EVENT_PAYLOAD, event->payload);
	SET_OR_NULL(EVENT_BODY, event->body);
	SET_OR_NULL(EVENT_CONTENT_TYPE, event->content_type);
	SET_OR_NULL(EVENT_HEADERS, event->headers);
	values[EVENT_ENQUEUED_AT] = TimestampTzGetDatum(event->enqueued_at);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* State of the search for the rows of one event. */
typedef struct Assembly
{
	TupleDesc	desc;
	int64		seq;
	EoEvent		head;
	int			nparts;
	int			found;
	bool		found_head;		/* of that seq, kind and number of parts */
	struct varlena **parts;
} Assembly;

/* Takes a row if it is of the event. */
static void
collect_part(HeapTuple tuple, Buffer buffer, void *arg)
{
	Assembly   *assembly = arg;
	EoEvent		row;
	int16		part;
	bool		isnull;

	if (eo_event_row_seq(tuple) != assembly->seq)
		return;
	part = DatumGetInt16(heap_getattr(tuple, EO_COL_PART, assembly->desc, &isnull));
	if (part == -assembly->nparts)
	{
		bool		json;

		(void) heap_getattr(tuple, EO_COL_CONTENT_TYPE, assembly->desc, &json);
		assembly->found_head |= json == (assembly->head.content_type == NULL);
	}
	if (part <= 0 || part > assembly->nparts || assembly->parts[part - 1] != NULL)
		return;
	(void) eo_event_deform(heap_copytuple(tuple), assembly->desc, &row);
	assembly->parts[part - 1] = row.body;
	assembly->found++;
}

/*
 * Puts the payload of a head row together.  Its parts stand right behind it,
 * unless the segment was rewritten: then they are searched from the start.
 * Rows of one event share its transaction, so that no visibility check is
 * needed beyond that of the head, which the caller's snapshot saw.
 */
static EoEvent
assemble(Oid relid, ItemPointer head, int64 seq, int nparts, text *content_type)
{
	const EoCatalog *catalog = eo_catalog_required();
	Assembly	assembly = {.seq = seq,.nparts = nparts};
	Relation	rel;
	BlockNumber nblocks;
	BlockNumber first = ItemPointerGetBlockNumberNoCheck(head);
	bool		ours = false;

	for (int i = 0; i < EO_SEGMENTS; i++)
		ours |= catalog->log[i] == relid;
	if (!ours || nparts <= 0 || nparts > PG_INT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not an event of the log in several rows"),
				 errhint("Read the view eo.events.")));
	rel = relation_open(relid, AccessShareLock);
	nblocks = RelationGetNumberOfBlocks(rel);
	assembly.desc = RelationGetDescr(rel);
	assembly.head.content_type = content_type;
	assembly.parts = palloc0(sizeof(struct varlena *) * nparts);
	for (BlockNumber i = 0; i < nblocks && assembly.found < nparts; i++)
	{
		CHECK_FOR_INTERRUPTS();
		eo_page_visit(rel, (first + i) % nblocks, collect_part, &assembly);
	}
	relation_close(rel, AccessShareLock);
	/* Whoever calls chooses the arguments: no half event, nor bytes as JSON. */
	if (assembly.found < nparts || !assembly.found_head)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " of the log is incomplete", seq)));
	eo_event_join(&assembly.head, assembly.parts, nparts);
	return assembly.head;
}

/* eo.event_payload(segment oid, head tid, seq bigint, parts int) RETURNS jsonb */
Datum
eo_outbox_event_payload(PG_FUNCTION_ARGS)
{
	EoEvent		event = assemble(PG_GETARG_OID(0), (ItemPointer) PG_GETARG_POINTER(1),
								 PG_GETARG_INT64(2), PG_GETARG_INT32(3), NULL);

	PG_RETURN_POINTER(event.payload);
}

/* eo.event_body(segment oid, head tid, seq bigint, parts int) RETURNS bytea */
Datum
eo_outbox_event_body(PG_FUNCTION_ARGS)
{
	EoEvent		event = assemble(PG_GETARG_OID(0), (ItemPointer) PG_GETARG_POINTER(1),
								 PG_GETARG_INT64(2), PG_GETARG_INT32(3), cstring_to_text("x"));

	PG_RETURN_POINTER(event.body);
}
