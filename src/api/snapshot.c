/*
 * snapshot.c
 *
 * eo.snapshot() and eo.stop_snapshot(): what they write, the worker of the
 * database reads.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "api/api.h"
#include "api/configuration.h"
#include "capture/shape.h"
#include "capture/snapshot.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "store/topics.h"
#include "txn/event_buffer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(eo_outbox_snapshot);
PG_FUNCTION_INFO_V1(eo_outbox_stop_snapshot);
PG_FUNCTION_INFO_V1(eo_outbox_snapshot_worker);

#define CHUNK_ROWS_MAX	1000000

/* A table to read: the one that was named, or one that belongs to it */
typedef struct Part
{
	Oid			relid;
	Oid			capture;
	BlockNumber blocks;
	double		rows;			/* about */
	text	   *topic;
} Part;

/*----------
 * Tables
 *----------
 */

/* NULL if it has no rows of its own, or is not captured. */
static Part *
find_part(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	Trigger    *capture = NULL;
	Part	   *part = NULL;

	if (rel->rd_rel->relkind == RELKIND_RELATION)
		capture = eo_snapshot_capture(rel);
	if (capture != NULL)
	{
		double		visible;

		eo_snapshot_check_table(rel, capture);
		part = palloc0(sizeof(Part));
		part->relid = relid;
		part->capture = capture->tgoid;
		part->topic = eo_shape(rel, capture)->topic;
		estimate_rel_size(rel, NULL, &part->blocks, &part->rows, &visible);
	}
	table_close(rel, NoLock);
	return part;
}

static List *
find_parts(Oid relid)
{
	List	   *parts = NIL;
	List	   *relids;
	ListCell   *lc;

	/* locks the others, not the one it is given */
	LockRelationOid(relid, AccessShareLock);
	relids = find_all_inheritors(relid, AccessShareLock, NULL);
	foreach(lc, relids)
	{
		Part	   *part = find_part(lfirst_oid(lc));

		if (part != NULL)
			parts = lappend(parts, part);
	}
	if (parts == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not captured", get_rel_name(relid)),
				 errdetail("A snapshot puts the rows that are there before those that change, and needs the events of changes."),
				 errhint("Use eo.capture() first.")));
	return parts;
}

/*----------
 * Jobs
 *----------
 */

static void
execute(const char *command, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	if (SPI_execute_with_args(command, nargs, types, values, nulls, false, 0) != expected)
		elog(ERROR, "could not execute \"%s\"", command);
}

/* It would pass over all of them. */
static void
check_topics(int32 subscription, text *name, List *parts)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(subscription)};
	List	   *patterns;
	bool		isnull;
	ListCell   *lc;

	execute("SELECT topics FROM eo.subscription WHERE id OPERATOR(pg_catalog.=) $1",
			1, types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return;
	patterns = eo_topic_patterns(DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[0],
																  SPI_tuptable->tupdesc, 1, &isnull)));
	foreach(lc, parts)
	{
		text	   *topic = ((Part *) lfirst(lc))->topic;

		if (!eo_topic_filter(VARDATA_ANY(topic), VARSIZE_ANY_EXHDR(topic), patterns))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("subscription \"%s\" does not want topic \"%s\"",
							text_to_cstring(name), text_to_cstring(topic)),
					 errhint("Choose another subscription, or none: then all get the rows.")));
	}
}

/* Of each table the latest ones are kept, those that run and this one. */
static void
delete_finished(Oid relid)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};

	execute("DELETE FROM eo.snapshot_job AS j"
			" WHERE state OPERATOR(pg_catalog.<>) ALL ('{waiting,running}')"
			" AND (relation OPERATOR(pg_catalog.=) $1"
			" OR NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) j.relation))",
			1, types, values, NULL, SPI_OK_DELETE);
	execute("DELETE FROM eo.snapshot_part AS p"
			" WHERE NOT EXISTS (SELECT FROM eo.snapshot_job AS j WHERE j.id OPERATOR(pg_catalog.=) p.job)",
			0, NULL, NULL, NULL, SPI_OK_DELETE);
}

