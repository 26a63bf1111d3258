/*
 * apply_event.c
 *
 * Reads the event of a change from JSON.
 *
 * It comes in one of two shapes: a row of eo.event, from a database that is
 * read, or an object of CloudEvents, from a file or broker.  Their members have
 * different names, and CloudEvents writes `sequence` as a string, since it needs
 * more digits than a number of JavaScript has.
 */
#include "postgres.h"

#include "capture/apply_event.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define PLAIN_HINT \
	"Only events in plain format and of the modes fact and changelog can be applied."

/* The names of members */
typedef struct Shape
{
	const char *seq;
	const char *key;
	const char *payload;
	const char *bytes;			/* of a payload that is not JSON */
} Shape;

static const Shape event_shape = {"seq", "key", "payload", "body"};
static const Shape cloudevents_shape = {"sequence", "partitionkey", "data", "data_base64"};

/* A member; NULL if it is missing or null. */
static JsonbValue *
member(JsonbContainer *object, const char *name, JsonbValue *value)
{
	JsonbValue *found = getKeyJsonValueFromContainer(object, name, strlen(name), value);

	return found != NULL && found->type != jbvNull ? found : NULL;
}

static bool
has(JsonbContainer *object, const char *name)
{
	JsonbValue	value;

	return getKeyJsonValueFromContainer(object, name, strlen(name), &value) != NULL;
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/*----------
 * What cannot be applied
 *----------
 */

static bool
is_debezium(JsonbContainer *payload)
{
	JsonbValue	value;
	JsonbValue *inner = member(payload, "payload", &value);

	/* with the schema, or without */
	if (inner != NULL && is_object(inner) && has(payload, "schema"))
		payload = inner->val.binary.data;
	return has(payload, "op") && has(payload, "source") &&
		(has(payload, "before") || has(payload, "after"));
}

/* Whether every member is an object that has nothing but "old" and "new". */
static bool
is_delta(JsonbContainer *payload)
{
	JsonbIterator *it = JsonbIteratorInit(payload);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			members = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		JsonbContainer *change;
		int			known;

		if (token != WJB_VALUE)
			continue;
		if (!is_object(&value))
			return false;
		change = value.val.binary.data;
		known = (has(change, "old") ? 1 : 0) + (has(change, "new") ? 1 : 0);
		if (known == 0 || known != JsonContainerSize(change))
			return false;
		members++;
	}
	return members > 0;
}

static void
refuse_debezium(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot apply an event in Debezium's format"),
			 errhint(PLAIN_HINT)));
}

void
eo_change_refuse_delta(const EoChange *change)
{
	if (is_delta(&change->payload->root))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot apply an event of the mode delta"),
				 errdetail("It holds what has changed, not the whole row."),
				 errhint(PLAIN_HINT)));
}

void
eo_change_refuse_keyless(const EoChange *change, const char *column)
{
	if (is_debezium(&change->payload->root))
		refuse_debezium();
	eo_change_refuse_delta(change);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event has no column \"%s\", which the key of the table needs", column),
			 errhint("Capture the columns of the key, under the names that they have in this table.")));
}

/*----------
 * Members
 *----------
 */

/* Digits, and nothing else */
static bool
parse_seq(const char *digits, int len, int64 *seq)
{
	*seq = 0;
	for (int i = 0; i < len; i++)
	{
		if (digits[i] < '0' || digits[i] > '9' ||
			pg_mul_s64_overflow(*seq, 10, seq) ||
			pg_add_s64_overflow(*seq, digits[i] - '0', seq))
			return false;
	}
	return *seq > 0;
}

static int64
read_seq(JsonbContainer *event, const char *name)
{
	JsonbValue	value;
	JsonbValue *found = member(event, name, &value);
	bool		ok = false;
	int64		seq = 0;

	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event has no \"%s\"", name),
				 errhint("Only events that were committed have a number; eo.pending() shows what is not.")));
	if (found->type == jbvString)
		ok = parse_seq(found->val.string.val, found->val.string.len, &seq);
	else if (found->type == jbvNumeric)
	{
		char	   *digits = DatumGetCString(DirectFunctionCall1(numeric_out,
																 NumericGetDatum(found->val.numeric)));

		ok = parse_seq(digits, strlen(digits), &seq);
	}
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of an event must be a whole number above 0", name)));
	return seq;
}

/* The last part of a type, which says what happened; false if it does not. */
static bool
parse_op(const char *type, int len, EoCaptureOp *op)
{
	int			start = len;

	while (start > 0 && type[start - 1] != '.')
		start--;
	if (start == 0)
		return false;
	for (int i = 0; i < EO_CAPTURE_OPS; i++)
	{
		if (strlen(eo_capture_ops[i]) == len - start &&
			memcmp(eo_capture_ops[i], type + start, len - start) == 0)
		{
			*op = i;
			return true;
		}
	}
	return false;
}

static EoCaptureOp
read_op(JsonbContainer *event, const JsonbValue *payload)
{
	JsonbValue	value;
	JsonbValue *found = member(event, "type", &value);
	EoCaptureOp op;

	if (found == NULL || found->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event has no \"type\""),
				 errhint("The type of an event that eo.capture() has made ends in what happened, like \"orders.updated\".")));
	if (parse_op(found->val.string.val, found->val.string.len, &op))
		return op;
	if (payload != NULL && is_object(payload) && is_debezium(payload->val.binary.data))
		refuse_debezium();
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event of type \"%s\" is not the change of a row",
					pnstrdup(found->val.string.val, found->val.string.len)),
			 errhint("The type of an event that eo.capture() has made ends in what happened, like \"orders.updated\".")));
}

static text *
read_key(JsonbContainer *event, const char *name)
{
	JsonbValue	value;
	JsonbValue *found = member(event, name, &value);

	if (found == NULL)
		return NULL;
	if (found->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of an event must be a string", name)));
	return cstring_to_text_with_len(found->val.string.val, found->val.string.len);
}

/* The payload, where there has to be one. */
static Jsonb *
read_payload(JsonbContainer *event, const Shape *shape, EoCaptureOp op, JsonbValue *found)
{
	JsonbValue	bytes;

	if (op == EO_OP_TRUNCATED)
		return NULL;
	if (found == NULL && member(event, shape->bytes, &bytes) == NULL)
	{
		if (op == EO_OP_DELETED)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event of a row that was %s has no \"%s\"",
						eo_capture_ops[op], shape->payload)));
	}
	if (found == NULL || !is_object(found))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of an event must be a JSON object", shape->payload),
				 errhint(PLAIN_HINT)));
	return JsonbValueToJsonb(found);
}

void
eo_change_read(EoChange *change, Jsonb *event)
{
	JsonbContainer *root = &event->root;
	const Shape *shape;
	JsonbValue	value;
	JsonbValue *payload;

	if (!JB_ROOT_IS_OBJECT(event))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event must be a JSON object"),
				 errhint("Pass to_jsonb() of a row of eo.fetch(), or a line of a file.")));
	shape = has(root, "specversion") ? &cloudevents_shape : &event_shape;
	payload = member(root, shape->payload, &value);
	change->op = read_op(root, payload);
	change->seq = read_seq(root, shape->seq);
	change->key = read_key(root, shape->key);
	change->payload = read_payload(root, shape, change->op, payload);
}
