/*
 * triggers.c
 *
 * The triggers that eo.capture() makes.
 *
 * Without a filter there are two, on rows and on TRUNCATE.  With one, the rows'
 * is one for each way in which a change can look through the filter: an update
 * may bring a row into it or out of it.  Tables that inherit get copies
 * (capture/children.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "capture/triggers.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "store/catalog.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

bool
eo_capture_is_ours(const Trigger *trigger)
{
	return trigger->tgfoid == eo_catalog_required()->capture_row &&
		strncmp(trigger->tgname, EO_CAPTURE_TRIGGER, strlen(EO_CAPTURE_TRIGGER)) == 0;
}

/* Made for a parent of the table */
static bool
is_of_parent(const Trigger *trigger)
{
	EoCaptureSpec spec;

	eo_capture_spec(&spec, trigger);
	return spec.child;
}

static bool
has_parent(Relation rel)
{
	return rel->rd_rel->relispartition || has_superclass(RelationGetRelid(rel));
}

bool
eo_captured(Relation rel, bool *child)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (!eo_capture_is_ours(trigger))
			continue;
		*child = trigger->tgisclone || (is_of_parent(trigger) && has_parent(rel));
		return true;
	}
	return false;
}

static void
execute(const char *command)
{
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not execute \"%s\"", command);
}

static const char *
table_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/*----------
 * The row filter
 *----------
 */

static void
refuse_filter(const char *when)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("when_clause must be an expression: \"%s\"", when),
			 errhint("For example: when_clause => 'status <> ''draft'''.")));
}

/* The expression that a text holds, and nothing else */
static Node *
parse_filter(const char *when)
{
	List	   *parsed = raw_parser(when, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select;

	if (list_length(parsed) != 1)
		refuse_filter(when);
	select = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;
	if (!IsA(select, SelectStmt) || list_length(select->targetList) != 1 ||
		select->op != SETOP_NONE || select->distinctClause || select->intoClause ||
		select->fromClause || select->whereClause || select->groupClause ||
		select->havingClause || select->windowClause || select->valuesLists ||
		select->sortClause || select->limitOffset || select->limitCount ||
		select->lockingClause || select->withClause ||
		linitial_node(ResTarget, select->targetList)->name != NULL)
		refuse_filter(when);
	return linitial_node(ResTarget, select->targetList)->val;
}

static Node *
transform_filter(Relation rel, const char *when)
{
	ParseState *state = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node	   *condition;

	state->p_sourcetext = when;
	item = addRangeTableEntryForRelation(state, rel, AccessShareLock, NULL, false, false);
	addNSItemToQuery(state, item, false, true, true);
	condition = transformExpr(state, parse_filter(when), EXPR_KIND_TRIGGER_WHEN);
	condition = coerce_to_boolean(state, condition, "when_clause");
	assign_expr_collations(state, condition);
	free_parsestate(state);
	return condition;
}

/* The filter as it is to be written for one side of a change. */
static char *
filter_of(Relation rel, Node *condition, const char *side)
{
	List	   *context = deparse_context_for(side, RelationGetRelid(rel));

	return deparse_expression(condition, context, true, false);
}

/*----------
 * Creating
 *----------
 */

static void
create_trigger(Relation rel, const EoCaptureSpec *spec, const char *suffix, const char *event,
			   const char *when)
{
	execute(psprintf("CREATE TRIGGER %s%s %s ON %s FOR EACH %s%s EXECUTE FUNCTION eo.capture_row(%s)",
					 EO_CAPTURE_TRIGGER, suffix, event, table_name(rel),
					 strcmp(event, "BEFORE TRUNCATE") == 0 ? "STATEMENT" : "ROW",
					 when ? psprintf(" WHEN (%s)", when) : "",
					 eo_capture_spec_sql(spec)));
}

static void
create_filtered(Relation rel, const EoCaptureSpec *spec, const char *when)
{
	Node	   *condition = transform_filter(rel, when);
	char	   *was = filter_of(rel, condition, "old");
	char	   *is = filter_of(rel, condition, "new");
	EoCaptureSpec as = *spec;

	create_trigger(rel, spec, "_insert", "AFTER INSERT", is);
	create_trigger(rel, spec, "_delete", "AFTER DELETE", was);
	create_trigger(rel, spec, "_update", "AFTER UPDATE", psprintf("(%s) AND (%s)", was, is));
	as.as_given = true;
	as.as = EO_OP_INSERTED;
	create_trigger(rel, &as, "_enter", "AFTER UPDATE",
				   psprintf("(%s) IS NOT TRUE AND (%s)", was, is));
	as.as = EO_OP_DELETED;
	create_trigger(rel, &as, "_leave", "AFTER UPDATE",
				   psprintf("(%s) AND (%s) IS NOT TRUE", was, is));
}

void
eo_capture_create(Relation rel, const EoCaptureSpec *spec, const char *when)
{
	SPI_connect();
	if (when != NULL)
		create_filtered(rel, spec, when);
	else
		create_trigger(rel, spec, "", "AFTER INSERT OR UPDATE OR DELETE", NULL);
	create_trigger(rel, spec, "_truncate", "BEFORE TRUNCATE", NULL);
	SPI_finish();
	CommandCounterIncrement();
	eo_capture_join_children(RelationGetRelid(rel));
}

/*----------
 * Dropping
 *----------
 */

void
eo_capture_drop_triggers(Relation rel, bool only_of_parents)
{
	List	   *oids = NIL;
	ListCell   *lc;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		/* Clones go with what they were cloned from. */
		if (eo_capture_is_ours(trigger) && !trigger->tgisclone &&
			(!only_of_parents || is_of_parent(trigger)))
			oids = lappend_oid(oids, trigger->tgoid);
	}
	foreach(lc, oids)
	{
		ObjectAddress address;

		ObjectAddressSet(address, TriggerRelationId, lfirst_oid(lc));
		performDeletion(&address, DROP_RESTRICT, 0);
	}
	list_free(oids);
}

void
eo_capture_drop(Relation rel)
{
	eo_capture_drop_triggers(rel, false);
	CommandCounterIncrement();
	eo_capture_leave_children(RelationGetRelid(rel));
}
