/*
 * file_sync.c
 *
 * Makes a file durable beside the thread that writes it.
 *
 * fdatasync() takes as long as it takes to write some tens of thousands of
 * events.  A thread of its own does it, and nothing else, so that the next
 * events can be written meanwhile.
 */
#define _GNU_SOURCE
#include "publishers/file_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

typedef enum SyncState
{
	SYNC_IDLE,
	SYNC_WANTED,				/* begun by the main thread */
	SYNC_ENDED					/* by the other one */
} SyncState;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static SyncState state = SYNC_IDLE; /* under the mutex, as the two below */
static int	sync_fd;
static int	sync_error;

static int	notice[2];			/* a pipe: a byte when one has ended */

static void *
sync_main(void *arg)
{
	(void) arg;
	pthread_mutex_lock(&mutex);
	for (;;)
	{
		int			error;

		while (state != SYNC_WANTED)
			pthread_cond_wait(&changed, &mutex);
		pthread_mutex_unlock(&mutex);
		error = fdatasync(sync_fd) < 0 ? errno : 0;
		pthread_mutex_lock(&mutex);
		sync_error = error;
		state = SYNC_ENDED;
		pthread_cond_broadcast(&changed);

		/* Full means that it is readable already. */
		while (write(notice[1], "", 1) < 0 && errno == EINTR)
			;
	}
	return NULL;
}

bool
file_sync_init(void)
{
	pthread_t	thread;
	int			error;

	if (pipe2(notice, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	error = pthread_create(&thread, NULL, sync_main, NULL);
	errno = error;
	return error == 0;
}

int
file_sync_fd(void)
{
	return notice[0];
}

void
file_sync_begin(int fd)
{
	pthread_mutex_lock(&mutex);
	sync_fd = fd;
	state = SYNC_WANTED;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
}

bool
file_sync_ended(bool wait, int *error)
{
	bool		ended;
	char		byte;

	pthread_mutex_lock(&mutex);
	while (wait && state == SYNC_WANTED)
		pthread_cond_wait(&changed, &mutex);
	ended = state == SYNC_ENDED;
	if (ended)
	{
		*error = sync_error;
		state = SYNC_IDLE;
		while (read(notice[0], &byte, 1) < 0 && errno == EINTR)
			;
	}
	pthread_mutex_unlock(&mutex);
	return ended;
}
