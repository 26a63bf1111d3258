/*
 * kafka_topic.c
 *
 * What the publisher knows of Kafka's topics.
 *
 * A broker refuses a batch as a whole, and in a transaction a refusal costs the
 * transaction.  So the reasons for which a topic refuses a message for good are
 * asked for when a topic is first used, and events are judged before they are
 * sent.  This is a prediction: what it misses (a limit lowered since, a rule not
 * known here, a cluster that does not let us read a topic's configuration) is
 * found by isolation, see kafka.h.
 */
#include "publishers/kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kafka's own limit on a topic's name */
#define MAX_TOPIC_NAME			249

/* How long a topic is waited for that the broker may create on demand */
#define CREATION_WAIT_MS		5000

/* How long a refusal holds before the topic is looked for again */
#define REFUSAL_MS				10000

#define LOOKUP_POLL_MS			50

static KafkaTopic **
bucket_of(KafkaState *state, EoBytes name)
{
	uint32_t	hash = 2166136261u;

	for (size_t i = 0; i < name.len; i++)
		hash = (hash ^ (unsigned char) name.data[i]) * 16777619u;
	return &state->topics[hash & 255];
}

static bool
topic_is(const KafkaTopic *topic, EoBytes name)
{
	return strlen(topic->event_topic) == name.len &&
		memcmp(topic->event_topic, name.data, name.len) == 0;
}

/* Returns the topic for an event's topic, without asking the broker. */
KafkaTopic *
kafka_topic_get(KafkaState *state, EoBytes name)
{
	KafkaTopic **bucket;
	KafkaTopic *topic;
	size_t		size;

	if (state->last_topic && topic_is(state->last_topic, name))
		return state->last_topic;

	bucket = bucket_of(state, name);
	for (topic = *bucket; topic; topic = topic->next)
	{
		if (topic_is(topic, name))
			break;
	}
	if (topic == NULL)
	{
		size = strlen(state->topic_prefix) + name.len + 1;
		topic = calloc(1, sizeof(KafkaTopic));
		if (topic == NULL || (topic->name = malloc(size)) == NULL)
			abort();
		snprintf(topic->name, size, "%s%.*s", state->topic_prefix,
				 (int) name.len, name.data);
		topic->event_topic = topic->name + strlen(state->topic_prefix);
		topic->next = *bucket;
		*bucket = topic;
	}
	state->last_topic = topic;
	return topic;
}

/* Drops what belongs to the client instance, before it ends. */
void
kafka_topics_release(KafkaState *state)
{
	for (size_t i = 0; i < 256; i++)
	{
		for (KafkaTopic *topic = state->topics[i]; topic; topic = topic->next)
		{
			if (topic->handle)
				rd_kafka_topic_destroy(topic->handle);
			topic->handle = NULL;
		}
	}
}

/* Has every topic's limits asked for again. */
void
kafka_topics_forget(KafkaState *state)
{
	for (size_t i = 0; i < 256; i++)
	{
		for (KafkaTopic *topic = state->topics[i]; topic; topic = topic->next)
			topic->known = false;
	}
}

/*----------
 * Asking the broker
 *----------
 */

/*
 * Whether a topic exists and has leaders.  Asking is what makes a broker create
 * a topic on demand, so a topic that is not there is waited for a little.
 */
rd_kafka_resp_err_t
kafka_topic_lookup(KafkaState *state, const char *name, int timeout_ms)
{
	int64_t		deadline = kafka_now_ms() + timeout_ms;
	int64_t		give_up = kafka_now_ms() + state->connect_timeout_ms;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(state->rk, name, NULL);
	rd_kafka_resp_err_t error;

	if (handle == NULL)
		return rd_kafka_last_error();
	for (;;)
	{
		const struct rd_kafka_metadata *metadata;

		error = rd_kafka_metadata(state->rk, 0, handle, &metadata, 1000);
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			error = metadata->topic_cnt == 1 ? metadata->topics[0].err
				: RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
			for (int i = 0; error == RD_KAFKA_RESP_ERR_NO_ERROR &&
				 i < metadata->topics[0].partition_cnt; i++)
			{
				if (metadata->topics[0].partitions[i].leader < 0)
					error = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
			}
			rd_kafka_metadata_destroy(metadata);
			if (error != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART &&
				error != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
				break;
			if (kafka_now_ms() > deadline)
				break;
		}
		else if (kafka_now_ms() > give_up)
			break;
		rd_kafka_poll(state->rk, LOOKUP_POLL_MS);
	}
	rd_kafka_topic_destroy(handle);
	return error;
}

static void
take_config(KafkaTopic *topic, const rd_kafka_ConfigResource_t *resource)
{
	size_t		count;
	const rd_kafka_ConfigEntry_t **entries =
		rd_kafka_ConfigResource_configs(resource, &count);

	for (size_t i = 0; i < count; i++)
	{
		const char *name = rd_kafka_ConfigEntry_name(entries[i]);
		const char *value = rd_kafka_ConfigEntry_value(entries[i]);

		if (value == NULL)
			continue;
		if (strcmp(name, "max.message.bytes") == 0)
			topic->max_bytes = (size_t) strtoul(value, NULL, 10);
		else if (strcmp(name, "cleanup.policy") == 0)
			topic->compacted = strstr(value, "compact") != NULL;
	}
}

