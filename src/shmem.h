/*
 * shmem.h
 *
 * What backends, relays and the launcher share.
 *
 * Nothing here is a source of truth: a crash or restart empties it, and each
 * part is rebuilt from the tables by whoever needs it first.
 *
 * Locking.  EoShared.lock (an LWLock, held for a few instructions) protects
 * the allocation of slots and the fields marked [L].  Fields marked [A] belong
 * to whoever holds the database's append lock (store/append.c); where others
 * may look at them without it, they are atomics.  Fields marked [R] are
 * written by the database's relay alone.  Statistics of a subscription are
 * under its spinlock, those of what was received under EoShared.tally_lock.
 * EoShared.appended is written under the append lock of the writer's database.
 */
#ifndef EO_SHMEM_H
#define EO_SHMEM_H

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

/* Segments in the ring; the tables eo.log_0 ... of the extension's script. */
#define EO_SEGMENTS				8

/*
 * A seq: epoch in the high bits, counter in the low 44.
 */
#define EO_SEQ_COUNTER_BITS		44
#define EO_SEQ(epoch, counter)	(((int64) (epoch) << EO_SEQ_COUNTER_BITS) | (counter))
#define EO_SEQ_EPOCH(seq)		((int32) ((seq) >> EO_SEQ_COUNTER_BITS))
#define EO_SEQ_COUNTER(seq)		((seq) & ((INT64CONST(1) << EO_SEQ_COUNTER_BITS) - 1))

/*
 * What is received is kept in families of tables: for each class of windows
 * two generations.  The numbers are those of the columns of eo.generation.
 */
typedef enum EoFamily
{
	EO_INBOX,					/* consumers and message ids */
	EO_IDEMPOTENCY				/* scopes and idempotency keys */
} EoFamily;

#define EO_FAMILIES				2
#define EO_CLASSES				3	/* day, week, long */
#define EO_GENERATIONS			2

/* Whether this database may publish; see store/lineage.c. */
typedef enum EoLineageState
{
	EO_LINEAGE_UNKNOWN = 0,		/* not read yet */
	EO_LINEAGE_OURS,			/* same cluster, database and timeline */
	EO_LINEAGE_CONTINUED,		/* new timeline, which may go on */
	EO_LINEAGE_FOREIGN			/* a copy, or a timeline that has to wait: no
								 * publishing before eo.adopt() */
} EoLineageState;

typedef struct EoSegment
{
	pg_atomic_uint64 first_seq; /* [A] 0: empty */
	pg_atomic_uint64 last_seq;	/* [A] highest seq ever written to it */
	pg_atomic_uint64 last_append;	/* [A] TimestampTz */
	pg_atomic_uint32 generation;	/* [A] bumped when its blocks were re-used
									 * or rewritten: readers start over */
	pg_atomic_uint64 first_append;	/* [A] TimestampTz */
	BlockNumber tail_block;		/* [A] block of the latest append */
	Oid			filenode;		/* [A] its file when tail_block was noted */
	pg_atomic_uint32 native_filenode;	/* its file if nobody rewrote it (VACUUM
										 * FULL, CLUSTER): rows stand in order */
} EoSegment;

/* One class of a family; see store/generations.c. */
typedef struct EoGenerationState
{
	pg_atomic_uint32 current;	/* the generation that is filled */
	pg_atomic_uint64 switched_at;	/* TimestampTz since which nobody fills the
									 * other one; 0: never switched; DT_NOEND:
									 * somebody still may */
	pg_atomic_uint64 first_at;	/* TimestampTz of a first claim in it; 0: none
								 * since it was switched to or loaded */
} EoGenerationState;

