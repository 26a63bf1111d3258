/*
 * backoff.h
 *
 * When to try again, and when to give up.
 *
 * Plain C and pure but for eo_clock_ms(): callers pass the time and the random
 * number, so that tests run on a clock of their own.
 */
#ifndef EO_BACKOFF_H
#define EO_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds on a clock that never jumps. */
extern int64_t eo_clock_ms(void);

/* A point in time that never comes. */
#define EO_NEVER	INT64_MAX

/* A delay that doubles with every attempt up to a limit, with jitter. */
typedef struct EoBackoff
{
	int64_t		first_ms;
	int64_t		limit_ms;
	unsigned	attempts;
} EoBackoff;

extern void eo_backoff_init(EoBackoff *backoff, int64_t first_ms, int64_t limit_ms);
extern void eo_backoff_reset(EoBackoff *backoff);

/*
 * The next delay: between half and all of the doubled one.  `random` is in
 * [0, 1).
 */
extern int64_t eo_backoff_next(EoBackoff *backoff, double random);

/* The most crashes that a window can count. */
#define EO_CRASH_LIMIT	1000

/* The times of the latest crashes, in a ring. */
typedef struct EoCrashWindow
{
	int64_t		times[EO_CRASH_LIMIT + 1];
	unsigned	count;			/* of valid times */
	unsigned	next;			/* where the next one goes */
} EoCrashWindow;

extern void eo_crash_window_reset(EoCrashWindow *window);

/*
 * Notes a crash.  Returns true if it is one more than `limit` within the last
 * window_ms.
 */
extern bool eo_crash_window_note(EoCrashWindow *window, int64_t now_ms,
								 unsigned limit, int64_t window_ms);

#endif							/* EO_BACKOFF_H */
