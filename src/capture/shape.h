/*
 * shape.h
 *
 * What a capture trigger does to a table as the table is now: its columns, its
 * key, the topic.
 */
#ifndef EO_CAPTURE_SHAPE_H
#define EO_CAPTURE_SHAPE_H

#include "capture/debezium.h"
#include "capture/row_json.h"
#include "capture/spec.h"
#include "capture/virtual.h"
#include "utils/relcache.h"

typedef struct EoShape
{
	Oid			relid;
	Oid			root;			/* of the partitions that it is one of, or itself */
	bool		valid;
	bool		inert;			/* made for a parent that the table has left */
	MemoryContext context;
	EoCaptureSpec spec;
	char	   *table;			/* its name, for messages */
	text	   *topic;
	text	   *types[EO_CAPTURE_OPS];	/* of events, by operation */
	TupleDesc	desc;
	Bitmapset  *columns;		/* attribute numbers */
	int			nkeys;
	AttrNumber	keys[INDEX_MAX_KEYS];
	bool		exchanges;		/* rows may exchange their keys within a command */
	EoVirtual  *virtual;		/* NULL: no captured column is virtual */
	EoRowEncoder *encoder;
	EoDebezium *debezium;		/* NULL in other formats */
} EoShape;

/*
 * The shape of a trigger of a relation, which is open.  Cached; good until the
 * end of the transaction, also if the table changes and a new one is made.
 */
extern EoShape *eo_shape(Relation rel, const Trigger *trigger);

/*
 * An ERROR if a table cannot be captured so; also if it has no such columns.
 * Otherwise completes the spec: the topic, and the key if the table's children
 * have to be told.
 */
extern void eo_shape_check(Relation rel, EoCaptureSpec *spec);

/* The columns of the key under which a table is captured; an ERROR if it has none. */
extern List *eo_shape_key(Relation rel, const EoCaptureSpec *spec);

/* The topic of a table that was not given one. */
extern char *eo_shape_default_topic(Relation rel);

#endif							/* EO_CAPTURE_SHAPE_H */
