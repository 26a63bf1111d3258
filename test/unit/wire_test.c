/*
 * wire_test.c
 *
 * Frames, messages and options.  Built with the address sanitizer: every span
 * that is decoded here lies at the end of its allocation, so that reading one
 * byte too many ends the test.
 */
#include <stdlib.h>

#include "samples.h"
#include "tap.h"
#include "wire/options.h"

static char *
exact_copy(const char *data, size_t len)
{
	char	   *copy = malloc(len ? len : 1);

	if (copy == NULL)
		abort();
	/* malloc(0) would not be checked, so an empty span is one past the end */
	if (len > 0)
		memcpy(copy, data, len);
	return len > 0 ? copy : copy + 1;
}

static void
free_copy(char *copy, size_t len)
{
	free(len > 0 ? copy : copy - 1);
}

static size_t
encode_sample(int i, char *data, size_t cap)
{
	EoWriter	w = {data, cap, 0};

	sample_encode(&w, i);
	return w.len;
}

static void
test_frames(void)
{
	EoFrame		frame;
	char		data[64];
	EoWriter	w = {data, sizeof(data), 0};
	EoWriter	small = {data, 3, 0};

	eo_encode_number(&w, EO_MSG_ACK, 5);
	ok(w.len == 13, "an ACK takes 13 bytes");
	ok(memcmp(data, "\0\0\0\x09" "A\0\0\0\0\0\0\0\5", 13) == 0,
	   "integers are big-endian");
	for (size_t len = 0; len < w.len; len++)
	{
		char	   *copy = exact_copy(data, len);

		if (eo_frame_parse(copy, len, &frame) != EO_FRAME_INCOMPLETE)
			ok(false, "%zu bytes of a frame are incomplete", len);
		free_copy(copy, len);
	}
	ok(eo_frame_parse(data, w.len, &frame) == EO_FRAME_READY &&
	   frame.type == 'A' && frame.body.len == 8 && frame.size == 13,
	   "a whole frame is ready");
	ok(eo_frame_parse(data, sizeof(data), &frame) == EO_FRAME_READY &&
	   frame.size == 13, "bytes behind it do not matter");
	ok(eo_frame_parse("\0\0\0\0", 4, &frame) == EO_FRAME_INVALID,
	   "length 0 is invalid");
	ok(eo_frame_parse("\x05\0\0\1", 4, &frame) == EO_FRAME_INVALID,
	   "a length over the limit is invalid before its bytes come");
	ok(eo_frame_parse("\x05\0\0\0", 4, &frame) == EO_FRAME_INCOMPLETE,
	   "the limit itself is not");

	memset(data, 'x', sizeof(data));
	eo_encode_number(&small, EO_MSG_ACK, 5);
	ok(small.len == 13, "a writer without room counts on");
	ok(memcmp(data + 3, "xxxxxxxxxx", 10) == 0, "and does not write beyond its room");
}

static void
test_round_trips(void)
{
	for (int i = 0; i < SAMPLE_COUNT; i++)
	{
		char		data[1024];
		char		again[1024];
		size_t		len = encode_sample(i, data, sizeof(data));
		EoWriter	w = {again, sizeof(again), 0};
		EoFrame		frame;
		char	   *copy = exact_copy(data, len);

		ok(eo_frame_parse(copy, len, &frame) == EO_FRAME_READY &&
		   frame.size == len && sample_recode(&frame, &w) &&
		   w.len == len && memcmp(data, again, len) == 0,
		   "sample %d (%c) survives decoding and encoding", i, frame.type);
		ok(encode_sample(i, NULL, 0) == len, "sample %d is measured right", i);
		free_copy(copy, len);
	}
}

/* Every prefix of a body must be refused, and a body with a byte more. */
static void
test_truncation(void)
{
	for (int i = 0; i < SAMPLE_COUNT; i++)
	{
		char		data[1024];
		char		again[1024];
		size_t		len = encode_sample(i, data, sizeof(data)) - EO_FRAME_HEADER_SIZE;
		int			accepted = 0;

		data[EO_FRAME_HEADER_SIZE + len] = 0;
		for (size_t n = 0; n <= len + 1; n++)
		{
			char	   *copy = exact_copy(data + EO_FRAME_HEADER_SIZE, n);
			EoFrame		frame = {(uint8_t) data[4], {copy, n}, n + 5};
			EoWriter	w = {again, sizeof(again), 0};

			if (sample_recode(&frame, &w) != (n == len))
				accepted++;
			free_copy(copy, n);
		}
		ok(accepted == 0, "sample %d is refused at any other length", i);
	}
}

