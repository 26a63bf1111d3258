/*
 * fault_shim.c
 *
 * Preloaded into a publisher: lets one call on its file fail.
 *
 *		SHIM_SYNC=N			the N-th fdatasync() fails with EIO
 *		SHIM_FSYNC=N		the N-th fsync() fails with EIO
 *		SHIM_WRITE=N		the N-th write() stores half of its bytes, and the
 *							one after it fails with ENOSPC
 *		SHIM_TRUNCATE=N		the N-th ftruncate() fails with EIO
 *
 * Calls before READY count as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int
wanted(const char *name)
{
	const char *value = getenv(name);

	return value ? atoi(value) : -1;
}

int
fsync(int fd)
{
	static int	calls;

	if (++calls == wanted("SHIM_FSYNC"))
	{
		errno = EIO;
		return -1;
	}
	return (int) syscall(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
	static int	calls;

	if (++calls == wanted("SHIM_SYNC"))
	{
		errno = EIO;
		return -1;
	}
	return (int) syscall(SYS_fdatasync, fd);
}

int
ftruncate(int fd, off_t size)
{
	static int	calls;

	if (++calls == wanted("SHIM_TRUNCATE"))
	{
		errno = EIO;
		return -1;
	}
	return (int) syscall(SYS_ftruncate, fd, size);
}

ssize_t
write(int fd, const void *data, size_t len)
{
	static int	calls;

	/* A single byte is a notice between threads. */
	if (fd > 2 && len > 1)
	{
		calls++;
		if (calls == wanted("SHIM_WRITE"))
			len = (len + 1) / 2;
		else if (calls == wanted("SHIM_WRITE") + 1)
		{
			errno = ENOSPC;
			return -1;
		}
	}
	return (ssize_t) syscall(SYS_write, fd, data, len);
}
