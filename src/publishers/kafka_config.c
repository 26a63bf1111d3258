/*
 * kafka_config.c
 *
 * Options of server, user mapping and subscription as a configuration of the
 * client library.
 *
 * What the guarantees rest on is set here and cannot be set by a user: the
 * option table (wire/options.c) is the list of what can, and is checked once
 * more, since a frame is the only thing that this process can be sure of.
 */
#include "publishers/kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/options.h"

#define DEFAULT_POSITION_TOPIC		"eo_outbox.positions"
#define DEFAULT_CONNECT_TIMEOUT_MS	30000
#define DEFAULT_BATCH_SIZE			1000000

/*
 * The time after which the broker ends a transaction whose publisher died, and
 * until which readers of committed messages wait.
 */
#define DEFAULT_TRANSACTION_TIMEOUT	"15000"

typedef struct Property
{
	const char *name;
	const char *value;
} Property;

static const Property defaults[] = {
	{"client.id", "eo_outbox"},
	{"linger.ms", "0"},
	{"socket.nagle.disable", "true"},
	{"socket.keepalive.enable", "true"},
	{"reconnect.backoff.max.ms", "2000"},
	{"partitioner", "murmur2_random"},	/* as Kafka's own client does */
	{"queue.buffering.max.messages", "1000000"},
	{"transaction.timeout.ms", DEFAULT_TRANSACTION_TIMEOUT},
	{NULL, NULL}
};

/*
 * A transaction's first requests are put off while the broker is still busy
 * with the end of the one before, which takes it a few milliseconds.
 */
static const Property defaults_exactly_once[] = {
	{"retry.backoff.ms", "5"},
	{NULL, NULL}
};

static const Property fixed[] = {
	{"acks", "all"},
	{"enable.idempotence", "true"},
	{"message.max.bytes", KAFKA_CLIENT_MAX_BYTES},
	{"log.queue", "true"},
	{NULL, NULL}
};

static const Property fixed_at_least_once[] = {
	/* A broker that is away is waited for; nothing expires. */
	{"message.timeout.ms", "0"},
	/* After a batch was refused nothing may overtake it. */
	{"enable.gapless.guarantee", "true"},
	{NULL, NULL}
};

static char *
copy_text(EoBytes value)
{
	char	   *copy = malloc(value.len + 1);

	if (copy == NULL)
		abort();
	memcpy(copy, value.data, value.len);
	copy[value.len] = '\0';
	return copy;
}

/* Replaces secrets in a text that others wrote by asterisks, in place. */
void
kafka_scrub(const KafkaState *state, char *text)
{
	for (int i = 0; i < state->secret_count; i++)
	{
		const char *secret = state->secrets[i];
		char	   *at = text;

		while ((at = strstr(at, secret)) != NULL)
			memset(at, '*', strlen(secret));
	}
}

static void
set_property(KafkaState *state, const char *name, const char *value)
{
	char		reason[256] = "";

	if (rd_kafka_conf_set(state->conf, name, value, reason,
						  sizeof(reason)) != RD_KAFKA_CONF_OK)
	{
		kafka_scrub(state, reason);
		publisher_fail(state->pub, "option \"%s\" is not usable: %s", name, reason);
	}
}

static void
set_properties(KafkaState *state, const Property *properties)
{
	for (; properties->name; properties++)
		set_property(state, properties->name, properties->value);
}

/* Options that the relay reads are not for us. */
static bool
is_relay_option(const char *name)
{
	return strchr(name, '.') == NULL;
}

static void
apply_option(KafkaState *state, const char *name, char *value)
{
	if (strcmp(name, "brokers") == 0)
		set_property(state, "bootstrap.servers", value);
	else if (strcmp(name, "username") == 0)
		set_property(state, "sasl.username", value);
	else if (strcmp(name, "password") == 0)
		set_property(state, "sasl.password", value);
	else if (strcmp(name, "topic_prefix") == 0)
	{
		free(state->topic_prefix);
		state->topic_prefix = strdup(value);
	}
	else if (strcmp(name, "position_topic") == 0)
	{
		free(state->position_topic);
		state->position_topic = strdup(value);
	}
	else if (strcmp(name, "connect_timeout") == 0)
		state->connect_timeout_ms = atoi(value);
	else if (strcmp(name, "message.max.bytes") == 0)
		state->max_bytes = (size_t) atol(value);
	else if (strcmp(name, "batch.size") == 0)
		state->batch_size = atol(value);
	else if (!is_relay_option(name))
		set_property(state, name, value);
}

