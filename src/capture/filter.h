/*
 * filter.h
 *
 * The row filter of a captured table, for rows that no trigger is fired for.
 */
#ifndef EO_CAPTURE_FILTER_H
#define EO_CAPTURE_FILTER_H

#include "executor/executor.h"
#include "utils/relcache.h"
#include "utils/reltrigger.h"

/*
 * The trigger that captures insertions for a topic into a table; NULL: none.
 * It belongs to the relation's descriptor.
 */
extern Trigger *eo_capture_insert_trigger(Relation rel, const char *topic);

typedef struct EoFilter EoFilter;

/* Of a trigger, in the current memory context; to be freed. */
extern EoFilter *eo_filter_begin(Relation rel, const Trigger *trigger);
extern bool eo_filter_pass(EoFilter *filter, TupleTableSlot *row);
extern void eo_filter_end(EoFilter *filter);

#endif							/* EO_CAPTURE_FILTER_H */
