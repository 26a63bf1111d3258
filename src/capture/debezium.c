/*
 * debezium.c
 *
 * Changes of rows as Debezium's connector for PostgreSQL writes them: a record
 * key, and an envelope around the row as it was and as it is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "capture/column.h"
#include "capture/debezium.h"
#include "capture/debezium_value.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#define MICROS_TO_UNIX \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

#define TOPIC_CHARACTERS \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

/* The pairs of the envelope and of its source, in the order of jsonb's keys */
enum
{
	ENVELOPE_OP,
	ENVELOPE_AFTER,
	ENVELOPE_TS_MS,
	ENVELOPE_TS_NS,
	ENVELOPE_TS_US,
	ENVELOPE_BEFORE,
	ENVELOPE_SOURCE,
	ENVELOPE_TRANSACTION,
	ENVELOPE_PAIRS
};

static const char *const envelope_names[] = {
	"op", "after", "ts_ms", "ts_ns", "ts_us", "before", "source", "transaction"
};

enum
{
	SOURCE_DB,
	SOURCE_LSN,
	SOURCE_NAME,
	SOURCE_TXID,
	SOURCE_XMIN,
	SOURCE_TABLE,
	SOURCE_TS_MS,
	SOURCE_TS_NS,
	SOURCE_TS_US,
	SOURCE_ORIGIN,
	SOURCE_SCHEMA,
	SOURCE_VERSION,
	SOURCE_SEQUENCE,
	SOURCE_SNAPSHOT,
	SOURCE_CONNECTOR,
	SOURCE_ORIGIN_LSN,
	SOURCE_PAIRS
};

static const char *const source_names[] = {
	"db", "lsn", "name", "txId", "xmin", "table", "ts_ms", "ts_ns", "ts_us",
	"origin", "schema", "version", "sequence", "snapshot", "connector", "origin_lsn"
};

typedef struct Column
{
	EoColumn	base;
	EoDebeziumType type;
} Column;

struct EoDebezium
{
	int			ncolumns;
	Column	   *columns;		/* in the order of jsonb's keys */
	int			nkeys;
	Column	   *keys;
	JsonbPair	envelope[ENVELOPE_PAIRS];	/* what is always the same */
	JsonbPair	source[SOURCE_PAIRS];
};

/*----------
 * The encoder
 *----------
 */

static void
set_string(JsonbValue *value, const char *string)
{
	eo_debezium_string(value, string, strlen(string));
}

static void
make_column(Column *column, Form_pg_attribute attribute)
{
	eo_column_init(&column->base, attribute);
	eo_debezium_type(&column->type, attribute->atttypid, attribute->atttypmod);
}

static bool
is_key(const EoDebeziumTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->nkeys; i++)
	{
		if (table->keys[i] == attnum)
			return true;
	}
	return false;
}

/* Logical decoding does not send generated columns. */
static bool
is_told(const EoDebeziumTable *table, Form_pg_attribute attribute)
{
	return !attribute->attisdropped &&
		(table->columns == NULL || bms_is_member(attribute->attnum, table->columns)) &&
		(attribute->attgenerated == '\0' || is_key(table, attribute->attnum));
}

static void
make_columns(EoDebezium *encoder, const EoDebeziumTable *table)
{
	TupleDesc	desc = table->desc;

	encoder->columns = palloc0(sizeof(Column) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (is_told(table, attribute))
			make_column(&encoder->columns[encoder->ncolumns++], attribute);
	}
	qsort(encoder->columns, encoder->ncolumns, sizeof(Column), eo_column_compare);
	encoder->nkeys = table->nkeys;
	encoder->keys = palloc0(sizeof(Column) * Max(table->nkeys, 1));
	for (int i = 0; i < table->nkeys; i++)
		make_column(&encoder->keys[i], TupleDescAttr(desc, table->keys[i] - 1));
}

/* As a topic, where the connector allows fewer characters than we do */
static char *
as_topic(const char *name)
{
	char	   *topic = pstrdup(name);

	for (char *at = topic; *at != '\0'; at++)
	{
		if (strchr(TOPIC_CHARACTERS, *at) == NULL)
			*at = '_';
	}
	return topic;
}

/* What stands before ".schema.table" in the topic; else the database's name. */
static char *
source_name(const EoDebeziumTable *table)
{
	char	   *topic = as_topic(table->topic);
	char	   *ending = as_topic(psprintf(".%s.%s", table->schema, table->table));
	int			len = strlen(topic) - strlen(ending);

	if (len > 0 && strcmp(topic + len, ending) == 0)
		return pnstrdup(table->topic, len);
	return get_database_name(MyDatabaseId);
}

