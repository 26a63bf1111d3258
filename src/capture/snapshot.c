/*
 * snapshot.c
 *
 * Puts the rows that a captured table has on its topic, a chunk at a time.
 *
 * A chunk is a transaction.  It reads a few pages at a time, makes events of the
 * rows, in slices, and appends each slice: under the append lock it looks at the
 * rows again, and leaves out those that have changed meanwhile, for their own
 * events are in the log (snapshot_page.c).  So the lock is held for a moment
 * only, and between two slices others go first.
 *
 * Rows beyond the end that the table had when its snapshot began came later, with
 * events of their own; so did those that an update moves to pages that were read
 * already, or to places on a page before the one that is reached.  A table that
 * was rewritten is read from its start again: the rows may stand anywhere now.
 *
 * The code of users runs as the owner of the table, in a security-restricted
 * operation, as where PostgreSQL itself computes an index: the row filter, whose
 * constants are computed when it is made ready, and what turns a value into JSON.
 *
 * All rows are read, whatever policies there are for row security: changes of
 * all are captured.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "capture/change.h"
#include "capture/filter.h"
#include "capture/snapshot.h"
#include "capture/snapshot_page.h"
#include "capture/triggers.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "miscadmin.h"
#include "points.h"
#include "pgstat.h"
#include "settings.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "store/append.h"
#include "store/catalog.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Rows of the table that are read before any of them are appended */
#define GROUP_ROWS		512

/* Events that are appended under one hold of the append lock, if that small */
#define SLICE_ROWS		100
#define SLICE_BYTES		(128 * 1024)

/* Memory after which a slice ends */
#define SLICE_MEMORY	(8 * 1024 * 1024)

/* How long a transaction that is committing is waited for, and how often looked at */
#define UNDECIDED_MS	1000
#define UNDECIDED_POLL_MS	1

/* A chunk under way */
typedef struct Reader
{
	EoDatabase *db;
	EoSnapshotChunk *chunk;
	EoShape    *shape;
	EoFilter   *filter;
	TupleDesc	log_desc;
	TupleTableSlot *slot;
	EoSnapshotPages pages;
	MemoryContext group_context;	/* of the rows at hand */
	MemoryContext slice_context;	/* of the events at hand */
	Oid			owner;
	TimestampTz began;
	int64		rows;			/* appended by this chunk ... */
	Size		bytes;			/* ... and their size */
} Reader;

/* Events of a few rows */
typedef struct Slice
{
	Reader	   *reader;
	HeapTuple  *tuples;			/* of the log */
	bool	   *heads;
	int		   *sources;		/* the row that each is of */
	int			ntuples;
	int			maxtuples;
	Size		bytes;
	int			start;			/* the first row ... */
	int			end;			/* ... and the one after the last */
	int			source;			/* the row at hand */
	bool		current[SLICE_ROWS];	/* by row, from `start` on */
	int			events;			/* left after the check */
	TransactionId undecided;
} Slice;

/* Where we were before we became the owner of a table */
typedef struct OwnerScope
{
	Oid			user;
	int			context;
	int			nestlevel;
} OwnerScope;

static void
become_owner(Oid owner, OwnerScope *scope)
{
	GetUserIdAndSecContext(&scope->user, &scope->context);
	SetUserIdAndSecContext(owner, scope->context | SECURITY_RESTRICTED_OPERATION);
	scope->nestlevel = NewGUCNestLevel();
}

static void
leave_owner(const OwnerScope *scope)
{
	AtEOXact_GUC(false, scope->nestlevel);
	SetUserIdAndSecContext(scope->user, scope->context);
}

/*----------
 * Tables
 *----------
 */

static bool
is_insert_capture(const Trigger *trigger)
{
	return trigger->tgfoid == eo_catalog_required()->capture_row &&
		TRIGGER_FOR_INSERT(trigger->tgtype) && TRIGGER_FOR_ROW(trigger->tgtype) &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN || trigger->tgenabled == TRIGGER_FIRES_ALWAYS) &&
		strncmp(trigger->tgname, EO_CAPTURE_TRIGGER, strlen(EO_CAPTURE_TRIGGER)) == 0;
}

