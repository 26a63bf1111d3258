/*
 * apply_target.h
 *
 * The tables that changes are applied to.
 */
#ifndef EO_CAPTURE_APPLY_TARGET_H
#define EO_CAPTURE_APPLY_TARGET_H

#include "capture/apply_event.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/bitmapset.h"
#include "utils/relcache.h"

typedef struct EoTargetColumn
{
	const char *name;
	const char *quoted;
	Oid			type;
	Oid			base_type;		/* below domains */
	bool		generated;		/* cannot be written */
	bool		identity;		/* GENERATED ALWAYS: can only be inserted */

	/* for columns of the key */
	const char *equals;			/* the operator */
	FmgrInfo	output;
	bool		pin;			/* its text depends on settings */
} EoTargetColumn;

/* The statements that write a set of columns */
typedef struct EoTargetWriter
{
	Bitmapset  *present;
	SPIPlanPtr	insert;
	SPIPlanPtr	update;
	struct EoTargetWriter *next;
} EoTargetWriter;

typedef struct EoTarget
{
	Oid			relid;
	bool		complete;
	bool		valid;
	bool		fragile;		/* has types that change without the table */
	bool		money;			/* has values that are read as a locale says */
	int			users;
	MemoryContext context;
	struct EoTarget *next;		/* of those that are cached */

	const char *name;			/* with the schema, quoted */
	const char *only;			/* and without the tables that inherit */
	int			nkeys;
	bool		arbiter;		/* ON CONFLICT can refer to the key */
	int			ncolumns;
	EoTargetColumn *columns;	/* those of the key come first */
	Oid		   *types;
	TupleDesc	desc;			/* of a record of them */
	FmgrInfo	populate;
	Datum		empty;			/* such a record, all null */

	SPIPlanPtr	find;
	SPIPlanPtr	delete;
	EoTargetWriter *writers;
	int			nwriters;
} EoTarget;

/* What an event says of a row; the columns of the key come first. */
typedef struct EoTargetRow
{
	Datum	   *values;
	char	   *nulls;			/* as SPI wants them */
	Bitmapset  *present;		/* the columns that the event has */
} EoTargetRow;

/* An ERROR if the current user must not write a table, or it does not exist. */
extern void eo_target_check_privileges(Oid relid);

/*
 * What is known of a table, from a cache; good until eo_target_release().  An
 * ERROR if it is no table, or has no key.
 */
extern EoTarget *eo_target_acquire(Relation rel);
extern void eo_target_release(EoTarget *target);

/*
 * In apply_row.c: the row of an event, or only its key; an ERROR if it lacks some of the key.
 */
extern void eo_target_read_row(EoTarget *target, const EoChange *change, EoTargetRow *row);
extern void eo_target_read_key(EoTarget *target, const EoChange *change, EoTargetRow *row);

/*
 * The text of a key, the same in every session and for every way to write the
 * same value in JSON.
 */
extern text *eo_target_key(EoTarget *target, const EoTargetRow *row);

/* As the current user.  Caller has connected to SPI. */
extern bool eo_target_has(EoTarget *target, const EoTargetRow *row);
extern bool eo_target_insert(EoTarget *target, const EoTargetRow *row);
extern bool eo_target_update(EoTarget *target, const EoTargetRow *row);
extern bool eo_target_delete(EoTarget *target, const EoTargetRow *row);
extern void eo_target_delete_all(EoTarget *target);

/* Deletes the rows of which `spare` is not true. */
extern void eo_target_delete_but(EoTarget *target, bool (*spare) (Oid relid, text *key));

#endif							/* EO_CAPTURE_APPLY_TARGET_H */
