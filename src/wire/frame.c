/*
 * frame.c
 *
 * Frames of the protocol between relay and publisher; frame.h has the model.
 *
 * Numbers are put together from single bytes, so neither the byte order nor
 * the alignment of a buffer matters.  Compilers turn that into one load and
 * one swap.
 */
#include "wire/frame.h"

#include <string.h>

/* Stands for NULL where a length is expected. */
#define NULL_LENGTH		UINT32_MAX

static inline uint32_t
load_u32(const char *p)
{
	const unsigned char *u = (const unsigned char *) p;

	return ((uint32_t) u[0] << 24) | ((uint32_t) u[1] << 16) |
		((uint32_t) u[2] << 8) | (uint32_t) u[3];
}

static inline void
store_u32(char *p, uint32_t value)
{
	p[0] = (char) (value >> 24);
	p[1] = (char) (value >> 16);
	p[2] = (char) (value >> 8);
	p[3] = (char) value;
}

EoFrameStatus
eo_frame_parse(const char *data, size_t len, EoFrame *frame)
{
	uint32_t	announced;

	if (len < 4)
		return EO_FRAME_INCOMPLETE;

	/* A bad length is told at once, not after waiting for its bytes. */
	announced = load_u32(data);
	if (announced == 0 || announced > EO_FRAME_MAX_LENGTH)
		return EO_FRAME_INVALID;
	if (len - 4 < announced)
		return EO_FRAME_INCOMPLETE;

	frame->type = (uint8_t) data[4];
	frame->body.data = data + EO_FRAME_HEADER_SIZE;
	frame->body.len = announced - 1;
	frame->size = (size_t) announced + 4;
	return EO_FRAME_READY;
}

/*
 * Room for `len` more bytes, or NULL if the buffer is too small.  Counts them
 * either way; once something did not fit, nothing fits any more.
 */
static inline char *
claim(EoWriter *w, size_t len)
{
	size_t		at = w->len;

	w->len += len;
	return w->len <= w->cap ? w->data + at : NULL;
}

size_t
eo_frame_begin(EoWriter *w, uint8_t type)
{
	size_t		start = w->len;

	eo_put_u32(w, 0);
	eo_put_u8(w, type);
	return start;
}

void
eo_frame_end(EoWriter *w, size_t start)
{
	if (w->len <= w->cap)
		store_u32(w->data + start, (uint32_t) (w->len - start - 4));
}

void
eo_put_u8(EoWriter *w, uint8_t value)
{
	char	   *p = claim(w, 1);

	if (p)
		*p = (char) value;
}

void
eo_put_u32(EoWriter *w, uint32_t value)
{
	char	   *p = claim(w, 4);

	if (p)
		store_u32(p, value);
}

void
eo_put_i64(EoWriter *w, int64_t value)
{
	char	   *p = claim(w, 8);

	if (p)
	{
		store_u32(p, (uint32_t) ((uint64_t) value >> 32));
		store_u32(p + 4, (uint32_t) (uint64_t) value);
	}
}

void
eo_put_raw(EoWriter *w, const void *data, size_t len)
{
	char	   *p = claim(w, len);

	if (p && len > 0)
		memcpy(p, data, len);
}

void
eo_put_bytes(EoWriter *w, EoBytes value)
{
	if (value.data == NULL)
	{
		eo_put_u32(w, NULL_LENGTH);
		return;
	}
	eo_put_u32(w, (uint32_t) value.len);
	eo_put_raw(w, value.data, value.len);
}

/* The next `len` bytes, or NULL, and the reader has failed for good. */
static inline const char *
take(EoReader *r, size_t len)
{
	const char *p;

	if (r->failed || len > r->len - r->pos)
	{
		r->failed = true;
		return NULL;
	}
	p = r->data + r->pos;
	r->pos += len;
	return p;
}

uint8_t
eo_get_u8(EoReader *r)
{
	const char *p = take(r, 1);

	return p ? (uint8_t) *p : 0;
}

uint32_t
eo_get_u32(EoReader *r)
{
	const char *p = take(r, 4);

	return p ? load_u32(p) : 0;
}

int64_t
eo_get_i64(EoReader *r)
{
	const char *p = take(r, 8);
	uint64_t	value;

	if (p == NULL)
		return 0;
	value = ((uint64_t) load_u32(p) << 32) | load_u32(p + 4);
	return (int64_t) value;
}

const char *
eo_get_raw(EoReader *r, size_t len)
{
	return take(r, len);
}

EoBytes
eo_get_bytes(EoReader *r)
{
	EoBytes		value = {NULL, 0};
	uint32_t	len = eo_get_u32(r);

	if (r->failed || len == NULL_LENGTH)
		return value;
	value.data = take(r, len);
	value.len = value.data ? len : 0;
	return value;
}
