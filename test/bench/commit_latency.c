/*
 * commit_latency.c
 *
 * Transactions of one event each at a steady rate, and how long they take.
 *
 *		commit_latency CLIENTS PER_SECOND SECONDS PAYLOAD [SUBSCRIPTION]
 *
 * Each client is a thread with a connection (libpq's environment variables) and
 * an even share of the rate.  The time of a transaction runs from sending it to
 * its end.  With a subscription, every tenth transaction of a client then waits
 * until its event is published (eo.wait_published), and the time from commit to
 * acknowledgement is taken; not every one, because the waiting itself costs.
 * The first second warms up and is not counted.
 */
#define _GNU_SOURCE
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"

#define WAIT_EVERY	10

typedef struct Client
{
	pthread_t	thread;
	int			number;
	double	   *commits;		/* ms */
	double	   *acks;
	int			ncommits;
	int			nacks;
} Client;

static int	nclients;
static double per_second;
static double duration;
static const char *payload;
static const char *subscription;
static double begun;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "commit_latency: %s: %s\n", what, why);
	exit(1);
}

static void
sleep_until(double ms)
{
	struct timespec ts;

	ts.tv_sec = (time_t) (ms / 1e3);
	ts.tv_nsec = (long) ((ms - (double) ts.tv_sec * 1e3) * 1e6);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static void
execute(PGconn *conn, const char *name, const char *value)
{
	PGresult   *result = PQexecPrepared(conn, name, 1, &value, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die(name, PQerrorMessage(conn));
	if (strcmp(name, "wait") == 0 && strcmp(PQgetvalue(result, 0, 0), "t") != 0)
		die(name, "not published in time");
	PQclear(result);
}

static PGconn *
open_connection(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		die("connect", PQerrorMessage(conn));
	PQclear(PQprepare(conn, "enqueue",
					  "SELECT eo.enqueue('orders', $1::jsonb, 'customer-4711', 'order.created')",
					  0, NULL));
	PQclear(PQprepare(conn, "wait",
					  "SELECT eo.wait_published($1, eo.last_seq(), '30 s')", 0, NULL));
	return conn;
}

static void *
run_client(void *arg)
{
	Client	   *client = arg;
	PGconn	   *conn = open_connection();
	double		interval = nclients * 1e3 / per_second;
	int			warm = (int) (per_second / nclients);
	int			total = warm + (int) (per_second * duration / nclients);

	client->commits = malloc(sizeof(double) * (size_t) total);
	client->acks = malloc(sizeof(double) * (size_t) total);
	if (client->commits == NULL || client->acks == NULL)
		die("malloc", "out of memory");
	for (int i = 0; i < total; i++)
	{
		double		sent;
		double		committed;

		sleep_until(begun + (i + (double) client->number / nclients) * interval);
		sent = now_ms();
		execute(conn, "enqueue", payload);
		committed = now_ms();
		if (i >= warm)
			client->commits[client->ncommits++] = committed - sent;
		if (subscription == NULL || (i + client->number) % WAIT_EVERY != 0)
			continue;
		execute(conn, "wait", subscription);
		if (i >= warm)
			client->acks[client->nacks++] = now_ms() - committed;
	}
	PQfinish(conn);
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
report(const char *what, double *times, int count)
{
	if (count == 0)
		return;
	qsort(times, (size_t) count, sizeof(double), compare);
	printf("%s p50 %.3f ms p99 %.3f ms max %.3f ms of %d\n", what, times[count / 2],
		   times[(int) (count * 0.99)], times[count - 1], count);
}

int
main(int argc, char **argv)
{
	Client	   *clients;
	double	   *commits;
	double	   *acks;
	int			ncommits = 0;
	int			nacks = 0;
	double		took;

	if (argc < 5)
		die("usage", "commit_latency CLIENTS PER_SECOND SECONDS PAYLOAD [SUBSCRIPTION]");
	nclients = atoi(argv[1]);
	per_second = atof(argv[2]);
	duration = atof(argv[3]);
	payload = argv[4];
	subscription = argc > 5 ? argv[5] : NULL;
	if (nclients < 1 || per_second < nclients || duration < 1)
		die("usage", "impossible numbers");
	clients = calloc((size_t) nclients, sizeof(Client));
	commits = malloc(sizeof(double) * (size_t) (per_second * (duration + 1)));
	acks = malloc(sizeof(double) * (size_t) (per_second * (duration + 1)));
	if (clients == NULL || commits == NULL || acks == NULL)
		die("malloc", "out of memory");
	begun = now_ms() + 200;
	for (int i = 0; i < nclients; i++)
	{
		clients[i].number = i;
		if (pthread_create(&clients[i].thread, NULL, run_client, &clients[i]) != 0)
			die("pthread_create", "failed");
	}
	for (int i = 0; i < nclients; i++)
	{
		pthread_join(clients[i].thread, NULL);
		memcpy(commits + ncommits, clients[i].commits, sizeof(double) * (size_t) clients[i].ncommits);
		memcpy(acks + nacks, clients[i].acks, sizeof(double) * (size_t) clients[i].nacks);
		ncommits += clients[i].ncommits;
		nacks += clients[i].nacks;
	}
	took = (now_ms() - begun) / 1e3;
	report("commit", commits, ncommits);
	report("acknowledged", acks, nacks);
	printf("rate %.0f/s\n", per_second * (duration + 1) / took);
	free(commits);
	free(acks);
	return 0;
}
