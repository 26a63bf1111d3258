/*
 * change.c
 *
 * A change of a row as events.
 *
 * Events of a row are ordered by its key, and a consumer may only ever see those
 * of one.  So an update that changes the key becomes two events: the row is
 * deleted under its old key and inserted under the new one.
 */
#include "postgres.h"

#include "capture/change.h"
#include "mb/pg_wchar.h"
#include "output.h"
#include "txn/produce.h"
#include "utils/builtins.h"

/* What an error shows of a key, in bytes */
#define KEY_SHOWN	100

/* One call of eo_capture_change() */
typedef struct Change
{
	EoShape    *shape;
	text	   *key;			/* for errors; NULL: not known yet */
	EoCaptureEmit emit;
	void	   *arg;
} Change;

static void
add_context(void *arg)
{
	Change	   *change = arg;

	if (change->key != NULL)
	{
		char	   *key = text_to_cstring(change->key);
		int			len = strlen(key);

		errcontext("capture of the row with key \"%.*s\" of table \"%s\"",
				   pg_mbcliplen(key, len, KEY_SHOWN), key, change->shape->table);
	}
	else
		errcontext("capture of table \"%s\"", change->shape->table);
}

static void
emit_event(Change *change, EoCaptureOp op, text *key, Jsonb *payload, Jsonb *headers)
{
	EoEvent		event = {0};

	change->key = key;
	if (key != NULL)
		eo_produce_check_name("key", key, EO_KEY_MAX);
	event.topic = change->shape->topic;
	event.key = key;
	event.type = change->shape->types[op];
	event.payload = (struct varlena *) payload;
	eo_produce_prepare(&event, headers, NULL);
	change->emit(&event, change->arg);
}

/*----------
 * The plain format
 *----------
 */

static Jsonb *
empty_object(void)
{
	JsonbValue	object;

	object.type = jbvObject;
	object.val.object.nPairs = 0;
	object.val.object.pairs = NULL;
	return JsonbValueToJsonb(&object);
}

static text *
key_of(const EoShape *shape, TupleTableSlot *row)
{
	return eo_row_key(shape->encoder, row, shape->nkeys, shape->keys);
}

static bool
same_key(const EoShape *shape, TupleTableSlot *before, TupleTableSlot *after)
{
	for (int i = 0; i < shape->nkeys; i++)
	{
		if (!eo_row_same(shape->encoder, shape->keys[i], before, after))
			return false;
	}
	return true;
}

/* Of an operation that leaves the key as it is. */
static void
emit_row(Change *change, EoCaptureOp op, TupleTableSlot *before, TupleTableSlot *after)
{
	EoShape    *shape = change->shape;
	Jsonb	   *payload;

	change->key = key_of(shape, after ? after : before);
	if (shape->spec.mode == EO_MODE_DELTA)
	{
		payload = eo_row_difference(shape->encoder, before, after);
		if (payload == NULL)
			return;
	}
	else if (after != NULL)
		payload = eo_row_to_jsonb(shape->encoder, after);
	else if (shape->spec.mode == EO_MODE_FACT)
		payload = eo_row_to_jsonb(shape->encoder, before);
	else
		payload = NULL;
	emit_event(change, op, change->key, payload, NULL);
}

static void
change_plain(Change *change, EoCaptureOp op, TupleTableSlot *before, TupleTableSlot *after)
{
	EoShape    *shape = change->shape;

	if (op == EO_OP_TRUNCATED)
		emit_event(change, op, NULL, empty_object(), NULL);
	else if (op == EO_OP_UPDATED && !same_key(shape, before, after))
	{
		emit_row(change, EO_OP_DELETED, before, NULL);
		emit_row(change, EO_OP_INSERTED, NULL, after);
	}
	else
		emit_row(change, op, before, after);
}

/*----------
 * Debezium's format
 *----------
 */

static const EoDebeziumOp debezium_ops[] = {
	[EO_OP_INSERTED] = EO_DEBEZIUM_CREATE,
	[EO_OP_UPDATED] = EO_DEBEZIUM_UPDATE,
	[EO_OP_DELETED] = EO_DEBEZIUM_DELETE,
	[EO_OP_TRUNCATED] = EO_DEBEZIUM_TRUNCATE,
	[EO_OP_READ] = EO_DEBEZIUM_READ
};

static EoCaptureOp
op_of_record(EoDebeziumOp op)
{
	for (int i = 0; i < EO_CAPTURE_OPS; i++)
	{
		if (debezium_ops[i] == op)
			return i;
	}
	elog(ERROR, "unexpected operation %d", (int) op);
}

static Jsonb *
one_header(const char *name, text *value)
{
	JsonbPair	pair;
	JsonbValue	object;

	pair.key.type = jbvString;
	pair.key.val.string.val = unconstify(char *, name);
	pair.key.val.string.len = strlen(name);
	pair.value.type = jbvString;
	pair.value.val.string.val = VARDATA_ANY(value);
	pair.value.val.string.len = VARSIZE_ANY_EXHDR(value);
	object.type = jbvObject;
	object.val.object.nPairs = 1;
	object.val.object.pairs = &pair;
	return JsonbValueToJsonb(&object);
}

static void
emit_record(const EoDebeziumRecord *record, void *arg)
{
	emit_event(arg, op_of_record(record->op), record->key, record->payload,
			   record->header ? one_header(record->header, record->header_value) : NULL);
}

void
eo_capture_change(EoShape *shape, EoCaptureOp op, TupleTableSlot *before,
				  TupleTableSlot *after, EoCaptureEmit emit, void *arg)
{
	Change		change = {.shape = shape,.emit = emit,.arg = arg};
	ErrorContextCallback callback = {.previous = error_context_stack,.callback = add_context,.arg = &change};
	int			nestlevel = eo_output_is_plain() ? 0 : eo_output_pin(0);

	error_context_stack = &callback;
	if (shape->virtual != NULL)
	{
		before = before ? eo_virtual_fill(shape->virtual, before) : NULL;
		after = after ? eo_virtual_fill(shape->virtual, after) : NULL;
	}
	if (shape->debezium != NULL)
		eo_debezium_change(shape->debezium, debezium_ops[op], before, after, emit_record, &change);
	else
		change_plain(&change, op, before, after);
	error_context_stack = callback.previous;
	if (nestlevel != 0)
		eo_output_unpin(nestlevel);
}
