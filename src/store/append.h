/*
 * append.h
 *
 * Puts events at the end of the log.
 */
#ifndef EO_APPEND_H
#define EO_APPEND_H

#include "access/htup.h"
#include "shmem.h"

/*
 * Appends formed rows (store/event.h) in order, numbering them; rows of one
 * event must be in one call.  `heads[i]` tells that row i starts an event.
 * Returns the seq of the last event.  Takes the append lock and releases it;
 * an ERROR leaves rows that belong to an aborted transaction, nothing else.
 */
extern int64 eo_append(EoDatabase *db, HeapTuple *tuples, const bool *heads, int ntuples);

/*
 * Reads the state of the log from disk into shared memory, if nobody has since
 * server start.  Takes the append lock for it.
 */
extern void eo_log_prepare(EoDatabase *db);

/* The append lock; see append.c for the order of locks. */
extern void eo_append_lock(void);
extern bool eo_append_try_lock(void);	/* does not wait */
extern void eo_append_unlock(void);

#endif							/* EO_APPEND_H */
