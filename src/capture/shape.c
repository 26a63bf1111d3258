/*
 * shape.c
 *
 * What a capture trigger does to a table as the table is now.
 *
 * Shapes are cached by trigger, and made anew when PostgreSQL says that the
 * table has changed, or that a schema was renamed, or that there is a new cast,
 * which may lead to JSON.  Since somebody up the stack may still use what is
 * thrown away, that is kept until the end of the transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "capture/shape.h"
#include "catalog/partition.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "txn/produce.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

typedef struct CacheEntry
{
	Oid			trigger;		/* hash key */
	EoShape    *shape;
} CacheEntry;

static HTAB *shapes = NULL;

/* How often PostgreSQL has said that something has changed */
static uint64 changes = 0;

/*----------
 * Columns
 *----------
 */

static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute->attnum;
	}
	return InvalidAttrNumber;
}

static AttrNumber
required_column(Relation rel, const char *name)
{
	AttrNumber	attnum = find_column(RelationGetDescr(rel), name);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of captured table \"%s\" does not exist", name, RelationGetRelationName(rel)),
				 errhint("If it was dropped, use eo.uncapture() and eo.capture() again, in one transaction.")));
	return attnum;
}

/* Those of a list that there are */
static Bitmapset *
listed_columns(TupleDesc desc, List *names)
{
	Bitmapset  *columns = NULL;
	ListCell   *lc;

	foreach(lc, names)
	{
		AttrNumber	attnum = find_column(desc, lfirst(lc));

		if (attnum != InvalidAttrNumber)
			columns = bms_add_member(columns, attnum);
	}
	return columns;
}

/* All that are captured: those of the key always are. */
static Bitmapset *
captured_columns(Relation rel, const EoCaptureSpec *spec, int nkeys, const AttrNumber *keys)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *columns = listed_columns(desc, spec->columns);
	Bitmapset  *excluded = listed_columns(desc, spec->exclude);

	for (int i = 0; spec->columns == NIL && i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && !bms_is_member(i + 1, excluded))
			columns = bms_add_member(columns, i + 1);
	}
	for (int i = 0; i < nkeys; i++)
		columns = bms_add_member(columns, keys[i]);
	return columns;
}

/*----------
 * The key
 *----------
 */

/* Whether rows have one value of the columns of this index, and it is theirs. */
static bool
is_row_key(Relation rel, Form_pg_index index, HeapTuple tuple)
{
	if (!index->indisunique || !index->indisvalid || !index->indimmediate ||
		!heap_attisnull(tuple, Anum_pg_index_indpred, NULL) ||
		!heap_attisnull(tuple, Anum_pg_index_indexprs, NULL))
		return false;
	for (int i = 0; i < index->indnkeyatts; i++)
	{
		AttrNumber	attnum = index->indkey.values[i];

		if (attnum <= 0 || !EoIsNotNull(RelationGetDescr(rel), attnum))
			return false;
	}
	return true;
}

/*
 * The primary key, even a deferrable one, else a unique index of columns that
 * are not null.
 */
static int
default_key(Relation rel, AttrNumber *keys)
{
	List	   *indexes = RelationGetIndexList(rel);
	int			nkeys = 0;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisprimary || (nkeys == 0 && is_row_key(rel, index, tuple)))
		{
			nkeys = index->indnkeyatts;
			memcpy(keys, index->indkey.values, sizeof(AttrNumber) * nkeys);
		}
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return nkeys;
}

/* Whether a unique index is not enforced row by row; it may be that of the key. */
static bool
has_deferrable_key(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			continue;
		found |= ((Form_pg_index) GETSTRUCT(tuple))->indisunique &&
			!((Form_pg_index) GETSTRUCT(tuple))->indimmediate;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return found;
}

