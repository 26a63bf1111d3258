/*
 * idempotency.c
 *
 * Idempotency keys.
 *
 * A key is claimed by the row that says so (store/claim.c), in one of two ways.
 *
 * In the transaction that does the work.  The row comes to be with the effect,
 * by the same commit; a crash or rollback takes both.  Whoever comes meanwhile
 * waits for that transaction.
 *
 * With a lease, in a transaction of its own, for work that is not of one
 * transaction.  The row is committed and carries a token; who has the token may
 * complete or release the key.  Whoever comes meanwhile waits for that, or for
 * the lease to end, and then takes over with another token, so that the first
 * one's completion is refused.
 *
 * Rows are read and changed under the lock of their key and by a dirty
 * snapshot: what counts is the latest version.  One of a transaction that has
 * not ended is waited for; one that this transaction's snapshot does not show,
 * above READ COMMITTED, is an error (40001), as for any row.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "store/catalog.h"
#include "store/claim.h"
#include "store/tally.h"
#include "txn/fingerprint.h"
#include "txn/idempotency.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/multirangetypes.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#define KEY_MAX				255		/* bytes; all of it stands in an index */

#define STATE_CLAIMED		'r'
#define STATE_DONE			'd'

/* The columns of a row after the key */
enum
{
	FINGERPRINT, STATE, CODE, RESPONSE, TOKEN, LEASE_UNTIL, RECOVERY_POINT, CLAIMED_AT, COLUMNS
};

typedef struct Row
{
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS];
} Row;

/* Columns of eo.idempotency_scope */
enum
{
	SCOPE_ID = 1, SCOPE_KEEP_FOR = 3, SCOPE_RELEASE_CODES = 8
};

/* A call of eo_idempotency_begin() */
typedef struct Attempt
{
	struct varlena *scope;
	struct varlena *key;
	bytea	   *fingerprint;	/* or NULL */
	bool		wait;
	Interval   *lease;			/* or NULL */
	bool		counted;		/* as a repeat */
	TimestampTz lease_until;	/* of who has the key */
} Attempt;

/* What became of it */
typedef enum Outcome
{
	SETTLED,					/* claimed, or answered */
	LEASED,						/* to somebody, until lease_until */
	GONE						/* the key is free again */
} Outcome;

/* Others may wait for what this transaction has done to a lease. */
static bool lease_changed = false;

/*----------
 * Refusals
 *----------
 */

static void
refuse_in_use(struct varlena *key, const char *detail)
{
	ereport(ERROR,
			(errcode(EO_ERRCODE_KEY_IN_USE),
			 errmsg("idempotency key \"%s\" is in use", text_to_cstring(key)),
			 errdetail_internal("%s", detail),
			 errhint("A handler of HTTP requests answers 409 Conflict to this.")));
}

static void
refuse_other_request(struct varlena *key)
{
	ereport(ERROR,
			(errcode(EO_ERRCODE_OTHER_REQUEST),
			 errmsg("idempotency key \"%s\" was used for another request", text_to_cstring(key)),
			 errhint("A handler of HTTP requests answers 422 Unprocessable Content to this.")));
}

static void
refuse_lost(struct varlena *key, const char *detail)
{
	ereport(ERROR,
			(errcode(EO_ERRCODE_LEASE_LOST),
			 errmsg("lease of idempotency key \"%s\" is lost", text_to_cstring(key)),
			 errdetail_internal("%s", detail),
			 errhint("Roll back: what this request does is for the one that has taken over.")));
}

static void
refuse_not_ours(struct varlena *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("idempotency key \"%s\" was not claimed by this transaction", text_to_cstring(key)),
			 errhint("If it was claimed with a lease, pass the token that eo.idempotency_begin() returned.")));
}

static void
refuse_completed(struct varlena *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("idempotency key \"%s\" has been completed", text_to_cstring(key)),
			 errdetail("Its answer is stored and does not change.")));
}

/*----------
 * Scopes
 *----------
 */

