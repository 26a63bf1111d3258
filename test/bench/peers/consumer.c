/*
 * consumer.c
 *
 * Reads a topic from its start, as a consumer of any peer's events would, and
 * keeps account of what it gets.
 *
 *		consumer BROKERS TOPIC GREATEST_ID KEYS JOURNAL
 *
 * A message carries the id of its event as #<id># somewhere in its value.  The
 * ids of a key (id modulo KEYS) are committed in rising order.  For each line on
 * standard input, prints one line:
 *
 *		MESSAGES DISTINCT DUPLICATES DISORDERED STRANGE FIRST_US LAST_US
 *
 * DISTINCT are ids seen, DUPLICATES messages of ids seen before, DISORDERED ids
 * seen first after a greater one of their key, STRANGE messages without an id;
 * the times (microseconds since 1970) are of the first and of the latest
 * distinct id.  At the end of the input, writes the time of each id's first
 * receipt to the file JOURNAL, as GREATEST_ID + 1 64-bit numbers, 0 if none.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

static int64_t *received_at;	/* by id */
static int64_t *latest;			/* by key: the greatest id seen */
static int64_t greatest_id;
static int64_t keys;

static int64_t messages;
static int64_t distinct;
static int64_t duplicates;
static int64_t disordered;
static int64_t strange;
static int64_t first_us;
static int64_t last_us;

static void
die(const char *what)
{
	fprintf(stderr, "consumer: %s\n", what);
	exit(1);
}

/* The id in a message's value, or -1. */
static int64_t
id_of(const char *value, size_t size)
{
	const char *end = value + size;
	const char *p = value;

	while (p < end && (p = memchr(p, '#', (size_t) (end - p))) != NULL)
	{
		int64_t		id = 0;
		const char *digit = ++p;

		while (digit < end && *digit >= '0' && *digit <= '9' && id <= greatest_id)
			id = id * 10 + (*digit++ - '0');
		if (digit > p && digit < end && *digit == '#')
			return id <= greatest_id ? id : -1;
	}
	return -1;
}

static void
count(const rd_kafka_message_t *message)
{
	int64_t		id = id_of(message->payload, message->len);

	messages++;
	if (id < 0)
	{
		strange++;
		return;
	}
	if (received_at[id] != 0)
	{
		duplicates++;
		return;
	}
	received_at[id] = last_us = now_us();
	if (distinct++ == 0)
		first_us = last_us;
	if (id < latest[id % keys])
		disordered++;
	else
		latest[id % keys] = id;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) != RD_KAFKA_CONF_OK)
		die(reason);
}

static rd_kafka_t *
connect_to(const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char		reason[256];

	set(conf, "bootstrap.servers", brokers);
	set(conf, "group.id", "bench");
	set(conf, "enable.auto.commit", "false");
	set(conf, "auto.offset.reset", "earliest");
	set(conf, "isolation.level", "read_committed");
	set(conf, "fetch.wait.max.ms", "500");
	set(conf, "reconnect.backoff.ms", "50");
	set(conf, "reconnect.backoff.max.ms", "200");
	set(conf, "log_level", "0");
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (rk == NULL)
		die(reason);
	rd_kafka_poll_set_consumer(rk);
	return rk;
}

/* All partitions from their start. */
static void
assign(rd_kafka_t *rk, const char *name)
{
	rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);

	if (rd_kafka_metadata(rk, 0, topic, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR ||
		metadata->topic_cnt != 1 || metadata->topics[0].partition_cnt == 0)
		die("no broker answers, or there is no such topic");
	for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
		rd_kafka_topic_partition_list_add(list, name, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
	if (rd_kafka_assign(rk, list) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die("the partitions cannot be assigned");
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(topic);
}

/* Answers what was asked on standard input; false at its end. */
static bool
answer(void)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	char		line[64];

	if (poll(&input, 1, 0) <= 0)
		return true;
	if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
		return false;
	printf("%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n",
		   messages, distinct, duplicates, disordered, strange, first_us, last_us);
	fflush(stdout);
	return true;
}

static void
write_journal(const char *path)
{
	FILE	   *file = fopen(path, "w");

	if (file == NULL ||
		fwrite(received_at, sizeof(int64_t), (size_t) greatest_id + 1, file) != (size_t) greatest_id + 1 ||
		fclose(file) != 0)
		die("the journal cannot be written");
}

int
main(int argc, char **argv)
{
	rd_kafka_t *rk;
	int64_t		since_asked = 0;

	if (argc != 6 || (greatest_id = atoll(argv[3])) < 1 || (keys = atoll(argv[4])) < 1)
		die("usage: consumer BROKERS TOPIC GREATEST_ID KEYS JOURNAL");
	received_at = calloc((size_t) greatest_id + 1, sizeof(int64_t));
	latest = calloc((size_t) keys, sizeof(int64_t));
	if (received_at == NULL || latest == NULL)
		die("out of memory");
	rk = connect_to(argv[1]);
	assign(rk, argv[2]);
	for (;;)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, 20);

		/* Errors are of brokers that are away, and pass. */
		if (message != NULL)
		{
			if (!message->err)
				count(message);
			rd_kafka_message_destroy(message);
		}
		if ((message == NULL || ++since_asked % 1000 == 0) && !answer())
			break;
	}
	write_journal(argv[5]);
	/* Leaving in good order would take its time, and there is nothing to save. */
	fflush(NULL);
	_exit(0);
}
