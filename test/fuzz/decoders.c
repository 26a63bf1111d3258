/*
 * decoders.c
 *
 * A bounded fuzzer of everything that reads bytes of the other side: frames,
 * all messages, lists, the JSON form, and the end of an event file.
 *
 * Starts from the inputs in test/fuzz/corpus/decoders and from frames of every
 * message, and changes them at random.  It needs no special compiler; what finds
 * the errors are the sanitizers it is built with, and the properties below:
 *
 *	- what a decoder accepts, the encoder writes back byte by byte;
 *	- the JSON form has no line break and no zero byte, and its length does not
 *	  depend on the buffer;
 *	- a file whose end was repaired needs no repair.
 *
 * FUZZ_SECONDS (20) bounds the time, FUZZ_SEED repeats a run.  With
 * -DEO_LIBFUZZER it is a libFuzzer target instead, which the corpus comes from:
 * -merge=1 leaves of its findings those that reach something new.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "publishers/cloudevents.h"
#include "publishers/file_resume.h"
#include "samples.h"

#define INPUT_MAX		8192

static uint64_t seed;
static uint64_t executions;
static uint64_t accepted;

static void
failed(const char *property)
{
	fprintf(stderr, "property broken: %s\n", property);
	abort();
}

/*----------
 * One execution
 *----------
 */

typedef struct CheckedSink
{
	JsonSink	sink;			/* must be first */
	char		data[4096];
	size_t		total;
} CheckedSink;

static void
check_json(JsonSink *sink)
{
	CheckedSink *checked = (CheckedSink *) sink;

	if (memchr(sink->data, '\n', sink->len) || memchr(sink->data, '\r', sink->len))
		failed("the JSON form has no line break");
	checked->total += sink->len;
	sink->len = 0;
}

static size_t
json_length(const EoEventMessage *event, size_t cap)
{
	CheckedSink checked;

	checked.sink.data = checked.data;
	checked.sink.len = 0;
	checked.sink.cap = cap;
	checked.sink.drain = check_json;
	checked.total = 0;
	cloudevents_put_json(&checked.sink, event, SPAN("/s"));
	check_json(&checked.sink);
	return checked.total;
}

static void
try_json(EoBytes body)
{
	EoEventMessage event;

	if (eo_decode_event(body, &event) &&
		json_length(&event, 4096) != json_length(&event, 64))
		failed("the length of JSON does not depend on the buffer");
}

/* Decodes it as every type, whatever type it claims to have. */
static void
try_frame(const EoFrame *frame)
{
	static const char types[] = "CEFSPRATNOLI";
	static char again[EO_FRAME_HEADER_SIZE + INPUT_MAX];

	for (const char *type = types; *type; type++)
	{
		EoFrame		as = *frame;
		EoWriter	w = {again, sizeof(again), 0};

		as.type = (uint8_t) *type;
		if (!sample_recode(&as, &w))
			continue;
		accepted++;
		if (w.len > 0 &&
			(w.len != frame->body.len + EO_FRAME_HEADER_SIZE ||
			 memcmp(again + EO_FRAME_HEADER_SIZE, frame->body.data, frame->body.len) != 0))
			failed("what is decoded is encoded the same");
	}
	try_json(frame->body);
}

static void
try_stream(const char *data, size_t len)
{
	EoFrame		frame;
	size_t		at = 0;

	while (eo_frame_parse(data + at, len - at, &frame) == EO_FRAME_READY)
	{
		if (frame.size > len - at || frame.body.data + frame.body.len > data + len)
			failed("a frame lies within the input");
		try_frame(&frame);
		at += frame.size;
	}
}

static void
try_file(const char *data, size_t len)
{
	static int	fd = -1;
	FileEnd		first;
	FileEnd		second;

	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, data, len, 0) != (ssize_t) len)
		failed("the test can write its file");
	if (file_resume(fd, SPAN("/s"), &first) != NULL)
		return;
	if (file_resume(fd, SPAN("/s"), &second) != NULL || second.cut != 0 ||
		first.knows_seq != second.knows_seq ||
		(first.knows_seq && first.seq != second.seq))
		failed("a repaired file needs no repair");
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of its own, so that one byte too far is noticed. */
	char	   *copy = malloc(size + 1);
	EoFrame		whole = {0, {copy + 1, size}, size};

	if (copy == NULL || size > INPUT_MAX)
	{
		free(copy);
		return 0;
	}
	memcpy(copy + 1, data, size);
	if (size > 0)
	{
		try_frame(&whole);
		try_stream(copy + 1, size);
		if (copy[1] == '{')
			try_file(copy + 1, size);
	}
	free(copy);
	return 0;
}

#ifndef EO_LIBFUZZER

/*----------
 * Inputs
 *----------
 */

static uint64_t state;

static uint64_t
next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * UINT64_C(2685821657736338717) >> 11;
}

static size_t
below(size_t limit)
{
	return (size_t) (next_random() % limit);
}

#define CORPUS			"test/fuzz/corpus/decoders"

/* In the order of their names, so that a seed repeats a run. */
static struct dirent **kept;
static int	kept_count;

