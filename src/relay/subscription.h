/*
 * subscription.h
 *
 * A subscription as the relay sees it: configuration, cursor, what is in
 * flight, and its publisher.
 *
 * Three cursors.  `durable` is what the table says.  `acked` is what the
 * publisher has acknowledged; it runs ahead of `durable` by the acknowledgements
 * of a moment, which a crash may forget: they are sent again then.  The reader
 * is ahead of `acked` by what is in flight.  When a publisher ends, all that is
 * in flight is dropped and the reader goes back to `acked`.
 *
 * Positions follow the same scheme per topic: durable, acked, sent.
 */
#ifndef EO_SUBSCRIPTION_H
#define EO_SUBSCRIPTION_H

#include "nodes/pg_list.h"
#include "relay/backoff.h"
#include "relay/publisher_process.h"
#include "relay/relay.h"
#include "relay/target.h"
#include "shmem.h"
#include "store/log_reader.h"

/* A row of eo.cursor */
typedef struct EoCursor
{
	int64		seq;			/* everything up to here is settled */
	int64		published_seq;	/* the last event that was published.  0: none
								 * known; -1: nothing was ever sent since the
								 * subscription began or was sought */
	int64		replay_until;	/* while seq is below it, a broker that has
								 * this or more remembers an earlier pass.
								 * Before anything was sent: one that has no
								 * more than this remembers an earlier pass or
								 * another subscription */
	int32		seek_number;	/* of the last eo.seek() applied */
	bool		position_kept;	/* the broker, with these options and under this
								 * identity, has kept a position */
} EoCursor;

/* A topic that the subscription wants, and its rows in eo.position */
typedef struct EoTopic
{
	int64		sent;
	int64		acked;
	int64		delta;			/* while events are counted, see recount.c */
	bool		dirty;			/* acked is not in the table yet */
	int			len;
	char		name[FLEXIBLE_ARRAY_MEMBER];
} EoTopic;

/* An event that was sent and is not settled */
typedef struct EoInFlight
{
	int64		seq;
	EoTopic    *topic;
	int64		position;
	TimestampTz enqueued_at;
	uint32		bytes;
	bool		refused;		/* for good, by a NACK */
	bool		never_sent;		/* refused by ourselves: too large */
} EoInFlight;

/* A refused event whose dead letter has not been written */
typedef struct EoRefusal
{
	int64		seq;
	int64		position;
	char	   *reason;
} EoRefusal;

/* A dead letter that was sent again */
typedef struct EoRetry
{
	int64		seq;
	enum
	{
		EO_RETRY_SENT,
		EO_RETRY_DELIVERED,
		EO_RETRY_REFUSED
	}			state;
	char	   *reason;			/* of EO_RETRY_REFUSED */
} EoRetry;

typedef enum EoPublisherPhase
{
	EO_PUBLISHER_NONE = 0,
	EO_PUBLISHER_STARTING,		/* CONFIG sent, no READY yet */
	EO_PUBLISHER_RUNNING,
	EO_PUBLISHER_STOPPING,		/* STOP sent */
	EO_PUBLISHER_ENDING			/* said or showed that it ends, or was killed */
} EoPublisherPhase;

typedef enum EoEnding
{
	EO_ENDING_OWN,				/* by itself, nobody knows why yet */
	EO_ENDING_ASKED,			/* we wanted it to end */
	EO_ENDING_ORDERLY,			/* it said what is wrong: the broker's fault */
	EO_ENDING_TIMEOUT,			/* we lost patience */
	EO_ENDING_CRASH				/* it broke the protocol */
} EoEnding;

