/*
 * poller.c
 *
 * The outbox that most applications write themselves: takes rows out of a table
 * in batches, and puts them where events go, here a file.  It does what the
 * `file` publisher does, no more: one JSON object a line, on disk before the
 * transaction that deletes the rows commits.
 *
 *		poller QUERY FILE
 *
 * The query deletes a batch and returns text columns: id, topic, key, payload,
 * created_at.  Connects by libpq's environment variables, ends when a batch is
 * empty, and prints how many rows it took.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "poller: %s: %s\n", what, why);
	exit(1);
}

static PGresult *
execute(PGconn *conn, const char *statement, ExecStatusType expected)
{
	PGresult   *result = statement[0] == '\0' ?
		PQexecPrepared(conn, "poll", 0, NULL, NULL, NULL, 0) : PQexec(conn, statement);

	if (PQresultStatus(result) != expected)
		die(statement, PQerrorMessage(conn));
	return result;
}

static void
write_down(FILE *file, const PGresult *rows, int i)
{
	fprintf(file, "{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"/outbox\",\"type\":\"%s\","
			"\"time\":\"%s\",\"partitionkey\":\"%s\",\"datacontenttype\":\"application/json\","
			"\"data\":%s}\n",
			PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 4),
			PQgetvalue(rows, i, 2), PQgetvalue(rows, i, 3));
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	FILE	   *file;
	long		total = 0;
	int			count;

	if (argc != 3)
		die("usage", "poller QUERY FILE");
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK)
		die("connect", PQerrorMessage(conn));
	file = fopen(argv[2], "w");
	if (file == NULL)
		die(argv[2], "cannot be written");
	PQclear(PQprepare(conn, "poll", argv[1], 0, NULL));
	do
	{
		PGresult   *rows;

		PQclear(execute(conn, "BEGIN", PGRES_COMMAND_OK));
		rows = execute(conn, "", PGRES_TUPLES_OK);
		count = PQntuples(rows);
		for (int i = 0; i < count; i++)
			write_down(file, rows, i);
		PQclear(rows);
		if (fflush(file) != 0 || fdatasync(fileno(file)) != 0)
			die(argv[2], "cannot be flushed");
		PQclear(execute(conn, "COMMIT", PGRES_COMMAND_OK));
		total += count;
	} while (count > 0);
	fclose(file);
	PQfinish(conn);
	printf("%ld\n", total);
	return 0;
}
