/*
 * supervision.h
 *
 * The life of a subscription's publisher: start, stop, time limits, end, and
 * what follows from the way it ended.
 */
#ifndef EO_SUPERVISION_H
#define EO_SUPERVISION_H

#include "relay/subscription.h"

/* Starts one, unless it has to wait; on failure the subscription backs off. */
extern void eo_supervision_start(EoSubscription *sub);

/* Asks it to end, if there is one and it was not asked before. */
extern void eo_supervision_stop(EoSubscription *sub);

/*
 * Ends it at once; the arguments are those of printf and say why.  If it was
 * asked to end, that stays the reason.
 */
extern void eo_supervision_break(EoSubscription *sub, EoEnding ending,
								 const char *format,...) pg_attribute_printf(3, 4);

/* It said that it cannot go on, and is about to exit. */
extern void eo_supervision_leaving(EoSubscription *sub, const char *reason);

/* It closed its socket. */
extern void eo_supervision_closed(EoSubscription *sub);

/* An answer is due from now on; and one came. */
extern void eo_supervision_expect_answer(EoSubscription *sub);
extern void eo_supervision_answered(EoSubscription *sub);

/* Notices its end and its time limits. */
extern void eo_supervision_check(EoSubscription *sub);

/* Nothing will be started until somebody changes something. */
extern void eo_supervision_fail(EoSubscription *sub, const char *reason);

/* Something went wrong: waits before the next start. */
extern void eo_supervision_back_off(EoSubscription *sub, const char *reason);

#endif							/* EO_SUPERVISION_H */
