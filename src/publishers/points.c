/*
 * points.c
 *
 * Points of test builds where a publisher dies, fails or stands still.
 *
 * The file eo_point beside the executable says "name action nth": the nth time
 * that a process comes to that point, as long as the file is there, it removes
 * the file and gets the action: "kill" (SIGKILL of itself), "error" (it gives
 * up, as when its broker fails) or "stall" (it does nothing for a second).
 */
#define _GNU_SOURCE
#include "publishers/points.h"

#ifdef EO_TEST_SWITCHES

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POINT_FILE		"eo_point"

/* Where the file is; NULL if that cannot be said. */
static const char *
point_path(void)
{
	static char path[PATH_MAX];
	ssize_t		len = readlink("/proc/self/exe", path, sizeof(path) - sizeof(POINT_FILE));
	char	   *name;

	if (len < 0)
		return NULL;
	path[len] = '\0';
	name = strrchr(path, '/') + 1;
	memcpy(name, POINT_FILE, sizeof(POINT_FILE));
	return path;
}

static void
act(Publisher *pub, const char *name, const char *action)
{
	struct timespec left = {1, 0};

	if (strcmp(action, "kill") == 0)
		kill(getpid(), SIGKILL);
	if (strcmp(action, "error") == 0)
		publisher_fail(pub, "test point \"%s\"", name);
	while (nanosleep(&left, &left) < 0)
		;
}

void
publisher_point(Publisher *pub, const char *name)
{
	static int	reached = 0;
	const char *path = point_path();
	FILE	   *file = path ? fopen(path, "re") : NULL;
	char		wanted[64];
	char		action[16];
	int			nth;
	bool		here;

	if (file == NULL)
		return;
	here = fscanf(file, "%63s %15s %d", wanted, action, &nth) == 3 && strcmp(wanted, name) == 0;
	fclose(file);
	if (!here || ++reached < nth)
		return;
	reached = 0;
	/* Of several publishers, one. */
	if (unlink(path) == 0)
		act(pub, name, action);
}

#endif							/* EO_TEST_SWITCHES */
