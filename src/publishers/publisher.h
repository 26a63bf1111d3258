/*
 * publisher.h
 *
 * What a broker has to provide to become a publisher, and what the shared main
 * loop (harness.c) gives it in return.
 *
 * A publisher is a separate executable, eo-publish-<kind>, with one thread of
 * its own that speaks frames (wire/message.h) on descriptor 0 and its broker's
 * protocol on the other side.  The relay may kill it at any instruction, so
 * nothing but the broker holds state.
 *
 * A broker file defines one PublisherOps and hands it to publisher_main():
 *
 *		static const PublisherOps file_ops = {
 *			.kind = "file",
 *			.open = file_open, ...
 *		};
 *		int main(void) { return publisher_main(&file_ops); }
 *
 * The loop keeps every event that was handed to publish() in a ring, in order.
 * The broker file settles them, in any order, one by one or all at once; the
 * loop turns that into cumulative ACKs.
 */
#ifndef EO_PUBLISHER_H
#define EO_PUBLISHER_H

#include "wire/message.h"
#include "publishers/cloudevents.h"

typedef struct Publisher Publisher;

typedef enum PublishResult
{
	PUBLISH_TAKEN,				/* the broker file owes a settlement */
	PUBLISH_BUSY				/* queue full: the loop stops reading and calls
								 * again after poll() settled something, or
								 * when poll_fd or poll_ms woke it */
} PublishResult;

typedef enum SettleOutcome
{
	SETTLE_DURABLE,				/* the broker has it for good */
	SETTLE_REFUSED				/* never: too large, no such topic, ... */
} SettleOutcome;

typedef struct PublisherOps
{
	const char *kind;

	/*
	 * Connects.  Calls publisher_position() if the broker can tell what it
	 * has.  Ends the process with publisher_fail() if it cannot go on.
	 */
	void		(*open) (Publisher *pub, const EoConfigMessage *config);

	/*
	 * Hands one event to the client library.  The event's spans are gone after
	 * the call.  `token` names it in publisher_settle().
	 */
	PublishResult (*publish) (Publisher *pub, const EoEventMessage *event,
							  uint64_t token);

	/*
	 * Serves the client library without blocking; settles what is done.
	 * Called when `poll_fd` is readable, when `poll_ms` have passed, and after
	 * each burst of events (the input has run dry for now, or a few megabytes
	 * came: a good moment to fsync or to commit what was taken).  Optional.
	 */
	void		(*poll) (Publisher *pub);

	/* Makes durable and settles all that was taken.  May block. */
	void		(*flush) (Publisher *pub);

	/* Releases everything.  Optional. */
	void		(*close) (Publisher *pub);

	/* Optional: a descriptor that gets readable when poll() has work. */
	int			(*poll_fd) (Publisher *pub);

	/*
	 * How long the loop may wait between calls of poll(), also when nothing
	 * is unsettled; 0: for ever, and then an idle publisher never wakes up.
	 */
	int			poll_ms;
} PublisherOps;

struct Publisher
{
	const PublisherOps *ops;
	void	   *state;			/* the broker file's own */
};

extern int	publisher_main(const PublisherOps *ops);

/* To be called by open(): what READY will say. */
extern void publisher_position(Publisher *pub, int64_t last_seq);

/* One event is done; `reason` only with SETTLE_REFUSED. */
extern void publisher_settle(Publisher *pub, uint64_t token,
							 SettleOutcome outcome, const char *reason);

/* Every event up to the one with this token is durable. */
extern void publisher_settle_through(Publisher *pub, uint64_t token);

/* How many events have been taken and not settled. */
extern size_t publisher_unsettled(Publisher *pub);

extern void publisher_log(Publisher *pub, EoLogLevel level, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));

/* The client library made this many attempts more; for STAT. */
extern void publisher_count_retries(Publisher *pub, int64_t more);

/*
 * Sends a NACK that says "try again later" for the oldest event (or seq 0
 * when there is none) with the reason, and exits with status 1.
 */
extern void publisher_fail(Publisher *pub, const char *fmt,...)
			__attribute__((format(printf, 2, 3), noreturn));

#endif							/* EO_PUBLISHER_H */
