/*
 * tap.h
 *
 * The least that a C program needs to speak TAP.
 */
#ifndef EO_TAP_H
#define EO_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

static int	tap_count;
static int	tap_failed;

static bool tap_ok(bool good, const char *file, int line, const char *fmt,...)
			__attribute__((format(printf, 4, 5), unused));

static bool
tap_ok(bool good, const char *file, int line, const char *fmt,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	if (!good)
	{
		tap_failed++;
		printf("# at %s line %d\n", file, line);
	}
	fflush(stdout);
	return good;
}

#define ok(good, ...)	tap_ok(good, __FILE__, __LINE__, __VA_ARGS__)

/* The plan, and the exit status of main() */
static inline int
tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif							/* EO_TAP_H */
