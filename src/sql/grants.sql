-- Privileges: nothing for PUBLIC, the views for pg_monitor, the rest by role.

CREATE FUNCTION eo.grant_producer(role regrole) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_grant_producer';
COMMENT ON FUNCTION eo.grant_producer(regrole) IS 'lets a role enqueue events';

CREATE FUNCTION eo.grant_consumer(role regrole) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_grant_consumer';
COMMENT ON FUNCTION eo.grant_consumer(regrole) IS 'lets a role receive messages and use idempotency keys';

CREATE FUNCTION eo.grant_operator(role regrole) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_grant_operator';
COMMENT ON FUNCTION eo.grant_operator(regrole) IS 'lets a role configure and watch subscriptions, consumers and scopes';

REVOKE ALL ON ALL TABLES IN SCHEMA eo FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eo FROM PUBLIC;
REVOKE ALL ON TYPE eo.event FROM PUBLIC;

GRANT USAGE ON SCHEMA eo TO pg_monitor;
GRANT SELECT ON eo.subscriptions, eo.events, eo.segments, eo.stalls, eo.dead_letters,
	eo.inbox_status, eo.idempotency_status, eo.captures, eo.snapshots TO pg_monitor;
GRANT EXECUTE ON FUNCTION eo.subscription_status, eo.segment_status, eo.log_status,
	eo.tally_status, eo.event_payload, eo.event_body, eo.capture_setting,
	eo.snapshot_worker TO pg_monitor;

-- What a dump takes along.  Events, cursors and dead letters stay: they belong
-- to this database; a restored one starts anew and waits for eo.adopt().
SELECT pg_catalog.pg_extension_config_dump('eo.subscription', '');
SELECT pg_catalog.pg_extension_config_dump('eo.subscription_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('eo.lineage', '');

-- What was received goes along: a restored database recognises it.
SELECT pg_catalog.pg_extension_config_dump('eo.consumer', '');
SELECT pg_catalog.pg_extension_config_dump('eo.consumer_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_scope', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_scope_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('eo.generation', '');
SELECT pg_catalog.pg_extension_config_dump('eo.tally', '');
SELECT pg_catalog.pg_extension_config_dump('eo.tally_repeats', '');
SELECT pg_catalog.pg_extension_config_dump('eo.received_position', '');
SELECT pg_catalog.pg_extension_config_dump('eo.inbox_day_0', '');
SELECT pg_catalog.pg_extension_config_dump('eo.inbox_day_1', '');
SELECT pg_catalog.pg_extension_config_dump('eo.inbox_week_0', '');
SELECT pg_catalog.pg_extension_config_dump('eo.inbox_week_1', '');
SELECT pg_catalog.pg_extension_config_dump('eo.inbox_long_0', '');
SELECT pg_catalog.pg_extension_config_dump('eo.inbox_long_1', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_day_0', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_day_1', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_week_0', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_week_1', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_long_0', '');
SELECT pg_catalog.pg_extension_config_dump('eo.idempotency_long_1', '');

-- And what was applied, except to tables that are gone or that end with their
-- session, which a restored database could not name.
SELECT pg_catalog.pg_extension_config_dump('eo.applied', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS c
	WHERE c.oid OPERATOR(pg_catalog.=) target AND c.relpersistence OPERATOR(pg_catalog.<>) ''t'')');
SELECT pg_catalog.pg_extension_config_dump('eo.applied_truncation', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS c
	WHERE c.oid OPERATOR(pg_catalog.=) target AND c.relpersistence OPERATOR(pg_catalog.<>) ''t'')');
