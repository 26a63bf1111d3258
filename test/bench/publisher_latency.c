/*
 * publisher_latency.c
 *
 * How long a publisher takes from an event to its acknowledgement, at a steady
 * rate, with no database in the way.
 *
 *		publisher_latency EXECUTABLE PER_SECOND SECONDS PAYLOAD_BYTES [name=value ...]
 *
 * The names are server options.  The first second's events warm up and are not
 * counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "wire/message.h"

#define MAX_OPTIONS	16

static double *sent_at;
static double *latencies;
static int64_t acked;
static bool ready;

static void
die(const char *what)
{
	fprintf(stderr, "publisher_latency: %s\n", what);
	exit(1);
}

static EoBytes
span(const char *text)
{
	EoBytes		bytes = {text, strlen(text)};

	return bytes;
}

static void
send_all(int fd, const EoWriter *w)
{
	if (w->len > w->cap || send(fd, w->data, w->len, MSG_NOSIGNAL) != (ssize_t) w->len)
		die("cannot send");
}

static void
send_config(int fd, int count, char **options)
{
	EoPair		items[MAX_OPTIONS];
	EoConfigMessage config = {.version = EO_PROTOCOL_VERSION};
	char		data[65536];
	EoWriter	w = {data, sizeof(data), 0};

	for (int i = 0; i < count; i++)
	{
		char	   *equals = strchr(options[i], '=');

		if (equals == NULL)
			die("an option needs name=value");
		items[i].name.data = options[i];
		items[i].name.len = (size_t) (equals - options[i]);
		items[i].value = span(equals + 1);
	}
	config.subscription = span("bench");
	config.identity = span("bench/latency");
	config.source = span("/bench");
	config.server_options.count = (uint32_t) count;
	config.server_options.items = items;
	eo_encode_config(&w, &config);
	send_all(fd, &w);
}

static void
take_frame(const EoFrame *frame)
{
	int64_t		seq;
	EoNackMessage nack;

	if (frame->type == EO_MSG_READY)
		ready = true;
	else if (frame->type == EO_MSG_ACK && eo_decode_number(frame->body, &seq))
	{
		double		now = now_ms();

		while (acked < seq)
		{
			latencies[acked] = now - sent_at[acked];
			acked++;
		}
	}
	else if (frame->type == EO_MSG_NACK && eo_decode_nack(frame->body, &nack))
	{
		fprintf(stderr, "%.*s\n", (int) nack.reason.len, nack.reason.data);
		die("an event was refused");
	}
}

/* Takes what comes in the next `ms`, and returns after the first of it. */
static void
receive(int fd, int ms)
{
	static char data[65536];
	static size_t used;
	struct pollfd pfd = {fd, POLLIN, 0};
	ssize_t		n;
	size_t		at = 0;
	EoFrame		frame;

	if (poll(&pfd, 1, ms) <= 0)
		return;
	n = recv(fd, data + used, sizeof(data) - used, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		die("the publisher ended");
	used += (size_t) n;
	while (eo_frame_parse(data + at, used - at, &frame) == EO_FRAME_READY)
	{
		take_frame(&frame);
		at += frame.size;
	}
	memmove(data, data + at, used - at);
	used -= at;
}

static void
send_event(int fd, int64_t seq, EoBytes payload)
{
	static char data[1 << 17];
	EoWriter	w = {data, sizeof(data), 0};
	EoEventMessage event = {.flags = EO_EVENT_JSON};

	event.seq = seq;
	event.position = seq;
	event.time = INT64_C(1790000000000000) + seq;
	event.event_id = "0123456789abcdef";
	event.topic = span("orders");
	event.key = span("customer-4711");
	event.type = span("order.created");
	event.content_type = span("application/json");
	event.payload = payload;
	eo_encode_event(&w, &event);
	sent_at[seq - 1] = now_ms();
	send_all(fd, &w);
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
run(int fd, double per_second, double seconds, EoBytes payload)
{
	int64_t		warm = (int64_t) per_second;
	int64_t		events = warm + (int64_t) (per_second * seconds);
	int64_t		counted = events - warm;
	double		begun = now_ms();

	sent_at = calloc((size_t) events, sizeof(double));
	latencies = calloc((size_t) events, sizeof(double));
	if (sent_at == NULL || latencies == NULL)
		die("out of memory");
	for (int64_t i = 0; i < events; i++)
	{
		double		due = begun + (double) i * 1e3 / per_second;
		double		now;

		while ((now = now_ms()) < due)
			receive(fd, due - now >= 2 ? 1 : 0);
		send_event(fd, i + 1, payload);
	}
	while (acked < events)
		receive(fd, 100);
	qsort(latencies + warm, (size_t) counted, sizeof(double), compare);
	printf("%lld events at %.0f/s: p50 %.3f ms p99 %.3f ms max %.3f ms\n",
		   (long long) counted, per_second, latencies[warm + counted / 2],
		   latencies[warm + counted * 99 / 100], latencies[events - 1]);
}

int
main(int argc, char **argv)
{
	EoBytes		payload;
	char	   *text;
	pid_t		pid;
	int			status;
	int			fds[2];

	if (argc < 5 || argc - 5 > MAX_OPTIONS)
		die("usage: publisher_latency EXECUTABLE PER_SECOND SECONDS PAYLOAD_BYTES [name=value ...]");
	payload.len = (size_t) atoll(argv[4]);
	if (payload.len < 2 || payload.len > 65536 || (text = malloc(payload.len)) == NULL)
		die("impossible payload size");
	memset(text, 'x', payload.len);
	text[0] = text[payload.len - 1] = '"';
	payload.data = text;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		die("socketpair failed");
	pid = fork();
	if (pid == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], 0);
		execl(argv[1], argv[1], (char *) NULL);
		_exit(127);
	}
	close(fds[1]);
	send_config(fds[0], argc - 5, argv + 5);
	while (!ready)
		receive(fds[0], 100);
	run(fds[0], atof(argv[2]), atof(argv[3]), payload);
	free(text);
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("the publisher did not end with status 0");
	return 0;
}
