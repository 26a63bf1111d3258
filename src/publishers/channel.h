/*
 * channel.h
 *
 * The publisher's end of the socket to the relay: one buffer for each
 * direction, no call that blocks unless its name says so.
 */
#ifndef EO_CHANNEL_H
#define EO_CHANNEL_H

#include "wire/frame.h"

typedef enum ChannelStatus
{
	CHANNEL_OK,
	CHANNEL_DRY,				/* nothing more to read, or no room to write */
	CHANNEL_EOF					/* the relay has gone */
} ChannelStatus;

typedef struct ChannelBuffer
{
	char	   *data;
	size_t		cap;
	size_t		start;			/* first byte in use */
	size_t		end;			/* first byte not in use */
} ChannelBuffer;

typedef struct Channel
{
	int			fd;
	ChannelBuffer in;
	ChannelBuffer out;
} Channel;

extern void channel_init(Channel *ch, int fd);

/* Reads once; makes room first, for the frame at the front as a whole. */
extern ChannelStatus channel_receive(Channel *ch);

/* The frame at the front; channel_consume() drops it. */
extern EoFrameStatus channel_peek(const Channel *ch, EoFrame *frame);
extern void channel_consume(Channel *ch, const EoFrame *frame);

/* Overwrites a frame that was peeked at: it held secrets. */
extern void channel_wipe(const EoFrame *frame);

/*
 * A writer with room for `size` bytes at the end of the output, to be handed
 * to channel_commit() once a frame is in it.
 */
extern EoWriter channel_reserve(Channel *ch, size_t size);
extern void channel_commit(Channel *ch, const EoWriter *w);

/* How many bytes wait to be sent. */
extern size_t channel_pending(const Channel *ch);

/* Sends what the socket takes now; CHANNEL_DRY if something is left. */
extern ChannelStatus channel_send(Channel *ch);

/* Sends everything, for at most `ms`. */
extern ChannelStatus channel_send_blocking(Channel *ch, int ms);

#endif							/* EO_CHANNEL_H */
