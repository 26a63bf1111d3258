/*
 * kafka_position.c
 *
 * The position that an exactly-once publisher keeps in Kafka.
 *
 * It is a group's offset of partition 0 of the position topic, with metadata
 * that names the transaction that wrote it.
 *
 * Events that were refused for good lie below the position too, and the relay
 * may not have learnt of them when both ends die.  Their seqs travel in the
 * metadata until the relay shows, by what it says at a start, that it has seen
 * them; until then the relay is told of a position before the first of them,
 * and what it sends again up to the true position is not sent on.
 */
#include "publishers/kafka.h"
#include "publishers/points.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POSITION_PATIENCE_MS	5000

/*----------
 * Refused events
 *----------
 */

void
kafka_refused_add(KafkaState *state, int64_t seq)
{
	if ((state->refused_count & (state->refused_count + 1)) == 0)
	{
		size_t		cap = state->refused_count * 2 + 2;

		state->refused = realloc(state->refused, cap * sizeof(int64_t));
		if (state->refused == NULL)
			publisher_fail(state->pub, "out of memory");
	}
	state->refused[state->refused_count++] = seq;
}

bool
kafka_refused_has(const KafkaState *state, int64_t seq)
{
	for (size_t i = 0; i < state->refused_count; i++)
	{
		if (state->refused[i] == seq)
			return true;
	}
	return false;
}

static int
compare_seqs(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return x < y ? -1 : x > y;
}

/*
 * "txn=NAME" and, where events up to `seq` were refused, ";refused=" and their
 * distances in hexadecimal, from the position backwards.
 */
void
kafka_position_describe(KafkaState *state, int64_t seq, char out[KAFKA_METADATA_SIZE])
{
	size_t		len = (size_t) snprintf(out, KAFKA_METADATA_SIZE, "txn=%s", state->txn_name);
	const char *glue = ";refused=";
	int64_t		from = seq;

	if (state->refused_count > 0)
		qsort(state->refused, state->refused_count, sizeof(int64_t), compare_seqs);
	for (size_t i = state->refused_count; i-- > 0;)
	{
		if (state->refused[i] > seq)
			continue;
		if (len + 32 > KAFKA_METADATA_SIZE)
			publisher_fail(state->pub, "Kafka refused more events than can be noted beside the position: starting again, to see which of them are dealt with");
		len += (size_t) snprintf(out + len, KAFKA_METADATA_SIZE - len, "%s%" PRIx64, glue,
								 (uint64_t) (from - state->refused[i]));
		from = state->refused[i];
		glue = ",";
	}
}

void
kafka_refused_read(KafkaState *state, const char *metadata)
{
	const char *at = strstr(metadata, "refused=");
	int64_t		seq = state->stored_seq;
	char	   *end;

	for (at = at ? at + 8 : ""; *at; at = *end == ',' ? end + 1 : end)
	{
		seq -= (int64_t) strtoull(at, &end, 16);
		if (end == at)
			break;
		if (seq > state->published_seq)
			kafka_refused_add(state, seq);
	}
}

/*----------
 * The position
 *----------
 */

