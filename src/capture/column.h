/*
 * column.h
 *
 * What all formats know of a column: its name in JSON, and whether it has
 * changed.
 */
#ifndef EO_CAPTURE_COLUMN_H
#define EO_CAPTURE_COLUMN_H

#include "catalog/pg_attribute.h"
#include "executor/tuptable.h"
#include "utils/jsonb.h"

typedef struct EoColumn
{
	AttrNumber	attnum;
	int16		typlen;
	bool		typbyval;
	JsonbValue	name;
} EoColumn;

/* In the current memory context */
extern void eo_column_init(EoColumn *column, Form_pg_attribute attribute);

/* For qsort(), in the order of keys in a jsonb object; of structs that begin with an EoColumn. */
extern int	eo_column_compare(const void *a, const void *b);

/* Whether two rows certainly have the same value; their attributes are deformed. */
extern bool eo_column_same(const EoColumn *column, TupleTableSlot *a, TupleTableSlot *b);

#endif							/* EO_CAPTURE_COLUMN_H */
