/*
 * keyed_table.c
 *
 * Finds, inserts and changes rows by an owner and a text, past the executor.
 *
 * A unique index sees to one table at a time, and its way to let two insert
 * the same key at once, speculative insertion, costs more than the rest.  Here
 * the key itself is locked: a heavyweight lock on its hash, held for a few
 * microseconds and never while waiting for a transaction.  Keys with the same
 * hash only wait for each other.
 *
 * A row of a transaction that has not ended is seen with a dirty snapshot.  The
 * caller lets go of the key, waits for that transaction, and looks again.
 *
 * Order of locks: the key, then the tables, then what the heap and the index
 * take for themselves.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_index.h"
#include "common/hashfn.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "store/keyed_table.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The kind of advisory lock; those that users can take are 1 and 2. */
#define KEY_LOCK_KIND		101

/*----------
 * Locks and tables
 *----------
 */

void
eo_key_lock(LOCKTAG *tag, const EoOwner *owner, struct varlena *key)
{
	uint64		hash;

	/* By name: a consumer that was dropped and made again has another id. */
	hash = hash_bytes_extended((const unsigned char *) owner->name, strlen(owner->name),
							   (uint64) owner->family);
	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), hash);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, KEY_LOCK_KIND);
	(void) LockAcquire(tag, ExclusiveLock, false, false);
}

void
eo_key_unlock(const LOCKTAG *tag)
{
	LockRelease(tag, ExclusiveLock, false);
}

/*
 * Rows are formed and read by place, so nobody may have altered the table.
 * Columns that were added and dropped again are left as they are.
 */
static void
check_columns(Relation rel, const EoKeyedShape *shape)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		good = desc->natts >= shape->count;

	for (int i = 0; good && i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		good = i < shape->count ? attr->atttypid == shape->types[i] : attr->attisdropped;
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"eo.%s\" has been altered", RelationGetRelationName(rel)),
				 errdetail("It belongs to the extension, which needs its columns as they were."),
				 errhint("Drop columns that were added.")));
}

static void
open_indexes(EoKeyedTable *table)
{
	/* This also finds rd_pkindex. */
	table->indexes = RelationGetIndexList(table->rel);
	if (!OidIsValid(table->rel->rd_pkindex))
		elog(ERROR, "table \"%s\" has no primary key", RelationGetRelationName(table->rel));
	table->index = index_open(table->rel->rd_pkindex, table->lockmode);
}

void
eo_keyed_open(EoKeyedTable *table, Oid relid, const EoKeyedShape *shape, LOCKMODE lockmode)
{
	if (table->rel == NULL)
	{
		table->rel = table_open(relid, lockmode);
		check_columns(table->rel, shape);
		table->shape = shape;
		table->lockmode = lockmode;
		table->slot = NULL;
		open_indexes(table);
	}
	else if (lockmode > table->lockmode)
	{
		LockRelationOid(relid, lockmode);
		index_close(table->index, table->lockmode);
		UnlockRelationOid(relid, table->lockmode);
		table->lockmode = lockmode;
		/* REINDEX CONCURRENTLY does not wait for those who only read. */
		list_free(table->indexes);
		open_indexes(table);
	}
}

void
eo_keyed_close(EoKeyedTable *table)
{
	LOCKMODE	release = table->lockmode == AccessShareLock ? AccessShareLock : NoLock;

	if (table->rel == NULL)
		return;
	if (table->slot != NULL)
		ExecDropSingleTupleTableSlot(table->slot);
	list_free(table->indexes);
	index_close(table->index, release);
	table_close(table->rel, release);
	table->rel = NULL;
}

/*----------
 * Looking
 *----------
 */

bool
eo_keyed_is_ours(EoKeyedTable *table)
{
	bool		isnull;
	Datum		xmin = slot_getsysattr(table->slot, MinTransactionIdAttributeNumber, &isnull);

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

/*
 * Above READ COMMITTED a transaction must not act on what its snapshot does not
 * show, as for any other unique key.
 */
static void
check_visible(EoKeyedTable *table)
{
	if (!IsolationUsesXactSnapshot() || eo_keyed_is_ours(table) ||
		table_tuple_satisfies_snapshot(table->rel, table->slot, GetTransactionSnapshot()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update"),
			 errdetail("A transaction that has committed since this one took its snapshot has recorded the same."),
			 errhint("The transaction might succeed if retried.")));
}

/*
 * Whether a row was inserted and deleted by one and the same transaction, as
 * those are whose insertion found the key.  Whichever way that transaction ends,
 * it will never count.
 */
static bool
never_counts(EoKeyedTable *table)
{
	bool		copied;
	HeapTupleHeader header = ExecFetchSlotHeapTuple(table->slot, false, &copied)->t_data;

	return (header->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI)) == 0 &&
		!HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) &&
		TransactionIdEquals(HeapTupleHeaderGetXmin(header), HeapTupleHeaderGetRawXmax(header));
}

EoSighting
eo_keyed_look(EoKeyedTable *table, int32 owner, struct varlena *key, TransactionId *holder)
{
	EoSighting	result = EO_UNSEEN;
	SnapshotData dirty;
	ScanKeyData keys[EO_KEY_COLUMNS];
	IndexScanDesc scan;

	if (RelationGetNumberOfBlocks(table->rel) == 0)
		return EO_UNSEEN;
	if (table->slot == NULL)
		table->slot = table_slot_create(table->rel, NULL);
	InitDirtySnapshot(dirty);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(owner));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(key));
	scan = EoIndexBeginScan(table->rel, table->index, &dirty, EO_KEY_COLUMNS);
	index_rescan(scan, keys, EO_KEY_COLUMNS, NULL, 0);
	while (result == EO_UNSEEN && index_getnext_slot(scan, ForwardScanDirection, table->slot))
	{
		*holder = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		if (!TransactionIdIsValid(*holder))
			result = EO_SEEN;
		else if (!never_counts(table))
			result = EO_UNDECIDED;
	}
	index_endscan(scan);
	if (result == EO_SEEN)
		check_visible(table);
	return result;
}

