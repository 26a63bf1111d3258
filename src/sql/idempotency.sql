-- Idempotency keys: the functions of eo.grant_consumer().

CREATE FUNCTION eo.idempotency_begin(
	scope text,
	key text,
	request jsonb DEFAULT NULL,
	wait boolean DEFAULT true,
	lease interval DEFAULT NULL,
	OUT state text,
	OUT code integer,
	OUT response jsonb,
	OUT token uuid,
	OUT recovery_point text
) RETURNS record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_idempotency_begin';
COMMENT ON FUNCTION eo.idempotency_begin(text, text, jsonb, boolean, interval) IS 'claims an idempotency key: new, or replay with the stored answer';

CREATE FUNCTION eo.idempotency_complete(
	scope text,
	key text,
	response jsonb DEFAULT NULL,
	code integer DEFAULT 200,
	token uuid DEFAULT NULL
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_idempotency_complete';
COMMENT ON FUNCTION eo.idempotency_complete(text, text, jsonb, integer, uuid) IS 'stores the answer to a claimed key, or releases the key if its scope says so of the code';

CREATE FUNCTION eo.idempotency_release(scope text, key text, token uuid DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_idempotency_release';
COMMENT ON FUNCTION eo.idempotency_release(text, text, uuid) IS 'gives a claimed key back, as if it had never come';

CREATE FUNCTION eo.idempotency_checkpoint(
	scope text,
	key text,
	recovery_point text,
	token uuid,
	lease interval DEFAULT NULL
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_idempotency_checkpoint';
COMMENT ON FUNCTION eo.idempotency_checkpoint(text, text, text, uuid, interval) IS 'notes how far the holder of a lease has got, for whoever takes over, and extends the lease';

CREATE FUNCTION eo.idempotent(scope text, key text, request jsonb, function regprocedure) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_idempotent';
COMMENT ON FUNCTION eo.idempotent(text, text, jsonb, regprocedure) IS 'what function(request) returned when the key first came; calls it if that is now';

CREATE FUNCTION eo.create_idempotency_scope(
	scope text,
	expiry interval DEFAULT '24 hours',
	release_codes int4multirange DEFAULT '{[500,600)}'
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_create_idempotency_scope';
COMMENT ON FUNCTION eo.create_idempotency_scope(text, interval, int4multirange) IS 'registers a scope, or changes for how long it keeps an answer and which codes release the key';

CREATE FUNCTION eo.drop_idempotency_scope(scope text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_drop_idempotency_scope';
COMMENT ON FUNCTION eo.drop_idempotency_scope(text) IS 'forgets a scope and all its keys';
