/*
 * file.c
 *
 * eo-publish-file: events as JSON Lines, one CloudEvents object a line.
 *
 * Exactly-once: a line is on disk (fdatasync) before its event is
 * acknowledged, and the last whole line of the file, not any other record,
 * says where to go on (file_resume.c).  One fdatasync serves all events that
 * came in one burst.  A small one is made durable at once; while a large one is
 * (file_sync.c), the next lines are written.
 *
 * The lock on the file keeps a second publisher away, also an orphan of a
 * server that crashed.  It belongs to the open file and ends with the process.
 *
 * An operator may rename or remove the file (as logrotate does) at any time.
 * That is noticed at the start of a burst; when everything before is durable a
 * new file is begun.  A file that was emptied in place (copytruncate) is
 * gone on with as well.  While the new file holds no event, the relay's own
 * record of the position is what counts.
 *
 * A write or sync that fails ends the process.  Before, the file is cut back
 * to whole lines; after a failed sync, to those that were durable before it,
 * since nobody knows what became of the others.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "publishers/file_resume.h"
#include "publishers/file_sync.h"
#include "publishers/points.h"
#include "publishers/publisher.h"

#define SINK_SIZE		(512 * 1024)

/* Less is made durable at once: to hand it over would take longer. */
#define SYNC_ASIDE		(256 * 1024)

#define OPEN_ATTEMPTS	10

typedef struct FileState
{
	JsonSink	sink;			/* must be first */
	Publisher  *pub;
	char		path[PATH_MAX];
	int			fd;
	EoBytes		source;			/* as in JSON */
	off_t		written;		/* the file's size, as far as we know */
	off_t		complete;		/* where the last whole line ends */
	off_t		synced;			/* how much of it is durable */
	uint64_t	last_token;		/* of the event that was added last */
	bool		in_burst;		/* events have been taken since the last poll */
	bool		syncing;		/* a sync is under way ... */
	off_t		sync_size;		/* ... of the file up to here ... */
	uint64_t	sync_token;		/* ... and up to this event */
} FileState;

static void fail_after_cut(FileState *state, off_t keep, const char *what)
			__attribute__((noreturn));

static void
fail_after_cut(FileState *state, off_t keep, const char *what)
{
	int			error = errno;

	if (ftruncate(state->fd, keep) < 0)
		publisher_fail(state->pub, "could not %s file \"%s\": %s; its torn end is left to be cut off later: %s",
					   what, state->path, strerror(error), strerror(errno));
	fdatasync(state->fd);
	publisher_fail(state->pub, "could not %s file \"%s\": %s",
				   what, state->path, strerror(error));
}

static void
drain(JsonSink *sink)
{
	FileState  *state = (FileState *) sink;
	size_t		done = 0;

	if (sink->len > 0)
		PUBLISHER_POINT(state->pub, file_write);
	while (done < sink->len)
	{
		ssize_t		n = write(state->fd, sink->data + done, sink->len - done);
		char	   *last;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail_after_cut(state, state->complete, "write to");
		last = memrchr(sink->data + done, '\n', (size_t) n);
		if (last)
			state->complete = state->written + (last + 1 - (sink->data + done));
		state->written += n;
		done += (size_t) n;
	}
	sink->len = 0;
}

/* A new name in a directory is durable only once the directory is. */
static void
sync_directory(FileState *state)
{
	char		dir[PATH_MAX];
	size_t		len = (size_t) (strrchr(state->path, '/') - state->path);
	int			fd;

	if (len == 0)
		len = 1;
	memcpy(dir, state->path, len);
	dir[len] = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		publisher_fail(state->pub, "could not sync directory \"%s\": %s",
					   dir, strerror(errno));
	close(fd);
}

/* Whether the path still leads to the file that is open. */
static bool
is_current(FileState *state)
{
	struct stat by_fd;
	struct stat by_path;

	if (fstat(state->fd, &by_fd) < 0)
		publisher_fail(state->pub, "could not stat file \"%s\": %s",
					   state->path, strerror(errno));
	if (lstat(state->path, &by_path) < 0)
		return false;
	return by_fd.st_ino == by_path.st_ino && by_fd.st_dev == by_path.st_dev;
}

