/*
 * snapshot_jobs.c
 *
 * The statements on eo.snapshot_job and eo.snapshot_part.
 *
 * A job is locked while a chunk of it is made, so that who stops it waits for
 * that, and knows that nothing comes after it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "relay/snapshot_jobs.h"
#include "relay/sql.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static EoStatement select_pending = {
	"SELECT FROM eo.snapshot_job WHERE state IN ('waiting', 'running') LIMIT 1", 0, {0}
};

static EoStatement claim_job = {
	"SELECT j.id, j.relation, j.name, coalesce(j.subscription, 0), j.chunk_rows,"
	" j.subscription IS NOT NULL AND NOT EXISTS (SELECT FROM eo.subscription s WHERE s.id = j.subscription),"
	" j.started_at IS NULL"
	" FROM eo.snapshot_job j WHERE j.state IN ('waiting', 'running') AND j.id > $1"
	" ORDER BY j.id LIMIT 1 FOR UPDATE OF j SKIP LOCKED",
	1, {INT8OID}
};

static EoStatement select_part = {
	"SELECT number, relation, capture, filenode, next_block, next_item, blocks, rows"
	" FROM eo.snapshot_part WHERE job = $1 AND NOT done ORDER BY number LIMIT 1",
	1, {INT8OID}
};

static EoStatement update_part = {
	"UPDATE eo.snapshot_part SET filenode = $3, next_block = $4, next_item = $5, blocks = $6, rows = $7,"
	" seconds = CASE WHEN $8 THEN 0 ELSE seconds END + $9, done = $4 >= $6"
	" WHERE job = $1 AND number = $2",
	9, {INT8OID, INT4OID, OIDOID, INT8OID, INT4OID, INT8OID, INT8OID, BOOLOID, FLOAT8OID}
};

static EoStatement skip_part = {
	"UPDATE eo.snapshot_part SET next_block = blocks, done = true WHERE job = $1 AND number = $2",
	2, {INT8OID, INT4OID}
};

static EoStatement start_job = {
	"UPDATE eo.snapshot_job SET state = 'running', error = NULL,"
	" started_at = coalesce(started_at, now())"
	" WHERE id = $1 AND (state <> 'running' OR error IS NOT NULL)",
	1, {INT8OID}
};

static EoStatement finish_job = {
	"UPDATE eo.snapshot_job SET state = 'done', error = NULL, finished_at = clock_timestamp(),"
	" started_at = coalesce(started_at, now()) WHERE id = $1",
	1, {INT8OID}
};

static EoStatement note_error = {
	"UPDATE eo.snapshot_job SET error = $2,"
	" state = CASE WHEN $3 THEN 'failed' ELSE state END,"
	" finished_at = CASE WHEN $3 THEN clock_timestamp() END"
	" WHERE id = $1 AND state IN ('waiting', 'running')",
	3, {INT8OID, TEXTOID, BOOLOID}
};

static bool
lock_table(const EoCatalog *catalog, const char *name, LOCKMODE mode)
{
	Oid			relid = get_relname_relid(name, catalog->schema);

	return OidIsValid(relid) && ConditionalLockRelationOid(relid, mode);
}

bool
eo_snapshot_jobs_lock(LOCKMODE mode)
{
	const EoCatalog *catalog = eo_catalog_required();

	return lock_table(catalog, "snapshot_job", mode) &&
		lock_table(catalog, "snapshot_part", mode) &&
		lock_table(catalog, "subscription", AccessShareLock);
}

bool
eo_snapshot_jobs_pending(void)
{
	return eo_statement_run(&select_pending, NULL, NULL, SPI_OK_SELECT) > 0;
}

EoSnapshotClaim
eo_snapshot_jobs_claim(int64 after, EoSnapshotJob *job)
{
	Datum		values[] = {Int64GetDatum(after)};
	bool		isnull;

	if (eo_statement_run(&claim_job, values, NULL, SPI_OK_SELECT) == 0)
		return eo_snapshot_jobs_pending() ? EO_SNAPSHOT_OTHERS : EO_SNAPSHOT_NONE;
	job->id = DatumGetInt64(eo_statement_column(0, 1, &isnull));
	job->relation = DatumGetObjectId(eo_statement_column(0, 2, &isnull));
	job->name = TextDatumGetCString(eo_statement_column(0, 3, &isnull));
	job->subscription = DatumGetInt32(eo_statement_column(0, 4, &isnull));
	job->chunk_rows = DatumGetInt32(eo_statement_column(0, 5, &isnull));
	job->subscription_gone = DatumGetBool(eo_statement_column(0, 6, &isnull));
	job->fresh = DatumGetBool(eo_statement_column(0, 7, &isnull));
	return EO_SNAPSHOT_CLAIMED;
}

bool
eo_snapshot_jobs_part(const EoSnapshotJob *job, EoSnapshotPart *part)
{
	Datum		values[] = {Int64GetDatum(job->id)};
	bool		isnull;

	if (eo_statement_run(&select_part, values, NULL, SPI_OK_SELECT) == 0)
		return false;
	part->number = DatumGetInt32(eo_statement_column(0, 1, &isnull));
	part->relation = DatumGetObjectId(eo_statement_column(0, 2, &isnull));
	part->place.capture = DatumGetObjectId(eo_statement_column(0, 3, &isnull));
	part->place.filenode = DatumGetObjectId(eo_statement_column(0, 4, &isnull));
	part->place.next_block = (BlockNumber) DatumGetInt64(eo_statement_column(0, 5, &isnull));
	part->place.next_item = (OffsetNumber) DatumGetInt32(eo_statement_column(0, 6, &isnull));
	part->place.blocks = (BlockNumber) DatumGetInt64(eo_statement_column(0, 7, &isnull));
	part->place.rows = DatumGetInt64(eo_statement_column(0, 8, &isnull));
	return true;
}

static void
run(EoStatement *statement, Datum *values)
{
	eo_statement_run(statement, values, NULL, SPI_OK_UPDATE);
}

void
eo_snapshot_jobs_advance(const EoSnapshotJob *job, const EoSnapshotPart *part, bool anew, double seconds)
{
	const EoSnapshotPlace *place = &part->place;
	Datum		values[] = {
		Int64GetDatum(job->id), Int32GetDatum(part->number), ObjectIdGetDatum(place->filenode),
		Int64GetDatum((int64) place->next_block), Int32GetDatum((int32) place->next_item),
		Int64GetDatum((int64) place->blocks),
		Int64GetDatum(place->rows), BoolGetDatum(anew), Float8GetDatum(seconds)
	};

	run(&update_part, values);
	run(&start_job, values);
}

void
eo_snapshot_jobs_skip(const EoSnapshotJob *job, const EoSnapshotPart *part)
{
	Datum		values[] = {Int64GetDatum(job->id), Int32GetDatum(part->number)};

	run(&skip_part, values);
}

void
eo_snapshot_jobs_finish(const EoSnapshotJob *job)
{
	Datum		values[] = {Int64GetDatum(job->id)};

	run(&finish_job, values);
}

void
eo_snapshot_jobs_error(int64 id, const char *message, bool fatal)
{
	Datum		values[] = {Int64GetDatum(id), CStringGetTextDatum(message), BoolGetDatum(fatal)};

	run(&note_error, values);
}