typedef struct EoSubscription
{
	struct EoSubscription *next;
	int32		id;
	MemoryContext context;		/* of everything here */
	EoSubscriptionSlot *slot;	/* NULL: all are taken */

	/* ---- configuration ---- */
	MemoryContext config_context;	/* of this part, made anew at each load */
	char	   *name;
	List	   *topics;			/* patterns, see store/topics.h */
	bool		all_topics;		/* one of them is "*" */
	char	   *identity;		/* of this subscription, for ever */
	bool		paused;
	bool		pull;
	bool		at_home;		/* its home is this database */
	bool		seen;			/* found in the table by the load at hand */
	int32		seek_number;
	int64		seek_seq;
	TransactionId row_xmin;		/* changes when somebody updates the row */
	EoTarget   *target;			/* NULL with pull */

	/* ---- state ---- */
	EoSubscriptionState state;
	EoBackoff	backoff;
	EoCrashWindow crashes;
	int64		next_start;		/* in BACKOFF; EO_NEVER otherwise */
	bool		restarting;		/* the next start is a restart */
	bool		failed;			/* until eo_subscription_renew() */
	bool		restart_wanted; /* the publisher has to be told new options */
	bool		tells_position; /* the publisher can ask its broker for one */
	bool		error_changed;	/* since the last report */
	char		last_error[EO_ERROR_LENGTH];
	TimestampTz last_error_at;
	TimestampTz next_start_at;
	TimestampTz last_ack_at;
	int64		restarts;

	/* ---- cursor and positions ---- */
	bool		has_cursor;		/* read from the table */
	bool		has_positions;
	EoCursor	durable;
	EoCursor	acked;
	struct topics_hash *positions;
	List	   *dirty_topics;	/* of EoTopic * */
	List	   *refusals;		/* of EoRefusal *, by seq */
	int64		last_write;		/* of the cursor, by eo_clock_ms() */
	int64		write_at;		/* when the next one is due; EO_NEVER: not */
	bool		flush_write;	/* the next one must be on disk */

	/* ---- reading and sending ---- */
	EoLogReader *reader;
	int64		read_seq;		/* everything up to here has been read */
	int64		skip_through;	/* the broker has everything up to here */
	int64		sent_seq;		/* the highest that can have been sent, by us
								 * or whoever came before us */
	bool		at_tail;		/* as of seen_ended */
	uint64		seen_ended;
	int64		stall_check;	/* look again then; EO_NEVER: no stall */
	bool		gathering;		/* see eo_delivery_gathers() */
	int64		gather_least;	/* whatever is in flight */
	int64		gather_most;	/* while something is */
	int64		bytes_behind;
	EoInFlight *in_flight;		/* a ring */
	uint32		in_flight_size; /* a power of two */
	uint32		in_flight_head;
	uint32		in_flight_count;

	/* ---- events counted without being sent, see recount.c ---- */
	struct
	{
		bool		active;
		int			sign;		/* of what is counted */
		int64		through;	/* the last seq to count */
		EoCursor	result;		/* the cursor, when all is counted */
		bool		waits;		/* for transactions to end, as of seen_ended */
	}			recount;

	/* ---- dead letters to send again ---- */
	List	   *retries;		/* of EoRetry * */
	bool		load_retries;	/* there may be more in the table */
	int64		retries_at;		/* look again then; EO_NEVER otherwise */

	/* ---- the publisher ---- */
	EoPublisherPhase phase;
	EoPublisherProcess process;
	EoEnding	ending;
	char		reason[EO_ERROR_LENGTH];	/* why it ends */
	char		last_line[EO_ERROR_LENGTH]; /* of its standard error */
	int64		deadline;		/* READY, an ACK or its end is due */
	bool		socket_readable;
	bool		errors_readable;
	int			socket_event;	/* its place in the wait event set; -1: none */
	bool		waits_writeable;	/* as registered there */

	/* ---- counters, since server start ---- */
	int64		published;
	int64		published_bytes;
	int64		refused;
} EoSubscription;

/* ---- subscription.c ---- */

extern EoSubscription *eo_subscription_create(int32 id);

/* It was removed: kills the publisher and frees everything. */
extern void eo_subscription_destroy(EoSubscription *sub);

/*
 * Its turn: acts on what the publisher said, starts or stops it, reads and
 * sends a batch, writes the cursor.  Returns true if there is more to do at
 * once.  May throw.
 */
extern bool eo_subscription_serve(EoSubscription *sub, uint64 ended);

/* An error interrupted eo_subscription_serve(). */
extern void eo_subscription_broken(EoSubscription *sub, const char *message);

/* When it needs a turn though nothing happens; EO_NEVER if it does not. */
extern int64 eo_subscription_deadline(EoSubscription *sub);

/* Whether new events in the log are of interest to it now. */
extern bool eo_subscription_reads(EoSubscription *sub);

/* Somebody changed its configuration: forgets failures. */
extern void eo_subscription_renew(EoSubscription *sub);

/* Copies the statistics to shared memory and wakes who waits for them. */
extern void eo_subscription_report(EoSubscription *sub);

/* ---- progress.c: cursors in the table ---- */

/* `acked` moved: plans the write. */
extern void eo_progress_note(EoSubscription *sub);

/* Everything up to here is published, and will not be sent again. */
extern int64 eo_progress_published(EoSubscription *sub);

/* Writes if it is due; true if reading the log had to wait for that. */
extern bool eo_progress_step(EoSubscription *sub);

/* Writes now; returns false if that has to be tried again. */
extern bool eo_progress_write(EoSubscription *sub);

/* ---- recount.c: moving the cursor without sending ---- */

/* Applies eo.seek(); no publisher may run. */
extern void eo_recount_seek(EoSubscription *sub);

/* The broker lost what came after seq: goes back there. */
extern void eo_recount_back(EoSubscription *sub, int64 seq);

/* Counts a batch.  Returns true if there is more to do at once. */
extern bool eo_recount_step(EoSubscription *sub, uint64 ended);

#endif							/* EO_SUBSCRIPTION_H */
