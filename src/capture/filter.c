/*
 * filter.c
 *
 * The row filter of a captured table.
 *
 * It is the WHEN condition of the triggers, where PostgreSQL keeps it right when
 * columns are renamed.  Here that of the trigger on insertions is evaluated for
 * rows that no trigger is fired for: those that are truncated, or were there
 * before.
 */
#include "postgres.h"

#include "capture/filter.h"
#include "capture/spec.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "store/catalog.h"
#include "utils/memutils.h"
#include "utils/rel.h"

struct EoFilter
{
	EState	   *estate;
	ExprState  *condition;		/* NULL: all pass */
};

Trigger *
eo_capture_insert_trigger(Relation rel, const char *topic)
{
	TriggerDesc *desc = rel->trigdesc;
	Oid			function = eo_catalog_required()->capture_row;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		Trigger    *trigger = &desc->triggers[i];
		EoCaptureSpec spec;

		if (trigger->tgfoid != function || !TRIGGER_FOR_INSERT(trigger->tgtype) ||
			!TRIGGER_FOR_ROW(trigger->tgtype) || trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		eo_capture_spec(&spec, trigger);
		if (topic == NULL || (spec.topic != NULL && strcmp(spec.topic, topic) == 0))
			return trigger;
	}
	return NULL;
}

EoFilter *
eo_filter_begin(Relation rel, const Trigger *trigger)
{
	EoFilter   *filter = palloc0(sizeof(EoFilter));
	MemoryContext old;
	Node	   *condition;

	if (trigger == NULL || trigger->tgqual == NULL)
		return filter;
	filter->estate = CreateExecutorState();
	old = MemoryContextSwitchTo(filter->estate->es_query_cxt);
	condition = stringToNode(trigger->tgqual);
	condition = EoExpandVirtual(condition, rel, PRS2_NEW_VARNO);
	ChangeVarNodes(condition, PRS2_NEW_VARNO, INNER_VAR, 0);
	filter->condition = ExecPrepareQual(make_ands_implicit((Expr *) condition), filter->estate);
	MemoryContextSwitchTo(old);
	return filter;
}

bool
eo_filter_pass(EoFilter *filter, TupleTableSlot *row)
{
	ExprContext *context;
	bool		result;

	if (filter->condition == NULL)
		return true;
	context = GetPerTupleExprContext(filter->estate);
	context->ecxt_innertuple = row;
	result = ExecQual(filter->condition, context);
	ResetPerTupleExprContext(filter->estate);
	return result;
}

void
eo_filter_end(EoFilter *filter)
{
	if (filter->estate != NULL)
		FreeExecutorState(filter->estate);
	pfree(filter);
}
