/*
 * frame.h
 *
 * Frames of the protocol between relay and publisher: a length, a type and a
 * body, all integers big-endian.  PROTOCOL.md is the byte table.
 *
 * Plain C, compiled into the PostgreSQL library and into every publisher: no
 * postgres.h, no allocation, no I/O.  Neither end trusts the other's bytes, so
 * a reader never looks beyond the span it was given and remembers its first
 * failure; callers check once, at the end.
 */
#ifndef EO_FRAME_H
#define EO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes before the body: uint32 length (of type and body), uint8 type. */
#define EO_FRAME_HEADER_SIZE	5

/* The largest length a frame may announce; see eo_outbox.max_event_size. */
#define EO_FRAME_MAX_LENGTH		(80u * 1024 * 1024)

/* What a byte span holds when the value is NULL: data is NULL. */
typedef struct EoBytes
{
	const char *data;
	size_t		len;
} EoBytes;

/*
 * Appends to a caller's buffer.  `len` goes on counting past `cap`, so that a
 * first pass with cap 0 tells the size to provide for the second.
 */
typedef struct EoWriter
{
	char	   *data;
	size_t		cap;
	size_t		len;
} EoWriter;

/* Reads a span from front to back. */
typedef struct EoReader
{
	const char *data;
	size_t		len;
	size_t		pos;
	bool		failed;
} EoReader;

typedef enum EoFrameStatus
{
	EO_FRAME_READY,				/* a whole frame stands at the front */
	EO_FRAME_INCOMPLETE,		/* more bytes are needed */
	EO_FRAME_INVALID			/* the length is 0 or over the limit */
} EoFrameStatus;

typedef struct EoFrame
{
	uint8_t		type;
	EoBytes		body;
	size_t		size;			/* bytes that the whole frame takes */
} EoFrame;

/* Looks at the front of a receive buffer; a READY frame points into it. */
extern EoFrameStatus eo_frame_parse(const char *data, size_t len, EoFrame *frame);

/* Starts a frame, and patches its length once the body has been written. */
extern size_t eo_frame_begin(EoWriter *w, uint8_t type);
extern void eo_frame_end(EoWriter *w, size_t start);

extern void eo_put_u8(EoWriter *w, uint8_t value);
extern void eo_put_u32(EoWriter *w, uint32_t value);
extern void eo_put_i64(EoWriter *w, int64_t value);
extern void eo_put_raw(EoWriter *w, const void *data, size_t len);
/* uint32 length, then the bytes; NULL is written as length 0xFFFFFFFF */
extern void eo_put_bytes(EoWriter *w, EoBytes value);

extern uint8_t eo_get_u8(EoReader *r);
extern uint32_t eo_get_u32(EoReader *r);
extern int64_t eo_get_i64(EoReader *r);
extern const char *eo_get_raw(EoReader *r, size_t len);
extern EoBytes eo_get_bytes(EoReader *r);

#endif							/* EO_FRAME_H */