Trigger *
eo_snapshot_capture(Relation rel)
{
	TriggerDesc *desc = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		Trigger    *trigger = &desc->triggers[i];

		if (is_insert_capture(trigger) && !eo_shape(rel, trigger)->inert)
			return trigger;
	}
	return NULL;
}

void
eo_snapshot_check_table(Relation rel, const Trigger *capture)
{
	EoCaptureSpec spec;

	eo_capture_spec(&spec, capture);
	if (spec.mode == EO_MODE_DELTA)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("no snapshot can be made of table \"%s\", for it is captured as deltas",
						RelationGetRelationName(rel)),
				 errdetail("A row that does not change has no delta."),
				 errhint("Capture it in mode fact or changelog.")));
	if (rel->rd_tableam != GetHeapamTableAmRoutine())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("no snapshot can be made of table \"%s\", for it is not a heap",
						RelationGetRelationName(rel)),
				 errhint("Use ALTER TABLE ... SET ACCESS METHOD heap, or change each row, for example with UPDATE.")));
}

/*----------
 * From rows to events
 *----------
 */

static void
add_event(const EoEvent *event, void *arg)
{
	Slice	   *slice = arg;
	EoEvent		own = *event;
	HeapTuple  *tuples;
	int			ntuples;

	own.subscription = slice->reader->chunk->subscription;
	tuples = eo_event_form(slice->reader->log_desc, &own, &ntuples);
	if (slice->ntuples + ntuples > slice->maxtuples)
	{
		slice->maxtuples = (slice->ntuples + ntuples) * 2;
		slice->tuples = repalloc_huge(slice->tuples, sizeof(HeapTuple) * slice->maxtuples);
		slice->heads = repalloc_huge(slice->heads, sizeof(bool) * slice->maxtuples);
		slice->sources = repalloc_huge(slice->sources, sizeof(int) * slice->maxtuples);
	}
	for (int i = 0; i < ntuples; i++)
	{
		slice->tuples[slice->ntuples] = tuples[i];
		slice->heads[slice->ntuples] = i == 0;
		slice->sources[slice->ntuples++] = slice->source;
		slice->bytes += tuples[i]->t_len;
	}
}

static void
add_row(Slice *slice, HeapTuple row)
{
	Reader	   *reader = slice->reader;

	ExecStoreHeapTuple(row, reader->slot, false);
	slot_getallattrs(reader->slot);
	if (eo_filter_pass(reader->filter, reader->slot))
		eo_capture_change(reader->shape, EO_OP_READ, NULL, reader->slot, add_event, slice);
	ExecClearTuple(reader->slot);
}

/* Makes the events of rows from `start` on, as the owner of the table. */
static void
make_slice(Reader *reader, Slice *slice, int start)
{
	EoSnapshotPages *pages = &reader->pages;
	int			end = Min(pages->nrows, start + Min(SLICE_ROWS, reader->chunk->rows - reader->rows));
	OwnerScope	scope;

	memset(slice, 0, sizeof(Slice));
	slice->reader = reader;
	slice->start = start;
	slice->maxtuples = SLICE_ROWS;
	slice->tuples = palloc(sizeof(HeapTuple) * slice->maxtuples);
	slice->heads = palloc(sizeof(bool) * slice->maxtuples);
	slice->sources = palloc(sizeof(int) * slice->maxtuples);

	become_owner(reader->owner, &scope);
	for (slice->source = start;
		 slice->source < end && slice->bytes < SLICE_BYTES &&
		 MemoryContextMemAllocated(reader->slice_context, true) < SLICE_MEMORY;
		 slice->source++)
	{
		CHECK_FOR_INTERRUPTS();
		add_row(slice, pages->rows[slice->source]);
	}
	slice->end = slice->source;
	leave_owner(&scope);
}

/*----------
 * Appending
 *----------
 */

