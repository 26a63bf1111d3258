-- Capturing the changes of tables: functions of eo.grant_producer(), for tables
-- that the caller owns.

CREATE FUNCTION eo.capture_row() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eo_outbox_capture_row';
COMMENT ON FUNCTION eo.capture_row() IS 'enqueues the change of a row; arguments: name=value, as in eo.capture()';

CREATE FUNCTION eo.capture(
	relation regclass,
	topic text DEFAULT NULL,
	mode text DEFAULT 'fact',
	key_columns name[] DEFAULT NULL,
	columns name[] DEFAULT NULL,
	exclude name[] DEFAULT NULL,
	type_prefix text DEFAULT NULL,
	when_clause text DEFAULT NULL,
	format text DEFAULT 'plain'
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_capture';
COMMENT ON FUNCTION eo.capture(regclass, text, text, name[], name[], name[], text, text, text) IS 'from now on, changes of a table become events in the same transaction';

CREATE FUNCTION eo.uncapture(relation regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_uncapture';
COMMENT ON FUNCTION eo.uncapture(regclass) IS 'ends what eo.capture() began';

CREATE FUNCTION eo.capture_setting(arguments bytea, name text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'eo_outbox_capture_setting';
COMMENT ON FUNCTION eo.capture_setting(bytea, text) IS 'one of the name=value arguments of a trigger';

CREATE FUNCTION eo.capture_children() RETURNS event_trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eo_outbox_capture_children';
COMMENT ON FUNCTION eo.capture_children() IS 'captures tables that become children of captured ones, and guards their keys';

CREATE EVENT TRIGGER eo_capture_children ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE SCHEMA', 'ALTER TABLE')
EXECUTE FUNCTION eo.capture_children();
COMMENT ON EVENT TRIGGER eo_capture_children IS 'eo_outbox: captures tables that become children of captured ones';

CREATE VIEW eo.captures AS
SELECT t.tgrelid::pg_catalog.regclass AS relation,
	eo.capture_setting(t.tgargs, 'topic') AS topic,
	coalesce(eo.capture_setting(t.tgargs, 'mode'), 'fact') AS mode,
	coalesce(eo.capture_setting(t.tgargs, 'format'), 'plain') AS format,
	eo.capture_setting(t.tgargs, 'key') AS key_columns,
	eo.capture_setting(t.tgargs, 'columns') AS columns,
	eo.capture_setting(t.tgargs, 'exclude') AS exclude,
	eo.capture_setting(t.tgargs, 'type_prefix') AS type_prefix,
	pg_catalog.substring(pg_catalog.pg_get_triggerdef(t.oid), ' WHEN \((.*)\) EXECUTE FUNCTION ') AS when_clause,
	t.tgname AS trigger,
	t.tgenabled OPERATOR(pg_catalog.<>) 'D' AS enabled
FROM pg_catalog.pg_trigger AS t
WHERE t.tgfoid OPERATOR(pg_catalog.=) 'eo.capture_row()'::pg_catalog.regprocedure
	AND t.tgparentid OPERATOR(pg_catalog.=) 0
	AND (t.tgtype::integer OPERATOR(pg_catalog.&) 5) OPERATOR(pg_catalog.=) 5	-- on rows, after INSERT
	AND eo.capture_setting(t.tgargs, 'child') IS NULL;
COMMENT ON VIEW eo.captures IS 'the tables whose changes become events';
