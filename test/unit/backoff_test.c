/*
 * backoff_test.c
 *
 * Delays and crash windows, on a clock of its own.
 */
#include "relay/backoff.h"
#include "tap.h"

static void
test_delays(void)
{
	static const int64_t expected[] = {100, 200, 400, 800, 1000, 1000, 1000};
	EoBackoff	backoff;
	bool		good = true;

	eo_backoff_init(&backoff, 100, 1000);
	for (int i = 0; i < 7; i++)
		good &= eo_backoff_next(&backoff, 0) == expected[i];
	ok(good, "delays double up to the limit");

	for (int i = 0; i < 1000; i++)
		good &= eo_backoff_next(&backoff, i / 1000.0) <= 1000;
	ok(good, "and stay there");

	eo_backoff_reset(&backoff);
	ok(eo_backoff_next(&backoff, 0) == 100, "a reset begins anew");

	for (int i = 0; i < 1000; i++)
	{
		int64_t		delay;

		eo_backoff_reset(&backoff);
		delay = eo_backoff_next(&backoff, i / 1000.0);
		good &= delay > 50 && delay <= 100;
	}
	ok(good, "jitter takes off less than half");

	eo_backoff_init(&backoff, 100, INT64_MAX / 2);
	for (int i = 0; i < 200; i++)
		good &= eo_backoff_next(&backoff, 0.5) > 0;
	ok(good, "no overflow with a limit beyond all reason");
}

static void
test_windows(void)
{
	static EoCrashWindow window;
	bool		good = true;

	eo_crash_window_reset(&window);
	ok(eo_crash_window_note(&window, 0, 0, 1000), "with limit 0 the first crash is one too many");

	eo_crash_window_reset(&window);
	good &= !eo_crash_window_note(&window, 0, 2, 1000);
	good &= !eo_crash_window_note(&window, 400, 2, 1000);
	ok(good, "two of two are allowed");
	ok(eo_crash_window_note(&window, 1000, 2, 1000), "the third within the window is not");
	ok(!eo_crash_window_note(&window, 1401, 2, 1000), "one later is, for the first is forgotten");
	ok(eo_crash_window_note(&window, 1402, 2, 1000), "another is not");

	eo_crash_window_reset(&window);
	ok(!eo_crash_window_note(&window, 1403, 2, 1000), "a reset forgives");

	eo_crash_window_reset(&window);
	for (int i = 0; i < EO_CRASH_LIMIT; i++)
		good &= !eo_crash_window_note(&window, i, EO_CRASH_LIMIT, 1000000);
	ok(good, "as many as can be counted");
	ok(eo_crash_window_note(&window, 5000, EO_CRASH_LIMIT + 7, 1000000),
	   "and no more, whatever the limit says");

	eo_crash_window_reset(&window);
	for (int i = 0; i < 5 * EO_CRASH_LIMIT; i++)
		good &= !eo_crash_window_note(&window, i * 100, 10, 999);
	ok(good, "rare crashes never add up, however long it goes on");
}

int
main(void)
{
	int64_t		earlier = eo_clock_ms();

	ok(earlier > 0 && eo_clock_ms() >= earlier, "the clock does not go back");
	test_delays();
	test_windows();
	return tap_done();
}