static void
test_fields(void)
{
	char		data[1024];
	size_t		len = encode_sample(2, data, sizeof(data));
	EoBytes		body = {data + EO_FRAME_HEADER_SIZE, len - EO_FRAME_HEADER_SIZE};
	EoEventMessage m;
	EoEventMessage expected = sample_event(0);
	EoPair		pair;
	size_t		offset = 0;
	uint32_t	n = 0;

	ok(eo_decode_event(body, &m) && m.seq == expected.seq &&
	   m.position == expected.position && m.time == expected.time &&
	   memcmp(m.event_id, expected.event_id, EO_EVENT_ID_SIZE) == 0,
	   "the numbers of an event arrive");
	ok(m.payload.len == expected.payload.len &&
	   memcmp(m.payload.data, expected.payload.data, m.payload.len) == 0,
	   "its payload arrives");
	ok(eo_pairs_get(&m.headers, "path").len == 11, "a header is found");
	ok(eo_pairs_get(&m.headers, "empty").data != NULL &&
	   eo_pairs_get(&m.headers, "empty").len == 0, "an empty value is not NULL");
	ok(eo_pairs_get(&m.headers, "pat").data == NULL, "an absent name is NULL");
	while (eo_pairs_next(&m.headers, &offset, &pair))
		n++;
	ok(n == 3 && m.headers.count == 3, "walking the headers visits each");

	encode_sample(3, data, sizeof(data));
	body.len = encode_sample(3, data, sizeof(data)) - EO_FRAME_HEADER_SIZE;
	ok(eo_decode_event(body, &m) && m.key.data == NULL && m.type.data == NULL &&
	   m.payload.data == NULL, "NULLs stay NULLs");
}

/* One changed byte of a sample's body, at an offset from its start */
static bool
accepts_patch(int sample, size_t at, char value)
{
	char		data[1024];
	char		again[1024];
	EoWriter	w = {again, sizeof(again), 0};
	EoFrame		frame;
	size_t		len = encode_sample(sample, data, sizeof(data));

	data[EO_FRAME_HEADER_SIZE + at] = value;
	return eo_frame_parse(data, len, &frame) == EO_FRAME_READY &&
		sample_recode(&frame, &w);
}

static void
test_bad_values(void)
{
	EoFrame		unknown = {'z', {"", 0}, 5};
	EoWriter	w = {NULL, 0, 0};
	EoEventMessage m = sample_event(0);
	char		data[1024];
	EoBytes		body = {data + EO_FRAME_HEADER_SIZE, 0};

	ok(!sample_recode(&unknown, &w), "an unknown type is refused");
	ok(!accepts_patch(2, 0, 4), "an unknown event flag is refused");
	ok(accepts_patch(2, 0, 3), "the known ones are not");
	ok(!accepts_patch(2, 1, -1), "a negative seq is refused");
	ok(!accepts_patch(2, 9, -1), "a negative position is refused");
	ok(!accepts_patch(6, 4, 2), "a flag is 0 or 1");
	ok(!accepts_patch(5, 12, 1), "READY without a position has no seq");
	ok(!accepts_patch(8, 0, -1), "a NACK of a negative seq is refused");
	ok(!accepts_patch(9, 0, 4), "an unknown log level is refused");
	ok(!accepts_patch(10, 0, -1), "a negative counter is refused");

	m.content_type = NULL_SPAN;
	w.data = data;
	w.cap = sizeof(data);
	eo_encode_event(&w, &m);
	body.len = w.len - EO_FRAME_HEADER_SIZE;
	ok(!eo_decode_event(body, &m), "a payload needs a content type");
	m = sample_event(0);
	m.topic = NULL_SPAN;
	w.len = 0;
	eo_encode_event(&w, &m);
	body.len = w.len - EO_FRAME_HEADER_SIZE;
	ok(!eo_decode_event(body, &m), "an event needs a topic");
}

/* A count that promises more than there is must cost nothing. */
static void
test_huge_count(void)
{
	char		data[1024];
	size_t		len = encode_sample(3, data, sizeof(data));
	char	   *copy;
	EoEventMessage m;
	EoBytes		body;

	memset(data + len - 4, 0xff, 4);
	copy = exact_copy(data + EO_FRAME_HEADER_SIZE, len - EO_FRAME_HEADER_SIZE);
	body.data = copy;
	body.len = len - EO_FRAME_HEADER_SIZE;
	ok(!eo_decode_event(body, &m), "a list longer than its frame is refused");
	free_copy(copy, body.len);
}

