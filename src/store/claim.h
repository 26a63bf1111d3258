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

/* Returns false if another transaction is registering the owner. */
extern bool eo_claim_try_begin(EoClaimer *claimer, EoFamily family, struct varlena *owner);
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

/*
 * A key that has been claimed, under its lock.  It has more than one row if the
 * generations turned since; they are the same, unless the owner has moved away
 * for so long that some of them were not looked for any more, and back.
 */
typedef struct EoClaimed
{
	LOCKTAG		tag;
	int			nrows;
	EoKeyedTable *rows[EO_CLASSES * EO_GENERATIONS];	/* in their slots */
	bool		ours;			/* claimed or changed by this very transaction */
} EoClaimed;

/*
 * Finds a claimed key.  Waits for transactions that are about to change it, if
 * `wait`; returns EO_UNDECIDED otherwise.  If EO_SEEN is returned, nobody else
 * can change it until eo_claim_let_go().
 */
extern EoSighting eo_claim_find(EoClaimer *claimer, struct varlena *key, bool wait,
								EoClaimed *claimed);

/*
 * Changes what was found, once.  A key that is changed is kept for the owner's
 * window from now on.
 */
extern void eo_claim_change(EoClaimer *claimer, EoClaimed *claimed, struct varlena *key,
							const Datum *rest, const bool *rest_nulls);

/* Removes what was found, as if it had never been claimed. */
extern void eo_claim_remove(EoClaimed *claimed);

extern void eo_claim_let_go(EoClaimed *claimed);

extern int	eo_claim_compare(struct varlena *a, struct varlena *b);

/*
 * Checks a key: an ERROR if it is empty, has more than `max` bytes, or is not
 * printable.  `what` is its name.
 */
extern void eo_claim_check(const char *what, struct varlena *key, int max);

#endif							/* EO_CLAIM_H */
