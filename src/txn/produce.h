/*
 * produce.h
 *
 * Checks an event and completes it.
 */
#ifndef EO_PRODUCE_H
#define EO_PRODUCE_H

#include "store/event.h"
#include "utils/jsonb.h"

/* Limits, in bytes.  Kafka's topics end at 249. */
#define EO_TOPIC_MAX		249
#define EO_KEY_MAX			1024
#define EO_TYPE_MAX			255

/* An ERROR if this transaction cannot enqueue. */
extern void eo_produce_check_transaction(void);

/*
 * Checks a short text: not empty, not longer than `limit` bytes, no control
 * characters.  `what` names it in the ERROR.
 */
extern void eo_produce_check_name(const char *what, text *value, int limit);

/*
 * Completes an event, whose topic, key, type and content type the caller has
 * set and checked, and checks its payload or body: sets the headers, which are
 * `headers` or NULL and those that this transaction adds; the time; and the id,
 * a new one without `event_id`.
 */
extern void eo_produce_prepare(EoEvent *event, Jsonb *headers, const pg_uuid_t *event_id);

#endif							/* EO_PRODUCE_H */
