/*
 * file_resume.c
 *
 * Where a file of events ends, and which event is its last.
 *
 * The file is the only place that knows what it holds, so its own end is the
 * position.  A publisher that was killed leaves a line without its line break;
 * a machine that lost its power may leave a file longer than the data that
 * reached the disk, the rest being zeros.  Neither was acknowledged, so both
 * are cut off and come again.
 *
 * A line starts as cloudevents.h says, and that start is all that is read of
 * it.  Lines of dead letters that were sent again are out of order and tell no
 * position.  The file is not touched if it does not start as ours do: it may be
 * something else that somebody needs.
 */
#define _GNU_SOURCE
#include "publishers/file_resume.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "publishers/cloudevents.h"

#define CHUNK			65536

/* At least as much as is usually written between two calls of fdatasync */
#define UNSYNCED_BYTES	((off_t) 16 * 1024 * 1024)

typedef enum LineKind
{
	LINE_EVENT,
	LINE_REDELIVERED,
	LINE_OTHER_SOURCE,
	LINE_BROKEN
} LineKind;

static char problem[512];

static const char *problemf(const char *fmt,...)
			__attribute__((format(printf, 1, 2)));

static const char *
problemf(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(problem, sizeof(problem), fmt, args);
	va_end(args);
	return problem;
}

/* Reads as much as there is of [at, at + len); -1 on an error. */
static ssize_t
read_at(int fd, char *data, size_t len, off_t at)
{
	size_t		done = 0;

	while (done < len)
	{
		ssize_t		n = pread(fd, data + done, len - done, at + (off_t) done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t) n;
	}
	return (ssize_t) done;
}

/* The offset behind the last line break before `pos`; -1 on an error. */
static off_t
line_start(int fd, off_t pos)
{
	char		chunk[CHUNK];

	while (pos > 0)
	{
		size_t		len = pos < CHUNK ? (size_t) pos : CHUNK;
		char	   *found;

		if (read_at(fd, chunk, len, pos - (off_t) len) != (ssize_t) len)
			return -1;
		found = memrchr(chunk, '\n', len);
		pos -= (off_t) len;
		if (found)
			return pos + (found - chunk) + 1;
	}
	return 0;
}

/*
 * The offset of the first zero byte among the last of the file, `size` if
 * there is none; -1 on an error.
 */
static off_t
first_zero(int fd, off_t size)
{
	char		chunk[CHUNK];
	off_t		at = size > UNSYNCED_BYTES ? size - UNSYNCED_BYTES : 0;

	while (at < size)
	{
		ssize_t		n = read_at(fd, chunk, CHUNK, at);
		char	   *found;

		if (n <= 0)
			return -1;
		found = memchr(chunk, '\0', (size_t) n);
		if (found)
			return at + (found - chunk);
		at += n;
	}
	return size;
}

static bool
skip(EoReader *r, const char *literal)
{
	size_t		len = strlen(literal);
	const char *p = eo_get_raw(r, len);

	return p != NULL && memcmp(p, literal, len) == 0;
}

static bool
skip_number(EoReader *r, int64_t *number)
{
	size_t		digits = 0;

	*number = 0;
	while (r->pos < r->len && r->data[r->pos] >= '0' && r->data[r->pos] <= '9')
	{
		int			digit = r->data[r->pos++] - '0';

		if (*number > (INT64_MAX - digit) / 10)
			return false;
		*number = *number * 10 + digit;
		digits++;
	}
	return digits > 0;
}

/* Judges a line by its start. */
static LineKind
parse_start(const char *data, size_t len, EoBytes source, int64_t *seq)
{
	EoReader	r = {data, len, 0, false};
	const char *ours;

	if (!skip(&r, CLOUDEVENTS_JSON_START) || eo_get_raw(&r, 36) == NULL ||
		!skip(&r, CLOUDEVENTS_JSON_SOURCE))
		return LINE_BROKEN;
	ours = eo_get_raw(&r, source.len);
	if (ours == NULL || memcmp(ours, source.data, source.len) != 0 ||
		r.pos == r.len || r.data[r.pos] != '"')
		return LINE_OTHER_SOURCE;
	if (!skip(&r, CLOUDEVENTS_JSON_SEQUENCE) || !skip_number(&r, seq) ||
		!skip(&r, "\""))
		return LINE_BROKEN;
	return skip(&r, CLOUDEVENTS_JSON_REDELIVERED) ? LINE_REDELIVERED : LINE_EVENT;
}

/* Judges the line [start, end), whose line break is its last byte. */
static LineKind
judge_line(int fd, off_t start, off_t end, EoBytes source, int64_t *seq)
{
	size_t		want = 256 + source.len;
	size_t		len = end - start < (off_t) want ? (size_t) (end - start) : want;
	char	   *head = malloc(len);
	char		tail[2];
	LineKind	kind = LINE_BROKEN;

	if (head != NULL && end - start >= 2 &&
		read_at(fd, head, len, start) == (ssize_t) len &&
		read_at(fd, tail, 2, end - 2) == 2 && tail[0] == '}')
		kind = parse_start(head, len, source, seq);
	free(head);
	return kind;
}

/* Whether the file starts as a file of events does, as far as it goes. */
static bool
starts_as_ours(int fd, off_t size)
{
	const char *start = CLOUDEVENTS_JSON_START;
	char		head[sizeof(CLOUDEVENTS_JSON_START)];
	size_t		len = strlen(start);

	if (size < (off_t) len)
		len = (size_t) size;
	return read_at(fd, head, len, 0) == (ssize_t) len &&
		memcmp(head, start, len) == 0;
}

/* Walks back to the last event that tells the position. */
static const char *
find_end(int fd, EoBytes source, FileEnd *end)
{
	off_t		pos = end->size;

	while (pos > 0)
	{
		off_t		start = line_start(fd, pos - 1);
		char		last;

		if (start < 0 || read_at(fd, &last, 1, pos - 1) != 1)
			return problemf("cannot be read: %s", strerror(errno));
		switch (last == '\n' ? judge_line(fd, start, pos, source, &end->seq)
				: LINE_BROKEN)
		{
			case LINE_EVENT:
				end->knows_seq = true;
				return NULL;

			case LINE_REDELIVERED:
				break;

			case LINE_OTHER_SOURCE:
				return problemf("holds events of another source than \"%.*s\": "
								"the line at offset %lld",
								(int) source.len, source.data, (long long) start);

			case LINE_BROKEN:
				if (pos != end->size)
					return problemf("is damaged: the line at offset %lld is not an event",
									(long long) start);
				end->size = start;
				break;
		}
		pos = start;
	}
	return NULL;
}

const char *
file_resume(int fd, EoBytes escaped_source, FileEnd *end)
{
	const char *wrong;
	struct stat st;
	off_t		zero;

	memset(end, 0, sizeof(*end));
	if (fstat(fd, &st) < 0)
		return problemf("cannot be read: %s", strerror(errno));
	if (!starts_as_ours(fd, st.st_size))
		return "holds something other than events";

	zero = first_zero(fd, st.st_size);
	end->size = zero < st.st_size ? line_start(fd, zero) : zero;
	if (zero < 0 || end->size < 0)
		return problemf("cannot be read: %s", strerror(errno));

	wrong = find_end(fd, escaped_source, end);
	if (wrong)
		return wrong;

	end->cut = st.st_size - end->size;
	if (end->cut > 0 && ftruncate(fd, end->size) < 0)
		return problemf("has a torn end that cannot be cut off: %s", strerror(errno));
	if (fdatasync(fd) < 0)
		return problemf("cannot be made durable: %s", strerror(errno));
	return NULL;
}
