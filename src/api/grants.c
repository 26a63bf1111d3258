/*
 * grants.c
 *
 * eo.grant_producer(), eo.grant_consumer() and eo.grant_operator(): the
 * privileges of a role, by what it does.  They run as the caller, who needs the
 * right to grant.
 */
#include "postgres.h"

#include "api/api.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eo_outbox_grant_producer);
PG_FUNCTION_INFO_V1(eo_outbox_grant_consumer);
PG_FUNCTION_INFO_V1(eo_outbox_grant_operator);

/* What is granted to all; %s is the role. */
static const char *const common_grants[] = {
	"GRANT USAGE ON SCHEMA eo TO %s",
	NULL
};

static const char *const producer_grants[] = {
	"GRANT EXECUTE ON FUNCTION eo.enqueue TO %s",
	"GRANT EXECUTE ON FUNCTION eo.enqueue_bytes TO %s",
	"GRANT EXECUTE ON FUNCTION eo.pending TO %s",
	"GRANT EXECUTE ON FUNCTION eo.last_seq TO %s",
	"GRANT EXECUTE ON FUNCTION eo.wait_published TO %s",
	"GRANT EXECUTE ON FUNCTION eo.capture, eo.uncapture, eo.capture_row TO %s",
	"GRANT EXECUTE ON FUNCTION eo.snapshot, eo.stop_snapshot, eo.snapshot_worker TO %s",
	"GRANT SELECT ON eo.snapshots TO %s",
	NULL
};

static const char *const consumer_grants[] = {
	"GRANT EXECUTE ON FUNCTION eo.receive(text, text, jsonb), eo.receive(text, text[]) TO %s",
	"GRANT EXECUTE ON FUNCTION eo.receive_at TO %s",
	"GRANT EXECUTE ON FUNCTION eo.deduplicate, eo.deduplicate_table TO %s",
	"GRANT EXECUTE ON FUNCTION eo.create_consumer TO %s",
	"GRANT EXECUTE ON FUNCTION eo.idempotency_begin, eo.idempotency_complete TO %s",
	"GRANT EXECUTE ON FUNCTION eo.idempotency_release, eo.idempotency_checkpoint TO %s",
	"GRANT EXECUTE ON FUNCTION eo.idempotent TO %s",
	"GRANT EXECUTE ON FUNCTION eo.apply_change TO %s",
	NULL
};

static const char *const operator_grants[] = {
	"GRANT EXECUTE ON FUNCTION eo.subscribe TO %s",
	"GRANT EXECUTE ON FUNCTION eo.unsubscribe TO %s",
	"GRANT EXECUTE ON FUNCTION eo.pause TO %s",
	"GRANT EXECUTE ON FUNCTION eo.resume TO %s",
	"GRANT EXECUTE ON FUNCTION eo.seek TO %s",
	"GRANT EXECUTE ON FUNCTION eo.adopt TO %s",
	"GRANT EXECUTE ON FUNCTION eo.retry_dead_letter TO %s",
	"GRANT EXECUTE ON FUNCTION eo.fetch, eo.ack TO %s",
	"GRANT EXECUTE ON FUNCTION eo.wait_published TO %s",
	"GRANT EXECUTE ON FUNCTION eo.subscription_status, eo.segment_status, eo.log_status TO %s",
	"GRANT EXECUTE ON FUNCTION eo.event_payload, eo.event_body TO %s",
	"GRANT SELECT ON eo.subscriptions, eo.events, eo.segments, eo.stalls, eo.dead_letters TO %s",
	"GRANT EXECUTE ON FUNCTION eo.create_consumer, eo.drop_consumer TO %s",
	"GRANT EXECUTE ON FUNCTION eo.create_idempotency_scope, eo.drop_idempotency_scope TO %s",
	"GRANT EXECUTE ON FUNCTION eo.tally_status TO %s",
	"GRANT EXECUTE ON FUNCTION eo.snapshot_worker TO %s",
	"GRANT SELECT ON eo.snapshots TO %s",
	"GRANT SELECT ON eo.inbox_status, eo.idempotency_status TO %s",
	"GRANT USAGE ON FOREIGN DATA WRAPPER eo_kafka TO %s",
	NULL
};

static void
grant(const char *const *commands, const char *role)
{
	for (int i = 0; commands[i] != NULL; i++)
	{
		char	   *command = psprintf(commands[i], role);

		if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not execute \"%s\"", command);
	}
}

/* To the role that is the first argument */
static void
grant_to(FunctionCallInfo fcinfo, const char *const *commands)
{
	const char *name;

	eo_api_refuse_null(fcinfo, 0, "role");
	name = quote_identifier(GetUserNameFromId(PG_GETARG_OID(0), false));
	SPI_connect();
	grant(common_grants, name);
	grant(commands, name);
	SPI_finish();
}

/* eo.grant_producer(role regrole) RETURNS void */
Datum
eo_outbox_grant_producer(PG_FUNCTION_ARGS)
{
	grant_to(fcinfo, producer_grants);
	PG_RETURN_VOID();
}

/* eo.grant_consumer(role regrole) RETURNS void */
Datum
eo_outbox_grant_consumer(PG_FUNCTION_ARGS)
{
	grant_to(fcinfo, consumer_grants);
	PG_RETURN_VOID();
}

/* eo.grant_operator(role regrole) RETURNS void */
Datum
eo_outbox_grant_operator(PG_FUNCTION_ARGS)
{
	grant_to(fcinfo, operator_grants);
	PG_RETURN_VOID();
}
