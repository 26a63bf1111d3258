/*
 * causation.c
 *
 * Carries the cause from what was received to what is enqueued.
 *
 * The latest message counts.  A savepoint that is rolled back takes back what
 * was received after it, so the causes are a stack by subtransaction.  It lives
 * in the transaction's memory.
 */
#include "postgres.h"

#include "access/xact.h"
#include "txn/causation.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

typedef struct Cause
{
	struct Cause *below;
	int			nestlevel;		/* of the subtransaction that received it */
	Jsonb	   *headers;
} Cause;

static Cause *causes = NULL;

/* In bytes; they become a part of an event's headers, for which this is the limit. */
#define HEADERS_MAX		4096

/* Headers that are passed on, and their names in the binary mode of Kafka */
static const char *const passed_on[][2] = {
	{"correlationid", "ce_correlationid"},
	{"traceparent", "ce_traceparent"},
	{"tracestate", "ce_tracestate"}
};

/* A header of the message, by either of its names */
static bool
find_header(Jsonb *headers, const char *const *names, JsonbValue *value)
{
	for (int i = 0; i < 2; i++)
	{
		if (getKeyJsonValueFromContainer(&headers->root, names[i], strlen(names[i]), value) == NULL)
			continue;
		if (value->type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("header \"%s\" of a message must be a string", names[i])));
		for (int c = 0; c < value->val.string.len; c++)
		{
			if ((unsigned char) value->val.string.val[c] < 0x20)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("header \"%s\" of a message contains a control character", names[i])));
		}
		return true;
	}
	return false;
}

static void
push_pair(JsonbParseState **state, const char *name, JsonbValue *value)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = (char *) name;
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_VALUE, value);
}

static Jsonb *
make_headers(struct varlena *message_id, Jsonb *headers)
{
	JsonbParseState *state = NULL;
	JsonbValue	id = {.type = jbvString};
	JsonbValue	value;
	Jsonb	   *result;

	id.val.string.val = VARDATA_ANY(message_id);
	id.val.string.len = VARSIZE_ANY_EXHDR(message_id);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_pair(&state, "causationid", &id);
	for (int i = 0; i < lengthof(passed_on); i++)
	{
		if (headers != NULL && find_header(headers, passed_on[i], &value))
			push_pair(&state, passed_on[i][0], &value);
		else if (i == 0)
			push_pair(&state, passed_on[i][0], &id);
	}
	result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	if (VARSIZE(result) > HEADERS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers of a message are too long to be passed on"),
				 errdetail("With the message id they take %d bytes, the limit is %d.",
						   (int) VARSIZE(result), HEADERS_MAX),
				 errhint("Shorten correlationid, traceparent and tracestate, or leave them out.")));
	return result;
}

void
eo_causation_set(struct varlena *message_id, Jsonb *headers)
{
	int			nestlevel = GetCurrentTransactionNestLevel();
	Jsonb	   *made;
	Jsonb	   *kept;

	if (headers != NULL && !JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers of a message must be a JSON object")));
	/* What else it takes to make them must not pile up in the transaction. */
	made = make_headers(message_id, headers);
	kept = MemoryContextAlloc(TopTransactionContext, VARSIZE(made));
	memcpy(kept, made, VARSIZE(made));
	if (causes != NULL && causes->nestlevel == nestlevel)
		pfree(causes->headers);
	else
	{
		Cause	   *cause = MemoryContextAlloc(TopTransactionContext, sizeof(Cause));

		cause->below = causes;
		cause->nestlevel = nestlevel;
		causes = cause;
	}
	causes->headers = kept;
}

Jsonb *
eo_causation_headers(void)
{
	return causes == NULL ? NULL : causes->headers;
}

/* Takes the latest cause, or the one under it, off the stack. */
static void
drop(Cause **link)
{
	Cause	   *cause = *link;

	*link = cause->below;
	pfree(cause->headers);
	pfree(cause);
}

/* A subtransaction's causes become its parent's, or are no more. */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			nestlevel = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (causes != NULL && causes->nestlevel >= nestlevel)
			drop(&causes);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB && causes != NULL && causes->nestlevel >= nestlevel)
	{
		causes->nestlevel = nestlevel - 1;
		if (causes->below != NULL && causes->below->nestlevel == causes->nestlevel)
			drop(&causes->below);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		causes = NULL;
}

void
eo_causation_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