static void
make_templates(EoDebezium *encoder, const EoDebeziumTable *table)
{
	JsonbPair  *source = encoder->source;

	for (int i = 0; i < ENVELOPE_PAIRS; i++)
	{
		set_string(&encoder->envelope[i].key, envelope_names[i]);
		encoder->envelope[i].value.type = jbvNull;
	}
	for (int i = 0; i < SOURCE_PAIRS; i++)
	{
		set_string(&source[i].key, source_names[i]);
		source[i].value.type = jbvNull;
	}
	set_string(&source[SOURCE_DB].value, get_database_name(MyDatabaseId));
	set_string(&source[SOURCE_NAME].value, source_name(table));
	set_string(&source[SOURCE_SCHEMA].value, pstrdup(table->schema));
	set_string(&source[SOURCE_TABLE].value, pstrdup(table->table));
	set_string(&source[SOURCE_VERSION].value, EO_VERSION);
	set_string(&source[SOURCE_CONNECTOR].value, "postgresql");
}

EoDebezium *
eo_debezium_make(const EoDebeziumTable *table)
{
	EoDebezium *encoder = palloc0(sizeof(EoDebezium));

	make_columns(encoder, table);
	make_templates(encoder, table);
	return encoder;
}

/*----------
 * Keys
 *----------
 */

/* As Jackson writes strings, byte for byte */
static void
append_string(StringInfo out, const char *string, int len)
{
	appendStringInfoCharMacro(out, '"');
	for (int i = 0; i < len; i++)
	{
		unsigned char c = string[i];

		if (c == '"' || c == '\\')
			appendStringInfoChar(out, '\\');
		if (c >= 0x20)
			appendStringInfoCharMacro(out, c);
		else if (strchr("\b\t\n\f\r", c) != NULL && c != '\0')
			appendStringInfo(out, "\\%c", "btn-fr"[c - '\b']);
		else
			appendStringInfo(out, "\\u%04X", c);
	}
	appendStringInfoCharMacro(out, '"');
}

/* A value as compact JSON */
static void
append_value(StringInfo out, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			append_string(out, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			appendStringInfoString(out, DatumGetCString(DirectFunctionCall1(numeric_out,
																			NumericGetDatum(value->val.numeric))));
			break;
		case jbvBool:
			appendStringInfoString(out, value->val.boolean ? "true" : "false");
			break;
		case jbvObject:
			for (int i = 0; i < value->val.object.nPairs; i++)
			{
				appendStringInfoChar(out, i == 0 ? '{' : ',');
				append_value(out, &value->val.object.pairs[i].key);
				appendStringInfoChar(out, ':');
				append_value(out, &value->val.object.pairs[i].value);
			}
			appendStringInfoChar(out, '}');
			break;
		case jbvArray:
			appendStringInfoChar(out, '[');
			for (int i = 0; i < value->val.array.nElems; i++)
			{
				if (i > 0)
					appendStringInfoChar(out, ',');
				append_value(out, &value->val.array.elems[i]);
			}
			appendStringInfoChar(out, ']');
			break;
		default:
			appendStringInfoString(out, "null");
			break;
	}
}

static void
get_value(Column *column, TupleTableSlot *row, JsonbValue *out)
{
	if (row->tts_isnull[column->base.attnum - 1])
		out->type = jbvNull;
	else
		eo_debezium_value(&column->type, row->tts_values[column->base.attnum - 1], out);
}

/* {"id":1}; NULL if records have no key. */
static text *
make_key(EoDebezium *encoder, TupleTableSlot *row)
{
	StringInfoData json;

	if (encoder->nkeys == 0)
		return NULL;
	initStringInfo(&json);
	for (int i = 0; i < encoder->nkeys; i++)
	{
		JsonbValue	value;

		get_value(&encoder->keys[i], row, &value);
		appendStringInfoChar(&json, i == 0 ? '{' : ',');
		append_value(&json, &encoder->keys[i].base.name);
		appendStringInfoChar(&json, ':');
		append_value(&json, &value);
	}
	appendStringInfoChar(&json, '}');
	return cstring_to_text_with_len(json.data, json.len);
}

/* Whether the records of two rows certainly have the same key */
static bool
same_key_images(EoDebezium *encoder, TupleTableSlot *a, TupleTableSlot *b)
{
	for (int i = 0; i < encoder->nkeys; i++)
	{
		if (!eo_column_same(&encoder->keys[i].base, a, b))
			return false;
	}
	return true;
}

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/*----------
 * The envelope
 *----------
 */

static void
set_object(JsonbValue *value, JsonbPair *pairs, int npairs)
{
	value->type = jbvObject;
	value->val.object.nPairs = npairs;
	value->val.object.pairs = pairs;
}

static void
set_row(JsonbValue *value, EoDebezium *encoder, TupleTableSlot *row)
{
	JsonbPair  *pairs;

	if (row == NULL)
	{
		value->type = jbvNull;
		return;
	}
	pairs = palloc(sizeof(JsonbPair) * Max(encoder->ncolumns, 1));
	for (int i = 0; i < encoder->ncolumns; i++)
	{
		pairs[i].key = encoder->columns[i].base.name;
		get_value(&encoder->columns[i], row, &pairs[i].value);
	}
	set_object(value, pairs, encoder->ncolumns);
}

/*
 * The place in the WAL is where it ended before this change's event; it grows
 * from one change of a session to the next.
 */
