/*
 * log_reader.c
 *
 * Reads the log in seq order, up to the first event that may still change.
 *
 * What "safe to read" means
 *
 * 1. Rows are judged with a dirty snapshot: an aborted one is skipped, a
 *	  committed one taken, and at the first whose transaction is in progress the
 *	  reader stops.  A transaction in progress is one that ProcArray still
 *	  shows, so that a commit which waits for a synchronous standby is not read.
 *	  All rows before the stop are final; reading them again gives the same.
 *
 * 2. A commit may be visible before it is on disk (synchronous_commit = off).
 *	  A hint bit proves nothing there.  So the WAL is flushed up to the latest
 *	  commit of the batch before it is returned.
 *
 * 3. The place in the log is a seq.  The block that the reader remembers is a
 *	  hint: rows of one page are sorted, because VACUUM may have given back line
 *	  pointers; and when the segment's blocks were given back or rewritten, it
 *	  starts over from block 0 and passes over what it has had (see
 *	  notice_rewritten() in append.c).
 *
 * 4. A segment that VACUUM FULL or CLUSTER rewrote may hold its rows in any
 *	  order until it is truncated.  It is read by repeated scans, each of which
 *	  takes the rows with the lowest seqs that are left.
 *
 * 5. A commit that was cancelled while it waited for a synchronous standby, or
 *	  that a crash interrupted there, is visible although no standby has it.
 *	  A subscription may ask to wait: then the reader looks first, notes how
 *	  far the WAL goes, and returns what it saw once the standbys have flushed
 *	  that.
 *
 * 6. The reader leaves a segment only if it was no longer active before the
 *	  reader looked for its end, since an append may move on at any moment.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "compat.h"
#include "miscadmin.h"
#include "points.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "store/append.h"
#include "store/catalog.h"
#include "store/log_rows.h"
#include "store/page.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Rows that one scan of a rewritten segment takes at most. */
#define REWRITTEN_ROWS	4096

struct EoLogReader
{
	EoDatabase *db;
	int64		after_seq;		/* returned or passed over everything up to here */
	int			segment;		/* where the hint belongs to; -1: no hint */
	Oid			filenode;
	uint32		generation;
	BlockNumber block;

	/* With limits->standbys: */
	int64		confirmed_seq;	/* everything up to here is on the standbys */
	int64		awaited_seq;	/* and up to here, once they have ... */
	XLogRecPtr	awaited_lsn;	/* ... flushed this; Invalid: nothing awaited */
};

EoLogReader *
eo_log_reader_create(EoDatabase *db, int64 after_seq)
{
	EoLogReader *reader = palloc0(sizeof(EoLogReader));

	reader->db = db;
	eo_log_reader_seek(reader, after_seq);
	return reader;
}

void
eo_log_reader_seek(EoLogReader *reader, int64 after_seq)
{
	reader->after_seq = after_seq;
	reader->segment = -1;
	reader->confirmed_seq = 0;
	reader->awaited_lsn = InvalidXLogRecPtr;
}

void
eo_log_reader_free(EoLogReader *reader)
{
	pfree(reader);
}

/*
 * The seq up to which one scan of a rewritten segment goes: that of the
 * REWRITTEN_ROWS-th row above what the reader has had.
 */
