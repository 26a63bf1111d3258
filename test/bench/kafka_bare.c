/*
 * kafka_bare.c
 *
 * The least that a program on librdkafka can do: what the Kafka publisher is
 * measured against.  The same settings, the same messages byte for byte (key,
 * value, headers), one thread, no relay and no frames.
 *
 *		kafka_bare BROKERS TOPIC rate EVENTS PAYLOAD_BYTES [name=value ...]
 *		kafka_bare BROKERS TOPIC latency PER_SECOND SECONDS PAYLOAD_BYTES [name=value ...]
 *
 * The names are properties of the library.  `rate` prints messages per second
 * from the first produce to the last acknowledgement; `latency` prints the time
 * from produce to acknowledgement.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"

static int64_t acknowledged;
static double *latencies;		/* in ms; NULL in rate mode */
static double *produced_at;

static void
die(const char *what)
{
	fprintf(stderr, "kafka_bare: %s\n", what);
	exit(1);
}

static void
delivery_report(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	size_t		number = (size_t) message->_private;

	(void) rk;
	(void) opaque;
	if (message->err)
		die(rd_kafka_err2str(message->err));
	if (latencies)
		latencies[number] = now_ms() - produced_at[number];
	acknowledged++;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) != RD_KAFKA_CONF_OK)
		die(reason);
}

static void
add(rd_kafka_headers_t *headers, const char *name, const char *value)
{
	rd_kafka_header_add(headers, name, -1, value, -1);
}

static void
produce(rd_kafka_t *rk, rd_kafka_topic_t *topic, size_t number, const char *payload,
		size_t size)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(16);
	char		digits[24];

	snprintf(digits, sizeof(digits), "%zu", number + 1);
	add(headers, "ce_specversion", "1.0");
	add(headers, "ce_id", "30313233-3435-3637-3839-616263646566");
	add(headers, "ce_source", "/bench");
	add(headers, "ce_type", "order.created");
	add(headers, "ce_time", "2026-09-21T14:13:20.000000Z");
	add(headers, "ce_sequence", digits);
	add(headers, "ce_topic", "orders");
	add(headers, "ce_position", digits);
	add(headers, "ce_partitionkey", "customer-4711");
	add(headers, "content-type", "application/json");
	for (;;)
	{
		rd_kafka_resp_err_t error =
			rd_kafka_producev(rk, RD_KAFKA_V_RKT(topic),
							  RD_KAFKA_V_VALUE((void *) payload, size),
							  RD_KAFKA_V_KEY("customer-4711", 13),
							  RD_KAFKA_V_HEADERS(headers),
							  RD_KAFKA_V_OPAQUE((void *) number),
							  RD_KAFKA_V_END);

		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			return;
		if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			die(rd_kafka_err2str(error));
		rd_kafka_poll(rk, 10);
	}
}

static void
measure_rate(rd_kafka_t *rk, rd_kafka_topic_t *topic, int64_t events,
			 const char *payload, size_t size)
{
	double		begun = now_ms();
	double		seconds;

	for (int64_t i = 0; i < events; i++)
	{
		produce(rk, topic, (size_t) i, payload, size);
		if ((i & 255) == 0)
			rd_kafka_poll(rk, 0);
	}
	while (acknowledged < events)
		rd_kafka_poll(rk, 100);
	seconds = (now_ms() - begun) / 1e3;
	printf("%" PRId64 " events of %zu bytes in %.3f s: %.0f events/s\n",
		   events, size, seconds, (double) events / seconds);
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
measure_latency(rd_kafka_t *rk, rd_kafka_topic_t *topic, double per_second,
				double duration, const char *payload, size_t size)
{
	int64_t		events = (int64_t) (per_second * duration);
	double		begun;

	latencies = calloc((size_t) events, sizeof(double));
	produced_at = calloc((size_t) events, sizeof(double));
	if (latencies == NULL || produced_at == NULL)
		die("out of memory");
	begun = now_ms();
	for (int64_t i = 0; i < events; i++)
	{
		double		due = begun + (double) i * 1e3 / per_second;
		double		now;

		/* The library's queue wakes us at once when a report comes. */
		while ((now = now_ms()) < due)
			rd_kafka_poll(rk, due - now >= 2 ? 1 : 0);
		produced_at[i] = now_ms();
		produce(rk, topic, (size_t) i, payload, size);
	}
	while (acknowledged < events)
		rd_kafka_poll(rk, 100);
	qsort(latencies, (size_t) events, sizeof(double), compare);
	printf("%" PRId64 " events at %.0f/s: p50 %.3f ms p99 %.3f ms max %.3f ms\n",
		   events, per_second, latencies[events / 2], latencies[events * 99 / 100],
		   latencies[events - 1]);
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;
	const struct rd_kafka_metadata *metadata;
	bool		latency = argc > 3 && strcmp(argv[3], "latency") == 0;
	int			first_option = latency ? 7 : 6;
	char		reason[256];
	char	   *payload;
	size_t		size;

	if (argc < first_option || (!latency && strcmp(argv[3], "rate") != 0))
		die("usage: kafka_bare BROKERS TOPIC rate EVENTS PAYLOAD_BYTES [name=value ...]\n"
			"       kafka_bare BROKERS TOPIC latency PER_SECOND SECONDS PAYLOAD_BYTES [name=value ...]");
	size = (size_t) atoll(argv[first_option - 1]);
	if (size < 2 || (payload = malloc(size)) == NULL)
		die("impossible payload size");
	memset(payload, 'x', size);
	payload[0] = payload[size - 1] = '"';

	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "enable.idempotence", "true");
	set(conf, "acks", "all");
	set(conf, "linger.ms", "0");
	set(conf, "socket.nagle.disable", "true");
	set(conf, "partitioner", "murmur2_random");
	for (int i = first_option; i < argc; i++)
	{
		char	   *equals = strchr(argv[i], '=');

		if (equals == NULL)
			die("a property needs name=value");
		*equals = '\0';
		set(conf, argv[i], equals + 1);
	}
	rd_kafka_conf_set_dr_msg_cb(conf, delivery_report);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	if (rk == NULL)
		die(reason);
	topic = rd_kafka_topic_new(rk, argv[2], NULL);
	/* Connecting is not what is measured. */
	if (rd_kafka_metadata(rk, 0, topic, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die("no broker answers");
	rd_kafka_metadata_destroy(metadata);

	if (latency)
		measure_latency(rk, topic, atof(argv[4]), atof(argv[5]), payload, size);
	else
		measure_rate(rk, topic, atoll(argv[4]), payload, size);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
	free(payload);
	return 0;
}
