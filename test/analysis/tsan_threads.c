/*
 * tsan_threads.c
 *
 * C11's threads, mutexes and conditions by means of POSIX's, in publishers that
 * ThreadSanitizer watches.
 *
 * It knows the calls of POSIX only.  A thread that librdkafka makes by
 * thrd_create() is one it has never heard of, in which our callbacks die; and a
 * lock that it does not see orders nothing.  In the C library the types of both
 * are the same memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>

_Static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t), "a mutex has room for the other kind");
_Static_assert(sizeof(cnd_t) >= sizeof(pthread_cond_t), "a condition has room for the other kind");
_Static_assert(sizeof(once_flag) >= sizeof(pthread_once_t), "a flag has room for the other kind");

typedef struct Start
{
	thrd_start_t run;
	void	   *arg;
} Start;

static void *
start(void *arg)
{
	Start		one = *(Start *) arg;

	free(arg);
	return (void *) (long) one.run(one.arg);
}

static int
answer(int error)
{
	switch (error)
	{
		case 0:
			return thrd_success;
		case EBUSY:
			return thrd_busy;
		case ETIMEDOUT:
			return thrd_timedout;
		case ENOMEM:
			return thrd_nomem;
		default:
			return thrd_error;
	}
}

int
thrd_create(thrd_t *thread, thrd_start_t run, void *arg)
{
	Start	   *one = malloc(sizeof(Start));

	if (one == NULL)
		return thrd_nomem;
	one->run = run;
	one->arg = arg;
	return answer(pthread_create(thread, NULL, start, one));
}

int
thrd_join(thrd_t thread, int *result)
{
	void	   *returned;
	int			error = pthread_join(thread, &returned);

	if (error == 0 && result)
		*result = (int) (long) returned;
	return answer(error);
}

int
mtx_init(mtx_t *mutex, int type)
{
	pthread_mutexattr_t attributes;
	int			error;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, (type & mtx_recursive) ? PTHREAD_MUTEX_RECURSIVE : PTHREAD_MUTEX_NORMAL);
	error = pthread_mutex_init((pthread_mutex_t *) mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
	return answer(error);
}

int
mtx_lock(mtx_t *mutex)
{
	return answer(pthread_mutex_lock((pthread_mutex_t *) mutex));
}

int
mtx_unlock(mtx_t *mutex)
{
	return answer(pthread_mutex_unlock((pthread_mutex_t *) mutex));
}

void
mtx_destroy(mtx_t *mutex)
{
	pthread_mutex_destroy((pthread_mutex_t *) mutex);
}

int
cnd_init(cnd_t *condition)
{
	return answer(pthread_cond_init((pthread_cond_t *) condition, NULL));
}

int
cnd_signal(cnd_t *condition)
{
	return answer(pthread_cond_signal((pthread_cond_t *) condition));
}

int
cnd_broadcast(cnd_t *condition)
{
	return answer(pthread_cond_broadcast((pthread_cond_t *) condition));
}

int
cnd_wait(cnd_t *condition, mtx_t *mutex)
{
	return answer(pthread_cond_wait((pthread_cond_t *) condition, (pthread_mutex_t *) mutex));
}

int
cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until)
{
	return answer(pthread_cond_timedwait((pthread_cond_t *) condition, (pthread_mutex_t *) mutex, until));
}

void
cnd_destroy(cnd_t *condition)
{
	pthread_cond_destroy((pthread_cond_t *) condition);
}

void
call_once(once_flag *flag, void (*run) (void))
{
	pthread_once((pthread_once_t *) flag, run);
}
