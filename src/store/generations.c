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
 * TRUNCATE needs an AccessExclusiveLock, which is only taken if it is free: a
 * transaction that fills the table, or a pg_dump, makes it come later.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "store/generations.h"
#include "store/tally.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A generation that could not be truncated is tried again after that. */
#define RETRY_MS			1000

/* For keys that came while the switch was being committed */
#define SLACK_US			USECS_PER_SEC

/* Columns of eo.generation */
enum
{
	COL_FAMILY = 1, COL_CLASS, COL_CURRENT, COL_SWITCHED_AT
};

static const char *const names[EO_FAMILIES][EO_CLASSES][EO_GENERATIONS] = {
	{
		{"inbox_day_0", "inbox_day_1"},
		{"inbox_week_0", "inbox_week_1"},
		{"inbox_long_0", "inbox_long_1"}
	},
	{
		{"idempotency_day_0", "idempotency_day_1"},
		{"idempotency_week_0", "idempotency_week_1"},
		{"idempotency_long_0", "idempotency_long_1"}
	}
};

static const char *const owner_tables[EO_FAMILIES] = {"consumer", "idempotency_scope"};

static Oid	cached[EO_FAMILIES][EO_CLASSES][EO_GENERATIONS];
static Oid	cached_position;	/* eo.received_position */
static bool cache_valid = false;

/* What eo_generations_turn() has done, to be in force when it is committed */
typedef struct Turn
{
	bool		switched;
	int			current;
} Turn;

static Turn turns[EO_FAMILIES][EO_CLASSES];

/*----------
 * Tables
 *----------
 */

static void
forget(Datum arg, Oid relid)
{
	if (!cache_valid)
		return;
	if (relid == InvalidOid || relid == cached_position)
		cache_valid = false;
	for (int i = 0; i < EO_FAMILIES * EO_CLASSES * EO_GENERATIONS; i++)
	{
		if ((&cached[0][0][0])[i] == relid)
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
	Oid			found[EO_FAMILIES][EO_CLASSES][EO_GENERATIONS];

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
		registered = true;
	}
	for (int i = 0; i < EO_FAMILIES * EO_CLASSES * EO_GENERATIONS; i++)
		(&found[0][0][0])[i] = find_table((&names[0][0][0])[i]);
	cached_position = find_table("received_position");
	memcpy(cached, found, sizeof(cached));
	cache_valid = true;
}

Oid
eo_generation_relid(EoFamily family, int class, int generation)
{
	if (!cache_valid)
		fill_cache();
	return cached[family][class][generation];
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
	return names[family][class][generation];
}

/*----------
 * State
 *----------
 */

/*
 * Reads eo.generation.  Several may do so at once: they find the same, but for
 * a change that is about to be committed, after which all do so again.
 */
