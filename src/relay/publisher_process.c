/*
 * publisher_process.c
 *
 * Starts and ends publishers.
 *
 * The relay is a PostgreSQL process and forks without being the postmaster, so
 * the child must touch nothing of PostgreSQL: between fork and exec it makes
 * system calls only, and it leaves by _exit().  All signals are blocked over
 * the fork, because the handlers it inherits would act on shared memory.
 *
 * It must keep nothing either: up to PostgreSQL 16 the server's files and
 * sockets are not close-on-exec, so the child closes all but its three.  Two of
 * those are one end of a socket pair; when the relay is gone it reads the end
 * of file.  The kernel kills it with the relay as well, for a publisher that
 * does not read.
 *
 * It is in a session of its own, because PostgreSQL signals whole process
 * groups, and first in line when memory runs out.
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compat.h"
#include "miscadmin.h"
#include "relay/publisher_process.h"
#include "storage/fd.h"

#define OOM_SCORE	"500"

/* Milliseconds that a killed process has to end. */
#define FINISH_TRIES	2000

/* What the child says if it cannot become a publisher. */
#define EXEC_FAILED	"could not execute the publisher\n"

/* All that the child needs, prepared before the fork. */
typedef struct ChildPlan
{
	char		path[MAXPGPATH];
	char	   *argv[2];
	char	   *envp[3];
	int			sock;
	int			errors;
	int			max_fd;			/* where there is no close_range() */
	pid_t		parent;
} ChildPlan;

/* Closes every descriptor from 3 on. */
static void
close_inherited(const ChildPlan *plan)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0)
		return;
#endif
	for (int fd = 3; fd < plan->max_fd; fd++)
		close(fd);
}

static void
reset_signals(void)
{
	struct sigaction action;
	sigset_t	none;

	memset(&action, 0, sizeof(action));
	action.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++)
		(void) sigaction(sig, &action, NULL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
}

static void
raise_oom_score(void)
{
	int			fd = open("/proc/self/oom_score_adj", O_WRONLY);

	if (fd >= 0)
	{
		(void) !write(fd, OOM_SCORE, sizeof(OOM_SCORE) - 1);
		close(fd);
	}
}

/* The child, from fork to exec.  System calls only. */
EO_NORETURN static void
become_publisher(const ChildPlan *plan)
{
	(void) setsid();
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != plan->parent)
		_exit(127);
	if (dup2(plan->sock, STDIN_FILENO) < 0 ||
		dup2(plan->sock, STDOUT_FILENO) < 0 ||
		dup2(plan->errors, STDERR_FILENO) < 0)
		_exit(127);
	close_inherited(plan);
	raise_oom_score();
	reset_signals();
	execve(plan->path, plan->argv, plan->envp);
	(void) !write(STDERR_FILENO, EXEC_FAILED, sizeof(EXEC_FAILED) - 1);
	_exit(127);
}

static void
publisher_path(char *path, const char *kind)
{
	snprintf(path, MAXPGPATH, "%s/eo_outbox/eo-publish-%s", pkglib_path, kind);
}

char *
eo_publisher_missing(const char *kind)
{
	char		path[MAXPGPATH];

	publisher_path(path, kind);
	if (access(path, X_OK) == 0)
		return NULL;
	return psprintf("publisher \"%s\" is not installed: %s", path, strerror(errno));
}

static void
prepare_child(ChildPlan *plan, const char *kind)
{
	struct rlimit limit;
	static char name[NAMEDATALEN + 16];
	static char path_variable[] = "PATH=/usr/bin:/bin";
	static char locale_variable[] = "LC_ALL=C.UTF-8";

	snprintf(name, sizeof(name), "eo-publish-%s", kind);
	publisher_path(plan->path, kind);
	plan->argv[0] = name;
	plan->argv[1] = NULL;
	plan->envp[0] = path_variable;
	plan->envp[1] = locale_variable;
	plan->envp[2] = NULL;
	plan->parent = MyProcPid;
	plan->max_fd = 65536;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < plan->max_fd)
		plan->max_fd = (int) limit.rlim_cur;
}

/* Moves a descriptor out of the way of 0, 1 and 2. */
static int
high_fd(int fd)
{
	int			high;

	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	close(fd);
	return high;
}

/* fds[0] and fds[1]: our ends; fds[2] and fds[3]: the child's. */
static char *
make_descriptors(int fds[4])
{
	int			sockets[2];
	int			ends[2];
	int			failure;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
		return psprintf("could not create a socket pair: %s", strerror(errno));
	if (pipe2(ends, O_CLOEXEC) != 0)
	{
		failure = errno;
		close(sockets[0]);
		close(sockets[1]);
		return psprintf("could not create a pipe: %s", strerror(failure));
	}
	fds[0] = high_fd(sockets[0]);
	fds[1] = high_fd(ends[0]);
	fds[2] = high_fd(sockets[1]);
	fds[3] = high_fd(ends[1]);
	if (fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0)
		return NULL;
	failure = errno;
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	return psprintf("could not prepare descriptors: %s", strerror(failure));
}