static int
compare_seqs(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* The lowest seqs of a segment, while it is scanned. */
typedef struct LowestSeqs
{
	int64		above;
	int64		bound;
	int			n;
	int64		seqs[REWRITTEN_ROWS * 2];
} LowestSeqs;

/* Keeps the lowest half when the array is full. */
static void
halve(LowestSeqs *lowest)
{
	qsort(lowest->seqs, lowest->n, sizeof(int64), compare_seqs);
	lowest->n = REWRITTEN_ROWS;
	lowest->bound = lowest->seqs[REWRITTEN_ROWS - 1];
}

static void
note_seq(HeapTuple row, Buffer buffer, void *arg)
{
	LowestSeqs *lowest = arg;
	int64		seq = eo_event_row_seq(row);

	if (seq <= lowest->above || seq > lowest->bound)
		return;
	lowest->seqs[lowest->n++] = seq;
	if (lowest->n == REWRITTEN_ROWS * 2)
		halve(lowest);
}

static int64
rewritten_bound(Relation rel, BlockNumber nblocks, int64 above)
{
	LowestSeqs *lowest = palloc(sizeof(LowestSeqs));
	int64		bound;

	lowest->above = above;
	lowest->bound = PG_INT64_MAX;
	lowest->n = 0;
	for (BlockNumber block = 0; block < nblocks; block++)
	{
		CHECK_FOR_INTERRUPTS();
		eo_page_visit(rel, block, note_seq, lowest);
	}
	if (lowest->n > REWRITTEN_ROWS)
		halve(lowest);
	bound = lowest->bound;
	pfree(lowest);
	return bound;
}

/*
 * The last page may have got the first row of an event after we looked how long
 * the segment is; then its other rows are on pages behind `block`.
 */
static bool
event_goes_on(EoRowBatch *batch, Relation rel, BlockNumber block, BlockNumber *nblocks)
{
	if (batch->joining == NULL)
		return false;
	*nblocks = RelationGetNumberOfBlocks(rel);
	return block < *nblocks;
}

/* Reads on in a segment whose rows may stand in any order. */
static void
read_rewritten(EoLogReader *reader, EoRowBatch *batch, Relation rel, BlockNumber nblocks)
{
	int64		above = Max(reader->after_seq, batch->result->through_seq);

	while (!batch->stopped)
	{
		int64		bound = rewritten_bound(rel, nblocks, above);
		BlockNumber block = 0;

		do
		{
			for (; block < nblocks; block++)
			{
				CHECK_FOR_INTERRUPTS();
				eo_rows_collect(batch, rel, block, above, bound);
			}
			eo_rows_take(batch);
		} while (event_goes_on(batch, rel, block, &nblocks));
		if (bound == PG_INT64_MAX)
			break;
		above = bound;
	}
}

static void
read_ordered(EoLogReader *reader, EoRowBatch *batch, Relation rel, BlockNumber nblocks)
{
	for (BlockNumber block = reader->block;
		 block < nblocks || event_goes_on(batch, rel, block, &nblocks); block++)
	{
		CHECK_FOR_INTERRUPTS();
		eo_rows_collect(batch, rel, block, reader->after_seq, PG_INT64_MAX);
		eo_rows_take(batch);

		/*
		 * Come back to this page next time: it may get more rows.  While an
		 * event is being put together, come back to where it began.
		 */
		if (batch->joining == NULL)
			reader->block = block;
		if (batch->stopped)
			break;
	}
}

/*
 * Opens a segment and checks the hint against it.  Returns NULL if the
 * extension is gone.
 */
static Relation
open_segment(EoLogReader *reader, Oid relid, int index, BlockNumber *nblocks)
{
	EoSegment  *segment = &reader->db->segments[index];
	Relation	rel = try_relation_open(relid, AccessShareLock);
	uint32		generation;

	if (rel == NULL)
		return NULL;

	/*
	 * The size first: an append bumps the generation before it puts a row into
	 * a block that was given back.
	 */
	*nblocks = RelationGetNumberOfBlocks(rel);
	pg_memory_barrier();
	generation = pg_atomic_read_u32(&segment->generation);
	if (reader->segment != index || reader->filenode != EoRelationFileNumber(rel) ||
		reader->generation != generation || reader->block >= *nblocks)
	{
		reader->segment = index;
		reader->filenode = EoRelationFileNumber(rel);
		reader->generation = generation;
		reader->block = 0;
	}
	return rel;
}

/*
 * Reads one segment.  Returns false if the extension is gone.
 */
static bool
read_segment(EoLogReader *reader, EoRowBatch *batch, const EoCatalog *catalog, int index)
{
	EoSegment  *segment = &reader->db->segments[index];
	BlockNumber nblocks;
	Relation	rel = open_segment(reader, catalog->log[index], index, &nblocks);

	if (rel == NULL)
		return false;
	batch->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	if (reader->filenode == pg_atomic_read_u32(&segment->native_filenode))
		read_ordered(reader, batch, rel, nblocks);
	else
		read_rewritten(reader, batch, rel, nblocks);
	if (nblocks > reader->block)
		batch->result->bytes_behind += (int64) (nblocks - reader->block - 1) * BLCKSZ;
	relation_close(rel, AccessShareLock);
	return true;
}

/*
 * Which segments hold rows above after_seq, oldest first.  Returns how many.
 *
 * Taken again if an append moved on meanwhile: its new segment would seem to
 * be the oldest.
 */
static int
segments_to_read(EoDatabase *db, int64 after_seq, int *indexes)
{
	uint32		active;
	int			n;

	do
	{
		n = 0;
		active = pg_atomic_read_u32(&db->active_segment);
		pg_memory_barrier();
		for (int i = 1; i <= EO_SEGMENTS; i++)
		{
			int			index = (active + i) % EO_SEGMENTS;
			EoSegment  *segment = &db->segments[index];

			if (pg_atomic_read_u64(&segment->first_seq) != 0 &&
				(int64) pg_atomic_read_u64(&segment->last_seq) > after_seq)
				indexes[n++] = index;
		}
		pg_memory_barrier();
	} while (active != pg_atomic_read_u32(&db->active_segment));
	return n;
}

/* How far the synchronous standbys have flushed; all of it if there are none. */
static XLogRecPtr
standbys_flushed_to(void)
{
	XLogRecPtr	lsn;

	if (SyncRepStandbyNames == NULL || SyncRepStandbyNames[0] == '\0' || max_wal_senders == 0)
		return PG_UINT64_MAX;
	LWLockAcquire(SyncRepLock, LW_SHARED);
	lsn = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return lsn;
}

/* Reads on from after_seq, whatever the standbys have. */
static bool
read_batch(EoLogReader *reader, const EoReadLimits *limits, EoReadResult *result)
{
	const EoCatalog *catalog = eo_catalog();
	EoDatabase *db = reader->db;
	EoRowBatch	batch = {.limits = limits,.result = result};
	int			indexes[EO_SEGMENTS];
	int			nsegments;

	memset(result, 0, sizeof(*result));
	result->through_seq = reader->after_seq;
	if (catalog == NULL)
		return false;
	eo_log_prepare(db);
	nsegments = segments_to_read(db, reader->after_seq, indexes);
	for (int i = 0; i < nsegments; i++)
	{
		BlockNumber tail = db->segments[indexes[i]].tail_block;

		if (!batch.stopped)
		{
			if (!read_segment(reader, &batch, catalog, indexes[i]))
				return false;
		}
		else if (tail != InvalidBlockNumber)
			result->bytes_behind += ((int64) tail + 1) * BLCKSZ;
	}
	if (batch.joining != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " of the log is incomplete", batch.joining->seq)));
	if (!batch.stopped)
		result->at_tail = true;
	reader->after_seq = result->through_seq;
	EO_POINT(read_flush);
	if (result->nevents > 0 && !EO_MUTANT(no_flush))
		XLogFlush(batch.flush_to);
	return true;
}

