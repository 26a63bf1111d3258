/*
 * points.c
 *
 * Points of test builds where a process dies, fails or stands still.
 *
 *		eo_outbox.test_point = 'name:action:nth:id'
 *
 * The nth time that any process of the server comes to the point, it gets the
 * action: "kill" (SIGKILL of itself), "error" (an ERROR with SQLSTATE EOTST) or
 * "stall" (a second in which nothing interrupts it).  That happens once for an
 * id.  Ids rise: as soon as one process has read a new one, all earlier ones are
 * void, so that no process that is late with its configuration acts any more.
 *
 * A line "id name action" in the file eo_points of the data directory says that
 * it happened.  The server reads that when it starts: a process that dies
 * restarts all of them, and should not do so again.
 */
#include "postgres.h"

#ifdef EO_TEST_SWITCHES

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "points.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#define FIRED_FILE		"eo_points"
#define NAME_SIZE		64
#define STALL_MS		1000

/* Beyond every nth */
#define SPENT			0x40000000

typedef struct Point
{
	char		name[NAME_SIZE];
	char		action[NAME_SIZE];
	unsigned	nth;
	unsigned	id;
} Point;

/* The latest id in the high half, how often its point was reached in the low one */
typedef struct Reached
{
	pg_atomic_uint64 count;
} Reached;

bool		eo_points_armed = false;

static char *setting;
static Point point;
static Reached *reached = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static bool
parse(const char *value, Point *parsed)
{
	memset(parsed, 0, sizeof(Point));
	return value[0] == '\0' ||
		sscanf(value, "%63[a-z_]:%63[a-z]:%u:%u", parsed->name, parsed->action, &parsed->nth, &parsed->id) == 4;
}

/* Makes an id the one that counts, unless there is a later one. */
static void
begin_id(uint32 id, uint32 count)
{
	uint64		now = pg_atomic_read_u64(&reached->count);

	while ((uint32) (now >> 32) < id &&
		   !pg_atomic_compare_exchange_u64(&reached->count, &now, (uint64) id << 32 | count))
		;
}

static bool
check_setting(char **newval, void **extra, GucSource source)
{
	Point		ignored;

	if (parse(*newval, &ignored))
		return true;
	GUC_check_errdetail("It must be name:action:nth:id.");
	return false;
}

static void
assign_setting(const char *newval, void *extra)
{
	(void) parse(newval, &point);
	eo_points_armed = point.name[0] != '\0';
	if (reached != NULL)
		begin_id(point.id, 0);
}

/* Whether it is this process's turn. */
static bool
is_nth(void)
{
	uint64		now = pg_atomic_read_u64(&reached->count);

	do
	{
		if ((uint32) (now >> 32) != point.id)
			return false;
	} while (!pg_atomic_compare_exchange_u64(&reached->count, &now, now + 1));
	return (uint32) now + 1 == point.nth;
}

/* Not durable, but what a killed process has written stays. */
static void
write_fired(const char *action)
{
	char		line[2 * NAME_SIZE + 32];
	int			len = snprintf(line, sizeof(line), "%u %s %s\n", point.id, point.name, action);
	int			fd = open(FIRED_FILE, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, line, len) != len)
		elog(PANIC, "could not write " FIRED_FILE ": %m");
	close(fd);
}

static void
stall(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STALL_MS);

	while (GetCurrentTimestamp() < until)
		pg_usleep(10000);
}

void
eo_point_reached(const char *name, bool critical)
{
	const char *action = point.action;

	if (strcmp(name, point.name) != 0 || reached == NULL || !is_nth())
		return;
	if (strcmp(action, "error") == 0 && (critical || CritSectionCount > 0))
		action = "kill";
	write_fired(action);
	ereport(LOG,
			(errmsg("test point \"%s\": %s", name, action)));
	if (strcmp(action, "kill") == 0)
		kill(MyProcPid, SIGKILL);
	else if (strcmp(action, "error") == 0)
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE('E', 'O', 'T', 'S', 'T')),
				 errmsg("test point \"%s\"", name)));
	else
		stall();
}

/*----------
 * Start
 *----------
 */

/* The id that happened last, before this start of the server; 0: none */
static uint32
last_fired(void)
{
	FILE	   *file = fopen(FIRED_FILE, "r");
	unsigned	id = 0;
	unsigned	next;

	while (file != NULL && fscanf(file, "%u %*s %*s", &next) == 1)
		id = next;
	if (file != NULL)
		fclose(file);
	return id;
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(sizeof(Reached));
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	reached = ShmemInitStruct("eo_outbox points", sizeof(Reached), &found);
	if (!found)
	{
		pg_atomic_init_u64(&reached->count, 0);
		begin_id(last_fired(), SPENT);
		begin_id(point.id, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
eo_points_init(void)
{
	DefineCustomStringVariable("eo_outbox.test_point", "Where a process dies, fails or stands still.", NULL,
							   &setting, "", PGC_SIGHUP, GUC_NOT_IN_SAMPLE,
							   check_setting, assign_setting, NULL);
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

#endif							/* EO_TEST_SWITCHES */
