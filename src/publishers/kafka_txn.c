/*
 * kafka_txn.c
 *
 * Exactly once: events and the position reached are written in one transaction.
 *
 * The position is a group's offset of partition 0 of the position topic: the
 * seq of the last event, whatever became of it.  A new instance first takes the
 * transactional id over, which ends its predecessor's transaction one way or
 * the other, and only then reads the position: so it is final.
 *
 * Whenever a transaction does not end well, its outcome is not guessed.  A new
 * instance reads the position, whose metadata names the transaction that wrote
 * it: either that transaction is in the broker, or none of it is and the
 * pending list is sent again.
 *
 * Events that were refused for good lie below the position too; see
 * kafka_position.c for how they are not forgotten.
 */
#include "publishers/kafka.h"
#include "publishers/points.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * A transaction ends when the input runs dry, or at one of these.  Nothing can
 * be sent while it ends: so a large one first waits for more, for a part of
 * what the latest end has taken.
 */
#define TXN_MAX_EVENTS		50000
#define TXN_LARGE_EVENTS	500
#define TXN_LARGE_WAIT_MS	3
#define TXN_LARGE_WAIT_MAX_MS	30
#define TXN_MAX_BYTES		((size_t) 64 * 1024 * 1024)
#define TXN_MAX_MS			1000

/*
 * After a transaction has ended the broker still writes that to its topics, and
 * who begins the next meanwhile is refused: the library waits 20 ms then.
 */
#define TXN_GAP_MS			3

/* Small enough to be through before the transaction times out */
#define ISOLATED_EVENTS		200

/*
 * A commit that took longer may have been sent twice, and one that comes late
 * could end the next transaction; a new instance makes it void.
 */
#define COMMIT_SUSPECT_MS	5000

/* Instances in a row without progress, before the relay is told */
#define MAX_ATTEMPTS		5

/* The broker forgets positions and transactional ids after a week by default. */
#define REFRESH_MS			((int64_t) 20 * 3600 * 1000)

#define MIN_BATCH_SIZE		1000

/*----------
 * Refused events
 *----------
 */

/* An event of the stream is refused: the next position covers it. */
void
kafka_txn_refused(KafkaState *state, const EoEventMessage *event)
{
	if (event->flags & EO_EVENT_RETRY)
		return;
	if (!kafka_refused_has(state, event->seq))
		kafka_refused_add(state, event->seq);
	if (state->count == 0 || event->seq > state->last_seq)
		state->last_seq = event->seq;
}

/*
 * Settles an event that was sent again only because of refused ones before it.
 * An event at or below what the relay was told is a wanted repetition.
 */
bool
kafka_txn_skips(KafkaState *state, const EoEventMessage *event, uint64_t token)
{
	if (state->skip_seq == 0 || (event->flags & EO_EVENT_RETRY))
		return false;
	if (event->seq <= state->reported_seq || event->seq > state->skip_seq)
	{
		state->skip_seq = 0;
		return false;
	}
	if (kafka_refused_has(state, event->seq))
	{
		const char *why = kafka_topic_refusal(state,
											  kafka_topic_get(state, event->topic),
											  event);

		publisher_settle(state->pub, token, SETTLE_REFUSED,
						 why ? why : "Kafka refused the event when it was first sent");
	}
	else
		publisher_settle(state->pub, token, SETTLE_DURABLE, NULL);
	return true;
}

/*----------
 * Instances
 *----------
 */

static void
fail_if_fenced(KafkaState *state, rd_kafka_resp_err_t code)
{
	if (code == RD_KAFKA_RESP_ERR__FENCED ||
		code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
		code == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH)
		publisher_fail(state->pub, "fenced: another publisher has taken over the transactional id \"%s\"",
					   state->identity);
}

/* Takes the transactional id over, which ends the transaction of whoever had it. */
static void
take_over(KafkaState *state)
{
	int64_t		deadline = kafka_now_ms() + state->connect_timeout_ms;
	rd_kafka_error_t *error;

	while ((error = rd_kafka_init_transactions(state->rk, 5000)) != NULL)
	{
		rd_kafka_poll(state->rk, 0);
		if (!rd_kafka_error_is_retriable(error) || kafka_now_ms() > deadline)
			publisher_fail(state->pub, "cannot take over the transactional id \"%s\": %s",
						   state->identity, rd_kafka_error_string(error));
		rd_kafka_error_destroy(error);
	}
}

