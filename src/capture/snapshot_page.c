/*
 * snapshot_page.c
 *
 * The rows of some pages of a table, and what has become of them since.
 *
 * Why a row that was read may be put on the topic
 *
 * A transaction appends its events just before it commits, under the append
 * lock.  So whoever holds that lock can tell on which side of the row's event
 * that of any change of the row stands or will stand:
 *
 * 1. Nobody has deleted or updated the row: whoever does it later appends
 *	  later, too.
 *
 * 2. A transaction that has committed has: its event is in the log, and that of
 *	  the row must not come after it.  The row is dropped.
 *
 * 3. A transaction in progress has, and has not begun to append: if it commits
 *	  its event comes later; if it aborts the row is as it was.
 *
 * 4. A transaction in progress has, and has begun to append: only its end tells.
 *	  It is committing, so that is near.
 *
 * A commit counts from where it is noted in pg_xact: from then on nothing can
 * take it back, though it may still wait for a synchronous standby.
 *
 * The version that was read stays in its place: the snapshot that saw it keeps
 * VACUUM away from it, the lock on the table keeps everybody from rewriting it.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "capture/snapshot_page.h"
#include "settings.h"
#include "storage/procarray.h"
#include "store/append.h"

static void
add_row(EoSnapshotPages *pages, HeapTuple row)
{
	if (pages->nrows == pages->maxrows)
	{
		pages->maxrows = pages->maxrows ? pages->maxrows * 2 : MaxHeapTuplesPerPage;
		pages->rows = pages->rows ?
			repalloc(pages->rows, sizeof(HeapTuple) * pages->maxrows) :
			palloc(sizeof(HeapTuple) * pages->maxrows);
	}
	pages->rows[pages->nrows++] = heap_copytuple(row);
}

static void
read_page(EoSnapshotPages *pages, BlockNumber block, OffsetNumber item)
{
	Buffer		buffer = ReadBufferExtended(pages->rel, MAIN_FORKNUM, block, RBM_NORMAL, pages->strategy);
	Page		page = BufferGetPage(buffer);

	pages->buffers[pages->npages++] = buffer;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	for (OffsetNumber off = item;
		 !PageIsNew(page) && off <= PageGetMaxOffsetNumber(page); off++)
	{
		ItemId		id = PageGetItemId(page, off);
		HeapTupleData row;

		if (!ItemIdIsNormal(id))
			continue;
		row.t_data = (HeapTupleHeader) PageGetItem(page, id);
		row.t_len = ItemIdGetLength(id);
		row.t_tableOid = RelationGetRelid(pages->rel);
		ItemPointerSet(&row.t_self, block, off);
		if (HeapTupleSatisfiesVisibility(&row, pages->snapshot, buffer))
			add_row(pages, &row);
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
}

void
eo_snapshot_read(EoSnapshotPages *pages, BlockNumber first, OffsetNumber item,
				 BlockNumber end, int rows)
{
	pages->first = first;
	pages->npages = 0;
	pages->rows = NULL;
	pages->nrows = pages->maxrows = 0;
	while (first + pages->npages < end && pages->npages < EO_SNAPSHOT_PAGES && pages->nrows < rows)
		read_page(pages, first + pages->npages,
				  pages->npages == 0 ? item : FirstOffsetNumber);
}

void
eo_snapshot_release(EoSnapshotPages *pages)
{
	for (int i = 0; i < pages->npages; i++)
		ReleaseBuffer(pages->buffers[i]);
	pages->npages = 0;
}

/*
 * Who has deleted or updated a row, or is about to; InvalidTransactionId: nobody.
 * Sets *committed if it is known to have committed.
 */
static TransactionId
find_changer(EoSnapshotPages *pages, HeapTuple row, bool *committed)
{
	Buffer		buffer = pages->buffers[ItemPointerGetBlockNumber(&row->t_self) - pages->first];
	TransactionId xid = InvalidTransactionId;
	HeapTupleHeader header;
	Page		page;
	ItemId		item;

	*committed = false;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	item = PageGetItemId(page, ItemPointerGetOffsetNumber(&row->t_self));
	if (!ItemIdIsNormal(item))
		elog(ERROR, "row (%u,%u) of table \"%s\" has gone under a snapshot that sees it",
			 ItemPointerGetBlockNumber(&row->t_self), ItemPointerGetOffsetNumber(&row->t_self),
			 RelationGetRelationName(pages->rel));
	header = (HeapTupleHeader) PageGetItem(page, item);
	if (!(header->t_infomask & HEAP_XMAX_INVALID) && !HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask))
	{
		*committed = (header->t_infomask & HEAP_XMAX_COMMITTED) != 0;
		xid = HeapTupleHeaderGetUpdateXid(header);
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return xid;
}

EoRowFate
eo_snapshot_judge(EoSnapshotPages *pages, HeapTuple row, TransactionId *undecided)
{
	bool		committed;
	TransactionId xid = find_changer(pages, row, &committed);
	TransactionId top;

	if (EO_MUTANT(no_recheck) || !TransactionIdIsValid(xid))
		return EO_ROW_CURRENT;
	if (committed || TransactionIdDidCommit(xid))
		return EO_ROW_CHANGED;
	if (!TransactionIdIsInProgress(xid))

		/* It has ended since, or long ago. */
		return TransactionIdDidCommit(xid) ? EO_ROW_CHANGED : EO_ROW_CURRENT;
	top = SubTransGetTopmostTransaction(xid);
	if (EO_MUTANT(no_begun) || !eo_append_begun(top))
		return EO_ROW_CURRENT;
	*undecided = top;
	return EO_ROW_UNDECIDED;
}
