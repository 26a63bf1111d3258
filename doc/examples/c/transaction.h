/*
 * transaction.h
 *
 * What the examples in C share over libpq.
 */
#ifndef TRANSACTION_H
#define TRANSACTION_H

#include <libpq-fe.h>
#include <stdbool.h>

typedef struct Database
{
	PGconn	   *conn;
	char		sqlstate[6];	/* of the latest error; "": not from the server */
} Database;

/* Runs a statement with `n` text parameters.  NULL: it failed. */
extern PGresult *query(Database *db, const char *sql, int n, const char *const *values);

/* The same for where the result does not matter. */
extern bool command(Database *db, const char *sql, int n, const char *const *values);

/*
 * Runs work in a transaction, again if it could not be serialized or was chosen
 * to end a deadlock.  False: it failed for good, and was rolled back.
 */
extern bool in_transaction(Database *db, bool (*work) (Database *db, void *arg), void *arg);

#endif							/* TRANSACTION_H */
