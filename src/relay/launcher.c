/*
 * launcher.c
 *
 * Starts a relay in each database that has the extension.
 *
 * When the server starts nobody knows which databases those are, so every
 * database is given a relay once, a few at a time; it leaves at once where
 * there is nothing to do.  The same goes for databases that appear later, for
 * they may be copies.  From then on a slot in shared memory says whether a
 * relay is wanted.  A relay that ended with an error is started again, ever
 * less often; so is one that could not be started because the server has no
 * worker left.
 *
 * The launcher waits without limit unless a start is planned.  It is woken by
 * whoever wants a relay, by relays that end and by the end of a hold.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "common/pg_prng.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "relay/backoff.h"
#include "relay/launcher.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define LIBRARY_NAME		"eo_outbox"

/* The delay before a relay is started again. */
#define FIRST_DELAY_MS		1000
#define LAST_DELAY_MS		60000

/* A relay that ran that long does not count as a failure to start. */
#define STABLE_MS			60000

/* Databases that are looked into at the same time, at server start. */
#define PROBES				4

/* A database that the launcher has something to do with. */
typedef struct Task
{
	struct Task *next;
	Oid			dboid;
	BackgroundWorkerHandle *handle; /* NULL: not started, or it has ended */
	bool		probe;			/* to be started without being asked for */
	int64		started;		/* by eo_clock_ms() */
	int64		next_start;
	EoBackoff	backoff;
} Task;

/* What a slot says */
typedef struct Want
{
	Oid			dboid;
	bool		wanted;
	bool		runs;
	bool		held;			/* none may run */
	bool		failed;			/* the last one did */
} Want;

static Task *tasks = NULL;
static List *known = NIL;		/* databases that were there at the last look */
static MemoryContext launcher_context;
static MemoryContext scratch_context;

void
eo_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), LIBRARY_NAME);
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "eo_launcher_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "eo_outbox launcher");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "eo_outbox launcher");
	RegisterBackgroundWorker(&worker);
}

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	if (eo_shared->launcher_pid == MyProcPid)
	{
		eo_shared->launcher_pid = 0;
		eo_shared->launcher_latch = NULL;
	}
	LWLockRelease(eo_shared->lock);
}

static Task *
find_task(Oid dboid)
{
	Task	   *task;

	for (task = tasks; task != NULL; task = task->next)
	{
		if (task->dboid == dboid)
			return task;
	}
	task = MemoryContextAllocZero(launcher_context, sizeof(Task));
	task->dboid = dboid;
	eo_backoff_init(&task->backoff, FIRST_DELAY_MS, LAST_DELAY_MS);
	task->next = tasks;
	tasks = task;
	return task;
}

static void
free_task(Task *task)
{
	Task	  **link = &tasks;

	while (*link != task)
		link = &(*link)->next;
	*link = task->next;
	if (task->handle != NULL)
		pfree(task->handle);
	pfree(task);
}

/*
 * Calls back for each database, in a transaction.  Those being dropped
 * (invalid ones) do not count.
 */
static void
each_database(void (*visit) (HeapTuple tuple, Form_pg_database database, void *arg), void *arg)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datconnlimit != DATCONNLIMIT_INVALID_DB)
			visit(tuple, database, arg);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(scratch_context);
}

static void
plan_probe(HeapTuple tuple, Form_pg_database database, void *arg)
{
	List	  **found = arg;
	MemoryContext old = MemoryContextSwitchTo(launcher_context);

	*found = lappend_oid(*found, database->oid);
	MemoryContextSwitchTo(old);
	if (database->datallowconn && !database->datistemplate &&
		!list_member_oid(known, database->oid))
		find_task(database->oid)->probe = true;
}

/*
 * Plans to look into databases that were not there last time: at server start
 * all, later the copies of others.
 */
static void
find_new_databases(void)
{
	List	   *found = NIL;

	each_database(plan_probe, &found);
	list_free(known);
	known = found;
}

typedef struct Lookup
{
	Oid			dboid;
	char		name[NAMEDATALEN];	/* empty: not found */
} Lookup;

static void
look_up(HeapTuple tuple, Form_pg_database database, void *arg)
{
	Lookup	   *lookup = arg;

	if (database->oid == lookup->dboid)
		strlcpy(lookup->name, NameStr(database->datname), NAMEDATALEN);
}

static void
plan_retry(Task *task)
{
	task->next_start = eo_clock_ms() +
		eo_backoff_next(&task->backoff, pg_prng_double(&pg_global_prng_state));
}

/*
 * Starts a relay.  Returns false if the database is gone; the task with it.
 */