static const char *
check(const char *kind, EoOptionPlace place, const char *name, const char *value)
{
	bool		found;
	const char *wrong = eo_option_check(eo_broker_kind(kind), place, name, value, &found);

	return !found ? "unknown" : wrong ? wrong : "good";
}

#define is(text, expected) \
	do { \
		const char *got = text; \
		if (!ok(strcmp(got, expected) == 0, "%s is \"%s\"", #text, expected)) \
			printf("# got \"%s\"\n", got); \
	} while (0)

static void
test_options(void)
{
	ok(eo_broker_kind("nosuch") == NULL && eo_broker_kind("file") != NULL,
	   "kinds are told apart");
	is(check("file", EO_OPTION_SERVER, "path", "/var/x"), "good");
	is(check("file", EO_OPTION_SERVER, "path", "x"), "must be an absolute path");
	is(check("file", EO_OPTION_SUBSCRIPTION, "path", "/var/x"), "unknown");
	is(check("file", EO_OPTION_SERVER, "Path", "/var/x"), "unknown");
	is(check("kafka", EO_OPTION_SERVER, "brokers", ""), "must not be empty");
	is(check("kafka", EO_OPTION_SERVER, "guarantee", "exactly_once"), "good");
	is(check("kafka", EO_OPTION_SUBSCRIPTION, "guarantee", "exactly"),
	   "must be one of at_least_once or exactly_once");
	is(check("kafka", EO_OPTION_SERVER, "sasl.mechanism", "PLAIN|"),
	   "must be one of PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512");
	is(check("kafka", EO_OPTION_SERVER, "socket.nagle.disable", "yes"),
	   "must be true or false");
	is(check("kafka", EO_OPTION_SERVER, "password", "x"), "unknown");
	is(check("kafka", EO_OPTION_USER_MAPPING, "password", "x"), "good");
	is(check("kafka", EO_OPTION_SERVER, "linger.ms", "0"), "good");
	is(check("kafka", EO_OPTION_SERVER, "linger.ms", "-1"),
	   "must be an integer from 0 to 900000");
	is(check("kafka", EO_OPTION_SERVER, "topic.metadata.refresh.interval.ms", "-1"), "good");
	is(check("stub", EO_OPTION_SUBSCRIPTION, "script", "stall"), "good");
	for (int i = 0; i < 3; i++)
	{
		const char *kind = (const char *[]) {"file", "kafka", "stub"}[i];

		is(check(kind, EO_OPTION_SUBSCRIPTION, "max_in_flight", "100000"), "good");
		is(check(kind, EO_OPTION_SUBSCRIPTION, "max_in_flight", "100001"),
		   "must be an integer from 1 to 100000");
		is(check(kind, EO_OPTION_SERVER, "max_in_flight", "1"), "unknown");
	}
	is(check("stub", EO_OPTION_SUBSCRIPTION, "max_in_flight", " 1"),
	   "must be an integer from 1 to 100000");
	is(check("stub", EO_OPTION_SUBSCRIPTION, "max_in_flight", "1x"),
	   "must be an integer from 1 to 100000");
	is(check("stub", EO_OPTION_SUBSCRIPTION, "max_in_flight", "99999999999999999999"),
	   "must be an integer from 1 to 100000");
}

/* What could read a file, run something, or undo a guarantee */
static void
test_forbidden_properties(void)
{
	const char *forbidden[] = {
		"plugin.library.paths", "ssl.ca.location", "ssl.key.location",
		"ssl.certificate.location", "ssl.crl.location", "ssl.keystore.location",
		"ssl.engine.location", "sasl.kerberos.kinit.cmd", "sasl.kerberos.keytab",
		"sasl.oauthbearer.token.endpoint.url", "debug", "acks",
		"enable.idempotence", "max.in.flight", "retries", "transactional.id",
		"bootstrap.servers", "queuing.strategy", "interceptors"
	};
	int			found = 0;

	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
	{
		if (strcmp(check("kafka", EO_OPTION_SERVER, forbidden[i], "1"), "unknown") != 0 ||
			strcmp(check("kafka", EO_OPTION_SUBSCRIPTION, forbidden[i], "1"), "unknown") != 0 ||
			strcmp(check("kafka", EO_OPTION_USER_MAPPING, forbidden[i], "1"), "unknown") != 0)
		{
			printf("# %s\n", forbidden[i]);
			found++;
		}
	}
	ok(found == 0, "no property that reads files, runs code or undoes a guarantee");
}

int
main(void)
{
	test_frames();
	test_round_trips();
	test_truncation();
	test_fields();
	test_bad_values();
	test_huge_count();
	test_options();
	test_forbidden_properties();
	return tap_done();
}
