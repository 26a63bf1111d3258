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

/* The same, and returns when the relay's end of the socket has them. */
extern void harness_send_now(Publisher *pub);

#endif							/* EO_HARNESS_H */
