/*
 * segments.h
 *
 * The ring of segment tables: which is active, which is free, what each holds.
 */
#ifndef EO_SEGMENTS_H
#define EO_SEGMENTS_H

#include "shmem.h"
#include "utils/relcache.h"

/*
 * Truncates the oldest segments whose events all have a seq of at most
 * through_seq and are older than eo_outbox.retention; never the active one,
 * and never waits for a lock.  Needs a transaction of its own, which the
 * caller commits, and then calls eo_segments_released().
 *
 * Returns the number truncated; *recheck_at is set to when the retention of
 * the next candidate ends, or 0.
 */
extern int	eo_segments_truncate(EoDatabase *db, int64 through_seq,
								 TimestampTz *recheck_at);
extern void eo_segments_released(EoDatabase *db);

/* What the pages of a segment hold, whatever became of its transactions. */
typedef struct EoSegmentRange
{
	int64		first_seq;		/* 0: empty */
	int64		last_seq;
	TimestampTz first_append;
	TimestampTz last_append;
	BlockNumber nblocks;
} EoSegmentRange;

extern EoSegmentRange eo_segment_scan(Relation rel, bool ordered);

/*
 * Fills the segments' part of the slot from disk and chooses the active one.
 * Returns the highest seq found.  Caller holds the append lock.
 */
extern int64 eo_segments_load(EoDatabase *db);

#endif							/* EO_SEGMENTS_H */
