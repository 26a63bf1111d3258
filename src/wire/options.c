/*
 * options.c
 *
 * The options that each kind of broker takes.
 *
 * A name that is not in a table cannot reach a publisher, so a table is also
 * the list of what a user may influence.  That is why client properties of a
 * broker library stand here one by one: among those left out are paths to
 * files and plug-ins, commands to run, and whatever the guarantees rest on
 * (acks, idempotence, retries, ordering).
 */
#include "wire/options.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER		EO_OPTION_SERVER
#define SECRET		EO_OPTION_USER_MAPPING
#define SUBSCR		EO_OPTION_SUBSCRIPTION

#define TEXT(name, places) \
	{name, places, EO_OPTION_TEXT, 0, 0, NULL, false}
#define BOOL(name, places) \
	{name, places, EO_OPTION_BOOL, 0, 0, NULL, false}
#define INT(name, places, min, max) \
	{name, places, EO_OPTION_INT, min, max, NULL, false}
#define ENUM(name, places, choices) \
	{name, places, EO_OPTION_ENUM, 0, 0, choices, false}
#define REQUIRED(name, places, type) \
	{name, places, type, 0, 0, NULL, true}
#define END			{NULL, 0, EO_OPTION_TEXT, 0, 0, NULL, false}

/* What every subscription takes, whatever its broker; the relay reads them. */
#define RELAY_OPTIONS \
	BOOL("synchronous_standbys", SUBSCR), \
	INT("max_in_flight", SUBSCR, 1, 100000), \
	INT("ack_timeout", SUBSCR, 100, INT_MAX),		/* ms */ \
	INT("max_restarts", SUBSCR, 0, INT_MAX), \
	INT("restart_window", SUBSCR, 1, INT_MAX)		/* ms */

static const EoOption file_options[] = {
	REQUIRED("path", SERVER, EO_OPTION_PATH),
	RELAY_OPTIONS,
	END
};

static const EoOption kafka_options[] = {
	REQUIRED("brokers", SERVER, EO_OPTION_TEXT),
	TEXT("topic_prefix", SERVER | SUBSCR),
	ENUM("guarantee", SERVER | SUBSCR, "at_least_once|exactly_once"),
	TEXT("position_topic", SERVER),
	INT("connect_timeout", SERVER, 1000, 600000),	/* ms */

	/* Properties of librdkafka, under their own names */
	TEXT("client.id", SERVER | SUBSCR),
	TEXT("client.rack", SERVER),
	ENUM("security.protocol", SERVER, "plaintext|ssl|sasl_plaintext|sasl_ssl"),
	ENUM("sasl.mechanism", SERVER, "PLAIN|SCRAM-SHA-256|SCRAM-SHA-512"),
	TEXT("ssl.ca.pem", SERVER),
	TEXT("ssl.cipher.suites", SERVER),
	TEXT("ssl.curves.list", SERVER),
	TEXT("ssl.sigalgs.list", SERVER),
	ENUM("ssl.endpoint.identification.algorithm", SERVER, "none|https"),
	BOOL("enable.ssl.certificate.verification", SERVER),
	ENUM("broker.address.family", SERVER, "any|v4|v6"),
	INT("broker.address.ttl", SERVER, 0, 86400000),
	INT("socket.timeout.ms", SERVER, 10, 300000),
	INT("socket.connection.setup.timeout.ms", SERVER, 1000, INT_MAX),
	INT("socket.send.buffer.bytes", SERVER, 0, 100000000),
	INT("socket.receive.buffer.bytes", SERVER, 0, 100000000),
	BOOL("socket.keepalive.enable", SERVER),
	BOOL("socket.nagle.disable", SERVER),
	INT("connections.max.idle.ms", SERVER, 0, INT_MAX),
	INT("reconnect.backoff.ms", SERVER, 0, 3600000),
	INT("reconnect.backoff.max.ms", SERVER, 0, 3600000),
	INT("retry.backoff.ms", SERVER, 1, 300000),
	INT("metadata.max.age.ms", SERVER, 1, 86400000),
	INT("topic.metadata.refresh.interval.ms", SERVER, -1, 3600000),
	INT("message.max.bytes", SERVER | SUBSCR, 1000, 1000000000),
	INT("request.timeout.ms", SERVER | SUBSCR, 1, 900000),
	INT("transaction.timeout.ms", SERVER | SUBSCR, 1000, INT_MAX),
	ENUM("partitioner", SERVER | SUBSCR, "murmur2_random|murmur2|consistent_random|consistent|fnv1a_random|fnv1a"),
	INT("linger.ms", SERVER | SUBSCR, 0, 900000),
	INT("batch.size", SERVER | SUBSCR, 1, INT_MAX),
	INT("batch.num.messages", SERVER | SUBSCR, 1, 1000000),
	INT("queue.buffering.max.kbytes", SERVER | SUBSCR, 1, INT_MAX),
	ENUM("compression.type", SERVER | SUBSCR, "none|gzip|snappy|lz4|zstd"),
	INT("compression.level", SERVER | SUBSCR, -1, 12),

	TEXT("username", SECRET),
	TEXT("password", SECRET),
	TEXT("ssl.certificate.pem", SECRET),
	TEXT("ssl.key.pem", SECRET),
	TEXT("ssl.key.password", SECRET),
	RELAY_OPTIONS,
	END
};

