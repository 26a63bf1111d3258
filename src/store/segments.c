/*
 * segments.c
 *
 * The ring of segments: eo.log_0 to eo.log_7, of which one is active.
 *
 * Appends fill the active segment and then move on to the next one, if that is
 * empty; otherwise the active one grows.  The relay truncates the oldest ones
 * once nobody needs them.  Which is which follows from the seqs that their
 * pages hold, so nothing has to be written down when the ring turns.
 *
 * Rows stand in seq order unless somebody rewrote the table (VACUUM FULL,
 * CLUSTER).  That shows in the file number: eo.segment remembers the one in
 * which the segment was started.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "points.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "store/event.h"
#include "store/lineage.h"
#include "store/page.h"
#include "store/segments.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Segments that the current transaction truncated, and their new files. */
static Oid	truncated_filenode[EO_SEGMENTS];

/* Widens a range by one row. */
typedef struct RangeScan
{
	TupleDesc	desc;
	EoSegmentRange *range;
	bool		found;
} RangeScan;

static void
widen_range(HeapTuple row, Buffer buffer, void *arg)
{
	RangeScan  *scan = arg;
	EoSegmentRange *range = scan->range;
	EoEvent		event;

	(void) eo_event_deform(row, scan->desc, &event);
	if (range->first_seq == 0 || event.seq < range->first_seq)
	{
		range->first_seq = event.seq;
		range->first_append = event.enqueued_at;
	}
	if (event.seq >= range->last_seq)
	{
		range->last_seq = event.seq;
		range->last_append = event.enqueued_at;
	}
	scan->found = true;
}

/* Widens a range by the rows of one page.  Returns false if it has none. */
static bool
scan_page(Relation rel, BlockNumber block, EoSegmentRange *range)
{
	RangeScan	scan = {.desc = RelationGetDescr(rel),.range = range};

	eo_page_visit(rel, block, widen_range, &scan);
	return scan.found;
}

/*
 * Looks at the first and the last page with rows, or, where the rows are not
 * in order, at all of them.
 */
EoSegmentRange
eo_segment_scan(Relation rel, bool ordered)
{
	EoSegmentRange range = {0};
	BlockNumber first = 0;

	range.nblocks = RelationGetNumberOfBlocks(rel);
	while (first < range.nblocks)
	{
		CHECK_FOR_INTERRUPTS();
		if (scan_page(rel, first++, &range) && ordered)
			break;
	}
	for (BlockNumber last = range.nblocks; last > first;)
	{
		CHECK_FOR_INTERRUPTS();
		if (scan_page(rel, --last, &range))
			break;
	}
	return range;
}

/* Reads eo.segment: the file in which each segment was started. */
static void
load_native_filenodes(EoDatabase *db)
{
	Relation	rel = table_open(get_relname_relid("segment", eo_catalog_required()->schema),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		int			segment = DatumGetInt32(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull));
		Oid			filenode = DatumGetObjectId(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull));

		if (segment >= 0 && segment < EO_SEGMENTS)
			pg_atomic_write_u32(&db->segments[segment].native_filenode, filenode);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

int64
eo_segments_load(EoDatabase *db)
{
	const EoCatalog *catalog = eo_catalog_required();
	int64		last_seq = 0;
	uint32		active = 0;

	load_native_filenodes(db);
	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		EoSegment  *segment = &db->segments[i];
		Relation	rel = table_open(catalog->log[i], AccessShareLock);
		Oid			filenode = EoRelationFileNumber(rel);
		EoSegmentRange range;

		range = eo_segment_scan(rel, filenode == pg_atomic_read_u32(&segment->native_filenode));
		pg_atomic_write_u64(&segment->last_seq, (uint64) range.last_seq);
		pg_atomic_write_u64(&segment->first_append, (uint64) range.first_append);
		pg_atomic_write_u64(&segment->last_append, (uint64) range.last_append);
		pg_atomic_write_u64(&segment->first_seq, (uint64) range.first_seq);
		segment->tail_block = range.nblocks > 0 ? range.nblocks - 1 : InvalidBlockNumber;
		segment->filenode = filenode;
		pg_atomic_fetch_add_u32(&segment->generation, 1);
		table_close(rel, AccessShareLock);
		if (range.last_seq > last_seq)
		{
			last_seq = range.last_seq;
			active = i;
		}
	}
	pg_atomic_write_u32(&db->active_segment, active);
	return last_seq;
}

