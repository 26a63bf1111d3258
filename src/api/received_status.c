/*
 * received_status.c
 *
 * What the views of consumers and idempotency scopes show of shared memory.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "store/tally.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(eo_outbox_tally_status);

static void
put_row(const EoTallySlot *slot, const EoTallyCounts *counts, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		values[6];
	bool		nulls[6] = {0};

	values[0] = Int16GetDatum(slot->family);
	values[1] = Int32GetDatum(slot->owner);
	values[2] = Int64GetDatum(counts->held);
	values[3] = Int64GetDatum(counts->bytes);
	values[4] = TimestampTzGetDatum(counts->first_at);
	nulls[4] = counts->first_at == 0;
	values[5] = Int64GetDatum(counts->repeats);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * eo.tally_status() RETURNS SETOF record: family, owner, held, bytes, first_at,
 * repeats
 */
Datum
eo_outbox_tally_status(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	eo_tally_walk(eo_my_database(), put_row, fcinfo->resultinfo);
	return (Datum) 0;
}
