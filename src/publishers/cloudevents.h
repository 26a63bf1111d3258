/*
 * cloudevents.h
 *
 * Events as CloudEvents 1.0: the attributes that the bindings share, and the
 * JSON form (structured mode).
 */
#ifndef EO_CLOUDEVENTS_H
#define EO_CLOUDEVENTS_H

#include "wire/message.h"

/* UUID in its text form, 36 characters and a NUL. */
extern void cloudevents_id(const char *event_id, char out[37]);

/* RFC 3339 with microseconds, in UTC. */
extern void cloudevents_time(int64_t time, char out[36]);

/* Whether the bytes are UTF-8 from front to back. */
extern bool cloudevents_is_utf8(EoBytes text);

/*
 * Where JSON goes: a buffer, and a function that makes room in it by taking
 * its content away (it sets len to 0, or does not return).  So an event may be
 * far larger than the buffer, which must hold 4 kB at least.
 */
typedef struct JsonSink
{
	char	   *data;
	size_t		len;
	size_t		cap;
	void		(*drain) (struct JsonSink *sink);
} JsonSink;

extern void json_put_raw(JsonSink *sink, const char *data, size_t len);

/*
 * The content of a JSON string, without its quotes.  What is not UTF-8 becomes
 * U+FFFD, so that the result is valid whatever the input.
 */
extern void json_put_escaped(JsonSink *sink, EoBytes text);

/*
 * One event as a JSON object without any line break.  It starts with
 * CLOUDEVENTS_JSON_START, the id, CLOUDEVENTS_JSON_SOURCE, the source,
 * CLOUDEVENTS_JSON_SEQUENCE, the sequence, '"', and for a dead letter that was
 * sent again CLOUDEVENTS_JSON_REDELIVERED: enough to find the place where a
 * file ends.
 */
extern void cloudevents_put_json(JsonSink *sink, const EoEventMessage *event,
								 EoBytes escaped_source);

#define CLOUDEVENTS_JSON_START			"{\"specversion\":\"1.0\",\"id\":\""
#define CLOUDEVENTS_JSON_SOURCE			"\",\"source\":\""
#define CLOUDEVENTS_JSON_SEQUENCE		"\",\"sequence\":\""
#define CLOUDEVENTS_JSON_REDELIVERED	",\"redelivered\":true"

#endif							/* EO_CLOUDEVENTS_H */
