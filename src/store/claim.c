/*
 * claim.c
 *
 * Claims a key once, across generations.
 *
 * A key may be in any generation of its owner's class, and it goes into the
 * current one.  To look everywhere and then to insert is one step under the
 * lock of the key (store/keyed_table.c).
 *
 * Most keys are new.  So the current generation is not looked into first: the
 * insertion tells, too, but leaves a dead row where the key is there already.
 * While a backend sees keys again and again, it does look first.
 *
 * The current generation may change while we insert.  Then the row stands in
 * the one that ages, and would be forgotten too early: it is inserted into the
 * new one as well.  Twice is no harm.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/itup.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "points.h"
#include "storage/lmgr.h"
#include "store/claim.h"
#include "store/generations.h"
#include "store/tally.h"
#include "utils/timestamp.h"

/* After a key that was there, look first for that many. */
#define SUSPICION			100

static int	suspicion = 0;

static const EoKeyedShape shapes[EO_FAMILIES] = {
	{2, {INT4OID, TEXTOID}},
	{10, {INT4OID, TEXTOID, BYTEAOID, CHAROID, INT4OID, JSONBOID, UUIDOID, TIMESTAMPTZOID,
	TEXTOID, TIMESTAMPTZOID}}
};

static void
prepare(EoClaimer *claimer, EoFamily family)
{
	const char *what = family == EO_INBOX ? "receiving messages" : "claiming idempotency keys";

	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);
	PreventCommandDuringRecovery(what);
	memset(claimer, 0, sizeof(EoClaimer));
	claimer->db = eo_my_database();
}

void
eo_claim_begin(EoClaimer *claimer, EoFamily family, struct varlena *owner)
{
	prepare(claimer, family);
	claimer->owner = eo_owner(family, owner);
}

bool
eo_claim_try_begin(EoClaimer *claimer, EoFamily family, struct varlena *owner)
{
	prepare(claimer, family);
	claimer->owner = eo_owner_try(family, owner);
	return claimer->owner != NULL;
}

void
eo_claim_end(EoClaimer *claimer)
{
	for (int c = 0; c < EO_CLASSES; c++)
	{
		for (int g = 0; g < EO_GENERATIONS; g++)
			eo_keyed_close(&claimer->tables[c][g]);
	}
}

int
eo_claim_compare(struct varlena *a, struct varlena *b)
{
	int			a_len = VARSIZE_ANY_EXHDR(a);
	int			b_len = VARSIZE_ANY_EXHDR(b);
	int			result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(a_len, b_len));

	return result != 0 ? result : a_len - b_len;
}

void
eo_claim_check(const char *what, struct varlena *key, int max)
{
	const char *data = VARDATA_ANY(key);
	int			len = VARSIZE_ANY_EXHDR(key);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (len > max)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes, the limit is %d.", len, max),
				 errhint("Use a digest of it.")));
	for (int i = 0; i < len; i++)
	{
		if ((unsigned char) data[i] < 0x20 || data[i] == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s contains a character that is not printable", what),
					 errdetail("Byte %d is 0x%02x.", i + 1, (unsigned char) data[i])));
	}
}

static EoKeyedTable *
open_generation(EoClaimer *claimer, int class, int generation, LOCKMODE lockmode)
{
	EoKeyedTable *table = &claimer->tables[class][generation];
	EoFamily	family = claimer->owner->family;

	eo_keyed_open(table, eo_generation_relid(family, class, generation), &shapes[family], lockmode);
	return table;
}

/* Looks into one generation. */
static EoSighting
look_into(EoClaimer *claimer, int class, int generation, struct varlena *key,
		  TransactionId *holder, EoClaimPlace *place)
{
	EoKeyedTable *table = &claimer->tables[class][generation];
	EoSighting	sighting = eo_keyed_look(table, claimer->owner->id, key, holder);

	if (sighting != EO_UNSEEN)
	{
		place->relid = RelationGetRelid(table->rel);
		place->tid = table->slot->tts_tid;
		place->ours = sighting == EO_SEEN && eo_keyed_is_ours(table);
	}
	return sighting;
}

/* The classes where keys of an owner may be */
static int
classes_of(const EoOwner *owner)
{
	int			classes = 1 << owner->class;

	if (owner->also_classes != 0 && owner->also_until > GetCurrentTimestamp())
		classes |= owner->also_classes;
	return classes;
}

