/*
 * column.c
 *
 * What all formats know of a column.
 */
#include "postgres.h"

#include "capture/column.h"
#include "utils/datum.h"

void
eo_column_init(EoColumn *column, Form_pg_attribute attribute)
{
	column->attnum = attribute->attnum;
	column->typlen = attribute->attlen;
	column->typbyval = attribute->attbyval;
	column->name.type = jbvString;
	column->name.val.string.val = pstrdup(NameStr(attribute->attname));
	column->name.val.string.len = strlen(NameStr(attribute->attname));
}

int
eo_column_compare(const void *a, const void *b)
{
	const JsonbValue *x = &((const EoColumn *) a)->name;
	const JsonbValue *y = &((const EoColumn *) b)->name;

	if (x->val.string.len != y->val.string.len)
		return x->val.string.len - y->val.string.len;
	return memcmp(x->val.string.val, y->val.string.val, x->val.string.len);
}

/* A value out of line that an update leaves alone need not be fetched. */
static bool
same_place(Datum a, Datum b)
{
	const struct varlena *x = (const struct varlena *) DatumGetPointer(a);
	const struct varlena *y = (const struct varlena *) DatumGetPointer(b);

	return VARATT_IS_EXTERNAL_ONDISK(x) && VARATT_IS_EXTERNAL_ONDISK(y) &&
		memcmp(x, y, VARSIZE_EXTERNAL(x)) == 0;
}

bool
eo_column_same(const EoColumn *column, TupleTableSlot *a, TupleTableSlot *b)
{
	int			i = column->attnum - 1;

	if (a->tts_isnull[i] || b->tts_isnull[i])
		return a->tts_isnull[i] && b->tts_isnull[i];
	if (column->typlen == -1 && same_place(a->tts_values[i], b->tts_values[i]))
		return true;
	return datum_image_eq(a->tts_values[i], b->tts_values[i], column->typbyval, column->typlen);
}