/* A column of the row of a scope, as it is now. */
static Datum
scope_setting(const EoOwner *owner, int column)
{
	Oid			schema = eo_catalog_required()->schema;
	Relation	rel = table_open(get_relname_relid("idempotency_scope", schema), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Datum		value;
	bool		isnull;

	ScanKeyInit(&key, SCOPE_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(owner->id));
	scan = systable_beginscan(rel, get_relname_relid("idempotency_scope_pkey", schema),
							  true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		eo_owner_refuse_dropped(owner);
	value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);
	value = datumCopy(value, false, TupleDescAttr(RelationGetDescr(rel), column - 1)->attlen);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return value;
}

/* Whether this code gives the key back instead of being stored. */
static bool
code_releases(const EoOwner *owner, int32 code)
{
	MultirangeType *codes = DatumGetMultirangeTypeP(scope_setting(owner, SCOPE_RELEASE_CODES));
	TypeCacheEntry *type = lookup_type_cache(INT4MULTIRANGEOID, TYPECACHE_MULTIRANGE_INFO);

	return multirange_contains_elem_internal(type->rngtype, codes, Int32GetDatum(code));
}

static TimestampTz
after(TimestampTz start, Datum interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(start), interval));
}

/*
 * When a lease that begins now ends.  It must end before the key is forgotten,
 * or there could be two that have it.
 */
static TimestampTz
lease_end(const EoOwner *owner, Interval *lease)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end = after(now, IntervalPGetDatum(lease));

	if (end <= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be longer than zero")));
	if (end > after(now, scope_setting(owner, SCOPE_KEEP_FOR)) || TIMESTAMP_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease is longer than scope \"%s\" keeps its keys", owner->name),
				 errhint("Extend a shorter one by eo.idempotency_checkpoint(), or change the scope by eo.create_idempotency_scope().")));
	return end;
}

/*----------
 * Rows
 *----------
 */

