/*
 * api.h
 *
 * What the SQL-callable functions share.
 */
#ifndef EO_API_H
#define EO_API_H

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "store/event.h"

/* For a function that is not strict: `what` is the name of the argument. */
static inline void
eo_api_refuse_null(FunctionCallInfo fcinfo, int arg, const char *what)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
}

/* in events.c */

/*
 * Adds an event to the tuplestore of a function that returns SETOF eo.event.
 * A seq or position of 0 becomes NULL.
 */
extern void eo_api_put_event(ReturnSetInfo *rsinfo, const EoEvent *event, int64 position);

/* in tables.c */

/*
 * An ERROR unless this is an ordinary or a partitioned table that the current
 * user owns; before a lock on it is waited for.  `done` says what is to be done
 * to it, as in "only tables can be ...".
 */
extern void eo_api_check_table_owner(Oid relid, const char *done);

#endif							/* EO_API_H */
