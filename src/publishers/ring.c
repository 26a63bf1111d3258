/*
 * ring.c
 *
 * The events that a publisher has taken and not yet reported.
 *
 * Brokers confirm in any order, the relay wants to know up to where everything
 * is done: entries are marked where they are, and the head moves over the
 * marked ones.  The ring grows to whatever the relay's window allows and stays
 * at that size.
 */
#include "publishers/ring.h"

#include <stdio.h>
#include <stdlib.h>

#define INITIAL_CAPACITY	1024

static RingEntry *
allocate(uint64_t capacity)
{
	RingEntry  *entries = calloc(capacity, sizeof(RingEntry));

	if (entries == NULL)
	{
		fprintf(stderr, "out of memory: cannot track %llu events\n",
				(unsigned long long) capacity);
		exit(1);
	}
	return entries;
}

static inline RingEntry *
slot(const Ring *ring, uint64_t token)
{
	return &ring->entries[token & (ring->capacity - 1)];
}

void
ring_init(Ring *ring)
{
	Ring		empty = {allocate(INITIAL_CAPACITY), INITIAL_CAPACITY, 0, 0, 0, 0};

	*ring = empty;
}

static void
grow(Ring *ring)
{
	Ring		larger = *ring;

	larger.capacity = ring->capacity * 2;
	larger.entries = allocate(larger.capacity);
	for (uint64_t t = ring->head; t < ring->tail; t++)
		*slot(&larger, t) = *slot(ring, t);
	free(ring->entries);
	*ring = larger;
}

uint64_t
ring_push(Ring *ring, int64_t seq, uint32_t bytes, bool retry)
{
	RingEntry  *entry;

	if (ring->tail - ring->head == ring->capacity)
		grow(ring);
	entry = slot(ring, ring->tail);
	entry->seq = seq;
	entry->bytes = bytes;
	entry->retry = retry;
	entry->settled = false;
	ring->unsettled++;
	return ring->tail++;
}

void
ring_unpush(Ring *ring)
{
	ring->tail--;
	ring->unsettled--;
}

RingEntry *
ring_find(Ring *ring, uint64_t token)
{
	RingEntry  *entry;

	if (token < ring->head || token >= ring->tail)
		return NULL;
	entry = slot(ring, token);
	return entry->settled ? NULL : entry;
}

void
ring_settle(Ring *ring, RingEntry *entry)
{
	entry->settled = true;
	ring->unsettled--;
}

void
ring_trim(Ring *ring)
{
	while (ring->head < ring->tail)
	{
		RingEntry  *entry = slot(ring, ring->head);

		if (!entry->settled)
			break;
		if (!entry->retry)
			ring->done_seq = entry->seq;
		ring->head++;
	}
}
