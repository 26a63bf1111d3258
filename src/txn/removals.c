/*
 * removals.c
 *
 * Where the events of a transaction have set keys free: a stack of removals, in
 * which each points to the one of the same key below it.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "txn/removals.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define INITIAL_REMOVALS	64

typedef struct EoRemoval
{
	uint64		hash;			/* of topic and key */
	int64		offset;
	CommandId	cid;
	int			below;			/* -1: none */
} EoRemoval;

typedef struct Head
{
	uint64		hash;			/* hash key */
	int			latest;
} Head;

static uint64
hash_of(const EoEvent *event)
{
	uint64		topic = hash_bytes_extended((const unsigned char *) VARDATA_ANY(event->topic),
											VARSIZE_ANY_EXHDR(event->topic), 0);

	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(event->key),
							   VARSIZE_ANY_EXHDR(event->key), topic);
}

static void
make_room(EoRemovals *removals)
{
	HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(Head),.hcxt = TopTransactionContext};

	if (removals->heads == NULL)
		removals->heads = hash_create("eo_outbox removals", INITIAL_REMOVALS, &control,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (removals->count < removals->size)
		return;
	removals->size = removals->size ? removals->size * 2 : INITIAL_REMOVALS;
	removals->array = removals->array ?
		repalloc_huge(removals->array, sizeof(EoRemoval) * removals->size) :
		MemoryContextAlloc(TopTransactionContext, sizeof(EoRemoval) * removals->size);
}

void
eo_removals_note(EoRemovals *removals, const EoEvent *event, int64 offset, CommandId cid)
{
	EoRemoval	removal = {.hash = hash_of(event),.offset = offset,.cid = cid};
	Head	   *head;
	bool		found;

	make_room(removals);
	head = hash_search(removals->heads, &removal.hash, HASH_ENTER, &found);
	removal.below = found ? head->latest : -1;
	head->latest = removals->count;
	removals->array[removals->count++] = removal;
}

void
eo_removals_cut(EoRemovals *removals, int64 offset)
{
	while (removals->count > 0 && removals->array[removals->count - 1].offset >= offset)
	{
		EoRemoval  *removal = &removals->array[--removals->count];
		Head	   *head = hash_search(removals->heads, &removal->hash, HASH_FIND, NULL);

		if (removal->below >= 0)
			head->latest = removal->below;
		else
			hash_search(removals->heads, &removal->hash, HASH_REMOVE, NULL);
	}
}

CommandId
eo_removals_latest(const EoRemovals *removals, const EoEvent *event, CommandId after, CommandId before)
{
	CommandId	latest = after;
	uint64		hash;
	Head	   *head;

	if (removals->count == 0 || event->key == NULL)
		return after;
	hash = hash_of(event);
	head = hash_search(removals->heads, &hash, HASH_FIND, NULL);
	for (int i = head ? head->latest : -1; i >= 0; i = removals->array[i].below)
	{
		CommandId	cid = removals->array[i].cid;

		if (cid > latest && cid < before)
			latest = cid;
	}
	return latest;
}
