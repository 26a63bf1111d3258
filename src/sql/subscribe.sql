-- Configuring subscriptions: the functions of eo.grant_operator().

CREATE FUNCTION eo.subscribe(
	name text,
	topics text[] DEFAULT '{*}',
	server name DEFAULT NULL,
	handler regprocedure DEFAULT NULL,
	options jsonb DEFAULT '{}',
	start_at text DEFAULT 'now'
) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_subscribe';
COMMENT ON FUNCTION eo.subscribe(text, text[], name, regprocedure, jsonb, text) IS 'begins to publish the events of some topics to a server; returns the seq after which it starts';

CREATE FUNCTION eo.unsubscribe(name text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_unsubscribe';
COMMENT ON FUNCTION eo.unsubscribe(text) IS 'ends a subscription and forgets its place';

CREATE FUNCTION eo.pause(name text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_pause';
COMMENT ON FUNCTION eo.pause(text) IS 'stops publishing; the subscription keeps its place';

CREATE FUNCTION eo.resume(name text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_resume';
COMMENT ON FUNCTION eo.resume(text) IS 'publishes again, also after a failure';

CREATE FUNCTION eo.seek(name text, seq bigint) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_seek';
COMMENT ON FUNCTION eo.seek(text, bigint) IS 'moves a subscription to just after a seq; replayed events keep their seq and position';

CREATE FUNCTION eo.adopt() RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_adopt';
COMMENT ON FUNCTION eo.adopt() IS 'lets a restored or copied database publish; true if it was one';

CREATE FUNCTION eo.retry_dead_letter(subscription text, seq bigint DEFAULT NULL) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_retry_dead_letter';
COMMENT ON FUNCTION eo.retry_dead_letter(text, bigint) IS 'sends a dead letter, or all of them, again; returns how many';

CREATE FUNCTION eo.fetch(
	subscription text,
	max_events integer DEFAULT 100,
	wait interval DEFAULT '0'
) RETURNS SETOF eo.event
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_fetch';
COMMENT ON FUNCTION eo.fetch(text, integer, interval) IS 'the next events of a subscription without a server; waits for the first if asked';

CREATE FUNCTION eo.ack(subscription text, seq bigint) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_ack';
COMMENT ON FUNCTION eo.ack(text, bigint) IS 'marks what eo.fetch() returned as done up to a seq, in this transaction';

CREATE FUNCTION eo.configuration_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eo_outbox_configuration_changed';
COMMENT ON FUNCTION eo.configuration_changed() IS 'tells the relay at commit';

CREATE TRIGGER configuration_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eo.subscription
	FOR EACH STATEMENT EXECUTE FUNCTION eo.configuration_changed();
COMMENT ON TRIGGER configuration_changed ON eo.subscription IS 'tells the relay at commit';

CREATE TRIGGER configuration_changed
	AFTER INSERT ON eo.lineage
	FOR EACH STATEMENT EXECUTE FUNCTION eo.configuration_changed();
COMMENT ON TRIGGER configuration_changed ON eo.lineage IS 'tells the relay at commit';

CREATE TRIGGER configuration_changed
	AFTER INSERT ON eo.dead_letter_retry
	FOR EACH STATEMENT EXECUTE FUNCTION eo.configuration_changed();
COMMENT ON TRIGGER configuration_changed ON eo.dead_letter_retry IS 'tells the relay at commit';
