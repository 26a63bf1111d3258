/*
 * append.c
 *
 * Puts events at the end of the log, in seq order.
 *
 * How the order comes about
 *
 * 1. Before the append the transaction has its xid and the rows are formed,
 *	  compressed and cut, so that nothing slow is left to do.
 *
 * 2. The active segment is opened and locked (RowExclusiveLock), then the
 *	  append lock of the database is taken.  It is a heavyweight lock, so that a
 *	  waiter can be cancelled and deadlocks are found; it is released right
 *	  after the append, not at commit.
 *
 * 3. Under it, the rows get the next seqs and go onto the last page of the
 *	  segment.  PostgreSQL would use the page that this backend filled last, so
 *	  the target block is reset each time; and HEAP_INSERT_SKIP_FSM keeps it
 *	  from filling holes.  So the rows of a segment stand in seq order, but for
 *	  line pointers inside a page that VACUUM gave back (a reader sorts them).
 *
 * 4. The transaction may still abort.  Its rows are dead then; readers skip
 *	  them, and the numbers stay unused.
 *
 * Order of locks: segment, append lock, then the locks that the heap takes for
 * itself (relation extension, buffers).  No relation is opened under the
 * append lock but to read the state of the log, after a server start, and
 * eo.lineage, when somebody has written to it: a dump was restored.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_extension.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "points.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "store/append.h"
#include "store/catalog.h"
#include "store/event.h"
#include "store/lineage.h"
#include "store/segments.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Rows handed to heap_multi_insert at once. */
#define APPEND_SLOTS	256

/* The object that the append lock locks: the extension, with this sub-id. */
#define APPEND_LOCK_SUBID	1

/* Slots for heap_multi_insert, made once per backend. */
static TupleTableSlot **append_slots = NULL;

static void
set_append_locktag(LOCKTAG *tag)
{
	const EoCatalog *catalog = eo_catalog_required();

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, ExtensionRelationId,
					   catalog->extension, APPEND_LOCK_SUBID);
}

