/*
 * powerloss.c
 *
 * Preloaded into a server and its publishers: a disk that can lose its power,
 * and one that can be full.
 *
 *		EO_POWERLOSS=DIR			where it keeps its own files
 *		EO_POWERLOSS_ROOTS=A:B		the files and directories that are on the disk
 *		EO_POWERLOSS_LIES=C			where it says of syncs that it did not do that it did
 *
 * Before a file on the disk is changed, what is there is appended to
 * DIR/<inode>; when the file is synced, that is discarded as far as it is older
 * than the call of fsync().  So what is in those logs when all processes have
 * been killed is how to come back to the state that the disk had to keep:
 * powerloss.py does that.  The kernel itself is not asked to sync anything.
 *
 * Names are taken to be durable at once: a file that was created, renamed or
 * removed stays so, also without a sync of its directory.  Files that are
 * written through stdio.h, as PostgreSQL's statistics are, are not seen and
 * count as durable too.
 *
 * While DIR/full exists no file below the directory it names can grow, except
 * to the end of its last block.  A second line names what is exempt.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BLOCK			4096
#define SYNC_MICROSECONDS	300

/* Positions count all that was ever appended; those before `upto` are durable. */
typedef struct LogHead
{
	uint64_t	base;			/* of the first byte after the head */
	uint64_t	upto;
	uint64_t	end;
} LogHead;

/* Followed by `kept` bytes that were at the offset. */
typedef struct LogRecord
{
	uint64_t	offset;
	uint64_t	length;			/* of what was written there */
	uint64_t	size;			/* of the file before */
	uint64_t	kept;
	uint64_t	resized;		/* not written to: its size was set to the offset */
} LogRecord;

static char *directory;
static char *roots;
static char *lies;

__attribute__((constructor)) static void
powerloss_init(void)
{
	const char *dir = getenv("EO_POWERLOSS");
	const char *disk = getenv("EO_POWERLOSS_ROOTS");
	const char *lying = getenv("EO_POWERLOSS_LIES");

	/* Copies: PostgreSQL writes over its environment. */
	if (dir && disk)
	{
		directory = strdup(dir);
		roots = strdup(disk);
		lies = strdup(lying ? lying : "");
	}
}

/* What cannot go on must not pretend that the disk is as it says. */
static void
give_up(const char *what)
{
	char		text[256];
	int			len = snprintf(text, sizeof(text), "powerloss: %s: %s\n", what, strerror(errno));

	(void) !syscall(SYS_write, 2, text, (size_t) len);
	abort();
}

/* ---- which files ---- */

