-- Applying captured changes to tables: the function of eo.grant_consumer(), and
-- what it remembers.

CREATE TABLE eo.applied (
	target regclass NOT NULL,
	key text COLLATE "C" NOT NULL,
	seq bigint NOT NULL,
	deleted boolean NOT NULL,
	PRIMARY KEY (target, key)
) WITH (fillfactor = 70);
COMMENT ON TABLE eo.applied IS 'the last event that was applied to each row of each table, and whether it has deleted the row';

CREATE TABLE eo.applied_truncation (
	target regclass PRIMARY KEY,
	seq bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE eo.applied_truncation IS 'the last truncation that was applied to each table';

CREATE FUNCTION eo.apply_change(target regclass, event jsonb) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'eo_outbox_apply_change';
COMMENT ON FUNCTION eo.apply_change(regclass, jsonb) IS 'applies a captured change to a table, once and in the order of its key; returns what became of it';
