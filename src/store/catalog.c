/*
 * catalog.c
 *
 * Finds the extension's own objects, and caches their OIDs per backend.
 *
 * The cache is dropped when any relation of the extension is dropped or
 * altered, which covers DROP EXTENSION and a later CREATE EXTENSION.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "store/catalog.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static EoCatalog cached;
static bool cache_valid = false;
static bool callback_registered = false;

static void
forget(Datum arg, Oid relid)
{
	if (!cache_valid)
		return;
	if (relid == InvalidOid)
		cache_valid = false;
	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		if (cached.log[i] == relid)
			cache_valid = false;
	}
}

/* The owner of an extension; InvalidOid if it has just gone. */
static Oid
extension_owner(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return owner;
}

/* One without arguments */
static Oid
find_function(const char *name, Oid schema)
{
	oidvector  *no_arguments = buildoidvector(NULL, 0);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(no_arguments), ObjectIdGetDatum(schema));
}

const EoCatalog *
eo_catalog(void)
{
	EoCatalog	found;

	if (cache_valid)
		return &cached;
	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
		callback_registered = true;
	}

	found.extension = get_extension_oid("eo_outbox", true);
	if (!OidIsValid(found.extension))
		return NULL;
	found.schema = get_namespace_oid("eo", true);
	found.owner = extension_owner(found.extension);
	if (!OidIsValid(found.schema) || !OidIsValid(found.owner))
		return NULL;
	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		char		name[NAMEDATALEN];

		snprintf(name, sizeof(name), "log_%d", i);
		found.log[i] = get_relname_relid(name, found.schema);
		if (!OidIsValid(found.log[i]))
			return NULL;
	}
	found.capture_row = find_function("capture_row", found.schema);
	cached = found;
	cache_valid = true;
	return &cached;
}

const EoCatalog *
eo_catalog_required(void)
{
	const EoCatalog *catalog = eo_catalog();

	if (catalog == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"eo_outbox\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION eo_outbox.")));
	return catalog;
}

void
eo_enter_owner(EoOwnerScope *scope)
{
	const EoCatalog *catalog = eo_catalog_required();

	GetUserIdAndSecContext(&scope->user, &scope->context);
	SetUserIdAndSecContext(catalog->owner,
						   scope->context | SECURITY_LOCAL_USERID_CHANGE);
	scope->nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

void
eo_leave_owner(EoOwnerScope *scope)
{
	AtEOXact_GUC(true, scope->nestlevel);
	SetUserIdAndSecContext(scope->user, scope->context);
}
