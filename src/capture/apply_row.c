/*
 * apply_row.c
 *
 * Rows of the tables that changes are applied to: read from an event, named by
 * a key, found and written.
 *
 * Values are converted by jsonb_populate_record(), for a record of the columns
 * that can be written.  It is called past the executor, since what it looks up
 * about types would be forgotten after each statement.
 *
 * Statements name everything with its schema and run as the current user, so
 * that privileges, row security, triggers and constraints apply as ever.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "capture/apply_target.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "output.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* After so many sets of columns, all statements are prepared anew. */
#define WRITERS_MAX			64

/* That many keys are read at once. */
#define ROWS_AT_ONCE		1000

/* Longer keys are recorded by their digest: an index holds no more. */
#define KEY_TEXT_MAX		1024

/*----------
 * Reading events
 *----------
 */

/* Converts members of an object to the columns of their names. */
static void
convert(EoTarget *target, Jsonb *object, EoTargetRow *row)
{
	LOCAL_FCINFO(fcinfo, 2);
	HeapTupleHeader header;
	HeapTupleData tuple;
	bool	   *nulls = palloc(sizeof(bool) * target->ncolumns);

	InitFunctionCallInfoData(*fcinfo, &target->populate, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = target->empty;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = JsonbPGetDatum(object);
	fcinfo->args[1].isnull = false;
	if (target->money)
	{
		int			nestlevel = eo_output_pin(EO_OUTPUT_MONEY);

		header = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
		eo_output_unpin(nestlevel);
	}
	else
		header = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	row->values = palloc(sizeof(Datum) * target->ncolumns);
	row->nulls = palloc(target->ncolumns);
	heap_deform_tuple(&tuple, target->desc, row->values, nulls);
	for (int i = 0; i < target->ncolumns; i++)
		row->nulls[i] = nulls[i] ? 'n' : ' ';
}

/* The member of a payload that is a column of the key */
static void
key_member(EoTarget *target, const EoChange *change, int i, JsonbValue *value)
{
	const char *name = target->columns[i].name;

	if (getKeyJsonValueFromContainer(&change->payload->root, name, strlen(name), value) == NULL)
		eo_change_refuse_keyless(change, name);
	if (value->type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column \"%s\" of the key is null in the event", name)));
	if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
		eo_change_refuse_delta(change);
}

void
eo_target_read_row(EoTarget *target, const EoChange *change, EoTargetRow *row)
{
	JsonbValue	value;

	row->present = NULL;
	for (int i = 0; i < target->ncolumns; i++)
	{
		const char *name = target->columns[i].name;

		if (i < target->nkeys)
			key_member(target, change, i, &value);
		else if (getKeyJsonValueFromContainer(&change->payload->root, name, strlen(name), &value) == NULL)
			continue;
		row->present = bms_add_member(row->present, i);
	}
	convert(target, change->payload, row);
}

/*
 * A key of one column, whose text is what ->> gives: JSON where the value is
 * not a scalar.
 */
static void
single_key(EoTarget *target, text *key, JsonbValue *value)
{
	Oid			type = target->columns[0].base_type;

	if (type == JSONOID || type == JSONBOID || type_is_rowtype(type) || type_is_array(type))
	{
		Jsonb	   *parsed = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
																CStringGetDatum(text_to_cstring(key))));

		if (!JsonbExtractScalar(&parsed->root, value))
		{
			value->type = jbvBinary;
			value->val.binary.data = &parsed->root;
			value->val.binary.len = VARSIZE(parsed) - VARHDRSZ;
		}
		return;
	}
	value->type = jbvString;
	value->val.string.val = VARDATA_ANY(key);
	value->val.string.len = VARSIZE_ANY_EXHDR(key);
}

/* The values in the key of a tombstone, as many as the table's key has. */
static JsonbContainer *
composite_key(EoTarget *target, text *key)
{
	char	   *json = text_to_cstring(key);
	int			arity = 1;
	JsonbContainer *array = NULL;

	if (json[0] == '[')
	{
		array = &DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)))->root;
		arity = JsonContainerSize(array);
	}
	if (arity != target->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key of the event has %d %s, that of the table has %d",
						arity, arity == 1 ? "column" : "columns", target->nkeys),
				 errhint("The key of the table must have the same columns as that of the captured table, in the same order.")));
	return array;
}

/* The i-th value of the key of an event */
static void
key_value(EoTarget *target, const EoChange *change, JsonbContainer *array, int i, JsonbValue *value)
{
	if (change->payload != NULL)
		key_member(target, change, i, value);
	else if (array == NULL)
		single_key(target, change->key, value);
	else
		*value = *getIthJsonbValueFromContainer(array, i);
	if (value->type == jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column \"%s\" of the key is null in the event", target->columns[i].name)));
}

