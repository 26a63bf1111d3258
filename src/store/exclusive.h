/*
 * exclusive.h
 *
 * Gets a table for oneself without making others wait.
 */
#ifndef EO_EXCLUSIVE_H
#define EO_EXCLUSIVE_H

#include "storage/lock.h"

/* Who had a table when it was last tried */
typedef struct EoHolders
{
	int			count;
	VirtualTransactionId ids[128];
} EoHolders;

typedef enum EoExclusiveResult
{
	EO_EXCLUSIVE_TAKEN,
	EO_EXCLUSIVE_BUSY,			/* try again */
	EO_EXCLUSIVE_HELD			/* by somebody who had it the last time, too */
} EoExclusiveResult;

/*
 * Locks a table and all that belongs to it, as TRUNCATE does, until the end of
 * the transaction.  Somebody may wait for this for EO_EXCLUSIVE_MOMENT_MS, at
 * most, and only if nobody holds the table for long.
 */
#define EO_EXCLUSIVE_MOMENT_MS	50

extern EoExclusiveResult eo_exclusive_lock(Oid relid, EoHolders *holders);

#endif							/* EO_EXCLUSIVE_H */