static void
apply_options(KafkaState *state, const EoPairs *options, EoOptionPlace place)
{
	const EoBrokerKind *kind = eo_broker_kind("kafka");
	size_t		offset = 0;
	EoPair		pair;

	while (eo_pairs_next(options, &offset, &pair))
	{
		char	   *name = copy_text(pair.name);
		char	   *value = copy_text(pair.value);
		bool		found;
		const char *problem = eo_option_check(kind, place, name, value, &found);

		if (problem)
			publisher_fail(state->pub, "option \"%s\" %s", name, problem);
		if (place == EO_OPTION_USER_MAPPING && strcmp(name, "username") != 0 &&
			strcmp(name, "ssl.certificate.pem") != 0 && value[0] != '\0' &&
			state->secret_count < KAFKA_MAX_SECRETS)
			state->secrets[state->secret_count++] = strdup(value);
		apply_option(state, name, value);
		explicit_bzero(value, strlen(value));
		free(value);
		free(name);
	}
}

static bool
wants_exactly_once(const EoConfigMessage *config)
{
	EoBytes		guarantee = eo_pairs_get(&config->subscription_options, "guarantee");

	if (guarantee.data == NULL)
		guarantee = eo_pairs_get(&config->server_options, "guarantee");
	return guarantee.data && guarantee.len == strlen("exactly_once") &&
		memcmp(guarantee.data, "exactly_once", guarantee.len) == 0;
}

/* Fills the configuration part of a state that is all zeros. */
void
kafka_configure(KafkaState *state, const EoConfigMessage *config)
{
	size_t		size;

	state->conf = rd_kafka_conf_new();
	state->batch_size = DEFAULT_BATCH_SIZE;
	state->connect_timeout_ms = DEFAULT_CONNECT_TIMEOUT_MS;
	state->topic_prefix = strdup("");
	state->position_topic = strdup(DEFAULT_POSITION_TOPIC);
	state->source = copy_text(config->source);
	size = sizeof(KAFKA_ID_PREFIX) + config->identity.len;
	state->identity = malloc(size);
	if (state->identity == NULL)
		abort();
	snprintf(state->identity, size, "%s%.*s", KAFKA_ID_PREFIX,
			 (int) config->identity.len, config->identity.data);

	state->exactly_once = wants_exactly_once(config);
	set_properties(state, defaults);
	if (state->exactly_once)
		set_properties(state, defaults_exactly_once);
	/* Secrets first: from then on they are kept out of what is said. */
	apply_options(state, &config->secrets, EO_OPTION_USER_MAPPING);
	apply_options(state, &config->server_options, EO_OPTION_SERVER);
	apply_options(state, &config->subscription_options, EO_OPTION_SUBSCRIPTION);
	set_properties(state, fixed);

	if (!state->exactly_once)
	{
		set_properties(state, fixed_at_least_once);
		return;
	}
	set_property(state, "transactional.id", state->identity);
	set_property(state, "delivery.report.only.error", "true");
}

/*
 * The configuration of a new client instance.  One that isolates sends one
 * message a batch, and goes on after a refusal.
 */
rd_kafka_conf_t *
kafka_instance_conf(KafkaState *state)
{
	rd_kafka_conf_t *base = state->conf;
	rd_kafka_conf_t *conf;
	char		number[32];

	state->conf = conf = rd_kafka_conf_dup(base);
	snprintf(number, sizeof(number), "%ld", state->batch_size);
	set_property(state, "batch.size", number);
	if (state->isolating)
	{
		set_property(state, "batch.num.messages", "1");
		set_property(state, "max.in.flight.requests.per.connection", "1");
		if (!state->exactly_once)
			set_property(state, "enable.gapless.guarantee", "false");
	}
	/* The library's own default is 60000, which nobody may mean here. */
	state->conf = base;
	return conf;
}

/*
 * Known defects of old versions.  Neither loses a message; both stop the client
 * with a fatal error, from which this publisher recovers with a new instance.
 */
void
kafka_check_version(KafkaState *state)
{
	int			version = rd_kafka_version();

	if (version < 0x02030000)
		publisher_log(state->pub, EO_LOG_WARNING,
					  "librdkafka %s has a known defect: after a broken connection the idempotent producer may stop with a fatal sequence error (librdkafka #4438, mended in 2.3.0); the publisher then starts a new producer",
					  rd_kafka_version_str());
	else if (version < 0x02050000)
		publisher_log(state->pub, EO_LOG_WARNING,
					  "librdkafka %s has a known defect: the idempotent producer may stop with the fatal error \"Unable to reconstruct MessageSet\" (librdkafka #4736, mended in 2.5.0); the publisher then starts a new producer",
					  rd_kafka_version_str());
}
