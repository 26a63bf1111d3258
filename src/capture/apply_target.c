/*
 * apply_target.c
 *
 * What is known of the tables that changes are applied to: their keys and
 * columns, and statements that were prepared for them.  Cached per backend, and
 * dropped when the table changes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "capture/applied.h"
#include "capture/apply_target.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "output.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static EoTarget *targets = NULL;

/*----------
 * Cache
 *----------
 */

static void
forget_relation(Datum arg, Oid relid)
{
	for (EoTarget *target = targets; target != NULL; target = target->next)
	{
		if (relid == InvalidOid || target->relid == relid || target->fragile)
			target->valid = false;
	}
}

/* A schema or an operator that a statement names was renamed or moved. */
static void
forget_all(Datum arg, int cacheid, uint32 hash)
{
	forget_relation(arg, InvalidOid);
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_all, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, forget_all, (Datum) 0);
	registered = true;
}

static void
drop_plan(SPIPlanPtr plan)
{
	if (plan != NULL)
		(void) SPI_freeplan(plan);
}

static void
drop_target(EoTarget *target)
{
	drop_plan(target->find);
	drop_plan(target->delete);
	for (EoTargetWriter *writer = target->writers; writer != NULL; writer = writer->next)
	{
		drop_plan(writer->insert);
		drop_plan(writer->update);
	}
	MemoryContextDelete(target->context);
}

/* Finds a target; drops those that are no longer valid and not in use. */
static EoTarget *
find_cached(Oid relid)
{
	EoTarget  **link = &targets;
	EoTarget   *found = NULL;

	while (*link != NULL)
	{
		EoTarget   *target = *link;

		if (!(target->valid && target->complete) && target->users == 0)
		{
			*link = target->next;
			drop_target(target);
			continue;
		}
		if (target->valid && target->relid == relid)
			found = target;
		link = &target->next;
	}
	return found;
}

/*----------
 * Keys and columns
 *----------
 */

static bool
is_key(Relation rel, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || !form->indislive || form->indisexclusion ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL))
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attnum = form->indkey.values[i];

		if (attnum <= 0 || !EoIsNotNull(RelationGetDescr(rel), attnum))
			return false;
	}
	return true;
}

/* The primary key, or else the replica identity, or else any unique index. */
static Oid
choose_key(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			chosen = InvalidOid;
	bool		without_overlaps = false;
	int			rank = 0;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		int			merit = index->rd_index->indisprimary ? 3 :
			index->rd_index->indisreplident ? 2 : 1;

		if (merit > rank && is_key(rel, index))
		{
			chosen = lfirst_oid(lc);
			rank = merit;
		}
		without_overlaps |= index->rd_index->indisunique && index->rd_index->indisexclusion;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (!OidIsValid(chosen))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no key", RelationGetRelationName(rel)),
				 without_overlaps ? errdetail("A key WITHOUT OVERLAPS is not one to find rows by.") : 0,
				 errhint("Add a primary key, or a unique index on columns that are not null.")));
	return chosen;
}

/*
 * Whether what is cached about a type's input may go out of date: composite
 * types can be altered while columns use them.
 */
static bool
is_fragile(Oid type)
{
	for (;;)
	{
		Oid			element;

		type = getBaseType(type);
		element = get_element_type(type);
		if (!OidIsValid(element))
			return type_is_rowtype(type);
		type = element;
	}
}

/* Whether the text of a value depends on settings, or may do so. */
static bool
needs_pin(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case BPCHAROID:
		case CHAROID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NAMEOID:
		case OIDOID:
		case TEXTOID:
		case UUIDOID:
		case VARCHAROID:
			return false;
		default:
			return !type_is_enum(type);
	}
}

