/*
 * generations.h
 *
 * The tables that hold what was received, and which of them is filled.
 */
#ifndef EO_GENERATIONS_H
#define EO_GENERATIONS_H

#include "shmem.h"

/* The table of a generation; looked up by name, cached per backend. */
extern Oid	eo_generation_relid(EoFamily family, int class, int generation);

/* The same for eo.received_position, which has one row a source and no generations. */
extern Oid	eo_received_position_relid(void);

/* "inbox_day_0" and so on, in static memory. */
extern const char *eo_generation_name(EoFamily family, int class, int generation);

/*
 * The generation that new keys go to.  Reads eo.generation first if nobody has
 * since server start.
 */
extern int	eo_generation_current(EoDatabase *db, EoFamily family, int class);

/*
 * For the relay.  Takes the next step with a class if it is due: truncates the
 * older generation once everything in it is older than the class's longest
 * window, or switches to it if it is empty and the current one is as old.
 * Waits for locks no longer than eo_exclusive_lock() does.
 *
 * Runs in the caller's transaction, with SPI connected and at least
 * AccessShareLocks on the tables of the class and of the owners; the caller
 * commits and then calls eo_generations_turned().  Returns when to look again,
 * by GetCurrentTimestamp(); 0 if there is nothing to wait for before the next
 * first claim.
 */
extern TimestampTz eo_generations_turn(EoDatabase *db, EoFamily family, int class);
extern void eo_generations_turned(EoDatabase *db, EoFamily family, int class);

#endif							/* EO_GENERATIONS_H */
