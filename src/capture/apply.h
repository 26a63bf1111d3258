/*
 * apply.h
 *
 * Applies events of changes to a table.
 */
#ifndef EO_CAPTURE_APPLY_H
#define EO_CAPTURE_APPLY_H

#include "utils/jsonb.h"

typedef enum EoApplyResult
{
	EO_APPLY_INSERTED,
	EO_APPLY_UPDATED,
	EO_APPLY_DELETED,
	EO_APPLY_TRUNCATED,
	EO_APPLY_STALE,				/* a later event of the key was applied already */
	EO_APPLY_UNCHANGED			/* there was nothing to be changed */
} EoApplyResult;

/*
 * Applies an event to a table, as the current user and in this transaction:
 * once, and never after a later one of the same key.
 */
extern EoApplyResult eo_apply_change(Oid target, Jsonb *event);

#endif							/* EO_CAPTURE_APPLY_H */