void
kafka_position_prepare(KafkaState *state)
{
	char		reason[256] = "";
	rd_kafka_NewTopic_t *topic =
		rd_kafka_NewTopic_new(state->position_topic, 1, -1, reason, sizeof(reason));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(state->rk);
	const rd_kafka_topic_result_t **results;
	rd_kafka_event_t *event;
	rd_kafka_resp_err_t error;
	size_t		count = 0;

	if (topic == NULL)
		publisher_fail(state->pub, "option \"position_topic\": %s", reason);
	rd_kafka_CreateTopics(state->rk, &topic, 1, NULL, queue);
	event = rd_kafka_queue_poll(queue, state->connect_timeout_ms);
	error = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		results = rd_kafka_CreateTopics_result_topics(
			rd_kafka_event_CreateTopics_result(event), &count);
		if (count == 1)
			error = rd_kafka_topic_result_error(results[0]);
	}
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_NewTopic_destroy(topic);

	/* It may exist even where we may not create it. */
	if (kafka_topic_lookup(state, state->position_topic, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		publisher_fail(state->pub, "cannot create Kafka topic \"%s\", beside which positions are kept: %s",
					   state->position_topic, rd_kafka_err2str(error));
}

/*
 * Asks once; see kafka_position_read().
 *
 * A request must not time out in librdkafka: when the group's coordinator comes
 * up later, what the request held is used after it was freed, and the process
 * dies (in 2.0; the code is the same in 2.14).  So we give up first, and the
 * client goes with the request.
 */
static rd_kafka_resp_err_t
fetch_position(KafkaState *state, char metadata[KAFKA_METADATA_MAX + 1])
{
	rd_kafka_t *reader = kafka_open_reader(state);
	rd_kafka_topic_partition_list_t *wanted = rd_kafka_topic_partition_list_new(1);
	rd_kafka_ListConsumerGroupOffsets_t *request;
	rd_kafka_AdminOptions_t *options =
		rd_kafka_AdminOptions_new(reader, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(reader);
	const rd_kafka_group_result_t **groups;
	const rd_kafka_topic_partition_list_t *found;
	rd_kafka_event_t *event;
	rd_kafka_resp_err_t error;
	char		reason[256];
	size_t		count = 0;

	rd_kafka_topic_partition_list_add(wanted, state->position_topic, 0);
	request = rd_kafka_ListConsumerGroupOffsets_new(state->identity, wanted);
	rd_kafka_error_destroy(rd_kafka_AdminOptions_set_require_stable_offsets(options, 1));
	rd_kafka_AdminOptions_set_request_timeout(options, 10 * POSITION_PATIENCE_MS, reason, sizeof(reason));
	rd_kafka_ListConsumerGroupOffsets(reader, &request, 1, options, queue);
	event = rd_kafka_queue_poll(queue, POSITION_PATIENCE_MS);
	error = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
	state->stored_seq = -1;
	metadata[0] = '\0';
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
			rd_kafka_event_ListConsumerGroupOffsets_result(event), &count);
		error = count != 1 ? RD_KAFKA_RESP_ERR__FAIL
			: rd_kafka_group_result_error(groups[0])
			? rd_kafka_error_code(rd_kafka_group_result_error(groups[0]))
			: RD_KAFKA_RESP_ERR_NO_ERROR;
	}
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		found = rd_kafka_group_result_partitions(groups[0]);
		if (found && found->cnt == 1)
		{
			error = found->elems[0].err;
			if (error == RD_KAFKA_RESP_ERR_NO_ERROR && found->elems[0].offset >= 0)
			{
				state->stored_seq = found->elems[0].offset;
				snprintf(metadata, KAFKA_METADATA_MAX + 1, "%.*s",
						 (int) found->elems[0].metadata_size,
						 found->elems[0].metadata ? (char *) found->elems[0].metadata : "");
			}
		}
	}
	else if (error == RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND)
		error = RD_KAFKA_RESP_ERR_NO_ERROR;
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ListConsumerGroupOffsets_destroy(request);
	rd_kafka_topic_partition_list_destroy(wanted);
	kafka_close_reader(reader);
	return error;
}

/* Sets stored_seq and returns what was written beside it. */
void
kafka_position_read(KafkaState *state, char metadata[KAFKA_METADATA_MAX + 1])
{
	int64_t		deadline = kafka_now_ms() + state->connect_timeout_ms;
	rd_kafka_resp_err_t error;

	PUBLISHER_POINT(state->pub, kafka_position);
	while ((error = fetch_position(state, metadata)) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		/* Until the deadline: the coordinator may be loading or moving. */
		if (kafka_now_ms() > deadline ||
			error == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
			error == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
			publisher_fail(state->pub, "cannot read the position that Kafka keeps for group \"%s\": %s",
						   state->identity, rd_kafka_err2str(error));
		rd_kafka_poll(state->rk, 50);
	}
}
