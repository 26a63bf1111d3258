/*
 * cloudevents_test.c
 *
 * The CloudEvents form of events: attributes, escaping, and that an event
 * comes out the same through a small buffer as through a large one.  And the
 * ring in which publishers keep events until they are settled.
 */
#include <stdlib.h>

#include "publishers/cloudevents.h"
#include "publishers/ring.h"
#include "samples.h"
#include "tap.h"

#define LARGE	(4 * 1024 * 1024)
#define SMALL	4096

/* Collects what a sink drains. */
typedef struct Collector
{
	JsonSink	sink;			/* must be first */
	char	   *all;
	size_t		len;
	size_t		drains;
} Collector;

static void
collect(JsonSink *sink)
{
	Collector  *c = (Collector *) sink;

	if (c->len + sink->len > LARGE)
		abort();
	memcpy(c->all + c->len, sink->data, sink->len);
	c->len += sink->len;
	c->drains++;
	sink->len = 0;
}

static Collector
collector(size_t cap)
{
	Collector	c = {{malloc(cap), 0, cap, collect}, malloc(LARGE), 0, 0};

	if (c.sink.data == NULL || c.all == NULL)
		abort();
	return c;
}

static void
release(Collector *c)
{
	free(c->sink.data);
	free(c->all);
}

static void
is_escaped(EoBytes text, const char *expected)
{
	Collector	c = collector(SMALL);

	json_put_escaped(&c.sink, text);
	collect(&c.sink);
	if (!ok(c.len == strlen(expected) && memcmp(c.all, expected, c.len) == 0,
			"escaped: %s", expected))
		printf("# got %.*s\n", (int) c.len, c.all);
	release(&c);
}