typedef struct EoDatabase
{
	Oid			dboid;			/* [L] InvalidOid: free slot */

	/* ---- the log ---- */
	pg_atomic_uint32 log_ready; /* the log's fields have been read from disk */
	pg_atomic_uint32 lineage;	/* EoLineageState */
	pg_atomic_uint32 lineage_stale; /* eo.lineage has been written to */
	pg_atomic_uint32 epoch;		/* [A] of the next append */
	pg_atomic_uint64 last_seq;	/* [A] the highest seq handed out */
	pg_atomic_uint64 floor_seq; /* everything up to here was truncated */
	pg_atomic_uint32 active_segment;	/* [A] */
	EoSegment	segments[EO_SEGMENTS];

	/* transactions with events that have ended, committed or not */
	pg_atomic_uint64 ended;
	pg_atomic_uint32 waiters;	/* backends in eo.fetch() */
	ConditionVariable events_ended; /* broadcast with ended, for them */

	/* ---- what was received ---- */
	pg_atomic_uint32 registry_epoch;	/* bumped when consumers, scopes or
										 * generations have changed */
	pg_atomic_uint32 registry_changing; /* transactions about to commit such a
										 * change: caches are not to be trusted */
	pg_atomic_uint32 generations_ready; /* generations[][] have been read; set
										 * under EoShared.lock, if registry_epoch
										 * has not changed meanwhile */
	EoGenerationState generations[EO_FAMILIES][EO_CLASSES];
	pg_atomic_uint64 lease_changes; /* transactions that have completed or
									 * released leased idempotency keys, or
									 * changed scopes */
	ConditionVariable leases_changed;	/* broadcast with lease_changes */

	/* ---- the relay ---- */
	pid_t		relay_pid;		/* [L] 0: none */
	Latch	   *relay_latch;	/* [L] a PGPROC's; may be read without the
								 * lock, a stray SetLatch is harmless */
	pg_atomic_uint32 relay_sleeping;	/* [R] wants a SetLatch */
	pg_atomic_uint32 config_generation; /* bumped when subscriptions, servers
										 * or user mappings changed */
	pg_atomic_uint32 chores;	/* bumped by eo_relay_rouse() */
	pg_atomic_uint32 config_prepared;	/* a transaction that was prepared
										 * has changed servers or the like */
	bool		relay_wanted;	/* [L] the launcher should start one */
	bool		relay_failed;	/* [L] the last one ended with an error */
	int			holds;			/* [L] DROP DATABASE and the like under way:
								 * no relay may run */
	ConditionVariable relay_changed;	/* relay started or ended; so for the next */

	/* ---- the worker of eo.snapshot() ---- */
	pid_t		snapshot_pid;	/* [L] 0: none */
	bool		snapshot_failed;	/* [L] the last one ended with an error */

	/* ---- what the log waits for, see eo.stalls ---- */
	pg_atomic_uint32 stall_xid; /* [R] 0: none */
	pg_atomic_uint64 stall_seq; /* [R] */
	pg_atomic_uint64 stall_since;	/* [R] TimestampTz */
} EoDatabase;

typedef enum EoSubscriptionState
{
	EO_SUB_NONE = 0,
	EO_SUB_PAUSED,				/* by eo.pause() */
	EO_SUB_WAITING_ADOPTION,	/* by the lineage */
	EO_SUB_STARTING,			/* publisher has not said READY */
	EO_SUB_CATCHING_UP,
	EO_SUB_STREAMING,			/* at the tail */
	EO_SUB_BACKOFF,				/* publisher ended, will be restarted */
	EO_SUB_FAILED,				/* too many restarts, or unusable options */
	EO_SUB_PULL					/* the application reads it */
} EoSubscriptionState;

#define EO_ERROR_LENGTH			512

typedef struct EoSubscriptionStats
{
	EoSubscriptionState state;
	pid_t		publisher_pid;
	int64		read_seq;		/* everything up to here has been looked at */
	int64		acked_seq;		/* everything up to here is published */
	int64		published;		/* events acknowledged since server start */
	int64		published_bytes;
	int64		refused;		/* dead letters since server start */
	int64		in_flight;
	int64		lag_bytes;		/* of the log, not read yet */
	int64		restarts;
	TimestampTz oldest_unpublished; /* enqueued_at of the oldest event in
									 * flight; 0: none */
	TimestampTz last_ack_at;
	TimestampTz next_start_at;	/* in BACKOFF */
	TimestampTz last_error_at;
	char		last_error[EO_ERROR_LENGTH];
} EoSubscriptionStats;