/*
 * Truncates one segment in the current transaction, unless somebody uses it.
 */
static bool
truncate_segment(EoDatabase *db, int index, int64 through_seq)
{
	const EoCatalog *catalog = eo_catalog_required();
	char		command[128];
	Relation	rel;

	if (!ConditionalLockRelationOid(catalog->log[index], AccessExclusiveLock))
		return false;

	/* Appends may have moved on to it before we had the lock. */
	if (pg_atomic_read_u32(&db->active_segment) == (uint32) index ||
		(int64) pg_atomic_read_u64(&db->segments[index].last_seq) > through_seq)
		return false;
	SPI_connect();
	snprintf(command, sizeof(command), "TRUNCATE eo.log_%d", index);
	EO_POINT(segment_truncate);
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not truncate segment %d", index);

	rel = table_open(catalog->log[index], AccessExclusiveLock);
	truncated_filenode[index] = EoRelationFileNumber(rel);
	table_close(rel, NoLock);
	snprintf(command, sizeof(command),
			 "UPDATE eo.segment SET filenode = %u WHERE segment OPERATOR(pg_catalog.=) %d",
			 truncated_filenode[index], index);
	if (SPI_execute(command, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not record the file of segment %d", index);
	SPI_finish();

	EO_POINT(segment_truncated);
	eo_lineage_set_floor(db, (int64) pg_atomic_read_u64(&db->segments[index].last_seq));
	return true;
}

int
eo_segments_truncate(EoDatabase *db, int64 through_seq, TimestampTz *recheck_at)
{
	uint32		active = pg_atomic_read_u32(&db->active_segment);
	TimestampTz now = GetCurrentTimestamp();
	int			count = 0;

	*recheck_at = 0;
	if (eo_catalog() == NULL)
		return 0;
	memset(truncated_filenode, 0, sizeof(truncated_filenode));
	for (int i = 1; i < EO_SEGMENTS; i++)
	{
		int			index = (active + i) % EO_SEGMENTS;
		EoSegment  *segment = &db->segments[index];
		TimestampTz expires;

		if (pg_atomic_read_u64(&segment->first_seq) == 0)
			continue;
		if ((int64) pg_atomic_read_u64(&segment->last_seq) > through_seq)
			break;
		expires = TimestampTzPlusMilliseconds((TimestampTz) pg_atomic_read_u64(&segment->last_append),
											  (int64) eo_retention * 1000);
		if (expires > now)
		{
			*recheck_at = expires;
			break;
		}
		if (!truncate_segment(db, index, through_seq))
		{
			*recheck_at = TimestampTzPlusMilliseconds(now, 1000);
			break;
		}
		count++;
	}
	return count;
}

void
eo_segments_released(EoDatabase *db)
{
	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		EoSegment  *segment = &db->segments[i];

		if (!OidIsValid(truncated_filenode[i]))
			continue;
		if ((int64) pg_atomic_read_u64(&segment->last_seq) > (int64) pg_atomic_read_u64(&db->floor_seq))
			pg_atomic_write_u64(&db->floor_seq, pg_atomic_read_u64(&segment->last_seq));
		pg_atomic_write_u32(&segment->native_filenode, truncated_filenode[i]);
		pg_atomic_fetch_add_u32(&segment->generation, 1);
		pg_atomic_write_u64(&segment->first_append, 0);
		segment->tail_block = InvalidBlockNumber;
		segment->filenode = truncated_filenode[i];
		pg_write_barrier();
		pg_atomic_write_u64(&segment->first_seq, 0);
		truncated_filenode[i] = InvalidOid;
	}
}
