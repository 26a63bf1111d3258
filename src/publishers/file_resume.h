/*
 * file_resume.h
 *
 * Where a file of events ends, and which event is its last.
 */
#ifndef EO_FILE_RESUME_H
#define EO_FILE_RESUME_H

#include <sys/types.h>

#include "wire/frame.h"

typedef struct FileEnd
{
	off_t		size;			/* of the whole lines that are left */
	off_t		cut;			/* bytes of a torn end that were cut off */
	bool		knows_seq;		/* there is an event that tells */
	int64_t		seq;
} FileEnd;

/*
 * Finds the end of the file, cuts off what is torn, and makes the rest
 * durable, since what is read here may still be in memory only.
 * `escaped_source` is what the events' source must be, as in JSON.  Returns
 * NULL, or what is wrong with the file, in a static buffer.
 */
extern const char *file_resume(int fd, EoBytes escaped_source, FileEnd *end);

#endif							/* EO_FILE_RESUME_H */
