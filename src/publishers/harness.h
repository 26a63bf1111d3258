/*
 * harness.h
 *
 * What the stub needs beyond publisher.h in order to misbehave.  No publisher
 * that means well includes this.
 */
#ifndef EO_HARNESS_H
#define EO_HARNESS_H

#include "publishers/publisher.h"

/* Puts bytes between two frames of the output, and sends them soon. */
extern void harness_send_raw(Publisher *pub, const void *data, size_t len);

/* Sends an ACK for what is settled, and all that waits; may block. */
extern void harness_send_now(Publisher *pub);

#endif							/* EO_HARNESS_H */