/* Reads a topic's limits; where the cluster forbids that, they stay unknown. */
static void
read_limits(KafkaState *state, KafkaTopic *topic)
{
	rd_kafka_ConfigResource_t *wanted =
		rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic->name);
	rd_kafka_AdminOptions_t *options =
		rd_kafka_AdminOptions_new(state->rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(state->rk);
	const rd_kafka_ConfigResource_t **found;
	rd_kafka_event_t *event;
	rd_kafka_resp_err_t error;
	char		reason[256];
	size_t		count = 0;

	topic->max_bytes = 0;
	topic->compacted = false;
	rd_kafka_AdminOptions_set_request_timeout(options, 10000, reason, sizeof(reason));
	rd_kafka_DescribeConfigs(state->rk, &wanted, 1, options, queue);
	event = rd_kafka_queue_poll(queue, 15000);
	error = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		found = rd_kafka_DescribeConfigs_result_resources(
			rd_kafka_event_DescribeConfigs_result(event), &count);
		error = count == 1 ? rd_kafka_ConfigResource_error(found[0])
			: RD_KAFKA_RESP_ERR__FAIL;
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			take_config(topic, found[0]);
	}
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
		publisher_log(state->pub, EO_LOG_WARNING,
					  "cannot read the configuration of Kafka topic \"%s\" (%s): an event that is too large for it will be found only by trying; allow DescribeConfigs on the topic",
					  topic->name, rd_kafka_err2str(error));
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(wanted);
}

static bool
is_legal_name(const char *name)
{
	size_t		len = strlen(name);

	return len > 0 && len <= MAX_TOPIC_NAME && strcmp(name, ".") != 0 &&
		strcmp(name, "..") != 0 &&
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len;
}

static void
refuse_topic(KafkaTopic *topic, const char *why)
{
	char		text[512];

	snprintf(text, sizeof(text), "Kafka topic \"%s\" %s", topic->name, why);
	free(topic->refusal);
	topic->refusal = strdup(text);
	topic->refused_at = kafka_now_ms();
}

static void
learn_topic(KafkaState *state, KafkaTopic *topic)
{
	/* A second look at a missing topic does not wait again. */
	int			wait = topic->refusal ? 0 : CREATION_WAIT_MS;
	rd_kafka_resp_err_t error;

	free(topic->refusal);
	topic->refusal = NULL;
	topic->known = false;
	if (!is_legal_name(topic->name))
	{
		refuse_topic(topic, "cannot exist: a name has up to 249 letters, digits, dots, hyphens and underscores");
		return;
	}

	error = kafka_topic_lookup(state, topic->name, wait);
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			read_limits(state, topic);
			topic->known = true;
			break;

		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
			refuse_topic(topic, "does not exist, and the broker does not create it on demand");
			break;

		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			refuse_topic(topic, "has a name that the broker does not allow");
			break;

		case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
			/* The library waits for the leader. */
			break;

		default:
			publisher_fail(state->pub, "cannot look up Kafka topic \"%s\": %s%s%s",
						   topic->name, rd_kafka_err2str(error),
						   state->last_error[0] ? ": " : "", state->last_error);
	}
}

/*
 * Why an event can never be sent, or NULL; in a static buffer.  Asks the broker
 * when the topic is not known yet.
 */
const char *
kafka_topic_refusal(KafkaState *state, KafkaTopic *topic, const EoEventMessage *event)
{
	static char text[512];
	size_t		limit;
	size_t		size;

	if (!topic->known &&
		(topic->refusal == NULL || kafka_now_ms() - topic->refused_at > REFUSAL_MS))
		learn_topic(state, topic);
	if (topic->refusal)
		return topic->refusal;

	if (topic->compacted && event->key.data == NULL)
	{
		snprintf(text, sizeof(text),
				 "Kafka topic \"%s\" is compacted and takes no event without a key",
				 topic->name);
		return text;
	}

	limit = topic->max_bytes;
	if (state->max_bytes > 0 && (limit == 0 || state->max_bytes < limit))
		limit = state->max_bytes;
	if (limit == 0)
		return NULL;
	/* Only a large payload can need the exact sum. */
	if (event->payload.len + event->headers.encoded.len + 4096 < limit)
		return NULL;
	size = kafka_message_size(state, event);
	if (size <= limit)
		return NULL;
	snprintf(text, sizeof(text),
			 "the event makes a message of %zu bytes, and Kafka topic \"%s\" takes %zu at most (%s)",
			 size, topic->name, limit,
			 limit == topic->max_bytes ? "max.message.bytes of the topic"
			 : "option message.max.bytes");
	return text;
}
