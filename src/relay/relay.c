/*
 * relay.c
 *
 * The background worker of one database: its start, its loop, its end.
 *
 * The loop.  Each turn gives every subscription its turn (subscription.c), and
 * then waits, for the latch, for the publishers' sockets, or for the nearest
 * point in time that somebody has planned.  A turn never blocks on a publisher
 * or a lock, and reads a bounded batch, so that no subscription holds up
 * another.  With nothing to do the wait has no end: an idle relay costs
 * nothing.  There is no transaction and no snapshot while it waits.
 *
 * Waking up.  A transaction with events sets the latch after it has ended, if
 * relay_sleeping is set.  The relay sets that flag, then looks whether a
 * transaction has ended since it last read, and only then waits; so one of the
 * two sees the other.
 *
 * The end.  It leaves, with status 0, when the extension is gone, when somebody
 * has put the database on hold (utility.c), or on SIGTERM.  An error outside of
 * a subscription's turn ends it with status 1.  On every way out it kills its
 * publishers first, and whether it is started again is up to the launcher.
 *
 * relay_wanted stays set unless the relay itself has looked and found nothing
 * to do here.  It is cleared before it looks, so that CREATE EXTENSION, which
 * sets it, is not missed.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "points.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "relay/delivery.h"
#include "relay/events.h"
#include "relay/launcher.h"
#include "relay/relay.h"
#include "relay/retention.h"
#include "relay/snapshots.h"
#include "relay/sql.h"
#include "relay/subscriptions.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "store/append.h"
#include "store/catalog.h"
#include "store/lineage.h"
#include "store/segments.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* How long the relay, which serves others meanwhile, waits for a lock */
#define LOCK_LIMIT		"1s"

/* While nobody here can take events, look at most that often. */
#define UNINTERESTED_MS		1000

/* Readers of pull subscriptions do not tell how far they are: look. */
#define PULL_CHECK_MS		10000

EoRelay		eo_relay;

static volatile sig_atomic_t got_sigchld = false;

static Oid	relay_dboid;
static bool registered = false;

/* Times of the loop, by eo_clock_ms() */
static int64 truncate_at = EO_NEVER;
static int64 load_at = EO_NEVER;

static void
handle_sigchld(SIGNAL_ARGS)
{
	int			save_errno = errno;

	got_sigchld = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * As this signal, from itself, comes a lock_timeout; from others it would be
 * pg_cancel_backend(), and there is nothing to cancel.
 */
static void
handle_sigint(SIGNAL_ARGS)
{
	if (get_timeout_indicator(LOCK_TIMEOUT, false))
		StatementCancelHandler(postgres_signal_arg);
}

/*----------
 * Start and end
 *----------
 */

/* Runs on every way out of the process, also before it has registered. */
static void
relay_exit(int code, Datum arg)
{
	EoDatabase *db = code != 0 ? eo_database_slot_try(relay_dboid) : eo_database_slot(relay_dboid, false);
	Latch	   *launcher;

	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		eo_publisher_finish(&sub->process);
		sub->state = EO_SUB_NONE;
		eo_subscription_report(sub);
	}
	eo_relay.subscriptions = NULL;
	if (db == NULL)
		return;

	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	if (registered)
	{
		db->relay_pid = 0;
		db->relay_latch = NULL;
		pg_atomic_write_u32(&db->relay_sleeping, 0);
		pg_atomic_write_u32(&db->stall_xid, 0);
	}
	db->relay_failed = code != 0;
	if (code != 0)
		db->relay_wanted = true;
	launcher = eo_shared->launcher_latch;
	LWLockRelease(eo_shared->lock);
	ConditionVariableBroadcast(&db->relay_changed);
	if (launcher != NULL)
		SetLatch(launcher);
}

/* The extension may be gone. */
static void
set_wanted(bool wanted)
{
	EoDatabase *db = eo_database_slot(relay_dboid, false);

	if (db == NULL)
		return;
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	db->relay_wanted = wanted;
	LWLockRelease(eo_shared->lock);
}

