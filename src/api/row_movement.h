/*
 * row_movement.h
 *
 * Tells rows that an UPDATE moves to another partition from those that are new.
 */
#ifndef EO_ROW_MOVEMENT_H
#define EO_ROW_MOVEMENT_H

#include "fmgr.h"
#include "utils/relcache.h"

typedef enum EoRowOrigin
{
	EO_ROW_NEW,
	EO_ROW_MOVED,				/* from another partition */
	EO_ROW_UNKNOWN				/* the statement does both */
} EoRowOrigin;

/*
 * Where a row comes from for which a BEFORE INSERT trigger is being fired on
 * this relation; `flinfo` is the trigger function's.
 */
extern EoRowOrigin eo_row_origin(const FmgrInfo *flinfo, Relation rel);

/* Called once, by _PG_init. */
extern void eo_row_movement_init(void);

#endif							/* EO_ROW_MOVEMENT_H */
