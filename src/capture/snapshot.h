/*
 * snapshot.h
 *
 * Puts the rows that a captured table has on its topic, a chunk at a time.
 */
#ifndef EO_CAPTURE_SNAPSHOT_H
#define EO_CAPTURE_SNAPSHOT_H

#include "shmem.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

/*
 * What a chunk may have, about: bytes of the log, and time.  What others append
 * meanwhile is not read before it has ended.
 */
#define EO_SNAPSHOT_BYTES	(16 * 1024 * 1024)
#define EO_SNAPSHOT_MS		250

/* How far a table has been read */
typedef struct EoSnapshotPlace
{
	Oid			capture;		/* the trigger that captures it */
	Oid			filenode;		/* of its file when that began; InvalidOid: not yet */
	BlockNumber next_block;
	OffsetNumber next_item;		/* in that block; those before it were read */
	BlockNumber blocks;			/* when it began; what came later is captured */
	int64		rows;			/* put on the topic */
} EoSnapshotPlace;

/*
 * The trigger with which eo.capture() captures insertions into a table, if it is
 * enabled; NULL: none.  A copy: that of the relation's descriptor goes away when
 * somebody changes the table in a way that its lock allows.
 */
extern Trigger *eo_snapshot_capture(Relation rel);

/*
 * An ERROR if a table that is captured by this trigger cannot be read so, or has
 * no events for rows that are there.
 */
extern void eo_snapshot_check_table(Relation rel, const Trigger *capture);

/*
 * Before the first chunk of a table: waits for transactions that are committing,
 * not for ever.  False if one of them does not come to an end.
 *
 * A consumer may have begun right behind their events, and would get neither
 * these nor, from a chunk that does not see what they did, the rows.
 */
extern bool eo_snapshot_settle(void);

typedef struct EoSnapshotChunk
{
	Relation	rel;			/* locked, but not before this transaction */
	int			rows;			/* most rows */
	int32		subscription;	/* the only one to get them; 0: all */
	EoSnapshotPlace *place;		/* is moved on */

	bool		appended;		/* the relay has to be woken */
	bool		stalled;		/* ended early: a transaction does not end */
} EoSnapshotChunk;

/*
 * Puts the next rows on the topic, in the current transaction.  The table has
 * been read when place->next_block reaches place->blocks; it starts over when
 * the table was rewritten.  Pushes a snapshot of its own.
 */
extern void eo_snapshot_chunk(EoDatabase *db, EoSnapshotChunk *chunk);

#endif							/* EO_CAPTURE_SNAPSHOT_H */
