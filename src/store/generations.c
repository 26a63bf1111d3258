/*
 * generations.c
 *
 * Gives back the space of what was received long ago.
 *
 * Keys are kept in tables by the class of their owner's window, so that owners
 * with short windows do not wait for those with long ones.  A class has two
 * tables, its generations.  One is filled; in the other nothing changes any
 * more, and when all of it is older than the longest window of the class, it is
 * truncated.  Then, if the one that is filled is as old, they change roles.  So
 * a key is recognised for one to two windows, and there is never a DELETE.
 *
 * Nobody waits for the change of roles.  It is one assignment in shared memory;
 * that a receiver may still fill the older generation is seen to in claim.c.
 * Its age counts from when the last transaction that may have filled it has
 * ended, however long that takes: the switch is recorded as of "infinity", and
 * as of now once nobody has a lock on the table any more that allows to write.
 *
 * TRUNCATE needs an AccessExclusiveLock, which is only taken if it is free
 * (store/exclusive.c): a transaction that reads the table for long, such as
 * pg_dump, makes it come later.
 *
 * A dump that is being restored has its tables one after the other.  Keys
 * whose owners are not there, or of which eo.generation does not know, are
 * left alone for RESTORE_US.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "points.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "store/exclusive.h"
#include "store/generations.h"
#include "store/tally.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* What could not be done because somebody uses a table is tried again after that. */
#define RETRY_US			USECS_PER_SEC
#define RETRY_US_MAX		USECS_PER_MINUTE

/* A key counts from when its transaction has ended, for a client a bit later. */
#define SLACK_US			USECS_PER_SEC

/* In which a restored dump is complete */
#define RESTORE_US			USECS_PER_DAY

/* Columns of eo.generation */
enum
{
	COL_FAMILY = 1, COL_CLASS, COL_CURRENT, COL_SWITCHED_AT	/* see EoGenerationState */
};

#define TABLES				(EO_FAMILIES * EO_CLASSES * EO_GENERATIONS)

/* By family, class and generation: see table_number() */
static const char *const names[TABLES] = {
	"inbox_day_0", "inbox_day_1",
	"inbox_week_0", "inbox_week_1",
	"inbox_long_0", "inbox_long_1",
	"idempotency_day_0", "idempotency_day_1",
	"idempotency_week_0", "idempotency_week_1",
	"idempotency_long_0", "idempotency_long_1"
};

static const char *const owner_tables[EO_FAMILIES] = {"consumer", "idempotency_scope"};

static Oid	cached[TABLES];
static Oid	cached_position;	/* eo.received_position */
static bool cache_valid = false;

/* What the relay knows of a class */
typedef struct Turn
{
	TimestampTz seen_at;		/* first time with keys in it */
	TimestampTz blocked_since;	/* by whom its next step waits for; 0: nobody */
	bool		told;			/* the log has been told */
	EoHolders	holders;		/* of the older generation */

	/* what eo_generations_turn() has done, to be in force when it is committed */
	bool		changed;
	int			current;
	TimestampTz switched_at;
} Turn;

static Turn turns[EO_FAMILIES][EO_CLASSES];

/*----------
 * Tables
 *----------
 */

static int
table_number(EoFamily family, int class, int generation)
{
	return (family * EO_CLASSES + class) * EO_GENERATIONS + generation;
}

static void
forget(Datum arg, Oid relid)
{
	if (!cache_valid)
		return;
	if (relid == InvalidOid || relid == cached_position)
		cache_valid = false;
	for (int i = 0; i < TABLES; i++)
	{
		if (cached[i] == relid)
			cache_valid = false;
	}
}

static Oid
find_table(const char *name)
{
	Oid			relid = get_relname_relid(name, eo_catalog_required()->schema);

	if (!OidIsValid(relid))
		elog(ERROR, "table eo.%s does not exist", name);
	return relid;
}

static void
fill_cache(void)
{
	static bool registered = false;
	Oid			found[TABLES];

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
		registered = true;
	}
	for (int i = 0; i < TABLES; i++)
		found[i] = find_table(names[i]);
	cached_position = find_table("received_position");
	memcpy(cached, found, sizeof(cached));
	cache_valid = true;
}

Oid
eo_generation_relid(EoFamily family, int class, int generation)
{
	if (!cache_valid)
		fill_cache();
	return cached[table_number(family, class, generation)];
}

Oid
eo_received_position_relid(void)
{
	if (!cache_valid)
		fill_cache();
	return cached_position;
}

const char *
eo_generation_name(EoFamily family, int class, int generation)
{
	return names[table_number(family, class, generation)];
}

/*----------
 * State
 *----------
 */

typedef struct StoredStates
{
	int			current[EO_FAMILIES][EO_CLASSES];
	TimestampTz switched_at[EO_FAMILIES][EO_CLASSES];
} StoredStates;