/* The same, but only what the synchronous standbys have on disk. */
static bool
read_confirmed_batch(EoLogReader *reader, const EoReadLimits *limits, EoReadResult *result)
{
	int64		after_seq = reader->after_seq;
	EoReadLimits confirmed = *limits;

	if (reader->awaited_lsn != InvalidXLogRecPtr &&
		standbys_flushed_to() >= reader->awaited_lsn)
	{
		reader->confirmed_seq = reader->awaited_seq;
		reader->awaited_lsn = InvalidXLogRecPtr;
	}
	if (after_seq >= reader->confirmed_seq)
	{
		if (reader->awaited_lsn == InvalidXLogRecPtr)
		{
			if (!read_batch(reader, limits, result))
				return false;
			reader->awaited_seq = result->through_seq;
			reader->awaited_lsn = GetFlushRecPtr(NULL);
			if (result->nevents == 0 || standbys_flushed_to() >= reader->awaited_lsn)
			{
				reader->confirmed_seq = reader->awaited_seq;
				reader->awaited_lsn = InvalidXLogRecPtr;
				return true;
			}
			reader->after_seq = after_seq;
			reader->segment = -1;
		}
		memset(result, 0, sizeof(*result));
		result->through_seq = after_seq;
		result->at_tail = true;
		result->awaits_standbys = true;
		return true;
	}
	if (confirmed.through_seq == 0 || confirmed.through_seq > reader->confirmed_seq)
		confirmed.through_seq = reader->confirmed_seq;
	return read_batch(reader, &confirmed, result);
}

bool
eo_log_reader_next(EoLogReader *reader, const EoReadLimits *limits, EoReadResult *result)
{
	return limits->standbys ? read_confirmed_batch(reader, limits, result) :
		read_batch(reader, limits, result);
}
