/*
 * log_rows.h
 *
 * Rows of segments on their way to being events: collected from pages, judged,
 * sorted and put together.  Used by log_reader.c alone.
 */
#ifndef EO_LOG_ROWS_H
#define EO_LOG_ROWS_H

#include "store/log_reader.h"
#include "utils/relcache.h"

typedef enum EoRowState
{
	ROW_COMMITTED,
	ROW_ABORTED,
	ROW_IN_PROGRESS
} EoRowState;

/* A row that was judged; the tuple is copied only if it is wanted. */
typedef struct EoRow
{
	int64		seq;
	int			part;			/* as in EO_COL_PART */
	EoRowState	state;
	TransactionId xid;			/* of a row in progress */
	HeapTuple	tuple;			/* NULL: not wanted */
} EoRow;

/* The state of one eo_log_reader_next(). */
typedef struct EoRowBatch
{
	const EoReadLimits *limits;
	EoReadResult *result;
	TupleDesc	desc;
	EoRow	   *rows;			/* of the page, or scan, at hand */
	int			nrows;
	int			maxrows;
	XLogRecPtr	flush_to;
	TransactionId last_xmin;	/* whose commit LSN is in flush_to already */
	int			maxevents;
	Size		bytes;
	bool		stopped;		/* stall, limit or bound reached */
	EoEvent    *joining;		/* a head row whose parts are being collected */
	struct varlena **parts;
	int			nparts;
	int			parts_due;
} EoRowBatch;

/*
 * Collects the rows of a page with a seq above `above` and at most `upto`, and
 * judges them.  Copies those that are committed and wanted into the current
 * memory context.
 */
extern void eo_rows_collect(EoRowBatch *batch, Relation rel, BlockNumber block,
							int64 above, int64 upto);

/*
 * Turns the collected rows into events, in seq order.  Stops (batch->stopped)
 * in front of a row in progress, or of an event beyond a limit.
 */
extern void eo_rows_take(EoRowBatch *batch);

#endif							/* EO_LOG_ROWS_H */
