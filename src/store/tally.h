/*
 * tally.h
 *
 * Counts what was received, for the views.
 */
#ifndef EO_TALLY_H
#define EO_TALLY_H

#include "store/registry.h"

/*
 * Notes a key that this transaction has claimed, or one that it found claimed.
 * It counts when the transaction has committed; savepoints that are rolled back
 * do not.
 */
extern void eo_tally_held(const EoOwner *owner, int generation, int64 bytes);
extern void eo_tally_repeat(const EoOwner *owner);

/* Whether there is something to flush. */
extern bool eo_tally_pending(EoDatabase *db);

/*
 * For the relay, with SPI connected, as all that writes the tables: adds what
 * has been counted to eo.tally and eo.tally_repeats, if the caller's
 * transaction commits.
 */
extern void eo_tally_flush(EoDatabase *db);

/* Forgets the counts of owners that have been dropped. */
extern void eo_tally_tidy(void);

/* A generation is truncated: forgets its counts, if the transaction commits. */
extern void eo_tally_truncated(EoDatabase *db, EoFamily family, int class, int generation);

/*
 * What is counted and not in the tables as the active snapshot shows them:
 * calls visit for each.
 */
typedef void (*EoTallyVisitor) (const EoTallySlot *slot, const EoTallyCounts *counts, void *arg);
extern void eo_tally_walk(EoDatabase *db, EoTallyVisitor visit, void *arg);

/* Called once, by _PG_init. */
extern void eo_tally_init(void);

#endif							/* EO_TALLY_H */
