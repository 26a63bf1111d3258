/*
 * publisher_rate.c
 *
 * How many events a second a publisher takes, with no database in the way.
 *
 *		publisher_rate EXECUTABLE EVENTS PAYLOAD_BYTES [name=value ...]
 *
 * The names are server options.  Plays the relay over a socketpair with a
 * bounded window, checks that acknowledgements rise up to the last event, and
 * prints one line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire/message.h"

#define WINDOW		50000
#define OUT_SIZE	(256 * 1024)
#define MAX_OPTIONS	16

static void
die(const char *what)
{
	fprintf(stderr, "publisher_rate: %s\n", what);
	exit(1);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static EoBytes
span(const char *text)
{
	EoBytes		bytes = {text, strlen(text)};

	return bytes;
}

static int
start(const char *executable, pid_t *pid)
{
	int			fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		die("socketpair failed");
	*pid = fork();
	if (*pid == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], 0);
		execl(executable, executable, (char *) NULL);
		_exit(127);
	}
	close(fds[1]);
	return fds[0];
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
	config.identity = span("bench/1");
	config.source = span("/bench");
	config.server_options.count = (uint32_t) count;
	config.server_options.items = items;
	eo_encode_config(&w, &config);
	if (w.len > w.cap || send(fd, data, w.len, 0) != (ssize_t) w.len)
		die("cannot send the configuration");
}

/* Takes what has come; returns the last ACK, or -1 at the end of file. */
static int64_t
receive(int fd, int64_t acked, int flags, bool *ready)
{
	static char data[65536];
	static size_t used;
	ssize_t		n = recv(fd, data + used, sizeof(data) - used, flags);
	size_t		at = 0;
	EoFrame		frame;

	if (n < 0 && errno == EAGAIN)
		return acked;
	if (n <= 0)
		return -1;
	used += (size_t) n;
	while (eo_frame_parse(data + at, used - at, &frame) == EO_FRAME_READY)
	{
		int64_t		seq;
		EoNackMessage nack;

		if (frame.type == EO_MSG_READY)
			*ready = true;
		if (frame.type == EO_MSG_ACK && eo_decode_number(frame.body, &seq))
		{
			if (seq <= acked)
				die("an acknowledgement went backwards");
			acked = seq;
		}
		if (frame.type == EO_MSG_NACK && eo_decode_nack(frame.body, &nack))
		{
			fprintf(stderr, "%.*s\n", (int) nack.reason.len, nack.reason.data);
			die("an event was refused");
		}
		at += frame.size;
	}
	memmove(data, data + at, used - at);
	used -= at;
	return acked;
}

static void
put_event(EoWriter *w, int64_t seq, const char *payload)
{
	EoEventMessage event = {.flags = EO_EVENT_JSON};

	event.seq = seq;
	event.position = seq;
	event.time = INT64_C(1790000000000000) + seq;
	event.event_id = "0123456789abcdef";
	event.topic = span("orders");
	event.key = span("customer-4711");
	event.type = span("order.created");
	event.content_type = span("application/json");
	event.payload = span(payload);
	eo_encode_event(w, &event);
}

/* Feeds all events and waits for the last ACK. */
static void
run(int fd, int64_t events, const char *payload)
{
	char	   *out = malloc(OUT_SIZE);
	EoWriter	w = {out, OUT_SIZE, 0};
	size_t		sent = 0;
	int64_t		next = 1;
	int64_t		acked = 0;
	bool		ready = true;

	if (out == NULL)
		die("out of memory");
	while (acked >= 0 && acked < events)
	{
		struct pollfd pfd = {fd, POLLIN, 0};

		if (sent == w.len)
		{
			sent = w.len = 0;
			while (next <= events && next - acked <= WINDOW &&
				   OUT_SIZE - w.len > strlen(payload) + 512)
				put_event(&w, next++, payload);
		}
		if (sent < w.len)
			pfd.events |= POLLOUT;
		poll(&pfd, 1, -1);
		if (pfd.revents & POLLOUT)
		{
			ssize_t		n = send(fd, out + sent, w.len - sent,
								 MSG_DONTWAIT | MSG_NOSIGNAL);

			sent += n > 0 ? (size_t) n : 0;
		}
		if (pfd.revents & (POLLIN | POLLHUP))
			acked = receive(fd, acked, MSG_DONTWAIT, &ready);
	}
	if (acked != events)
		die("the publisher ended before the last acknowledgement");
	free(out);
}

int
main(int argc, char **argv)
{
	int64_t		events;
	size_t		size;
	char	   *payload;
	bool		ready = false;
	double		begun;
	double		seconds;
	pid_t		pid;
	int			status;
	int			fd;

	if (argc < 4 || argc - 4 > MAX_OPTIONS)
		die("usage: publisher_rate EXECUTABLE EVENTS PAYLOAD_BYTES [name=value ...]");
	events = atoll(argv[2]);
	size = (size_t) atoll(argv[3]);
	if (events < 1 || size < 2 || size > OUT_SIZE / 2)
		die("impossible numbers");
	payload = malloc(size + 1);
	if (payload == NULL)
		die("out of memory");
	memset(payload, 'x', size);
	payload[0] = payload[size - 1] = '"';
	payload[size] = '\0';

	fd = start(argv[1], &pid);
	send_config(fd, argc - 4, argv + 4);
	while (!ready)
	{
		if (receive(fd, 0, 0, &ready) < 0)
			die("the publisher ended before it was ready");
	}
	begun = now();
	run(fd, events, payload);
	seconds = now() - begun;
	free(payload);
	close(fd);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("the publisher did not end with status 0");
	printf("%lld events of %zu bytes in %.3f s: %.0f events/s\n",
		   (long long) events, size, seconds, (double) events / seconds);
	return 0;
}
