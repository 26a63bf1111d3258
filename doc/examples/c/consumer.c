/*
 * consumer.c
 *
 * Books payments, each of them once, however often it is delivered.
 *
 * Takes events from standard input, one a line, as eo_outbox publishes them to
 * a file, and prints the number of each once it is done for good.  That is the
 * acknowledgement: a source begins again after the last number it has read.
 *
 *	cc -o consumer consumer.c transaction.c $(pkg-config --cflags --libs libpq)
 *	tail -n +1 -F /tmp/events.jsonl | ./consumer
 */
#include "transaction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * PostgreSQL takes the event apart.  All of it may stand for its headers: those
 * of interest are taken.
 */
static const char receive_sql[] =
"SELECT eo.receive('booking', e ->> 'id', e) FROM CAST($1 AS jsonb) AS e";

static const char book_sql[] =
"INSERT INTO balance AS b (account, amount)"
" SELECT account, amount"
" FROM jsonb_to_record(CAST($1 AS jsonb) -> 'data') AS payment (account text, amount integer)"
" ON CONFLICT (account) DO UPDATE SET amount = b.amount + EXCLUDED.amount"
" RETURNING to_jsonb(b)";

static const char enqueue_sql[] =
"SELECT eo.enqueue('balances', b, key => b ->> 'account') FROM CAST($1 AS jsonb) AS b";

static bool
book(Database *db, void *arg)
{
	const char *event = arg;
	PGresult   *received = query(db, receive_sql, 1, &event);
	PGresult   *booked;
	const char *balance;
	bool		first;
	bool		good;

	if (received == NULL)
		return false;
	first = strcmp(PQgetvalue(received, 0, 0), "t") == 0;
	PQclear(received);
	if (!first)
		return true;
	booked = query(db, book_sql, 1, &event);
	if (booked == NULL)
		return false;
	balance = PQgetvalue(booked, 0, 0);
	good = command(db, enqueue_sql, 1, &balance);
	PQclear(booked);
	return good;
}

int
main(void)
{
	Database	db = {.conn = PQconnectdb("")};
	char	   *line = NULL;
	size_t		size = 0;

	if (PQstatus(db.conn) != CONNECTION_OK)
	{
		fputs(PQerrorMessage(db.conn), stderr);
		return EXIT_FAILURE;
	}
	for (int number = 1; getline(&line, &size, stdin) > 0; number++)
	{
		if (!in_transaction(&db, book, line))
			return EXIT_FAILURE;
		printf("%d\n", number);
		fflush(stdout);
	}
	free(line);
	PQfinish(db.conn);
	return EXIT_SUCCESS;
}
