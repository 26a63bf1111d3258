-- Receiving messages once: the functions of eo.grant_consumer().

CREATE FUNCTION eo.receive(consumer text, message_id text, headers jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_receive';
COMMENT ON FUNCTION eo.receive(text, text, jsonb) IS 'true the first time that a consumer receives a message id, in this transaction; later events of it carry the cause';

CREATE FUNCTION eo.receive(consumer text, message_ids text[]) RETURNS SETOF text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_receive_batch';
COMMENT ON FUNCTION eo.receive(text, text[]) IS 'those of the message ids that a consumer receives for the first time, in the order given';

CREATE FUNCTION eo.receive_at(consumer text, source text, "position" bigint, dense boolean DEFAULT true) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_receive_at';
COMMENT ON FUNCTION eo.receive_at(text, text, bigint, boolean) IS 'new, duplicate or gap: how a position of a source compares with the last one that a consumer has received';

CREATE FUNCTION eo.deduplicate() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eo_outbox_deduplicate';
COMMENT ON FUNCTION eo.deduplicate() IS 'skips rows whose message id was received before; arguments: consumer, column';

CREATE FUNCTION eo.deduplicate_table(relation regclass, consumer text, column_name name) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_deduplicate_table';
COMMENT ON FUNCTION eo.deduplicate_table(regclass, text, name) IS 'checks the arguments and creates the trigger eo_deduplicate on a table';

CREATE FUNCTION eo.create_consumer(consumer text, dedup_window interval DEFAULT '7 days') RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_create_consumer';
COMMENT ON FUNCTION eo.create_consumer(text, interval) IS 'registers a consumer, or changes for how long it recognises a message id';

CREATE FUNCTION eo.drop_consumer(consumer text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_drop_consumer';
COMMENT ON FUNCTION eo.drop_consumer(text) IS 'forgets a consumer and all that it has received';
