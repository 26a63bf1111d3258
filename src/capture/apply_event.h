/*
 * apply_event.h
 *
 * Reads the event of a change.
 */
#ifndef EO_CAPTURE_APPLY_EVENT_H
#define EO_CAPTURE_APPLY_EVENT_H

#include "capture/spec.h"
#include "compat.h"
#include "utils/jsonb.h"

typedef struct EoChange
{
	int64		seq;
	EoCaptureOp op;
	text	   *key;			/* or NULL */
	Jsonb	   *payload;		/* an object; NULL: a tombstone, or truncated */
} EoChange;

/*
 * Reads an event as to_jsonb() gives a row of eo.event, or as the publishers
 * write it, in CloudEvents' JSON.  An ERROR if it is not a change in the plain
 * format.
 */
extern void eo_change_read(EoChange *change, Jsonb *event);

/*
 * The ERROR for a payload without a column of the key, which tells what the
 * event may be instead.
 */
EO_NORETURN extern void eo_change_refuse_keyless(const EoChange *change, const char *column);

/* An ERROR if the payload, whose key is an object, is that of a delta. */
extern void eo_change_refuse_delta(const EoChange *change);

#endif							/* EO_CAPTURE_APPLY_EVENT_H */
