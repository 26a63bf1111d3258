/*
 * coverage_exit.c
 *
 * Part of the publishers that count what they reach: the one for Kafka ends by
 * _exit(), which leaves libgcov no time to write its counts; so here it gets some.
 */
#define _GNU_SOURCE
#include <gcov.h>
#include <sys/syscall.h>
#include <unistd.h>

void
_exit(int status)
{
	__gcov_dump();
	for (;;)
		syscall(SYS_exit_group, status);
}
