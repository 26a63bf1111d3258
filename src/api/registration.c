/*
 * registration.c
 */
#include "postgres.h"

#include "fmgr.h"
#include "store/registry.h"

PG_FUNCTION_INFO_V1(eo_outbox_create_consumer);
Datum
eo_outbox_create_consumer(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_drop_consumer);
Datum
eo_outbox_drop_consumer(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_create_idempotency_scope);
Datum
eo_outbox_create_idempotency_scope(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_drop_idempotency_scope);
Datum
eo_outbox_drop_idempotency_scope(PG_FUNCTION_ARGS)
{
	elog(ERROR, "not there yet");
}

PG_FUNCTION_INFO_V1(eo_outbox_registry_changed);
Datum
eo_outbox_registry_changed(PG_FUNCTION_ARGS)
{
	eo_registry_changed();
	PG_RETURN_POINTER(NULL);
}