/* Whether it can be told of all rows; if so, sets current[] of each. */
static bool
judge_slice(Slice *slice)
{
	EoSnapshotPages *pages = &slice->reader->pages;

	slice->undecided = InvalidTransactionId;
	for (int row = slice->start; row < slice->end; row++)
	{
		EoRowFate	fate = eo_snapshot_judge(pages, pages->rows[row], &slice->undecided);

		if (fate == EO_ROW_UNDECIDED)
			return false;
		slice->current[row - slice->start] = fate == EO_ROW_CURRENT;
	}
	return true;
}

/*
 * Under the append lock: takes the events of rows that have changed out.  If it
 * cannot tell of one, nothing is to be appended.
 */
static int
check_slice(void *arg)
{
	Slice	   *slice = arg;
	int			left = 0;

	if (!judge_slice(slice))
		return 0;
	slice->events = 0;
	for (int i = 0; i < slice->ntuples; i++)
	{
		if (!slice->current[slice->sources[i] - slice->start])
			continue;
		slice->tuples[left] = slice->tuples[i];
		slice->heads[left] = slice->heads[i];
		slice->sources[left] = slice->sources[i];
		slice->events += slice->heads[left++];
	}
	return left;
}

static void
pause_ms(int ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Waits for a transaction that is committing; not for ever. */
static bool
wait_for_end(TransactionId xid, TimestampTz until)
{
	while (TransactionIdIsInProgress(xid) && !TransactionIdDidCommit(xid))
	{
		if (GetCurrentTimestamp() >= until)
			return false;
		pause_ms(UNDECIDED_POLL_MS);
	}
	return true;
}

bool
eo_snapshot_settle(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), UNDECIDED_MS);
	int			n;
	TransactionId *xids = eo_append_undecided(&n);

	for (int i = 0; i < n; i++)
	{
		while (TransactionIdIsInProgress(xids[i]))
		{
			if (GetCurrentTimestamp() >= until)
				return false;
			pause_ms(UNDECIDED_POLL_MS);
		}
	}
	return true;
}

/*
 * Appends what is current of a slice.  Returns false if a transaction that is
 * committing does not come to an end.
 */
static bool
append_slice(Reader *reader, Slice *slice)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), UNDECIDED_MS);

	while (slice->ntuples > 0)
	{
		EO_POINT(snapshot_append);
		if (eo_append_checked(reader->db, slice->tuples, slice->heads, slice->ntuples, check_slice, slice) != 0)
		{
			EO_POINT(snapshot_appended);
			reader->chunk->appended = true;
			reader->rows += slice->events;
			reader->bytes += slice->bytes;
			reader->chunk->place->rows += slice->events;
			return true;
		}
		if (!TransactionIdIsValid(slice->undecided))
			return true;
		if (!wait_for_end(slice->undecided, until))
			return false;
	}
	return true;
}

/*----------
 * Chunks
 *----------
 */

static Reader *
open_reader(EoDatabase *db, EoSnapshotChunk *chunk, Trigger *capture)
{
	Reader	   *reader = palloc0(sizeof(Reader));
	Relation	log = table_open(eo_catalog_required()->log[0], AccessShareLock);
	OwnerScope	scope;

	reader->log_desc = CreateTupleDescCopy(RelationGetDescr(log));
	table_close(log, AccessShareLock);
	reader->db = db;
	reader->chunk = chunk;
	reader->owner = chunk->rel->rd_rel->relowner;
	become_owner(reader->owner, &scope);
	reader->filter = eo_filter_begin(chunk->rel, capture);
	leave_owner(&scope);
	reader->shape = eo_shape(chunk->rel, capture);
	reader->slot = MakeSingleTupleTableSlot(reader->shape->desc, &TTSOpsHeapTuple);
	reader->began = GetCurrentTimestamp();
	reader->pages.rel = chunk->rel;
	reader->pages.snapshot = GetActiveSnapshot();

	/* As a sequential scan does: a large table does not displace all others. */
	if (RelationGetNumberOfBlocks(chunk->rel) > NBuffers / 4)
		reader->pages.strategy = GetAccessStrategy(BAS_BULKREAD);
	reader->group_context = AllocSetContextCreate(CurrentMemoryContext, "eo_outbox snapshot",
												  ALLOCSET_DEFAULT_SIZES);
	reader->slice_context = AllocSetContextCreate(reader->group_context, "eo_outbox slice",
												  ALLOCSET_DEFAULT_SIZES);
	return reader;
}

