/*
 * debezium_value.c
 *
 * Values as Debezium's connector for PostgreSQL tells them.
 *
 * The connector reads the text that logical decoding sends, and makes of it
 * what its default options say; here it is made of the values themselves.  The
 * rules are in test/debezium/FORMAT.md.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/transam.h"
#include "capture/debezium_value.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/cash.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/geo_decls.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varbit.h"

void
eo_debezium_integer(JsonbValue *out, int64 integer)
{
	out->type = jbvNumeric;
	out->val.numeric = int64_to_numeric(integer);
}

void
eo_debezium_string(JsonbValue *out, const char *string, int len)
{
	out->type = jbvString;
	out->val.string.val = unconstify(char *, string);
	out->val.string.len = len;
}

/*----------
 * What a type becomes
 *----------
 */

/* Types of extensions, which have a number of their own in each database. */
static EoDebeziumKind
kind_by_name(Oid oid)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(oid));
	const char *name;
	EoDebeziumKind kind = EO_DBZ_UNKNOWN;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", oid);
	name = NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname);
	if (((Form_pg_type) GETSTRUCT(tuple))->typtype == TYPTYPE_ENUM)
		kind = EO_DBZ_OUTPUT;
	else if (oid >= FirstNormalObjectId)
	{
		if (strcmp(name, "citext") == 0)
			kind = EO_DBZ_TEXT;
		else if (strcmp(name, "ltree") == 0 || strcmp(name, "isbn") == 0)
			kind = EO_DBZ_OUTPUT;
		else if (strcmp(name, "hstore") == 0)
			kind = EO_DBZ_HSTORE;
	}
	ReleaseSysCache(tuple);
	return kind;
}

static EoDebeziumKind
kind_of(Oid oid, int32 typmod)
{
	switch (oid)
	{
		case BOOLOID:
			return EO_DBZ_BOOL;
		case INT2OID:
			return EO_DBZ_INT2;
		case INT4OID:
			return EO_DBZ_INT4;
		case INT8OID:
			return EO_DBZ_INT8;
		case OIDOID:
			return EO_DBZ_OID;
		case FLOAT4OID:
			return EO_DBZ_FLOAT4;
		case FLOAT8OID:
			return EO_DBZ_FLOAT8;
		case NUMERICOID:
			return typmod < (int32) VARHDRSZ ? EO_DBZ_VARIABLE_DECIMAL : EO_DBZ_DECIMAL;
		case CASHOID:
			return EO_DBZ_MONEY;
		case DATEOID:
			return EO_DBZ_DATE;
		case TIMEOID:
			return typmod >= 0 && typmod <= 3 ? EO_DBZ_TIME_MS : EO_DBZ_TIME_US;
		case TIMETZOID:
			return EO_DBZ_TIMETZ;
		case TIMESTAMPOID:
			return typmod >= 0 && typmod <= 3 ? EO_DBZ_TIMESTAMP_MS : EO_DBZ_TIMESTAMP_US;
		case TIMESTAMPTZOID:
			return EO_DBZ_TIMESTAMPTZ;
		case INTERVALOID:
			return EO_DBZ_INTERVAL;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
			return EO_DBZ_TEXT;
		case CHAROID:
		case NAMEOID:
		case XMLOID:
		case JSONBOID:
		case UUIDOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case INT4RANGEOID:
		case INT8RANGEOID:
		case NUMRANGEOID:
		case DATERANGEOID:
		case TSRANGEOID:
		case TSTZRANGEOID:
		case TSVECTOROID:
			return EO_DBZ_OUTPUT;
		case BYTEAOID:
			return EO_DBZ_BYTEA;
		case BITOID:
		case VARBITOID:
			return typmod == 1 ? EO_DBZ_BIT : EO_DBZ_BITS;
		case POINTOID:
			return EO_DBZ_POINT;
		default:
			return kind_by_name(oid);
	}
}

/* The number of digits that belongs to a kind. */
static int
digits_of(EoDebeziumKind kind, int32 typmod)
{
	if (kind == EO_DBZ_DECIMAL)
		return (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
	return typmod < 0 ? MAX_TIMESTAMP_PRECISION : typmod;
}

static void
set_output(EoDebeziumType *type, Oid oid)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(oid, &output, &varlena);
	fmgr_info(output, &type->output);
}

