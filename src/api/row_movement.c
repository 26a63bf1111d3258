/*
 * row_movement.c
 *
 * Tells rows that an UPDATE moves to another partition from those that are new.
 *
 * PostgreSQL moves a row by a deletion and an insertion, and fires BEFORE INSERT
 * triggers for the latter as for any other row.  One that skips what it has seen
 * before would lose every row that moves, and what a trigger is told does not
 * give away why it is fired.  The statement does: so the statements that may
 * move rows are noted while they run.  A trigger finds its own by the memory
 * context in which the executor keeps both.
 */
#include "postgres.h"

#include "api/row_movement.h"
#include "catalog/partition.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A statement that may move rows; lives in the context that it names */
typedef struct Mover
{
	struct Mover *next;
	MemoryContext context;		/* es_query_cxt */
	PlannedStmt *statement;
	MemoryContextCallback ended;
} Mover;

static Mover *movers = NULL;

static ExecutorStart_hook_type previous_hook = NULL;

/* The statement has ended, in whichever way. */
static void
forget(void *arg)
{
	for (Mover **link = &movers; *link != NULL; link = &(*link)->next)
	{
		if (*link == arg)
		{
			*link = (*link)->next;
			break;
		}
	}
}

static void
note(QueryDesc *query)
{
	MemoryContext context = query->estate->es_query_cxt;
	Mover	   *mover = MemoryContextAlloc(context, sizeof(Mover));

	mover->context = context;
	mover->statement = query->plannedstmt;
	mover->ended.func = forget;
	mover->ended.arg = mover;
	MemoryContextRegisterResetCallback(context, &mover->ended);
	mover->next = movers;
	movers = mover;
}

static void
start_hook(QueryDesc *query, int eflags)
{
	if (previous_hook)
		previous_hook(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (query->operation == CMD_UPDATE || query->operation == CMD_MERGE ||
		query->plannedstmt->hasModifyingCTE)
		note(query);
}

/* What a statement may do to a relation */
typedef struct Effects
{
	bool		inserts;
	bool		moves;
} Effects;

static void
add_actions(Effects *effects, List *lists)
{
	ListCell   *outer,
			   *inner;

	foreach(outer, lists)
	{
		foreach(inner, (List *) lfirst(outer))
		{
			MergeAction *action = lfirst(inner);

			effects->inserts |= action->commandType == CMD_INSERT;
			effects->moves |= action->commandType == CMD_UPDATE;
		}
	}
}

/* Rows only move within the partitioned table that the UPDATE names. */
static void
add_plan(Effects *effects, PlannedStmt *statement, Plan *plan, Oid relid, List *ancestors)
{
	ModifyTable *node = (ModifyTable *) plan;
	Effects		own = {0};
	Index		target;
	Oid			named;

	if (plan == NULL || !IsA(plan, ModifyTable))
		return;
	own.inserts = node->operation == CMD_INSERT;
	own.moves = node->operation == CMD_UPDATE;
	if (node->operation == CMD_MERGE)
		add_actions(&own, node->mergeActionLists);
	target = node->rootRelation > 0 ? node->rootRelation : linitial_int(node->resultRelations);
	named = rt_fetch(target, statement->rtable)->relid;
	if (list_member_oid(ancestors, named))
		effects->moves |= own.moves;
	else if (named != relid)
		return;
	effects->inserts |= own.inserts;
}

static EoRowOrigin
origin_in(PlannedStmt *statement, Oid relid)
{
	List	   *ancestors = get_partition_ancestors(relid);
	Effects		effects = {0};
	ListCell   *lc;

	add_plan(&effects, statement, statement->planTree, relid, ancestors);
	foreach(lc, statement->subplans)
		add_plan(&effects, statement, lfirst(lc), relid, ancestors);
	list_free(ancestors);
	if (!effects.moves)
		return EO_ROW_NEW;
	return effects.inserts ? EO_ROW_UNKNOWN : EO_ROW_MOVED;
}

EoRowOrigin
eo_row_origin(const FmgrInfo *flinfo, Relation rel)
{
	if (!rel->rd_rel->relispartition)
		return EO_ROW_NEW;
	for (Mover *mover = movers; mover != NULL; mover = mover->next)
	{
		if (mover->context == flinfo->fn_mcxt)
			return origin_in(mover->statement, RelationGetRelid(rel));
	}
	return EO_ROW_NEW;
}

void
eo_row_movement_init(void)
{
	previous_hook = ExecutorStart_hook;
	ExecutorStart_hook = start_hook;
}