static const char *
qualified_operator(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

static void
describe_column(EoTarget *target, Form_pg_attribute att)
{
	EoTargetColumn *column = &target->columns[target->ncolumns];

	column->name = pstrdup(NameStr(att->attname));
	column->quoted = pstrdup(quote_identifier(column->name));
	column->type = att->atttypid;
	column->base_type = getBaseType(att->atttypid);
	column->generated = att->attgenerated != '\0';
	column->identity = att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS;
	target->types[target->ncolumns] = att->atttypid;
	target->fragile |= is_fragile(att->atttypid);
	target->money |= (eo_output_needs(att->atttypid) & EO_OUTPUT_MONEY) != 0;
	target->ncolumns++;
}

static void
describe_key(EoTarget *target, Relation index, int i)
{
	EoTargetColumn *column = &target->columns[i];
	Oid			family = index->rd_opfamily[i];
	Oid			type = index->rd_opcintype[i];
	Oid			operator = get_opfamily_member(family, type, type, BTEqualStrategyNumber);
	Oid			output;
	bool		varlena;

	if (!OidIsValid(operator))
		elog(ERROR, "no equality operator for column \"%s\"", column->name);
	column->equals = qualified_operator(operator);
	getTypeOutputInfo(column->type, &output, &varlena);
	fmgr_info_cxt(output, &column->output, target->context);
	column->pin = needs_pin(column->base_type);
}

/* The columns of the key in its order, then the others that can be written. */
static void
describe_columns(EoTarget *target, Relation rel, Relation index)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *key = NULL;

	target->nkeys = index->rd_index->indnkeyatts;
	target->columns = palloc0(sizeof(EoTargetColumn) * desc->natts);
	target->types = palloc0(sizeof(Oid) * desc->natts);
	for (int i = 0; i < target->nkeys; i++)
	{
		AttrNumber	attnum = index->rd_index->indkey.values[i];

		key = bms_add_member(key, attnum);
		describe_column(target, TupleDescAttr(desc, attnum - 1));
		describe_key(target, index, i);
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->attgenerated == '\0' && !bms_is_member(i + 1, key))
			describe_column(target, att);
	}
}

/* Gets jsonb_populate_record() ready for records of the columns. */
static void
prepare_conversion(EoTarget *target, Relation rel)
{
	TupleDesc	from = RelationGetDescr(rel);
	TupleDesc	desc = CreateTemplateTupleDesc(target->ncolumns);
	Datum	   *values = palloc0(sizeof(Datum) * target->ncolumns);
	bool	   *nulls = palloc(sizeof(bool) * target->ncolumns);
	Node	   *record;

	memset(nulls, true, sizeof(bool) * target->ncolumns);
	for (int i = 0; i < target->ncolumns; i++)
	{
		EoTargetColumn *column = &target->columns[i];
		Form_pg_attribute att = TupleDescAttr(from, get_attnum(target->relid, column->name) - 1);

		TupleDescInitEntry(desc, i + 1, column->name, att->atttypid, att->atttypmod, att->attndims);
		TupleDescInitEntryCollation(desc, i + 1, att->attcollation);
	}
	target->desc = BlessTupleDesc(desc);
	target->empty = heap_copy_tuple_as_datum(heap_form_tuple(desc, values, nulls), desc);

	record = (Node *) makeNullConst(RECORDOID, -1, InvalidOid);
	fmgr_info_cxt(F_JSONB_POPULATE_RECORD, &target->populate, target->context);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD, RECORDOID,
											 list_make2(record, makeNullConst(JSONBOID, -1, InvalidOid)),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   &target->populate);
}

/* It is in the list before anything is read, so that no change is missed. */
static EoTarget *
make_target(Relation rel)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "eo_outbox target",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	EoTarget   *target = palloc0(sizeof(EoTarget));
	Relation	index;

	target->relid = RelationGetRelid(rel);
	target->context = context;
	target->valid = true;
	target->next = targets;
	targets = target;

	index = index_open(choose_key(rel), AccessShareLock);
	target->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											  RelationGetRelationName(rel));
	target->only = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? target->name :
		psprintf("ONLY %s", target->name);
	target->arbiter = index->rd_index->indimmediate;
	describe_columns(target, rel, index);
	prepare_conversion(target, rel);
	index_close(index, AccessShareLock);
	MemoryContextSwitchTo(old);
	eo_applied_meet(target->relid);
	target->complete = true;
	return target;
}

void
eo_target_check_privileges(Oid relid)
{
	const AclMode needed[] = {ACL_SELECT, ACL_INSERT, ACL_UPDATE, ACL_DELETE};
	const char *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table with OID %u does not exist", relid)));
	for (int i = 0; i < lengthof(needed); i++)
	{
		AclResult	result = pg_class_aclcheck(relid, GetUserId(), needed[i]);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLE, name);
	}
}

EoTarget *
eo_target_acquire(Relation rel)
{
	EoTarget   *target;

	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel))));
	register_callbacks();
	target = find_cached(RelationGetRelid(rel));
	if (target == NULL)
		target = make_target(rel);
	target->users++;
	return target;
}

void
eo_target_release(EoTarget *target)
{
	target->users--;
}
