/*
 * backoff.c
 *
 * When to try again, and when to give up.
 */
#include "relay/backoff.h"

#include <time.h>

int64_t
eo_clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void
eo_backoff_init(EoBackoff *backoff, int64_t first_ms, int64_t limit_ms)
{
	backoff->first_ms = first_ms;
	backoff->limit_ms = limit_ms;
	backoff->attempts = 0;
}

void
eo_backoff_reset(EoBackoff *backoff)
{
	backoff->attempts = 0;
}

int64_t
eo_backoff_next(EoBackoff *backoff, double random)
{
	int64_t		delay = backoff->first_ms;
	int64_t		half;

	for (unsigned i = 0; i < backoff->attempts && delay < backoff->limit_ms; i++)
		delay *= 2;
	if (delay > backoff->limit_ms)
		delay = backoff->limit_ms;
	if (delay < backoff->limit_ms)
		backoff->attempts++;
	half = delay / 2;
	return delay - (int64_t) (random * (double) half);
}

void
eo_crash_window_reset(EoCrashWindow *window)
{
	window->count = 0;
	window->next = 0;
}

bool
eo_crash_window_note(EoCrashWindow *window, int64_t now_ms, unsigned limit,
					 int64_t window_ms)
{
	const unsigned size = EO_CRASH_LIMIT + 1;
	int64_t		earlier;

	if (limit > EO_CRASH_LIMIT)
		limit = EO_CRASH_LIMIT;
	window->times[window->next] = now_ms;
	window->next = (window->next + 1) % size;
	if (window->count < size)
		window->count++;
	if (window->count <= limit)
		return false;

	/* The crash `limit` before this one: limit + 1 in all */
	earlier = window->times[(window->next + size - 1 - limit) % size];
	return now_ms - earlier <= window_ms;
}