static pid_t
fork_publisher(const ChildPlan *plan)
{
	sigset_t	all;
	sigset_t	before;
	pid_t		pid;

	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		become_publisher(plan);
	(void) sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

char *
eo_publisher_start(EoPublisherProcess *process, const char *kind,
				   MemoryContext context)
{
	ChildPlan	plan;
	int			fds[4] = {-1, -1, -1, -1};
	char	   *problem;
	int			failure;

	if (!AcquireExternalFD())
		return pstrdup("too many files are open in the relay");
	if (!AcquireExternalFD())
	{
		ReleaseExternalFD();
		return pstrdup("too many files are open in the relay");
	}
	problem = make_descriptors(fds);
	if (problem != NULL)
	{
		ReleaseExternalFD();
		ReleaseExternalFD();
		return problem;
	}

	prepare_child(&plan, kind);
	plan.sock = fds[2];
	plan.errors = fds[3];
	process->pid = fork_publisher(&plan);
	failure = errno;
	close(fds[2]);
	close(fds[3]);
	eo_channel_open(&process->channel, context, fds[0]);
	process->errors = fds[1];
	process->line_length = 0;
	if (process->pid > 0)
		return NULL;
	process->pid = 0;
	eo_publisher_close(process);
	return psprintf("could not fork: %s", strerror(failure));
}

void
eo_publisher_kill(EoPublisherProcess *process)
{
	if (process->pid > 0)
		(void) kill(process->pid, SIGKILL);
}

bool
eo_publisher_reap(EoPublisherProcess *process)
{
	pid_t		pid;

	if (process->pid == 0)
		return true;
	do
	{
		pid = waitpid(process->pid, &process->status, WNOHANG);
	} while (pid < 0 && errno == EINTR);
	if (pid == 0)
		return false;
	if (pid < 0)
		process->status = 0;	/* not ours any more: nobody can tell */
	process->pid = 0;
	return true;
}

static void
end_line(EoPublisherProcess *process, EoErrorLine line, void *arg)
{
	if (process->line_length == 0)
		return;
	process->line[process->line_length] = '\0';
	process->line_length = 0;
	line(process->line, arg);
}

void
eo_publisher_read_errors(EoPublisherProcess *process, EoErrorLine line, void *arg)
{
	char		bytes[4096];
	ssize_t		n;

	if (process->errors == PGINVALID_SOCKET)
		return;
	n = read(process->errors, bytes, sizeof(bytes));
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	for (ssize_t i = 0; i < n; i++)
	{
		if (bytes[i] == '\n' || process->line_length == sizeof(process->line) - 1)
			end_line(process, line, arg);
		if (bytes[i] != '\n')
			process->line[process->line_length++] = bytes[i];
	}
	if (n > 0)
		return;
	end_line(process, line, arg);
	close(process->errors);
	process->errors = PGINVALID_SOCKET;
	ReleaseExternalFD();
}

void
eo_publisher_close_channel(EoPublisherProcess *process)
{
	if (process->channel.sock == PGINVALID_SOCKET)
		return;
	eo_channel_close(&process->channel);
	ReleaseExternalFD();
}

void
eo_publisher_close(EoPublisherProcess *process)
{
	eo_publisher_close_channel(process);
	if (process->errors != PGINVALID_SOCKET)
	{
		close(process->errors);
		process->errors = PGINVALID_SOCKET;
		ReleaseExternalFD();
	}
}

void
eo_publisher_finish(EoPublisherProcess *process)
{
	eo_publisher_kill(process);
	eo_publisher_close(process);

	/*
	 * The kernel ends it within a moment, unless it hangs in a system call that
	 * cannot be interrupted; then it will end with that.
	 */
	for (int i = 0; i < FINISH_TRIES && !eo_publisher_reap(process); i++)
		pg_usleep(1000);
}

char *
eo_publisher_ending(const EoPublisherProcess *process)
{
	int			status = process->status;

	if (WIFEXITED(status))
		return psprintf("exited with status %d", WEXITSTATUS(status));
	if (WIFSIGNALED(status))
		return psprintf("was killed by signal %d: %s%s", WTERMSIG(status),
						pg_strsignal(WTERMSIG(status)),
						WCOREDUMP(status) ? " and left a core file" : "");
	return pstrdup("ended");
}