void
eo_append_lock(void)
{
	LOCKTAG		tag;

	set_append_locktag(&tag);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

bool
eo_append_try_lock(void)
{
	LOCKTAG		tag;

	set_append_locktag(&tag);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
eo_append_unlock(void)
{
	LOCKTAG		tag;

	set_append_locktag(&tag);
	LockRelease(&tag, ExclusiveLock, false);
}

/* The highest value of a bigint column of one of the extension's tables. */
static int64
highest_seq(const char *table, const char *column)
{
	Oid			relid = get_relname_relid(table, eo_catalog_required()->schema);
	AttrNumber	attnum = get_attnum(relid, column);
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;
	int64		highest = 0;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, attnum, RelationGetDescr(rel), &isnull);

		if (!isnull)
			highest = Max(highest, DatumGetInt64(value));
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return highest;
}

/*
 * The highest seq that a subscription has passed.  VACUUM may have removed the
 * aborted rows up to there, but an event that got such a number would never be
 * read.
 */
static int64
remembered_seq(void)
{
	return Max(highest_seq("cursor", "seq"),
			   Max(highest_seq("subscription", "start_seq"),
				   highest_seq("subscription", "seek_seq")));
}

void
eo_log_prepare(EoDatabase *db)
{
	if (pg_atomic_read_u32(&db->log_ready) != 0)
		return;
	eo_append_lock();
	if (pg_atomic_read_u32(&db->log_ready) == 0)
	{
		int64		last_seq;

		EO_POINT(log_load);
		last_seq = eo_segments_load(db);
		eo_lineage_load(db);
		last_seq = Max(last_seq, (int64) pg_atomic_read_u64(&db->floor_seq));
		last_seq = Max(last_seq, remembered_seq());
		pg_atomic_write_u64(&db->last_seq, last_seq);
		EO_POINT(log_loaded);
		pg_write_barrier();
		pg_atomic_write_u32(&db->log_ready, 1);
	}
	eo_append_unlock();
}

/*
 * Whether appends should move on from the active segment.  Caller holds the
 * append lock.
 */
static bool
segment_is_full(EoSegment *segment, BlockNumber nblocks, TimestampTz now)
{
	TimestampTz first = (TimestampTz) pg_atomic_read_u64(&segment->first_append);

	if ((uint64) nblocks * BLCKSZ >= (uint64) eo_segment_size * 1024 * 1024)
		return true;
	return eo_segment_age > 0 && first != 0 &&
		now - first >= (int64) eo_segment_age * USECS_PER_SEC;
}

/*
 * The length of a segment, of what was appended at least.  As the append before
 * has left it, unless the file may have been truncated since: then there is no
 * target block any more, as whoever truncates tells all, before he lets go of
 * his lock, and we have taken ours.
 */
static BlockNumber
count_blocks(const EoSegment *segment, Relation rel)
{
	if (RelationGetTargetBlock(rel) != InvalidBlockNumber && segment->tail_block != InvalidBlockNumber &&
		segment->filenode == EoRelationFileNumber(rel))
		return segment->tail_block + 1;
	return RelationGetNumberOfBlocks(rel);
}

/*
 * Opens the active segment and takes the append lock, moving on to the next
 * segment first if that is due and it is free.
 *
 * *nblocks is the segment's size, which stays while the lock is held.
 */
static Relation
open_active_segment(EoDatabase *db, EoSegment **segment, TimestampTz now, BlockNumber *nblocks)
{
	const EoCatalog *catalog = eo_catalog_required();

	for (;;)
	{
		uint32		active = pg_atomic_read_u32(&db->active_segment);
		uint32		next = (active + 1) % EO_SEGMENTS;
		Relation	rel = table_open(catalog->log[active], RowExclusiveLock);

		EO_POINT(append_lock);
		eo_append_lock();
		*segment = &db->segments[active];
		if (pg_atomic_read_u32(&db->log_ready) == 0)
		{
			/* A CREATE EXTENSION was rolled back while we waited. */
			eo_append_unlock();
			table_close(rel, RowExclusiveLock);
			eo_log_prepare(db);
			continue;
		}
		if (active == pg_atomic_read_u32(&db->active_segment))
		{
			*nblocks = count_blocks(*segment, rel);
			if (!segment_is_full(*segment, *nblocks, now) ||
				pg_atomic_read_u64(&db->segments[next].first_seq) != 0)
				return rel;
			EO_POINT(segment_switch);
			pg_atomic_write_u32(&db->active_segment, next);
			EO_POINT(segment_switched);
		}
		eo_append_unlock();
		table_close(rel, RowExclusiveLock);
	}
}

/*
 * Readers remember the block they have come to.  Tell them to start over if
 * blocks below the tail have been given back since the last append: VACUUM
 * truncated the segment, or somebody rewrote it.
 */
static void
notice_rewritten(EoSegment *segment, Relation rel, BlockNumber nblocks)
{
	Oid			filenode = EoRelationFileNumber(rel);

	if (segment->filenode != filenode ||
		(segment->tail_block != InvalidBlockNumber && segment->tail_block >= nblocks))
	{
		segment->filenode = filenode;
		pg_atomic_fetch_add_u32(&segment->generation, 1);
	}
}

static void
note_append(EoDatabase *db, EoSegment *segment, int64 first_seq, int64 last_seq, TimestampTz now)
{
	if (pg_atomic_read_u64(&segment->first_seq) == 0)
	{
		pg_atomic_write_u64(&segment->first_append, (uint64) now);
		pg_atomic_write_u64(&segment->first_seq, (uint64) first_seq);
	}
	pg_atomic_write_u64(&segment->last_append, (uint64) now);
	pg_atomic_write_u64(&segment->last_seq, (uint64) last_seq);
	pg_atomic_write_u64(&db->last_seq, (uint64) last_seq);
}

static void
make_append_slots(Relation rel)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(rel));
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * APPEND_SLOTS);

	for (int i = 0; i < APPEND_SLOTS; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	append_slots = slots;
	MemoryContextSwitchTo(old);
}

/* Inserts many rows and returns the block of the last one. */
static BlockNumber
insert_rows(Relation rel, HeapTuple *tuples, int ntuples, CommandId cid)
{
	BlockNumber last = InvalidBlockNumber;

	for (int done = 0; done < ntuples;)
	{
		int			n = Min(APPEND_SLOTS, ntuples - done);

		for (int i = 0; i < n; i++)
			ExecStoreHeapTuple(tuples[done + i], append_slots[i], false);
		heap_multi_insert(rel, append_slots, n, cid, HEAP_INSERT_SKIP_FSM, NULL);
		last = ItemPointerGetBlockNumber(&append_slots[n - 1]->tts_tid);
		for (int i = 0; i < n; i++)
			ExecClearTuple(append_slots[i]);
		done += n;
		EO_POINT(append_rows);
	}
	return last;
}

