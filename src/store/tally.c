/*
 * tally.c
 *
 * Counts what was received.
 *
 * To count by looking would read all of it, and a counter in a table would make
 * receivers wait for each other.  So a transaction keeps a list of what it has
 * counted, adds it to shared memory once it has committed, and the relay adds
 * that to the tables every few seconds.  A crash forgets what was not flushed;
 * nothing but the views depends on it.
 *
 * The views add up tables and shared memory.  What a flush has moved from one to
 * the other stays in the slot, together with the number of the transaction, so
 * that who does not see the one still sees the other.
 *
 * Adding cannot fail, as it comes after the commit: where all slots are taken,
 * the count is dropped.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "store/tally.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A transaction that long ago is visible to everybody. */
#define LONG_AGO			(UINT64CONST(1) << 30)

/* What this transaction has counted: a slot and how deep in savepoints. */
typedef struct Entry
{
	EoTallySlot slot;
	int			level;
} Entry;

/* In TopTransactionContext */
static Entry *entries = NULL;
static int	nentries = 0;
static int	capacity = 0;

/* What the relay's transaction has done, to be in force when it commits */
static bool flushing = false;
static bool truncated[EO_FAMILIES][EO_CLASSES][EO_GENERATIONS];
static bool any_truncated = false;

/*----------
 * In the transaction
 *----------
 */

static bool
same_key(const EoTallySlot *a, const EoTallySlot *b)
{
	return a->dboid == b->dboid && a->owner == b->owner && a->family == b->family &&
		a->class == b->class && a->generation == b->generation;
}

static void
add_counts(EoTallyCounts *sum, const EoTallyCounts *counts)
{
	sum->held += counts->held;
	sum->bytes += counts->bytes;
	sum->repeats += counts->repeats;
	if (sum->first_at == 0 || (counts->first_at != 0 && counts->first_at < sum->first_at))
		sum->first_at = counts->first_at;
}

/* Looks from the end: what is counted now was likely counted just before. */
static Entry *
find_entry(const EoTallySlot *key, int level)
{
	for (int i = nentries - 1; i >= 0; i--)
	{
		if (entries[i].level == level && same_key(&entries[i].slot, key))
			return &entries[i];
	}
	return NULL;
}

static EoTallyCounts *
counts_of(const EoOwner *owner, int generation)
{
	EoTallySlot key = {
		.dboid = MyDatabaseId,.owner = owner->id,.family = owner->family,
		.class = owner->class,.generation = generation
	};
	int			level = GetCurrentTransactionNestLevel();
	Entry	   *entry = find_entry(&key, level);

	if (entry != NULL)
		return &entry->slot.pending;
	if (nentries == capacity)
	{
		capacity = Max(capacity * 2, 8);
		entries = entries == NULL ?
			MemoryContextAlloc(TopTransactionContext, capacity * sizeof(Entry)) :
			repalloc(entries, capacity * sizeof(Entry));
	}
	entry = &entries[nentries++];
	entry->slot = key;
	entry->level = level;
	return &entry->slot.pending;
}

void
eo_tally_held(const EoOwner *owner, int generation, int64 bytes)
{
	EoTallyCounts *counts = counts_of(owner, generation);

	counts->held++;
	counts->bytes += bytes;
}

void
eo_tally_repeat(const EoOwner *owner)
{
	/* Repeats are the owner's; in which slot they are is all the same. */
	counts_of(owner, 0)->repeats++;
}

