/*
 * file_sync.h
 *
 * Makes a file durable beside the thread that writes it.
 */
#ifndef EO_FILE_SYNC_H
#define EO_FILE_SYNC_H

#include <stdbool.h>

/* Starts the thread.  Returns false, with errno, if it cannot. */
extern bool file_sync_init(void);

/* Gets readable when a sync has ended; file_sync_ended() empties it. */
extern int	file_sync_fd(void);

/* Begins to make all that was written to fd durable.  One at a time. */
extern void file_sync_begin(int fd);

/*
 * Whether the sync that was begun has ended, and in *error its errno or 0.
 * Waits for it if `wait`.  False also if none was begun.
 */
extern bool file_sync_ended(bool wait, int *error);

#endif							/* EO_FILE_SYNC_H */
