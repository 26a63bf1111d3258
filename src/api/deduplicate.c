/*
 * deduplicate.c
 */
#include "postgres.h"

#include "fmgr.h"

PG_FUNCTION_INFO_V1(eo_outbox_deduplicate);
Datum
eo_outbox_deduplicate(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_deduplicate_table);
Datum
eo_outbox_deduplicate_table(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}