/*
 * Starts a new instance.  Returns whether the position was written by the
 * transaction named last; otherwise it must be the one before.
 */
static bool
renew(KafkaState *state)
{
	int64_t		expected = state->stored_seq;
	char		metadata[KAFKA_METADATA_MAX + 1];
	char		txn[KAFKA_TXN_NAME] = "";

	rd_kafka_poll(state->rk, 0);
	kafka_disconnect(state);
	kafka_connect(state);
	take_over(state);
	kafka_position_read(state, metadata);
	state->stored_at = kafka_now_ms();
	sscanf(metadata, "txn=%32[0-9a-f]", txn);
	if (state->txn_name[0] != '\0' && strcmp(txn, state->txn_name) == 0)
		return true;
	if (state->stored_seq != expected)
		publisher_fail(state->pub, "Kafka's position for group \"%s\" is %" PRId64 " and should be %" PRId64 ": something else writes it",
					   state->identity, state->stored_seq, expected);
	return false;
}

void
kafka_txn_open(KafkaState *state, const EoConfigMessage *config)
{
	char		metadata[KAFKA_METADATA_MAX + 1];

	state->published_seq = config->published_seq;
	state->group = rd_kafka_consumer_group_metadata_new(state->identity);
	kafka_position_prepare(state);
	take_over(state);
	kafka_position_read(state, metadata);
	state->stored_at = kafka_now_ms();
	state->last_seq = state->stored_seq >= 0 ? state->stored_seq : config->published_seq;
	if (state->stored_seq < 0)
	{
		publisher_position(state->pub, 0);
		return;
	}
	kafka_refused_read(state, metadata);
	state->reported_seq = state->stored_seq;
	for (size_t i = 0; i < state->refused_count; i++)
	{
		if (state->refused[i] <= state->reported_seq)
			state->reported_seq = state->refused[i] - 1;
	}
	if (state->reported_seq < state->stored_seq)
		state->skip_seq = state->stored_seq;
	publisher_position(state->pub, state->reported_seq);
}

/*----------
 * Transactions
 *----------
 */

/* A name that no other transaction has, of this process or another */
static void
name_transaction(KafkaState *state)
{
	static uint64_t process;
	static uint64_t counter;
	FILE	   *random;

	if (process == 0)
	{
		random = fopen("/dev/urandom", "r");
		if (random == NULL || fread(&process, sizeof(process), 1, random) != 1)
			process = ((uint64_t) getpid() << 32) ^ (uint64_t) kafka_now_ms();
		if (random)
			fclose(random);
	}
	snprintf(state->txn_name, KAFKA_TXN_NAME, "%016" PRIx64 "%08" PRIx64, process,
			 ++counter & 0xffffffff);
}

static bool
begin(KafkaState *state)
{
	int64_t		early = state->stored_at + TXN_GAP_MS - kafka_now_ms();
	rd_kafka_error_t *error;

	if (early > 0)
		(void) poll(NULL, 0, (int) early);
	error = rd_kafka_begin_transaction(state->rk);
	name_transaction(state);
	state->txn_start = kafka_now_ms();
	state->waited_ms = 0;
	if (error == NULL)
		return true;
	snprintf(state->last_error, sizeof(state->last_error), "%s",
			 rd_kafka_error_string(error));
	rd_kafka_error_destroy(error);
	return false;
}

static rd_kafka_error_t *
send_position(KafkaState *state, int64_t seq)
{
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *offset =
		rd_kafka_topic_partition_list_add(offsets, state->position_topic, 0);
	char		metadata[KAFKA_METADATA_SIZE];
	rd_kafka_error_t *error;

	kafka_position_describe(state, seq, metadata);
	offset->offset = seq;
	offset->metadata = metadata;
	offset->metadata_size = strlen(metadata);
	error = rd_kafka_send_offsets_to_transaction(state->rk, offsets, state->group, -1);
	/* The metadata is ours. */
	offset->metadata = NULL;
	offset->metadata_size = 0;
	rd_kafka_topic_partition_list_destroy(offsets);
	return error;
}

