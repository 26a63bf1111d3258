/*
 * api.h
 *
 * What the SQL-callable functions share.
 */
#ifndef EO_API_H
#define EO_API_H

#include "nodes/execnodes.h"
#include "store/event.h"

/* in events.c */

/*
 * Adds an event to the tuplestore of a function that returns SETOF eo.event.
 * A seq or position of 0 becomes NULL.
 */
extern void eo_api_put_event(ReturnSetInfo *rsinfo, const EoEvent *event, int64 position);

#endif							/* EO_API_H */
