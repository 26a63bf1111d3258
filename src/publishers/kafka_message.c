/*
 * kafka_message.c
 *
 * An event as a Kafka message: CloudEvents in binary mode.
 *
 * The payload is the value, the key the key, the time the timestamp.  The
 * attributes travel as headers ce_*, and the event's own headers beside them
 * under the same prefix, but for the W3C trace headers, which tracing libraries
 * look for under their own names.  A tombstone is a message without a value.
 */
#include "publishers/kafka.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Kafka's record format, version 2: the batch around a single record */
#define BATCH_OVERHEAD		61

/* Header names up to this length need no allocation. */
#define NAME_BUFFER			256

typedef void (*HeaderSink) (void *arg, const char *name, size_t name_len,
							const char *value, size_t value_len);

static bool
is_name(EoBytes name, const char *expected)
{
	return name.len == strlen(expected) && memcmp(name.data, expected, name.len) == 0;
}

static bool
is_trace_header(EoBytes name)
{
	return is_name(name, "traceparent") || is_name(name, "tracestate") ||
		is_name(name, "baggage");
}

/* Whether an attribute of the envelope has this name; it wins. */
static bool
is_reserved(EoBytes name)
{
	static const char *const reserved[] = {
		"specversion", "id", "source", "type", "time", "sequence",
		"partitionkey", "position", "topic", "redelivered", "datacontenttype",
		"data"
	};

	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
	{
		if (is_name(name, reserved[i]))
			return true;
	}
	return false;
}

static size_t
put_decimal(char out[24], int64_t number)
{
	char		digits[24];
	size_t		n = 0;
	uint64_t	left = (uint64_t) number;

	do
	{
		digits[n++] = (char) ('0' + left % 10);
		left /= 10;
	} while (left > 0);
	for (size_t i = 0; i < n; i++)
		out[i] = digits[n - 1 - i];
	return n;
}

#define PUT(name, value, len) \
	sink(arg, name, sizeof(name) - 1, value, len)

static void
put_event_headers(const EoEventMessage *event, HeaderSink sink, void *arg)
{
	size_t		offset = 0;
	EoPair		pair;

	while (eo_pairs_next(&event->headers, &offset, &pair))
	{
		char		name[NAME_BUFFER] = "ce_";

		if (pair.name.len == 0 || pair.name.len > NAME_BUFFER - 4 ||
			is_reserved(pair.name))
			continue;
		if (is_trace_header(pair.name))
		{
			sink(arg, pair.name.data, pair.name.len, pair.value.data, pair.value.len);
			continue;
		}
		memcpy(name + 3, pair.name.data, pair.name.len);
		sink(arg, name, pair.name.len + 3, pair.value.data, pair.value.len);
	}
}

/* Hands every header of a message to a function, in the order of the wire. */
static void
put_headers(const KafkaState *state, const EoEventMessage *event, HeaderSink sink,
			void *arg)
{
	EoBytes		type = event->type.data ? event->type : event->topic;
	char		id[37];
	char		time[36];
	char		number[24];

	cloudevents_id(event->event_id, id);
	cloudevents_time(event->time, time);
	PUT("ce_specversion", "1.0", 3);
	PUT("ce_id", id, 36);
	PUT("ce_source", state->source, strlen(state->source));
	PUT("ce_type", type.data, type.len);
	PUT("ce_time", time, strlen(time));
	PUT("ce_sequence", number, put_decimal(number, event->seq));
	PUT("ce_topic", event->topic.data, event->topic.len);
	PUT("ce_position", number, put_decimal(number, event->position));
	if (event->key.data)
		PUT("ce_partitionkey", event->key.data, event->key.len);
	if (event->flags & EO_EVENT_RETRY)
		PUT("ce_redelivered", "true", 4);
	if (event->content_type.data)
		PUT("content-type", event->content_type.data, event->content_type.len);
	put_event_headers(event, sink, arg);
}

/*----------
 * Size
 *----------
 */

static size_t
varint_size(uint64_t value)
{
	size_t		size = 1;

	for (value <<= 1; value >= 0x80; value >>= 7)
		size++;
	return size;
}

typedef struct HeaderSize
{
	size_t		count;
	size_t		bytes;
} HeaderSize;

static void
measure_header(void *arg, const char *name, size_t name_len, const char *value,
			   size_t value_len)
{
	HeaderSize *size = arg;

	(void) name;
	(void) value;
	size->count++;
	size->bytes += varint_size(name_len) + name_len + varint_size(value_len) + value_len;
}

/*
 * The bytes of a batch that holds this message alone and not compressed, which
 * is what a topic's max.message.bytes limits.
 */
size_t
kafka_message_size(const KafkaState *state, const EoEventMessage *event)
{
	HeaderSize	headers = {0, 0};
	size_t		record;

	put_headers(state, event, measure_header, &headers);
	record = 1 + 1 + 1;			/* attributes, timestamp delta, offset delta */
	record += event->key.data ? varint_size(event->key.len) + event->key.len : 1;
	record += event->payload.data ? varint_size(event->payload.len) + event->payload.len : 1;
	record += varint_size(headers.count) + headers.bytes;
	return BATCH_OVERHEAD + varint_size(record) + record;
}

/*----------
 * Sending
 *----------
 */

static void
add_header(void *arg, const char *name, size_t name_len, const char *value,
		   size_t value_len)
{
	rd_kafka_header_add(arg, name, (ssize_t) name_len, value_len ? value : "",
						(ssize_t) value_len);
}

/*
 * Hands an entry to the library, which sends from the entry's memory: the entry
 * must stay until its delivery report or the end of the instance.
 */
rd_kafka_resp_err_t
kafka_produce(KafkaState *state, KafkaEntry *entry)
{
	const EoEventMessage *event = &entry->event;
	rd_kafka_headers_t *headers = rd_kafka_headers_new(16);
	rd_kafka_vu_t fields[6];
	size_t		n = 0;
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t code;

	if (entry->topic->handle == NULL)
		entry->topic->handle = rd_kafka_topic_new(state->rk, entry->topic->name, NULL);
	put_headers(state, event, add_header, headers);
	entry->error = RD_KAFKA_RESP_ERR_NO_ERROR;

	fields[n].vtype = RD_KAFKA_VTYPE_RKT;
	fields[n++].u.rkt = entry->topic->handle;
	if (event->payload.data)
	{
		fields[n].vtype = RD_KAFKA_VTYPE_VALUE;
		fields[n].u.mem.ptr = (void *) event->payload.data;
		fields[n++].u.mem.size = event->payload.len;
	}
	if (event->key.data)
	{
		fields[n].vtype = RD_KAFKA_VTYPE_KEY;
		fields[n].u.mem.ptr = (void *) event->key.data;
		fields[n++].u.mem.size = event->key.len;
	}
	fields[n].vtype = RD_KAFKA_VTYPE_TIMESTAMP;
	fields[n++].u.i64 = event->time > 0 ? event->time / 1000 : 0;
	fields[n].vtype = RD_KAFKA_VTYPE_HEADERS;
	fields[n++].u.headers = headers;
	fields[n].vtype = RD_KAFKA_VTYPE_OPAQUE;
	fields[n++].u.ptr = entry;

	error = rd_kafka_produceva(state->rk, fields, n);
	if (error == NULL)
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	code = rd_kafka_error_code(error);
	rd_kafka_error_destroy(error);
	rd_kafka_headers_destroy(headers);
	return code;
}