/* The connector looks below domains, but not within lists. */
static void
set_element(EoDebeziumType *type, Oid oid, int32 typmod)
{
	EoDebeziumType *element = palloc0(sizeof(EoDebeziumType));

	if (get_typtype(oid) == TYPTYPE_DOMAIN)
	{
		set_output(element, oid);
		element->kind = EO_DBZ_UNKNOWN;
		element->zoned = true;
	}
	else
		eo_debezium_type(element, oid, typmod);
	type->kind = EO_DBZ_ARRAY;
	type->element = element;
	type->elmtype = oid;
	get_typlenbyvalalign(oid, &type->elmlen, &type->elmbyval, &type->elmalign);
}

void
eo_debezium_type(EoDebeziumType *type, Oid oid, int32 typmod)
{
	Oid			base = getBaseTypeAndTypmod(oid, &typmod);
	Oid			element = get_element_type(base);

	if (OidIsValid(element))
	{
		set_element(type, element, typmod);
		return;
	}
	set_output(type, base);
	type->kind = kind_of(base, typmod);
	type->digits = digits_of(type->kind, typmod);
	type->zoned = base == TSTZRANGEOID || type->kind == EO_DBZ_UNKNOWN;
}

/*----------
 * Numbers
 *----------
 */

/*
 * A float as Java writes it, with a point also where the number is whole, and a
 * string where JSON has no such number.
 */
static void
put_float(JsonbValue *out, double number, char *text)
{
	Datum		numeric;

	if (isnan(number) || isinf(number))
	{
		const char *name = isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";

		eo_debezium_string(out, name, strlen(name));
		return;
	}
	if (strpbrk(text, ".e") == NULL)
		memcpy(text + strlen(text), ".0", sizeof(".0"));
	numeric = DirectFunctionCall3(numeric_in, CStringGetDatum(text),
								  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	if (number == floor(number) && strchr(text, 'e') != NULL)
		numeric = DirectFunctionCall2(numeric_round, numeric, Int32GetDatum(1));
	out->type = jbvNumeric;
	out->val.numeric = DatumGetNumeric(numeric);
}

static void
put_float4(JsonbValue *out, float4 number)
{
	char		text[FLOAT_SHORTEST_DECIMAL_LEN + 3];

	float_to_shortest_decimal_buf(number, text);
	put_float(out, number, text);
}

static void
put_float8(JsonbValue *out, float8 number)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN + 3];

	double_to_shortest_decimal_buf(number, text);
	put_float(out, number, text);
}

/* NaN and infinity have no place among the digits. */
static bool
put_special(JsonbValue *out, Numeric number)
{
	if (!numeric_is_nan(number) && !numeric_is_inf(number))
		return false;
	out->type = jbvNull;
	return true;
}

static void
put_decimal(JsonbValue *out, Datum value)
{
	if (!put_special(out, DatumGetNumeric(value)))
		eo_debezium_decimal(out, DatumGetCString(DirectFunctionCall1(numeric_out, value)));
}

/* {"scale": ..., "value": ...}, without zeros at the end */
static void
put_variable_decimal(JsonbValue *out, Datum value)
{
	JsonbPair  *pairs;
	char	   *text;
	char	   *point;
	int			scale = 0;

	if (put_special(out, DatumGetNumeric(value)))
		return;
	text = DatumGetCString(DirectFunctionCall1(numeric_out, value));
	point = strchr(text, '.');
	if (point != NULL)
	{
		scale = strlen(point + 1);
		while (scale > 0 && point[scale] == '0')
			scale--;
		point[scale + 1] = '\0';
	}
	pairs = palloc(sizeof(JsonbPair) * 2);
	eo_debezium_string(&pairs[0].key, "scale", 5);
	eo_debezium_integer(&pairs[0].value, scale);
	eo_debezium_string(&pairs[1].key, "value", 5);
	eo_debezium_decimal(&pairs[1].value, text);
	out->type = jbvObject;
	out->val.object.nPairs = 2;
	out->val.object.pairs = pairs;
}

static void
put_money(JsonbValue *out, Cash money)
{
	char		text[32];

	snprintf(text, sizeof(text), INT64_FORMAT, money);
	eo_debezium_decimal(out, text);
}

/*----------
 * Bytes and texts
 *----------
 */

static void
put_bit(JsonbValue *out, VarBit *bits)
{
	out->type = jbvBool;
	out->val.boolean = VARBITLEN(bits) > 0 && (VARBITS(bits)[0] & HIGHBIT) != 0;
}

