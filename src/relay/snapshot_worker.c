/*
 * snapshot_worker.c
 *
 * The background worker that makes the snapshots that eo.snapshot() asked for,
 * one after the other, and then ends.  The relay starts it (snapshots.c).  One
 * that cannot go on at the moment is passed over until it may.
 *
 * A turn is a transaction: it claims the oldest job, puts a chunk of rows on the
 * topic (capture/snapshot.c) and writes down how far it has come; all of that or
 * nothing.  So whatever interrupts it, the next worker goes on where this one
 * was.  It waits for no lock: what is locked is tried again after a moment,
 * when nothing is held.  So it is never the reason why another one waits for
 * longer than a chunk takes, and can deadlock with nobody, DROP EXTENSION
 * included.
 *
 * An error of the table's or its owner's making ends the job; others are tried
 * again, ever less often.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "capture/snapshot.h"
#include "catalog/pg_inherits.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "points.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "relay/backoff.h"
#include "relay/relay.h"
#include "relay/snapshot_jobs.h"
#include "relay/snapshot_worker.h"
#include "relay/sql.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/sinval.h"
#include "store/catalog.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Before another look at what is locked, or at a transaction that is committing */
#define LOCKED_MS		100
#define STALLED_MS		100

/* While all jobs have to wait; there may be new ones. */
#define LOOK_MS			1000

/* Delays after an error that may pass */
#define FIRST_DELAY_MS	1000
#define LAST_DELAY_MS	60000

/* What a turn returns instead of a delay. */
#define NOTHING_LEFT	(-1)

static Oid	worker_dboid;
static bool registered = false;

/* The job at hand; 0: none */
static int64 current_job = 0;

/* Jobs up to this one are passed over until then; 0: none is. */
static int64 passed_over = 0;
static TimestampTz passed_until;

/* An error that has to be written down, and its job; NULL: none */
static char *pending_error = NULL;
static int64 pending_job;
static bool pending_fatal;

static int64 failing_job = 0;	/* the latest one that is tried again */
static EoBackoff retries;		/* of it */
static EoBackoff troubles;		/* errors that are no job's */

static TimestampTz last_end = 0;

/*----------
 * Start and end
 *----------
 */

/* Runs on every way out of the process, also before it has registered. */
static void
worker_exit(int code, Datum arg)
{
	EoDatabase *db = eo_database_slot(worker_dboid, false);

	if (db == NULL || !registered)
		return;
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	db->snapshot_pid = 0;
	db->snapshot_failed = code != 0;
	LWLockRelease(eo_shared->lock);
	ConditionVariableBroadcast(&db->relay_changed);
	eo_relay_rouse(db);
}

/* Takes the database's slot; ends the process if another worker has it. */
static void
register_worker(void)
{
	EoDatabase *db = eo_database_slot(MyDatabaseId, true);

	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	registered = db->snapshot_pid == 0 && db->holds == 0;
	if (registered)
		db->snapshot_pid = MyProcPid;
	LWLockRelease(eo_shared->lock);
	if (!registered)
		proc_exit(0);
	eo_relay.db = db;
}

static void
start_worker(void)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, StatementCancelHandler);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(worker_dboid, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);

	eo_relay.context = AllocSetContextCreate(TopMemoryContext, "eo_outbox snapshots",
											 ALLOCSET_DEFAULT_SIZES);
	eo_relay.scratch = AllocSetContextCreate(TopMemoryContext, "eo_outbox scratch",
											 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(eo_relay.scratch);
	eo_relay_set_options("eo_outbox snapshot");
	register_worker();
	eo_backoff_init(&retries, FIRST_DELAY_MS, LAST_DELAY_MS);
	eo_backoff_init(&troubles, FIRST_DELAY_MS, LAST_DELAY_MS);
	pgstat_report_appname("eo_outbox snapshot");
}

/*
 * Ends the process if the extension is gone, or was created anew: what is there
 * then is another relay's to look at.
 */
static void
check_extension(void)
{
	const EoCatalog *catalog = eo_catalog();

	if (catalog == NULL ||
		(OidIsValid(eo_relay.extension) && eo_relay.extension != catalog->extension) ||
		pg_atomic_read_u32(&eo_relay.db->lineage) == EO_LINEAGE_FOREIGN)
		proc_exit(0);
	eo_relay.extension = catalog->extension;
}