/* A savepoint was released: its counts are the ones of what is around it. */
static void
merge_into_parent(int level)
{
	for (int i = nentries - 1; i >= 0 && entries[i].level >= level; i--)
	{
		Entry	   *parent = find_entry(&entries[i].slot, level - 1);

		if (parent == NULL)
			entries[i].level = level - 1;
		else
		{
			add_counts(&parent->slot.pending, &entries[i].slot.pending);
			entries[i] = entries[--nentries];
		}
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	switch (event)
	{
		case SUBXACT_EVENT_COMMIT_SUB:
			merge_into_parent(level);
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			while (nentries > 0 && entries[nentries - 1].level >= level)
				nentries--;
			break;
		default:
			break;
	}
}

/*----------
 * In shared memory; the caller holds tally_lock
 *----------
 */

static bool
has_counts(const EoTallyCounts *counts)
{
	return counts->held != 0 || counts->repeats != 0;
}

static bool
any_pending(Oid dboid)
{
	for (int i = 0; i < eo_shared->ntallies; i++)
	{
		if (eo_shared->tallies[i].dboid == dboid && has_counts(&eo_shared->tallies[i].pending))
			return true;
	}
	return false;
}

/*
 * Finds the slot of a key, or takes one that is free or has nothing in it that
 * is not in the tables.  NULL if there is none.
 */
static EoTallySlot *
find_slot(const EoTallySlot *key)
{
	uint32		start = hash_combine(murmurhash32(key->dboid),
									 murmurhash32(((uint32) key->owner << 4) + (key->family << 3) +
												  (key->class << 1) + key->generation));
	EoTallySlot *usable = NULL;

	for (int i = 0; i < eo_shared->ntallies; i++)
	{
		EoTallySlot *slot = &eo_shared->tallies[(start + i) % (uint32) eo_shared->ntallies];

		if (same_key(slot, key))
			return slot;
		if (usable == NULL &&
			(!OidIsValid(slot->dboid) || (!slot->flushing && !has_counts(&slot->pending))))
			usable = slot;
	}
	if (usable != NULL)
	{
		*usable = *key;
		memset(&usable->pending, 0, sizeof(EoTallyCounts));
	}
	return usable;
}

/* Adds what the transaction has counted.  Must not throw. */
static void
publish(void)
{
	TimestampTz now = GetCurrentTransactionStopTimestamp();
	bool		first = false;
	EoDatabase *db;

	LWLockAcquire(eo_shared->tally_lock, LW_EXCLUSIVE);
	for (int i = 0; i < nentries; i++)
	{
		EoTallyCounts *counts = &entries[i].slot.pending;
		EoTallySlot *slot = find_slot(&entries[i].slot);

		if (slot == NULL)
			continue;
		if (!has_counts(&slot->pending))
			first |= !any_pending(MyDatabaseId);
		if (counts->held != 0)
			counts->first_at = now;
		add_counts(&slot->pending, counts);
	}
	LWLockRelease(eo_shared->tally_lock);
	if (first && (db = eo_database_slot(MyDatabaseId, false)) != NULL)
		eo_relay_rouse(db);
}

/*----------
 * The relay
 *----------
 */

bool
eo_tally_pending(EoDatabase *db)
{
	bool		result;

	LWLockAcquire(eo_shared->tally_lock, LW_SHARED);
	result = any_pending(db->dboid);
	LWLockRelease(eo_shared->tally_lock);
	return result;
}

/* Takes what is pending, to be written by this transaction.  Returns how many. */
static int
take_pending(EoDatabase *db, EoTallySlot *taken)
{
	FullTransactionId xid = GetCurrentFullTransactionId();
	int			n = 0;

	LWLockAcquire(eo_shared->tally_lock, LW_EXCLUSIVE);
	for (int i = 0; i < eo_shared->ntallies; i++)
	{
		EoTallySlot *slot = &eo_shared->tallies[i];

		if (slot->dboid != db->dboid || !has_counts(&slot->pending))
			continue;
		slot->flushing = flushing = true;
		slot->flush_xid = xid;
		slot->flushed = slot->pending;
		memset(&slot->pending, 0, sizeof(EoTallyCounts));
		taken[n++] = *slot;
	}
	LWLockRelease(eo_shared->tally_lock);
	return n;
}

/* The transaction with the flush or the truncation is over.  Must not throw. */
static void
settle(bool committed)
{
	LWLockAcquire(eo_shared->tally_lock, LW_EXCLUSIVE);
	for (int i = 0; i < eo_shared->ntallies; i++)
	{
		EoTallySlot *slot = &eo_shared->tallies[i];

		if (slot->dboid != MyDatabaseId)
			continue;
		if (slot->flushing && !committed)
		{
			add_counts(&slot->pending, &slot->flushed);
			memset(&slot->flushed, 0, sizeof(EoTallyCounts));
		}
		slot->flushing = false;
		if (committed && truncated[slot->family][slot->class][slot->generation])
		{
			slot->pending.held = slot->pending.bytes = slot->pending.first_at = 0;
			slot->flushed.held = slot->flushed.bytes = slot->flushed.first_at = 0;
		}
	}
	LWLockRelease(eo_shared->tally_lock);
	flushing = any_truncated = false;
	memset(truncated, 0, sizeof(truncated));
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			if (event == XACT_EVENT_COMMIT && nentries > 0)
				publish();
			if (flushing || any_truncated)
				settle(event == XACT_EVENT_COMMIT);
			/* FALLTHROUGH */
		case XACT_EVENT_PREPARE:
			/* What was prepared is not counted. */
			entries = NULL;
			nentries = capacity = 0;
			break;
		default:
			break;
	}
}

