/*
 * harness.c
 *
 * The main loop that all publishers share; publisher.h has the model.
 *
 * One turn of the loop reads what the relay has sent until the socket is dry
 * (or a few megabytes have come, so that acknowledgements keep flowing), hands
 * the events over, lets the broker file work, reports, and waits in poll(2)
 * for the socket, the broker file's descriptor or its time limit, whichever it
 * has.  With nothing to do it waits without limit: an idle publisher costs
 * nothing.
 *
 * Neither direction ever waits for the other.  Output that the relay does not
 * take yet stays in a buffer, and there is little of it: an ACK is written only
 * when everything before it has gone, so one ACK stands for all that was
 * settled meanwhile; NACKs are bounded by the relay's window; log lines are
 * dropped while the buffer is too full.
 *
 * A publisher that cannot go on says why and exits.  The relay starts another
 * one, which learns from the broker or from the relay where to continue.
 */
#define _GNU_SOURCE
#include "publishers/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "publishers/channel.h"
#include "publishers/points.h"
#include "publishers/ring.h"

/* How much is read in one turn before the broker file gets its turn. */
#define BURST_BYTES			((size_t) 4 * 1024 * 1024)

/* Log lines are dropped while more output than this waits. */
#define LOG_OUTPUT_LIMIT	((size_t) 512 * 1024)

/* How long an ending publisher tries to get its last words out. */
#define LAST_WORDS_MS		5000

/* How long to wait for a busy broker file that names no better moment. */
#define BUSY_RETRY_MS		10

#define STAT_INTERVAL_MS	1000

typedef struct Harness
{
	Publisher	pub;			/* must be first */
	Channel		channel;
	Ring		ring;
	bool		configured;		/* CONFIG came and open() returned */
	bool		busy;			/* the frame at the front waits for room */
	bool		knows_position;
	int64_t		position;
	int64_t		last_seq;		/* of events without RETRY */
	int64_t		acked_seq;		/* in the last ACK */
	EoStatMessage stat;
	EoStatMessage stat_sent;
	int64_t		stat_time;
	unsigned	dropped_logs;
} Harness;

/*----------
 * Endings
 *----------
 */

static void leave(Harness *h) __attribute__((noreturn));
static void protocol_error(Harness *h, const char *fmt,...)
			__attribute__((format(printf, 2, 3), noreturn));

static void
leave(Harness *h)
{
	if (h->configured && h->pub.ops->close)
		h->pub.ops->close(&h->pub);
	exit(0);
}

static void
protocol_error(Harness *h, const char *fmt,...)
{
	va_list		args;
	char		text[512];

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "eo-publish-%s: protocol error: %s\n", h->pub.ops->kind, text);
	exit(1);
}

/*----------
 * Output
 *----------
 */

static void
send_number(Harness *h, EoMessageType type, int64_t number)
{
	EoWriter	w = channel_reserve(&h->channel, 32);

	eo_encode_number(&w, type, number);
	channel_commit(&h->channel, &w);
}

static void
send_nack(Harness *h, int64_t seq, bool permanent, const char *reason)
{
	EoNackMessage m = {seq, permanent, {reason, strlen(reason)}};
	EoWriter	w = channel_reserve(&h->channel, m.reason.len + 64);

	eo_encode_nack(&w, &m);
	channel_commit(&h->channel, &w);
}

static void
send_ready(Harness *h)
{
	EoReadyMessage m = {EO_PROTOCOL_VERSION, h->knows_position, h->position};
	EoWriter	w = channel_reserve(&h->channel, 64);

	eo_encode_ready(&w, &m);
	channel_commit(&h->channel, &w);
}

static void
send_ack(Harness *h)
{
	ring_trim(&h->ring);
	if (h->ring.done_seq <= h->acked_seq)
		return;
	PUBLISHER_POINT(&h->pub, harness_ack);
	h->acked_seq = h->ring.done_seq;
	send_number(h, EO_MSG_ACK, h->acked_seq);
}

