/*
 * message.c
 *
 * Messages between relay and publisher; PROTOCOL.md is the byte table.
 *
 * Encoders write fields in the order of the table.  Decoders read them in the
 * same order without checking each, since a reader remembers its failure, and
 * accept a body only if it was read to its last byte and every value is one
 * that an encoder may write.
 */
#include "wire/message.h"

#include <string.h>

#define EVENT_FLAGS		(EO_EVENT_RETRY | EO_EVENT_JSON)

static EoReader
reader_over(EoBytes body)
{
	EoReader	r = {body.data, body.len, 0, false};

	return r;
}

static bool
reader_done(const EoReader *r)
{
	return !r->failed && r->pos == r->len;
}

static void
put_pairs(EoWriter *w, const EoPairs *pairs)
{
	eo_put_u32(w, pairs->count);
	for (uint32_t i = 0; i < pairs->count; i++)
	{
		eo_put_bytes(w, pairs->items[i].name);
		eo_put_bytes(w, pairs->items[i].value);
	}
}

/* A span that must not be NULL */
static EoBytes
get_present(EoReader *r)
{
	EoBytes		value = eo_get_bytes(r);

	if (value.data == NULL)
		r->failed = true;
	return value;
}

static bool
get_bool(EoReader *r)
{
	uint8_t		value = eo_get_u8(r);

	if (value > 1)
		r->failed = true;
	return value == 1;
}

static EoPairs
get_pairs(EoReader *r)
{
	EoPairs		pairs = {0, {NULL, 0}, NULL};
	uint32_t	count = eo_get_u32(r);
	size_t		start = r->pos;

	/* Whatever the count says, the bytes bound the loop. */
	for (uint32_t i = 0; i < count && !r->failed; i++)
	{
		get_present(r);
		get_present(r);
	}
	if (r->failed)
		return pairs;
	pairs.count = count;
	pairs.encoded.data = r->data + start;
	pairs.encoded.len = r->pos - start;
	return pairs;
}

bool
eo_pairs_next(const EoPairs *pairs, size_t *offset, EoPair *pair)
{
	EoReader	r = {pairs->encoded.data, pairs->encoded.len, *offset, false};

	if (*offset >= pairs->encoded.len)
		return false;
	pair->name = eo_get_bytes(&r);
	pair->value = eo_get_bytes(&r);
	*offset = r.pos;
	return !r.failed;
}

EoBytes
eo_pairs_get(const EoPairs *pairs, const char *name)
{
	EoBytes		absent = {NULL, 0};
	size_t		len = strlen(name);
	size_t		offset = 0;
	EoPair		pair;

	while (eo_pairs_next(pairs, &offset, &pair))
	{
		if (pair.name.len == len && memcmp(pair.name.data, name, len) == 0)
			return pair.value;
	}
	return absent;
}

void
eo_encode_config(EoWriter *w, const EoConfigMessage *m)
{
	size_t		start = eo_frame_begin(w, EO_MSG_CONFIG);

	eo_put_u32(w, m->version);
	eo_put_bytes(w, m->subscription);
	eo_put_bytes(w, m->identity);
	eo_put_bytes(w, m->source);
	eo_put_i64(w, m->published_seq);
	put_pairs(w, &m->server_options);
	put_pairs(w, &m->secrets);
	put_pairs(w, &m->subscription_options);
	eo_frame_end(w, start);
}

bool
eo_decode_config(EoBytes body, EoConfigMessage *m)
{
	EoReader	r = reader_over(body);

	m->version = eo_get_u32(&r);
	m->subscription = get_present(&r);
	m->identity = get_present(&r);
	m->source = get_present(&r);
	m->published_seq = eo_get_i64(&r);
	m->server_options = get_pairs(&r);
	m->secrets = get_pairs(&r);
	m->subscription_options = get_pairs(&r);
	return reader_done(&r) && m->published_seq >= 0;
}

void
eo_encode_event(EoWriter *w, const EoEventMessage *m)
{
	size_t		start = eo_frame_begin(w, EO_MSG_EVENT);

	eo_put_u8(w, m->flags);
	eo_put_i64(w, m->seq);
	eo_put_i64(w, m->position);
	eo_put_i64(w, m->time);
	eo_put_raw(w, m->event_id, EO_EVENT_ID_SIZE);
	eo_put_bytes(w, m->topic);
	eo_put_bytes(w, m->key);
	eo_put_bytes(w, m->type);
	eo_put_bytes(w, m->content_type);
	eo_put_bytes(w, m->payload);
	put_pairs(w, &m->headers);
	eo_frame_end(w, start);
}

