/*
 * replies.h
 *
 * What publishers say.
 */
#ifndef EO_REPLIES_H
#define EO_REPLIES_H

#include "relay/subscription.h"

/* Reads what has come, for a turn, and acts on it.  Never waits. */
extern void eo_replies_read(EoSubscription *sub);

/* The same for standard error, whose lines go to the server's log. */
extern void eo_replies_read_errors(EoSubscription *sub);

#endif							/* EO_REPLIES_H */