/* Looks into all, but into the current one only if `thorough`. */
static EoSighting
look_around(EoClaimer *claimer, int current, bool thorough, struct varlena *key,
			TransactionId *holder, EoClaimPlace *place)
{
	EoOwner    *owner = claimer->owner;
	int			classes = classes_of(owner);

	for (int c = 0; c < EO_CLASSES; c++)
	{
		if ((classes & (1 << c)) == 0)
			continue;
		for (int g = 0; g < EO_GENERATIONS; g++)
		{
			bool		fill = c == owner->class && g == current;
			EoSighting	sighting;

			(void) open_generation(claimer, c, g, fill ? RowExclusiveLock : AccessShareLock);
			if (fill && !thorough)
				continue;
			sighting = look_into(claimer, c, g, key, holder, place);
			if (sighting != EO_UNSEEN)
				return sighting;
		}
	}
	return EO_UNSEEN;
}

/* Returns false if the key may be there, where nobody has looked. */
static bool
insert_row(EoClaimer *claimer, int generation, struct varlena *key, const Datum *rest,
		   const bool *rest_nulls, bool looked, EoClaimPlace *place)
{
	EoOwner    *owner = claimer->owner;
	EoKeyedTable *table = open_generation(claimer, owner->class, generation, RowExclusiveLock);
	HeapTuple	tuple = eo_keyed_insert(table, owner->id, key, rest, rest_nulls, looked);

	if (tuple == NULL)
		return false;
	place->relid = RelationGetRelid(table->rel);
	place->tid = tuple->t_self;
	place->ours = true;
	eo_tally_held(owner, generation,
				  MAXALIGN(tuple->t_len) + sizeof(ItemIdData) + sizeof(ItemIdData) +
				  MAXALIGN(sizeof(IndexTupleData) + sizeof(int32) + VARSIZE_ANY(key)));
	heap_freetuple(tuple);
	return true;
}

/* The first key of a generation is when the relay has to plan its end. */
static void
note_first(EoDatabase *db, EoFamily family, int class)
{
	EoGenerationState *state = &db->generations[family][class];

	if (pg_atomic_read_u64(&state->first_at) != 0)
		return;
	pg_atomic_write_u64(&state->first_at, (uint64) GetCurrentTimestamp());
	eo_relay_rouse(db);
}

static bool
insert_key(EoClaimer *claimer, int generation, struct varlena *key, const Datum *rest,
		   const bool *rest_nulls, bool looked, EoClaimPlace *place)
{
	EoFamily	family = claimer->owner->family;
	int			class = claimer->owner->class;

	EO_POINT(claim_insert);
	if (!insert_row(claimer, generation, key, rest, rest_nulls, looked, place))
		return false;
	EO_POINT(claim_inserted);
	pg_memory_barrier();
	if (eo_generation_current(claimer->db, family, class) != generation)
		(void) insert_row(claimer, 1 - generation, key, rest, rest_nulls, true, place);
	note_first(claimer->db, family, class);
	return true;
}

/* Claims the key if it is nowhere.  Caller holds the lock of the key. */
static EoSighting
look_and_insert(EoClaimer *claimer, struct varlena *key, const Datum *rest,
				const bool *rest_nulls, TransactionId *holder, EoClaimPlace *place)
{
	EoOwner    *owner = claimer->owner;
	bool		thorough = suspicion > 0;
	int			current;
	EoSighting	sighting;

	if (!eo_owner_refresh(owner))
		eo_owner_refuse_dropped(owner);
	current = eo_generation_current(claimer->db, owner->family, owner->class);
	sighting = look_around(claimer, current, thorough, key, holder, place);
	if (sighting == EO_UNSEEN &&
		!insert_key(claimer, current, key, rest, rest_nulls, thorough, place))
	{
		/* Or it only met the dead row of another one like itself. */
		sighting = look_into(claimer, owner->class, current, key, holder, place);
		if (sighting == EO_UNSEEN)
			(void) insert_key(claimer, current, key, rest, rest_nulls, true, place);
	}
	return sighting;
}

