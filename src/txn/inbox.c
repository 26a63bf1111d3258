/*
 * inbox.c
 *
 * Receives messages once.
 *
 * By id: the id is claimed for the consumer (store/claim.c), in the caller's
 * transaction, so that effect and record are there both or neither.
 *
 * By position: one row for consumer and source holds the last position.  It is
 * locked until the caller's transaction ends, so the messages of a source are
 * taken one transaction at a time, in order.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "points.h"
#include "storage/lmgr.h"
#include "store/claim.h"
#include "store/generations.h"
#include "store/tally.h"
#include "txn/causation.h"
#include "txn/inbox.h"

/* In bytes; all of it stands in an index. */
#define MESSAGE_ID_MAX		1024

static const EoKeyedShape position_shape = {3, {INT4OID, TEXTOID, INT8OID}};

/*----------
 * By id
 *----------
 */

void
eo_inbox_check_id(struct varlena *message_id)
{
	eo_claim_check("message id", message_id, MESSAGE_ID_MAX);
}

bool
eo_inbox_receive_row(struct varlena *consumer, struct varlena *message_id)
{
	EoClaimer	claimer;
	EoClaimResult result;

	eo_inbox_check_id(message_id);
	eo_claim_begin(&claimer, EO_INBOX, consumer);
	result = eo_claim_key(&claimer, message_id, NULL, NULL, true, NULL);
	eo_claim_end(&claimer);
	EO_POINT(received);
	return result == EO_CLAIM_NEW;
}

bool
eo_inbox_receive(struct varlena *consumer, struct varlena *message_id, Jsonb *headers)
{
	if (!eo_inbox_receive_row(consumer, message_id))
		return false;
	eo_causation_set(message_id, headers);
	return true;
}

/* One of a batch, and its place in it */
typedef struct BatchItem
{
	struct varlena *message_id;
	int			place;
} BatchItem;

static int
compare_items(const void *a, const void *b)
{
	const BatchItem *left = a;
	const BatchItem *right = b;
	int			result = eo_claim_compare(left->message_id, right->message_id);

	return result != 0 ? result : left->place - right->place;
}

void
eo_inbox_receive_batch(struct varlena *consumer, struct varlena **message_ids, int count,
					   bool *is_new)
{
	BatchItem  *items = palloc(sizeof(BatchItem) * Max(count, 1));
	EoClaimer	claimer;

	for (int i = 0; i < count; i++)
	{
		eo_inbox_check_id(message_ids[i]);
		items[i].message_id = message_ids[i];
		items[i].place = i;
	}
	/* In one order for all, so that batches do not wait for each other in turn. */
	qsort(items, count, sizeof(BatchItem), compare_items);
	eo_claim_begin(&claimer, EO_INBOX, consumer);
	for (int i = 0; i < count; i++)
	{
		bool	   *result = &is_new[items[i].place];

		CHECK_FOR_INTERRUPTS();
		*result = false;
		if (i == 0 || eo_claim_compare(items[i - 1].message_id, items[i].message_id) != 0)
			*result = eo_claim_key(&claimer, items[i].message_id, NULL, NULL,
								   true, NULL) == EO_CLAIM_NEW;
	}
	eo_claim_end(&claimer);
	pfree(items);
}

/*----------
 * By position
 *----------
 */

static EoPositionResult
compare_positions(int64 position, int64 last, bool dense)
{
	if (position <= last)
		return EO_POSITION_DUPLICATE;
	return dense && position != last + 1 ? EO_POSITION_GAP : EO_POSITION_NEW;
}

/* Where the one that is stored is final.  Caller holds the lock of the key. */
static EoPositionResult
take_position(EoKeyedTable *table, const EoOwner *owner, struct varlena *source,
			  int64 position, bool dense)
{
	EoPositionResult result;
	bool		isnull;
	Datum		value = Int64GetDatum(position);

	result = compare_positions(position, DatumGetInt64(slot_getattr(table->slot, 3, &isnull)), dense);
	if (result == EO_POSITION_NEW)
		eo_keyed_update(table, owner->id, source, &value, &isnull);
	else if (result == EO_POSITION_DUPLICATE)
		eo_tally_repeat(owner);
	return result;
}

/*
 * Caller holds the lock of the key.  eo.drop_consumer() deletes the row; that
 * there is none says nothing unless the consumer is still the same.
 */
static EoSighting
look_for_source(EoKeyedTable *table, EoOwner *owner, struct varlena *source, TransactionId *holder)
{
	EoSighting	sighting;
	int32		id;

	if (!eo_owner_refresh(owner))
		eo_owner_refuse_dropped(owner);
	id = owner->id;
	eo_keyed_open(table, eo_received_position_relid(), &position_shape, RowExclusiveLock);
	sighting = eo_keyed_look(table, id, source, holder);
	if (sighting == EO_UNSEEN && (!eo_owner_refresh(owner) || owner->id != id))
		eo_owner_refuse_dropped(owner);
	return sighting;
}

EoPositionResult
eo_inbox_receive_at(struct varlena *consumer, struct varlena *source, int64 position, bool dense)
{
	EoOwner    *owner;
	EoKeyedTable table = {0};
	EoPositionResult result = EO_POSITION_NEW;
	EoSighting	sighting;
	LOCKTAG		tag;

	eo_claim_check("source", source, MESSAGE_ID_MAX);
	PreventCommandIfReadOnly("receiving messages");
	PreventCommandIfParallelMode("receiving messages");
	PreventCommandDuringRecovery("receiving messages");
	owner = eo_owner(EO_INBOX, consumer);
	for (;;)
	{
		TransactionId holder = InvalidTransactionId;

		eo_key_lock(&tag, owner, source);
		sighting = look_for_source(&table, owner, source, &holder);
		if (sighting == EO_SEEN)
			result = take_position(&table, owner, source, position, dense);
		else if (sighting == EO_UNSEEN)
		{
			Datum		value = Int64GetDatum(position);
			bool		isnull = false;

			heap_freetuple(eo_keyed_insert(&table, owner->id, source, &value, &isnull, true));
		}
		EO_POINT(received_at);
		eo_key_unlock(&tag);
		if (sighting != EO_UNDECIDED)
			break;
		XactLockTableWait(holder, NULL, NULL, XLTW_None);
	}
	eo_keyed_close(&table);
	return result;
}