/*----------
 * Turns
 *----------
 */

/*
 * A transaction with locks on all of the extension's tables that it will use.
 * False, and none, if somebody else has one of them.
 */
static bool
begin(void)
{
	const EoCatalog *catalog;
	uint32		active;
	uint32		next;

	eo_relay_begin(true);
	check_extension();
	catalog = eo_catalog_required();
	active = pg_atomic_read_u32(&eo_relay.db->active_segment);
	next = (active + 1) % EO_SEGMENTS;	/* appends may move on to it */
	if (!eo_snapshot_jobs_lock(RowExclusiveLock) ||
		!ConditionalLockRelationOid(catalog->log[active], RowExclusiveLock) ||
		!ConditionalLockRelationOid(catalog->log[next], RowExclusiveLock))
	{
		eo_relay_abort(true);
		return false;
	}
	/* The locks may have come with the news that these are other tables. */
	check_extension();
	return true;
}

/* Whether a table that is not captured has nothing to do with the job any more. */
static bool
has_left(const EoSnapshotJob *job, Oid relid)
{
	return relid != job->relation && get_rel_name(job->relation) != NULL &&
		!list_member_oid(find_all_inheritors(job->relation, NoLock, NULL), relid);
}

/* The table, which is locked; NULL if it has left those of the job. */
static Relation
open_table(const EoSnapshotJob *job, Oid relid)
{
	Relation	rel = try_relation_open(relid, NoLock);

	if (rel != NULL && (eo_snapshot_capture(rel) != NULL || !has_left(job, relid)))
		return rel;
	if (rel != NULL)
		relation_close(rel, NoLock);
	else if (!has_left(job, relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" was dropped", job->name)));
	return NULL;
}

static double
seconds_since_last(TimestampTz began)
{
	TimestampTz now = GetCurrentTimestamp();
	double		seconds = (double) (now - (last_end != 0 ? last_end : began)) / USECS_PER_SEC;

	last_end = now;
	return Max(seconds, 0);
}

/*
 * Whether somebody waits for this transaction: for the job, to stop it.  The next
 * turn would be faster, again and again.
 */
static bool
is_awaited(void)
{
	LOCKTAG		tag;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	SET_LOCKTAG_TRANSACTION(tag, GetTopTransactionIdIfAny());
	return LockHasWaiters(&tag, ExclusiveLock, false);
}

static int
make_chunk(const EoSnapshotJob *job, EoSnapshotPart *part, Relation rel)
{
	EoSnapshotChunk chunk = {
		.rel = rel,.rows = job->chunk_rows,.subscription = job->subscription,.place = &part->place
	};
	Oid			filenode = part->place.filenode;
	TimestampTz began = GetCurrentTimestamp();
	int			delay;

	eo_snapshot_chunk(eo_relay.db, &chunk);
	relation_close(rel, NoLock);
	EO_POINT(snapshot_place);
	eo_snapshot_jobs_advance(job, part, filenode != part->place.filenode, seconds_since_last(began));
	delay = chunk.stalled ? STALLED_MS : is_awaited() ? LOCKED_MS : 0;
	EO_POINT(snapshot_placed);
	eo_relay_commit(true);
	EO_POINT(snapshot_committed);
	if (chunk.appended)
		eo_relay_wake(eo_relay.db);
	if (job->id == failing_job)
		eo_backoff_reset(&retries);
	return delay;
}

/* Goes on with a job that is claimed.  Returns a delay if it has to wait. */
static int
advance(const EoSnapshotJob *job)
{
	EoSnapshotPart part;
	Relation	rel;

	if (job->subscription_gone)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the subscription of the snapshot of table \"%s\" was dropped", job->name)));
	if (!eo_snapshot_jobs_part(job, &part))
	{
		eo_snapshot_jobs_finish(job);
		eo_relay_commit(true);
		return 0;
	}
	if (job->fresh && !eo_snapshot_settle())
	{
		eo_relay_abort(true);
		return STALLED_MS;
	}
	if (!ConditionalLockRelationOid(part.relation, AccessShareLock))
	{
		eo_relay_abort(true);
		return LOCKED_MS;
	}
	rel = open_table(job, part.relation);
	if (rel != NULL)
		return make_chunk(job, &part, rel);
	eo_snapshot_jobs_skip(job, &part);
	eo_relay_commit(true);
	return 0;
}

