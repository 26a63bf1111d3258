/*
 * trigger.c
 *
 * eo.capture_row(), the trigger that puts changes of a table into the outbox.
 *
 * 1. Events are numbered in the order of the commands that made the changes, not
 *	  in that of the triggers.  A trigger of the application may change a row
 *	  again before the first change has been captured here; what was there first
 *	  still comes first (txn/event_buffer.c).  Where the key can be exchanged, one
 *	  command first takes the keys away and then gives them.
 *
 * 2. TRUNCATE tells of all rows at once, except to those who know a table by its
 *	  keys alone: a changelog gets a tombstone for each row, and where other
 *	  tables share the topic, each row is deleted.
 *
 * 3. A table that is a partition has the triggers of its parent, but PostgreSQL
 *	  does not clone those on TRUNCATE; it gets one of its own (children.c).
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "capture/change.h"
#include "capture/filter.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "points.h"
#include "storage/proc.h"
#include "txn/event_buffer.h"
#include "txn/produce.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(eo_outbox_capture_row);

#define EXAMPLE \
	"For example: CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION eo.capture_row('topic=orders', 'mode=fact')."

/* The partitioned table that the latest TRUNCATE told of, and when. */
static Oid	truncated_root = InvalidOid;
static CommandId truncated_cid;
static LocalTransactionId truncated_lxid;

static void
refuse_trigger(const Trigger *trigger)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("trigger \"%s\" must be AFTER and FOR EACH ROW, or BEFORE TRUNCATE", trigger->tgname),
			 errhint(EXAMPLE)));
}

/* A change whose events are added */
typedef struct Addition
{
	const EoShape *shape;
	EoEventPlace place;
} Addition;

static void
buffer_event(const EoEvent *event, void *arg)
{
	Addition   *addition = arg;

	addition->place.removes = event->type == addition->shape->types[EO_OP_DELETED];
	addition->place.first = addition->place.removes && addition->shape->exchanges;
	eo_buffer_add(event, &addition->place);
}

/*----------
 * Rows
 *----------
 */

/* The new version of the row, or the one that was deleted; NULL if it is not in a heap. */
static HeapTuple
changed_tuple(TriggerData *trigdata)
{
	if (trigdata->tg_relation->rd_tableam != GetHeapamTableAmRoutine())
		return NULL;
	return trigdata->tg_newtuple ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
}

/*
 * The command that made a change.  Other storage than heap does not tell; then
 * it is the latest.
 */
static CommandId
command_of(TriggerData *trigdata)
{
	HeapTuple	tuple = changed_tuple(trigdata);

	if (tuple == NULL)
		return GetCurrentCommandId(false);
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		return HeapTupleHeaderGetCmax(tuple->t_data);
	return HeapTupleHeaderGetCmin(tuple->t_data);
}

/* The command of this transaction that has changed or deleted a new row again */
static CommandId
changed_again(TriggerData *trigdata)
{
	HeapTuple	tuple = changed_tuple(trigdata);

	if (tuple == NULL || TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) ||
		(tuple->t_data->t_infomask & HEAP_XMAX_INVALID) ||
		HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_data->t_infomask) ||
		!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(tuple->t_data)))
		return InvalidCommandId;
	return HeapTupleHeaderGetCmax(tuple->t_data);
}

static void
capture_row(TriggerData *trigdata, EoShape *shape)
{
	TupleTableSlot *before = NULL;
	TupleTableSlot *after = NULL;
	EoCaptureOp op;
	Addition	addition = {
		.shape = shape,
		.place = {.cid = command_of(trigdata),.until = changed_again(trigdata)}
	};

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		op = EO_OP_INSERTED;
		after = trigdata->tg_trigslot;
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		op = EO_OP_DELETED;
		before = trigdata->tg_trigslot;
	}
	else
	{
		op = shape->spec.as_given ? shape->spec.as : EO_OP_UPDATED;
		before = op != EO_OP_INSERTED ? trigdata->tg_trigslot : NULL;
		after = op != EO_OP_DELETED ? trigdata->tg_newslot : NULL;
	}
	if (before != NULL)
		slot_getallattrs(before);
	if (after != NULL)
		slot_getallattrs(after);
	EO_POINT(capture);
	eo_capture_change(shape, op, before, after, buffer_event, &addition);
	EO_POINT(captured);
}

/*----------
 * TRUNCATE
 *----------
 */

static bool
root_was_truncated(Relation rel)
{
	List	   *ancestors;
	bool		result;

	if (truncated_root == InvalidOid || truncated_lxid != EoMyLocalTransactionId() ||
		truncated_cid != GetCurrentCommandId(false) || !rel->rd_rel->relispartition)
		return false;
	ancestors = get_partition_ancestors(RelationGetRelid(rel));
	result = list_member_oid(ancestors, truncated_root);
	list_free(ancestors);
	return result;
}

/* Whether an event for the whole table says what happens to the topic. */
static bool
is_whole(Relation rel, const EoShape *shape)
{
	return shape->spec.mode != EO_MODE_CHANGELOG && !shape->spec.child &&
		!rel->rd_rel->relispartition &&
		(rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || !rel->rd_rel->relhassubclass);
}

static void
delete_all_rows(Relation rel, EoShape *shape)
{
	Addition	addition = {.shape = shape,.place = {.cid = GetCurrentCommandId(false)}};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eo_outbox truncate",
												  ALLOCSET_DEFAULT_SIZES);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	EoFilter   *filter = eo_filter_begin(rel, eo_capture_insert_trigger(rel, shape->spec.topic));

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (eo_filter_pass(filter, slot))
			eo_capture_change(shape, EO_OP_DELETED, slot, NULL, buffer_event, &addition);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	eo_filter_end(filter);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(context);
}

static void
capture_truncate(Relation rel, EoShape *shape)
{
	Addition	addition = {.shape = shape,.place = {.cid = GetCurrentCommandId(false)}};

	if (is_whole(rel, shape))
	{
		eo_capture_change(shape, EO_OP_TRUNCATED, NULL, NULL, buffer_event, &addition);
		truncated_root = RelationGetRelid(rel);
		truncated_cid = addition.place.cid;
		truncated_lxid = EoMyLocalTransactionId();
	}
	else if (rel->rd_rel->relkind == RELKIND_RELATION &&
			 (shape->spec.mode == EO_MODE_CHANGELOG || !root_was_truncated(rel)))
		delete_all_rows(rel, shape);
}

/*
 * eo.capture_row(): see spec.c for its arguments
 */
Datum
eo_outbox_capture_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	TriggerEvent event;
	EoShape    *shape;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eo.capture_row() was not called as a trigger"),
				 errhint(EXAMPLE)));
	event = trigdata->tg_event;
	if (TRIGGER_FIRED_BY_TRUNCATE(event) ? !TRIGGER_FIRED_BEFORE(event) :
		!TRIGGER_FIRED_AFTER(event) || !TRIGGER_FIRED_FOR_ROW(event))
		refuse_trigger(trigdata->tg_trigger);
	eo_produce_check_transaction();
	shape = eo_shape(trigdata->tg_relation, trigdata->tg_trigger);
	if (shape->inert)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(event))
		capture_truncate(trigdata->tg_relation, shape);
	else
		capture_row(trigdata, shape);
	return PointerGetDatum(NULL);
}
