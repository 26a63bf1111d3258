/*
 * claim.c
 *
 * Claims a key once, across generations.
 *
 * A key may be in any generation of its owner's class, and it goes into the
 * current one.  To look everywhere and then to insert is one step under the
 * lock of the key (store/keyed_table.c).
 *
 * The current generation may change while we insert.  Then the row stands in
 * the one that ages, and would be forgotten too early: it is inserted into the
 * new one as well.  Twice is no harm.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/itup.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "store/claim.h"
#include "store/generations.h"
#include "store/tally.h"
#include "utils/timestamp.h"

void
eo_claim_begin(EoClaimer *claimer, EoFamily family, struct varlena *owner)
{
	const char *what = family == EO_INBOX ? "receiving messages" : "claiming idempotency keys";

	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);
	PreventCommandDuringRecovery(what);
	memset(claimer, 0, sizeof(EoClaimer));
	claimer->db = eo_my_database();
	claimer->owner = eo_owner(family, owner);
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

static EoKeyedTable *
open_generation(EoClaimer *claimer, int class, int generation, LOCKMODE lockmode)
{
	EoKeyedTable *table = &claimer->tables[class][generation];

	eo_keyed_open(table, eo_generation_relid(claimer->owner->family, class, generation), lockmode);
	return table;
}

static EoSighting
look_everywhere(EoClaimer *claimer, int current, struct varlena *key, TransactionId *holder,
				EoClaimPlace *place)
{
	EoOwner    *owner = claimer->owner;
	int			classes = 1 << owner->class;

	if (owner->also_classes != 0 && owner->also_until > GetCurrentTimestamp())
		classes |= owner->also_classes;
	for (int c = 0; c < EO_CLASSES; c++)
	{
		if ((classes & (1 << c)) == 0)
			continue;
		for (int g = 0; g < EO_GENERATIONS; g++)
		{
			bool		fill = c == owner->class && g == current;
			EoKeyedTable *table = open_generation(claimer, c, g,
												  fill ? RowExclusiveLock : AccessShareLock);
			EoSighting	sighting = eo_keyed_look(table, owner->id, key, holder);

			if (sighting == EO_UNSEEN)
				continue;
			place->relid = RelationGetRelid(table->rel);
			place->tid = table->slot->tts_tid;
			place->ours = sighting == EO_SEEN && eo_keyed_is_ours(table);
			return sighting;
		}
	}
	return EO_UNSEEN;
}

static void
insert_row(EoClaimer *claimer, int generation, struct varlena *key, const Datum *rest,
		   const bool *rest_nulls, EoClaimPlace *place)
{
	EoOwner    *owner = claimer->owner;
	EoKeyedTable *table = open_generation(claimer, owner->class, generation, RowExclusiveLock);
	HeapTuple	tuple = eo_keyed_insert(table, owner->id, key, rest, rest_nulls);

	place->relid = RelationGetRelid(table->rel);
	place->tid = tuple->t_self;
	place->ours = true;
	eo_tally_held(owner, generation,
				  MAXALIGN(tuple->t_len) + sizeof(ItemIdData) + sizeof(ItemIdData) +
				  MAXALIGN(sizeof(IndexTupleData) + sizeof(int32) + VARSIZE_ANY(key)));
	heap_freetuple(tuple);
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

static void
insert_key(EoClaimer *claimer, int generation, struct varlena *key, const Datum *rest,
		   const bool *rest_nulls, EoClaimPlace *place)
{
	EoFamily	family = claimer->owner->family;
	int			class = claimer->owner->class;

	insert_row(claimer, generation, key, rest, rest_nulls, place);
	pg_memory_barrier();
	if (eo_generation_current(claimer->db, family, class) != generation)
		insert_row(claimer, 1 - generation, key, rest, rest_nulls, place);
	note_first(claimer->db, family, class);
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
		int			current;

		eo_key_lock(&tag, owner, key);
		if (!eo_owner_refresh(owner))
			eo_owner_refuse_dropped(owner);
		current = eo_generation_current(claimer->db, owner->family, owner->class);
		sighting = look_everywhere(claimer, current, key, &holder, place);
		if (sighting == EO_UNSEEN)
			insert_key(claimer, current, key, rest, rest_nulls, place);
		eo_key_unlock(&tag);
		if (sighting == EO_UNSEEN)
			return EO_CLAIM_NEW;
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
