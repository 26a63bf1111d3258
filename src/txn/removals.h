/*
 * removals.h
 *
 * Where the events of a transaction have set keys free.
 */
#ifndef EO_REMOVALS_H
#define EO_REMOVALS_H

#include "store/event.h"

/* All in TopTransactionContext; zeroed when it begins. */
typedef struct EoRemovals
{
	struct HTAB *heads;			/* by hash of topic and key: the latest */
	struct EoRemoval *array;	/* in the order of the buffer */
	int			count;
	int			size;
} EoRemovals;

/* The event at an offset of the buffer; offsets grow. */
extern void eo_removals_note(EoRemovals *removals, const EoEvent *event, int64 offset, CommandId cid);

/* Forgets those from an offset on.  Does not fail. */
extern void eo_removals_cut(EoRemovals *removals, int64 offset);

/* The latest command between two that has set an event's key free; or else the first. */
extern CommandId eo_removals_latest(const EoRemovals *removals, const EoEvent *event,
									CommandId after, CommandId before);

#endif							/* EO_REMOVALS_H */
