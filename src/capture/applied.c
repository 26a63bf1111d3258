/*
 * applied.c
 *
 * Records which event was applied last, for each key of each target.
 *
 * A record is found and changed under the lock of its key and by a dirty
 * snapshot, as what was received is (store/keyed_table.c).  The caller need not
 * have any right on these tables, so it must have proved before that it may
 * write the target.
 *
 * A truncation is recorded once for the whole target, in place of all that came
 * before it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "capture/applied.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Kinds of advisory locks; see store/keyed_table.c and store/registry.c. */
#define APPLIED_LOCK_KIND	103
#define SWEEP_LOCK_KIND		104

/* Columns of eo.applied */
enum
{
	COL_TARGET = 1, COL_KEY, COL_SEQ, COL_DELETED
};

/* Columns of eo.applied_truncation */
enum
{
	COL_TRUNCATION_TARGET = 1, COL_TRUNCATION_SEQ
};

static const EoKeyedShape applied_shape = {4, {REGCLASSOID, TEXTOID, INT8OID, BOOLOID}};

static Oid
own_relation(const char *name)
{
	Oid			relid = get_relname_relid(name, eo_catalog_required()->schema);

	if (!OidIsValid(relid))
		elog(ERROR, "relation eo.%s does not exist", name);
	return relid;
}

/*----------
 * Records of keys
 *----------
 */

static void
lock_key(EoApplied *applied)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(applied->key),
										   VARSIZE_ANY_EXHDR(applied->key), applied->target);

	SET_LOCKTAG_ADVISORY(applied->tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 APPLIED_LOCK_KIND);
	(void) LockAcquire(&applied->tag, ExclusiveLock, false, false);
}

void
eo_applied_open(EoApplied *applied, Oid target, text *key)
{
	memset(applied, 0, sizeof(EoApplied));
	applied->target = target;
	applied->key = key;
	for (;;)
	{
		TransactionId holder = InvalidTransactionId;
		EoSighting	sighting;

		lock_key(applied);
		eo_keyed_open(&applied->table, own_relation("applied"), &applied_shape, RowExclusiveLock);
		/* An OID has the bits of an integer, and its equality. */
		sighting = eo_keyed_look(&applied->table, (int32) target, key, &holder);
		if (sighting == EO_SEEN)
		{
			bool		isnull;

			applied->known = true;
			applied->seq = DatumGetInt64(slot_getattr(applied->table.slot, COL_SEQ, &isnull));
			applied->deleted = DatumGetBool(slot_getattr(applied->table.slot, COL_DELETED, &isnull));
		}
		if (sighting != EO_UNDECIDED)
			return;
		LockRelease(&applied->tag, ExclusiveLock, false);
		XactLockTableWait(holder, NULL, NULL, XLTW_None);
	}
}

void
eo_applied_store(EoApplied *applied, int64 seq, bool deleted)
{
	Datum		values[] = {Int64GetDatum(seq), BoolGetDatum(deleted)};
	bool		nulls[] = {false, false};

	if (applied->known)
		eo_keyed_update(&applied->table, (int32) applied->target, applied->key, values, nulls);
	else
		heap_freetuple(eo_keyed_insert(&applied->table, (int32) applied->target, applied->key,
									   values, nulls, true));
}

void
eo_applied_close(EoApplied *applied)
{
	eo_keyed_close(&applied->table);
	LockRelease(&applied->tag, ExclusiveLock, false);
}

/*----------
 * Truncations
 *----------
 */

/*
 * By the latest snapshot: the caller has the target locked, so what is committed
 * now is what counts.
 */
int64
eo_applied_truncation(Oid target)
{
	Relation	rel = table_open(own_relation("applied_truncation"), AccessShareLock);
	int64		seq = 0;

	/* Seldom is there any. */
	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;
		bool		isnull;

		ScanKeyInit(&key, COL_TRUNCATION_TARGET, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(target));
		scan = systable_beginscan(rel, own_relation("applied_truncation_pkey"), true, snapshot, 1, &key);
		tuple = systable_getnext(scan);
		if (HeapTupleIsValid(tuple))
			seq = DatumGetInt64(heap_getattr(tuple, COL_TRUNCATION_SEQ, RelationGetDescr(rel), &isnull));
		systable_endscan(scan);
		UnregisterSnapshot(snapshot);
	}
	table_close(rel, AccessShareLock);
	return seq;
}

/* Runs a statement on our tables; returns how many rows it has found. */
static uint64
run(const char *sql, Oid target, int64 seq)
{
	Oid			types[] = {REGCLASSOID, INT8OID};
	Datum		values[] = {ObjectIdGetDatum(target), Int64GetDatum(seq)};
	int			result = SPI_execute_with_args(sql, 2, types, values, NULL, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	return SPI_processed;
}

bool
eo_applied_truncate(Oid target, int64 seq)
{
	EoOwnerScope scope;
	bool		later;

	eo_enter_owner(&scope);
	SPI_connect();
	(void) run("INSERT INTO eo.applied_truncation (target, seq) VALUES ($1, $2)"
			   " ON CONFLICT (target) DO UPDATE SET seq = EXCLUDED.seq", target, seq);
	(void) run("DELETE FROM eo.applied WHERE target OPERATOR(pg_catalog.=) $1"
			   " AND seq OPERATOR(pg_catalog.<) $2", target, seq);
	later = run("SELECT FROM eo.applied WHERE target OPERATOR(pg_catalog.=) $1"
				" AND seq OPERATOR(pg_catalog.>) $2 AND NOT deleted LIMIT 1", target, seq) > 0;
	SPI_finish();
	eo_leave_owner(&scope);
	return later;
}

/*----------
 * Tables that were dropped
 *----------
 */

static bool
is_known(Oid target)
{
	return run("SELECT FROM eo.applied WHERE target OPERATOR(pg_catalog.=) $1 LIMIT 1", target, 0) > 0 ||
		run("SELECT FROM eo.applied_truncation WHERE target OPERATOR(pg_catalog.=) $1", target, 0) > 0;
}

/* Goes from target to target in the index, however many records each has. */
static void
sweep(void)
{
	(void) run("WITH RECURSIVE known (target) AS ("
			   " (SELECT a.target FROM eo.applied AS a ORDER BY a.target LIMIT 1)"
			   " UNION ALL SELECT (SELECT a.target FROM eo.applied AS a"
			   "  WHERE a.target OPERATOR(pg_catalog.>) k.target ORDER BY a.target LIMIT 1)"
			   " FROM known AS k WHERE k.target IS NOT NULL)"
			   " DELETE FROM eo.applied AS a USING known AS k"
			   " WHERE a.target OPERATOR(pg_catalog.=) k.target AND NOT EXISTS ("
			   "  SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) k.target)",
			   InvalidOid, 0);
	(void) run("DELETE FROM eo.applied_truncation AS a WHERE NOT EXISTS ("
			   " SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) a.target)",
			   InvalidOid, 0);
}

/*
 * A table that is rebuilt comes after one that was dropped, so this is when
 * there is something to remove.  One session at a time: of two that delete the
 * same rows one would wait for the other's end.  Nor where a row that somebody
 * has removed meanwhile would be an error.
 */
void
eo_applied_meet(Oid target)
{
	EoOwnerScope scope;
	LOCKTAG		tag;

	if (IsolationUsesXactSnapshot())
		return;
	eo_enter_owner(&scope);
	SPI_connect();
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, SWEEP_LOCK_KIND);
	if (!is_known(target) && LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		sweep();
	SPI_finish();
	eo_leave_owner(&scope);
}
