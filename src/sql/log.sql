-- The log: a ring of segments (store/segments.c), written by the append alone.
--
-- Storage is PLAIN throughout: large payloads are compressed and cut into
-- continuation rows (part > 0) before the append, so that the append never
-- toasts and a segment is one file to truncate.  PostgreSQL 15 has no STORAGE
-- clause in CREATE TABLE, hence the template.

CREATE TABLE eo.log_template (
	seq bigint NOT NULL,
	enqueued_at timestamptz NOT NULL,
	event_id uuid NOT NULL,
	part smallint NOT NULL,
	topic text NOT NULL,
	key text,
	type text,
	headers jsonb,
	payload jsonb,
	body bytea,
	content_type text,
	subscription integer
);
ALTER TABLE eo.log_template
	ALTER topic SET STORAGE PLAIN, ALTER key SET STORAGE PLAIN,
	ALTER type SET STORAGE PLAIN, ALTER headers SET STORAGE PLAIN,
	ALTER payload SET STORAGE PLAIN, ALTER body SET STORAGE PLAIN,
	ALTER content_type SET STORAGE PLAIN;

CREATE TABLE eo.log_0 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_0 IS 'segment 0 of the log';
CREATE TABLE eo.log_1 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_1 IS 'segment 1 of the log';
CREATE TABLE eo.log_2 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_2 IS 'segment 2 of the log';
CREATE TABLE eo.log_3 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_3 IS 'segment 3 of the log';
CREATE TABLE eo.log_4 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_4 IS 'segment 4 of the log';
CREATE TABLE eo.log_5 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_5 IS 'segment 5 of the log';
CREATE TABLE eo.log_6 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_6 IS 'segment 6 of the log';
CREATE TABLE eo.log_7 (LIKE eo.log_template INCLUDING STORAGE)
	WITH (autovacuum_enabled = off, vacuum_truncate = off, fillfactor = 100);
COMMENT ON TABLE eo.log_7 IS 'segment 7 of the log';

DROP TABLE eo.log_template;

CREATE TABLE eo.segment (
	segment integer PRIMARY KEY,
	filenode oid NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE eo.segment IS 'the file in which each segment was last started; another one means that it was rewritten';

INSERT INTO eo.segment
SELECT n, c.relfilenode
FROM pg_catalog.generate_series(0, 7) AS n,
	pg_catalog.pg_class AS c
WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.format('eo.log_%s', n)::pg_catalog.regclass;

REVOKE ALL ON eo.log_0, eo.log_1, eo.log_2, eo.log_3, eo.log_4, eo.log_5, eo.log_6, eo.log_7, eo.segment FROM PUBLIC;
