/*
 * handler.c
 *
 * Takes payments; a request that is repeated gets the same answer.
 *
 * C has no HTTP server of its own.  This one reads a request a line, an
 * idempotency key and a JSON text with a tab in between, and answers each with
 * a line: the code, a tab, a JSON text.
 *
 *	cc -o handler handler.c transaction.c $(pkg-config --cflags --libs libpq)
 *	printf '7f3a\t{"account": "a", "amount": 5}\n' | ./handler
 */
#include "transaction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Payment
{
	const char *key;
	const char *request;
	int			code;
	char		response[1024];
} Payment;

static const char begin_sql[] =
"SELECT state, code, response"
" FROM eo.idempotency_begin('payments', $1, CAST($2 AS jsonb), wait => false)";

static const char pay_sql[] =
"INSERT INTO payment (account, amount)"
" SELECT account, amount"
" FROM jsonb_to_record(CAST($1 AS jsonb)) AS request (account text, amount integer)"
" RETURNING jsonb_build_object('payment', id)";

static const char enqueue_sql[] =
"SELECT eo.enqueue('payments', r, key => r ->> 'account') FROM CAST($1 AS jsonb) AS r";

static const char complete_sql[] =
"SELECT eo.idempotency_complete('payments', $1, CAST($2 AS jsonb), 201)";

static void
set_answer(Payment *payment, int code, const char *response)
{
	payment->code = code;
	snprintf(payment->response, sizeof(payment->response), "%s", response);
}

/* What is new: the work, and its answer. */
static bool
do_pay(Database *db, Payment *payment)
{
	PGresult   *paid = query(db, pay_sql, 1, &payment->request);

	if (paid == NULL)
		return false;
	set_answer(payment, 201, PQgetvalue(paid, 0, 0));
	PQclear(paid);
	return command(db, enqueue_sql, 1, &payment->request) &&
		command(db, complete_sql, 2, (const char *[]) {payment->key, payment->response});
}

static bool
pay(Database *db, void *arg)
{
	Payment    *payment = arg;
	PGresult   *begun = query(db, begin_sql, 2, (const char *[]) {payment->key, payment->request});
	bool		replay;

	if (begun == NULL)
		return false;
	replay = strcmp(PQgetvalue(begun, 0, 0), "replay") == 0;
	if (replay)
		set_answer(payment, atoi(PQgetvalue(begun, 0, 1)), PQgetvalue(begun, 0, 2));
	PQclear(begun);
	return replay || do_pay(db, payment);
}

static void
answer(Database *db, Payment *payment)
{
	if (in_transaction(db, pay, payment))
		return;
	if (strcmp(db->sqlstate, "EO409") == 0)
		set_answer(payment, 409, "{\"error\": \"the request is being processed\"}");
	else if (strcmp(db->sqlstate, "EO422") == 0)
		set_answer(payment, 422, "{\"error\": \"the key was used for another request\"}");
	else if (strcmp(db->sqlstate, "22P02") == 0)
		set_answer(payment, 400, "{\"error\": \"not a payment\"}");
	else
		set_answer(payment, 500, "{\"error\": \"internal error\"}");
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
	while (getline(&line, &size, stdin) > 0)
	{
		char	   *tab = strchr(line, '\t');
		Payment		payment = {.key = line};

		if (tab == NULL)
			set_answer(&payment, 400, "{\"error\": \"the idempotency key is missing\"}");
		else
		{
			*tab = '\0';
			payment.request = tab + 1;
			answer(&db, &payment);
		}
		printf("%d\t%s\n", payment.code, payment.response);
		fflush(stdout);
	}
	free(line);
	PQfinish(db.conn);
	return EXIT_SUCCESS;
}
