/*
 * children.c
 *
 * Partitions of captured tables, and tables that inherit from them.
 *
 * PostgreSQL clones row triggers to partitions, but not those on TRUNCATE, and
 * none to tables that inherit.  So these get copies of what they lack when the
 * parent is captured, and when they are created or attached (an event trigger).
 * They lose them again when they are detached.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "capture/shape.h"
#include "capture/triggers.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "rewrite/prs2lock.h"
#include "store/catalog.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*----------
 * Copies
 *----------
 */

/* Those of the parent's; and the key, for which the child may have no index. */
static List *
copy_arguments(Relation parent, const Trigger *trigger)
{
	List	   *arguments = NIL;
	EoCaptureSpec spec;

	eo_capture_spec(&spec, trigger);
	for (int i = 0; i < trigger->tgnargs; i++)
		arguments = lappend(arguments, makeString(pstrdup(trigger->tgargs[i])));
	if (spec.key == NIL)
		arguments = lappend(arguments,
							makeString(psprintf("key=%s", eo_capture_names(eo_shape_key(parent, &spec)))));
	if (!spec.child)
		arguments = lappend(arguments, makeString("child=yes"));
	return arguments;
}

/* A copy of a parent's trigger, made as the extension's owner. */
static void
copy_trigger(Relation child, Relation parent, const Trigger *trigger)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);
	Node	   *condition = NULL;

	stmt->trigname = pstrdup(trigger->tgname);
	stmt->args = copy_arguments(parent, trigger);
	stmt->row = TRIGGER_FOR_ROW(trigger->tgtype);
	stmt->timing = trigger->tgtype & TRIGGER_TYPE_TIMING_MASK;
	stmt->events = trigger->tgtype & TRIGGER_TYPE_EVENT_MASK;
	if (trigger->tgqual != NULL)
	{
		condition = stringToNode(trigger->tgqual);
		condition = (Node *) map_partition_varattnos((List *) condition, PRS2_OLD_VARNO, child, parent);
		condition = (Node *) map_partition_varattnos((List *) condition, PRS2_NEW_VARNO, child, parent);
	}
	CreateTriggerFiringOn(stmt, NULL, RelationGetRelid(child), InvalidOid, InvalidOid, InvalidOid,
						  trigger->tgfoid, InvalidOid, condition, false, false, trigger->tgenabled);
	CommandCounterIncrement();
}

static bool
has_trigger(Relation rel, const char *name)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		if (strcmp(rel->trigdesc->triggers[i].tgname, name) == 0)
			return true;
	}
	return false;
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

		if (!eo_capture_is_ours(trigger) || has_trigger(child, trigger->tgname) ||
			(child->rd_rel->relispartition && TRIGGER_FOR_ROW(trigger->tgtype)))
			continue;
		if (copy)
			copy_trigger(child, parent, trigger);
		missing = true;
	}
	return missing;
}

/*----------
 * Joining
 *----------
 */

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

/* Rows of temporary tables go away without any event. */
static bool
can_join(Relation child)
{
	return (child->rd_rel->relkind == RELKIND_RELATION ||
			child->rd_rel->relkind == RELKIND_PARTITIONED_TABLE) &&
		child->rd_rel->relpersistence != RELPERSISTENCE_TEMP;
}

static bool
join_one(Oid relid, Oid parentid, LOCKMODE lockmode)
{
	Relation	child = table_open(relid, lockmode);
	Relation	parent = table_open(parentid, AccessShareLock);
	bool		missing = false;

	if (can_join(child))
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

void
eo_capture_join_children(Oid relid)
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
		eo_capture_join_children(relid);
}

/*----------
 * Leaving
 *----------
 */

/* They may have other captured parents. */
static void
leave(List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessExclusiveLock);

		eo_capture_drop_triggers(rel, true);
		table_close(rel, NoLock);
	}
	CommandCounterIncrement();
	foreach(lc, tables)
		join_parents(lfirst_oid(lc));
}

void
eo_capture_leave_children(Oid relid)
{
	List	   *tables = find_all_inheritors(relid, AccessExclusiveLock, NULL);

	leave(list_delete_oid(tables, relid));
}

void
eo_capture_leave(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		child;
	bool		captured = eo_captured(rel, &child);

	table_close(rel, NoLock);
	if (captured)
		leave(find_all_inheritors(relid, AccessExclusiveLock, NULL));
}

/*----------
 * Columns
 *----------
 */

static void
check_key_of(Relation rel, const Trigger *trigger)
{
	EoCaptureSpec spec;
	ListCell   *lc;

	eo_capture_spec(&spec, trigger);
	foreach(lc, spec.key)
	{
		if (get_attnum(RelationGetRelid(rel), lfirst(lc)) == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop column \"%s\" of table \"%s\", which is captured under this key",
							(char *) lfirst(lc), RelationGetRelationName(rel)),
					 errhint("Use eo.uncapture() before, and eo.capture() with another key after it, in one transaction.")));
	}
}

/* Other columns that a capture names may go; so may the key of one by hand. */
void
eo_capture_check_key(Oid relid)
{
	List	   *tables = find_all_inheritors(relid, NoLock, NULL);
	ListCell   *lc;

	foreach(lc, tables)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		{
			if (eo_capture_is_ours(&rel->trigdesc->triggers[i]))
				check_key_of(rel, &rel->trigdesc->triggers[i]);
		}
		table_close(rel, NoLock);
	}
	list_free(tables);
}
