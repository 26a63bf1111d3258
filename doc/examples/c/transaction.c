/*
 * transaction.c
 *
 * What the examples in C share over libpq.
 */
#include "transaction.h"

#include <stdio.h>
#include <string.h>

PGresult *
query(Database *db, const char *sql, int n, const char *const *values)
{
	PGresult   *result = PQexecParams(db->conn, sql, n, NULL, values, NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return result;
	snprintf(db->sqlstate, sizeof(db->sqlstate), "%s", sqlstate ? sqlstate : "");
	PQclear(result);
	return NULL;
}

bool
command(Database *db, const char *sql, int n, const char *const *values)
{
	PGresult   *result = query(db, sql, n, values);

	PQclear(result);
	return result != NULL;
}

bool
in_transaction(Database *db, bool (*work) (Database *db, void *arg), void *arg)
{
	for (;;)
	{
		if (command(db, "BEGIN", 0, NULL) && work(db, arg) && command(db, "COMMIT", 0, NULL))
			return true;
		fputs(PQerrorMessage(db->conn), stderr);
		PQclear(PQexec(db->conn, "ROLLBACK"));
		if (strcmp(db->sqlstate, "40001") != 0 && strcmp(db->sqlstate, "40P01") != 0)
			return false;
	}
}
