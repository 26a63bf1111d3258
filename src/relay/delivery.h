/*
 * delivery.h
 *
 * From the log to the publisher: reading, sending, and what is in flight.
 */
#ifndef EO_DELIVERY_H
#define EO_DELIVERY_H

#include "relay/subscription.h"

/* Reads and sends a batch.  Returns true if there is more to do at once. */
extern bool eo_delivery_step(EoSubscription *sub, uint64 ended);

/*
 * Whether the publisher takes more.  If not, what ends that wakes the relay: an
 * answer, room in the socket, or a write of the cursor.
 */
extern bool eo_delivery_can_read(EoSubscription *sub);

/*
 * Whether new events are left in the log for now, since others were sent a
 * moment ago, as of the last step; and when to take another one, which may have
 * passed already.  Settling brings that nearer.
 */
extern bool eo_delivery_gathers(EoSubscription *sub);
extern int64 eo_delivery_gathered_at(EoSubscription *sub);

/* Drops what is in flight and goes back to the acknowledged state. */
extern void eo_delivery_rewind(EoSubscription *sub);

/* Lets the reader go on after seq; nothing may be in flight. */
extern void eo_delivery_seek(EoSubscription *sub, int64 seq);

/*
 * Queues an EVENT frame.  Returns NULL, or why the event cannot be one: it is
 * too large, or its text has no form in UTF-8.
 */
extern const char *eo_delivery_encode(EoSubscription *sub, const EoEvent *event,
							   int64 position, int flags, uint32 *bytes);

/* The entry of a seq, or the oldest one; NULL if there is none. */
extern EoInFlight *eo_in_flight_find(EoSubscription *sub, int64 seq);
extern EoInFlight *eo_in_flight_first(EoSubscription *sub);

/* Settles everything in flight up to seq. */
extern void eo_in_flight_settle(EoSubscription *sub, int64 seq);

/* Creates the topic if need be. */
extern EoTopic *eo_topic(EoSubscription *sub, const char *name, int len);
extern void eo_topic_settled(EoSubscription *sub, EoTopic *topic, int64 position);
extern void eo_topics_each(EoSubscription *sub,
						   void (*visit) (EoSubscription *sub, EoTopic *topic));

#endif							/* EO_DELIVERY_H */