/*
 * Looks whether the extension is there; ends the process if it is not.  It also
 * ends if the extension was dropped and created again: what it remembers of
 * subscriptions is of others with the same ids.  Then the launcher starts a
 * relay that begins anew.
 */
static void
check_extension(void)
{
	const EoCatalog *catalog;
	Oid			extension;

	set_wanted(false);
	InvalidateSystemCaches();
	eo_relay_begin(false);
	catalog = eo_catalog();
	extension = catalog ? catalog->extension : InvalidOid;
	eo_relay_commit(false);
	if (!OidIsValid(extension))
		proc_exit(0);
	set_wanted(true);
	if (!OidIsValid(eo_relay.extension))
		eo_relay.extension = extension;
	else if (eo_relay.extension != extension)
		proc_exit(0);
}

void
eo_relay_leave(void)
{
	if (IsTransactionState())
		AbortCurrentTransaction();
	MemoryContextSwitchTo(eo_relay.scratch);
	check_extension();

	/* It is back again, but something went away under us: begin anew. */
	proc_exit(1);
}

/* Takes the database's slot; ends the process if another relay has it. */
static void
register_relay(void)
{
	EoDatabase *db = eo_database_slot(MyDatabaseId, true);
	bool		taken;

	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	taken = db->relay_pid != 0 || db->holds > 0;
	if (!taken)
	{
		db->relay_pid = MyProcPid;
		db->relay_latch = &MyProc->procLatch;
		db->relay_wanted = true;
		registered = true;
	}
	LWLockRelease(eo_shared->lock);
	if (taken)
		proc_exit(0);
	eo_relay.db = db;
	ConditionVariableBroadcast(&db->relay_changed);
}

static void
set_option(const char *name, const char *value)
{
	/* Some exist in later versions only. */
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

void
eo_relay_set_options(const char *application_name)
{
	set_option("search_path", "pg_catalog, pg_temp");
	set_option("synchronous_commit", "off");
	set_option("default_transaction_isolation", "read committed");
	set_option("default_transaction_read_only", "off");
	set_option("default_transaction_deferrable", "off");
	set_option("session_replication_role", "origin");
	set_option("statement_timeout", "0");
	set_option("transaction_timeout", "0");
	set_option("idle_in_transaction_session_timeout", "0");
	set_option("lock_timeout", LOCK_LIMIT);
	set_option("jit", "off");
	set_option("application_name", application_name);
}

static void
start_relay(void)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, handle_sigint);
	pqsignal(SIGCHLD, handle_sigchld);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(relay_dboid, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);

	eo_relay.context = AllocSetContextCreate(TopMemoryContext, "eo_outbox relay",
											 ALLOCSET_DEFAULT_SIZES);
	eo_relay.scratch = AllocSetContextCreate(TopMemoryContext, "eo_outbox scratch",
											 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(eo_relay.scratch);
	eo_relay_set_options("eo_outbox relay");
	check_extension();
	register_relay();
	pgstat_report_appname("eo_outbox relay");
	pgstat_report_activity(STATE_IDLE, NULL);
	eo_relay.home = MemoryContextStrdup(eo_relay.context, eo_lineage_home());

	/* Who appends may take long, and another relay would wait as well. */
	set_option("lock_timeout", "0");
	eo_relay_begin(true);
	eo_log_prepare(eo_relay.db);
	eo_relay_record_lineage();
	eo_relay_commit(true);
	set_option("lock_timeout", LOCK_LIMIT);
}

void
eo_relay_record_lineage(void)
{
	ForceSyncCommit();
	eo_lineage_record(eo_relay.db);
}

/*----------
 * Truncation
 *----------
 */

/* A segment that nothing is appended to any more and that was read up. */
static bool
may_truncate(int64 low_seq)
{
	EoDatabase *db = eo_relay.db;
	uint32		active = pg_atomic_read_u32(&db->active_segment);

	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		EoSegment  *segment = &db->segments[i];

		if (i != active && pg_atomic_read_u64(&segment->first_seq) != 0 &&
			(int64) pg_atomic_read_u64(&segment->last_seq) <= low_seq)
			return true;
	}
	return false;
}