static void
load_states(EoDatabase *db)
{
	uint32		current[EO_FAMILIES][EO_CLASSES] = {0};
	TimestampTz switched_at[EO_FAMILIES][EO_CLASSES] = {0};
	Relation	rel = table_open(get_relname_relid("generation", eo_catalog_required()->schema),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;

	pg_atomic_write_u32(&db->generations_ready, 1);
	pg_memory_barrier();
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		int			family = DatumGetInt16(heap_getattr(tuple, COL_FAMILY, desc, &isnull));
		int			class = DatumGetInt16(heap_getattr(tuple, COL_CLASS, desc, &isnull));

		if (family < 0 || family >= EO_FAMILIES || class < 0 || class >= EO_CLASSES)
			continue;
		current[family][class] =
			DatumGetInt16(heap_getattr(tuple, COL_CURRENT, desc, &isnull)) & 1;
		switched_at[family][class] =
			DatumGetTimestampTz(heap_getattr(tuple, COL_SWITCHED_AT, desc, &isnull));
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	for (int f = 0; f < EO_FAMILIES; f++)
	{
		for (int c = 0; c < EO_CLASSES; c++)
		{
			pg_atomic_write_u32(&db->generations[f][c].current, current[f][c]);
			pg_atomic_write_u64(&db->generations[f][c].switched_at, (uint64) switched_at[f][c]);
		}
	}
}

int
eo_generation_current(EoDatabase *db, EoFamily family, int class)
{
	if (pg_atomic_read_u32(&db->generations_ready) == 0)
		load_states(db);
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
 * The longest window, in us, of the owners whose keys may be in a class; 0 if
 * there are none.
 */
static int64
longest_window(EoFamily family, int class)
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
	if (SPI_execute(command, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the windows");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : DatumGetInt64(value);
}

/* Returns false if somebody uses the table. */
static bool
truncate_generation(EoDatabase *db, EoFamily family, int class, int generation)
{
	char		command[64];

	if (!ConditionalLockRelationOid(eo_generation_relid(family, class, generation),
									AccessExclusiveLock))
		return false;
	snprintf(command, sizeof(command), "TRUNCATE eo.%s", names[family][class][generation]);
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not truncate eo.%s", names[family][class][generation]);
	eo_tally_truncated(db, family, class, generation);
	return true;
}

static void
record_switch(EoFamily family, int class, int current, TimestampTz at)
{
	Oid			types[] = {INT2OID, INT2OID, INT2OID, TIMESTAMPTZOID};
	Datum		values[] = {Int16GetDatum(family), Int16GetDatum(class), Int16GetDatum(current), TimestampTzGetDatum(at)};

	if (SPI_execute_with_args("INSERT INTO eo.generation (family, class, current, switched_at)"
							  " VALUES ($1, $2, $3, $4) ON CONFLICT (family, class)"
							  " DO UPDATE SET current = EXCLUDED.current, switched_at = EXCLUDED.switched_at",
							  4, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record the generation");
}

TimestampTz
eo_generations_turn(EoDatabase *db, EoFamily family, int class)
{
	EoGenerationState *state = &db->generations[family][class];
	TimestampTz now = GetCurrentTimestamp();
	int			current = eo_generation_current(db, family, class);
	TimestampTz switched_at = (TimestampTz) pg_atomic_read_u64(&state->switched_at);
	TimestampTz first_at = (TimestampTz) pg_atomic_read_u64(&state->first_at);
	int64		window = longest_window(family, class);
	TimestampTz due;

	memset(&turns[family][class], 0, sizeof(Turn));

	/* What came before the switch was in time; all of it is as old by now. */
	if (!is_empty(eo_generation_relid(family, class, 1 - current)))
	{
		due = switched_at + window + SLACK_US;
		if (due > now)
			return due;
		if (!truncate_generation(db, family, class, 1 - current))
			return TimestampTzPlusMilliseconds(now, RETRY_MS);
	}
	if (is_empty(eo_generation_relid(family, class, current)))
		return 0;

	/*
	 * After a restart nobody knows when the first key came; too early a switch
	 * costs nothing but an early look.
	 */
	due = Max(switched_at, first_at) + window;
	if (due > now)
		return due;
	record_switch(family, class, 1 - current, now);
	turns[family][class].switched = true;
	turns[family][class].current = 1 - current;
	return now + window + SLACK_US;
}

void
eo_generations_turned(EoDatabase *db)
{
	for (int f = 0; f < EO_FAMILIES; f++)
	{
		for (int c = 0; c < EO_CLASSES; c++)
		{
			EoGenerationState *state = &db->generations[f][c];
			Turn	   *turn = &turns[f][c];

			if (!turn->switched)
				continue;
			turn->switched = false;
			pg_atomic_write_u32(&state->current, (uint32) turn->current);
			pg_memory_barrier();
			pg_atomic_write_u64(&state->first_at, 0);
			pg_atomic_write_u64(&state->switched_at, (uint64) GetCurrentTimestamp());
		}
	}
}
