/*
 * snapshot_page.h
 *
 * The rows of some pages of a table, and what has become of them since.
 */
#ifndef EO_CAPTURE_SNAPSHOT_PAGE_H
#define EO_CAPTURE_SNAPSHOT_PAGE_H

#include "access/htup.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* Pages that are read, and pinned, at a time */
#define EO_SNAPSHOT_PAGES	16

typedef struct EoSnapshotPages
{
	Relation	rel;
	Snapshot	snapshot;		/* must be registered while this is in use */
	BufferAccessStrategy strategy;
	BlockNumber first;
	int			npages;
	Buffer		buffers[EO_SNAPSHOT_PAGES];	/* pinned */
	HeapTuple  *rows;			/* copies of those that are visible, in order */
	int			nrows;
	int			maxrows;
} EoSnapshotPages;

/*
 * Reads pages from `first` up to `end`, the first one from `item` on, until
 * there are `rows` rows or enough pages.  In the current memory context.  Keeps
 * pins on them.
 */
extern void eo_snapshot_read(EoSnapshotPages *pages, BlockNumber first, OffsetNumber item,
							 BlockNumber end, int rows);
extern void eo_snapshot_release(EoSnapshotPages *pages);

typedef enum EoRowFate
{
	EO_ROW_CURRENT,				/* nobody has changed it, or will have told of it later */
	EO_ROW_CHANGED,				/* somebody has, and the event is in the log */
	EO_ROW_UNDECIDED			/* the event may be in the log, but the transaction
								 * that did it may still abort */
} EoRowFate;

/* Caller holds the append lock. */
extern EoRowFate eo_snapshot_judge(EoSnapshotPages *pages, HeapTuple row, TransactionId *undecided);

#endif							/* EO_CAPTURE_SNAPSHOT_PAGE_H */
