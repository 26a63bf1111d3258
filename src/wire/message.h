/*
 * message.h
 *
 * Messages between relay and publisher, each the body of one frame.
 *
 * Encoders append one whole frame to a writer.  Decoders take a frame's body
 * and return false if it is malformed in any way, trailing bytes included;
 * decoded spans point into the body and live as long as it does.
 */
#ifndef EO_MESSAGE_H
#define EO_MESSAGE_H

#include "wire/frame.h"

/* Raised when a change breaks older peers; travels in CONFIG and READY. */
#define EO_PROTOCOL_VERSION		1

#define EO_EVENT_ID_SIZE		16

typedef enum EoMessageType
{
	/* relay to publisher */
	EO_MSG_CONFIG = 'C',
	EO_MSG_EVENT = 'E',
	EO_MSG_FLUSH = 'F',			/* no body: make durable all that was sent */
	EO_MSG_STOP = 'S',			/* no body: flush, then exit 0 */
	EO_MSG_PING = 'P',			/* i64 token */

	/* publisher to relay */
	EO_MSG_READY = 'R',
	EO_MSG_ACK = 'A',			/* i64 seq: all up to it is durable or NACKed */
	EO_MSG_RETRIED = 'T',		/* i64 seq of a RETRY event, now durable */
	EO_MSG_NACK = 'N',
	EO_MSG_PONG = 'O',			/* i64 token */
	EO_MSG_LOG = 'L',
	EO_MSG_STAT = 'I'
} EoMessageType;

/*
 * A list of name and value, kept encoded: decoding checks the whole list once,
 * so that walking it cannot fail.  To encode one, fill an EoPair array.
 */
typedef struct EoPair
{
	EoBytes		name;
	EoBytes		value;
} EoPair;

typedef struct EoPairs
{
	uint32_t	count;
	EoBytes		encoded;		/* set by decoders */
	const EoPair *items;		/* set by encoders' callers */
} EoPairs;

/* Starts with *offset = 0; false at the end of a decoded list. */
extern bool eo_pairs_next(const EoPairs *pairs, size_t *offset, EoPair *pair);

/* The value of a name in a decoded list; data is NULL where it is absent. */
extern EoBytes eo_pairs_get(const EoPairs *pairs, const char *name);

typedef struct EoConfigMessage
{
	uint32_t	version;		/* EO_PROTOCOL_VERSION */
	EoBytes		subscription;	/* the subscription's name */
	EoBytes		identity;		/* stable and unique over clusters, databases
								 * and subscriptions; printable ASCII */
	EoBytes		source;			/* CloudEvents source */
	int64_t		published_seq;	/* the last seq the relay knows published; 0:
								 * none */
	EoPairs		server_options;
	EoPairs		secrets;		/* options of the user mapping */
	EoPairs		subscription_options;
} EoConfigMessage;

/* Event flags */
#define EO_EVENT_RETRY			0x01	/* a dead letter sent again, out of
										 * order: answer RETRIED or NACK, and
										 * do not move any stored position */
#define EO_EVENT_JSON			0x02	/* payload is JSON text in UTF-8 */

typedef struct EoEventMessage
{
	uint8_t		flags;
	int64_t		seq;
	int64_t		position;		/* dense per subscription and topic, from 1 */
	int64_t		time;			/* enqueued, microseconds since 1970 UTC */
	const char *event_id;		/* EO_EVENT_ID_SIZE bytes */
	EoBytes		topic;
	EoBytes		key;			/* may be NULL */
	EoBytes		type;			/* may be NULL */
	EoBytes		content_type;	/* NULL with a NULL payload */
	EoBytes		payload;		/* NULL is a tombstone */
	EoPairs		headers;		/* values are never NULL */
} EoEventMessage;

typedef struct EoReadyMessage
{
	uint32_t	version;
	bool		knows_position; /* the broker can tell what it has */
	int64_t		last_seq;		/* if so: the last seq it has; 0: none */
} EoReadyMessage;

typedef struct EoNackMessage
{
	int64_t		seq;
	bool		permanent;		/* sending it again cannot help */
	EoBytes		reason;			/* UTF-8 */
} EoNackMessage;

typedef enum EoLogLevel
{
	EO_LOG_DEBUG = 0,
	EO_LOG_INFO = 1,
	EO_LOG_WARNING = 2,
	EO_LOG_ERROR = 3
} EoLogLevel;

typedef struct EoLogMessage
{
	EoLogLevel	level;
	EoBytes		text;
} EoLogMessage;

/* Counters since the publisher started */
typedef struct EoStatMessage
{
	int64_t		events;
	int64_t		bytes;
	int64_t		retries;		/* made inside the client library */
} EoStatMessage;

extern void eo_encode_config(EoWriter *w, const EoConfigMessage *m);
extern void eo_encode_event(EoWriter *w, const EoEventMessage *m);
extern void eo_encode_ready(EoWriter *w, const EoReadyMessage *m);
extern void eo_encode_nack(EoWriter *w, const EoNackMessage *m);
extern void eo_encode_log(EoWriter *w, const EoLogMessage *m);
extern void eo_encode_stat(EoWriter *w, const EoStatMessage *m);
/* for ACK, RETRIED, PING and PONG */
extern void eo_encode_number(EoWriter *w, EoMessageType type, int64_t number);
/* for FLUSH and STOP */
extern void eo_encode_empty(EoWriter *w, EoMessageType type);

extern bool eo_decode_config(EoBytes body, EoConfigMessage *m);
extern bool eo_decode_event(EoBytes body, EoEventMessage *m);
extern bool eo_decode_ready(EoBytes body, EoReadyMessage *m);
extern bool eo_decode_nack(EoBytes body, EoNackMessage *m);
extern bool eo_decode_log(EoBytes body, EoLogMessage *m);
extern bool eo_decode_stat(EoBytes body, EoStatMessage *m);
extern bool eo_decode_number(EoBytes body, int64_t *number);

#endif							/* EO_MESSAGE_H */