static bool
start_relay(Task *task)
{
	BackgroundWorker worker;
	Lookup		lookup = {.dboid = task->dboid};
	MemoryContext old;

	each_database(look_up, &lookup);
	if (lookup.name[0] == '\0')
	{
		eo_database_slot_free(task->dboid);
		free_task(task);
		return false;
	}

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(task->dboid);
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), LIBRARY_NAME);
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "eo_relay_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "eo_outbox relay for database %u", task->dboid);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "eo_outbox relay");
	strlcpy(worker.bgw_extra, lookup.name, sizeof(worker.bgw_extra));

	old = MemoryContextSwitchTo(launcher_context);
	if (!RegisterDynamicBackgroundWorker(&worker, &task->handle))
	{
		task->handle = NULL;
		plan_retry(task);
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no relay for database \"%s\", because all background workers are in use",
						lookup.name),
				 errdetail("Its events stay in the log; the next try is in %d s.",
						   (int) ((task->next_start - eo_clock_ms() + 999) / 1000)),
				 errhint("Increase max_worker_processes (now %d) and restart the server.",
						 max_worker_processes)));
	}
	else
	{
		task->probe = false;
		task->started = eo_clock_ms();
	}
	MemoryContextSwitchTo(old);
	return true;
}

/* Copies the slots, in scratch memory. */
static Want *
read_wants(int *n)
{
	Want	   *wants = palloc(sizeof(Want) * eo_shared->ndatabases);

	*n = 0;
	LWLockAcquire(eo_shared->lock, LW_SHARED);
	for (int i = 0; i < eo_shared->ndatabases; i++)
	{
		EoDatabase *db = &eo_shared->databases[i];

		if (db->dboid == InvalidOid)
			continue;
		wants[*n].dboid = db->dboid;
		wants[*n].wanted = db->relay_wanted;
		wants[*n].runs = db->relay_pid != 0;
		wants[*n].held = db->holds > 0;
		wants[*n].failed = db->relay_failed;
		(*n)++;
	}
	LWLockRelease(eo_shared->lock);
	return wants;
}

static const Want *
find_want(const Want *wants, int n, Oid dboid)
{
	for (int i = 0; i < n; i++)
	{
		if (wants[i].dboid == dboid)
			return &wants[i];
	}
	return NULL;
}

/* Takes note of a relay that has ended. */
static void
check_ended(Task *task, const Want *want)
{
	pid_t		pid;

	if (task->handle == NULL ||
		GetBackgroundWorkerPid(task->handle, &pid) != BGWH_STOPPED)
		return;
	pfree(task->handle);
	task->handle = NULL;
	if (want != NULL && want->failed && eo_clock_ms() - task->started < STABLE_MS)
		plan_retry(task);
	else
	{
		eo_backoff_reset(&task->backoff);
		task->next_start = 0;
	}
}

/*
 * Starts what is wanted and due.  Returns when to call again, though nothing
 * happens.
 */
static int64
start_relays(void)
{
	int			nwants;
	Want	   *wants = read_wants(&nwants);
	int64		now = eo_clock_ms();
	int64		next = EO_NEVER;
	int			probing = 0;
	Task	   *following;

	for (int i = 0; i < nwants; i++)
	{
		if (wants[i].wanted && !wants[i].runs)
			(void) find_task(wants[i].dboid);
	}
	for (Task *task = tasks; task != NULL; task = task->next)
	{
		const Want *want = find_want(wants, nwants, task->dboid);

		check_ended(task, want);
		if (task->handle != NULL && (want == NULL || !want->wanted))
			probing++;
	}
	for (Task *task = tasks; task != NULL; task = following)
	{
		const Want *want = find_want(wants, nwants, task->dboid);
		bool		wanted = want != NULL && want->wanted;

		following = task->next;
		if (want != NULL && want->runs)
			task->probe = false;
		if (task->handle != NULL || (want != NULL && (want->runs || want->held)))
			continue;

		/* A slot alone says nothing: a view makes one, on a standby too. */
		if (!wanted && !task->probe)
		{
			if (want == NULL)
				free_task(task);	/* there was nothing to do */
		}
		else if (task->next_start > now)
			next = Min(next, task->next_start);
		else if (wanted || probing < PROBES)
		{
			probing += !wanted;
			if (start_relay(task) && task->handle == NULL)
				next = Min(next, task->next_start);
		}
	}
	return next;
}

static void
start_launcher(void)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/* There is one from 17 on; it would end the process. */
	if (GetConfigOption("transaction_timeout", true, false) != NULL)
		SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_appname("eo_outbox launcher");
	pgstat_report_activity(STATE_IDLE, NULL);

	launcher_context = AllocSetContextCreate(TopMemoryContext, "eo_outbox launcher",
											 ALLOCSET_DEFAULT_SIZES);
	scratch_context = AllocSetContextCreate(TopMemoryContext, "eo_outbox scratch",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch_context);
	before_shmem_exit(launcher_exit, (Datum) 0);
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	eo_shared->launcher_pid = MyProcPid;
	eo_shared->launcher_latch = &MyProc->procLatch;
	LWLockRelease(eo_shared->lock);
}

void
eo_launcher_main(Datum arg)
{
	start_launcher();
	for (;;)
	{
		int64		next;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		/* With status 0 it would not be started again after pg_terminate_backend */
		if (ProcDiePending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (catchupInterruptPending)
			ProcessCatchupInterrupt();

		MemoryContextReset(scratch_context);
		find_new_databases();
		next = start_relays();
		if (next != EO_NEVER)
			events |= WL_TIMEOUT;
		(void) WaitLatch(MyLatch, events,
						 next == EO_NEVER ? -1 : (long) Max(next - eo_clock_ms(), 1),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
