/*
 * clock.h
 *
 * The times that the programs here take.
 */
#ifndef EO_BENCH_CLOCK_H
#define EO_BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

/* For durations: of a clock that nobody sets, in ms. */
static inline double
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec * 1e3 + (double) ts.tv_nsec / 1e6;
}

/* For what several programs see: us since 1970. */
static inline int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

#endif							/* EO_BENCH_CLOCK_H */
