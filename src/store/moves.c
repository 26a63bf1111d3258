/*
 * moves.c
 *
 * Owners whose window has come to be of another class.
 *
 * New keys of such an owner go to other tables than the old ones, so that both
 * have to be looked into until the old ones have expired.  That counts neither
 * from the change nor from its commit: a transaction that has claimed a key in
 * the old class may go on for much longer.  So the row says "infinity" at first
 * (api/registration.c).  The relay sees it once it is committed, waits until
 * every transaction that was running then has ended, and then sets an end.
 *
 * It only asks from time to time whether they have.  Meanwhile, lookups of that
 * owner take about twice as long.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "shmem.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "store/moves.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RETRY_US			USECS_PER_SEC
#define RETRY_US_MAX		USECS_PER_MINUTE

/* A row as it was seen */
typedef struct Move
{
	EoFamily	family;
	int32		id;
	TransactionId xmin;
} Move;

static const char *const tables[EO_FAMILIES] = {"consumer", "idempotency_scope"};

/* Those that wait, and for whom; in TopMemoryContext */
static Move *moves = NULL;
static int	nmoves = 0;
static VirtualTransactionId *running = NULL;
static int	nrunning = 0;
static TimestampTz noted_at;

/* Returns how many there are with those of this family. */
static int
note_moves(EoFamily family, int count)
{
	char	   *command = psprintf("SELECT id, xmin FROM eo.%s"
								   " WHERE also_until OPERATOR(pg_catalog.=) 'infinity'", tables[family]);
	int			found;

	if (SPI_execute(command, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for moves");
	found = (int) SPI_processed;
	moves = moves == NULL ?
		MemoryContextAlloc(TopMemoryContext, (found + 1) * sizeof(Move)) :
		repalloc(moves, (count + found + 1) * sizeof(Move));
	for (int row = 0; row < found; row++)
	{
		Move	   *move = &moves[count + row];
		HeapTuple	tuple = SPI_tuptable->vals[row];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		move->family = family;
		move->id = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		move->xmin = DatumGetTransactionId(SPI_getbinval(tuple, desc, 2, &isnull));
	}
	return count + found;
}

/* After the rows were seen, so that it is not too early for any. */
static void
note_running(void)
{
	int			n;
	VirtualTransactionId *ids = GetCurrentVirtualXIDs(InvalidTransactionId, false, false,
													  PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, &n);

	if (running != NULL)
		pfree(running);
	running = MemoryContextAlloc(TopMemoryContext, Max(n, 1) * sizeof(VirtualTransactionId));
	memcpy(running, ids, n * sizeof(VirtualTransactionId));
	nrunning = n;
	noted_at = GetCurrentTimestamp();
}

static bool
all_ended(void)
{
	while (nrunning > 0 && VirtualXactLock(running[nrunning - 1], false))
		nrunning--;
	return nrunning == 0;
}

/*
 * Sets an end, unless the row has changed meanwhile, or somebody is about to.
 */
static void
set_end(const Move *move)
{
	Oid			types[] = {INT4OID, XIDOID};
	Datum		values[] = {Int32GetDatum(move->id), TransactionIdGetDatum(move->xmin)};
	char	   *command = psprintf("UPDATE eo.%s SET also_until = pg_catalog.clock_timestamp()"
								   " OPERATOR(pg_catalog.+) keep_for WHERE id IN"
								   " (SELECT id FROM eo.%s WHERE id OPERATOR(pg_catalog.=) $1"
								   " AND xmin OPERATOR(pg_catalog.=) $2 FOR UPDATE SKIP LOCKED)",
								   tables[move->family], tables[move->family]);

	if (SPI_execute_with_args(command, 2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not set the end of a move");
}

TimestampTz
eo_moves_settle(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (nmoves == 0)
	{
		int			count = 0;

		for (int f = 0; f < EO_FAMILIES; f++)
			count = note_moves(f, count);
		if (count == 0)
			return 0;
		note_running();
		nmoves = count;
	}
	if (!all_ended())
		return now + Min(Max((now - noted_at) / 8, RETRY_US), RETRY_US_MAX);
	for (int i = 0; i < nmoves; i++)
		set_end(&moves[i]);
	nmoves = 0;

	/* There may be others by now. */
	return now + RETRY_US;
}