/* Everything up to here may be truncated, as far as the relay knows. */
static int64
known_low_seq(void)
{
	int64		low = PG_INT64_MAX;

	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		/* Who counts back will want what it counts. */
		if (sub->recount.active)
			return 0;
		if (!sub->pull)
			low = Min(low, sub->acked.seq);
	}
	return low;
}

/*
 * A cursor may have passed events that nobody wants without being written;
 * that would keep a segment for ever.  Returns true if there is such a cursor.
 */
static bool
write_lagging_cursors(void)
{
	bool		found = false;

	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		if (sub->pull || sub->durable.seq >= sub->acked.seq || !may_truncate(sub->acked.seq))
			continue;
		sub->write_at = Min(sub->write_at, eo_clock_ms());
		found = true;
	}
	return found;
}

/*
 * Truncates what nobody needs.  That is looked at in every turn, but after a
 * vain attempt not before truncate_at: until then the retention keeps the
 * oldest segment, or somebody of whom we will not hear.
 */
static void
truncate_segments(void)
{
	TimestampTz recheck_at = 0;
	bool		locked;
	bool		lagging;
	int			count = 0;

	if (!eo_relay.truncate_due && truncate_at != EO_NEVER && eo_clock_ms() < truncate_at)
		return;
	eo_relay.truncate_due = false;
	truncate_at = EO_NEVER;
	if (!may_truncate(known_low_seq()))
		return;
	lagging = write_lagging_cursors();

	eo_relay_begin(true);
	locked = eo_relay_lock_tables(AccessShareLock) && eo_relay_lock_lineage();
	if (locked)
		count = eo_segments_truncate(eo_relay.db, eo_subscriptions_low_seq(), &recheck_at);
	if (count > 0)
		EO_POINT(segment_commit);
	eo_relay_commit(true);
	if (count > 0)
		EO_POINT_CRITICAL(segment_committed);
	eo_segments_released(eo_relay.db);
	if (count > 0)
		eo_relay.wrote = true;
	if (recheck_at != 0)
		truncate_at = eo_clock_ms() +
			Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), recheck_at), 1);
	else if (may_truncate(known_low_seq()))
		truncate_at = eo_clock_ms() + (locked && !lagging ? PULL_CHECK_MS : EO_RETRY_MS);
}

/*----------
 * The loop
 *----------
 */

/* Targets have taken some of the settings over. */
static void
reload_settings(void)
{
	int			in_flight = eo_max_in_flight;
	int			ack_timeout = eo_ack_timeout;
	int			limit = eo_restart_limit;
	int			window = eo_restart_window;

	ProcessConfigFile(PGC_SIGHUP);
	if (in_flight != eo_max_in_flight || ack_timeout != eo_ack_timeout ||
		limit != eo_restart_limit || window != eo_restart_window)
		load_at = eo_clock_ms();
}

/* What any interrupt or change of the surroundings asks for. */
static void
handle_interrupts(void)
{
	if (ProcDiePending)
	{
		eo_retention_leave();
		proc_exit(0);
	}
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		reload_settings();
		eo_relay.truncate_due = true;
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
	if (eo_relay.db->holds > 0)
		proc_exit(0);
	eo_relay.child_ended = got_sigchld;
	got_sigchld = false;
}

ErrorData *
eo_relay_take_error(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(eo_relay.scratch);
	error = CopyErrorData();
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(eo_relay.scratch);
	return error;
}

/*
 * To be called where an error was caught: reports it and returns its message,
 * or ends the process if it is what is left of DROP EXTENSION.
 */
static char *
recover(void)
{
	ErrorData  *error = eo_relay_take_error();

	check_extension();
	return error->message;
}

/*
 * What was received, and what snapshots are to be made; events do not wait for
 * what goes wrong there.
 */
static void
do_chores(void)
{
	PG_TRY();
	{
		eo_retention_step();
		eo_snapshots_step();
	}
	PG_CATCH();
	{
		(void) recover();
	}
	PG_END_TRY();
}