/* One column of the slots as an array, for unnest(). */
static Datum
column(const EoTallySlot *slots, int n, Oid type, Datum (*value) (const EoTallySlot *slot))
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));
	int			size = type == INT2OID ? sizeof(int16) : type == INT4OID ? sizeof(int32) : sizeof(int64);
	char		align = type == INT2OID ? TYPALIGN_SHORT : type == INT4OID ? TYPALIGN_INT : TYPALIGN_DOUBLE;

	for (int i = 0; i < n; i++)
		values[i] = value(&slots[i]);
	return PointerGetDatum(construct_array(values, n, type, size,
										   size < sizeof(int64) || FLOAT8PASSBYVAL, align));
}

#define COLUMN_FUNCTION(name, expression) \
static Datum \
name##_value(const EoTallySlot *slot) \
{ \
	return expression; \
}

COLUMN_FUNCTION(family, Int16GetDatum(slot->family))
COLUMN_FUNCTION(owner, Int32GetDatum(slot->owner))
COLUMN_FUNCTION(class, Int16GetDatum(slot->class))
COLUMN_FUNCTION(generation, Int16GetDatum(slot->generation))
COLUMN_FUNCTION(held, Int64GetDatum(slot->flushed.held))
COLUMN_FUNCTION(bytes, Int64GetDatum(slot->flushed.bytes))
COLUMN_FUNCTION(first_at, TimestampTzGetDatum(slot->flushed.first_at))
COLUMN_FUNCTION(repeats, Int64GetDatum(slot->flushed.repeats))

static void
execute(const char *command, int nargs, Oid *types, Datum *values, int expected)
{
	int			result = SPI_execute_with_args(command, nargs, types, values, NULL, false, 0);

	if (result != expected)
		elog(ERROR, "could not run \"%s\": %s", command, SPI_result_code_string(result));
}

void
eo_tally_flush(EoDatabase *db)
{
	EoTallySlot *taken = palloc(sizeof(EoTallySlot) * eo_shared->ntallies);
	int			n = take_pending(db, taken);
	Oid			types[] = {
		INT2ARRAYOID, INT4ARRAYOID, INT2ARRAYOID, INT2ARRAYOID, INT8ARRAYOID,
		INT8ARRAYOID, TIMESTAMPTZARRAYOID
	};
	Oid			repeat_types[] = {INT2ARRAYOID, INT4ARRAYOID, INT8ARRAYOID};
	Datum		values[7];
	Datum		repeat_values[3];

	if (n == 0)
		return;
	values[0] = repeat_values[0] = column(taken, n, INT2OID, family_value);
	values[1] = repeat_values[1] = column(taken, n, INT4OID, owner_value);
	values[2] = column(taken, n, INT2OID, class_value);
	values[3] = column(taken, n, INT2OID, generation_value);
	values[4] = column(taken, n, INT8OID, held_value);
	values[5] = column(taken, n, INT8OID, bytes_value);
	values[6] = column(taken, n, TIMESTAMPTZOID, first_at_value);
	repeat_values[2] = column(taken, n, INT8OID, repeats_value);
	execute("INSERT INTO eo.tally AS t (family, owner, class, generation, held, bytes, first_at)"
			" SELECT u.* FROM unnest($1, $2, $3, $4, $5, $6, $7)"
			" AS u (family, owner, class, generation, held, bytes, first_at)"
			" WHERE u.held OPERATOR(pg_catalog.<>) 0"
			" ON CONFLICT (family, owner, class, generation) DO UPDATE SET"
			" held = t.held OPERATOR(pg_catalog.+) EXCLUDED.held,"
			" bytes = t.bytes OPERATOR(pg_catalog.+) EXCLUDED.bytes,"
			" first_at = least(t.first_at, EXCLUDED.first_at)",
			7, types, values, SPI_OK_INSERT);
	execute("INSERT INTO eo.tally_repeats AS t (family, owner, repeats)"
			" SELECT u.family, u.owner, pg_catalog.sum(u.repeats)"
			" FROM unnest($1, $2, $3) AS u (family, owner, repeats)"
			" WHERE u.repeats OPERATOR(pg_catalog.<>) 0 GROUP BY u.family, u.owner"
			" ON CONFLICT (family, owner) DO UPDATE SET"
			" repeats = t.repeats OPERATOR(pg_catalog.+) EXCLUDED.repeats",
			3, repeat_types, repeat_values, SPI_OK_INSERT);
}

