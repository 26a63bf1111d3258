/*
 * channel.h
 *
 * The relay's end of the socket to a publisher: buffers, non-blocking input and
 * output, frames.
 *
 * Nothing here ever waits.  Output that the publisher does not take stays in
 * the buffer; who fills it looks at eo_channel_pending() first.
 */
#ifndef EO_CHANNEL_H
#define EO_CHANNEL_H

#include "utils/palloc.h"
#include "wire/frame.h"

/* A publisher has nothing to say that is longer; see wire/PROTOCOL.md. */
#define EO_CHANNEL_INPUT_LIMIT	((size_t) 256 * 1024)

typedef struct EoChannelBuffer
{
	char	   *data;
	size_t		size;
	size_t		start;			/* of what is in it */
	size_t		end;
} EoChannelBuffer;

typedef struct EoChannel
{
	pgsocket	sock;			/* PGINVALID_SOCKET: closed */
	MemoryContext context;		/* of the buffers */
	EoChannelBuffer in;
	EoChannelBuffer out;
} EoChannel;

typedef enum EoChannelStatus
{
	EO_CHANNEL_DATA,			/* some came; there may be more */
	EO_CHANNEL_DRY,				/* nothing more for now */
	EO_CHANNEL_CLOSED			/* the other end is gone */
} EoChannelStatus;

/* Takes over a connected non-blocking socket. */
extern void eo_channel_open(EoChannel *channel, MemoryContext context, pgsocket sock);

/* Closes the socket and frees the buffers; may be called twice. */
extern void eo_channel_close(EoChannel *channel);

/*
 * A writer for at least `size` bytes at the end of the output.  What the writer
 * got is queued by eo_channel_commit(); if it overflowed, nothing is, false is
 * returned, and the caller reserves writer->len and encodes again.
 */
extern EoWriter eo_channel_reserve(EoChannel *channel, size_t size);
extern bool eo_channel_commit(EoChannel *channel, const EoWriter *writer);

extern size_t eo_channel_pending(const EoChannel *channel);

/*
 * Sends what the socket takes.  If the other end is gone it drops the output:
 * the end of the input will tell.
 */
extern void eo_channel_send(EoChannel *channel);

/* Reads once. */
extern EoChannelStatus eo_channel_receive(EoChannel *channel);

/*
 * Looks at the first frame of the input; INVALID also if it is too long to come
 * from a publisher.  Its body is good until eo_channel_consume().
 */
extern EoFrameStatus eo_channel_peek(const EoChannel *channel, EoFrame *frame);
extern void eo_channel_consume(EoChannel *channel, const EoFrame *frame);

#endif							/* EO_CHANNEL_H */
