/*
 * channel.c
 *
 * The relay's end of the socket to a publisher.
 */
#include "postgres.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/channel.h"
#include "utils/memutils.h"

/* What a buffer starts with, and shrinks to when a large event has passed. */
#define BUFFER_SIZE		((size_t) 64 * 1024)
#define BUFFER_KEEP		((size_t) 2 * 1024 * 1024)

void
eo_channel_open(EoChannel *channel, MemoryContext context, pgsocket sock)
{
	memset(channel, 0, sizeof(*channel));
	channel->sock = sock;
	channel->context = context;
}

static void
buffer_free(EoChannelBuffer *buffer)
{
	if (buffer->data != NULL)
		pfree(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}

void
eo_channel_close(EoChannel *channel)
{
	if (channel->sock == PGINVALID_SOCKET)
		return;
	closesocket(channel->sock);
	channel->sock = PGINVALID_SOCKET;
	buffer_free(&channel->in);
	buffer_free(&channel->out);
}

/* Makes room for `more` bytes at the end. */
static void
buffer_reserve(EoChannel *channel, EoChannelBuffer *buffer, size_t more)
{
	size_t		used = buffer->end - buffer->start;
	size_t		size;
	char	   *data;

	if (buffer->data != NULL && buffer->size - buffer->end >= more)
		return;
	if (buffer->data != NULL && buffer->size - used >= more && used <= buffer->size / 2)
	{
		memmove(buffer->data, buffer->data + buffer->start, used);
		buffer->start = 0;
		buffer->end = used;
		return;
	}

	size = Max(buffer->size, BUFFER_SIZE);
	while (size < used + more)
		size *= 2;
	data = MemoryContextAllocHuge(channel->context, size);
	if (buffer->data != NULL)
	{
		memcpy(data, buffer->data + buffer->start, used);
		pfree(buffer->data);
	}
	buffer->data = data;
	buffer->size = size;
	buffer->start = 0;
	buffer->end = used;
}

/* Drops `n` bytes from the front. */
static void
buffer_drop(EoChannelBuffer *buffer, size_t n)
{
	buffer->start += n;
	if (buffer->start < buffer->end)
		return;
	buffer->start = buffer->end = 0;
	if (buffer->size > BUFFER_KEEP)
		buffer_free(buffer);
}

EoWriter
eo_channel_reserve(EoChannel *channel, size_t size)
{
	EoWriter	writer = {0};

	buffer_reserve(channel, &channel->out, size);
	writer.data = channel->out.data + channel->out.end;
	writer.cap = channel->out.size - channel->out.end;
	return writer;
}

bool
eo_channel_commit(EoChannel *channel, const EoWriter *writer)
{
	if (writer->len > writer->cap)
		return false;
	channel->out.end += writer->len;
	return true;
}

size_t
eo_channel_pending(const EoChannel *channel)
{
	return channel->out.end - channel->out.start;
}

void
eo_channel_send(EoChannel *channel)
{
	EoChannelBuffer *out = &channel->out;

	while (out->start < out->end)
	{
		ssize_t		n = send(channel->sock, out->data + out->start,
							 out->end - out->start, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n < 0)
		{
			/* Nobody reads any more; do not wait for room. */
			buffer_drop(out, out->end - out->start);
			return;
		}
		buffer_drop(out, (size_t) n);
	}
}

EoChannelStatus
eo_channel_receive(EoChannel *channel)
{
	EoChannelBuffer *in = &channel->in;
	ssize_t		n;

	buffer_reserve(channel, in, BUFFER_SIZE / 2);
	do
	{
		n = recv(channel->sock, in->data + in->end, in->size - in->end, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return EO_CHANNEL_DRY;
	if (n <= 0)
		return EO_CHANNEL_CLOSED;
	in->end += (size_t) n;
	return EO_CHANNEL_DATA;
}

EoFrameStatus
eo_channel_peek(const EoChannel *channel, EoFrame *frame)
{
	size_t		len = channel->in.end - channel->in.start;
	EoFrameStatus status;

	if (len == 0)
		return EO_FRAME_INCOMPLETE;
	status = eo_frame_parse(channel->in.data + channel->in.start, len, frame);
	if (status == EO_FRAME_INCOMPLETE && len >= EO_CHANNEL_INPUT_LIMIT)
		return EO_FRAME_INVALID;
	return status;
}

void
eo_channel_consume(EoChannel *channel, const EoFrame *frame)
{
	buffer_drop(&channel->in, frame->size);
}