EoClaimResult
eo_claim_key(EoClaimer *claimer, struct varlena *key, const Datum *rest,
			 const bool *rest_nulls, bool wait, EoClaimPlace *place)
{
	EoOwner    *owner = claimer->owner;
	EoClaimPlace found;
	LOCKTAG		tag;

	if (place == NULL)
		place = &found;
	for (;;)
	{
		TransactionId holder = InvalidTransactionId;
		EoSighting	sighting;

		eo_key_lock(&tag, owner, key);
		sighting = look_and_insert(claimer, key, rest, rest_nulls, &holder, place);
		eo_key_unlock(&tag);
		if (sighting == EO_UNSEEN)
		{
			suspicion = Max(suspicion - 1, 0);
			return EO_CLAIM_NEW;
		}
		suspicion = SUSPICION;
		if (sighting == EO_SEEN)
		{
			eo_tally_repeat(owner);
			return EO_CLAIM_DUPLICATE;
		}
		if (!wait)
			return EO_CLAIM_BUSY;
		XactLockTableWait(holder, NULL, NULL, XLTW_None);
	}
}

/*----------
 * Keys that have been claimed
 *----------
 */

/* Caller holds the lock of the key. */
static EoSighting
find_rows(EoClaimer *claimer, struct varlena *key, EoClaimed *claimed, TransactionId *holder)
{
	EoOwner    *owner = claimer->owner;
	int			classes;

	claimed->nrows = 0;
	if (!eo_owner_refresh(owner))
		eo_owner_refuse_dropped(owner);
	classes = classes_of(owner);
	for (int i = 0; i < EO_CLASSES * EO_GENERATIONS; i++)
	{
		EoKeyedTable *table;
		EoSighting	sighting;

		if ((classes & (1 << (i / EO_GENERATIONS))) == 0)
			continue;
		table = open_generation(claimer, i / EO_GENERATIONS, i % EO_GENERATIONS, AccessShareLock);
		sighting = eo_keyed_look(table, owner->id, key, holder);
		if (sighting == EO_UNDECIDED)
			return EO_UNDECIDED;
		if (sighting == EO_SEEN)
			claimed->rows[claimed->nrows++] = table;
	}
	if (claimed->nrows == 0)
		return EO_UNSEEN;
	claimed->ours = eo_keyed_is_ours(claimed->rows[0]);
	return EO_SEEN;
}

EoSighting
eo_claim_find(EoClaimer *claimer, struct varlena *key, bool wait, EoClaimed *claimed)
{
	for (;;)
	{
		TransactionId holder = InvalidTransactionId;
		EoSighting	sighting;

		eo_key_lock(&claimed->tag, claimer->owner, key);
		sighting = find_rows(claimer, key, claimed, &holder);
		if (sighting == EO_SEEN)
			return EO_SEEN;
		eo_key_unlock(&claimed->tag);
		if (sighting == EO_UNSEEN || !wait)
			return sighting;
		XactLockTableWait(holder, NULL, NULL, XLTW_None);
	}
}

void
eo_claim_change(EoClaimer *claimer, EoClaimed *claimed, struct varlena *key, const Datum *rest,
				const bool *rest_nulls)
{
	EoOwner    *owner = claimer->owner;
	EoClaimPlace place;
	int			current;
	Oid			filled;

	EO_POINT(claim_change);
	for (int i = 0; i < claimed->nrows; i++)
	{
		EoKeyedTable *table = claimed->rows[i];

		eo_keyed_open(table, RelationGetRelid(table->rel), table->shape, RowExclusiveLock);
		eo_keyed_update(table, owner->id, key, rest, rest_nulls);
	}

	EO_POINT(claim_changed);

	/* One in the generation that ages would be forgotten too early. */
	pg_memory_barrier();
	current = eo_generation_current(claimer->db, owner->family, owner->class);
	filled = eo_generation_relid(owner->family, owner->class, current);
	for (int i = 0; i < claimed->nrows; i++)
	{
		if (RelationGetRelid(claimed->rows[i]->rel) == filled)
			return;
	}
	(void) insert_key(claimer, current, key, rest, rest_nulls, true, &place);
}

void
eo_claim_remove(EoClaimed *claimed)
{
	for (int i = 0; i < claimed->nrows; i++)
	{
		EoKeyedTable *table = claimed->rows[i];

		eo_keyed_open(table, RelationGetRelid(table->rel), table->shape, RowExclusiveLock);
		eo_keyed_delete(table);
	}
}

void
eo_claim_let_go(EoClaimed *claimed)
{
	eo_key_unlock(&claimed->tag);
}
