/*
 * log_reader.h
 *
 * Reads the log in seq order, up to the first event that may still change.
 */
#ifndef EO_LOG_READER_H
#define EO_LOG_READER_H

#include "shmem.h"
#include "store/event.h"

typedef struct EoLogReader EoLogReader;

/* Whether a subscription wants a topic. */
typedef bool (*EoTopicFilter) (const char *topic, int len, void *arg);

typedef struct EoReadLimits
{
	int			events;
	Size		bytes;
	EoTopicFilter wants;		/* NULL: every topic */
	void	   *wants_arg;
	int32		subscription;	/* who reads: events for another one alone are
								 * not wanted */
	int64		through_seq;	/* do not read beyond it; 0: no bound */
	bool		standbys;		/* only what the synchronous standbys, if there
								 * are any, have on disk */
} EoReadLimits;

typedef struct EoReadResult
{
	EoEvent    *events;			/* in seq order, in the current memory context */
	int			nevents;

	/*
	 * Every event up to here is final and was returned or not wanted.  Equals
	 * the last event's seq or lies above it.
	 */
	int64		through_seq;

	/* There is nothing more to read for now (the tail or a stall). */
	bool		at_tail;

	/* At a stall: the transaction that the next row belongs to. */
	TransactionId stalled_on;	/* InvalidTransactionId: no stall */
	int64		stalled_seq;

	/*
	 * There may be more, which a synchronous standby has not confirmed yet.
	 * Nobody is woken when it does: try again after a moment.
	 */
	bool		awaits_standbys;

	/* Bytes of the log beyond what was read, by pages. */
	int64		bytes_behind;
} EoReadResult;

/* A reader that will return events with a seq above after_seq. */
extern EoLogReader *eo_log_reader_create(EoDatabase *db, int64 after_seq);
extern void eo_log_reader_seek(EoLogReader *reader, int64 after_seq);
extern void eo_log_reader_free(EoLogReader *reader);

/*
 * Reads the next batch.  The commits of all returned events are flushed to
 * disk when it returns.  Needs a transaction with an active snapshot; holds no
 * lock, pin or pointer beyond its end.  Returns false if the extension is gone.
 */
extern bool eo_log_reader_next(EoLogReader *reader, const EoReadLimits *limits,
							   EoReadResult *result);

#endif							/* EO_LOG_READER_H */
