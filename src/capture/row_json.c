/*
 * row_json.c
 *
 * Rows as JSON, as to_jsonb() gives them.
 *
 * to_jsonb() finds out for each row what to do with each column, and sorts the
 * names each time.  Here this is done once for a table; a row only fills in the
 * values.  Types that are not simple go through to_jsonb() itself.
 */
#include "postgres.h"

#include "access/transam.h"
#include "capture/column.h"
#include "capture/row_json.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "output.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

typedef enum ValueKind
{
	KIND_BOOL,
	KIND_INT2,
	KIND_INT4,
	KIND_INT8,
	KIND_NUMERIC,
	KIND_FLOAT,					/* a number, if its text is one */
	KIND_DATETIME,
	KIND_TEXT,					/* text and its like: needs no output function */
	KIND_OUTPUT,				/* what the output function gives */
	KIND_TO_JSONB				/* what to_jsonb() gives */
} ValueKind;

typedef struct Column
{
	EoColumn	base;
	ValueKind	kind;
	Oid			type;			/* below domains */
	bool		zoned;			/* its text may depend on the time zone */
	int			pins;			/* what else its text depends on (output.h) */
	FmgrInfo	function;		/* output function or to_jsonb() */
} Column;

struct EoRowEncoder
{
	MemoryContext context;
	TupleDesc	desc;
	int			ncolumns;
	Column	   *columns;		/* sorted as the keys of a jsonb object */
	Column	  **by_number;		/* by attribute number - 1, made when needed */
};

static JsonbValue old_name;
static JsonbValue new_name;

/*----------
 * The encoder
 *----------
 */

static void
set_string(JsonbValue *value, const char *string, int len)
{
	value->type = jbvString;
	value->val.string.val = unconstify(char *, string);
	value->val.string.len = len;
}

static bool
has_cast_to_json(Oid type)
{
	Oid			function;

	return type >= FirstNormalObjectId &&
		find_coercion_pathway(JSONOID, type, COERCION_EXPLICIT, &function) == COERCION_PATH_FUNC &&
		OidIsValid(function);
}

static ValueKind
kind_of(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return KIND_BOOL;
		case INT2OID:
			return KIND_INT2;
		case INT4OID:
			return KIND_INT4;
		case INT8OID:
			return KIND_INT8;
		case NUMERICOID:
			return KIND_NUMERIC;
		case FLOAT4OID:
		case FLOAT8OID:
			return KIND_FLOAT;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return KIND_DATETIME;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return KIND_TEXT;
		case JSONOID:
		case JSONBOID:
			return KIND_TO_JSONB;
		default:
			if (OidIsValid(get_element_type(type)) || type_is_rowtype(type) ||
				has_cast_to_json(type))
				return KIND_TO_JSONB;
			return KIND_OUTPUT;
	}
}

/* Types that have a timestamp with time zone in them, and who knows what. */
static bool
is_zoned(Oid type)
{
	char		typtype = get_typtype(type);

	if (typtype == TYPTYPE_ENUM)
		return false;
	return type == TIMESTAMPTZOID || type >= FirstNormalObjectId || typtype != TYPTYPE_BASE ||
		OidIsValid(get_element_type(type));
}

/* to_jsonb() asks the call for the type of its argument. */
static void
find_to_jsonb(FmgrInfo *function, Oid type)
{
	Param	   *argument = makeNode(Param);

	argument->paramkind = PARAM_EXTERN;
	argument->paramid = 1;
	argument->paramtype = type;
	argument->paramtypmod = -1;
	fmgr_info(F_TO_JSONB, function);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   function);
}

static void
make_column(Column *column, Form_pg_attribute attribute)
{
	Oid			output;
	bool		varlena;

	eo_column_init(&column->base, attribute);
	column->type = getBaseType(attribute->atttypid);
	column->kind = kind_of(column->type);
	column->zoned = is_zoned(column->type);
	column->pins = eo_output_needs(column->type);
	if (column->kind == KIND_TO_JSONB)
		find_to_jsonb(&column->function, column->type);
	else
	{
		getTypeOutputInfo(column->type, &output, &varlena);
		fmgr_info(output, &column->function);
	}
}

EoRowEncoder *
eo_row_encoder(TupleDesc desc, const Bitmapset *columns)
{
	EoRowEncoder *encoder = palloc0(sizeof(EoRowEncoder));

	encoder->context = CurrentMemoryContext;
	encoder->desc = desc;
	encoder->columns = palloc0(sizeof(Column) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		if (bms_is_member(i + 1, columns))
			make_column(&encoder->columns[encoder->ncolumns++], TupleDescAttr(desc, i));
	}
	qsort(encoder->columns, encoder->ncolumns, sizeof(Column), eo_column_compare);
	set_string(&old_name, "old", 3);
	set_string(&new_name, "new", 3);
	return encoder;
}

