/*
 * log_rows.c
 *
 * Judges rows of the log and makes events of them; what "safe to read" means is
 * told in log_reader.c.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "store/log_rows.h"
#include "store/page.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * Judges a row, and notes how far the WAL must be flushed if it is taken.
 * Caller holds a share lock on the buffer.
 */
static EoRowState
judge_row(EoRowBatch *batch, HeapTuple tuple, Buffer buffer, TransactionId *xid)
{
	SnapshotData dirty;
	bool		visible;
	TransactionId xmin;

	InitDirtySnapshot(dirty);
	visible = HeapTupleSatisfiesVisibility(tuple, &dirty, buffer);
	if (TransactionIdIsValid(dirty.xmin))
	{
		*xid = dirty.xmin;
		return EO_MUTANT(no_stop) ? ROW_ABORTED : ROW_IN_PROGRESS;
	}
	if (!visible)
		return ROW_ABORTED;

	/*
	 * Of a frozen row the commit's LSN is not known any more, but the page's
	 * lies behind it: freezing is logged later than the commit.
	 */
	xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	if (HeapTupleHeaderXminFrozen(tuple->t_data))
		batch->flush_to = Max(batch->flush_to, BufferGetLSNAtomic(buffer));
	else if (xmin != batch->last_xmin)
	{
		batch->flush_to = Max(batch->flush_to, TransactionIdGetCommitLSN(xmin));
		batch->last_xmin = xmin;
	}
	return ROW_COMMITTED;
}

static bool
event_wanted(EoRowBatch *batch, HeapTuple tuple)
{
	bool		isnull;
	Datum		only = heap_getattr(tuple, EO_COL_SUBSCRIPTION, batch->desc, &isnull);
	Datum		topic;

	if (!isnull && DatumGetInt32(only) != batch->limits->subscription)
		return false;
	if (batch->limits->wants == NULL)
		return true;
	topic = heap_getattr(tuple, EO_COL_TOPIC, batch->desc, &isnull);
	return batch->limits->wants(VARDATA_ANY(DatumGetPointer(topic)),
								VARSIZE_ANY_EXHDR(DatumGetPointer(topic)),
								batch->limits->wants_arg);
}

static EoRow *
add_row(EoRowBatch *batch)
{
	if (batch->nrows == batch->maxrows)
	{
		batch->maxrows = batch->maxrows ? batch->maxrows * 2 : MaxHeapTuplesPerPage;
		batch->rows = batch->rows ?
			repalloc_huge(batch->rows, sizeof(EoRow) * batch->maxrows) :
			palloc(sizeof(EoRow) * batch->maxrows);
	}
	return &batch->rows[batch->nrows++];
}

/* What eo_rows_collect() takes of a page. */
typedef struct Collection
{
	EoRowBatch *batch;
	int64		above;
	int64		upto;
} Collection;

/* Continuation rows (topic '') are taken whenever their head may be. */
static void
collect_row(HeapTuple tuple, Buffer buffer, void *arg)
{
	Collection *collection = arg;
	EoRowBatch *batch = collection->batch;
	int64		seq = eo_event_row_seq(tuple);
	EoRow	   *row;
	bool		isnull;

	if (seq <= collection->above || seq > collection->upto)
		return;
	row = add_row(batch);
	row->seq = seq;
	row->part = DatumGetInt16(heap_getattr(tuple, EO_COL_PART, batch->desc, &isnull));
	row->xid = InvalidTransactionId;
	row->state = judge_row(batch, tuple, buffer, &row->xid);
	row->tuple = NULL;
	if (row->state == ROW_COMMITTED && (row->part > 0 || event_wanted(batch, tuple)))
		row->tuple = heap_copytuple(tuple);
}

void
eo_rows_collect(EoRowBatch *batch, Relation rel, BlockNumber block, int64 above, int64 upto)
{
	Collection	collection = {.batch = batch,.above = above,.upto = upto};

	eo_page_visit(rel, block, collect_row, &collection);
}

static int
compare_rows(const void *a, const void *b)
{
	const EoRow *left = a;
	const EoRow *right = b;

	if (left->seq != right->seq)
		return left->seq < right->seq ? -1 : 1;
	/* a head (0 or below) before its parts */
	return left->part - right->part;
}

static EoEvent *
add_event(EoRowBatch *batch)
{
	EoReadResult *result = batch->result;

	if (result->nevents == batch->maxevents)
	{
		batch->maxevents = batch->maxevents ? batch->maxevents * 2 : 64;
		result->events = result->events ?
			repalloc_huge(result->events, sizeof(EoEvent) * batch->maxevents) :
			palloc(sizeof(EoEvent) * batch->maxevents);
	}
	return &result->events[result->nevents++];
}

/* Takes one committed, wanted row. */
static void
take_row(EoRowBatch *batch, EoRow *row)
{
	EoEvent		event;
	int			due = eo_event_deform(row->tuple, batch->desc, &event);

	batch->bytes += event.size;
	if (due >= 0)
	{
		EoEvent    *slot = add_event(batch);

		*slot = event;
		if (due > 0)
		{
			batch->joining = slot;
			batch->parts = palloc_extended(sizeof(struct varlena *) * due, MCXT_ALLOC_HUGE);
			batch->nparts = 0;
			batch->parts_due = due;
		}
		return;
	}

	/* a continuation, of the event at hand or of one that nobody wants */
	if (batch->joining == NULL || batch->joining->seq != event.seq)
		return;
	batch->joining->size += event.size;
	batch->parts[batch->nparts++] = event.body;
	if (batch->nparts == batch->parts_due)
	{
		eo_event_join(batch->joining, batch->parts, batch->nparts);
		pfree(batch->parts);
		batch->joining = NULL;
	}
}

void
eo_rows_take(EoRowBatch *batch)
{
	const EoReadLimits *limits = batch->limits;
	EoReadResult *result = batch->result;

	for (int i = 1; i < batch->nrows; i++)
	{
		if (compare_rows(&batch->rows[i - 1], &batch->rows[i]) > 0)
		{
			qsort(batch->rows, batch->nrows, sizeof(EoRow), compare_rows);
			break;
		}
	}
	for (int i = 0; i < batch->nrows && !batch->stopped; i++)
	{
		EoRow	   *row = &batch->rows[i];

		if (row->state == ROW_IN_PROGRESS)
		{
			result->stalled_on = row->xid;
			result->stalled_seq = row->seq;
			result->at_tail = true;
			batch->stopped = true;
			break;
		}
		if (limits->through_seq != 0 && row->seq > limits->through_seq)
		{
			batch->stopped = true;
			break;
		}
		if (row->part <= 0 &&
			(result->nevents >= limits->events || batch->bytes >= limits->bytes))
		{
			batch->stopped = true;
			break;
		}
		if (row->tuple != NULL)
			take_row(batch, row);
		if (row->seq > result->through_seq)
			result->through_seq = row->seq;
	}
	batch->nrows = 0;
}