/*
 * Tells that this transaction has begun.  Nobody has to take it back: a full
 * xid is never used again.
 */
static void
note_begun(void)
{
	pg_atomic_write_u64(&eo_shared->appended[EoMyBackendNumber()],
						U64FromFullTransactionId(GetTopFullTransactionId()));
}

bool
eo_append_begun(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);
	uint64		full;

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	full = U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
	for (int i = 0; i < eo_shared->nbackends; i++)
	{
		if (pg_atomic_read_u64(&eo_shared->appended[i]) == full)
			return true;
	}
	return false;
}

TransactionId *
eo_append_undecided(int *n)
{
	TransactionId *xids = palloc(sizeof(TransactionId) * eo_shared->nbackends);
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	/* Who has a number now has told so after this. */
	eo_append_lock();
	eo_append_unlock();
	*n = 0;
	for (int i = 0; i < eo_shared->nbackends; i++)
	{
		uint64		full = pg_atomic_read_u64(&eo_shared->appended[i]);

		/* None is that old, but its short form may be somebody's again. */
		if (full == 0 || full + (UINT64CONST(1) << 31) < next)
			continue;
		if (TransactionIdIsInProgress(XidFromFullTransactionId(FullTransactionIdFromU64(full))))
			xids[(*n)++] = XidFromFullTransactionId(FullTransactionIdFromU64(full));
	}
	return xids;
}

int64
eo_append(EoDatabase *db, HeapTuple *tuples, const bool *heads, int ntuples)
{
	return eo_append_checked(db, tuples, heads, ntuples, NULL, NULL);
}

int64
eo_append_checked(EoDatabase *db, HeapTuple *tuples, const bool *heads, int ntuples,
				  EoAppendCheck check, void *arg)
{
	CommandId	cid = GetCurrentCommandId(true);
	TimestampTz now = GetCurrentTimestamp();
	BlockNumber nblocks;
	EoSegment  *segment;
	Relation	rel;
	int64		first_seq;
	int64		seq;

	(void) GetCurrentTransactionId();
	eo_log_prepare(db);
	rel = open_active_segment(db, &segment, now, &nblocks);
	if (check != NULL && (ntuples = check(arg)) == 0)
	{
		eo_append_unlock();
		table_close(rel, NoLock);
		return 0;
	}
	EO_POINT(append_locked);
	note_begun();
	if (append_slots == NULL && ntuples > 1)
		make_append_slots(rel);

	notice_rewritten(segment, rel, nblocks);
	if (pg_atomic_read_u32(&db->lineage_stale) != 0)
		eo_lineage_load(db);
	seq = Max((int64) pg_atomic_read_u64(&db->last_seq),
			  EO_SEQ(pg_atomic_read_u32(&db->epoch), 0));
	first_seq = seq + 1;
	for (int i = 0; i < ntuples; i++)
	{
		if (heads[i])
			seq++;
		eo_event_set_seq(tuples[i], seq);
	}

	/* Before the rows are there: a failed append may leave numbers unused. */
	note_append(db, segment, first_seq, seq, now);
	EO_POINT(append_numbered);

	/*
	 * If this fails halfway, readers may come to blocks beyond tail_block, which
	 * VACUUM may give back: leave it to the next append to tell them.
	 */
	segment->filenode = InvalidOid;
	if (!EO_MUTANT(no_target_reset))
		RelationSetTargetBlock(rel, nblocks > 0 ? nblocks - 1 : InvalidBlockNumber);
	if (ntuples == 1)
	{
		heap_insert(rel, tuples[0], cid, HEAP_INSERT_SKIP_FSM, NULL);
		segment->tail_block = ItemPointerGetBlockNumber(&tuples[0]->t_self);
	}
	else
		segment->tail_block = insert_rows(rel, tuples, ntuples, cid);
	EO_POINT(append_inserted);
	segment->filenode = EoRelationFileNumber(rel);
	eo_append_unlock();
	EO_POINT(append_unlocked);
	table_close(rel, NoLock);
	return seq;
}