/* The last bit is the lowest of the first byte. */
static void
put_bits(JsonbValue *out, VarBit *bits)
{
	int			nbits = VARBITLEN(bits);
	unsigned char *bytes = palloc0(nbits / 8 + 1);
	int			len = 0;

	for (int i = 0; i < nbits; i++)
	{
		int			place = nbits - 1 - i;

		if (VARBITS(bits)[i / 8] & (HIGHBIT >> (i % 8)))
		{
			bytes[place / 8] |= 1 << (place % 8);
			len = Max(len, place / 8 + 1);
		}
	}
	eo_debezium_base64(out, bytes, len);
}

static void
put_le64(unsigned char *out, float8 number)
{
	uint64		bits;

	memcpy(&bits, &number, sizeof(bits));
	for (int i = 0; i < sizeof(bits); i++)
		out[i] = (unsigned char) (bits >> (8 * i));
}

/* {"x": ..., "y": ..., "wkb": ..., "srid": null} */
static void
put_point(JsonbValue *out, Point *point)
{
	JsonbPair  *pairs = palloc(sizeof(JsonbPair) * 4);
	unsigned char wkb[21] = {1, 1, 0, 0, 0};

	put_le64(wkb + 5, point->x);
	put_le64(wkb + 13, point->y);
	eo_debezium_string(&pairs[0].key, "x", 1);
	put_float8(&pairs[0].value, point->x);
	eo_debezium_string(&pairs[1].key, "y", 1);
	put_float8(&pairs[1].value, point->y);
	eo_debezium_string(&pairs[2].key, "wkb", 3);
	eo_debezium_base64(&pairs[2].value, wkb, sizeof(wkb));
	eo_debezium_string(&pairs[3].key, "srid", 4);
	pairs[3].value.type = jbvNull;
	out->type = jbvObject;
	out->val.object.nPairs = 4;
	out->val.object.pairs = pairs;
}

/* One quoted string of hstore's text as JSON; returns what follows. */
static const char *
copy_hstore_string(StringInfo json, const char *at)
{
	StringInfoData plain;

	initStringInfo(&plain);
	for (at++; *at != '"'; at++)
	{
		if (*at == '\\')
			at++;
		appendStringInfoChar(&plain, *at);
	}
	escape_json(json, plain.data);
	return at + 1;
}

/* "a"=>"1", "b"=>NULL becomes {"a":"1","b":null}. */
static void
put_hstore(JsonbValue *out, const char *at)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	while (*at != '\0')
	{
		at = copy_hstore_string(&json, at);
		appendStringInfoChar(&json, ':');
		at += 2;
		if (*at == '"')
			at = copy_hstore_string(&json, at);
		else
		{
			appendStringInfoString(&json, "null");
			at += 4;
		}
		if (*at == ',')
		{
			appendStringInfoChar(&json, ',');
			at += 2;
		}
	}
	appendStringInfoChar(&json, '}');
	eo_debezium_string(out, json.data, json.len);
}

/* The text of a value; where it tells a time in some zone, in that of UTC. */
static char *
call_output(EoDebeziumType *type, Datum value)
{
	pg_tz	   *saved = session_timezone;
	char	   *text = NULL;

	if (!type->zoned)
		return OutputFunctionCall(&type->output, value);
	PG_TRY();
	{
		session_timezone = pg_tzset("GMT");
		text = OutputFunctionCall(&type->output, value);
	}
	PG_FINALLY();
	{
		session_timezone = saved;
	}
	PG_END_TRY();
	return text;
}

/* What of a list is still to be told */
typedef struct Elements
{
	EoDebeziumType *type;
	const int  *dims;
	Datum	   *values;
	bool	   *nulls;
} Elements;

/* One level of a list: of values, or of lists if `ndims` is above 1. */
static void
put_level(JsonbValue *out, Elements *rest, int level, int ndims)
{
	int			count = ndims == 0 ? 0 : rest->dims[level];

	out->type = jbvArray;
	out->val.array.rawScalar = false;
	out->val.array.nElems = count;
	out->val.array.elems = palloc(sizeof(JsonbValue) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		JsonbValue *element = &out->val.array.elems[i];

		if (level + 1 < ndims)
		{
			put_level(element, rest, level + 1, ndims);
			continue;
		}
		if (*rest->nulls)
			element->type = jbvNull;
		else
			eo_debezium_value(rest->type, *rest->values, element);
		rest->values++;
		rest->nulls++;
	}
}

