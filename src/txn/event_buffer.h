/*
 * event_buffer.h
 *
 * The events that the current transaction has enqueued.
 */
#ifndef EO_EVENT_BUFFER_H
#define EO_EVENT_BUFFER_H

#include "store/event.h"

/*
 * Where an event belongs: events are appended in the order of their commands,
 * those of one command in the order in which they were added.
 */
typedef struct EoEventPlace
{
	CommandId	cid;			/* the current command or an earlier one */

	/* of the change of a row */
	CommandId	until;			/* has changed the row again; else InvalidCommandId */
	bool		removes;		/* sets the key free ... */
	bool		first;			/* ... and comes before the others of its command */
} EoEventPlace;

/*
 * Adds an event to the transaction.  Copies it.  The caller has validated it
 * (txn/produce.h) and checked privileges.
 */
extern void eo_buffer_add(const EoEvent *event, const EoEventPlace *place);

/*
 * Calls `visit` for each buffered event in order, in a memory context that is
 * reset after each.
 */
typedef void (*EoBufferVisitor) (const EoEvent *event, void *arg);
extern void eo_buffer_walk(EoBufferVisitor visit, void *arg);

/* The last seq that this session's latest commit appended; 0: none. */
extern int64 eo_buffer_last_seq(void);

/*
 * CREATE EXTENSION: forgets what is known of an earlier log, now and at an
 * abort; asks the launcher for a relay at commit.
 */
extern void eo_log_created(void);

/* At commit, tells the relay to reload. */
extern void eo_config_changed_at_commit(void);

/* The same, and lets the next append compare eo.lineage with this server. */
extern void eo_lineage_changed_at_commit(void);

/* Called once, by _PG_init. */
extern void eo_buffer_init(void);

#endif							/* EO_EVENT_BUFFER_H */
