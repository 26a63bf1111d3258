/*
 * lineage.c
 *
 * Which cluster, database, extension and timeline the log belongs to.
 *
 * A seq must never be used twice, though a failover may lose the transactions
 * that used the latest ones, and a restored or copied database starts from an
 * older state.  So its high bits are an epoch, which goes up whenever the log
 * finds itself somewhere else than eo.lineage says: on another timeline
 * (promotion, point-in-time recovery), or in another cluster or database
 * (dump and restore, CREATE DATABASE ... TEMPLATE, pg_upgrade), or in another
 * CREATE EXTENSION (a dump restored over the database that it came from).
 *
 * The new epoch follows from the table and the server alone, so that the first
 * transaction to append may use it before anybody has written it down; the
 * relay records it before it publishes anything.  It rises by the number of
 * timelines passed, because one in between may have published under an epoch
 * that it recorded where we cannot see it.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "points.h"
#include "settings.h"
#include "store/append.h"
#include "store/catalog.h"
#include "store/lineage.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Columns of eo.lineage */
enum
{
	COL_EPOCH = 1,
	COL_SYSTEM_IDENTIFIER,
	COL_DATABASE_OID,
	COL_EXTENSION_OID,
	COL_TIMELINE,
	COL_FLOOR_SEQ
};

/* What eo.lineage says, compared with where we are. */
typedef struct Lineage
{
	bool		empty;
	bool		foreign;		/* another cluster, database or extension */
	int32		epoch;			/* the highest */
	int32		timeline;		/* the highest of that epoch */
	int64		floor_seq;
} Lineage;