static void
set_column(Row *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

/* A row of a key that is claimed now; without a lease if that is NULL. */
static void
claimed_row(const EoOwner *owner, const Attempt *attempt, Row *row)
{
	memset(row->values, 0, sizeof(row->values));
	memset(row->nulls, true, sizeof(row->nulls));
	set_column(row, STATE, CharGetDatum(STATE_CLAIMED));
	set_column(row, CLAIMED_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	if (attempt->fingerprint != NULL)
		set_column(row, FINGERPRINT, PointerGetDatum(attempt->fingerprint));
	if (attempt->lease != NULL)
	{
		set_column(row, TOKEN, OidFunctionCall0(F_GEN_RANDOM_UUID));
		set_column(row, LEASE_UNTIL, TimestampTzGetDatum(lease_end(owner, attempt->lease)));
	}
}

static char
state_of(const Row *row)
{
	return DatumGetChar(row->values[STATE]);
}

/* Copies a row that was found. */
static void
copy_row(TupleTableSlot *slot, Row *row)
{
	for (int i = 0; i < COLUMNS; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(slot->tts_tupleDescriptor, EO_KEY_COLUMNS + i);

		row->values[i] = slot_getattr(slot, attr->attnum, &row->nulls[i]);
		if (!row->nulls[i])
			row->values[i] = datumCopy(row->values[i], attr->attbyval, attr->attlen);
	}
}

/* Whether a row tells what has become of a key later than another one. */
static bool
is_later(const Row *row, const Row *than)
{
	int64		later = DatumGetTimestampTz(row->values[CLAIMED_AT]) - DatumGetTimestampTz(than->values[CLAIMED_AT]);

	if (later == 0)
		later = (state_of(row) == STATE_DONE) - (state_of(than) == STATE_DONE);
	if (later == 0 && !row->nulls[LEASE_UNTIL] && !than->nulls[LEASE_UNTIL])
		later = DatumGetTimestampTz(row->values[LEASE_UNTIL]) - DatumGetTimestampTz(than->values[LEASE_UNTIL]);
	return later > 0;
}

/*
 * Reads what was found.  Of a scope that has moved away and back, there may be
 * rows that nobody saw in between, and that are not like the others.
 */
static void
read_row(const EoClaimed *claimed, Row *row)
{
	Row			other;

	copy_row(claimed->rows[0]->slot, row);
	for (int i = 1; i < claimed->nrows; i++)
	{
		copy_row(claimed->rows[i]->slot, &other);
		if (is_later(&other, row))
			*row = other;
	}
}

static Jsonb *
response_of(const Row *row)
{
	return row->nulls[RESPONSE] ? NULL : DatumGetJsonbP(row->values[RESPONSE]);
}

static void
begin_claims(EoClaimer *claimer, const Attempt *attempt)
{
	if (attempt->wait)
		eo_claim_begin(claimer, EO_IDEMPOTENCY, attempt->scope);
	else if (!eo_claim_try_begin(claimer, EO_IDEMPOTENCY, attempt->scope))
		refuse_in_use(attempt->key, "Its scope is being registered by a transaction that has not ended.");
}

/*----------
 * Beginning
 *----------
 */

/* Claims the key if nobody has. */
static bool
claim(Attempt *attempt, EoIdempotencyAnswer *answer)
{
	EoClaimer	claimer;
	EoClaimResult result;
	Row			row;

	begin_claims(&claimer, attempt);
	claimed_row(claimer.owner, attempt, &row);

	/* Never waits here, since a lease has begun. */
	result = eo_claim_key(&claimer, attempt->key, row.values, row.nulls, false, NULL);
	eo_claim_end(&claimer);
	if (result == EO_CLAIM_DUPLICATE)
		attempt->counted = true;
	if (result != EO_CLAIM_NEW)
		return false;
	answer->is_new = true;
	if (!row.nulls[TOKEN])
		answer->token = DatumGetUUIDP(row.values[TOKEN]);
	return true;
}

/* The lease is over, and nobody has completed or released the key. */
static void
take_over(EoClaimer *claimer, EoClaimed *claimed, const Attempt *attempt, const Row *found,
		  EoIdempotencyAnswer *answer)
{
	Row			row;

	claimed_row(claimer->owner, attempt, &row);
	if (row.nulls[FINGERPRINT] && !found->nulls[FINGERPRINT])
		set_column(&row, FINGERPRINT, found->values[FINGERPRINT]);
	if (!found->nulls[RECOVERY_POINT])
	{
		set_column(&row, RECOVERY_POINT, found->values[RECOVERY_POINT]);
		answer->recovery_point = DatumGetTextPCopy(found->values[RECOVERY_POINT]);
	}
	eo_claim_change(claimer, claimed, attempt->key, row.values, row.nulls);
	answer->is_new = true;
	if (!row.nulls[TOKEN])
		answer->token = DatumGetUUIDP(row.values[TOKEN]);
}

static void
replay(const Row *row, EoIdempotencyAnswer *answer)
{
	answer->has_answer = state_of(row) == STATE_DONE;
	if (!answer->has_answer)
		return;
	answer->code = DatumGetInt32(row->values[CODE]);
	answer->response = response_of(row);
}

/* What to do about a claim that was found.  Caller holds the lock of the key. */
static Outcome
judge(EoClaimer *claimer, EoClaimed *claimed, Attempt *attempt, EoIdempotencyAnswer *answer)
{
	Row			row;

	read_row(claimed, &row);
	if (attempt->fingerprint != NULL && !row.nulls[FINGERPRINT] &&
		!eo_fingerprint_equal(attempt->fingerprint, DatumGetByteaPP(row.values[FINGERPRINT])))
		refuse_other_request(attempt->key);
	if (state_of(&row) == STATE_CLAIMED && claimed->ours)
		refuse_in_use(attempt->key, "It has been claimed by this very transaction.");

	/* Done, or committed as it is: the work was, if not the answer. */
	if (state_of(&row) == STATE_DONE || row.nulls[LEASE_UNTIL])
		replay(&row, answer);
	else if ((attempt->lease_until = DatumGetTimestampTz(row.values[LEASE_UNTIL])) > GetCurrentTimestamp())
		return LEASED;
	else
		take_over(claimer, claimed, attempt, &row, answer);
	return SETTLED;
}

/* Looks at the claim of somebody else. */
static Outcome
meet(Attempt *attempt, EoIdempotencyAnswer *answer)
{
	EoClaimer	claimer;
	EoClaimed	claimed;
	EoSighting	sighting;
	Outcome		outcome = GONE;

	begin_claims(&claimer, attempt);
	sighting = eo_claim_find(&claimer, attempt->key, attempt->wait, &claimed);
	if (sighting == EO_UNDECIDED)
		refuse_in_use(attempt->key, "It has been claimed by a transaction that has not ended.");
	if (sighting == EO_SEEN)
	{
		outcome = judge(&claimer, &claimed, attempt, answer);
		eo_claim_let_go(&claimed);
		if (!attempt->counted)
			eo_tally_repeat(claimer.owner);
		attempt->counted = true;
	}
	eo_claim_end(&claimer);
	if (outcome == LEASED && !attempt->wait)
		refuse_in_use(attempt->key, psprintf("Its lease lasts until %s.",
											 timestamptz_to_str(attempt->lease_until)));
	return outcome;
}

/*
 * Waits until something has happened to a lease since `changes`, or the lease
 * is over.  This counts as a wait for a lock, which must end by `give_up`.
 */
static void
wait_for_lease(EoDatabase *db, uint64 changes, TimestampTz lease_until, TimestampTz give_up)
{
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now >= give_up)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("canceling statement due to lock timeout")));
		if (now >= lease_until || pg_atomic_read_u64(&db->lease_changes) != changes)
			break;
		(void) ConditionVariableTimedSleep(&db->leases_changed,
										   TimestampDifferenceMilliseconds(now, Min(lease_until, give_up)),
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* Waits for claims of others until there is none any more. */
static Outcome
meet_and_wait(Attempt *attempt, EoIdempotencyAnswer *answer)
{
	EoDatabase *db = eo_my_database();
	TimestampTz give_up = 0;

	for (;;)
	{
		uint64		changes = pg_atomic_read_u64(&db->lease_changes);
		Outcome		outcome = meet(attempt, answer);

		if (outcome != LEASED)
			return outcome;
		if (give_up == 0)
			give_up = LockTimeout > 0 ?
				TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LockTimeout) : DT_NOEND;
		wait_for_lease(db, changes, attempt->lease_until, give_up);
	}
}

