/*
 * snapshots.c
 *
 * Starts the worker that makes snapshots of tables (snapshot_worker.c).
 *
 * The relay looks for jobs when it starts, when somebody has changed the
 * configuration, which includes eo.snapshot(), and when the worker has ended.
 * A worker outlives the relay that has started it.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "relay/backoff.h"
#include "relay/relay.h"
#include "relay/snapshot_jobs.h"
#include "relay/snapshots.h"
#include "relay/sql.h"
#include "store/catalog.h"
#include "utils/memutils.h"

/* After somebody had a lock on a table, and after an error */
#define LOCKED_MS			1000
#define FAILED_MS			10000

/* Delays before a worker that has failed is started again */
#define FIRST_DELAY_MS		1000
#define LAST_DELAY_MS		60000

static BackgroundWorkerHandle *handle = NULL;	/* of the latest one */
static bool started = false;
static uint32 seen_chores;
static uint32 seen_generation;
static int64 due = EO_NEVER;
static int64 next_start = 0;
static EoBackoff backoff;

static void
plan(void)
{
	uint32		chores = pg_atomic_read_u32(&eo_relay.db->chores);
	uint32		generation = pg_atomic_read_u32(&eo_relay.db->config_generation);
	pid_t		pid;

	/* It may have ended before it could say so. */
	if (handle != NULL && GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED)
	{
		pfree(handle);
		handle = NULL;
		due = Min(due, Max(next_start, eo_clock_ms()));
	}
	if (started && chores == seen_chores && generation == seen_generation)
		return;
	if (!started)
		eo_backoff_init(&backoff, FIRST_DELAY_MS, LAST_DELAY_MS);
	started = true;
	seen_chores = chores;
	seen_generation = generation;
	due = eo_clock_ms();
}

/* Whether a worker is there, or about to be. */
static bool
worker_runs(bool *failed)
{
	pid_t		running;

	LWLockAcquire(eo_shared->lock, LW_SHARED);
	running = eo_relay.db->snapshot_pid;
	*failed = eo_relay.db->snapshot_failed;
	LWLockRelease(eo_shared->lock);
	return running != 0 || handle != NULL;
}

/* Until one has ended well */
static void
expect_failure(void)
{
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	eo_relay.db->snapshot_failed = true;
	LWLockRelease(eo_shared->lock);
}

static bool
may_run(void)
{
	uint32		lineage = pg_atomic_read_u32(&eo_relay.db->lineage);

	return lineage == EO_LINEAGE_OURS || lineage == EO_LINEAGE_CONTINUED;
}

/* Sets *pending; returns false if somebody has a lock. */
static bool
look_for_jobs(bool *pending)
{
	const EoCatalog *catalog;

	eo_relay_begin(true);
	catalog = eo_catalog();
	if (catalog == NULL || catalog->extension != eo_relay.extension)
		eo_relay_leave();
	if (!eo_snapshot_jobs_lock(AccessShareLock))
	{
		eo_relay_abort(true);
		return false;
	}
	*pending = eo_snapshot_jobs_pending();
	eo_relay_commit(true);
	return true;
}

static void
start_worker(void)
{
	BackgroundWorker worker;
	MemoryContext old;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "eo_outbox");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "eo_snapshot_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "eo_outbox snapshot for database %u", MyDatabaseId);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "eo_outbox snapshot");

	next_start = eo_clock_ms() + eo_backoff_next(&backoff, pg_prng_double(&pg_global_prng_state));
	old = MemoryContextSwitchTo(eo_relay.context);
	expect_failure();
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		handle = NULL;
		due = next_start;
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no worker for eo.snapshot(), because all background workers are in use"),
				 errdetail("The next try is in %d s.", (int) ((due - eo_clock_ms() + 999) / 1000)),
				 errhint("Increase max_worker_processes (now %d) and restart the server.",
						 max_worker_processes)));
	}
	MemoryContextSwitchTo(old);
}

void
eo_snapshots_step(void)
{
	bool		pending;
	bool		failed;

	plan();
	if (due > eo_clock_ms())
		return;
	due = eo_clock_ms() + FAILED_MS;	/* in case of an error */
	if (worker_runs(&failed) || !may_run())
	{
		due = EO_NEVER;			/* its end, or eo.adopt(), will tell */
		return;
	}
	if (!look_for_jobs(&pending))
	{
		due = eo_clock_ms() + LOCKED_MS;
		return;
	}
	if (!pending || !failed)
	{
		eo_backoff_reset(&backoff);
		next_start = 0;
	}
	due = !pending ? EO_NEVER : next_start;
	if (due > eo_clock_ms())
		return;
	due = EO_NEVER;
	start_worker();
}

int64
eo_snapshots_deadline(void)
{
	return due;
}
