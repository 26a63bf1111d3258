/*
 * dead_letters.h
 *
 * Events that a broker refused for good, and their second chance.
 */
#ifndef EO_DEAD_LETTERS_H
#define EO_DEAD_LETTERS_H

#include "relay/subscription.h"

/* A publisher refused an event; the dead letter is written later. */
extern void eo_dead_letter_note(EoSubscription *sub, EoInFlight *event, const char *reason);

/* The event was published after all, by a later publisher. */
extern void eo_dead_letter_forget(EoSubscription *sub, int64 seq);
extern bool eo_dead_letter_noted(EoSubscription *sub, int64 seq);

/*
 * Writes the dead letters that the acknowledged cursor has passed, and the
 * outcome of retries, in the caller's transaction with SPI.
 */
extern void eo_dead_letters_write(EoSubscription *sub);

/* That transaction has committed. */
extern void eo_dead_letters_written(EoSubscription *sub);

/* Retries whose outcome has not been written. */
extern bool eo_retries_to_write(EoSubscription *sub);

/* Sends the dead letters that somebody asked for, if it is time to. */
extern void eo_retries_send(EoSubscription *sub);

/* The publisher has ended: what it has not settled will be sent again. */
extern void eo_retries_rewind(EoSubscription *sub);

/* A retry that was sent and is not settled; NULL if there is none. */
extern EoRetry *eo_retry_find(EoSubscription *sub, int64 seq);
extern bool eo_retries_unsettled(EoSubscription *sub);
extern void eo_retry_refused(EoSubscription *sub, EoRetry *retry, const char *reason);

#endif							/* EO_DEAD_LETTERS_H */
