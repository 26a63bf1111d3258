/*
 * retention.c
 *
 * What the relay does about what was received: it turns the generations
 * (store/generations.c), ends the moves of owners between classes
 * (store/moves.c), and writes down what was counted (store/tally.c).
 *
 * Each has a time at which it is due.  All are due when the relay starts and
 * when the registry has changed; a class is when a first key has come, and the
 * counts are a few seconds after the first one.  With nothing to do there is no
 * such time.
 *
 * The time of a task is moved on before it is done, so that one that fails does
 * so only every so often, and keeps neither the others nor the events waiting.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "points.h"
#include "relay/backoff.h"
#include "relay/relay.h"
#include "relay/retention.h"
#include "relay/sql.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "store/generations.h"
#include "store/moves.h"
#include "store/tally.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* From the first count to its being written down */
#define FLUSH_MS			5000

/* After somebody had a lock on a table, and after an error */
#define LOCKED_MS			1000
#define FAILED_MS			10000

typedef struct ClassTask
{
	int64		due;			/* by eo_clock_ms() */
	TimestampTz first_at;		/* when it was last looked at */
} ClassTask;

static const char *const owner_tables[] = {"consumer", "idempotency_scope"};
static const char *const tally_tables[] = {"tally", "tally_repeats"};

static ClassTask classes[EO_FAMILIES][EO_CLASSES];
static int64 moves_due = EO_NEVER;
static int64 tidy_due = EO_NEVER;
static int64 flush_due = EO_NEVER;

/* What the latest step has seen of the counters that wake us */
static bool started = false;
static uint32 seen_chores;
static uint32 seen_generation;

/*----------
 * Plans
 *----------
 */

/* A point in time by GetCurrentTimestamp(), 0 for never, by eo_clock_ms() */
static int64
clock_time(TimestampTz at)
{
	return at == 0 ? EO_NEVER :
		eo_clock_ms() + TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at);
}

static TimestampTz
first_at(EoFamily family, int class)
{
	return (TimestampTz) pg_atomic_read_u64(&eo_relay.db->generations[family][class].first_at);
}

/* A first key has come if this is another one than before. */
static void
plan_class(EoFamily family, int class, bool changed)
{
	ClassTask  *task = &classes[family][class];
	TimestampTz first = first_at(family, class);

	if (changed || (first != 0 && first != task->first_at))
		task->due = eo_clock_ms();
}

static void
plan(void)
{
	uint32		chores = pg_atomic_read_u32(&eo_relay.db->chores);
	uint32		generation = pg_atomic_read_u32(&eo_relay.db->config_generation);
	bool		changed = !started || generation != seen_generation;

	if (!changed && chores == seen_chores)
		return;
	started = true;
	seen_chores = chores;
	seen_generation = generation;
	pg_memory_barrier();
	for (int f = 0; f < EO_FAMILIES; f++)
	{
		for (int c = 0; c < EO_CLASSES; c++)
			plan_class(f, c, changed);
	}
	if (changed)
		moves_due = tidy_due = eo_clock_ms();
	if (flush_due == EO_NEVER && eo_tally_pending(eo_relay.db))
		flush_due = eo_clock_ms() + FLUSH_MS;
}

/* Whether it is time; if so, moves the time on in case of an error. */
static bool
take_due(int64 *due)
{
	int64		now = eo_clock_ms();

	if (*due > now)
		return false;
	*due = now + FAILED_MS;
	return true;
}

/*----------
 * Transactions
 *----------
 */

static bool
lock_tables(const char *const *tables, int count, LOCKMODE mode)
{
	for (int i = 0; i < count; i++)
	{
		Oid			relid = get_relname_relid(tables[i], eo_catalog_required()->schema);

		if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, mode))
			return false;
	}
	return true;
}

static void
check_catalog(void)
{
	const EoCatalog *catalog = eo_catalog();

	if (catalog == NULL || catalog->extension != eo_relay.extension)
		eo_relay_leave();
}