static int
find_key(Relation rel, const EoCaptureSpec *spec, AttrNumber *keys)
{
	int			nkeys = 0;
	ListCell   *lc;

	if (list_length(spec->key) > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("the key of a capture cannot have more than %d columns", INDEX_MAX_KEYS)));
	foreach(lc, spec->key)
		keys[nkeys++] = required_column(rel, lfirst(lc));
	if (nkeys == 0)
		nkeys = default_key(rel, keys);
	if (nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("captured table \"%s\" has no key", RelationGetRelationName(rel)),
				 errdetail("It has no primary key and no unique index of columns that are not null."),
				 errhint("Add a primary key, or name the columns that tell its rows apart: eo.capture(..., key_columns => '{...}').")));
	return nkeys;
}

/* Those whose values are told, should they have to be computed. */
static Bitmapset *
computed_columns(const EoShape *shape)
{
	Bitmapset  *columns = NULL;

	if (shape->spec.format != EO_FORMAT_DEBEZIUM)
		return shape->columns;

	/* which leaves generated columns out, unless they are of the key */
	for (int i = 0; i < shape->nkeys; i++)
		columns = bms_add_member(columns, shape->keys[i]);
	return columns;
}

/*----------
 * The topic
 *----------
 */

/* Rows of a partition are those of the table that it is a part of. */
static Oid
root_of(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	return rel->rd_rel->relispartition ? llast_oid(get_partition_ancestors(relid)) : relid;
}

char *
eo_shape_default_topic(Relation rel)
{
	Oid			relid = root_of(rel);

	return psprintf("%s.%s", get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

/*----------
 * Checking
 *----------
 */

/* What does not depend on the table; also of triggers that were made by hand. */
static void
check_spec(const EoCaptureSpec *spec, const char *topic)
{
	ListCell   *lc;

	eo_produce_check_name("topic", cstring_to_text(topic), EO_TOPIC_MAX);
	eo_produce_check_name("type prefix", cstring_to_text(spec->type_prefix ? spec->type_prefix : topic),
						  EO_TYPE_MAX - (int) strlen(".truncated"));
	foreach(lc, spec->key)
	{
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			if (strcmp(list_nth(spec->key, i), lfirst(lc)) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("the key of a capture has column \"%s\" twice", (char *) lfirst(lc))));
		}
	}
	if (spec->columns != NIL && spec->exclude != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a capture cannot both choose columns and exclude some"),
				 errhint("Give one of the two.")));
	if (spec->format == EO_FORMAT_DEBEZIUM && spec->mode == EO_MODE_DELTA)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the debezium format has no deltas"),
				 errdetail("Its events have the rows before and after the change."),
				 errhint("Use mode fact or changelog, or the plain format.")));
}

static void
check_columns(Relation rel, const EoCaptureSpec *spec, int nkeys, const AttrNumber *keys)
{
	ListCell   *lc;

	foreach(lc, spec->columns)
		(void) required_column(rel, lfirst(lc));
	foreach(lc, spec->exclude)
	{
		AttrNumber	attnum = required_column(rel, lfirst(lc));

		for (int i = 0; i < nkeys; i++)
		{
			if (keys[i] == attnum)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("column \"%s\" cannot be excluded, for it belongs to the key", (char *) lfirst(lc)),
						 errhint("Name another key, or keep the column.")));
		}
	}
}

/* Children need not have the indexes of their parent, or may have better ones. */
static List *
key_names(Relation rel, int nkeys, const AttrNumber *keys)
{
	List	   *names = NIL;

	for (int i = 0; i < nkeys; i++)
		names = lappend(names, pstrdup(NameStr(TupleDescAttr(RelationGetDescr(rel), keys[i] - 1)->attname)));
	return names;
}

List *
eo_shape_key(Relation rel, const EoCaptureSpec *spec)
{
	AttrNumber	keys[INDEX_MAX_KEYS];
	int			nkeys = find_key(rel, spec, keys);

	return key_names(rel, nkeys, keys);
}

void
eo_shape_check(Relation rel, EoCaptureSpec *spec)
{
	AttrNumber	keys[INDEX_MAX_KEYS];
	int			nkeys;

	if (spec->topic == NULL)
		spec->topic = eo_shape_default_topic(rel);
	check_spec(spec, spec->topic);
	nkeys = find_key(rel, spec, keys);
	check_columns(rel, spec, nkeys, keys);
	if (spec->key == NIL && (rel->rd_rel->relhassubclass || rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE))
		spec->key = key_names(rel, nkeys, keys);
}