static const EoOption stub_options[] = {
	TEXT("script", SERVER | SUBSCR),
	RELAY_OPTIONS,
	END
};

static const EoBrokerKind kinds[] = {
	{"file", file_options},
	{"kafka", kafka_options},
	{"stub", stub_options},
	{NULL, NULL}
};

/* What eo_option_check returns */
static char problem[512];

const EoBrokerKind *
eo_broker_kind(const char *name)
{
	for (const EoBrokerKind *kind = kinds; kind->name != NULL; kind++)
	{
		if (strcmp(kind->name, name) == 0)
			return kind;
	}
	return NULL;
}

static bool
is_integer_between(const char *value, long min, long max)
{
	char	   *end;
	long		number;

	/* strtol would take blanks and a plus sign */
	if (value[0] != '-' && (value[0] < '0' || value[0] > '9'))
		return false;
	errno = 0;
	number = strtol(value, &end, 10);
	return errno == 0 && end != value && *end == '\0' &&
		number >= min && number <= max;
}

static bool
is_choice(const char *choices, const char *value)
{
	size_t		len = strlen(value);

	for (const char *p = choices;;)
	{
		size_t		n = strcspn(p, "|");

		if (n == len && memcmp(p, value, n) == 0)
			return true;
		if (p[n] == '\0')
			return false;
		p += n + 1;
	}
}

/* "must be one of a, b or c" from "a|b|c" */
static void
describe_choices(const char *choices)
{
	size_t		used = (size_t) snprintf(problem, sizeof(problem), "must be %s",
										 strchr(choices, '|') ? "one of " : "");

	for (const char *p = choices;;)
	{
		size_t		n = strcspn(p, "|");
		const char *next = p[n] ? p + n + 1 : NULL;
		const char *glue = next == NULL ? "" : strchr(next, '|') ? ", " : " or ";

		used += (size_t) snprintf(problem + used, sizeof(problem) - used,
								  "%.*s%s", (int) n, p, glue);
		if (next == NULL || used >= sizeof(problem))
			return;
		p = next;
	}
}

static const char *
check_value(const EoOption *option, const char *value)
{
	switch (option->type)
	{
		case EO_OPTION_TEXT:
			return value[0] != '\0' ? NULL : "must not be empty";

		case EO_OPTION_PATH:
			return value[0] == '/' ? NULL : "must be an absolute path";

		case EO_OPTION_BOOL:
			if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
				return NULL;
			return "must be true or false";

		case EO_OPTION_INT:
			if (is_integer_between(value, option->min, option->max))
				return NULL;
			snprintf(problem, sizeof(problem),
					 "must be an integer from %ld to %ld",
					 option->min, option->max);
			return problem;

		case EO_OPTION_ENUM:
			if (is_choice(option->choices, value))
				return NULL;
			describe_choices(option->choices);
			return problem;
	}
	return "has an unknown type";
}

const char *
eo_option_check(const EoBrokerKind *kind, EoOptionPlace place,
				const char *name, const char *value, bool *found)
{
	*found = false;
	for (const EoOption *option = kind->options; option->name != NULL; option++)
	{
		if ((option->places & (int) place) == 0 || strcmp(option->name, name) != 0)
			continue;
		*found = true;
		return check_value(option, value);
	}
	return "is not known here";
}