static void
close_reader(Reader *reader)
{
	eo_filter_end(reader->filter);
	ExecDropSingleTupleTableSlot(reader->slot);
	if (reader->pages.strategy != NULL)
		FreeAccessStrategy(reader->pages.strategy);
	MemoryContextDelete(reader->group_context);
}

static bool
is_full(Reader *reader)
{
	return reader->chunk->stalled || reader->rows >= reader->chunk->rows ||
		reader->bytes >= EO_SNAPSHOT_BYTES ||
		TimestampDifferenceExceeds(reader->began, GetCurrentTimestamp(), EO_SNAPSHOT_MS);
}

/* Appends the rows from `start` on.  Returns the first one that is not done. */
static int
append_rows(Reader *reader, int start)
{
	MemoryContext old = MemoryContextSwitchTo(reader->slice_context);
	Slice		slice;

	make_slice(reader, &slice, start);
	reader->chunk->stalled = !append_slice(reader, &slice);
	if (!reader->chunk->stalled && slice.ntuples > 0 && eo_snapshot_delay > 0)
		pause_ms(eo_snapshot_delay);
	MemoryContextSwitchTo(old);
	MemoryContextReset(reader->slice_context);
	return reader->chunk->stalled ? start : slice.end;
}

/* Appends the rows of the pages at hand, as many as belong to the chunk. */
static void
append_pages(Reader *reader)
{
	EoSnapshotPages *pages = &reader->pages;
	EoSnapshotPlace *place = reader->chunk->place;
	int			row = 0;

	while (row < pages->nrows && !is_full(reader))
		row = append_rows(reader, row);
	if (row < pages->nrows)
	{
		place->next_block = ItemPointerGetBlockNumber(&pages->rows[row]->t_self);
		place->next_item = ItemPointerGetOffsetNumber(&pages->rows[row]->t_self);
	}
	else
	{
		place->next_block = pages->first + pages->npages;
		place->next_item = FirstOffsetNumber;
	}
}

static void
read_chunk(Reader *reader)
{
	EoSnapshotPlace *place = reader->chunk->place;
	BlockNumber end = Min(place->blocks, RelationGetNumberOfBlocks(reader->chunk->rel));

	while (place->next_block < end && !is_full(reader))
	{
		MemoryContext old = MemoryContextSwitchTo(reader->group_context);

		eo_snapshot_read(&reader->pages, place->next_block, place->next_item, end,
						 Min(GROUP_ROWS, reader->chunk->rows - reader->rows));
		append_pages(reader);
		eo_snapshot_release(&reader->pages);
		MemoryContextSwitchTo(old);
		MemoryContextResetOnly(reader->group_context);
	}
	/* VACUUM may have given back what there was. */
	if (place->next_block >= end)
		place->next_block = place->blocks;
}

static Trigger *
check_capture(Relation rel, Oid expected)
{
	Trigger    *capture = eo_snapshot_capture(rel);

	if (capture == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not captured any more", RelationGetRelationName(rel))));
	if (capture->tgoid != expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" was captured anew during its snapshot", RelationGetRelationName(rel)),
				 errhint("Begin another one with eo.snapshot().")));
	eo_snapshot_check_table(rel, capture);
	return capture;
}

void
eo_snapshot_chunk(EoDatabase *db, EoSnapshotChunk *chunk)
{
	EoSnapshotPlace *place = chunk->place;
	Trigger    *capture = check_capture(chunk->rel, place->capture);
	Reader	   *reader;

	chunk->appended = false;
	chunk->stalled = false;
	if (place->filenode != EoRelationFileNumber(chunk->rel))
	{
		place->filenode = EoRelationFileNumber(chunk->rel);
		place->next_block = 0;
		place->next_item = FirstOffsetNumber;
		place->blocks = RelationGetNumberOfBlocks(chunk->rel);
		place->rows = 0;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	reader = open_reader(db, chunk, capture);
	read_chunk(reader);
	close_reader(reader);
	PopActiveSnapshot();
}
