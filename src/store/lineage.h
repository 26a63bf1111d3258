/*
 * lineage.h
 *
 * Which cluster, database, extension and timeline the log belongs to, and the epoch that
 * follows from it.
 */
#ifndef EO_LINEAGE_H
#define EO_LINEAGE_H

#include "shmem.h"

/* "sysid/dboid", what a subscription's home column holds. */
extern char *eo_lineage_home(void);

/*
 * Compares eo.lineage with this server; sets epoch, lineage and floor_seq in
 * shared memory.  Caller holds the append lock.
 */
extern void eo_lineage_load(EoDatabase *db);

/*
 * The same for the relay, whenever it reloads its configuration: eo.adopt() or
 * a restored dump may have changed eo.lineage.  Takes the append lock; returns
 * false, having done nothing, if it is taken and `wait` is not set.
 */
extern bool eo_lineage_refresh(EoDatabase *db, bool wait);

/*
 * Whether nothing may leave this database before eo.adopt(), as the current
 * transaction sees it.  Caller has prepared the log.
 */
extern bool eo_lineage_is_foreign(EoDatabase *db);

/*
 * Records an epoch that is in force but not yet on disk.  The relay calls it
 * in a transaction, flushed before anything of the new epoch is published.
 * Does nothing when there is nothing to record or the lineage is foreign.
 */
extern void eo_lineage_record(EoDatabase *db);

/*
 * eo.adopt(): makes this copy a database of its own, with a new epoch.  Returns
 * false if it already is.  In force once the caller has committed and the
 * relay has refreshed.
 */
extern bool eo_lineage_adopt(EoDatabase *db);

/* Notes, in the caller's transaction, that the log up to seq was truncated. */
extern void eo_lineage_set_floor(EoDatabase *db, int64 seq);

#endif							/* EO_LINEAGE_H */