/* Whether it is that file, or below that directory. */
static int
is_below(const char *path, const char *root, size_t len)
{
	return len > 0 && strncmp(path, root, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static int
path_of(int fd, char path[PATH_MAX])
{
	char		link[64];
	ssize_t		len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, PATH_MAX - 1);
	if (len <= 0 || path[0] != '/')
		return 0;
	path[len] = '\0';
	return 1;
}

/* Whether it is a regular file on the disk. */
static int
on_disk(int fd, struct stat *st)
{
	int			saved = errno;
	int			found = 0;
	char		path[PATH_MAX];

	if (directory && path_of(fd, path))
		for (const char *root = roots; *root && !found; root += strcspn(root, ":"), root += *root == ':')
			found = is_below(path, root, strcspn(root, ":"));
	found = found && fstat(fd, st) == 0 && S_ISREG(st->st_mode);
	errno = saved;
	return found;
}

/* ---- the logs ---- */

/* Opens and locks the log of a file. */
static int
log_open(const struct stat *st, LogHead *head)
{
	char		path[PATH_MAX];
	int			log;

	snprintf(path, sizeof(path), "%s/%llx", directory, (unsigned long long) st->st_ino);
	log = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (log < 0)
		give_up("open");
	while (flock(log, LOCK_EX) < 0)
		if (errno != EINTR)
			give_up("flock");
	if (pread(log, head, sizeof(*head), 0) != sizeof(*head))
		memset(head, 0, sizeof(*head));
	return log;
}

static void
log_put(int log, const void *data, size_t len, uint64_t at)
{
	for (size_t done = 0; done < len;)
	{
		ssize_t		n = syscall(SYS_pwrite64, log, (const char *) data + done, len - done, (off_t) (at + done));

		if (n < 0 && errno != EINTR)
			give_up("write");
		if (n > 0)
			done += (size_t) n;
	}
}

/* The head last: a record whose writer dies before is none. */
static void
log_record(int log, LogHead *head, LogRecord *record, const char *kept)
{
	uint64_t	at = sizeof(*head) + head->end - head->base;

	log_put(log, record, sizeof(*record), at);
	log_put(log, kept, record->kept, at + sizeof(*record));
	head->end += sizeof(*record) + record->kept;
	log_put(log, head, sizeof(*head), 0);
}

/* All of it is durable up to there. */
static void
log_discard(int log, LogHead *head, uint64_t upto)
{
	if (upto > head->upto)
		head->upto = upto;
	if (head->upto >= head->end)
	{
		head->base = head->upto = head->end;
		if (syscall(SYS_ftruncate, log, (off_t) sizeof(*head)) < 0)
			give_up("ftruncate");
	}
	log_put(log, head, sizeof(*head), 0);
}

/*
 * Opens the log and notes what a change is about to replace: as many bytes from
 * that offset on.  A file without a name will not be there after a loss.
 */
static int
log_change(int fd, off_t offset, size_t length, size_t replaced, int resized)
{
	struct stat st;
	LogHead		head;
	LogRecord	record = {(uint64_t) offset, length, 0, 0, (uint64_t) resized};
	char	   *kept = NULL;
	int			log;

	if (fstat(fd, &st) < 0)
		give_up("fstat");
	log = log_open(&st, &head);
	if (fstat(fd, &st) < 0)
		give_up("fstat");
	record.size = (uint64_t) st.st_size;
	if (offset < st.st_size && replaced > 0)
	{
		char		path[64];
		int			readable;

		/* It may be open for writing only. */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		readable = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
		kept = malloc(replaced);
		if (readable < 0 || kept == NULL)
			give_up("read");
		while (record.kept < replaced)
		{
			ssize_t		n = pread(readable, kept + record.kept, replaced - record.kept, offset + (off_t) record.kept);

			if (n <= 0)
				break;
			record.kept += (uint64_t) n;
		}
		close(readable);
	}
	if (st.st_nlink > 0)
		log_record(log, &head, &record, kept);
	free(kept);
	return log;
}

/* ---- a full disk ---- */

/* Whether the file must not grow. */
static int
is_full(int fd)
{
	char		names[2 * PATH_MAX];
	char		path[PATH_MAX];
	ssize_t		len;
	char	   *exempt;
	int			flag;

	snprintf(path, sizeof(path), "%s/full", directory);
	flag = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (flag < 0)
		return 0;
	len = read(flag, names, sizeof(names) - 1);
	close(flag);
	if (len <= 0 || !path_of(fd, path))
		return 0;
	names[len] = '\0';
	exempt = strchr(names, '\n');
	if (exempt == NULL)
		return 0;
	*exempt++ = '\0';
	exempt[strcspn(exempt, "\n")] = '\0';
	return is_below(path, names, strlen(names)) && !is_below(path, exempt, strlen(exempt));
}

/* How much of the bytes there is room for. */
static size_t
room_for(int fd, const struct stat *st, off_t offset, size_t length)
{
	off_t		limit = (st->st_size + BLOCK - 1) / BLOCK * BLOCK;

	if (offset + (off_t) length <= limit || !is_full(fd))
		return length;
	return offset < limit ? (size_t) (limit - offset) : 0;
}

/* ---- writing ---- */

static size_t
total(const struct iovec *parts, int count)
{
	size_t		sum = 0;

	for (int i = 0; i < count; i++)
		sum += parts[i].iov_len;
	return sum;
}

/* With an offset of -1: where the file is. */
static ssize_t
raw_write(int fd, const struct iovec *parts, int count, off_t offset)
{
	if (count == 1)
		return offset < 0 ? syscall(SYS_write, fd, parts->iov_base, parts->iov_len) :
			syscall(SYS_pwrite64, fd, parts->iov_base, parts->iov_len, offset);
	return offset < 0 ? syscall(SYS_writev, fd, parts, count) :
		syscall(SYS_pwritev, fd, parts, count, offset, 0L);
}

static ssize_t
disk_write(int fd, const struct iovec *parts, int count, off_t offset)
{
	struct stat st;
	struct iovec first;
	off_t		at = offset;
	size_t		length = total(parts, count);
	size_t		room;
	ssize_t		result;
	int			log;
	int			saved;

	if (length == 0 || !on_disk(fd, &st))
		return raw_write(fd, parts, count, offset);
	if (fcntl(fd, F_GETFL) & O_APPEND)
		at = st.st_size;
	else if (offset < 0)
		at = lseek(fd, 0, SEEK_CUR);
	room = room_for(fd, &st, at, length);
	if (room < length)
	{
		/* What is in one piece is written as far as it goes. */
		if (room == 0 || count > 1)
		{
			errno = ENOSPC;
			return -1;
		}
		first = *parts;
		first.iov_len = length = room;
		parts = &first;
	}
	log = log_change(fd, at, length, length, 0);
	result = raw_write(fd, parts, count, offset);
	saved = errno;
	close(log);
	errno = saved;
	return result;
}

ssize_t
write(int fd, const void *data, size_t len)
{
	struct iovec part = {(void *) data, len};

	return disk_write(fd, &part, 1, -1);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	struct iovec part = {(void *) data, len};

	return disk_write(fd, &part, 1, offset);
}

ssize_t
writev(int fd, const struct iovec *parts, int count)
{
	return disk_write(fd, parts, count, -1);
}

ssize_t
pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
	return disk_write(fd, parts, count, offset);
}

