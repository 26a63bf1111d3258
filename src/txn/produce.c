/*
 * produce.c
 *
 * Checks an event and completes it.
 *
 * Everything that can be wrong with an event is found here, so that nothing is
 * left to fail at commit but what fails for any row.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"
#include "txn/causation.h"
#include "txn/produce.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define HEADER_NAME_MAX		128
#define HEADERS_MAX			4096

#define HEADER_NAME_CHARACTERS \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

/* Randomness is fetched in blocks, for the system call is not cheap. */
#define RANDOM_POOL			8192

/* The parsed form of eo_outbox.headers, as of headers_generation. */
static Jsonb *setting_headers = NULL;
static uint32 setting_generation = 0;

void
eo_produce_check_transaction(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot enqueue events on a standby"),
				 errhint("Connect to the primary.")));
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot enqueue events in a read-only transaction"),
				 errhint("Begin the transaction with READ WRITE.")));
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot enqueue events during a parallel operation"),
				 errhint("Mark the calling function PARALLEL UNSAFE.")));
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot enqueue events within a security-restricted operation"),
				 errhint("Index expressions, materialized views and the like must not enqueue.")));
}

void
eo_produce_check_name(const char *what, text *value, int limit)
{
	const char *data = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of an event must not be empty", what),
				 errhint("Give a %s, or NULL where the function allows it.", what)));
	if (len > limit)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s of an event is too long", what),
				 errdetail("It has %d bytes, the limit is %d.", len, limit),
				 errhint("Put long values into the payload or a header.")));
	for (int i = 0; i < len; i++)
	{
		if ((unsigned char) data[i] < 0x20 || data[i] == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s of an event contains a character that is not printable", what),
					 errdetail("Byte %d is 0x%02x.", i + 1, (unsigned char) data[i]),
					 errhint("Remove control characters from the %s.", what)));
	}
}

static void
refuse_headers(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("headers of an event must be a flat JSON object of strings"),
			 errdetail_internal("%s", detail),
			 errhint("For example: {\"traceparent\": \"00-...\", \"tenant\": \"acme\"}.")));
}

static void
check_header_name(const char *name, int len)
{
	if (len == 0 || len > HEADER_NAME_MAX)
		refuse_headers(psprintf("A header's name must have 1 to %d characters.", HEADER_NAME_MAX));
	for (int i = 0; i < len; i++)
	{
		if (strchr(HEADER_NAME_CHARACTERS, name[i]) == NULL)
			refuse_headers(psprintf("The name \"%.*s\" may only have letters, digits, \"-\", \"_\" and \".\".",
									len, name));
	}
}

/* With the other limits, it makes that all but the payload fits one row. */
static void
check_headers_size(Jsonb *headers)
{
	if (VARSIZE(headers) > HEADERS_MAX)
		refuse_headers(psprintf("It takes %d bytes, the limit is %d.",
								(int) VARSIZE(headers), HEADERS_MAX));
}

static void
check_headers(Jsonb *headers)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(headers))
		refuse_headers("The value is not an object.");
	check_headers_size(headers);
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			check_header_name(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
		{
			if (value.type != jbvString)
				refuse_headers("A header's value is not a string.");
			for (int i = 0; i < value.val.string.len; i++)
			{
				if ((unsigned char) value.val.string.val[i] < 0x20)
					refuse_headers("A header's value contains a control character.");
			}
		}
	}
}

/* The headers of eo_outbox.headers, or NULL. */
static Jsonb *
get_setting_headers(void)
{
	if (setting_generation != eo_headers_generation)
	{
		if (setting_headers != NULL)
			pfree(setting_headers);
		setting_headers = NULL;
		if (eo_headers != NULL && eo_headers[0] != '\0')
		{
			Jsonb	   *parsed = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(eo_headers)));

			check_headers(parsed);
			setting_headers = MemoryContextAlloc(TopMemoryContext, VARSIZE(parsed));
			memcpy(setting_headers, parsed, VARSIZE(parsed));
		}
		setting_generation = eo_headers_generation;
	}
	return setting_headers;
}

/* Either may be NULL; of what both have, that of `above` counts. */
static Jsonb *
overlay(Jsonb *below, Jsonb *above)
{
	Jsonb	   *both;

	if (below == NULL || above == NULL)
		return above ? above : below;
	both = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(below),
											  JsonbPGetDatum(above)));
	check_headers_size(both);
	return both;
}

/*
 * The event's own headers win over those of the transaction, and these over
 * what its cause brings.
 */
static struct varlena *
merge_headers(Jsonb *own)
{
	Jsonb	   *headers;

	if (own != NULL)
		check_headers(own);
	headers = overlay(overlay(eo_causation_headers(), get_setting_headers()), own);
	return headers == NULL || JB_ROOT_COUNT(headers) == 0 ? NULL : (struct varlena *) headers;
}

static void
random_bytes(unsigned char *out, int len)
{
	static unsigned char pool[RANDOM_POOL];
	static int	used = RANDOM_POOL;

	if (used + len > RANDOM_POOL)
	{
		if (!pg_strong_random(pool, RANDOM_POOL))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		used = 0;
	}
	memcpy(out, pool + used, len);
	used += len;
}

/*
 * A UUID of version 7: 48 bits of milliseconds, 12 bits of the fraction of the
 * millisecond, 62 random bits (RFC 9562, method 3).
 */
static void
generate_event_id(pg_uuid_t *id, TimestampTz now)
{
	uint64		us = (uint64) (now + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
	uint64		ms = us / 1000;
	uint32		fraction = (uint32) ((us % 1000) * 4096 / 1000);

	for (int i = 0; i < 6; i++)
		id->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
	id->data[6] = 0x70 | (fraction >> 8);
	id->data[7] = fraction & 0xff;
	random_bytes(id->data + 8, 8);
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
}

static void
check_size(struct varlena *payload)
{
	if (VARSIZE_ANY_EXHDR(payload) > (Size) eo_max_event_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of an event is too large"),
				 errdetail("It has %zu bytes, eo_outbox.max_event_size is %d.",
						   (Size) VARSIZE_ANY_EXHDR(payload), eo_max_event_size),
				 errhint("Store large data elsewhere and enqueue a reference, or raise eo_outbox.max_event_size.")));
}

void
eo_produce_prepare(EoEvent *event, Jsonb *headers, const pg_uuid_t *event_id)
{
	if (event->payload != NULL)
		check_size(event->payload);
	if (event->body != NULL)
		check_size(event->body);
	event->headers = merge_headers(headers);
	event->enqueued_at = GetCurrentTimestamp();
	if (event_id != NULL)
		event->event_id = *event_id;
	else
		generate_event_id(&event->event_id, event->enqueued_at);
}