/*
 * A column by its number.  Keys need not be among the columns that are encoded.
 */
static Column *
column_by_number(EoRowEncoder *encoder, AttrNumber attnum)
{
	Column	  **place;

	if (encoder->by_number == NULL)
		encoder->by_number = MemoryContextAllocZero(encoder->context,
													sizeof(Column *) * encoder->desc->natts);
	place = &encoder->by_number[attnum - 1];
	if (*place == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(encoder->context);
		Column	   *column = palloc0(sizeof(Column));

		make_column(column, TupleDescAttr(encoder->desc, attnum - 1));
		*place = column;
		MemoryContextSwitchTo(old);
	}
	return *place;
}

/*----------
 * Values
 *----------
 */

/* A number, or a string where JSON has no such number. */
static void
put_number_text(JsonbValue *out, char *string)
{
	/* as to_jsonb() tells NaN and Infinity */
	if (strpbrk(string, "Nn") != NULL)
		set_string(out, string, strlen(string));
	else
	{
		out->type = jbvNumeric;
		out->val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(string),
															   ObjectIdGetDatum(InvalidOid),
															   Int32GetDatum(-1)));
	}
}

static void
put_integer(JsonbValue *out, int64 integer)
{
	out->type = jbvNumeric;
	out->val.numeric = int64_to_numeric(integer);
}

static void
put_numeric(JsonbValue *out, Datum value, FmgrInfo *output)
{
	Numeric		numeric = DatumGetNumeric(value);

	if (numeric_is_nan(numeric) || numeric_is_inf(numeric))
		put_number_text(out, OutputFunctionCall(output, value));
	else
	{
		out->type = jbvNumeric;
		out->val.numeric = numeric;
	}
}

static void
put_text(JsonbValue *out, Datum value)
{
	text	   *string = DatumGetTextPP(value);

	set_string(out, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
}

/* The tree of a jsonb value. */
static void
put_jsonb(JsonbValue *out, Jsonb *jsonb)
{
	JsonbIterator *it = JsonbIteratorInit(&jsonb->root);
	JsonbParseState *state = NULL;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue *tree;

	if (JB_ROOT_IS_SCALAR(jsonb))
	{
		(void) JsonbIteratorNext(&it, &value, true);
		(void) JsonbIteratorNext(&it, out, true);
		return;
	}
	token = JsonbIteratorNext(&it, &value, false);
	do
	{
		bool		leaf = token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM;

		tree = pushJsonbValue(&state, token, leaf ? &value : NULL);
		token = JsonbIteratorNext(&it, &value, false);
	} while (token != WJB_DONE);
	*out = *tree;
}

static void
put_by_kind(JsonbValue *out, Column *column, TupleTableSlot *row)
{
	Datum		value = row->tts_values[column->base.attnum - 1];
	char	   *string;

	if (row->tts_isnull[column->base.attnum - 1])
	{
		out->type = jbvNull;
		return;
	}
	switch (column->kind)
	{
		case KIND_BOOL:
			out->type = jbvBool;
			out->val.boolean = DatumGetBool(value);
			break;
		case KIND_INT2:
			put_integer(out, DatumGetInt16(value));
			break;
		case KIND_INT4:
			put_integer(out, DatumGetInt32(value));
			break;
		case KIND_INT8:
			put_integer(out, DatumGetInt64(value));
			break;
		case KIND_NUMERIC:
			put_numeric(out, value, &column->function);
			break;
		case KIND_FLOAT:
			put_number_text(out, OutputFunctionCall(&column->function, value));
			break;
		case KIND_DATETIME:
			string = JsonEncodeDateTime(NULL, value, column->type, NULL);
			set_string(out, string, strlen(string));
			break;
		case KIND_TEXT:
			put_text(out, value);
			break;
		case KIND_OUTPUT:
			string = OutputFunctionCall(&column->function, value);
			set_string(out, string, strlen(string));
			break;
		case KIND_TO_JSONB:
			put_jsonb(out, DatumGetJsonbP(FunctionCall1(&column->function, value)));
			break;
	}
}

static void
put_value(JsonbValue *out, Column *column, TupleTableSlot *row)
{
	int			nestlevel;

	if (column->pins == 0)
	{
		put_by_kind(out, column, row);
		return;
	}
	nestlevel = eo_output_pin(column->pins);
	put_by_kind(out, column, row);
	eo_output_unpin(nestlevel);
}

/*----------
 * Rows
 *----------
 */

/* `pairs` are in order, and no name stands there twice. */
static Jsonb *
make_object(JsonbPair *pairs, int npairs)
{
	JsonbValue	object;

	object.type = jbvObject;
	object.val.object.nPairs = npairs;
	object.val.object.pairs = pairs;
	return JsonbValueToJsonb(&object);
}

Jsonb *
eo_row_to_jsonb(EoRowEncoder *encoder, TupleTableSlot *row)
{
	JsonbPair  *pairs = palloc(sizeof(JsonbPair) * Max(encoder->ncolumns, 1));

	for (int i = 0; i < encoder->ncolumns; i++)
	{
		pairs[i].key = encoder->columns[i].base.name;
		put_value(&pairs[i].value, &encoder->columns[i], row);
	}
	return make_object(pairs, encoder->ncolumns);
}

bool
eo_row_same(EoRowEncoder *encoder, AttrNumber attnum, TupleTableSlot *a, TupleTableSlot *b)
{
	return eo_column_same(&column_by_number(encoder, attnum)->base, a, b);
}

Jsonb *
eo_row_difference(EoRowEncoder *encoder, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	JsonbPair  *pairs = palloc(sizeof(JsonbPair) * Max(encoder->ncolumns, 1));
	int			npairs = 0;

	for (int i = 0; i < encoder->ncolumns; i++)
	{
		Column	   *column = &encoder->columns[i];
		JsonbPair  *sides;
		int			nsides = 0;

		if (old_row != NULL && new_row != NULL && eo_column_same(&column->base, old_row, new_row))
			continue;
		sides = palloc(sizeof(JsonbPair) * 2);
		if (new_row != NULL)
		{
			sides[nsides].key = new_name;
			put_value(&sides[nsides++].value, column, new_row);
		}
		if (old_row != NULL)
		{
			sides[nsides].key = old_name;
			put_value(&sides[nsides++].value, column, old_row);
		}
		pairs[npairs].key = column->base.name;
		pairs[npairs].value.type = jbvObject;
		pairs[npairs].value.val.object.nPairs = nsides;
		pairs[npairs].value.val.object.pairs = sides;
		npairs++;
	}
	return npairs == 0 ? NULL : make_object(pairs, npairs);
}

static text *
jsonb_text(Jsonb *jsonb)
{
	return cstring_to_text(JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
}

static text *
value_text(JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out,
																	   NumericGetDatum(value->val.numeric))));
		case jbvBool:
			return cstring_to_text(value->val.boolean ? "true" : "false");
		default:
			return jsonb_text(JsonbValueToJsonb(value));
	}
}