/* Returns whether to call again. */
static bool
try_again(KafkaState *state, rd_kafka_error_t *error, int64_t deadline)
{
	bool		again;

	if (error == NULL)
		return false;
	snprintf(state->last_error, sizeof(state->last_error), "%s",
			 rd_kafka_error_string(error));
	fail_if_fenced(state, rd_kafka_error_code(error));
	again = rd_kafka_error_is_retriable(error) && kafka_now_ms() < deadline;
	if (again)
		rd_kafka_error_destroy(error);
	return again;
}

/*
 * Commits what was begun, with the position.  On failure the outcome is open:
 * renew() tells.
 */
static bool
end(KafkaState *state, int64_t seq)
{
	int64_t		start = kafka_now_ms();
	int64_t		deadline = start + state->connect_timeout_ms;
	rd_kafka_error_t *error;

	while (try_again(state, error = send_position(state, seq), deadline))
		;
	PUBLISHER_POINT(state->pub, kafka_commit);
	if (error == NULL)
	{
		while (try_again(state, error = rd_kafka_commit_transaction(state->rk, -1), deadline))
			;
	}
	if (error)
	{
		rd_kafka_error_destroy(error);
		return false;
	}
	PUBLISHER_POINT(state->pub, kafka_committed);
	state->stored_seq = seq;
	state->stored_at = kafka_now_ms();
	state->end_ms = state->stored_at - start;
	if (state->end_ms > COMMIT_SUSPECT_MS)
		state->disturbed = true;
	return true;
}

/* Settles the first `count` entries: they are in the broker. */
static void
settle(KafkaState *state, size_t count)
{
	char		reason[256];

	while (count-- > 0)
	{
		KafkaEntry *entry = state->head;

		if (entry->refused)
		{
			snprintf(reason, sizeof(reason), "Kafka topic \"%s\": %s",
					 entry->topic->name, rd_kafka_err2str(entry->error));
			publisher_settle(state->pub, entry->token, SETTLE_REFUSED, reason);
		}
		else
			publisher_settle(state->pub, entry->token, SETTLE_DURABLE, NULL);
		kafka_entry_remove(state, entry);
	}
}

/*
 * Sends the first entries of the list in a transaction of their own.  Returns
 * their number, and in *sent whether they are in the broker for sure.
 */
static size_t
resend(KafkaState *state, bool *sent)
{
	int64_t		seq = state->stored_seq >= 0 ? state->stored_seq : state->published_seq;
	KafkaEntry *entry = state->head;
	size_t		count = 0;

	*sent = begin(state);
	for (; entry && *sent; entry = entry->next)
	{
		if (state->isolating && count == ISOLATED_EVENTS)
			break;
		count++;
		if (!(entry->event.flags & EO_EVENT_RETRY))
			seq = entry->event.seq;
		if (!entry->refused &&
			kafka_produce(state, entry) != RD_KAFKA_RESP_ERR_NO_ERROR)
			*sent = false;
	}
	if (entry == NULL)
		seq = state->last_seq;
	if (*sent)
		*sent = end(state, seq);
	return count;
}

/*
 * Takes stock after a transaction that failed: which entries the broker has
 * refused for good.  Unless they were sent one a batch, others may be innocent.
 */