/* ---- sizes ---- */

int
ftruncate(int fd, off_t size)
{
	struct stat st;
	int			log;
	int			result;
	int			saved;

	if (!on_disk(fd, &st))
		return (int) syscall(SYS_ftruncate, fd, size);
	log = log_change(fd, size, 0, size < st.st_size ? (size_t) (st.st_size - size) : 0, 1);
	result = (int) syscall(SYS_ftruncate, fd, size);
	saved = errno;
	close(log);
	errno = saved;
	return result;
}

int
truncate(const char *path, off_t size)
{
	int			fd = open(path, O_WRONLY | O_CLOEXEC);
	int			result;
	int			saved;

	if (fd < 0)
		return -1;
	result = ftruncate(fd, size);
	saved = errno;
	close(fd);
	errno = saved;
	return result;
}

int
posix_fallocate(int fd, off_t offset, off_t length)
{
	struct stat st;
	int			log = -1;
	int			result;

	if (on_disk(fd, &st) && offset + length > st.st_size)
	{
		if (is_full(fd))
			return ENOSPC;
		log = log_change(fd, offset + length, 0, 0, 1);
	}
	result = syscall(SYS_fallocate, fd, 0, offset, length) < 0 ? errno : 0;
	if (log >= 0)
		close(log);
	return result;
}

int
open(const char *path, int flags,...)
{
	va_list		args;
	unsigned int mode;
	int			fd;
	struct stat st;

	va_start(args, flags);
	mode = va_arg(args, unsigned int);
	va_end(args);

	/* A file that is emptied is opened as it is first. */
	fd = directory && (flags & O_TRUNC) ? (int) syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC) : -1;
	if (fd >= 0)
	{
		int			ours = on_disk(fd, &st);

		close(fd);
		if (ours)
		{
			fd = (int) syscall(SYS_openat, AT_FDCWD, path, flags & ~(O_TRUNC | O_EXCL), mode);
			if (fd >= 0 && ftruncate(fd, 0) < 0)
				give_up("ftruncate");
			return fd;
		}
	}
	return (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* ---- durability ---- */

/* What was written before the call is durable when it returns; the rest may be. */
int
fsync(int fd)
{
	struct stat st;
	LogHead		head;
	uint64_t	upto;
	char		path[PATH_MAX];
	int			log;

	if (!on_disk(fd, &st))
		return (int) syscall(SYS_fsync, fd);
	if (path_of(fd, path) && is_below(path, lies, strlen(lies)))
		return 0;
	log = log_open(&st, &head);
	upto = head.end;
	close(log);
	nanosleep(&(struct timespec) {.tv_nsec = SYNC_MICROSECONDS * 1000}, NULL);
	log = log_open(&st, &head);
	log_discard(log, &head, upto);
	close(log);
	return 0;
}

int
fdatasync(int fd)
{
	return fsync(fd);
}

/* Begins to write, promises nothing. */
int
sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags)
{
	(void) fd, (void) offset, (void) length, (void) flags;
	return 0;
}

/* ---- names ---- */

/* When a name goes away, and the file with it, its inode may serve another file. */
static int
forget_if_gone(int result, int fd)
{
	int			saved = errno;
	struct stat st;
	LogHead		head;

	if (fd < 0)
		return result;
	if (result == 0 && on_disk(fd, &st) && st.st_nlink == 0)
	{
		int			log = log_open(&st, &head);

		log_discard(log, &head, head.end);
		close(log);
	}
	close(fd);
	errno = saved;
	return result;
}

static int
hold(const char *path)
{
	int			saved = errno;
	int			fd = directory ? (int) syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC | O_NOFOLLOW) : -1;

	errno = saved;
	return fd;
}

int
unlink(const char *path)
{
	int			fd = hold(path);

	return forget_if_gone((int) syscall(SYS_unlinkat, AT_FDCWD, path, 0), fd);
}

int
rename(const char *from, const char *to)
{
	int			fd = hold(to);

	return forget_if_gone((int) syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0U), fd);
}

/* ---- the same by other names ---- */

extern __typeof(open) open64 __attribute__((alias("open")));
extern __typeof(pwrite) pwrite64 __attribute__((alias("pwrite")));
extern __typeof(pwritev) pwritev64 __attribute__((alias("pwritev")));
extern __typeof(ftruncate) ftruncate64 __attribute__((alias("ftruncate")));
extern __typeof(truncate) truncate64 __attribute__((alias("truncate")));
extern __typeof(posix_fallocate) posix_fallocate64 __attribute__((alias("posix_fallocate")));