void
eo_tally_tidy(void)
{
	static const char *const tables[] = {"tally", "tally_repeats"};
	static const char *const owners[EO_FAMILIES] = {"consumer", "idempotency_scope"};
	char		command[256];

	for (int t = 0; t < lengthof(tables); t++)
	{
		for (int f = 0; f < EO_FAMILIES; f++)
		{
			snprintf(command, sizeof(command),
					 "DELETE FROM eo.%s AS t WHERE t.family OPERATOR(pg_catalog.=) %d AND NOT EXISTS"
					 " (SELECT FROM eo.%s AS o WHERE o.id OPERATOR(pg_catalog.=) t.owner)",
					 tables[t], f, owners[f]);
			execute(command, 0, NULL, NULL, SPI_OK_DELETE);
		}
	}
}

void
eo_tally_truncated(EoDatabase *db, EoFamily family, int class, int generation)
{
	Oid			types[] = {INT2OID, INT2OID, INT2OID};
	Datum		values[] = {Int16GetDatum(family), Int16GetDatum(class), Int16GetDatum(generation)};

	truncated[family][class][generation] = any_truncated = true;
	execute("DELETE FROM eo.tally WHERE family OPERATOR(pg_catalog.=) $1"
			" AND class OPERATOR(pg_catalog.=) $2 AND generation OPERATOR(pg_catalog.=) $3",
			3, types, values, SPI_OK_DELETE);
}

/*----------
 * The views
 *----------
 */

/* Whether a snapshot shows what a slot's latest flush has written. */
static bool
shows_flush(Snapshot snapshot, const EoTallySlot *slot)
{
	uint64		xid = U64FromFullTransactionId(slot->flush_xid);

	if (xid == 0 || U64FromFullTransactionId(ReadNextFullTransactionId()) - xid > LONG_AGO)
		return true;
	return !XidInMVCCSnapshot(XidFromFullTransactionId(slot->flush_xid), snapshot);
}

void
eo_tally_walk(EoDatabase *db, EoTallyVisitor visit, void *arg)
{
	EoTallySlot *slots = palloc(sizeof(EoTallySlot) * eo_shared->ntallies);
	int			n = 0;

	LWLockAcquire(eo_shared->tally_lock, LW_SHARED);
	for (int i = 0; i < eo_shared->ntallies; i++)
	{
		if (eo_shared->tallies[i].dboid == db->dboid)
			slots[n++] = eo_shared->tallies[i];
	}
	LWLockRelease(eo_shared->tally_lock);
	for (int i = 0; i < n; i++)
	{
		EoTallyCounts counts = slots[i].pending;

		if (!shows_flush(GetActiveSnapshot(), &slots[i]))
			add_counts(&counts, &slots[i].flushed);
		if (has_counts(&counts))
			visit(&slots[i], &counts, arg);
	}
	pfree(slots);
}

void
eo_tally_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