static void
put_array(JsonbValue *out, EoDebeziumType *type, ArrayType *array)
{
	Elements	all = {.type = type->element,.dims = ARR_DIMS(array)};
	int			count;

	deconstruct_array(array, type->elmtype, type->elmlen, type->elmbyval, type->elmalign,
					  &all.values, &all.nulls, &count);
	put_level(out, &all, 0, ARR_NDIM(array));
}

/*----------
 * Any value
 *----------
 */

static void
put_by_text(EoDebeziumType *type, Datum value, JsonbValue *out)
{
	char	   *text = call_output(type, value);

	switch (type->kind)
	{
		case EO_DBZ_HSTORE:
			put_hstore(out, text);
			break;
		case EO_DBZ_UNKNOWN:
			eo_debezium_base64(out, text, strlen(text));
			break;
		default:
			eo_debezium_string(out, text, strlen(text));
			break;
	}
}

void
eo_debezium_value(EoDebeziumType *type, Datum value, JsonbValue *out)
{
	struct varlena *bytes;

	switch (type->kind)
	{
		case EO_DBZ_BOOL:
			out->type = jbvBool;
			out->val.boolean = DatumGetBool(value);
			break;
		case EO_DBZ_INT2:
			eo_debezium_integer(out, DatumGetInt16(value));
			break;
		case EO_DBZ_INT4:
			eo_debezium_integer(out, DatumGetInt32(value));
			break;
		case EO_DBZ_INT8:
			eo_debezium_integer(out, DatumGetInt64(value));
			break;
		case EO_DBZ_OID:
			eo_debezium_integer(out, DatumGetObjectId(value));
			break;
		case EO_DBZ_FLOAT4:
			put_float4(out, DatumGetFloat4(value));
			break;
		case EO_DBZ_FLOAT8:
			put_float8(out, DatumGetFloat8(value));
			break;
		case EO_DBZ_DECIMAL:
			put_decimal(out, value);
			break;
		case EO_DBZ_VARIABLE_DECIMAL:
			put_variable_decimal(out, value);
			break;
		case EO_DBZ_MONEY:
			put_money(out, DatumGetCash(value));
			break;
		case EO_DBZ_DATE:
			eo_debezium_date(out, DatumGetDateADT(value));
			break;
		case EO_DBZ_TIME_MS:
			eo_debezium_integer(out, DatumGetTimeADT(value) / 1000);
			break;
		case EO_DBZ_TIME_US:
			eo_debezium_integer(out, DatumGetTimeADT(value));
			break;
		case EO_DBZ_TIMETZ:
			eo_debezium_timetz(out, DatumGetTimeTzADTP(value));
			break;
		case EO_DBZ_TIMESTAMP_MS:
			eo_debezium_timestamp(out, DatumGetTimestamp(value), 1000);
			break;
		case EO_DBZ_TIMESTAMP_US:
			eo_debezium_timestamp(out, DatumGetTimestamp(value), 1);
			break;
		case EO_DBZ_TIMESTAMPTZ:
			eo_debezium_timestamptz(out, DatumGetTimestampTz(value), type->digits);
			break;
		case EO_DBZ_INTERVAL:
			eo_debezium_interval(out, DatumGetIntervalP(value));
			break;
		case EO_DBZ_TEXT:
			bytes = PG_DETOAST_DATUM_PACKED(value);
			eo_debezium_string(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			break;
		case EO_DBZ_BYTEA:
			bytes = PG_DETOAST_DATUM_PACKED(value);
			eo_debezium_base64(out, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			break;
		case EO_DBZ_BIT:
			put_bit(out, DatumGetVarBitP(value));
			break;
		case EO_DBZ_BITS:
			put_bits(out, DatumGetVarBitP(value));
			break;
		case EO_DBZ_POINT:
			put_point(out, DatumGetPointP(value));
			break;
		case EO_DBZ_ARRAY:
			put_array(out, type, DatumGetArrayTypeP(value));
			break;
		case EO_DBZ_OUTPUT:
		case EO_DBZ_HSTORE:
		case EO_DBZ_UNKNOWN:
			put_by_text(type, value, out);
			break;
	}
}