typedef struct EoSubscriptionSlot
{
	Oid			dboid;			/* [L] InvalidOid: free slot */
	int32		id;				/* [L] eo.subscription.id */
	slock_t		mutex;			/* protects stats */
	EoSubscriptionStats stats;
	ConditionVariable advanced; /* broadcast when acked_seq moved */
} EoSubscriptionSlot;

typedef struct EoTallyCounts
{
	int64		held;			/* keys claimed ... */
	int64		bytes;			/* ... and what they take, about */
	TimestampTz first_at;		/* when the first of them was; 0: none */
	int64		repeats;		/* keys that were found claimed */
} EoTallyCounts;

/*
 * What was counted of an owner's keys in a generation and is not in the tables
 * yet; all of it under tally_lock.  See store/tally.c.
 */
typedef struct EoTallySlot
{
	Oid			dboid;			/* InvalidOid: free slot */
	int32		owner;
	int16		family;
	int16		class;
	int16		generation;
	bool		flushing;		/* by a transaction that has not ended */
	EoTallyCounts pending;
	EoTallyCounts flushed;		/* by the latest flush, for those who do not see
								 * it in the tables */
	FullTransactionId flush_xid;	/* of that one */
} EoTallySlot;

typedef struct EoShared
{
	LWLock	   *lock;
	LWLock	   *tally_lock;		/* protects tallies */
	pid_t		launcher_pid;	/* [L] */
	Latch	   *launcher_latch; /* [L] as relay_latch */
	int			ndatabases;
	int			nsubscriptions;
	int			ntallies;
	int			nbackends;
	EoDatabase *databases;
	EoSubscriptionSlot *subscriptions;
	EoTallySlot *tallies;
	pg_atomic_uint64 *appended; /* by number of the backend: the latest
								 * transaction that appended, a full xid */
} EoShared;

/* NULL unless loaded by shared_preload_libraries */
extern EoShared *eo_shared;

extern void eo_shmem_init(void);	/* called once, by _PG_init */

/*
 * The slot of a database.  NULL if there is none and `create` is false; an
 * ERROR with a hint when all slots are taken.
 */
extern EoDatabase *eo_database_slot(Oid dboid, bool create);
extern EoDatabase *eo_database_slot_try(Oid dboid); /* creates; NULL if it cannot */
extern EoDatabase *eo_my_database(void);	/* of MyDatabaseId, created */
extern void eo_database_slot_free(Oid dboid);	/* the database is gone */

/*
 * CREATE EXTENSION: what is known may be of an extension that was dropped, and
 * is to be read anew.
 */
extern void eo_database_forget_log(EoDatabase *db);

/* Consumers, scopes or generations have changed: makes all read them anew. */
extern void eo_database_forget_registry(EoDatabase *db);

/* Those who wait for a lease look again. */
extern void eo_leases_changed(EoDatabase *db);

/* Asks the launcher for a relay in a database; safe after commit. */
extern void eo_relay_request(Oid dboid);

/* After a transaction with events has ended: wakes the relay if it sleeps. */
extern void eo_relay_wake(EoDatabase *db);

/* There is something other than events for the relay to look at, soon. */
extern void eo_relay_rouse(EoDatabase *db);

/* Tells the relay to reload its configuration, at once; safe after commit. */
extern void eo_relay_config_changed(EoDatabase *db);

/*
 * The slot of a subscription; NULL where there is none and `create` is false,
 * or where all are taken (the caller warns and goes on without statistics).
 */
extern EoSubscriptionSlot *eo_subscription_slot(Oid dboid, int32 id, bool create);
extern void eo_subscription_slot_free(Oid dboid, int32 id);

/* A consistent copy of the statistics. */
extern EoSubscriptionStats eo_subscription_stats(EoSubscriptionSlot *slot);

#endif							/* EO_SHMEM_H */
