/*
 * kafka.c
 *
 * The Kafka publisher, on librdkafka: client instances, the pending list, and
 * the at-least-once guarantee.  kafka_txn.c is the exactly-once guarantee.
 *
 * An event is settled by its delivery report.  The producer is idempotent and
 * gapless, so what the broker has of a partition is always the front of what
 * was sent to it.  When an instance dies of a fatal error, or because the
 * broker refused a batch, a new one gets everything that is not settled again:
 * this may repeat events, and never swaps the first appearances of two.
 *
 * The library's callbacks run inside rd_kafka_poll() in the only thread of ours.
 */
#define _GNU_SOURCE
#include "publishers/kafka.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* New instances in a row that settle nothing, before the relay is told */
#define MAX_REPLAYS			3

#define MIN_BATCH_SIZE		1000

/* Bytes of an event of ordinary size: a multiple of 8 */
#define SMALL_EVENT			640
#define SLAB_ENTRIES		128

/* Often enough for the refresh of an idle position; see kafka_txn.c */
#define IDLE_POLL_MS		(6 * 3600 * 1000)

int64_t
kafka_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*----------
 * The pending list
 *----------
 */

/*
 * Entries of ordinary size come from a free list: to allocate each would take
 * half as long again as everything else that is done for it here.
 */
static KafkaEntry *
allocate_entry(KafkaState *state, size_t size)
{
	KafkaEntry *entry;
	char	   *slab;

	if (size > SMALL_EVENT)
		entry = malloc(sizeof(KafkaEntry) + size);
	else
	{
		if (state->free_entries == NULL)
		{
			slab = malloc(SLAB_ENTRIES * (sizeof(KafkaEntry) + SMALL_EVENT));
			for (int i = 0; slab && i < SLAB_ENTRIES; i++)
			{
				entry = (KafkaEntry *) (slab + i * (sizeof(KafkaEntry) + SMALL_EVENT));
				entry->next = state->free_entries;
				state->free_entries = entry;
			}
		}
		entry = state->free_entries;
		if (entry)
			state->free_entries = entry->next;
	}
	if (entry == NULL)
		publisher_fail(state->pub, "out of memory");
	entry->bytes = size;
	return entry;
}

static void
release_entry(KafkaState *state, KafkaEntry *entry)
{
	if (entry->bytes > SMALL_EVENT)
		free(entry);
	else
	{
		entry->next = state->free_entries;
		state->free_entries = entry;
	}
}

static EoBytes
keep_bytes(char **at, EoBytes value)
{
	EoBytes		kept = {NULL, value.len};

	if (value.data == NULL)
		return kept;
	kept.data = *at;
	memcpy(*at, value.data, value.len);
	*at += value.len;
	return kept;
}

/* Copies an event to the end of the list. */
KafkaEntry *
kafka_entry_add(KafkaState *state, KafkaTopic *topic, const EoEventMessage *event,
				uint64_t token)
{
	size_t		size = EO_EVENT_ID_SIZE + event->topic.len + event->key.len +
		event->type.len + event->content_type.len + event->payload.len +
		event->headers.encoded.len;
	KafkaEntry *entry = allocate_entry(state, size);
	char	   *at = entry->data;

	entry->token = token;
	entry->topic = topic;
	entry->error = RD_KAFKA_RESP_ERR_NO_ERROR;
	entry->refused = false;
	entry->event = *event;
	memcpy(at, event->event_id, EO_EVENT_ID_SIZE);
	entry->event.event_id = at;
	at += EO_EVENT_ID_SIZE;
	entry->event.topic = keep_bytes(&at, event->topic);
	entry->event.key = keep_bytes(&at, event->key);
	entry->event.type = keep_bytes(&at, event->type);
	entry->event.content_type = keep_bytes(&at, event->content_type);
	entry->event.payload = keep_bytes(&at, event->payload);
	entry->event.headers.encoded = keep_bytes(&at, event->headers.encoded);

	entry->next = NULL;
	entry->prev = state->tail;
	if (state->tail)
		state->tail->next = entry;
	else
		state->head = entry;
	state->tail = entry;
	state->count++;
	state->bytes += size;
	return entry;
}

void
kafka_entry_remove(KafkaState *state, KafkaEntry *entry)
{
	if (entry->prev)
		entry->prev->next = entry->next;
	else
		state->head = entry->next;
	if (entry->next)
		entry->next->prev = entry->prev;
	else
		state->tail = entry->prev;
	state->count--;
	state->bytes -= entry->bytes;
	release_entry(state, entry);
}

/*----------
 * Callbacks
 *----------
 */

/* Errors with which a broker refuses a batch for what is in it */
bool
kafka_is_refusal(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
			return true;
		default:
			return false;
	}
}

