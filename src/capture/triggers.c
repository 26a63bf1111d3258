/*
 * triggers.c
 *
 * The triggers that eo.capture() makes.
 *
 * Without a filter there are two, on rows and on TRUNCATE.  With one, the rows'
 * is one for each way in which a change can look through the filter: an update
 * may bring a row into it or out of it.
 *
 * PostgreSQL clones row triggers to partitions, but not those on TRUNCATE, and
 * none to tables that inherit.  So these get what they lack here, when the
 * parent is captured, and when they are created or attached (an event trigger).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "capture/triggers.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteManip.h"
#include "store/catalog.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

static void join_children(Oid relid);

static bool
is_ours(const Trigger *trigger)
{
	return trigger->tgfoid == eo_catalog_required()->capture_row &&
		strncmp(trigger->tgname, EO_CAPTURE_TRIGGER, strlen(EO_CAPTURE_TRIGGER)) == 0;
}

static Trigger *
find_trigger(Relation rel, const char *name)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		if (strcmp(rel->trigdesc->triggers[i].tgname, name) == 0)
			return &rel->trigdesc->triggers[i];
	}
	return NULL;
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
		EoCaptureSpec spec;

		if (!is_ours(trigger))
			continue;
		eo_capture_spec(&spec, trigger);
		*child = trigger->tgisclone || (spec.child && has_parent(rel));
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

/* The columns that were named as the key cannot be dropped while they are. */
static void
depend_on_key(Relation rel, const EoCaptureSpec *spec)
{
	ObjectAddress trigger;
	ObjectAddress column;
	ListCell   *lc;
	Oid			oid = get_trigger_oid(RelationGetRelid(rel), EO_CAPTURE_TRIGGER, true);

	if (!OidIsValid(oid))
		oid = get_trigger_oid(RelationGetRelid(rel), EO_CAPTURE_TRIGGER "_insert", false);
	ObjectAddressSet(trigger, TriggerRelationId, oid);
	foreach(lc, spec->key)
	{
		ObjectAddressSubSet(column, RelationRelationId, RelationGetRelid(rel),
							get_attnum(RelationGetRelid(rel), lfirst(lc)));
		recordDependencyOn(&trigger, &column, DEPENDENCY_NORMAL);
	}
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
	depend_on_key(rel, spec);
	join_children(RelationGetRelid(rel));
}

/*----------
 * Children
 *----------
 */

/* A copy of a parent's trigger, made as the extension's owner. */
static void
copy_trigger(Relation child, Relation parent, const Trigger *trigger)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	EoCaptureSpec spec;
	Node	   *condition = NULL;

	eo_capture_spec(&spec, trigger);
	stmt->trigname = pstrdup(trigger->tgname);
	for (int i = 0; i < trigger->tgnargs; i++)
		stmt->args = lappend(stmt->args, makeString(pstrdup(trigger->tgargs[i])));
	if (!spec.child)
		stmt->args = lappend(stmt->args, makeString("child=yes"));
	stmt->row = TRIGGER_FOR_ROW(trigger->tgtype);
	stmt->timing = trigger->tgtype & TRIGGER_TYPE_TIMING_MASK;
	stmt->events = trigger->tgtype & TRIGGER_TYPE_EVENT_MASK;
	if (trigger->tgqual != NULL)
	{
		condition = stringToNode(trigger->tgqual);
		condition = (Node *) map_partition_varattnos((List *) condition, PRS2_OLD_VARNO, child, parent);
		condition = (Node *) map_partition_varattnos((List *) condition, PRS2_NEW_VARNO, child, parent);
	}
	CreateTrigger(stmt, NULL, RelationGetRelid(child), InvalidOid, InvalidOid, InvalidOid,
				  trigger->tgfoid, InvalidOid, condition, false, false);
	CommandCounterIncrement();
}

/*
 * Gives a child what it lacks.  Partitions have clones of the row triggers
 * already.  Returns whether it lacks something; does nothing about it unless
 * `copy`, and then needs ShareRowExclusiveLock on it.
 */
static bool
copy_missing(Relation child, Relation parent, bool copy)
{
	bool		missing = false;

	for (int i = 0; parent->trigdesc != NULL && i < parent->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &parent->trigdesc->triggers[i];

		if (!is_ours(trigger) || find_trigger(child, trigger->tgname) != NULL ||
			(child->rd_rel->relispartition && TRIGGER_FOR_ROW(trigger->tgtype)))
			continue;
		if (copy)
			copy_trigger(child, parent, trigger);
		missing = true;
	}
	return missing;
}

static List *
parents_of(Oid relid)
{
	List	   *parents = NIL;
	Relation	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return parents;
}

static bool
join_one(Oid relid, Oid parentid, LOCKMODE lockmode)
{
	Relation	child = table_open(relid, lockmode);
	Relation	parent = table_open(parentid, AccessShareLock);
	bool		missing = false;

	if (child->rd_rel->relkind == RELKIND_RELATION || child->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		missing = copy_missing(child, parent, lockmode == ShareRowExclusiveLock);
	table_close(parent, NoLock);
	table_close(child, NoLock);
	return missing;
}

/* Those who have all that they need are not locked against writers. */
static void
join_parents(Oid relid)
{
	List	   *parents = parents_of(relid);
	EoOwnerScope scope;
	ListCell   *lc;

	foreach(lc, parents)
	{
		if (!join_one(relid, lfirst_oid(lc), AccessShareLock))
			continue;
		eo_enter_owner(&scope);
		(void) join_one(relid, lfirst_oid(lc), ShareRowExclusiveLock);
		eo_leave_owner(&scope);
	}
	list_free(parents);
}

static void
join_children(Oid relid)
{
	List	   *children = find_all_inheritors(relid, AccessShareLock, NULL);
	ListCell   *lc;

	foreach(lc, children)
	{
		if (lfirst_oid(lc) != relid)
			join_parents(lfirst_oid(lc));
	}
	list_free(children);
}

void
eo_capture_join(Oid relid)
{
	Relation	rel;
	bool		child;
	bool		captured;

	join_parents(relid);
	rel = table_open(relid, AccessShareLock);
	captured = eo_captured(rel, &child);
	table_close(rel, NoLock);
	if (captured)
		join_children(relid);
}

/*----------
 * Dropping
 *----------
 */

/* Clones go with what they were cloned from. */
static void
drop_triggers(Relation rel)
{
	List	   *names = NIL;
	ListCell   *lc;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (is_ours(trigger) && !trigger->tgisclone)
			names = lappend(names, pstrdup(trigger->tgname));
	}
	foreach(lc, names)
		execute(psprintf("DROP TRIGGER %s ON %s", quote_identifier(lfirst(lc)), table_name(rel)));
}

void
eo_capture_drop(Relation rel)
{
	List	   *children = find_all_inheritors(RelationGetRelid(rel), AccessExclusiveLock, NULL);
	EoOwnerScope scope;
	ListCell   *lc;

	SPI_connect();
	drop_triggers(rel);
	eo_enter_owner(&scope);
	foreach(lc, children)
	{
		Relation	child;

		if (lfirst_oid(lc) == RelationGetRelid(rel))
			continue;
		child = table_open(lfirst_oid(lc), NoLock);
		drop_triggers(child);
		table_close(child, NoLock);
	}
	eo_leave_owner(&scope);
	SPI_finish();
}
