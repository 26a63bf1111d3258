-- Producing events: the functions of eo.grant_producer().

CREATE FUNCTION eo.enqueue(
	topic text,
	payload jsonb,
	key text DEFAULT NULL,
	type text DEFAULT NULL,
	headers jsonb DEFAULT NULL,
	event_id uuid DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_enqueue';
COMMENT ON FUNCTION eo.enqueue(text, jsonb, text, text, jsonb, uuid) IS 'adds an event to this transaction; a null payload is a tombstone; returns its id';

CREATE FUNCTION eo.enqueue_bytes(
	topic text,
	payload bytea,
	key text DEFAULT NULL,
	type text DEFAULT NULL,
	headers jsonb DEFAULT NULL,
	content_type text DEFAULT 'application/octet-stream',
	event_id uuid DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_enqueue_bytes';
COMMENT ON FUNCTION eo.enqueue_bytes(text, bytea, text, text, jsonb, text, uuid) IS 'adds an event with a payload of bytes to this transaction; returns its id';

CREATE FUNCTION eo.pending() RETURNS SETOF eo.event
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_pending';
COMMENT ON FUNCTION eo.pending() IS 'the events that this transaction will append when it commits';

CREATE FUNCTION eo.last_seq() RETURNS bigint
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_last_seq';
COMMENT ON FUNCTION eo.last_seq() IS 'the last seq that the latest commit of this session appended; null if there is none';

CREATE FUNCTION eo.wait_published(subscription text, seq bigint, timeout interval) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_wait_published';
COMMENT ON FUNCTION eo.wait_published(text, bigint, interval) IS 'waits until a subscription has published everything up to a seq; false at the timeout';