static void
set_source(JsonbPair *source, EoDebeziumOp op, int64 now)
{
	uint64		lsn = GetXLogInsertRecPtr();
	char	   *sequence = psprintf("[null,\"" UINT64_FORMAT "\"]", lsn);

	eo_debezium_integer(&source[SOURCE_LSN].value, (int64) lsn);
	set_string(&source[SOURCE_SEQUENCE].value, sequence);
	eo_debezium_integer(&source[SOURCE_TXID].value, GetTopTransactionId());
	set_string(&source[SOURCE_SNAPSHOT].value, op == EO_DEBEZIUM_READ ? "true" : "false");
	eo_debezium_integer(&source[SOURCE_TS_MS].value, now / 1000);
	eo_debezium_integer(&source[SOURCE_TS_US].value, now);
	eo_debezium_integer(&source[SOURCE_TS_NS].value, now * 1000);
}

static Jsonb *
make_envelope(EoDebezium *encoder, EoDebeziumOp op, TupleTableSlot *before, TupleTableSlot *after)
{
	JsonbPair	envelope[ENVELOPE_PAIRS];
	JsonbPair	source[SOURCE_PAIRS];
	char		name[2] = {(char) op, '\0'};
	int64		now = GetCurrentTimestamp() + MICROS_TO_UNIX;
	JsonbValue	object;

	memcpy(envelope, encoder->envelope, sizeof(envelope));
	memcpy(source, encoder->source, sizeof(source));
	set_source(source, op, now);
	set_string(&envelope[ENVELOPE_OP].value, name);
	set_row(&envelope[ENVELOPE_BEFORE].value, encoder, before);
	set_row(&envelope[ENVELOPE_AFTER].value, encoder, after);
	set_object(&envelope[ENVELOPE_SOURCE].value, source, SOURCE_PAIRS);
	envelope[ENVELOPE_TS_MS].value = source[SOURCE_TS_MS].value;
	envelope[ENVELOPE_TS_US].value = source[SOURCE_TS_US].value;
	envelope[ENVELOPE_TS_NS].value = source[SOURCE_TS_NS].value;
	set_object(&object, envelope, ENVELOPE_PAIRS);
	return JsonbValueToJsonb(&object);
}

/*----------
 * Records
 *----------
 */

/* A delete and its tombstone; `new_key` if the row lives on under that. */
static void
emit_delete(EoDebezium *encoder, TupleTableSlot *before, text *key, text *new_key,
			EoDebeziumEmit emit, void *arg)
{
	EoDebeziumRecord record = {.op = EO_DEBEZIUM_DELETE,.key = key};

	record.payload = make_envelope(encoder, EO_DEBEZIUM_DELETE, before, NULL);
	if (new_key != NULL)
	{
		record.header = "__debezium.newkey";
		record.header_value = new_key;
	}
	emit(&record, arg);
	record.payload = NULL;
	/* without a key there is nothing to compact */
	if (key != NULL)
		emit(&record, arg);
}

static void
emit_row(EoDebezium *encoder, EoDebeziumOp op, TupleTableSlot *before, TupleTableSlot *after,
		 text *key, text *old_key, EoDebeziumEmit emit, void *arg)
{
	EoDebeziumRecord record = {.op = op,.key = key};

	record.payload = make_envelope(encoder, op, before, after);
	if (old_key != NULL)
	{
		record.header = "__debezium.oldkey";
		record.header_value = old_key;
	}
	emit(&record, arg);
}

static void
emit_update(EoDebezium *encoder, TupleTableSlot *before, TupleTableSlot *after,
			EoDebeziumEmit emit, void *arg)
{
	text	   *key = make_key(encoder, after);
	text	   *old_key = key;

	if (!same_key_images(encoder, before, after))
		old_key = make_key(encoder, before);
	if (key == NULL || same_text(key, old_key))
	{
		emit_row(encoder, EO_DEBEZIUM_UPDATE, before, after, key, NULL, emit, arg);
		return;
	}
	emit_delete(encoder, before, old_key, key, emit, arg);
	emit_row(encoder, EO_DEBEZIUM_CREATE, NULL, after, key, old_key, emit, arg);
}

void
eo_debezium_change(EoDebezium *encoder, EoDebeziumOp op, TupleTableSlot *before,
				   TupleTableSlot *after, EoDebeziumEmit emit, void *arg)
{
	switch (op)
	{
		case EO_DEBEZIUM_UPDATE:
			emit_update(encoder, before, after, emit, arg);
			break;
		case EO_DEBEZIUM_DELETE:
			emit_delete(encoder, before, make_key(encoder, before), NULL, emit, arg);
			break;
		case EO_DEBEZIUM_TRUNCATE:
			emit_row(encoder, op, NULL, NULL, NULL, NULL, emit, arg);
			break;
		case EO_DEBEZIUM_CREATE:
		case EO_DEBEZIUM_READ:
			emit_row(encoder, op, NULL, after, make_key(encoder, after), NULL, emit, arg);
			break;
	}
}
