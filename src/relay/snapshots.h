/*
 * snapshots.h
 *
 * Starts the worker that makes snapshots of tables, when there is a job for it.
 */
#ifndef EO_RELAY_SNAPSHOTS_H
#define EO_RELAY_SNAPSHOTS_H

#include "c.h"

/* In every turn of the relay's loop: looks if it is time.  May throw. */
extern void eo_snapshots_step(void);

/* When that is, by eo_clock_ms(); EO_NEVER: when somebody says something. */
extern int64 eo_snapshots_deadline(void);

#endif							/* EO_RELAY_SNAPSHOTS_H */