char *
eo_lineage_home(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

static int32
column_int32(HeapTuple tuple, int column, TupleDesc desc)
{
	bool		isnull;

	return DatumGetInt32(heap_getattr(tuple, column, desc, &isnull));
}

static Oid
column_oid(HeapTuple tuple, int column, TupleDesc desc)
{
	bool		isnull;

	return DatumGetObjectId(heap_getattr(tuple, column, desc, &isnull));
}

static Lineage
read_lineage(void)
{
	Lineage		lineage = {.empty = true, .epoch = -1};
	const EoCatalog *catalog = eo_catalog_required();
	Relation	rel = table_open(get_relname_relid("lineage", catalog->schema), AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		int32		epoch = column_int32(tuple, COL_EPOCH, desc);
		bool		foreign;

		foreign = DatumGetInt64(heap_getattr(tuple, COL_SYSTEM_IDENTIFIER, desc, &isnull)) !=
			(int64) GetSystemIdentifier() ||
			column_oid(tuple, COL_DATABASE_OID, desc) != MyDatabaseId ||
			column_oid(tuple, COL_EXTENSION_OID, desc) != catalog->extension;
		lineage.floor_seq = Max(lineage.floor_seq,
								DatumGetInt64(heap_getattr(tuple, COL_FLOOR_SEQ, desc, &isnull)));
		if (epoch > lineage.epoch)
		{
			lineage.epoch = epoch;
			lineage.foreign = false;
			lineage.timeline = 0;
		}
		if (epoch == lineage.epoch)
		{
			lineage.foreign |= foreign;
			lineage.timeline = Max(lineage.timeline, column_int32(tuple, COL_TIMELINE, desc));
		}
		lineage.empty = false;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return lineage;
}

void
eo_lineage_load(EoDatabase *db)
{
	Lineage		lineage;
	int32		timeline = (int32) GetWALInsertionTimeLine();
	EoLineageState state = EO_LINEAGE_OURS;
	int32		epoch;

	/* In this order: what is written meanwhile makes it stale again. */
	pg_atomic_write_u32(&db->lineage_stale, 0);
	pg_memory_barrier();
	PG_TRY();
	{
		EO_POINT(lineage_load);
		lineage = read_lineage();
	}
	PG_CATCH();
	{
		pg_atomic_write_u32(&db->lineage_stale, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
	epoch = Max(lineage.epoch, 0);
	if (!lineage.empty && (lineage.foreign || lineage.timeline != timeline))
	{
		if (!EO_MUTANT(no_epoch))
			epoch += Max(timeline - lineage.timeline, 1);
		if (lineage.foreign || eo_on_new_timeline == EO_NEW_TIMELINE_PAUSE)
			state = EO_LINEAGE_FOREIGN;
		else
			state = EO_LINEAGE_CONTINUED;
	}
	pg_atomic_write_u32(&db->epoch, epoch);
	EO_POINT(lineage_loaded);
	pg_atomic_write_u32(&db->lineage, state);
	if (lineage.floor_seq > (int64) pg_atomic_read_u64(&db->floor_seq))
		pg_atomic_write_u64(&db->floor_seq, lineage.floor_seq);
}

bool
eo_lineage_refresh(EoDatabase *db, bool wait)
{
	if (wait)
		eo_append_lock();
	else if (!eo_append_try_lock())
		return false;
	eo_lineage_load(db);
	eo_append_unlock();
	return true;
}

bool
eo_lineage_is_foreign(EoDatabase *db)
{
	Lineage		lineage;

	if (pg_atomic_read_u32(&db->lineage) != EO_LINEAGE_FOREIGN)
		return false;

	/* It may have been adopted: in this transaction, or not seen by the relay yet. */
	lineage = read_lineage();
	return lineage.foreign || lineage.timeline != (int32) GetWALInsertionTimeLine();
}

/* Writes a row for the epoch in force, unless it is there. */
static void
insert_current(EoDatabase *db)
{
	char	   *command;

	command = psprintf("INSERT INTO eo.lineage (epoch, system_identifier, database_oid, extension_oid, timeline, floor_seq) "
					   "VALUES (%d, " INT64_FORMAT ", %u, %u, %d, " INT64_FORMAT ") ON CONFLICT DO NOTHING",
					   (int) pg_atomic_read_u32(&db->epoch), (int64) GetSystemIdentifier(),
					   MyDatabaseId, eo_catalog_required()->extension, (int) GetWALInsertionTimeLine(),
					   (int64) pg_atomic_read_u64(&db->floor_seq));
	EO_POINT(lineage_record);
	SPI_connect();
	if (SPI_execute(command, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record the lineage");
	SPI_finish();
	EO_POINT(lineage_recorded);
}

void
eo_lineage_record(EoDatabase *db)
{
	if (pg_atomic_read_u32(&db->lineage) != EO_LINEAGE_FOREIGN)
		insert_current(db);
}

bool
eo_lineage_adopt(EoDatabase *db)
{
	bool		foreign;

	eo_log_prepare(db);
	(void) eo_lineage_refresh(db, true);
	foreign = pg_atomic_read_u32(&db->lineage) == EO_LINEAGE_FOREIGN;
	insert_current(db);
	return foreign;
}

void
eo_lineage_set_floor(EoDatabase *db, int64 seq)
{
	char	   *command;

	command = psprintf("UPDATE eo.lineage SET floor_seq = " INT64_FORMAT
					   " WHERE epoch OPERATOR(pg_catalog.=) %d AND system_identifier OPERATOR(pg_catalog.=) " INT64_FORMAT
					   " AND database_oid OPERATOR(pg_catalog.=) %u AND extension_oid OPERATOR(pg_catalog.=) %u"
					   " AND timeline OPERATOR(pg_catalog.=) %d"
					   " AND floor_seq OPERATOR(pg_catalog.<) " INT64_FORMAT,
					   seq, (int) pg_atomic_read_u32(&db->epoch), (int64) GetSystemIdentifier(),
					   MyDatabaseId, eo_catalog_required()->extension, (int) GetWALInsertionTimeLine(), seq);
	SPI_connect();
	if (SPI_execute(command, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not record the truncation of the log");
	SPI_finish();
}
