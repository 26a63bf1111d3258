/*
 * claim.h
 *
 * Claims keys: message ids of a consumer, idempotency keys of a scope.  Each is
 * claimed once.
 */
#ifndef EO_CLAIM_H
#define EO_CLAIM_H

#include "storage/itemptr.h"
#include "store/keyed_table.h"

typedef enum EoClaimResult
{
	EO_CLAIM_NEW,				/* claimed by this transaction, now */
	EO_CLAIM_DUPLICATE,			/* claimed before */
	EO_CLAIM_BUSY				/* another transaction is about to; only where
								 * the caller does not wait */
} EoClaimResult;

/* Where the row of a key is. */
typedef struct EoClaimPlace
{
	Oid			relid;			/* of its generation */
	ItemPointerData tid;
	bool		ours;			/* claimed by this very transaction, before */
} EoClaimPlace;

/* Claims of one owner, by one call. */
typedef struct EoClaimer
{
	EoDatabase *db;
	EoOwner    *owner;
	EoKeyedTable tables[EO_CLASSES][EO_GENERATIONS];
} EoClaimer;

/*
 * Begins to claim keys of an owner, and ends.  In between nothing else may be
 * done that could look owners up.  Everything is allocated in the current
 * memory context.  An ERROR in read-only transactions, on a standby and in
 * parallel workers.
 */
extern void eo_claim_begin(EoClaimer *claimer, EoFamily family, struct varlena *owner);
extern void eo_claim_end(EoClaimer *claimer);

/*
 * Claims a key.  `rest` and `rest_nulls` are the columns after the key.  Waits
 * for transactions that have claimed it and not ended, if `wait`; callers that
 * claim several keys do so in the order of eo_claim_compare(), lest they wait
 * for each other.  `place` may be NULL; it is set for NEW and DUPLICATE.
 *
 * An ERROR (40001) if the key was claimed, or its row changed, by a transaction
 * that this one's snapshot does not see, in REPEATABLE READ and above.
 */
extern EoClaimResult eo_claim_key(EoClaimer *claimer, struct varlena *key,
								  const Datum *rest, const bool *rest_nulls,
								  bool wait, EoClaimPlace *place);

extern int	eo_claim_compare(struct varlena *a, struct varlena *b);

#endif							/* EO_CLAIM_H */