void
eo_idempotency_begin(struct varlena *scope, struct varlena *key, Jsonb *request, bool wait,
					 Interval *lease, EoIdempotencyAnswer *answer)
{
	Attempt		attempt = {.scope = scope,.key = key,.wait = wait,.lease = lease};

	eo_claim_check("idempotency key", key, KEY_MAX);
	memset(answer, 0, sizeof(EoIdempotencyAnswer));
	if (request != NULL)
		attempt.fingerprint = eo_fingerprint(request);
	while (!claim(&attempt, answer) && meet_and_wait(&attempt, answer) == GONE)
		CHECK_FOR_INTERRUPTS();
}

/*----------
 * Ending
 *----------
 */

static void
check_token(const EoClaimed *claimed, const Row *row, struct varlena *key, const pg_uuid_t *token)
{
	if (token == NULL)
	{
		if (!claimed->ours)
			refuse_not_ours(key);
	}
	else if (row->nulls[TOKEN] ||
			 memcmp(DatumGetUUIDP(row->values[TOKEN]), token, sizeof(pg_uuid_t)) != 0)
		refuse_lost(key, "The token is not that of its holder, or not any more.");
}

/*
 * Begins to change the row of a key that the caller must hold; an ERROR if it
 * does not.  end_change() has to follow.
 */
static void
begin_change(EoClaimer *claimer, struct varlena *scope, struct varlena *key,
			 const pg_uuid_t *token, EoClaimed *claimed, Row *row)
{
	eo_claim_check("idempotency key", key, KEY_MAX);
	eo_claim_begin(claimer, EO_IDEMPOTENCY, scope);

	/* What is undecided is of another transaction; only a token waits for it. */
	switch (eo_claim_find(claimer, key, token != NULL, claimed))
	{
		case EO_UNSEEN:
			if (token != NULL)
				refuse_lost(key, "The key is not claimed by anybody.");
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("idempotency key \"%s\" is not claimed", text_to_cstring(key)),
					 errhint("Call eo.idempotency_begin() before, in the same transaction.")));
			break;
		case EO_UNDECIDED:
			refuse_not_ours(key);
			break;
		case EO_SEEN:
			read_row(claimed, row);
			check_token(claimed, row, key, token);
			break;
	}
}

