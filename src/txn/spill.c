/*
 * spill.c
 *
 * Bytes in memory and, those that were added first, in a temporary file.
 *
 * The file belongs to the top transaction's resource owner, so an abort closes
 * it; the memory is kept for the next transaction, unless it has grown large.
 */
#include "postgres.h"

#include "compat.h"
#include "points.h"
#include "txn/spill.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#define INITIAL_MEMORY	(16 * 1024)
#define KEEP_MEMORY		(256 * 1024)

/* Moves what is in memory to the end of the file. */
static void
move_to_file(EoSpill *spill)
{
	if (spill->file == NULL)
	{
		ResourceOwner owner = CurrentResourceOwner;
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		CurrentResourceOwner = TopTransactionResourceOwner;
		spill->file = BufFileCreateTemp(false);
		CurrentResourceOwner = owner;
		MemoryContextSwitchTo(old);
	}
	/* a rollback may have cut the file, a look at it may have moved on */
	eo_spill_seek(spill, spill->spilled);
	EO_POINT(spill);
	BufFileWrite(spill->file, spill->memory, spill->used);
	EO_POINT(spilled);
	spill->spilled += spill->used;
	spill->used = 0;
}

void
eo_spill_reserve(EoSpill *spill, Size size, Size limit)
{
	Size		wanted = spill->size ? spill->size : INITIAL_MEMORY;

	if (spill->used > 0 && spill->used + size > limit)
		move_to_file(spill);
	while (wanted < spill->used + size)
		wanted *= 2;
	if (wanted == spill->size)
		return;
	if (spill->memory == NULL)
		spill->memory = MemoryContextAllocHuge(TopMemoryContext, wanted);
	else
		spill->memory = repalloc_huge(spill->memory, wanted);
	spill->size = wanted;
}

void
eo_spill_put(EoSpill *spill, const void *data, Size size)
{
	Assert(spill->used + MAXALIGN(size) <= spill->size);
	memcpy(spill->memory + spill->used, data, size);
	spill->used += MAXALIGN(size);
}

void
eo_spill_cut(EoSpill *spill, int64 offset)
{
	if (offset >= spill->spilled)
		spill->used = offset - spill->spilled;
	else
	{
		spill->spilled = offset;
		spill->used = 0;
	}
}

void
eo_spill_seek(EoSpill *spill, int64 offset)
{
	if (spill->file != NULL && offset <= spill->spilled &&
		BufFileSeek(spill->file, 0, offset, SEEK_SET) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not position in spilled events: %m")));
}

void
eo_spill_copy(EoSpill *spill, int64 offset, void *out, Size size)
{
	if (eo_spill_in_file(spill, offset))
		EoBufFileReadExact(spill->file, out, size);
	else
		memcpy(out, spill->memory + (offset - spill->spilled), size);
}

void *
eo_spill_get(EoSpill *spill, int64 offset, Size size)
{
	void	   *out;

	if (!eo_spill_in_file(spill, offset))
		return spill->memory + (offset - spill->spilled);
	out = palloc(size);
	EoBufFileReadExact(spill->file, out, size);
	return out;
}

/* There may be a file with nothing left in it, after a rollback. */
void
eo_spill_close(EoSpill *spill)
{
	if (spill->file != NULL)
		BufFileClose(spill->file);
	spill->file = NULL;
}

void
eo_spill_reset(EoSpill *spill)
{
	EoSpill		empty = {0};

	if (spill->size > KEEP_MEMORY)
		pfree(spill->memory);
	else
	{
		empty.memory = spill->memory;
		empty.size = spill->size;
	}
	*spill = empty;
}
