/*
 * sql.c
 *
 * The relay's own transactions and statements.
 */
#include "postgres.h"

#include "access/xact.h"
#include "relay/relay.h"
#include "relay/sql.h"
#include "storage/lmgr.h"
#include "store/catalog.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static const char *const state_tables[] = {
	"subscription", "cursor", "position", "dead_letter", "dead_letter_retry"
};

void
eo_relay_begin(bool spi)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (spi)
		SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
eo_relay_commit(bool spi)
{
	PopActiveSnapshot();
	if (spi)
		SPI_finish();
	CommitTransactionCommand();
	MemoryContextSwitchTo(eo_relay.scratch);
}

void
eo_relay_abort(bool spi)
{
	PopActiveSnapshot();
	if (spi)
		SPI_finish();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(eo_relay.scratch);
}

bool
eo_relay_lock_lineage(void)
{
	Oid			relid = get_relname_relid("lineage", eo_catalog_required()->schema);

	return OidIsValid(relid) && ConditionalLockRelationOid(relid, RowExclusiveLock);
}

bool
eo_relay_lock_tables(LOCKMODE mode)
{
	const EoCatalog *catalog = eo_catalog();

	if (catalog == NULL || catalog->extension != eo_relay.extension)
		eo_relay_leave();
	for (int i = 0; i < lengthof(state_tables); i++)
	{
		Oid			relid = get_relname_relid(state_tables[i], catalog->schema);

		if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, mode))
			return false;
	}

	/* The locks may have come with the news that these are other tables. */
	catalog = eo_catalog();
	if (catalog == NULL || catalog->extension != eo_relay.extension)
		eo_relay_leave();
	return true;
}

uint64
eo_statement_run(EoStatement *statement, Datum *values, const char *nulls, int expected)
{
	int			result;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->text, statement->nargs, statement->types);

		if (plan == NULL)
			elog(ERROR, "could not plan \"%s\": %s", statement->text,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		statement->plan = plan;
	}
	result = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (result != expected)
		elog(ERROR, "could not run \"%s\": %s", statement->text,
			 SPI_result_code_string(result));
	return SPI_processed;
}

Datum
eo_statement_column(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}
