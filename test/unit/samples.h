/*
 * samples.h
 *
 * One or more frames of every message, for the unit tests and as the seeds of
 * the fuzzer.
 */
#ifndef EO_SAMPLES_H
#define EO_SAMPLES_H

#include <string.h>

#include "wire/message.h"

#define SAMPLE_COUNT	14

#define SPAN(literal)	((EoBytes) {literal, sizeof(literal) - 1})
#define NULL_SPAN		((EoBytes) {NULL, 0})

static const EoPair sample_pairs[] = {
	{{"path", 4}, {"/tmp/events", 11}},
	{{"empty", 5}, {"", 0}},
	{{"", 0}, {"x", 1}}
};

static inline EoPairs
sample_list(uint32_t count)
{
	EoPairs		pairs = {count, {NULL, 0}, sample_pairs};

	return pairs;
}

static inline EoConfigMessage
sample_config(uint32_t pairs)
{
	EoConfigMessage m = {.version = EO_PROTOCOL_VERSION};

	m.subscription = SPAN("to_kafka");
	m.identity = SPAN("eo/7012345678901234567/5/to_kafka");
	m.source = SPAN("/eo/shop");
	m.published_seq = INT64_C(0x0123456789abcdef);
	m.server_options = sample_list(pairs);
	m.secrets = sample_list(pairs / 2);
	m.subscription_options = sample_list(0);
	return m;
}

static inline EoEventMessage
sample_event(int variant)
{
	EoEventMessage m = {.flags = EO_EVENT_JSON};

	m.seq = INT64_C(0x7fffffffffffffff) - variant;
	m.position = 1 + variant;
	m.time = INT64_C(1790000000123456);
	m.event_id = "\x01\x8f\x00\x01\x02\x03\x70\x04\x80\x05\x06\x07\x08\x09\x0a\xff";
	m.topic = SPAN("orders");
	m.key = SPAN("customer-1");
	m.type = SPAN("order.created");
	m.content_type = SPAN("application/json");
	m.payload = SPAN("{\"a\": [1, 2, \"\xc3\xa9\"],\n \"b\": null}");
	m.headers = sample_list(3);
	if (variant == 1)
	{
		/* a tombstone, sent again */
		m.flags = EO_EVENT_RETRY;
		m.key = m.type = m.content_type = m.payload = NULL_SPAN;
		m.headers = sample_list(0);
	}
	else if (variant == 2)
	{
		m.flags = 0;
		m.key = SPAN("");
		m.content_type = SPAN("application/octet-stream");
		m.payload = SPAN("\x00\x01\xfe\xff");
		m.headers = sample_list(1);
	}
	return m;
}

/* Appends the frame of sample `i`, 0 <= i < SAMPLE_COUNT. */
static inline void
sample_encode(EoWriter *w, int i)
{
	EoConfigMessage config = sample_config(i == 0 ? 0 : 3);
	EoEventMessage event = sample_event(i < 2 ? 0 : i - 2);
	EoReadyMessage ready = {EO_PROTOCOL_VERSION, i == 6, i == 6 ? 42 : 0};
	EoNackMessage nack = {i == 7 ? 77 : 0, i == 7, SPAN("message too large")};
	EoLogMessage log = {EO_LOG_WARNING, SPAN("broker down")};
	EoStatMessage stat = {1, 2, INT64_C(1) << 40};

	if (i < 2)
		eo_encode_config(w, &config);
	else if (i < 5)
		eo_encode_event(w, &event);
	else if (i < 7)
		eo_encode_ready(w, &ready);
	else if (i < 9)
		eo_encode_nack(w, &nack);
	else if (i == 9)
		eo_encode_log(w, &log);
	else if (i == 10)
		eo_encode_stat(w, &stat);
	else if (i == 11)
		eo_encode_number(w, EO_MSG_ACK, -2);
	else if (i == 12)
		eo_encode_number(w, EO_MSG_PING, INT64_C(0x1122334455667788));
	else
		eo_encode_empty(w, EO_MSG_STOP);
}

/*
 * Decodes a frame's body as its type says and, if that works, encodes it again.
 * False if the body is malformed.  A list is turned into an array for that, so
 * there is a limit to the pairs that can be encoded again.
 */
typedef struct SamplePairs
{
	EoPair		items[256];
	bool		fits;
} SamplePairs;

static inline void
sample_unpack(EoPairs *pairs, SamplePairs *into)
{
	size_t		offset = 0;
	uint32_t	n = 0;

	into->fits = pairs->count <= 256;
	while (into->fits && eo_pairs_next(pairs, &offset, &into->items[n]))
		n++;
	if (into->fits && n != pairs->count)
		__builtin_trap();
	pairs->items = into->items;
}

static inline bool
sample_recode(const EoFrame *frame, EoWriter *w)
{
	EoConfigMessage config;
	EoEventMessage event;
	EoReadyMessage ready;
	EoNackMessage nack;
	EoLogMessage log;
	EoStatMessage stat;
	int64_t		number;
	SamplePairs pairs[3];

	switch (frame->type)
	{
		case EO_MSG_CONFIG:
			if (!eo_decode_config(frame->body, &config))
				return false;
			sample_unpack(&config.server_options, &pairs[0]);
			sample_unpack(&config.secrets, &pairs[1]);
			sample_unpack(&config.subscription_options, &pairs[2]);
			if (pairs[0].fits && pairs[1].fits && pairs[2].fits)
				eo_encode_config(w, &config);
			return true;

		case EO_MSG_EVENT:
			if (!eo_decode_event(frame->body, &event))
				return false;
			sample_unpack(&event.headers, &pairs[0]);
			if (pairs[0].fits)
				eo_encode_event(w, &event);
			return true;

		case EO_MSG_READY:
			if (!eo_decode_ready(frame->body, &ready))
				return false;
			eo_encode_ready(w, &ready);
			return true;

		case EO_MSG_NACK:
			if (!eo_decode_nack(frame->body, &nack))
				return false;
			eo_encode_nack(w, &nack);
			return true;

		case EO_MSG_LOG:
			if (!eo_decode_log(frame->body, &log))
				return false;
			eo_encode_log(w, &log);
			return true;

		case EO_MSG_STAT:
			if (!eo_decode_stat(frame->body, &stat))
				return false;
			eo_encode_stat(w, &stat);
			return true;

		case EO_MSG_FLUSH:
		case EO_MSG_STOP:
			if (frame->body.len != 0)
				return false;
			eo_encode_empty(w, (EoMessageType) frame->type);
			return true;

		case EO_MSG_ACK:
		case EO_MSG_RETRIED:
		case EO_MSG_PING:
		case EO_MSG_PONG:
			if (!eo_decode_number(frame->body, &number))
				return false;
			eo_encode_number(w, (EoMessageType) frame->type, number);
			return true;

		default:
			return false;
	}
}

#endif							/* EO_SAMPLES_H */
