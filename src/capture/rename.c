/*
 * rename.c
 *
 * Keeps the arguments of capture triggers right when a column is renamed.
 *
 * They name columns, since numbers would not survive a dump.  PostgreSQL tells
 * about ALTER TABLE ... RENAME COLUMN when it has written the new name, but
 * before it shows: the caches still have the old one.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "capture/triggers.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "lib/stringinfo.h"
#include "store/catalog.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static object_access_hook_type previous_hook = NULL;

/* The name of a column as the current command has left it; NULL: it is gone. */
static char *
new_name(Oid relid, AttrNumber attnum)
{
	Relation	attributes = table_open(AttributeRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *name = NULL;

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber, F_INT2EQ,
				Int16GetDatum(attnum));
	scan = systable_beginscan(attributes, AttributeRelidNumIndexId, true, SnapshotSelf, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		name = pstrdup(NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname));
	systable_endscan(scan);
	table_close(attributes, AccessShareLock);
	return name;
}

/* An argument with the column renamed; NULL: it does not name it. */
static char *
rename_in_argument(const char *argument, const char *old, const char *new)
{
	const char *equals = strchr(argument, '=');
	List	   *names;
	ListCell   *lc;
	bool		changed = false;
	bool		is_list = false;

	for (int i = 0; equals != NULL && eo_capture_lists[i] != NULL; i++)
		is_list |= strlen(eo_capture_lists[i]) == equals - argument &&
			strncmp(eo_capture_lists[i], argument, equals - argument) == 0;
	if (!is_list)
		return NULL;
	names = eo_capture_split_names(equals + 1);
	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), old) == 0)
		{
			lfirst(lc) = pstrdup(new);
			changed = true;
		}
	}
	if (!changed)
		return NULL;
	return psprintf("%.*s=%s", (int) (equals - argument), argument, eo_capture_names(names));
}

/* All arguments, each with the zero byte at its end; NULL: none names it. */
static bytea *
rename_in_arguments(bytea *arguments, int nargs, const char *old, const char *new)
{
	const char *argument = VARDATA_ANY(arguments);
	StringInfoData out;
	bool		changed = false;

	initStringInfo(&out);
	for (int i = 0; i < nargs; i++)
	{
		char	   *renamed = rename_in_argument(argument, old, new);

		appendBinaryStringInfo(&out, renamed ? renamed : argument,
							   strlen(renamed ? renamed : argument) + 1);
		changed |= renamed != NULL;
		argument += strlen(argument) + 1;
	}
	return changed ? (bytea *) cstring_to_text_with_len(out.data, out.len) : NULL;
}

static void
rename_in_trigger(Relation triggers, HeapTuple tuple, const char *old, const char *new)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	Datum		values[Natts_pg_trigger] = {0};
	bool		nulls[Natts_pg_trigger] = {0};
	bool		replaces[Natts_pg_trigger] = {0};
	bool		isnull;
	Datum		arguments = heap_getattr(tuple, Anum_pg_trigger_tgargs, RelationGetDescr(triggers), &isnull);
	bytea	   *renamed;

	if (isnull)
		return;
	renamed = rename_in_arguments(DatumGetByteaPP(arguments), form->tgnargs, old, new);
	if (renamed == NULL)
		return;
	values[Anum_pg_trigger_tgargs - 1] = PointerGetDatum(renamed);
	replaces[Anum_pg_trigger_tgargs - 1] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(triggers), values, nulls, replaces);
	CatalogTupleUpdate(triggers, &tuple->t_self, tuple);
}

static void
rename_column(Oid relid, const char *old, const char *new)
{
	Relation	triggers = table_open(TriggerRelationId, RowExclusiveLock);
	Oid			function = eo_catalog_required()->capture_row;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid == function)
			rename_in_trigger(triggers, tuple, old, new);
	}
	systable_endscan(scan);
	table_close(triggers, RowExclusiveLock);
}

static void
access_hook(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	char	   *old;
	char	   *new;

	if (previous_hook)
		previous_hook(access, classid, objectid, subid, arg);
	if (access != OAT_POST_ALTER || classid != RelationRelationId || subid <= 0 ||
		eo_catalog() == NULL)
		return;
	old = get_attname(objectid, subid, true);
	new = new_name(objectid, subid);
	if (old != NULL && new != NULL && strcmp(old, new) != 0)
		rename_column(objectid, old, new);
}

void
eo_capture_rename_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = access_hook;
}
