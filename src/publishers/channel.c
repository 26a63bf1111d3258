/*
 * channel.c
 *
 * The publisher's end of the socket to the relay.
 *
 * Input is read in large pieces and frames are handed out where they lie, so a
 * small event is never copied on its way in.  What is left of an unfinished
 * frame moves to the front only when the space behind it runs short, so that
 * each byte moves at most a few times however the pieces fall.
 *
 * Calls use MSG_DONTWAIT instead of O_NONBLOCK: descriptor 0 may be shared with
 * descriptors 1 and 2, whose writers do not expect EAGAIN.
 */
#define _GNU_SOURCE
#include "publishers/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* A buffer's usual size; larger ones are given back once they are empty. */
#define BUFFER_SIZE		(1024 * 1024)

/* Below this much free space, reading is not worth a system call. */
#define READ_MIN		(BUFFER_SIZE / 4)

static char *
allocate(size_t size)
{
	char	   *data = malloc(size);

	if (data == NULL)
	{
		fprintf(stderr, "out of memory: cannot allocate %zu bytes\n", size);
		exit(1);
	}
	return data;
}

static void
buffer_init(ChannelBuffer *b)
{
	b->data = allocate(BUFFER_SIZE);
	b->cap = BUFFER_SIZE;
	b->start = 0;
	b->end = 0;
}

/* Moves the content to the front of a buffer of another size. */
static void
buffer_resize(ChannelBuffer *b, size_t cap)
{
	char	   *data = allocate(cap);
	size_t		used = b->end - b->start;

	memcpy(data, b->data + b->start, used);
	/* It may have held the frame with the secrets. */
	explicit_bzero(b->data, b->end);
	free(b->data);
	b->data = data;
	b->cap = cap;
	b->start = 0;
	b->end = used;
}

/* Makes `room` bytes free behind the content. */
static void
buffer_make_room(ChannelBuffer *b, size_t room)
{
	size_t		used = b->end - b->start;

	if (used == 0)
	{
		b->start = b->end = 0;
		if (b->cap > BUFFER_SIZE && room <= BUFFER_SIZE)
			buffer_resize(b, BUFFER_SIZE);
	}
	if (b->cap - b->end >= room)
		return;

	if (b->cap - used >= room)
	{
		memmove(b->data, b->data + b->start, used);
		b->start = 0;
		b->end = used;
	}
	else
		buffer_resize(b, used + room > 2 * b->cap ? used + room : 2 * b->cap);
}

void
channel_init(Channel *ch, int fd)
{
	ch->fd = fd;
	buffer_init(&ch->in);
	buffer_init(&ch->out);
}

/* How many bytes the unfinished frame at the front still lacks, if known. */
static size_t
missing_bytes(const ChannelBuffer *b)
{
	EoReader	r = {b->data + b->start, b->end - b->start, 0, false};
	size_t		size = (size_t) eo_get_u32(&r) + 4;

	if (r.failed || size > (size_t) EO_FRAME_MAX_LENGTH + 4 || size <= r.len)
		return 0;
	return size - r.len;
}

ChannelStatus
channel_receive(Channel *ch)
{
	ChannelBuffer *b = &ch->in;
	size_t		room = missing_bytes(b);
	ssize_t		n;

	buffer_make_room(b, room > READ_MIN ? room : READ_MIN);
	do
		n = recv(ch->fd, b->data + b->end, b->cap - b->end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);

	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return CHANNEL_DRY;
	if (n <= 0)
		return CHANNEL_EOF;
	b->end += (size_t) n;
	return CHANNEL_OK;
}

EoFrameStatus
channel_peek(const Channel *ch, EoFrame *frame)
{
	return eo_frame_parse(ch->in.data + ch->in.start,
						  ch->in.end - ch->in.start, frame);
}

void
channel_consume(Channel *ch, const EoFrame *frame)
{
	ch->in.start += frame->size;
}

void
channel_wipe(const EoFrame *frame)
{
	/* The frame lies in our own buffer, so writing to it is fine. */
	explicit_bzero((char *) (uintptr_t) frame->body.data, frame->body.len);
}

EoWriter
channel_reserve(Channel *ch, size_t size)
{
	EoWriter	w = {NULL, 0, 0};

	buffer_make_room(&ch->out, size);
	w.data = ch->out.data + ch->out.end;
	w.cap = ch->out.cap - ch->out.end;
	return w;
}

void
channel_commit(Channel *ch, const EoWriter *w)
{
	if (w->len > w->cap)
	{
		fprintf(stderr, "internal error: reserved %zu bytes for a frame of %zu\n",
				w->cap, w->len);
		abort();
	}
	ch->out.end += w->len;
}

size_t
channel_pending(const Channel *ch)
{
	return ch->out.end - ch->out.start;
}

ChannelStatus
channel_send(Channel *ch)
{
	ChannelBuffer *b = &ch->out;

	while (b->start < b->end)
	{
		ssize_t		n = send(ch->fd, b->data + b->start, b->end - b->start,
							 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return CHANNEL_DRY;
		if (n < 0)
			return CHANNEL_EOF;
		b->start += (size_t) n;
	}
	buffer_make_room(b, 0);
	return CHANNEL_OK;
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

ChannelStatus
channel_send_blocking(Channel *ch, int ms)
{
	int64_t		deadline = now_ms() + ms;

	for (;;)
	{
		ChannelStatus status = channel_send(ch);
		struct pollfd pfd = {ch->fd, POLLOUT, 0};
		int64_t		left = deadline - now_ms();

		if (status != CHANNEL_DRY || left <= 0)
			return status;
		if (poll(&pfd, 1, (int) left) > 0 && (pfd.revents & (POLLHUP | POLLERR)))
			return CHANNEL_EOF;
	}
}