void
eo_target_read_key(EoTarget *target, const EoChange *change, EoTargetRow *row)
{
	JsonbContainer *array = NULL;
	JsonbParseState *state = NULL;

	if (change->payload == NULL && change->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event of a row that was deleted has neither a key nor a payload")));
	if (change->payload == NULL && target->nkeys > 1)
		array = composite_key(target, change->key);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < target->nkeys; i++)
	{
		JsonbValue	name;
		JsonbValue	value;

		name.type = jbvString;
		name.val.string.val = unconstify(char *, target->columns[i].name);
		name.val.string.len = strlen(target->columns[i].name);
		key_value(target, change, array, i, &value);
		(void) pushJsonbValue(&state, WJB_KEY, &name);
		(void) pushJsonbValue(&state, WJB_VALUE, &value);
	}
	row->present = NULL;
	convert(target, JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)), row);
}

/*----------
 * The text of keys
 *----------
 */

static char *
value_text(EoTargetColumn *column, Datum value)
{
	char		buffer[MAXDATELEN + 1];
	int			utc = 0;
	int			nestlevel;
	char	   *result;

	switch (column->base_type)
	{
		case NUMERICOID:		/* 1.0 is 1 */
			return numeric_normalize(DatumGetNumeric(value));
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return pstrdup(JsonEncodeDateTime(buffer, value, column->base_type, &utc));
		default:
			break;
	}
	if (!column->pin)
		return OutputFunctionCall(&column->output, value);
	nestlevel = eo_output_pin(EO_OUTPUT_ALL);
	result = OutputFunctionCall(&column->output, value);
	eo_output_unpin(nestlevel);
	return result;
}

text *
eo_target_key(EoTarget *target, const EoTargetRow *row)
{
	StringInfoData key;
	text	   *digest;

	initStringInfo(&key);
	for (int i = 0; i < target->nkeys; i++)
	{
		char	   *part = value_text(&target->columns[i], row->values[i]);

		if (target->nkeys == 1)
			appendStringInfoString(&key, part);
		else
		{
			appendStringInfoString(&key, i == 0 ? "[" : ", ");
			escape_json(&key, part);
		}
	}
	if (target->nkeys > 1)
		appendStringInfoChar(&key, ']');
	if (key.len <= KEY_TEXT_MAX)
		return cstring_to_text_with_len(key.data, key.len);
	digest = cstring_to_text_with_len(key.data, key.len);
	return DatumGetTextPP(DirectFunctionCall2(binary_encode,
											  DirectFunctionCall1(sha256_bytea, PointerGetDatum(digest)),
											  CStringGetTextDatum("hex")));
}

/*----------
 * Statements
 *----------
 */