static int
is_input(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static size_t
read_kept(int number, char *data)
{
	char		path[sizeof(CORPUS) + 256];
	FILE	   *file;
	size_t		len;

	snprintf(path, sizeof(path), CORPUS "/%s", kept[number]->d_name);
	file = fopen(path, "r");
	if (file == NULL)
		failed("the corpus can be read");
	len = fread(data, 1, INPUT_MAX, file);
	fclose(file);
	return len;
}

/* What is kept, the bodies and frames of some messages, or the lines of a file */
static size_t
make_seed_input(char *data)
{
	EoWriter	w = {data, INPUT_MAX / 2, 0};
	size_t		kind = below(6);

	if (kind > 3)
		return read_kept((int) below((size_t) kept_count), data);
	if (kind == 0)				/* a stream */
	{
		for (size_t n = 1 + below(4); n > 0; n--)
			sample_encode(&w, (int) below(SAMPLE_COUNT));
		return w.len;
	}
	if (kind == 1)				/* a file */
	{
		JsonSink	sink = {data, 0, INPUT_MAX / 2, NULL};

		for (size_t n = 1 + below(4); n > 0; n--)
		{
			EoEventMessage event = sample_event((int) below(3));

			event.headers = sample_list(0);
			cloudevents_put_json(&sink, &event, SPAN("/s"));
			json_put_raw(&sink, "\n", 1);
		}
		return sink.len;
	}
	sample_encode(&w, (int) below(SAMPLE_COUNT));	/* a body */
	memmove(data, data + EO_FRAME_HEADER_SIZE, w.len - EO_FRAME_HEADER_SIZE);
	return w.len - EO_FRAME_HEADER_SIZE;
}

static size_t
mutate(char *data, size_t len)
{
	static const uint32_t lengths[] = {
		0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff
	};
	size_t		at = len ? below(len) : 0;
	size_t		n = len - at;
	size_t		part = n ? 1 + below(n < 64 ? n : 64) : 0;
	uint32_t	value;

	switch (below(7))
	{
		case 0:					/* a bit */
			if (len > 0)
				data[at] = (char) (data[at] ^ (1 << below(8)));
			break;
		case 1:					/* a byte */
			if (len > 0)
				data[at] = below(2) ? (char) below(256) : "\0\n\"\\}{\xff\x7f"[below(8)];
			break;
		case 2:					/* a length */
			value = lengths[below(10)] + (uint32_t) below(2);
			for (size_t i = 0; i < 4 && i < n; i++)
				data[at + i] = (char) (value >> (24 - 8 * i));
			break;
		case 3:					/* cut short */
			return at;
		case 4:					/* remove a part */
			memmove(data + at, data + at + part, n - part);
			return len - part;
		case 5:					/* double a part */
			if (len + part > INPUT_MAX)
				break;
			memmove(data + at + part, data + at, n);
			return len + part;
		case 6:					/* copy a part elsewhere */
			if (len > 0)
			{
				size_t		from = below(len - part + 1);

				memmove(data + at, data + from, part);
			}
			break;
	}
	return len;
}

/* In libasan, if built with it; tells how to come back to what made it die. */
extern void __sanitizer_set_death_callback(void (*callback) (void)) __attribute__((weak));

static void
tell_state(void)
{
	fprintf(stderr, "died in execution %llu of FUZZ_SEED=%llu\n",
			(unsigned long long) executions, (unsigned long long) seed);
}

int
main(void)
{
	static char data[INPUT_MAX];
	const char *seconds = getenv("FUZZ_SECONDS");
	const char *given = getenv("FUZZ_SEED");
	time_t		end = time(NULL) + (seconds ? atol(seconds) : 20);
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	seed = given ? strtoull(given, NULL, 10)
		: (uint64_t) ts.tv_sec * 1000003u + (uint64_t) ts.tv_nsec + (uint64_t) getpid();
	state = seed * 2 + 1;
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(tell_state);
	printf("1..1\n# FUZZ_SEED=%llu\n", (unsigned long long) seed);
	fflush(stdout);
	kept_count = scandir(CORPUS, &kept, is_input, alphasort);
	if (kept_count <= 0)
		failed("there is a corpus");
	for (int i = 0; i < kept_count; i++)
		LLVMFuzzerTestOneInput((const uint8_t *) data, read_kept(i, data));

	do
	{
		for (int i = 0; i < 1000; i++)
		{
			size_t		len = make_seed_input(data);

			for (size_t n = below(6); n > 0; n--)
				len = mutate(data, len);
			LLVMFuzzerTestOneInput((const uint8_t *) data, len);
			executions++;
		}
	} while (time(NULL) < end);

	printf("# %llu executions, %llu messages accepted\n",
		   (unsigned long long) executions, (unsigned long long) accepted);
	printf("%sok 1 - decoders hold against %s\n", accepted > executions / 20 ? "" : "not ",
		   "changed messages, of which some are accepted");
	return accepted > executions / 20 ? 0 : 1;
}

#endif							/* EO_LIBFUZZER */
