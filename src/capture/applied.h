/*
 * applied.h
 *
 * Which event was applied last, for each key of each target.
 */
#ifndef EO_CAPTURE_APPLIED_H
#define EO_CAPTURE_APPLIED_H

#include "storage/lock.h"
#include "store/keyed_table.h"

/* The record of a key */
typedef struct EoApplied
{
	Oid			target;
	text	   *key;
	bool		known;			/* an event was applied before */
	int64		seq;			/* the last one ... */
	bool		deleted;		/* ... which has deleted the row */

	EoKeyedTable table;
	LOCKTAG		tag;
} EoApplied;

/*
 * Finds the record of a key and locks the key until eo_applied_close(); waits
 * for transactions that are applying an event to it.  What is stored keeps
 * others waiting until this transaction ends.
 */
extern void eo_applied_open(EoApplied *applied, Oid target, text *key);
extern void eo_applied_store(EoApplied *applied, int64 seq, bool deleted);
extern void eo_applied_close(EoApplied *applied);

/* The last truncation of a target; 0 if there was none. */
extern int64 eo_applied_truncation(Oid target);

/*
 * Records a truncation, instead of all that came before it.  Returns whether
 * there are rows that came later.  Caller holds a lock that keeps others from
 * applying events to the target.
 */
extern bool eo_applied_truncate(Oid target, int64 seq);

/*
 * For a target that this session has not used before: if it is new, removes the
 * records of tables that have been dropped.
 */
extern void eo_applied_meet(Oid target);

#endif							/* EO_CAPTURE_APPLIED_H */