static bool
take_stock(KafkaState *state)
{
	bool		any = false;

	rd_kafka_poll(state->rk, 0);
	rd_kafka_purge(state->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	rd_kafka_flush(state->rk, 1000);
	for (KafkaEntry *entry = state->head; entry; entry = entry->next)
	{
		if (entry->refused || !kafka_is_refusal(entry->error))
			continue;
		any = true;
		if (state->isolating)
		{
			entry->refused = true;
			state->guilty_found = true;
			kafka_txn_refused(state, &entry->event);
		}
	}
	return any;
}

/*
 * After a transaction over the first `count` entries failed: sends the list
 * again until all of it is settled.
 */
static void
rewind_list(KafkaState *state, size_t count)
{
	int			attempts = 0;
	bool		sent;

	state->guilty_found = false;
	for (;;)
	{
		bool		refusal = take_stock(state);

		publisher_log(state->pub, EO_LOG_WARNING,
					  "a Kafka transaction failed (%s): starting a new producer%s",
					  state->last_error[0] ? state->last_error : "no reason given",
					  refusal && !state->isolating ? ", one event a batch to find what was refused" : "");
		if (++attempts > MAX_ATTEMPTS && !refusal)
			publisher_fail(state->pub, "Kafka transactions failed %d times in a row: %s",
						   attempts, state->last_error);
		if (refusal)
		{
			state->isolating = true;
			kafka_topics_forget(state);
		}
		if (renew(state))
		{
			settle(state, count);
			attempts = 0;
		}
		for (sent = true; state->head && sent;)
		{
			count = resend(state, &sent);
			if (sent)
			{
				settle(state, count);
				attempts = 0;
			}
		}
		if (state->head == NULL)
			break;
	}
	if (state->isolating)
	{
		state->isolating = false;
		if (!state->guilty_found && state->batch_size / 2 >= MIN_BATCH_SIZE)
			state->batch_size /= 2;
		state->disturbed = true;
	}
}

void
kafka_txn_commit(KafkaState *state)
{
	size_t		count = state->count;

	if (count > 0)
	{
		if (end(state, state->last_seq))
			settle(state, count);
		else
			rewind_list(state, count);
	}
	rd_kafka_poll(state->rk, 0);
	if (state->disturbed && state->head == NULL)
		renew(state);
}

/*----------
 * Operations
 *----------
 */

PublishResult
kafka_txn_publish(KafkaState *state, KafkaTopic *topic, const EoEventMessage *event,
				  uint64_t token)
{
	KafkaEntry *entry;
	bool		good = true;

	if (topic->max_bytes > 0 && (size_t) state->batch_size > topic->max_bytes)
	{
		publisher_log(state->pub, EO_LOG_INFO,
					  "Kafka topic \"%s\" takes batches of at most %zu bytes: batch.size is %ld no longer",
					  topic->name, topic->max_bytes, state->batch_size);
		kafka_txn_commit(state);
		state->batch_size = (long) topic->max_bytes;
		renew(state);
	}

	entry = kafka_entry_add(state, topic, event, token);
	if (!(event->flags & EO_EVENT_RETRY))
		state->last_seq = event->seq;
	if (state->count == 1)
	{
		good = begin(state);
		PUBLISHER_POINT(state->pub, kafka_begun);
	}
	if (good)
		good = kafka_produce(state, entry) == RD_KAFKA_RESP_ERR_NO_ERROR;
	PUBLISHER_POINT(state->pub, kafka_produced);
	if (!good)
		rewind_list(state, 0);
	else if (state->count >= TXN_MAX_EVENTS || state->bytes >= TXN_MAX_BYTES ||
			 ((state->count & 63) == 0 && kafka_now_ms() - state->txn_start >= TXN_MAX_MS))
		kafka_txn_commit(state);
	return PUBLISH_TAKEN;
}

/*
 * Whether the relay has sent more, or does so soon: the transaction may grow.
 * What is waited for that counts for all of the transaction, or one that always
 * comes before the wait is over would keep it open for as long as it may be.
 */
static bool
input_waits(KafkaState *state)
{
	int64_t		start = kafka_now_ms();
	int64_t		ms = state->end_ms / 4;
	struct pollfd fd = {STDIN_FILENO, POLLIN, 0};
	bool		waits;

	if (ms < TXN_LARGE_WAIT_MS)
		ms = TXN_LARGE_WAIT_MS;
	else if (ms > TXN_LARGE_WAIT_MAX_MS)
		ms = TXN_LARGE_WAIT_MAX_MS;
	ms -= state->waited_ms;
	if (state->count < TXN_LARGE_EVENTS || ms < 0)
		ms = 0;
	waits = poll(&fd, 1, (int) ms) == 1 && (fd.revents & POLLIN);
	state->waited_ms += kafka_now_ms() - start;
	return waits;
}

void
kafka_txn_poll(KafkaState *state)
{
	fail_if_fenced(state, state->broken);
	if (state->broken && state->count > 0)
		rewind_list(state, 0);
	else if (state->count > 0)
	{
		if (!input_waits(state) || kafka_now_ms() - state->txn_start >= TXN_MAX_MS)
			kafka_txn_commit(state);
	}
	else if (state->broken || state->disturbed)
		renew(state);
	else if (state->stored_seq >= 0 && kafka_now_ms() - state->stored_at >= REFRESH_MS)
	{
		if (!begin(state) || !end(state, state->last_seq))
			renew(state);
	}
}
