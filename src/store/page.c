/*
 * page.c
 *
 * The rows of one page of a segment, whatever became of their transactions.
 *
 * A page that a crash left between extension and initialisation is empty.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "store/page.h"
#include "utils/rel.h"

void
eo_page_visit(Relation rel, BlockNumber block, EoRowVisitor visit, void *arg)
{
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	for (OffsetNumber off = FirstOffsetNumber;
		 !PageIsNew(page) && off <= PageGetMaxOffsetNumber(page); off++)
	{
		ItemId		item = PageGetItemId(page, off);
		HeapTupleData row;

		if (!ItemIdIsNormal(item))
			continue;
		row.t_data = (HeapTupleHeader) PageGetItem(page, item);
		row.t_len = ItemIdGetLength(item);
		row.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&row.t_self, block, off);
		visit(&row, buffer, arg);
	}
	UnlockReleaseBuffer(buffer);
}
