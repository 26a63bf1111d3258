/*
 * debezium.h
 *
 * Changes of rows as Debezium's connector for PostgreSQL writes them.
 *
 * An encoder belongs to the shape of a table: what each column becomes is found
 * out once, when it is made.  What the values look like, and where they differ
 * from the connector's, is in test/debezium/FORMAT.md.
 */
#ifndef EO_DEBEZIUM_H
#define EO_DEBEZIUM_H

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "utils/jsonb.h"

typedef struct EoDebezium EoDebezium;

typedef struct EoDebeziumTable
{
	TupleDesc	desc;			/* must live as long as the encoder */
	Bitmapset  *columns;		/* attribute numbers to tell; NULL: all */
	int			nkeys;
	const AttrNumber *keys;		/* of the record key; none: records have no key */
	const char *schema;
	const char *table;
	const char *topic;			/* a prefix before .schema.table is source.name */
} EoDebeziumTable;

/* Makes an encoder in the current memory context.  Copies but for `desc`. */
extern EoDebezium *eo_debezium_make(const EoDebeziumTable *table);

typedef enum EoDebeziumOp
{
	EO_DEBEZIUM_CREATE = 'c',
	EO_DEBEZIUM_UPDATE = 'u',
	EO_DEBEZIUM_DELETE = 'd',
	EO_DEBEZIUM_TRUNCATE = 't',
	EO_DEBEZIUM_READ = 'r'		/* the row was there already: a snapshot */
} EoDebeziumOp;

/*
 * A record to send.  Its header, if any, is `__debezium.newkey` or
 * `__debezium.oldkey`, with the other key of a row whose key has changed, as
 * JSON.
 */
typedef struct EoDebeziumRecord
{
	EoDebeziumOp op;			/* of a tombstone: EO_DEBEZIUM_DELETE */
	text	   *key;			/* or NULL */
	Jsonb	   *payload;		/* NULL: a tombstone */
	const char *header;			/* its name, or NULL */
	text	   *header_value;
} EoDebeziumRecord;

typedef void (*EoDebeziumEmit) (const EoDebeziumRecord *record, void *arg);

/*
 * Calls `emit` for the records of a change, in order: one; for a delete also a
 * tombstone; for an update that changes the key a delete, a tombstone and a
 * create.  `before` and `after` are NULL where the operation has none, and have
 * all their attributes deformed.  Leaves what it allocates to the current memory
 * context.  The caller has pinned the settings of output, but for the time zone.
 */
extern void eo_debezium_change(EoDebezium *encoder, EoDebeziumOp op,
							   TupleTableSlot *before, TupleTableSlot *after,
							   EoDebeziumEmit emit, void *arg);

#endif							/* EO_DEBEZIUM_H */