/*
 * One that locks all tables first that it will read or write, without waiting,
 * as eo_relay_lock_tables() does.
 */
static bool
begin_on(const char *const *read, int nread, const char *const *written, int nwritten)
{
	eo_relay_begin(true);
	check_catalog();
	if (!lock_tables(read, nread, AccessShareLock) ||
		!lock_tables(written, nwritten, RowExclusiveLock))
	{
		eo_relay_abort(true);
		return false;
	}
	/* The locks may have come with the news that these are other tables. */
	check_catalog();
	return true;
}

static void
commit(void)
{
	eo_relay_commit(true);
	eo_relay.wrote = true;
}

static void
turn_class(EoFamily family, int class)
{
	ClassTask  *task = &classes[family][class];
	const char *const read[] = {
		owner_tables[family],
		eo_generation_name(family, class, 0), eo_generation_name(family, class, 1)
	};
	static const char *const written[] = {"generation", "tally"};
	TimestampTz next;

	if (!take_due(&task->due))
		return;
	task->first_at = first_at(family, class);
	if (!begin_on(read, lengthof(read), written, lengthof(written)))
	{
		task->due = eo_clock_ms() + LOCKED_MS;
		return;
	}
	next = eo_generations_turn(eo_relay.db, family, class);
	EO_POINT(generation_turned);
	commit();
	eo_generations_turned(eo_relay.db, family, class);
	task->due = clock_time(next);
}

static void
settle_moves(void)
{
	TimestampTz next;

	if (!take_due(&moves_due))
		return;
	if (!begin_on(NULL, 0, owner_tables, lengthof(owner_tables)))
	{
		moves_due = eo_clock_ms() + LOCKED_MS;
		return;
	}
	next = eo_moves_settle();
	commit();
	moves_due = clock_time(next);
}

static void
tidy_tally(void)
{
	if (!take_due(&tidy_due))
		return;
	if (!begin_on(owner_tables, lengthof(owner_tables), tally_tables, lengthof(tally_tables)))
	{
		tidy_due = eo_clock_ms() + LOCKED_MS;
		return;
	}
	eo_tally_tidy();
	commit();
	tidy_due = EO_NEVER;
}

static void
flush_tally(void)
{
	if (!take_due(&flush_due))
		return;
	if (!begin_on(owner_tables, lengthof(owner_tables), tally_tables, lengthof(tally_tables)))
	{
		flush_due = eo_clock_ms() + LOCKED_MS;
		return;
	}
	eo_tally_flush(eo_relay.db);
	EO_POINT(tally_flushed);
	commit();
	/* Who has counted meanwhile may have found others before and said nothing. */
	flush_due = eo_tally_pending(eo_relay.db) ? eo_clock_ms() + FLUSH_MS : EO_NEVER;
}

/*----------
 * For the loop
 *----------
 */

void
eo_retention_step(void)
{
	plan();
	if (eo_retention_deadline() > eo_clock_ms())
		return;
	flush_tally();
	for (int f = 0; f < EO_FAMILIES; f++)
	{
		for (int c = 0; c < EO_CLASSES; c++)
			turn_class(f, c);
	}
	settle_moves();
	tidy_tally();
}

int64
eo_retention_deadline(void)
{
	int64		deadline = Min(Min(moves_due, tidy_due), flush_due);

	for (int i = 0; i < EO_FAMILIES * EO_CLASSES; i++)
		deadline = Min(deadline, (&classes[0][0])[i].due);
	return deadline;
}

bool
eo_retention_wanted(void)
{
	return pg_atomic_read_u32(&eo_relay.db->chores) != seen_chores ||
		pg_atomic_read_u32(&eo_relay.db->config_generation) != seen_generation;
}

void
eo_retention_leave(void)
{
	if (!started || !eo_tally_pending(eo_relay.db))
		return;
	/* The one that makes us leave would end the transaction. */
	HOLD_INTERRUPTS();
	flush_due = eo_clock_ms();
	flush_tally();
	RESUME_INTERRUPTS();
}
