/*
 * virtual.h
 *
 * Generated columns that are not stored, but computed when they are read.
 */
#ifndef EO_CAPTURE_VIRTUAL_H
#define EO_CAPTURE_VIRTUAL_H

#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "utils/relcache.h"

typedef struct EoVirtual EoVirtual;

/*
 * For those of these columns that are virtual; NULL: none is.  In the current
 * memory context; good as long as the relation's columns stay as they are.
 */
extern EoVirtual *eo_virtual_make(Relation rel, TupleDesc desc, const Bitmapset *columns);

/*
 * A copy of a row, all of whose attributes are deformed, with these columns
 * computed; in the current memory context, and good as long as the row is.
 */
extern TupleTableSlot *eo_virtual_fill(EoVirtual *virtual, TupleTableSlot *row);

#endif							/* EO_CAPTURE_VIRTUAL_H */
