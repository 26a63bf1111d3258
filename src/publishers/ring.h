/*
 * ring.h
 *
 * The events that a publisher has taken and not yet reported, in order.
 */
#ifndef EO_RING_H
#define EO_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct RingEntry
{
	int64_t		seq;
	uint32_t	bytes;			/* of payload */
	bool		retry;			/* EO_EVENT_RETRY */
	bool		settled;
} RingEntry;

/*
 * Tokens count up from 0; token t lies in slot t modulo the capacity.  Entries
 * from head up to tail are in use, and the one at head is not settled.
 */
typedef struct Ring
{
	RingEntry  *entries;
	uint64_t	capacity;		/* a power of two */
	uint64_t	head;
	uint64_t	tail;
	size_t		unsettled;
	int64_t		done_seq;		/* all up to it, retries aside, are settled */
} Ring;

extern void ring_init(Ring *ring);

/* Returns the token. */
extern uint64_t ring_push(Ring *ring, int64_t seq, uint32_t bytes, bool retry);

/* Takes back the push that came last, which must not be settled yet. */
extern void ring_unpush(Ring *ring);

/* NULL if the token does not name an event that waits to be settled. */
extern RingEntry *ring_find(Ring *ring, uint64_t token);

/* Settles an entry found by ring_find(); ring_trim() then moves done_seq. */
extern void ring_settle(Ring *ring, RingEntry *entry);
extern void ring_trim(Ring *ring);

#endif							/* EO_RING_H */
