/*
 * publisher_process.h
 *
 * A publisher as a process: start, standard error, end.
 */
#ifndef EO_PUBLISHER_PROCESS_H
#define EO_PUBLISHER_PROCESS_H

#include <sys/types.h>

#include "relay/channel.h"

typedef struct EoPublisherProcess
{
	pid_t		pid;			/* 0: none, or reaped */
	int			status;			/* of waitpid(), once reaped */
	EoChannel	channel;		/* descriptors 0 and 1 of the process */
	pgsocket	errors;			/* our end of its standard error */
	char		line[1024];		/* of standard error, not ended yet */
	int			line_length;
} EoPublisherProcess;

/* Called for each line that a publisher wrote to standard error. */
typedef void (*EoErrorLine) (const char *line, void *arg);

/* Why there is no eo-publish-<kind>, in the current context; NULL if it is. */
extern char *eo_publisher_missing(const char *kind);

/*
 * Starts eo-publish-<kind>.  Returns NULL if it runs, otherwise why it does
 * not, in the current memory context.  The channel's buffers live in `context`.
 */
extern char *eo_publisher_start(EoPublisherProcess *process, const char *kind,
								MemoryContext context);

/* SIGKILL, if it is still there. */
extern void eo_publisher_kill(EoPublisherProcess *process);

/* Returns true, and sets pid to 0, if the process has ended.  Never waits. */
extern bool eo_publisher_reap(EoPublisherProcess *process);

/* Reads what is there of standard error; closes it at its end. */
extern void eo_publisher_read_errors(EoPublisherProcess *process,
									 EoErrorLine line, void *arg);

/* Closes the socket; and everything. */
extern void eo_publisher_close_channel(EoPublisherProcess *process);
extern void eo_publisher_close(EoPublisherProcess *process);

/* Kills it, waits a short while for its end, and closes everything. */
extern void eo_publisher_finish(EoPublisherProcess *process);

/* "exited with status 1", "was killed by signal 11", in the current context. */
extern char *eo_publisher_ending(const EoPublisherProcess *process);

#endif							/* EO_PUBLISHER_PROCESS_H */