static void
end_change(EoClaimer *claimer, EoClaimed *claimed, const Row *row)
{
	if (!row->nulls[TOKEN])
		lease_changed = true;
	eo_claim_let_go(claimed);
	eo_claim_end(claimer);
}

/* To complete twice with the same answer is no error: the first may have got lost. */
static bool
same_answer(const Row *row, const Jsonb *response, int32 code)
{
	Jsonb	   *stored = response_of(row);

	if (DatumGetInt32(row->values[CODE]) != code || (stored == NULL) != (response == NULL))
		return false;
	return stored == NULL ||
		compareJsonbContainers((JsonbContainer *) &stored->root,
							   (JsonbContainer *) &response->root) == 0;
}

void
eo_idempotency_complete(struct varlena *scope, struct varlena *key, Jsonb *response, int32 code,
						pg_uuid_t *token)
{
	EoClaimer	claimer;
	EoClaimed	claimed;
	Row			row;

	begin_change(&claimer, scope, key, token, &claimed, &row);
	if (state_of(&row) == STATE_DONE)
	{
		if (!same_answer(&row, response, code))
			refuse_completed(key);
	}
	else if (code_releases(claimer.owner, code))
		eo_claim_remove(&claimed);
	else
	{
		set_column(&row, STATE, CharGetDatum(STATE_DONE));
		set_column(&row, CODE, Int32GetDatum(code));
		if (response != NULL)
			set_column(&row, RESPONSE, JsonbPGetDatum(response));
		row.nulls[LEASE_UNTIL] = row.nulls[RECOVERY_POINT] = true;
		eo_claim_change(&claimer, &claimed, key, row.values, row.nulls);
	}
	end_change(&claimer, &claimed, &row);
}

void
eo_idempotency_release(struct varlena *scope, struct varlena *key, pg_uuid_t *token)
{
	EoClaimer	claimer;
	EoClaimed	claimed;
	Row			row;

	begin_change(&claimer, scope, key, token, &claimed, &row);
	/* Of this transaction it is undone; others may have seen that of an earlier one. */
	if (state_of(&row) == STATE_DONE && !claimed.ours)
		refuse_completed(key);
	eo_claim_remove(&claimed);
	end_change(&claimer, &claimed, &row);
}

void
eo_idempotency_checkpoint(struct varlena *scope, struct varlena *key, text *recovery_point,
						  pg_uuid_t *token, Interval *lease)
{
	EoClaimer	claimer;
	EoClaimed	claimed;
	Row			row;

	begin_change(&claimer, scope, key, token, &claimed, &row);
	if (state_of(&row) == STATE_DONE)
		refuse_completed(key);
	if (lease != NULL)
	{
		if (row.nulls[TOKEN])
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("idempotency key \"%s\" has no lease", text_to_cstring(key)),
					 errhint("Only a lease that eo.idempotency_begin() has given can be extended.")));
		set_column(&row, LEASE_UNTIL, TimestampTzGetDatum(lease_end(claimer.owner, lease)));
	}
	if (recovery_point != NULL)
		set_column(&row, RECOVERY_POINT, PointerGetDatum(recovery_point));
	eo_claim_change(&claimer, &claimed, key, row.values, row.nulls);
	end_change(&claimer, &claimed, &row);
}

/*
 * Those who wait look again.  At PREPARE, too: they find whom to wait for then,
 * and nobody would tell them of its end.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	EoDatabase *db;

	if (lease_changed && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE) &&
		(db = eo_database_slot(MyDatabaseId, false)) != NULL)
		eo_leases_changed(db);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE || event == XACT_EVENT_ABORT)
		lease_changed = false;
}

void
eo_idempotency_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