/*
 * A row has the same key whoever changes it: where its text tells a time in the
 * zone of the session, that is UTC.
 */
static void
put_key_value(JsonbValue *out, Column *column, TupleTableSlot *row)
{
	pg_tz	   *saved = session_timezone;

	if (!column->zoned)
	{
		put_value(out, column, row);
		return;
	}
	PG_TRY();
	{
		session_timezone = pg_tzset("GMT");
		put_value(out, column, row);
	}
	PG_FINALLY();
	{
		session_timezone = saved;
	}
	PG_END_TRY();
}

/* The key of a single integer, which is what most keys are; NULL: it is none. */
static text *
integer_key(const Column *column, Datum value)
{
	char		digits[MAXINT8LEN + 1];

	switch (column->kind)
	{
		case KIND_INT2:
			return cstring_to_text_with_len(digits, pg_ltoa(DatumGetInt16(value), digits));
		case KIND_INT4:
			return cstring_to_text_with_len(digits, pg_ltoa(DatumGetInt32(value), digits));
		case KIND_INT8:
			return cstring_to_text_with_len(digits, pg_lltoa(DatumGetInt64(value), digits));
		default:
			return NULL;
	}
}

text *
eo_row_key(EoRowEncoder *encoder, TupleTableSlot *row, int nkeys, const AttrNumber *keys)
{
	JsonbValue *values = palloc(sizeof(JsonbValue) * nkeys);
	JsonbValue	array;
	text	   *key;

	for (int i = 0; i < nkeys; i++)
	{
		Column	   *column = column_by_number(encoder, keys[i]);

		if (row->tts_isnull[keys[i] - 1])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column \"%.*s\" of the key of a captured row must not be null",
							column->base.name.val.string.len, column->base.name.val.string.val),
					 errhint("Make the column NOT NULL, or capture the table under another key.")));
		if (nkeys == 1 && (key = integer_key(column, row->tts_values[keys[i] - 1])) != NULL)
			return key;
		put_key_value(&values[i], column, row);
	}
	if (nkeys == 1)
		return value_text(&values[0]);
	array.type = jbvArray;
	array.val.array.rawScalar = false;
	array.val.array.nElems = nkeys;
	array.val.array.elems = values;
	return jsonb_text(JsonbValueToJsonb(&array));
}