/*----------
 * Writing
 *----------
 */

static HeapTuple
form_row(EoKeyedTable *table, int32 owner, struct varlena *key, const Datum *rest,
		 const bool *rest_nulls, Datum *values, bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	HeapTuple	tuple;

	if (desc->natts > EO_KEYED_COLUMNS_MAX)
		elog(ERROR, "table \"%s\" has too many columns", RelationGetRelationName(table->rel));
	values[0] = Int32GetDatum(owner);
	values[1] = PointerGetDatum(key);
	nulls[0] = nulls[1] = false;
	for (int i = EO_KEY_COLUMNS; i < table->shape->count; i++)
	{
		values[i] = rest[i - EO_KEY_COLUMNS];
		nulls[i] = rest_nulls[i - EO_KEY_COLUMNS];
	}
	for (int i = table->shape->count; i < desc->natts; i++)
		nulls[i] = true;
	tuple = heap_form_tuple(desc, values, nulls);
	tuple->t_tableOid = RelationGetRelid(table->rel);
	return tuple;
}

/*
 * B-tree does not look at it, and to build a true one each time takes longer
 * than some insertions.
 */
static IndexInfo *
index_info(void)
{
	static IndexInfo *info = NULL;

	if (info == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		info = makeNode(IndexInfo);
		MemoryContextSwitchTo(old);
	}
	return info;
}

/*
 * The values of a row are those of an index only if it has the columns of the
 * primary key, as what REINDEX CONCURRENTLY makes of that one has.
 */
static void
check_index(Relation index, Relation primary)
{
	if (index->rd_index->indnatts == primary->rd_index->indnatts &&
		memcmp(index->rd_index->indkey.values, primary->rd_index->indkey.values,
			   sizeof(int16) * primary->rd_index->indnatts) == 0 &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("index \"%s\" is not one that eo_outbox can maintain", RelationGetRelationName(index)),
			 errdetail("Table \"eo.%s\" belongs to the extension.",
					   get_rel_name(primary->rd_index->indrelid)),
			 errhint("Drop the index.")));
}

/*
 * Returns false if `check` and the key was in the primary key already; it is
 * there twice then.
 */
static bool
insert_into_indexes(EoKeyedTable *table, HeapTuple tuple, Datum *values, bool *nulls, bool check)
{
	bool		unique = true;
	ListCell   *lc;

	foreach(lc, table->indexes)
	{
		bool		primary = lfirst_oid(lc) == RelationGetRelid(table->index);
		Relation	index = primary ? table->index : index_open(lfirst_oid(lc), RowExclusiveLock);

		if (!primary)
			check_index(index, table->index);
		if (index->rd_index->indisready)
			unique &= index_insert(index, values, nulls, &tuple->t_self, table->rel,
								   primary && check ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_NO,
								   false, index_info()) || !primary || !check;
		if (!primary)
			index_close(index, NoLock);
	}
	return unique;
}

HeapTuple
eo_keyed_insert(EoKeyedTable *table, int32 owner, struct varlena *key, const Datum *rest,
				const bool *rest_nulls, bool looked)
{
	Datum		values[EO_KEYED_COLUMNS_MAX];
	bool		nulls[EO_KEYED_COLUMNS_MAX];
	HeapTuple	tuple = form_row(table, owner, key, rest, rest_nulls, values, nulls);

	heap_insert(table->rel, tuple, GetCurrentCommandId(true), 0, NULL);
	if (insert_into_indexes(table, tuple, values, nulls, !looked))
		return tuple;

	/* A command cannot delete what it has inserted itself. */
	CommandCounterIncrement();
	simple_heap_delete(table->rel, &tuple->t_self);
	heap_freetuple(tuple);
	return NULL;
}

/*
 * The lock of a key does not keep those out that change rows by SQL, as
 * eo.drop_consumer() does.
 */
static void
check_changed(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return;
		case TM_Updated:
		case TM_Deleted:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 result == TM_Updated ? errmsg("could not serialize access due to concurrent update") :
					 errmsg("could not serialize access due to concurrent delete"),
					 errhint("The transaction might succeed if retried.")));
			break;
		default:
			elog(ERROR, "could not change a row: status %d", (int) result);
	}
}

void
eo_keyed_update(EoKeyedTable *table, int32 owner, struct varlena *key, const Datum *rest,
				const bool *rest_nulls)
{
	Datum		values[EO_KEYED_COLUMNS_MAX];
	bool		nulls[EO_KEYED_COLUMNS_MAX];
	HeapTuple	tuple = form_row(table, owner, key, rest, rest_nulls, values, nulls);
	ItemPointerData old = table->slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	ExecClearTuple(table->slot);
	/* The row may be of this very command, which could not change it. */
	CommandCounterIncrement();
	EoHeapUpdate(result, table->rel, &old, tuple, &failure);
	check_changed(result);
	if (!HeapTupleIsHeapOnly(tuple))
		(void) insert_into_indexes(table, tuple, values, nulls, false);
	heap_freetuple(tuple);
}

void
eo_keyed_delete(EoKeyedTable *table)
{
	ItemPointerData tid = table->slot->tts_tid;
	TM_FailureData failure;

	ExecClearTuple(table->slot);
	CommandCounterIncrement();
	check_changed(heap_delete(table->rel, &tid, GetCurrentCommandId(true), InvalidSnapshot, true,
							  &failure, false));
}
