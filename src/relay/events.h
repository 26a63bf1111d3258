/*
 * events.h
 *
 * The one place where the relay waits.
 */
#ifndef EO_EVENTS_H
#define EO_EVENTS_H

/*
 * Waits for the latch, a publisher, the end of the postmaster or `timeout`
 * milliseconds (-1: for ever), and tells subscriptions what came for them.
 */
extern void eo_events_wait(long timeout);

#endif							/* EO_EVENTS_H */
