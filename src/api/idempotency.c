/*
 * idempotency.c
 */
#include "postgres.h"

#include "fmgr.h"

PG_FUNCTION_INFO_V1(eo_outbox_idempotency_begin);
Datum
eo_outbox_idempotency_begin(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_idempotency_complete);
Datum
eo_outbox_idempotency_complete(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_idempotency_release);
Datum
eo_outbox_idempotency_release(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_idempotency_checkpoint);
Datum
eo_outbox_idempotency_checkpoint(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_idempotent);
Datum
eo_outbox_idempotent(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}
