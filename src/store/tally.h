/*
 * tally.h
 *
 * Counts what was received, for the views.
 */
#ifndef EO_TALLY_H
#define EO_TALLY_H

#include "datatype/timestamp.h"
#include "store/registry.h"

/*
 * Notes a key that this transaction has claimed, or one that it found claimed.
 * It counts when the transaction has committed; savepoints that are rolled back
 * do not.
 */
extern void eo_tally_held(const EoOwner *owner, int generation, int64 bytes);
extern void eo_tally_repeat(const EoOwner *owner);

/*
 * For the relay: adds what has been counted to eo.tally and eo.tally_repeats, in
 * the caller's transaction, with SPI connected as the extension's owner.
 */
extern void eo_tally_flush(EoDatabase *db);

/* Whether there is something to flush. */
extern bool eo_tally_pending(EoDatabase *db);

/* A generation was truncated: forgets its counts, in the caller's transaction. */
extern void eo_tally_truncated(EoDatabase *db, EoFamily family, int class, int generation);

/* What is counted and not flushed yet, for the views: calls visit for each. */
typedef void (*EoTallyVisitor) (EoFamily family, int32 owner, int class, int generation,
								int64 held, int64 bytes, TimestampTz first_at,
								int64 repeats, void *arg);
extern void eo_tally_walk(EoDatabase *db, EoTallyVisitor visit, void *arg);

/* Called once each, by _PG_init and shmem.c. */
extern void eo_tally_init(void);

#endif							/* EO_TALLY_H */
