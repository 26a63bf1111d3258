/*
 * load.c
 *
 * Transactions of one event each, at a steady rate or as fast as they go.
 *
 *		load CLIENTS PER_SECOND SECONDS FIRST_ID KEYS BEFORE AFTER STATEMENT VALUES TOPIC JOURNAL
 *
 * Each client is a thread with a connection (libpq's environment variables) and
 * an even share of the rate.  STATEMENT adds one event; VALUES names what its
 * parameters are, a letter each: t (topic), k (key: "customer-" and the id
 * modulo KEYS), p (payload: BEFORE, the id in 12 digits, AFTER).  The ids of a
 * key belong to one client, if CLIENTS divides KEYS, and so are committed in
 * rising order.
 *
 * A statement that fails is not tried again; the client connects again, and goes
 * on.  Prints the times of the statements that committed, how many failed, and
 * the rate; writes to JOURNAL, for each id from FIRST_ID on, when the statement
 * was sent and when it was known to be committed: two 64-bit numbers,
 * microseconds since 1970, the latter 0 if it is not known to be.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"

#define MAX_VALUES	3

typedef struct Times
{
	int64_t		sent;
	int64_t		committed;
} Times;

typedef struct Client
{
	pthread_t	thread;
	int			number;
	int64_t		failed;
} Client;

static int	nclients;
static double per_second;
static double duration;
static int64_t first_id;
static int64_t keys;
static const char *before;
static const char *after;
static const char *statement;
static const char *values;
static const char *topic;
static Times *journal;			/* by id, less first_id */
static int64_t total;
static int64_t begun;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "load: %s: %s\n", what, why);
	exit(1);
}

static void
sleep_until(int64_t us)
{
	struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL);
}

/* Servers that go away say so at length. */
static void
ignore_notice(void *arg, const char *message)
{
	(void) arg;
	(void) message;
}

/* Connects until it succeeds, or the time is over. */
static PGconn *
open_connection(int64_t until)
{
	for (;;)
	{
		PGconn	   *conn = PQconnectdb("");
		PGresult   *result = NULL;

		PQsetNoticeProcessor(conn, ignore_notice, NULL);
		if (PQstatus(conn) == CONNECTION_OK)
		{
			result = PQprepare(conn, "write", statement, 0, NULL);
			if (PQresultStatus(result) == PGRES_COMMAND_OK)
			{
				PQclear(result);
				return conn;
			}
			/* A mistake in the statement, unless the server is going away. */
			if (PQstatus(conn) == CONNECTION_OK)
				die(statement, PQerrorMessage(conn));
		}
		if (now_us() > until)
			die("connect", PQerrorMessage(conn));
		PQclear(result);
		PQfinish(conn);
		sleep_until(now_us() + 20000);
	}
}

static int
write_event(PGconn *conn, int64_t id)
{
	char		key[32];
	char		payload[1024];
	const char *parameters[MAX_VALUES];
	PGresult   *result;
	int			done;

	snprintf(key, sizeof(key), "customer-%" PRId64, id % keys);
	snprintf(payload, sizeof(payload), "%s%012" PRId64 "%s", before, id, after);
	for (int i = 0; values[i] != '\0'; i++)
		parameters[i] = values[i] == 't' ? topic : values[i] == 'k' ? key : payload;
	result = PQexecPrepared(conn, "write", (int) strlen(values), parameters, NULL, NULL, 0);
	done = PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK;
	/* Whatever is not a server that goes away is worth a word. */
	if (!done && PQresultErrorField(result, PG_DIAG_SQLSTATE) != NULL &&
		strncmp(PQresultErrorField(result, PG_DIAG_SQLSTATE), "57", 2) != 0)
		fprintf(stderr, "load: %s", PQerrorMessage(conn));
	PQclear(result);
	return done;
}

static void *
run_client(void *arg)
{
	Client	   *client = arg;
	int64_t		end = begun + (int64_t) (duration * 1e6);
	PGconn	   *conn = open_connection(end);

	for (int64_t number = client->number; number < total; number += nclients)
	{
		Times	   *times = &journal[number];

		sleep_until(begun + (int64_t) ((double) number * 1e6 / per_second));
		times->sent = now_us();
		if (times->sent >= end)
			break;
		if (write_event(conn, first_id + number))
			times->committed = now_us();
		else
		{
			client->failed++;
			PQfinish(conn);
			conn = open_connection(end + 60000000);
		}
	}
	PQfinish(conn);
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return x < y ? -1 : x > y;
}

static void
report(int64_t failed)
{
	int64_t    *took = malloc(sizeof(int64_t) * (size_t) total);
	int64_t		count = 0;
	int64_t		p50;
	int64_t		p99;
	int64_t		p999;

	if (took == NULL)
		die("malloc", "out of memory");
	for (int64_t i = 0; i < total; i++)
		if (journal[i].committed != 0)
			took[count++] = journal[i].committed - journal[i].sent;
	if (count == 0)
		die("the load", "committed nothing");
	qsort(took, (size_t) count, sizeof(int64_t), compare);
	p50 = took[count / 2];
	p99 = took[count * 99 / 100];
	p999 = took[count * 999 / 1000];
	printf("committed %" PRId64 " failed %" PRId64 " rate %.1f p50 %.3f p99 %.3f p999 %.3f max %.3f\n",
		   count, failed, (double) count / duration,
		   (double) p50 / 1e3, (double) p99 / 1e3, (double) p999 / 1e3,
		   (double) took[count - 1] / 1e3);
	free(took);
}

int
main(int argc, char **argv)
{
	Client	   *clients;
	FILE	   *file;
	int64_t		failed = 0;

	if (argc != 12)
		die("usage", "load CLIENTS PER_SECOND SECONDS FIRST_ID KEYS BEFORE AFTER STATEMENT VALUES TOPIC JOURNAL");
	nclients = atoi(argv[1]);
	per_second = atof(argv[2]);
	duration = atof(argv[3]);
	first_id = atoll(argv[4]);
	keys = atoll(argv[5]);
	before = argv[6];
	after = argv[7];
	statement = argv[8];
	values = argv[9];
	topic = argv[10];
	total = (int64_t) (per_second * duration);
	if (nclients < 1 || total < nclients || keys < 1 || strlen(values) > MAX_VALUES ||
		strlen(before) + strlen(after) > 900)
		die("usage", "impossible numbers");
	clients = calloc((size_t) nclients, sizeof(Client));
	journal = calloc((size_t) total, sizeof(Times));
	if (clients == NULL || journal == NULL)
		die("calloc", "out of memory");
	begun = now_us() + 200000;
	for (int i = 0; i < nclients; i++)
	{
		clients[i].number = i;
		if (pthread_create(&clients[i].thread, NULL, run_client, &clients[i]) != 0)
			die("pthread_create", "failed");
	}
	for (int i = 0; i < nclients; i++)
	{
		pthread_join(clients[i].thread, NULL);
		failed += clients[i].failed;
	}
	report(failed);
	file = fopen(argv[11], "w");
	if (file == NULL || fwrite(journal, sizeof(Times), (size_t) total, file) != (size_t) total ||
		fclose(file) != 0)
		die(argv[11], "cannot be written");
	return 0;
}
