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
 * The same, but asks `check`, under the append lock, whether the rows may still
 * be appended.  It takes those that may not out of the arrays and returns how
 * many are left, or 0: then nothing is appended, and so returned.  It must not
 * wait for a lock.
 */
typedef int (*EoAppendCheck) (void *arg);
extern int64 eo_append_checked(EoDatabase *db, HeapTuple *tuples, const bool *heads, int ntuples,
							   EoAppendCheck check, void *arg);

/*
 * Whether a transaction in progress has begun to append: events of all that it
 * has done so far are in the log, or about to be.  Caller holds the append lock
 * of the transaction's database.
 */
extern bool eo_append_begun(TransactionId xid);

/*
 * The transactions in progress that have begun to append, in the current memory
 * context.  With none of them, all that has been appended before the call is
 * decided.  Needs a snapshot.
 */
extern TransactionId *eo_append_undecided(int *n);

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