/* Counters, if they changed; while events flow, once a second at most. */
static void
send_stat(Harness *h, bool at_once)
{
	struct timespec ts;
	int64_t		now;
	EoWriter	w;

	if (h->stat.events == h->stat_sent.events &&
		h->stat.retries == h->stat_sent.retries)
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	now = (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	if (now - h->stat_time < STAT_INTERVAL_MS && !at_once)
		return;

	w = channel_reserve(&h->channel, 64);
	eo_encode_stat(&w, &h->stat);
	channel_commit(&h->channel, &w);
	h->stat_sent = h->stat;
	h->stat_time = now;
}

/* Sends what can be sent, and an ACK behind it if all of that has gone. */
static void
report(Harness *h)
{
	if (channel_send(&h->channel) == CHANNEL_EOF)
		leave(h);
	if (channel_pending(&h->channel) > 0)
		return;
	send_ack(h);
	send_stat(h, false);
	if (channel_send(&h->channel) == CHANNEL_EOF)
		leave(h);
}

/*----------
 * What broker files call
 *----------
 */

void
publisher_position(Publisher *pub, int64_t last_seq)
{
	Harness    *h = (Harness *) pub;

	h->knows_position = true;
	h->position = last_seq;
}

static void
settle_entry(Harness *h, RingEntry *entry, SettleOutcome outcome,
			 const char *reason)
{
	ring_settle(&h->ring, entry);
	if (outcome == SETTLE_REFUSED)
	{
		/* Goes out before any ACK that covers the event. */
		send_nack(h, entry->seq, true, reason ? reason : "refused");
		return;
	}
	h->stat.events++;
	h->stat.bytes += entry->bytes;
	if (entry->retry)
		send_number(h, EO_MSG_RETRIED, entry->seq);
}

void
publisher_settle(Publisher *pub, uint64_t token, SettleOutcome outcome,
				 const char *reason)
{
	Harness    *h = (Harness *) pub;
	RingEntry  *entry = ring_find(&h->ring, token);

	if (entry == NULL)
		publisher_fail(pub, "internal error: event %llu was settled twice or never taken",
					   (unsigned long long) token);
	settle_entry(h, entry, outcome, reason);
	ring_trim(&h->ring);
}

void
publisher_settle_through(Publisher *pub, uint64_t through)
{
	Harness    *h = (Harness *) pub;

	for (uint64_t token = h->ring.head; token <= through && token < h->ring.tail; token++)
	{
		RingEntry  *entry = ring_find(&h->ring, token);

		if (entry)
			settle_entry(h, entry, SETTLE_DURABLE, NULL);
	}
	ring_trim(&h->ring);
}

size_t
publisher_unsettled(Publisher *pub)
{
	return ((Harness *) pub)->ring.unsettled;
}

void
publisher_count_retries(Publisher *pub, int64_t more)
{
	((Harness *) pub)->stat.retries += more;
}

static void
send_log(Harness *h, EoLogLevel level, const char *text)
{
	EoLogMessage m = {level, {text, strlen(text)}};
	EoWriter	w = channel_reserve(&h->channel, m.text.len + 64);

	eo_encode_log(&w, &m);
	channel_commit(&h->channel, &w);

	/* open() may take long, and the loop that sends is not running yet. */
	if (!h->configured)
		channel_send(&h->channel);
}

void
publisher_log(Publisher *pub, EoLogLevel level, const char *fmt,...)
{
	Harness    *h = (Harness *) pub;
	va_list		args;
	char		text[2048];

	if (channel_pending(&h->channel) > LOG_OUTPUT_LIMIT)
	{
		h->dropped_logs++;
		return;
	}
	if (h->dropped_logs > 0)
	{
		snprintf(text, sizeof(text), "%u log lines were dropped", h->dropped_logs);
		h->dropped_logs = 0;
		send_log(h, EO_LOG_WARNING, text);
	}
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	send_log(h, level, text);
}

void
publisher_fail(Publisher *pub, const char *fmt,...)
{
	Harness    *h = (Harness *) pub;
	int64_t		seq = 0;
	va_list		args;
	char		text[2048];

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);

	send_ack(h);				/* what is durable need not come again */
	if (h->ring.head < h->ring.tail)
		seq = h->ring.entries[h->ring.head & (h->ring.capacity - 1)].seq;
	send_nack(h, seq, false, text);
	if (channel_send_blocking(&h->channel, LAST_WORDS_MS) != CHANNEL_OK)
		fprintf(stderr, "eo-publish-%s: %s\n", pub->ops->kind, text);
	exit(1);
}

void
harness_send_raw(Publisher *pub, const void *data, size_t len)
{
	Harness    *h = (Harness *) pub;
	EoWriter	w = channel_reserve(&h->channel, len);

	eo_put_raw(&w, data, len);
	channel_commit(&h->channel, &w);
}

void
harness_send_now(Publisher *pub)
{
	Harness    *h = (Harness *) pub;

	send_ack(h);
	channel_send_blocking(&h->channel, LAST_WORDS_MS);
}

/*----------
 * Input
 *----------
 */

static void
handle_config(Harness *h, const EoFrame *frame)
{
	EoConfigMessage config;

	if (h->configured)
		protocol_error(h, "a second configuration");
	if (!eo_decode_config(frame->body, &config))
		protocol_error(h, "malformed configuration");
	if (config.version != EO_PROTOCOL_VERSION)
		protocol_error(h, "the relay speaks version %u, this publisher %u",
					   config.version, EO_PROTOCOL_VERSION);
	h->pub.ops->open(&h->pub, &config);
	channel_wipe(frame);
	h->configured = true;
	send_ready(h);
}

