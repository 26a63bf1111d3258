/*
 * subscriptions.h
 *
 * The relay's list of subscriptions, as configured in the tables.
 */
#ifndef EO_SUBSCRIPTIONS_H
#define EO_SUBSCRIPTIONS_H

#include "relay/subscription.h"

/*
 * Brings the list in line with the tables.  Returns false if one of them is
 * locked, and the call has to be repeated later.
 */
extern bool eo_subscriptions_load(void);

/*
 * The lowest durable cursor of all subscriptions, from the table: those that
 * the relay has not heard of yet count too.  In the caller's transaction, with
 * SPI.
 */
extern int64 eo_subscriptions_low_seq(void);

#endif							/* EO_SUBSCRIPTIONS_H */
