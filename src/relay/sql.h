/*
 * sql.h
 *
 * The relay's own transactions and statements on the extension's tables.
 */
#ifndef EO_RELAY_SQL_H
#define EO_RELAY_SQL_H

#include "executor/spi.h"

/* Delay before another try at what was locked. */
#define EO_RETRY_MS		100

/* A statement that is planned once. */
typedef struct EoStatement
{
	const char *text;
	int			nargs;
	Oid			types[13];
	SPIPlanPtr	plan;
} EoStatement;

/*
 * A short transaction with an active snapshot; with SPI connected if `spi`.
 * Memory allocated in it lives until its end.
 */
extern void eo_relay_begin(bool spi);
extern void eo_relay_commit(bool spi);
extern void eo_relay_abort(bool spi);

/*
 * Locks the extension's tables that hold configuration and state, without
 * waiting, so that no statement of this transaction can wait for a relation:
 * the relay would hold up all subscriptions, and could deadlock with DROP
 * EXTENSION.  Returns false if somebody else has one of them.
 */
extern bool eo_relay_lock_tables(LOCKMODE mode);

/* The same for eo.lineage, which is written on few occasions. */
extern bool eo_relay_lock_lineage(void);

/*
 * Runs a statement and checks for the expected SPI_OK_ code.  Returns the
 * number of rows; those of a SELECT are in SPI_tuptable.
 */
extern uint64 eo_statement_run(EoStatement *statement, Datum *values,
							   const char *nulls, int expected);

/* A column of row `row` of SPI_tuptable. */
extern Datum eo_statement_column(uint64 row, int column, bool *isnull);

#endif							/* EO_RELAY_SQL_H */