/* A subscription's turn; its errors are its own. */
static bool
serve(EoSubscription *sub, uint64 ended)
{
	bool		more = false;

	PG_TRY();
	{
		more = eo_subscription_serve(sub, ended);
	}
	PG_CATCH();
	{
		eo_subscription_broken(sub, recover());
	}
	PG_END_TRY();
	return more;
}

/* Reads the configuration if somebody changed it. */
static void
load_configuration(void)
{
	static uint32 loaded_generation;
	static bool loaded = false;
	uint32		generation = pg_atomic_read_u32(&eo_relay.db->config_generation);

	if (loaded && generation == loaded_generation && eo_clock_ms() < load_at)
		return;
	check_extension();
	if (eo_subscriptions_load())
	{
		load_at = EO_NEVER;
		loaded_generation = generation;
		loaded = true;
	}
	else
		load_at = eo_clock_ms() + EO_RETRY_MS;
}

/* The nearest point in time that anybody has planned */
static int64
next_deadline(void)
{
	int64		deadline = Min(Min(truncate_at, load_at), Min(eo_retention_deadline(), eo_snapshots_deadline()));

	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
		deadline = Min(deadline, eo_subscription_deadline(sub));
	return deadline;
}

/* Whether new events in the log are anybody's business now. */
static bool
anybody_reads(void)
{
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		if (eo_subscription_reads(sub))
			return true;
	}
	return false;
}

static bool
anybody_gathers(void)
{
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		if (eo_delivery_gathers(sub))
			return true;
	}
	return false;
}

/*
 * Waits until something happens.  `ended` and `generation` are what this turn
 * has seen; `missed` tells that events are passed over, this turn or until the
 * next, because nobody takes them now: nobody needs to wake us for those.
 */
static void
wait_for_work(uint64 ended, uint32 generation, bool missed)
{
	EoDatabase *db = eo_relay.db;
	int64		deadline = next_deadline();
	int64		timeout;

	if (missed)
		deadline = Min(deadline, eo_clock_ms() + UNINTERESTED_MS);
	if (deadline == EO_NEVER && eo_relay.wrote)
	{
		eo_relay.wrote = false;
		pgstat_report_stat(true);
	}

	if (!missed)
		pg_atomic_write_u32(&db->relay_sleeping, 1);
	pg_memory_barrier();
	if ((!missed && pg_atomic_read_u64(&db->ended) != ended) ||
		pg_atomic_read_u32(&db->config_generation) != generation || eo_retention_wanted())
		timeout = 0;
	else if (deadline == EO_NEVER)
		timeout = -1;
	else
		timeout = Max(deadline - eo_clock_ms(), 0);
	eo_events_wait((long) Min(timeout, INT_MAX));
	pg_atomic_write_u32(&db->relay_sleeping, 0);
}

static void
run_turn(void)
{
	EoDatabase *db = eo_relay.db;
	uint32		generation = pg_atomic_read_u32(&db->config_generation);
	uint64		ended = pg_atomic_read_u64(&db->ended);
	static uint64 seen_ended = 0;
	bool		busy = false;

	load_configuration();
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
		busy |= serve(sub, ended);
	eo_relay.child_ended = false;
	truncate_segments();
	do_chores();

	if (busy)
		eo_events_wait(0);
	else
		wait_for_work(ended, generation,
					  !anybody_reads() && (ended != seen_ended || anybody_gathers()));
	seen_ended = ended;
}

void
eo_relay_main(Datum arg)
{
	relay_dboid = DatumGetObjectId(arg);
	before_shmem_exit(relay_exit, (Datum) 0);
	start_relay();
	EO_POINT(relay_started);
	ereport(LOG,
			(errmsg("eo_outbox relay has started for database \"%s\"", MyBgworkerEntry->bgw_extra)));
	for (;;)
	{
		MemoryContextReset(eo_relay.scratch);
		handle_interrupts();
		run_turn();
	}
}