/*----------
 * Shapes
 *----------
 */

static EoDebezium *
debezium_encoder(EoShape *shape, const char *topic)
{
	EoDebeziumTable table = {
		.desc = shape->desc,
		.columns = shape->columns,
		.nkeys = shape->nkeys,
		.keys = shape->keys,
		.schema = get_namespace_name(get_rel_namespace(shape->root)),
		.table = get_rel_name(shape->root),
		.topic = topic
	};

	return eo_debezium_make(&table);
}

static void
fill_shape(EoShape *shape, Relation rel)
{
	EoCaptureSpec *spec = &shape->spec;
	char	   *topic = spec->topic ? spec->topic : eo_shape_default_topic(rel);

	check_spec(spec, topic);
	shape->relid = RelationGetRelid(rel);
	shape->root = root_of(rel);
	shape->table = psprintf("%s.%s", get_namespace_name(RelationGetNamespace(rel)),
							RelationGetRelationName(rel));
	shape->topic = cstring_to_text(topic);
	for (int op = 0; op < EO_CAPTURE_OPS; op++)
		shape->types[op] = cstring_to_text(psprintf("%s.%s", spec->type_prefix ? spec->type_prefix : topic,
													eo_capture_ops[op]));
	shape->inert = spec->child && !rel->rd_rel->relispartition && !has_superclass(RelationGetRelid(rel));
	shape->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	shape->nkeys = find_key(rel, spec, shape->keys);
	shape->exchanges = has_deferrable_key(rel);
	shape->columns = captured_columns(rel, spec, shape->nkeys, shape->keys);
	shape->virtual = eo_virtual_make(rel, shape->desc, computed_columns(shape));
	shape->encoder = eo_row_encoder(shape->desc, shape->columns);
	if (spec->format == EO_FORMAT_DEBEZIUM)
		shape->debezium = debezium_encoder(shape, topic);
}

static void
forget_relation(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	CacheEntry *entry;

	changes++;
	hash_seq_init(&status, shapes);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		EoShape    *shape = entry->shape;

		if (relid == InvalidOid || shape->relid == relid || shape->root == relid)
			shape->valid = false;
	}
}

static void
forget_all(Datum arg, int cacheid, uint32 hash)
{
	forget_relation(arg, InvalidOid);
}

static void
make_cache(void)
{
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(CacheEntry),
		.hcxt = CacheMemoryContext
	};

	shapes = hash_create("eo_outbox captures", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(CASTSOURCETARGET, forget_all, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_all, (Datum) 0);
}

/* Those of tables that are gone, too. */
static void
throw_invalid_away(void)
{
	HASH_SEQ_STATUS status;
	CacheEntry *entry;

	hash_seq_init(&status, shapes);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->shape->valid)
			continue;
		MemoryContextSetParent(entry->shape->context, TopTransactionContext);
		hash_search(shapes, &entry->trigger, HASH_REMOVE, NULL);
	}
}

static EoShape *
make_shape(Relation rel, const Trigger *trigger)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eo_outbox capture",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	EoShape    *shape = palloc0(sizeof(EoShape));
	uint64		changes_before = changes;

	shape->context = context;
	eo_capture_spec(&shape->spec, trigger);
	fill_shape(shape, rel);
	shape->valid = changes == changes_before;
	MemoryContextSwitchTo(old);
	return shape;
}

EoShape *
eo_shape(Relation rel, const Trigger *trigger)
{
	CacheEntry *entry;
	EoShape    *shape;

	if (shapes == NULL)
		make_cache();
	entry = hash_search(shapes, &trigger->tgoid, HASH_FIND, NULL);
	if (entry != NULL && entry->shape->valid)
		return entry->shape;
	shape = make_shape(rel, trigger);
	throw_invalid_away();
	entry = hash_search(shapes, &trigger->tgoid, HASH_ENTER, NULL);
	entry->shape = shape;
	MemoryContextSetParent(shape->context, CacheMemoryContext);
	return shape;
}