/* Opens and locks the file at the path, and creates it if need be. */
static void
open_locked(FileState *state)
{
	Publisher  *pub = state->pub;
	struct stat st;

	for (int attempt = 0; attempt < OPEN_ATTEMPTS; attempt++)
	{
		/* O_NONBLOCK: do not hang if it is a pipe; no effect on a file. */
		state->fd = open(state->path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW |
						 O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
		if (state->fd < 0 && errno == ELOOP)
			publisher_fail(pub, "could not open file \"%s\": it is a symbolic link",
						   state->path);
		if (state->fd < 0)
			publisher_fail(pub, "could not open file \"%s\": %s",
						   state->path, strerror(errno));
		if (fstat(state->fd, &st) < 0 || !S_ISREG(st.st_mode))
			publisher_fail(pub, "\"%s\" is not a regular file", state->path);
		if (flock(state->fd, LOCK_EX | LOCK_NB) < 0)
			publisher_fail(pub, errno == EWOULDBLOCK ?
						   "another process publishes to \"%s\"" :
						   "could not lock file \"%s\"", state->path);

		/* It may have been renamed between open() and flock(). */
		if (is_current(state))
		{
			sync_directory(state);
			return;
		}
		close(state->fd);
	}
	publisher_fail(pub, "file \"%s\" keeps being replaced", state->path);
}

/* Opens the file and finds its end. */
static FileEnd
attach(FileState *state)
{
	FileEnd		end;
	const char *wrong;

	open_locked(state);
	wrong = file_resume(state->fd, state->source, &end);
	if (wrong)
		publisher_fail(state->pub, "file \"%s\" %s", state->path, wrong);
	if (end.cut > 0)
		publisher_log(state->pub, EO_LOG_WARNING,
					  "cut a torn end of %lld bytes off file \"%s\"",
					  (long long) end.cut, state->path);
	state->written = state->complete = state->synced = end.size;
	return end;
}

/* What was written up to there is durable. */
static void
settle(FileState *state, off_t size, uint64_t token)
{
	PUBLISHER_POINT(state->pub, file_synced);
	state->synced = size;
	publisher_settle_through(state->pub, token);
}

/* Takes note of a sync that has ended. */
static void
collect_sync(FileState *state, bool wait)
{
	int			error;

	if (!state->syncing || !file_sync_ended(wait, &error))
		return;
	state->syncing = false;
	if (error != 0)
	{
		errno = error;
		fail_after_cut(state, state->synced, "sync");
	}
	settle(state, state->sync_size, state->sync_token);
}

/* Makes what was written durable, unless a sync is under way: see later then. */
static void
make_durable(FileState *state)
{
	drain(&state->sink);
	if (state->syncing || state->written == state->synced)
		return;
	PUBLISHER_POINT(state->pub, file_sync);
	if (state->written - state->synced < SYNC_ASIDE)
	{
		if (fdatasync(state->fd) < 0)
			fail_after_cut(state, state->synced, "sync");
		settle(state, state->written, state->last_token);
		return;
	}
	state->syncing = true;
	state->sync_size = state->written;
	state->sync_token = state->last_token;
	file_sync_begin(state->fd);
}

static void
file_flush(Publisher *pub)
{
	FileState  *state = pub->state;

	do
	{
		collect_sync(state, true);
		make_durable(state);
	} while (state->syncing);
	state->in_burst = false;
}

/* Looks after what an operator may have done to the file meanwhile. */
static void
start_burst(FileState *state)
{
	struct stat st;

	if (!is_current(state))
	{
		file_flush(state->pub);
		state->in_burst = true;
		close(state->fd);
		attach(state);
		publisher_log(state->pub, EO_LOG_INFO,
					  "file \"%s\" was moved away, began a new one", state->path);
		return;
	}
	state->in_burst = true;
	if (fstat(state->fd, &st) == 0 && st.st_size != state->written)
	{
		if (st.st_size != 0)
			publisher_fail(state->pub, "file \"%s\" was changed by another process",
						   state->path);
		file_flush(state->pub);
		state->in_burst = true;
		publisher_log(state->pub, EO_LOG_INFO, "file \"%s\" was emptied", state->path);
		state->written = state->complete = state->synced = 0;
	}
}

static void
escape_source(FileState *state, EoBytes source)
{
	JsonSink	sink = {NULL, 0, source.len * 6 + 8, NULL};

	sink.data = malloc(sink.cap);
	if (sink.data == NULL)
		publisher_fail(state->pub, "out of memory");
	json_put_escaped(&sink, source);
	state->source.data = sink.data;
	state->source.len = sink.len;
}

static void
file_open(Publisher *pub, const EoConfigMessage *config)
{
	static FileState file;
	FileState  *state = &file;
	EoBytes		path = eo_pairs_get(&config->server_options, "path");
	FileEnd		end;

	pub->state = state;
	state->pub = pub;
	state->sink.cap = SINK_SIZE;
	state->sink.data = malloc(SINK_SIZE);
	state->sink.drain = drain;
	if (state->sink.data == NULL)
		publisher_fail(pub, "out of memory");

	if (path.data == NULL || path.len == 0 || path.data[0] != '/')
		publisher_fail(pub, "server option \"path\" must be an absolute path");
	if (path.len >= sizeof(state->path) || memchr(path.data, '\0', path.len))
		publisher_fail(pub, "server option \"path\" is too long");
	memcpy(state->path, path.data, path.len);
	escape_source(state, config->source);

	if (!file_sync_init())
		publisher_fail(pub, "could not start a thread: %s", strerror(errno));
	end = attach(state);
	if (end.knows_seq)
		publisher_position(pub, end.seq);
}

static PublishResult
file_publish(Publisher *pub, const EoEventMessage *event, uint64_t token)
{
	FileState  *state = pub->state;

	if (!state->in_burst)
		start_burst(state);
	state->last_token = token;
	cloudevents_put_json(&state->sink, event, state->source);
	json_put_raw(&state->sink, "\n", 1);
	return PUBLISH_TAKEN;
}

static void
file_poll(Publisher *pub)
{
	FileState  *state = pub->state;

	collect_sync(state, false);
	make_durable(state);
	state->in_burst = false;
}

static int
file_poll_fd(Publisher *pub)
{
	(void) pub;
	return file_sync_fd();
}

static const PublisherOps file_ops = {
	.kind = "file",
	.open = file_open,
	.publish = file_publish,
	.poll = file_poll,
	.flush = file_flush,
	.poll_fd = file_poll_fd
};

int
main(void)
{
	return publisher_main(&file_ops);
}
