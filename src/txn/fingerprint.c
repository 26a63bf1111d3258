/*
 * fingerprint.c
 *
 * Digests of requests.
 *
 * The digest is stored, so it must not depend on how jsonb is laid out, which
 * may change with a version of PostgreSQL.  It is taken of what an iterator
 * says: keys come sorted and once each; strings as they are; numbers without
 * trailing zeros, since 1.0 and 1.00 are equal.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "port/pg_bswap.h"
#include "txn/fingerprint.h"
#include "utils/numeric.h"

static void
feed(pg_cryptohash_ctx *digest, const void *data, Size len)
{
	if (len > 0 && pg_cryptohash_update(digest, data, len) < 0)
		elog(ERROR, "could not update the digest: %s", pg_cryptohash_error(digest));
}

/* A value: its kind and length, and then itself, so that none runs into the next. */
static void
feed_value(pg_cryptohash_ctx *digest, char kind, const char *data, uint32 len)
{
	uint32		length = pg_hton32(len);

	feed(digest, &kind, 1);
	feed(digest, &length, sizeof(length));
	feed(digest, data, len);
}

static void
feed_scalar(pg_cryptohash_ctx *digest, const JsonbValue *value)
{
	char	   *number;

	switch (value->type)
	{
		case jbvNull:
			feed_value(digest, 'n', NULL, 0);
			break;
		case jbvBool:
			feed_value(digest, value->val.boolean ? 't' : 'f', NULL, 0);
			break;
		case jbvNumeric:
			number = numeric_normalize(value->val.numeric);
			feed_value(digest, '1', number, strlen(number));
			pfree(number);
			break;
		case jbvString:
			feed_value(digest, 's', value->val.string.val, value->val.string.len);
			break;
		default:
			elog(ERROR, "a request has a value of unknown kind %d", (int) value->type);
	}
}

static void
feed_jsonb(pg_cryptohash_ctx *digest, Jsonb *request)
{
	JsonbIterator *it = JsonbIteratorInit(&request->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_KEY:
			case WJB_VALUE:
			case WJB_ELEM:
				feed_scalar(digest, &value);
				break;
			case WJB_BEGIN_ARRAY:
				/* What is no array comes as one, too. */
				feed_value(digest, value.val.array.rawScalar ? '-' : '[', NULL, 0);
				break;
			case WJB_BEGIN_OBJECT:
				feed_value(digest, '{', NULL, 0);
				break;
			default:
				feed_value(digest, ']', NULL, 0);
				break;
		}
	}
}

bytea *
eo_fingerprint(Jsonb *request)
{
	bytea	   *result = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	pg_cryptohash_ctx *digest = pg_cryptohash_create(PG_SHA256);

	if (digest == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (pg_cryptohash_init(digest) < 0)
		elog(ERROR, "could not begin the digest: %s", pg_cryptohash_error(digest));
	feed_jsonb(digest, request);
	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	if (pg_cryptohash_final(digest, (uint8 *) VARDATA(result), PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not end the digest: %s", pg_cryptohash_error(digest));
	pg_cryptohash_free(digest);
	return result;
}

bool
eo_fingerprint_equal(const bytea *a, const bytea *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}