static void
pass_over(int64 job, int ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	passed_until = passed_over != 0 ? Max(passed_until, until) : until;
	passed_over = Max(passed_over, job);
}

/* The job may have been stopped meanwhile; then nothing is written. */
static void
write_error(void)
{
	eo_snapshot_jobs_error(pending_job, pending_error, pending_fatal);
	eo_relay_commit(true);
	pfree(pending_error);
	pending_error = NULL;
	if (!pending_fatal)
	{
		if (failing_job != pending_job)
			eo_backoff_reset(&retries);
		failing_job = pending_job;
		pass_over(pending_job, eo_backoff_next(&retries, pg_prng_double(&pg_global_prng_state)));
	}
}

/* Until there may be something to do */
static int
wait_for_others(void)
{
	if (passed_over == 0)
		return LOCKED_MS;
	return (int) Min(LOOK_MS, Max(1, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), passed_until)));
}

/* Returns a delay in ms, or NOTHING_LEFT. */
static int
take_turn(void)
{
	EoSnapshotJob job;
	EoSnapshotClaim claim;
	int			delay;

	current_job = 0;
	if (!begin())
		return LOCKED_MS;
	if (pending_error != NULL)
	{
		write_error();
		return 0;
	}
	if (passed_over != 0 && GetCurrentTimestamp() >= passed_until)
		passed_over = 0;
	claim = eo_snapshot_jobs_claim(passed_over, &job);
	if (claim != EO_SNAPSHOT_CLAIMED)
	{
		eo_relay_commit(true);
		return claim == EO_SNAPSHOT_NONE ? NOTHING_LEFT : wait_for_others();
	}
	current_job = job.id;
	delay = advance(&job);
	if (delay > 0)
		pass_over(job.id, delay);
	eo_backoff_reset(&troubles);
	return 0;
}

/*----------
 * Errors
 *----------
 */

/* Whether it may pass, without anybody doing something about the table. */
static bool
may_pass(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/* With the row that it is about */
static char *
describe(const ErrorData *error)
{
	char	   *text = error->context == NULL ? psprintf("%s", error->message) :
		psprintf("%s (%s)", error->message, error->context);

	for (char *at = text; (at = strchr(at, '\n')) != NULL;)
		*at = ' ';
	return MemoryContextStrdup(eo_relay.context, text);
}

/* To be called where an error was caught. */
static int
recover(void)
{
	ErrorData  *error = eo_relay_take_error();

	/* The relay may wait for the end of what was appended. */
	eo_relay_wake(eo_relay.db);
	if (current_job == 0)
		return (int) eo_backoff_next(&troubles, pg_prng_double(&pg_global_prng_state));
	pending_error = describe(error);
	pending_job = current_job;
	pending_fatal = !may_pass(error->sqlerrcode);
	return 0;
}

static int
take_turn_safely(void)
{
	int			delay;

	PG_TRY();
	{
		delay = take_turn();
	}
	PG_CATCH();
	{
		delay = recover();
	}
	PG_END_TRY();
	return delay;
}

/*----------
 * The loop
 *----------
 */

static void
handle_interrupts(void)
{
	if (ProcDiePending || eo_relay.db->holds > 0)
		proc_exit(0);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
}

void
eo_snapshot_main(Datum arg)
{
	int			delay;

	worker_dboid = DatumGetObjectId(arg);
	before_shmem_exit(worker_exit, (Datum) 0);
	start_worker();
	for (;;)
	{
		MemoryContextReset(eo_relay.scratch);
		handle_interrupts();
		pgstat_report_activity(STATE_RUNNING, "eo.snapshot()");
		delay = take_turn_safely();
		pgstat_report_stat(false);
		if (delay == NOTHING_LEFT)
			break;
		if (delay == 0)
			continue;
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, delay,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	proc_exit(0);
}