static void
delivery_report(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	KafkaState *state = opaque;
	KafkaEntry *entry = message->_private;
	char		reason[256];

	(void) rk;
	entry->error = message->err;
	if (state->exactly_once)
		return;

	if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		state->replays = 0;
		publisher_settle(state->pub, entry->token, SETTLE_DURABLE, NULL);
		kafka_entry_remove(state, entry);
		return;
	}
	if (kafka_is_refusal(message->err) && state->isolating)
	{
		state->guilty_found = true;
		state->replays = 0;
		snprintf(reason, sizeof(reason), "Kafka topic \"%s\": %s",
				 entry->topic->name, rd_kafka_err2str(message->err));
		publisher_settle(state->pub, entry->token, SETTLE_REFUSED, reason);
		kafka_entry_remove(state, entry);
		return;
	}
	if (state->broken == RD_KAFKA_RESP_ERR_NO_ERROR || kafka_is_refusal(message->err))
		state->broken = message->err;
}

static void
error_callback(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
	KafkaState *state = opaque;
	rd_kafka_resp_err_t error = (rd_kafka_resp_err_t) code;

	snprintf(state->last_error, sizeof(state->last_error), "%s", reason);
	kafka_scrub(state, state->last_error);
	if (error == RD_KAFKA_RESP_ERR__FATAL)
	{
		char		text[512];

		error = rd_kafka_fatal_error(rk, text, sizeof(text));
		snprintf(state->last_error, sizeof(state->last_error), "%s", text);
		kafka_scrub(state, state->last_error);
		if (!kafka_is_refusal(state->broken))
			state->broken = error;
		return;
	}
	if (error == RD_KAFKA_RESP_ERR__TRANSPORT ||
		error == RD_KAFKA_RESP_ERR__TIMED_OUT ||
		error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		state->disturbed = true;
	if (error == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
		(error == RD_KAFKA_RESP_ERR__SSL && state->opening))
		publisher_fail(state->pub, "the Kafka broker cannot be used: %s",
					   state->last_error);
}

static void
log_callback(const rd_kafka_t *rk, int level, const char *facility, const char *line)
{
	KafkaState *state = rd_kafka_opaque(rk);
	EoLogLevel	eo_level = level <= 2 ? EO_LOG_ERROR : level <= 4 ? EO_LOG_WARNING
		: level <= 6 ? EO_LOG_INFO : EO_LOG_DEBUG;
	char		text[1024];

	/* Remarks on the configuration, which is ours and meant. */
	if (strcmp(facility, "CONFWARN") == 0)
		eo_level = EO_LOG_DEBUG;
	snprintf(text, sizeof(text), "%s: %s", facility, line);
	kafka_scrub(state, text);
	publisher_log(state->pub, eo_level, "%s", text);
}

/*----------
 * Client instances
 *----------
 */

/* Library threads still run when the process ends, so nothing is torn down. */
static void
leave_at_once(int status, void *arg)
{
	(void) arg;
	fflush(stderr);
	_exit(status);
}

/* Starts a client instance, and returns once a broker answers. */
void
kafka_connect(KafkaState *state)
{
	int64_t		deadline = kafka_now_ms() + state->connect_timeout_ms;
	rd_kafka_conf_t *conf = kafka_instance_conf(state);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t error;
	char		reason[512];

	rd_kafka_conf_set_opaque(conf, state);
	rd_kafka_conf_set_dr_msg_cb(conf, delivery_report);
	rd_kafka_conf_set_error_cb(conf, error_callback);
	rd_kafka_conf_set_log_cb(conf, log_callback);
	state->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	if (state->rk == NULL)
	{
		kafka_scrub(state, reason);
		publisher_fail(state->pub, "the options do not make a Kafka producer: %s", reason);
	}
	/* Of those who want to know of the end, the last to say so is the first. */
	if (state->opening)
		on_exit(leave_at_once, NULL);
	rd_kafka_set_log_queue(state->rk, NULL);
	state->queue = rd_kafka_queue_get_main(state->rk);
	rd_kafka_queue_io_event_enable(state->queue, state->wakeup[1], "", 1);

	state->broken = RD_KAFKA_RESP_ERR_NO_ERROR;
	state->disturbed = false;
	while ((error = rd_kafka_metadata(state->rk, 0, NULL, &metadata, 500)) !=
		   RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_poll(state->rk, 0);
		if (kafka_now_ms() > deadline)
			publisher_fail(state->pub, "no Kafka broker answered within %d ms: %s",
						   state->connect_timeout_ms,
						   state->last_error[0] ? state->last_error
						   : rd_kafka_err2str(error));
	}
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_poll(state->rk, 0);
	state->last_error[0] = '\0';
	state->disturbed = false;
}

/* Ends the instance; what it had not delivered stays in the pending list. */
void
kafka_disconnect(KafkaState *state)
{
	rd_kafka_purge(state->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	rd_kafka_flush(state->rk, 1000);
	kafka_topics_release(state);
	rd_kafka_queue_io_event_enable(state->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(state->queue);
	rd_kafka_destroy(state->rk);
	state->rk = NULL;
}

/*
 * The client that asks for the position is a consumer of the group that keeps
 * it: librdkafka 2.0 crashes in a producer when the answer is that the group's
 * coordinator is still loading, as that has no group to look the coordinator up
 * for again.
 */
rd_kafka_t *
kafka_open_reader(KafkaState *state)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(state->conf);
	char		reason[512];
	rd_kafka_t *reader = NULL;

	rd_kafka_conf_set_opaque(conf, state);
	rd_kafka_conf_set_log_cb(conf, log_callback);
	if (rd_kafka_conf_set(conf, "group.id", state->identity, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		reader = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (reader == NULL)
	{
		kafka_scrub(state, reason);
		publisher_fail(state->pub, "the options do not make a Kafka consumer: %s", reason);
	}
	rd_kafka_set_log_queue(reader, NULL);
	return reader;
}

void
kafka_close_reader(rd_kafka_t *reader)
{
	rd_kafka_poll(reader, 0);
	rd_kafka_destroy_flags(reader, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

/*----------
 * At least once
 *----------
 */

/*
 * Whether produce failed because the instance is of no use any more, which it
 * may say by a code of its own before the callback has been called.
 */
static bool
instance_failed(KafkaState *state, rd_kafka_resp_err_t error)
{
	rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(state->rk, NULL, 0);

	if (error != RD_KAFKA_RESP_ERR__FATAL && fatal == RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	if (!kafka_is_refusal(state->broken))
		state->broken = fatal != RD_KAFKA_RESP_ERR_NO_ERROR ? fatal : error;
	return true;
}

static void
send_entry(KafkaState *state, KafkaEntry *entry)
{
	rd_kafka_resp_err_t error;

	while ((error = kafka_produce(state, entry)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(state->rk, 100);
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR && !instance_failed(state, error))
		publisher_fail(state->pub, "cannot send to Kafka topic \"%s\": %s",
					   entry->topic->name, rd_kafka_err2str(error));
}

/* Starts over with a new instance and all that is not settled. */
static void
replay(KafkaState *state, bool isolate)
{
	kafka_disconnect(state);
	state->isolating = isolate;
	kafka_connect(state);
	for (KafkaEntry *entry = state->head, *next; entry; entry = next)
	{
		next = entry->next;
		send_entry(state, entry);
		if (state->broken)
			return;
	}
}

static void
recover(KafkaState *state)
{
	bool		refusal;

	/*
	 * That ordering cannot be kept may be said before, or instead of, what the
	 * broker has refused.
	 */
	rd_kafka_poll(state->rk, 0);
	refusal = kafka_is_refusal(state->broken) ||
		state->broken == RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE;
	if (++state->replays > MAX_REPLAYS)
		publisher_fail(state->pub, "the Kafka producer failed %d times in a row: %s: %s",
					   state->replays, rd_kafka_err2name(state->broken),
					   state->last_error[0] ? state->last_error
					   : rd_kafka_err2str(state->broken));
	publisher_log(state->pub, EO_LOG_WARNING,
				  "%s (%s): starting a new Kafka producer with the %zu events that are not acknowledged%s",
				  state->last_error[0] ? state->last_error : rd_kafka_err2str(state->broken),
				  rd_kafka_err2name(state->broken), state->count,
				  refusal ? ", one by one to find what was refused" : "");
	if (refusal)
	{
		kafka_topics_forget(state);
		state->guilty_found = false;
	}
	replay(state, refusal || state->isolating);
}

/*
 * Back to full batches once the list that was isolated is through.  Where every
 * message was fine on its own, the batch as such was too large.
 */
static void
end_isolation(KafkaState *state)
{
	if (!state->guilty_found && state->batch_size / 2 >= MIN_BATCH_SIZE)
		state->batch_size /= 2;
	replay(state, false);
}

/*
 * A topic may take smaller batches than are being made: then the instance
 * changes to such, after what it has.
 */
static bool
fits_batches(KafkaState *state, const KafkaTopic *topic)
{
	return topic->max_bytes == 0 || (size_t) state->batch_size <= topic->max_bytes;
}

static void
shrink_batches(KafkaState *state, const KafkaTopic *topic)
{
	publisher_log(state->pub, EO_LOG_INFO,
				  "Kafka topic \"%s\" takes batches of at most %zu bytes: batch.size is %ld no longer",
				  topic->name, topic->max_bytes, state->batch_size);
	state->batch_size = (long) topic->max_bytes;
	replay(state, state->isolating);
}

/* Has the main loop come round again. */
static void
wake(KafkaState *state)
{
	if (write(state->wakeup[1], "", 1) < 0 && errno != EAGAIN)
		publisher_fail(state->pub, "cannot write to a pipe: %s", strerror(errno));
}

static PublishResult
publish_at_least_once(KafkaState *state, KafkaTopic *topic,
					  const EoEventMessage *event, uint64_t token)
{
	KafkaEntry *entry;
	rd_kafka_resp_err_t error;

	/* Nothing may come between a list and its isolation. */
	if (state->broken || state->isolating)
		return PUBLISH_BUSY;
	if (!fits_batches(state, topic))
	{
		/* What is under way would be sent twice by a new instance. */
		if (state->count > 0)
			return PUBLISH_BUSY;
		shrink_batches(state, topic);
	}
	entry = kafka_entry_add(state, topic, event, token);
	error = kafka_produce(state, entry);
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		return PUBLISH_TAKEN;

	kafka_entry_remove(state, entry);
	if (error == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		return PUBLISH_BUSY;
	if (!instance_failed(state, error))
		publisher_fail(state->pub, "cannot send to Kafka topic \"%s\": %s",
					   topic->name, rd_kafka_err2str(error));
	/* poll() starts over. */
	wake(state);
	return PUBLISH_BUSY;
}

static void
poll_at_least_once(KafkaState *state)
{
	if (state->broken)
		recover(state);
	else if (state->isolating && state->head == NULL)
		end_isolation(state);
	else
		return;
	wake(state);
}

/*----------
 * Operations
 *----------
 */

static void
kafka_open(Publisher *pub, const EoConfigMessage *config)
{
	KafkaState *state = calloc(1, sizeof(KafkaState));

	if (state == NULL || pipe2(state->wakeup, O_CLOEXEC | O_NONBLOCK) < 0)
		publisher_fail(pub, "cannot start: %s", strerror(errno));
	/* Headers, the bulk of what the library allocates, without coalescing */
	mallopt(M_MXFAST, 160);
	pub->state = state;
	state->pub = pub;
	kafka_configure(state, config);
	kafka_check_version(state);
	state->opening = true;
	kafka_connect(state);
	on_exit(leave_at_once, NULL);
	if (state->exactly_once)
		kafka_txn_open(state, config);
	state->opening = false;
}

static PublishResult
kafka_publish(Publisher *pub, const EoEventMessage *event, uint64_t token)
{
	KafkaState *state = pub->state;
	KafkaTopic *topic;
	const char *refusal;

	if (state->exactly_once && kafka_txn_skips(state, event, token))
		return PUBLISH_TAKEN;
	topic = kafka_topic_get(state, event->topic);
	refusal = kafka_topic_refusal(state, topic, event);
	if (refusal)
	{
		if (state->exactly_once)
			kafka_txn_refused(state, event);
		publisher_settle(pub, token, SETTLE_REFUSED, refusal);
		return PUBLISH_TAKEN;
	}
	if (!state->exactly_once)
		return publish_at_least_once(state, topic, event, token);
	return kafka_txn_publish(state, topic, event, token);
}

static void
kafka_poll(Publisher *pub)
{
	KafkaState *state = pub->state;
	char		drain[64];

	/* In this order: what comes after the poll writes to the pipe again. */
	while (read(state->wakeup[0], drain, sizeof(drain)) == (ssize_t) sizeof(drain))
		;
	rd_kafka_poll(state->rk, 0);
	if (state->exactly_once)
		kafka_txn_poll(state);
	else
		poll_at_least_once(state);
}

static void
kafka_flush(Publisher *pub)
{
	KafkaState *state = pub->state;

	if (state->exactly_once)
	{
		kafka_txn_commit(state);
		return;
	}
	while (state->count > 0)
	{
		if (rd_kafka_flush(state->rk, 100) != RD_KAFKA_RESP_ERR_NO_ERROR)
			rd_kafka_poll(state->rk, 0);
		poll_at_least_once(state);
	}
}

static int
kafka_poll_fd(Publisher *pub)
{
	return ((KafkaState *) pub->state)->wakeup[0];
}

static const PublisherOps kafka_ops = {
	.kind = "kafka",
	.open = kafka_open,
	.publish = kafka_publish,
	.poll = kafka_poll,
	.flush = kafka_flush,
	.poll_fd = kafka_poll_fd,
	.poll_ms = IDLE_POLL_MS
};

int
main(void)
{
	return publisher_main(&kafka_ops);
}