static void
read_states(StoredStates *states)
{
	Relation	rel = table_open(get_relname_relid("generation", eo_catalog_required()->schema),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;

	memset(states, 0, sizeof(StoredStates));
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		int			family = DatumGetInt16(heap_getattr(tuple, COL_FAMILY, desc, &isnull));
		int			class = DatumGetInt16(heap_getattr(tuple, COL_CLASS, desc, &isnull));

		if (family < 0 || family >= EO_FAMILIES || class < 0 || class >= EO_CLASSES)
			continue;
		states->current[family][class] =
			DatumGetInt16(heap_getattr(tuple, COL_CURRENT, desc, &isnull)) & 1;
		states->switched_at[family][class] =
			DatumGetTimestampTz(heap_getattr(tuple, COL_SWITCHED_AT, desc, &isnull));
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* Caller holds EoShared.lock. */
static void
set_state(EoDatabase *db, int family, int class, int current, TimestampTz switched_at)
{
	EoGenerationState *state = &db->generations[family][class];

	pg_atomic_write_u32(&state->current, (uint32) current);
	pg_atomic_write_u64(&state->switched_at, (uint64) switched_at);
}

/*
 * Reads eo.generation.  Several may do so at once, and one of them be slow: what
 * was read before a change was committed must not be published after it.
 */
static void
load_states(EoDatabase *db)
{
	StoredStates states;
	bool		fresh;

	do
	{
		uint32		epoch = pg_atomic_read_u32(&db->registry_epoch);

		pg_memory_barrier();
		read_states(&states);
		LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
		fresh = pg_atomic_read_u32(&db->registry_epoch) == epoch;
		for (int f = 0; fresh && f < EO_FAMILIES; f++)
		{
			for (int c = 0; c < EO_CLASSES; c++)
				set_state(db, f, c, states.current[f][c], states.switched_at[f][c]);
		}
		if (fresh)
		{
			pg_write_barrier();
			pg_atomic_write_u32(&db->generations_ready, 1);
		}
		LWLockRelease(eo_shared->lock);
	} while (!fresh);
}

int
eo_generation_current(EoDatabase *db, EoFamily family, int class)
{
	if (pg_atomic_read_u32(&db->generations_ready) == 0)
		load_states(db);
	pg_read_barrier();
	return (int) pg_atomic_read_u32(&db->generations[family][class].current);
}

/*----------
 * Turning
 *----------
 */

static bool
is_empty(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return nblocks == 0;
}

/*
 * The longest window, in us, of the owners whose keys may be in a class.
 * *owned is false if there is none: then the keys are of one that was dropped,
 * or will be restored, yet.
 */
static int64
longest_window(EoFamily family, int class, bool *owned)
{
	char		command[512];
	bool		isnull;
	Datum		value;

	snprintf(command, sizeof(command),
			 "SELECT (pg_catalog.date_part('epoch', pg_catalog.max(keep_for)) OPERATOR(pg_catalog.*) 1000000)::bigint"
			 " FROM eo.%s WHERE class OPERATOR(pg_catalog.=) %d OR"
			 " (also_classes OPERATOR(pg_catalog.&) %d OPERATOR(pg_catalog.<>) 0"
			 " AND also_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())",
			 owner_tables[family], class, 1 << class);
	if (SPI_execute(command, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the windows");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	*owned = !isnull;
	return isnull ? RESTORE_US : DatumGetInt64(value);
}

/* Writes the state of a class down, to be in force after the commit. */
static void
record(EoFamily family, int class, int current, TimestampTz switched_at)
{
	Turn	   *turn = &turns[family][class];
	Oid			types[] = {INT2OID, INT2OID, INT2OID, TIMESTAMPTZOID};
	Datum		values[] = {
		Int16GetDatum(family), Int16GetDatum(class), Int16GetDatum(current),
		TimestampTzGetDatum(switched_at)
	};

	if (SPI_execute_with_args("INSERT INTO eo.generation (family, class, current, switched_at)"
							  " VALUES ($1, $2, $3, $4) ON CONFLICT (family, class)"
							  " DO UPDATE SET current = EXCLUDED.current, switched_at = EXCLUDED.switched_at",
							  4, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record the generation");
	EO_POINT(generation_recorded);
	turn->changed = true;
	turn->current = current;
	turn->switched_at = switched_at;
	turn->blocked_since = 0;
	turn->told = false;
}

/*
 * A step has to wait for somebody: says so in the log, once, and returns when
 * to try again.  `tell` is whether that has taken long enough to be of interest.
 */
static TimestampTz
blocked(EoFamily family, int class, int generation, TimestampTz now, int64 patience)
{
	Turn	   *turn = &turns[family][class];
	TimestampTz waited;

	if (turn->blocked_since == 0)
		turn->blocked_since = now;
	waited = now - turn->blocked_since;
	if (!turn->told && waited >= patience)
	{
		turn->told = true;
		ereport(LOG,
				(errmsg("eo_outbox cannot empty table \"eo.%s\" yet",
						eo_generation_name(family, class, generation)),
				 errdetail("A transaction has it locked."),
				 errhint("See pg_locks; until that transaction ends, ids are recognised for longer and take more space.")));
	}
	return now + Min(Max(waited / 8, RETRY_US), RETRY_US_MAX);
}

/*
 * The switch has been committed.  Whether everybody who may have filled the
 * older generation has ended; if not, returns when to look again.
 */
static TimestampTz
seal(EoFamily family, int class, int current, int64 window)
{
	Oid			older = eo_generation_relid(family, class, 1 - current);
	TimestampTz now = GetCurrentTimestamp();

	if (!ConditionalLockRelationOid(older, ShareLock))
		return blocked(family, class, 1 - current, now, window);
	UnlockRelationOid(older, ShareLock);
	now = GetCurrentTimestamp();
	record(family, class, current, now);
	return now + window + SLACK_US;
}

static TimestampTz
truncate_generation(EoDatabase *db, EoFamily family, int class, int generation)
{
	Turn	   *turn = &turns[family][class];
	const char *name = eo_generation_name(family, class, generation);
	Oid			relid = eo_generation_relid(family, class, generation);
	TimestampTz now = GetCurrentTimestamp();
	char		command[64];

	switch (eo_exclusive_lock(relid, &turn->holders))
	{
		case EO_EXCLUSIVE_BUSY:
			return now + RETRY_US;
		case EO_EXCLUSIVE_HELD:
			return blocked(family, class, generation, now, 0);
		case EO_EXCLUSIVE_TAKEN:
			break;
	}
	snprintf(command, sizeof(command), "TRUNCATE eo.%s", name);
	EO_POINT(generation_truncate);
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not truncate eo.%s", name);
	EO_POINT(generation_truncated);
	eo_tally_truncated(db, family, class, generation);
	turn->blocked_since = 0;
	turn->told = false;
	ereport(LOG,
			(errmsg("eo_outbox empties table \"eo.%s\"", name)));
	return now;
}

/*
 * What to do about the older generation, in which there are keys.  Returns when
 * to look again.
 */
static TimestampTz
turn_older(EoDatabase *db, EoFamily family, int class, int current, TimestampTz switched_at)
{
	bool		owned;
	int64		window = longest_window(family, class, &owned);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;

	if (switched_at == DT_NOEND)
		return seal(family, class, current, window);
	if (switched_at == 0 || !owned)
		due = Max(switched_at, turns[family][class].seen_at) + Max(window, RESTORE_US);
	else
		due = switched_at + window + SLACK_US;
	return due > now ? due : truncate_generation(db, family, class, 1 - current);
}

/*
 * The older generation is empty.  After a restart nobody knows when the first
 * key came; to switch too early costs nothing but an early look.
 */
static TimestampTz
turn_current(EoGenerationState *state, EoFamily family, int class, int current,
			 TimestampTz switched_at)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz first_at = (TimestampTz) pg_atomic_read_u64(&state->first_at);
	TimestampTz due = 0;
	bool		owned;

	if (switched_at != DT_NOEND)
		due = Max(first_at, switched_at) + longest_window(family, class, &owned);
	if (switched_at == 0 && first_at == 0)
		due = turns[family][class].seen_at + RETRY_US_MAX;
	if (due > now)
		return due;
	record(family, class, 1 - current, DT_NOEND);
	return now + RETRY_US;
}

/*
 * There was nothing: whoever comes now is the first, and will say so.  Returns
 * false if somebody has come before he could know.
 */
static bool
await_first(EoGenerationState *state, Oid relid)
{
	pg_atomic_write_u64(&state->first_at, 0);
	pg_memory_barrier();
	if (is_empty(relid))
		return true;
	pg_atomic_write_u64(&state->first_at, (uint64) GetCurrentTimestamp());
	return false;
}

TimestampTz
eo_generations_turn(EoDatabase *db, EoFamily family, int class)
{
	EoGenerationState *state = &db->generations[family][class];
	Turn	   *turn = &turns[family][class];
	int			current = eo_generation_current(db, family, class);
	TimestampTz switched_at = (TimestampTz) pg_atomic_read_u64(&state->switched_at);
	Oid			filled = eo_generation_relid(family, class, current);
	bool		older_empty = is_empty(eo_generation_relid(family, class, 1 - current));

	turn->changed = false;
	if (older_empty && is_empty(filled) && await_first(state, filled))
	{
		turn->seen_at = 0;
		return 0;
	}
	if (turn->seen_at == 0)
		turn->seen_at = GetCurrentTimestamp();
	if (!older_empty)
		return turn_older(db, family, class, current, switched_at);
	return turn_current(state, family, class, current, switched_at);
}

void
eo_generations_turned(EoDatabase *db, EoFamily family, int class)
{
	Turn	   *turn = &turns[family][class];

	if (!turn->changed)
		return;
	EO_POINT_CRITICAL(generation_committed);
	turn->changed = false;
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	if (turn->switched_at == DT_NOEND)
		pg_atomic_write_u64(&db->generations[family][class].first_at, 0);
	set_state(db, family, class, turn->current, turn->switched_at);
	LWLockRelease(eo_shared->lock);
	ereport(DEBUG1,
			(errmsg_internal("eo_outbox fills table \"eo.%s\"%s", eo_generation_name(family, class, turn->current),
							 turn->switched_at == DT_NOEND ? " from now on" : " alone")));
}
