/*
 * spill.h
 *
 * Bytes that are added at the end: the last of them in memory, and what is more
 * than fits there in a temporary file.
 */
#ifndef EO_SPILL_H
#define EO_SPILL_H

#include "storage/buffile.h"

typedef struct EoSpill
{
	int64		spilled;		/* bytes in the file */
	char	   *memory;
	Size		used;
	Size		size;
	BufFile    *file;			/* belongs to the top transaction */
} EoSpill;

/* The offset of what is added next. */
static inline int64
eo_spill_end(const EoSpill *spill)
{
	return spill->spilled + (int64) spill->used;
}

static inline bool
eo_spill_in_file(const EoSpill *spill, int64 offset)
{
	return offset < spill->spilled;
}

/* Makes room for what eo_spill_put() will add; what fits `limit` stays together in memory. */
extern void eo_spill_reserve(EoSpill *spill, Size size, Size limit);

/* Adds some of that, and leaves a gap up to the next aligned offset. */
extern void eo_spill_put(EoSpill *spill, const void *data, Size size);

/* Forgets all from an offset on.  Does not fail. */
extern void eo_spill_cut(EoSpill *spill, int64 offset);

/* Before reading, wherever the last has not ended there: goes to an offset. */
extern void eo_spill_seek(EoSpill *spill, int64 offset);

/* What is there: copied, or where it is if that is in memory; else in the current memory context. */
extern void eo_spill_copy(EoSpill *spill, int64 offset, void *out, Size size);
extern void *eo_spill_get(EoSpill *spill, int64 offset, Size size);

extern void eo_spill_close(EoSpill *spill);

/* Empties it, after the transaction has closed the file; keeps some memory.  Does not fail. */
extern void eo_spill_reset(EoSpill *spill);

#endif							/* EO_SPILL_H */