bool
eo_decode_event(EoBytes body, EoEventMessage *m)
{
	EoReader	r = reader_over(body);

	m->flags = eo_get_u8(&r);
	m->seq = eo_get_i64(&r);
	m->position = eo_get_i64(&r);
	m->time = eo_get_i64(&r);
	m->event_id = eo_get_raw(&r, EO_EVENT_ID_SIZE);
	m->topic = get_present(&r);
	m->key = eo_get_bytes(&r);
	m->type = eo_get_bytes(&r);
	m->content_type = eo_get_bytes(&r);
	m->payload = eo_get_bytes(&r);
	m->headers = get_pairs(&r);
	return reader_done(&r) &&
		(m->flags & ~EVENT_FLAGS) == 0 &&
		m->seq > 0 && m->position > 0 &&
		(m->payload.data == NULL) == (m->content_type.data == NULL);
}

void
eo_encode_ready(EoWriter *w, const EoReadyMessage *m)
{
	size_t		start = eo_frame_begin(w, EO_MSG_READY);

	eo_put_u32(w, m->version);
	eo_put_u8(w, m->knows_position);
	eo_put_i64(w, m->last_seq);
	eo_frame_end(w, start);
}

bool
eo_decode_ready(EoBytes body, EoReadyMessage *m)
{
	EoReader	r = reader_over(body);

	m->version = eo_get_u32(&r);
	m->knows_position = get_bool(&r);
	m->last_seq = eo_get_i64(&r);
	return reader_done(&r) && m->last_seq >= 0 &&
		(m->knows_position || m->last_seq == 0);
}

void
eo_encode_nack(EoWriter *w, const EoNackMessage *m)
{
	size_t		start = eo_frame_begin(w, EO_MSG_NACK);

	eo_put_i64(w, m->seq);
	eo_put_u8(w, m->permanent);
	eo_put_bytes(w, m->reason);
	eo_frame_end(w, start);
}

bool
eo_decode_nack(EoBytes body, EoNackMessage *m)
{
	EoReader	r = reader_over(body);

	m->seq = eo_get_i64(&r);
	m->permanent = get_bool(&r);
	m->reason = get_present(&r);
	return reader_done(&r) && m->seq >= 0;
}

void
eo_encode_log(EoWriter *w, const EoLogMessage *m)
{
	size_t		start = eo_frame_begin(w, EO_MSG_LOG);

	eo_put_u8(w, (uint8_t) m->level);
	eo_put_bytes(w, m->text);
	eo_frame_end(w, start);
}

bool
eo_decode_log(EoBytes body, EoLogMessage *m)
{
	EoReader	r = reader_over(body);
	uint8_t		level = eo_get_u8(&r);

	m->level = level <= EO_LOG_ERROR ? (EoLogLevel) level : EO_LOG_ERROR;
	m->text = get_present(&r);
	return reader_done(&r) && level <= EO_LOG_ERROR;
}

void
eo_encode_stat(EoWriter *w, const EoStatMessage *m)
{
	size_t		start = eo_frame_begin(w, EO_MSG_STAT);

	eo_put_i64(w, m->events);
	eo_put_i64(w, m->bytes);
	eo_put_i64(w, m->retries);
	eo_frame_end(w, start);
}

bool
eo_decode_stat(EoBytes body, EoStatMessage *m)
{
	EoReader	r = reader_over(body);

	m->events = eo_get_i64(&r);
	m->bytes = eo_get_i64(&r);
	m->retries = eo_get_i64(&r);
	return reader_done(&r) &&
		m->events >= 0 && m->bytes >= 0 && m->retries >= 0;
}

void
eo_encode_number(EoWriter *w, EoMessageType type, int64_t number)
{
	size_t		start = eo_frame_begin(w, (uint8_t) type);

	eo_put_i64(w, number);
	eo_frame_end(w, start);
}

bool
eo_decode_number(EoBytes body, int64_t *number)
{
	EoReader	r = reader_over(body);

	*number = eo_get_i64(&r);
	return reader_done(&r);
}

void
eo_encode_empty(EoWriter *w, EoMessageType type)
{
	eo_frame_end(w, eo_frame_begin(w, (uint8_t) type));
}