static void
test_escaping(void)
{
	is_escaped(SPAN("plain text"), "plain text");
	is_escaped(SPAN(""), "");
	is_escaped(SPAN("a\"b\\c/d"), "a\\\"b\\\\c/d");
	is_escaped(SPAN("\b\f\n\r\t"), "\\b\\f\\n\\r\\t");
	is_escaped(SPAN("\x01\x1f\x00\x7f"), "\\u0001\\u001f\\u0000\\u007f");
	is_escaped(SPAN("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
			   "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	is_escaped(SPAN("\xff\xfe"), "\xef\xbf\xbd\xef\xbf\xbd");
	is_escaped(SPAN("\xc0\x80"), "\xef\xbf\xbd\xef\xbf\xbd");	/* overlong */
	is_escaped(SPAN("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");	/* surrogate */
	is_escaped(SPAN("\xf4\x90\x80\x80"),
			   "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	is_escaped(SPAN("x\xe2\x82"), "x\xef\xbf\xbd\xef\xbf\xbd");	/* cut short */
	is_escaped(SPAN("\xe2\"\xc3"), "\xef\xbf\xbd\\\"\xef\xbf\xbd");
}

static void
is_time(int64_t time, const char *expected)
{
	char		got[36];

	memset(got, 'x', sizeof(got));
	cloudevents_time(time, got);
	if (!ok(strcmp(got, expected) == 0, "time %lld is %s", (long long) time, expected))
		printf("# got %s\n", got);
}

static void
test_attributes(void)
{
	char		id[37];

	cloudevents_id("\x01\x8f\x00\x01\x02\x03\x70\x04\x80\x05\x06\x07\x08\x09\x0a\xff", id);
	ok(strcmp(id, "018f0001-0203-7004-8005-060708090aff") == 0, "an event id as text");
	is_time(0, "1970-01-01T00:00:00.000000Z");
	is_time(-1, "1969-12-31T23:59:59.999999Z");
	is_time(INT64_C(951782400000000), "2000-02-29T00:00:00.000000Z");
	is_time(INT64_C(951868799999999), "2000-02-29T23:59:59.999999Z");
	is_time(INT64_C(951868800000000), "2000-03-01T00:00:00.000000Z");
	is_time(INT64_C(4107542400000000), "2100-03-01T00:00:00.000000Z");
	is_time(INT64_C(1798761599123456), "2026-12-31T23:59:59.123456Z");
	is_time(INT64_MAX, "9999-12-31T23:59:59.999999Z");
	is_time(INT64_MIN, "0000-01-01T00:00:00.000000Z");
}

static void
is_json(const char *what, const EoEventMessage *event, const char *expected)
{
	Collector	c = collector(SMALL);

	cloudevents_put_json(&c.sink, event, SPAN("/src"));
	collect(&c.sink);
	if (!ok(c.len == strlen(expected) && memcmp(c.all, expected, c.len) == 0, "%s", what))
		printf("# got      %.*s\n# expected %s\n", (int) c.len, c.all, expected);
	release(&c);
}

/* The message as a decoder gives it, with its headers encoded. */
static EoEventMessage
decoded(const EoEventMessage *event)
{
	static char data[LARGE];
	EoWriter	w = {data, sizeof(data), 0};
	EoBytes		body = {data + EO_FRAME_HEADER_SIZE, 0};
	EoEventMessage m;

	eo_encode_event(&w, event);
	body.len = w.len - EO_FRAME_HEADER_SIZE;
	if (w.len > w.cap || !eo_decode_event(body, &m))
		abort();
	return m;
}

#define START "{\"specversion\":\"1.0\",\"id\":\"018f0001-0203-7004-8005-060708090aff\",\"source\":\"/src\""
#define TIME "\"time\":\"2026-09-21T14:13:20.123456Z\""

static void
test_json(void)
{
	static const EoPair headers[] = {
		{{"traceparent", 11}, {"00-1-2-01", 9}},
		{{"data", 4}, {"mine", 4}},
		{{"id", 2}, {"mine", 4}},
		{{"", 0}, {"nameless", 8}},
		{{"a\"b", 3}, {"c\nd", 3}}
	};
	EoEventMessage m = sample_event(0);

	m.seq = 42;
	m.headers.count = 5;
	m.headers.items = headers;
	m = decoded(&m);
	is_json("an event with headers, two of which name core attributes", &m,
			START ",\"sequence\":\"42\",\"type\":\"order.created\"," TIME
			",\"partitionkey\":\"customer-1\",\"topic\":\"orders\",\"position\":1"
			",\"traceparent\":\"00-1-2-01\",\"a\\\"b\":\"c\\nd\""
			",\"datacontenttype\":\"application/json\""
			",\"data\":{\"a\": [1, 2, \"\xc3\xa9\"],  \"b\": null}}");

	m = sample_event(1);
	m = decoded(&m);
	is_json("a tombstone that was sent again", &m,
			START ",\"sequence\":\"9223372036854775806\",\"redelivered\":true,\"type\":\"orders\"," TIME
			",\"topic\":\"orders\",\"position\":2,\"data\":null}");

	m = sample_event(2);
	m.headers = sample_list(0);
	m.seq = 7;
	m = decoded(&m);
	is_json("bytes", &m,
			START ",\"sequence\":\"7\",\"type\":\"order.created\"," TIME
			",\"partitionkey\":\"\",\"topic\":\"orders\",\"position\":3"
			",\"datacontenttype\":\"application/octet-stream\",\"data_base64\":\"AAH+/w==\"}");

	m.content_type = SPAN("text/plain");
	m.payload = SPAN("two\r\nlines");
	is_json("text", &m,
			START ",\"sequence\":\"7\",\"type\":\"order.created\"," TIME
			",\"partitionkey\":\"\",\"topic\":\"orders\",\"position\":3"
			",\"datacontenttype\":\"text/plain\",\"data\":\"two\\r\\nlines\"}");

	m.payload = SPAN("\xff" "ab");
	is_json("text that is not UTF-8", &m,
			START ",\"sequence\":\"7\",\"type\":\"order.created\"," TIME
			",\"partitionkey\":\"\",\"topic\":\"orders\",\"position\":3"
			",\"datacontenttype\":\"text/plain\",\"data_base64\":\"/2Fi\"}");

	m.content_type = SPAN("application/json");
	m.flags = EO_EVENT_JSON;
	m.payload = SPAN("[1,\r\n\r\n2]\n");
	is_json("line breaks in JSON text become blanks", &m,
			START ",\"sequence\":\"7\",\"type\":\"order.created\"," TIME
			",\"partitionkey\":\"\",\"topic\":\"orders\",\"position\":3"
			",\"datacontenttype\":\"application/json\",\"data\":[1,    2] }");

	m.payload = SPAN("");
	is_json("no JSON text at all", &m,
			START ",\"sequence\":\"7\",\"type\":\"order.created\"," TIME
			",\"partitionkey\":\"\",\"topic\":\"orders\",\"position\":3"
			",\"datacontenttype\":\"application/json\",\"data_base64\":\"\"}");
}

/* Payloads around the size of the buffer, in every form */
static void
test_streaming(void)
{
	static char payload[600000];
	int			differences = 0;
	Collector	small = collector(SMALL);
	Collector	large = collector(LARGE);

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (char) (i % 251 == 0 ? '"' : 'a' + i % 26);
	for (int form = 0; form < 3; form++)
	{
		for (size_t len = 1; len <= sizeof(payload); len += len < 5000 ? 7 : 99991)
		{
			EoEventMessage m = sample_event(0);

			small.len = large.len = 0;
			m.headers = sample_list(0);
			m.flags = form == 0 ? EO_EVENT_JSON : 0;
			m.content_type = form == 1 ? SPAN("text/plain") : SPAN("application/x");
			m.payload.data = payload;
			m.payload.len = len;
			cloudevents_put_json(&small.sink, &m, SPAN("/src"));
			cloudevents_put_json(&large.sink, &m, SPAN("/src"));
			collect(&small.sink);
			collect(&large.sink);
			if (small.len != large.len || memcmp(small.all, large.all, small.len) != 0)
				differences++;
		}
	}
	release(&small);
	release(&large);
	ok(differences == 0 && small.drains > 2000, "the size of the buffer makes no difference");
}

/* Settles in a random order and compares with a plain model. */
static void
test_ring(void)
{
	static bool settled[20000];
	static bool retry[20000];
	Ring		ring;
	uint64_t	pushed = 0;
	uint64_t	random = 88172645463325252u;
	int			wrong = 0;

	ring_init(&ring);
	for (int step = 0; step < 60000; step++)
	{
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		if (random % 3 == 0 && pushed < 20000)
		{
			retry[pushed] = random % 5 == 0;
			if (ring_push(&ring, (int64_t) pushed + 1, 1, retry[pushed]) != pushed)
				wrong++;
			pushed++;
		}
		else if (pushed > 0)
		{
			uint64_t	token = random / 3 % pushed;
			RingEntry  *entry = ring_find(&ring, token);
			int64_t		done = 0;
			size_t		unsettled = 0;

			if ((entry == NULL) != settled[token])
				wrong++;
			if (entry && random % 4 != 0)
			{
				ring_settle(&ring, entry);
				settled[token] = true;
				ring_trim(&ring);
			}
			if (step % 1000 == 0)
			{
				uint64_t	t = 0;

				for (; t < pushed && settled[t]; t++)
					done = retry[t] ? done : (int64_t) t + 1;
				for (; t < pushed; t++)
					unsettled += !settled[t];
				if (done != ring.done_seq || unsettled != ring.unsettled)
					wrong++;
			}
		}
	}
	ok(wrong == 0 && pushed > 15000 && ring.capacity >= 16384,
	   "a ring of %llu events agrees with the model", (unsigned long long) pushed);
	ok(ring_find(&ring, pushed) == NULL, "a token never given is not found");
	ring_push(&ring, 99999, 1, false);
	ring_unpush(&ring);
	ok(ring_find(&ring, pushed) == NULL, "nor one that was taken back");
	free(ring.entries);
}

int
main(void)
{
	test_escaping();
	test_attributes();
	test_json();
	test_streaming();
	test_ring();
	return tap_done();
}
