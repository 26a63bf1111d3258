/*
 * event.h
 *
 * An event, and the rows of a segment that hold it.
 *
 * An event takes one row, or, where it does not fit a page, a head row and as
 * many continuation rows as its payload needs, right after it and with the
 * same seq.  So a segment needs neither TOAST nor an index, and the append
 * never does more than put ready tuples on the last page.
 */
#ifndef EO_EVENT_H
#define EO_EVENT_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* Columns of eo.log_N, in order; see src/sql/log.sql */
enum
{
	EO_COL_SEQ = 1,
	EO_COL_ENQUEUED_AT,
	EO_COL_EVENT_ID,
	EO_COL_PART,				/* 0: whole; -n: head, n rows follow; 1..n */
	EO_COL_TOPIC,
	EO_COL_KEY,
	EO_COL_TYPE,
	EO_COL_HEADERS,
	EO_COL_PAYLOAD,				/* jsonb */
	EO_COL_BODY,				/* bytea, or a part of either */
	EO_COL_CONTENT_TYPE,		/* of body; NULL with a jsonb payload */
	EO_COL_SUBSCRIPTION			/* the only one that gets it; NULL: all */
};
#define EO_LOG_COLUMNS	EO_COL_SUBSCRIPTION

/*
 * Pointers lead into memory of whoever made the event.  `payload`, `body` and
 * `headers` may be compressed inline: use DatumGetJsonbP and friends.
 * A tombstone has neither payload nor body.
 */
typedef struct EoEvent
{
	int64		seq;			/* 0 before the append */
	TimestampTz enqueued_at;
	pg_uuid_t	event_id;
	text	   *topic;
	text	   *key;			/* or NULL */
	text	   *type;			/* or NULL */
	struct varlena *headers;	/* jsonb, or NULL */
	struct varlena *payload;	/* jsonb, or NULL */
	struct varlena *body;		/* bytea, or NULL */
	text	   *content_type;	/* or NULL */
	int32		subscription;	/* the only one that gets it; 0: all */
	Size		size;			/* bytes of its rows */
} EoEvent;

/*
 * Forms the rows of an event in the current memory context, with seq 0.
 * Returns an array of *ntuples.
 */
extern HeapTuple *eo_event_form(TupleDesc desc, const EoEvent *event, int *ntuples);

/* Numbers a formed row. */
extern void eo_event_set_seq(HeapTuple tuple, int64 seq);

/*
 * Reads a row back.  For a whole event returns 0; for a head row the number of
 * rows that follow; for a continuation row -1, with its bytes in event->body.
 * Pointers lead into the tuple.
 */
extern int	eo_event_deform(HeapTuple tuple, TupleDesc desc, EoEvent *event);

/* Seq and part of a row, without deforming the rest. */
extern int64 eo_event_row_seq(HeapTuple tuple);

/* Puts the payload of a head row together from its continuation rows' bodies. */
extern void eo_event_join(EoEvent *head, struct varlena **parts, int nparts);

#endif							/* EO_EVENT_H */