static SPIPlanPtr
prepare(EoTarget *target, int nargs, const char *sql)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, target->types);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static bool
execute(EoTarget *target, SPIPlanPtr plan, const EoTargetRow *row)
{
	int			result = SPI_execute_plan(plan, row->values, row->nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not change table %s: %s", target->name, SPI_result_code_string(result));
	return SPI_processed > 0;
}

static void
append_where(StringInfo sql, EoTarget *target)
{
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(sql, "%s %s %s $%d", i == 0 ? " WHERE" : " AND",
						 target->columns[i].quoted, target->columns[i].equals, i + 1);
}

static char *
insert_sql(EoTarget *target, Bitmapset *present)
{
	StringInfoData sql;
	StringInfoData values;
	int			n = 0;

	initStringInfo(&sql);
	initStringInfo(&values);
	appendStringInfo(&sql, "INSERT INTO %s (", target->name);
	for (int i = -1; (i = bms_next_member(present, i)) >= 0;)
	{
		if (target->columns[i].generated)
			continue;
		appendStringInfo(&sql, "%s%s", n == 0 ? "" : ", ", target->columns[i].quoted);
		appendStringInfo(&values, "%s$%d", n++ == 0 ? "" : ", ", i + 1);
	}
	appendStringInfo(&sql, ") OVERRIDING SYSTEM VALUE VALUES (%s)", values.data);
	if (target->arbiter)
	{
		for (int i = 0; i < target->nkeys; i++)
			appendStringInfo(&sql, "%s%s", i == 0 ? " ON CONFLICT (" : ", ", target->columns[i].quoted);
		appendStringInfoString(&sql, ") DO NOTHING");
	}
	return sql.data;
}

/*
 * Sets the key, too: it may be equal and yet not the same.  NULL if there is
 * nothing to set.
 */
static char *
update_sql(EoTarget *target, Bitmapset *present)
{
	StringInfoData sql;
	int			n = 0;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s SET ", target->only);
	for (int i = -1; (i = bms_next_member(present, i)) >= 0;)
	{
		EoTargetColumn *column = &target->columns[i];

		if (!column->generated && !column->identity)
			appendStringInfo(&sql, "%s%s = $%d", n++ == 0 ? "" : ", ", column->quoted, i + 1);
	}
	append_where(&sql, target);
	return n > 0 ? sql.data : NULL;
}

/*
 * The statements that write a set of columns.  None is dropped here: a trigger
 * that applies a change, too, may have been called by any of them.
 */
static EoTargetWriter *
find_writer(EoTarget *target, Bitmapset *present)
{
	EoTargetWriter *writer;
	MemoryContext old;

	for (writer = target->writers; writer != NULL; writer = writer->next)
	{
		if (bms_equal(writer->present, present))
			return writer;
	}
	old = MemoryContextSwitchTo(target->context);
	writer = palloc0(sizeof(EoTargetWriter));
	writer->present = bms_copy(present);
	MemoryContextSwitchTo(old);
	writer->next = target->writers;
	target->writers = writer;
	if (++target->nwriters > WRITERS_MAX)
		target->valid = false;
	return writer;
}

bool
eo_target_has(EoTarget *target, const EoTargetRow *row)
{
	if (target->find == NULL)
	{
		StringInfoData sql;

		initStringInfo(&sql);
		appendStringInfo(&sql, "SELECT FROM %s", target->only);
		append_where(&sql, target);
		target->find = prepare(target, target->nkeys, sql.data);
	}
	return execute(target, target->find, row);
}

bool
eo_target_insert(EoTarget *target, const EoTargetRow *row)
{
	EoTargetWriter *writer = find_writer(target, row->present);

	/* A deferrable constraint would only complain, and at the commit. */
	if (!target->arbiter && eo_target_has(target, row))
		return false;
	if (writer->insert == NULL)
		writer->insert = prepare(target, target->ncolumns, insert_sql(target, row->present));
	return execute(target, writer->insert, row);
}

bool
eo_target_update(EoTarget *target, const EoTargetRow *row)
{
	EoTargetWriter *writer = find_writer(target, row->present);

	if (writer->update == NULL)
	{
		char	   *sql = update_sql(target, row->present);

		if (sql == NULL)
			return eo_target_has(target, row);
		writer->update = prepare(target, target->ncolumns, sql);
	}
	return execute(target, writer->update, row);
}

bool
eo_target_delete(EoTarget *target, const EoTargetRow *row)
{
	if (target->delete == NULL)
	{
		StringInfoData sql;

		initStringInfo(&sql);
		appendStringInfo(&sql, "DELETE FROM %s", target->only);
		append_where(&sql, target);
		target->delete = prepare(target, target->nkeys, sql.data);
	}
	return execute(target, target->delete, row);
}

void
eo_target_delete_all(EoTarget *target)
{
	char	   *sql = psprintf("DELETE FROM %s", target->only);

	if (SPI_execute(sql, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not execute \"%s\"", sql);
}

void
eo_target_delete_but(EoTarget *target, bool (*spare) (Oid relid, text *key))
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eo_outbox rows",
												  ALLOCSET_DEFAULT_SIZES);
	StringInfoData sql;
	Portal		portal;
	EoTargetRow row = {.values = palloc0(sizeof(Datum) * target->ncolumns),.nulls = palloc(target->ncolumns)};

	memset(row.nulls, ' ', target->ncolumns);
	initStringInfo(&sql);
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(&sql, "%s%s", i == 0 ? "SELECT " : ", ", target->columns[i].quoted);
	appendStringInfo(&sql, " FROM %s", target->only);
	portal = SPI_cursor_open_with_args(NULL, sql.data, 0, NULL, NULL, NULL, false, 0);
	for (;;)
	{
		SPITupleTable *rows;
		uint64		count;

		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		rows = SPI_tuptable;
		count = SPI_processed;
		for (uint64 n = 0; n < count; n++)
		{
			MemoryContext old = MemoryContextSwitchTo(context);
			bool		isnull;

			for (int i = 0; i < target->nkeys; i++)
				row.values[i] = SPI_getbinval(rows->vals[n], rows->tupdesc, i + 1, &isnull);
			if (!spare(target->relid, eo_target_key(target, &row)))
				(void) eo_target_delete(target, &row);
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		SPI_freetuptable(rows);
		if (count == 0)
			break;
	}
	SPI_cursor_close(portal);
	MemoryContextDelete(context);
}
