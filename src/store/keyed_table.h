/*
 * keyed_table.h
 *
 * Access to a table whose primary key is an owner's id and a text, in this
 * order, past the executor.
 */
#ifndef EO_KEYED_TABLE_H
#define EO_KEYED_TABLE_H

#include "access/htup.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "storage/lock.h"
#include "store/registry.h"
#include "utils/relcache.h"

/* The columns that every such table begins with */
#define EO_KEY_COLUMNS		2
#define EO_KEYED_COLUMNS_MAX	16

/* The columns of a table, the key included */
typedef struct EoKeyedShape
{
	int			count;
	Oid			types[EO_KEYED_COLUMNS_MAX];
} EoKeyedShape;

typedef struct EoKeyedTable
{
	Relation	rel;			/* NULL: not open */
	Relation	index;			/* the primary key */
	List	   *indexes;		/* OIDs of all of them */
	const EoKeyedShape *shape;
	TupleTableSlot *slot;		/* what eo_keyed_look() has found */
	LOCKMODE	lockmode;
} EoKeyedTable;

/* What is known of a key */
typedef enum EoSighting
{
	EO_UNSEEN,
	EO_SEEN,					/* committed, or our own */
	EO_UNDECIDED				/* of a transaction that has not ended */
} EoSighting;

/*
 * The lock of a key: who holds it is the only one to look for the key and then
 * to insert or change its row.  Not to be held while waiting for a transaction.
 * Released at the end of the transaction at the latest.
 */
extern void eo_key_lock(LOCKTAG *tag, const EoOwner *owner, struct varlena *key);
extern void eo_key_unlock(const LOCKTAG *tag);

/*
 * Opens a table, or gets a stronger lock on it.  An ERROR if it has not the
 * columns that it ought to have.
 */
extern void eo_keyed_open(EoKeyedTable *table, Oid relid, const EoKeyedShape *shape,
						  LOCKMODE lockmode);

/*
 * Locks on tables that were only read are given back, so that a transaction
 * that lasts does not keep them from being truncated.
 */
extern void eo_keyed_close(EoKeyedTable *table);

/*
 * Looks for a key, in the slot if it is there.  EO_UNDECIDED sets *holder to
 * the transaction that has inserted, changed or deleted the row.  An ERROR
 * (40001), in REPEATABLE READ and above, if the transaction's snapshot does not
 * show the row.
 */
extern EoSighting eo_keyed_look(EoKeyedTable *table, int32 owner, struct varlena *key,
								TransactionId *holder);

/* Whether what was found was inserted by this very transaction. */
extern bool eo_keyed_is_ours(EoKeyedTable *table);

/*
 * Inserts a row.  `rest` and `rest_nulls` are the columns after the key.
 * Returns the tuple, palloc'd.  If the caller has not `looked`, NULL where the
 * key may be there, which a look would tell: to find out in this way costs less
 * if it is not, and leaves a dead row if it is.
 */
extern HeapTuple eo_keyed_insert(EoKeyedTable *table, int32 owner, struct varlena *key,
								 const Datum *rest, const bool *rest_nulls, bool looked);

/* Replaces the row that was found, key and all. */
extern void eo_keyed_update(EoKeyedTable *table, int32 owner, struct varlena *key,
							const Datum *rest, const bool *rest_nulls);

/* Deletes the row that was found. */
extern void eo_keyed_delete(EoKeyedTable *table);

#endif							/* EO_KEYED_TABLE_H */