/* Returns false if the event has to wait. */
static bool
handle_event(Harness *h, const EoFrame *frame)
{
	EoEventMessage event;
	bool		retry;
	uint64_t	token;

	if (!eo_decode_event(frame->body, &event))
		protocol_error(h, "malformed event");
	retry = (event.flags & EO_EVENT_RETRY) != 0;
	if (!retry && event.seq <= h->last_seq)
		protocol_error(h, "event %lld came after event %lld",
					   (long long) event.seq, (long long) h->last_seq);

	/* publish() may settle the event right away, so it is in the ring first. */
	token = ring_push(&h->ring, event.seq, (uint32_t) event.payload.len, retry);
	if (h->pub.ops->publish(&h->pub, &event, token) == PUBLISH_BUSY)
	{
		ring_unpush(&h->ring);
		return false;
	}
	if (!retry)
		h->last_seq = event.seq;
	return true;
}

static void
handle_stop(Harness *h)
{
	h->pub.ops->flush(&h->pub);
	send_ack(h);
	send_stat(h, true);
	channel_send_blocking(&h->channel, LAST_WORDS_MS);
	leave(h);
}

/* Returns false if the frame has to wait. */
static bool
handle_frame(Harness *h, const EoFrame *frame)
{
	int64_t		token;

	if (!h->configured && frame->type != EO_MSG_CONFIG)
		protocol_error(h, "message of type 0x%02x before the configuration",
					   frame->type);
	switch (frame->type)
	{
		case EO_MSG_EVENT:
			return handle_event(h, frame);

		case EO_MSG_CONFIG:
			handle_config(h, frame);
			break;

		case EO_MSG_PING:
			if (!eo_decode_number(frame->body, &token))
				protocol_error(h, "malformed ping");
			send_number(h, EO_MSG_PONG, token);
			break;

		case EO_MSG_FLUSH:
		case EO_MSG_STOP:
			if (frame->body.len != 0)
				protocol_error(h, "message of type 0x%02x with a body", frame->type);
			if (frame->type == EO_MSG_STOP)
				handle_stop(h);
			h->pub.ops->flush(&h->pub);
			break;

		default:
			protocol_error(h, "message of unknown type 0x%02x", frame->type);
	}
	return true;
}

/* Handles the frames that have come; stops where the broker file is busy. */
static void
handle_frames(Harness *h)
{
	EoFrame		frame;

	for (;;)
	{
		EoFrameStatus status = channel_peek(&h->channel, &frame);

		if (status == EO_FRAME_INVALID)
			protocol_error(h, "impossible frame length");
		h->busy = status == EO_FRAME_READY && !handle_frame(h, &frame);
		if (status == EO_FRAME_INCOMPLETE || h->busy)
			return;
		channel_consume(&h->channel, &frame);
	}
}

static void
read_burst(Harness *h)
{
	size_t		taken = 0;

	handle_frames(h);
	while (!h->busy && taken < BURST_BYTES)
	{
		size_t		before = h->channel.in.end - h->channel.in.start;
		ChannelStatus status = channel_receive(&h->channel);

		if (status == CHANNEL_EOF)
			leave(h);
		if (status == CHANNEL_DRY)
			return;
		taken += h->channel.in.end - h->channel.in.start - before;
		handle_frames(h);
	}
}

static void
wait_for_work(Harness *h)
{
	const PublisherOps *ops = h->pub.ops;
	struct pollfd fds[2] = {{-1, 0, 0}, {-1, POLLIN, 0}};
	int			timeout = ops->poll_ms > 0 ? ops->poll_ms : -1;

	fds[0].fd = h->channel.fd;
	fds[0].events = h->busy ? 0 : POLLIN;
	if (channel_pending(&h->channel) > 0)
		fds[0].events |= POLLOUT;
	if (h->configured && ops->poll_fd)
		fds[1].fd = ops->poll_fd(&h->pub);
	if (h->busy && timeout < 0 && fds[1].fd < 0)
		timeout = BUSY_RETRY_MS;

	if (poll(fds, 2, timeout) < 0 && errno != EINTR)
		protocol_error(h, "cannot wait: %s", strerror(errno));

	/* Reading tells the end of file; a busy publisher does not read. */
	if (h->busy && (fds[0].revents & (POLLHUP | POLLERR)))
		leave(h);
}

int
publisher_main(const PublisherOps *ops)
{
	static Harness harness;
	Harness    *h = &harness;

	/* A gone peer or a full disk is an error to handle, not a way to die. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	h->pub.ops = ops;
	channel_init(&h->channel, STDIN_FILENO);
	ring_init(&h->ring);

	for (;;)
	{
		size_t		unsettled;

		read_burst(h);
		unsettled = h->ring.unsettled;
		if (h->configured && ops->poll)
			ops->poll(&h->pub);
		report(h);
		if (!h->busy || h->ring.unsettled >= unsettled)
			wait_for_work(h);
	}
}
