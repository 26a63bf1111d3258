/*
 * row_json.h
 *
 * Rows as JSON, as to_jsonb() gives them, without looking into the catalogs
 * for each.
 */
#ifndef EO_ROW_JSON_H
#define EO_ROW_JSON_H

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "utils/jsonb.h"

/* Rows are slots with all their attributes deformed. */
typedef struct EoRowEncoder EoRowEncoder;

/*
 * In the current memory context; good as long as the descriptor's columns and
 * their types stay as they are.  `columns` holds attribute numbers.
 */
extern EoRowEncoder *eo_row_encoder(TupleDesc desc, const Bitmapset *columns);

/* The columns of a row as an object. */
extern Jsonb *eo_row_to_jsonb(EoRowEncoder *encoder, TupleTableSlot *row);

/*
 * An object with an object for each column: {"old": x, "new": y}.  Either row
 * may be NULL; with both, columns whose values are the same are left out.  NULL
 * if that leaves nothing.
 */
extern Jsonb *eo_row_difference(EoRowEncoder *encoder, TupleTableSlot *old_row, TupleTableSlot *new_row);

/*
 * A key: the value of one column as text, as ->> gives it, or an array of
 * several.  None may be NULL.
 */
extern text *eo_row_key(EoRowEncoder *encoder, TupleTableSlot *row, int nkeys, const AttrNumber *keys);

/* Whether two values of a column have the same image. */
extern bool eo_row_same(EoRowEncoder *encoder, AttrNumber attnum, TupleTableSlot *a, TupleTableSlot *b);

#endif							/* EO_ROW_JSON_H */
