/*
 * snapshot_worker.h
 *
 * The background worker of one database that makes snapshots of tables.
 */
#ifndef EO_RELAY_SNAPSHOT_WORKER_H
#define EO_RELAY_SNAPSHOT_WORKER_H

#include "postmaster/bgworker.h"

/* Entry point of the background worker; the argument is the database's OID. */
extern PGDLLEXPORT void eo_snapshot_main(Datum arg);

#endif							/* EO_RELAY_SNAPSHOT_WORKER_H */
