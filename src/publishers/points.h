/*
 * points.h
 *
 * Named points where a test makes a publisher die, fail or stand still.  Test
 * builds have them; in others they are nothing.
 */
#ifndef EO_PUBLISHER_POINTS_H
#define EO_PUBLISHER_POINTS_H

#include "publishers/publisher.h"

#ifdef EO_TEST_SWITCHES

#define PUBLISHER_POINT(pub, name) publisher_point(pub, #name)

extern void publisher_point(Publisher *pub, const char *name);

#else

#define PUBLISHER_POINT(pub, name) ((void) 0)

#endif							/* EO_TEST_SWITCHES */

#endif							/* EO_PUBLISHER_POINTS_H */