static int64
insert_job(Oid relid, int32 subscription, int32 chunk_rows)
{
	Oid			types[] = {OIDOID, TEXTOID, INT4OID, INT4OID};
	Datum		values[] = {
		ObjectIdGetDatum(relid), CStringGetTextDatum(get_rel_name(relid)),
		Int32GetDatum(subscription), Int32GetDatum(chunk_rows)
	};
	bool		isnull;

	execute("INSERT INTO eo.snapshot_job (relation, name, subscription, chunk_rows)"
			" VALUES ($1, $2, nullif($3, 0), $4) ON CONFLICT DO NOTHING RETURNING id",
			4, types, values, NULL, SPI_OK_INSERT_RETURNING);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a snapshot of table \"%s\" is under way already", get_rel_name(relid)),
				 errhint("See the view eo.snapshots, and eo.stop_snapshot().")));
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static void
insert_parts(int64 job, List *parts)
{
	Oid			types[] = {INT8OID, INT4OID, OIDOID, OIDOID, INT8OID, FLOAT8OID};
	ListCell   *lc;

	foreach(lc, parts)
	{
		Part	   *part = lfirst(lc);
		Datum		values[] = {
			Int64GetDatum(job), Int32GetDatum(foreach_current_index(lc) + 1),
			ObjectIdGetDatum(part->relid), ObjectIdGetDatum(part->capture),
			Int64GetDatum((int64) part->blocks), Float8GetDatum(part->rows)
		};

		execute("INSERT INTO eo.snapshot_part (job, number, relation, capture, blocks, estimate)"
				" VALUES ($1, $2, $3, $4, $5, $6)", 6, types, values, NULL, SPI_OK_INSERT);
	}
}

/* eo.snapshot(relation regclass, subscription text, chunk_rows int) RETURNS bigint */
Datum
eo_outbox_snapshot(PG_FUNCTION_ARGS)
{
	Oid			relid;
	int32		chunk_rows;
	int32		subscription = 0;
	List	   *parts;
	EoOwnerScope scope;
	int64		job;
	bool		pull;

	PreventCommandIfReadOnly("eo.snapshot()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "relation" : "chunk_rows")));
	relid = PG_GETARG_OID(0);
	chunk_rows = PG_GETARG_INT32(2);
	if (chunk_rows < 1 || chunk_rows > CHUNK_ROWS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("chunk_rows must be between 1 and %d", CHUNK_ROWS_MAX)));
	eo_api_check_table_owner(relid, "captured");
	if (!PG_ARGISNULL(1))
		subscription = eo_configuration_subscription_id(PG_GETARG_TEXT_PP(1), &pull);
	parts = find_parts(relid);

	eo_enter_owner(&scope);
	SPI_connect();
	if (subscription != 0)
		check_topics(subscription, PG_GETARG_TEXT_PP(1), parts);
	delete_finished(relid);
	job = insert_job(relid, subscription, chunk_rows);
	insert_parts(job, parts);
	SPI_finish();
	eo_leave_owner(&scope);
	eo_config_changed_at_commit();
	PG_RETURN_INT64(job);
}

/* eo.stop_snapshot(relation regclass) RETURNS boolean */
Datum
eo_outbox_stop_snapshot(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};
	EoOwnerScope scope;
	uint64		stopped;

	PreventCommandIfReadOnly("eo.stop_snapshot()");
	eo_api_check_table_owner(relid, "captured");
	eo_enter_owner(&scope);
	SPI_connect();
	execute("UPDATE eo.snapshot_job SET state = 'stopped', finished_at = pg_catalog.clock_timestamp()"
			" WHERE relation OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.=) ANY ('{waiting,running}')",
			1, types, values, NULL, SPI_OK_UPDATE);
	stopped = SPI_processed;
	SPI_finish();
	eo_leave_owner(&scope);
	PG_RETURN_BOOL(stopped > 0);
}

/* eo.snapshot_worker() RETURNS record: pid, allowed */
Datum
eo_outbox_snapshot_worker(PG_FUNCTION_ARGS)
{
	EoDatabase *db = eo_database_slot(MyDatabaseId, false);
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {0};
	pid_t		pid = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (db != NULL)
	{
		LWLockAcquire(eo_shared->lock, LW_SHARED);
		pid = db->snapshot_pid;
		LWLockRelease(eo_shared->lock);
	}
	values[0] = Int32GetDatum((int32) pid);
	nulls[0] = pid == 0;
	values[1] = BoolGetDatum(db == NULL || pg_atomic_read_u32(&db->lineage) != EO_LINEAGE_FOREIGN);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
