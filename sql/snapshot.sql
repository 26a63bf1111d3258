-- eo.snapshot(): the rows that a captured table has, on its topic
CREATE SCHEMA snap;

CREATE FUNCTION snap.wait(snapshot bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	pause CONSTANT double precision := 0.02;
BEGIN
	FOR i IN 1 .. 3000 LOOP
		SELECT concat_ws(': ', state, error) INTO result FROM eo.snapshots WHERE id = snapshot;
		EXIT WHEN result NOT LIKE 'waiting%' AND result NOT LIKE 'running%';
		PERFORM pg_sleep(pause);
	END LOOP;
	RETURN result;
END $$;

CREATE TABLE snap.goods (id int PRIMARY KEY, name text, price numeric(8,2), tags text[], dropped int);
INSERT INTO snap.goods VALUES (1, 'apple', 0.5, '{fruit,"red, or green"}', 1), (2, 'nothing', NULL, NULL, 2), (3, 'pear', 1.25, '{}', 3);
ALTER TABLE snap.goods DROP COLUMN dropped;
ALTER TABLE snap.goods ADD COLUMN stock int DEFAULT 7;

-- the arguments
SELECT eo.snapshot(NULL);
SELECT eo.snapshot('snap.goods', chunk_rows => NULL);
SELECT eo.snapshot('snap.goods', chunk_rows => 0);
SELECT eo.snapshot('snap.none');
SELECT eo.snapshot('snap.goods');
SELECT eo.stop_snapshot('snap.goods');
CREATE VIEW snap.view AS SELECT 1 AS one;
SELECT eo.snapshot('snap.view');
SELECT eo.capture('snap.goods', topic => 'snap.goods');
SELECT eo.snapshot('snap.goods', 'no such subscription');
SELECT eo.subscribe('snap.other', '{other.*}') IS NOT NULL AS subscribed;
SELECT eo.snapshot('snap.goods', 'snap.other');
SELECT eo.unsubscribe('snap.other');
BEGIN READ ONLY;
SELECT eo.snapshot('snap.goods');
ROLLBACK;

-- the rows
SELECT eo.snapshot('snap.goods') AS id \gset
SELECT snap.wait(:id);
SELECT key, type, payload, headers, payload = to_jsonb(g) AS same FROM eo.events JOIN snap.goods AS g ON g.id::text = key
	WHERE topic = 'snap.goods' ORDER BY seq;
SELECT relation, subscription, state, rows_done, rows_estimate, percent, rows_per_second > 0 AS rate, time_left, pid,
	created_at <= started_at AND started_at <= finished_at AS times, error FROM eo.snapshots WHERE id = :id;
SELECT eo.stop_snapshot('snap.goods');

-- one that is rolled back never was
BEGIN;
SELECT eo.snapshot('snap.goods') > 0 AS made;
SELECT eo.snapshot('snap.goods') AS second;
ROLLBACK;
BEGIN;
SELECT eo.snapshot('snap.goods') > 0 AS made;
SELECT eo.stop_snapshot('snap.goods');
SELECT state FROM eo.snapshots WHERE relation = 'snap.goods'::regclass;
COMMIT;
SELECT count(*) FROM eo.events WHERE topic = 'snap.goods';

-- an empty table; only the latest of a table is kept
TRUNCATE snap.goods;
SELECT eo.snapshot('snap.goods') AS id \gset
SELECT snap.wait(:id);
SELECT rows_done, rows_estimate, percent FROM eo.snapshots WHERE relation = 'snap.goods'::regclass;

-- other modes and formats
CREATE TABLE snap.log (a int, b text, v text, PRIMARY KEY (a, b));
INSERT INTO snap.log VALUES (1, 'x', 'one'), (1, 'y', NULL);
SELECT eo.capture('snap.log', topic => 'snap.log', mode => 'changelog', type_prefix => 'log');
SELECT eo.snapshot('snap.log') AS id \gset
SELECT snap.wait(:id);
SELECT key, type, payload FROM eo.events WHERE topic = 'snap.log' ORDER BY seq;

CREATE TABLE snap.envelope (id int PRIMARY KEY, v text);
INSERT INTO snap.envelope VALUES (1, 'one');
SELECT eo.capture('snap.envelope', topic => 'snap.envelope', format => 'debezium');
SELECT eo.snapshot('snap.envelope') AS id \gset
SELECT snap.wait(:id);
SELECT key, payload -> 'op' AS op, payload -> 'before' AS before, payload -> 'after' AS after FROM eo.events WHERE topic = 'snap.envelope' ORDER BY seq;

CREATE TABLE snap.delta (id int PRIMARY KEY);
SELECT eo.capture('snap.delta', mode => 'delta');
SELECT eo.snapshot('snap.delta');

-- some rows, some columns
CREATE TABLE snap.some (id int PRIMARY KEY, shown boolean, secret text);
INSERT INTO snap.some SELECT i, i % 3 = 0, 'secret' FROM generate_series(1, 9) AS i;
SELECT eo.capture('snap.some', topic => 'snap.some', exclude => '{secret}', when_clause => 'shown');
SELECT eo.snapshot('snap.some') AS id \gset
SELECT snap.wait(:id);
SELECT key, payload FROM eo.events WHERE topic = 'snap.some' ORDER BY seq;
SELECT rows_done, rows_estimate FROM eo.snapshots WHERE id = :id;

-- values that are large, or stored apart
CREATE TABLE snap.large (id int PRIMARY KEY, v text);
ALTER TABLE snap.large ALTER v SET STORAGE EXTERNAL;
INSERT INTO snap.large SELECT i, repeat(i::text, 20000 * i) FROM generate_series(1, 9) AS i;
SELECT eo.capture('snap.large', topic => 'snap.large');
SELECT eo.snapshot('snap.large', chunk_rows => 1) AS id \gset
SELECT snap.wait(:id);
SELECT count(*), bool_and(e.payload = to_jsonb(l)) FROM eo.events AS e JOIN snap.large AS l ON l.id::text = e.key WHERE topic = 'snap.large';

-- partitions, also one that was attached with its rows; tables that inherit
CREATE TABLE snap.parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE snap.parts_1 PARTITION OF snap.parts FOR VALUES FROM (0) TO (10);
CREATE TABLE snap.parts_2 PARTITION OF snap.parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE snap.parts_21 PARTITION OF snap.parts_2 FOR VALUES FROM (10) TO (15);
CREATE TABLE snap.parts_3 (v text, id int NOT NULL);
INSERT INTO snap.parts VALUES (1, 'a'), (11, 'b');
INSERT INTO snap.parts_3 VALUES ('c', 21), ('d', 22);
SELECT eo.capture('snap.parts', topic => 'snap.parts');
SELECT eo.snapshot('snap.parts') AS id \gset
SELECT snap.wait(:id);
ALTER TABLE snap.parts ATTACH PARTITION snap.parts_3 FOR VALUES FROM (20) TO (30);
SELECT eo.snapshot('snap.parts_3') AS id \gset
SELECT snap.wait(:id);
SELECT key, type, payload FROM eo.events WHERE topic = 'snap.parts' ORDER BY seq;

CREATE TABLE snap.base (id int PRIMARY KEY, v text);
CREATE TABLE snap.derived (more int) INHERITS (snap.base);
INSERT INTO snap.base VALUES (1, 'base');
INSERT INTO snap.derived VALUES (2, 'derived', 3);
SELECT eo.capture('snap.base', topic => 'snap.base');
SELECT eo.snapshot('snap.base') AS id \gset
SELECT snap.wait(:id);
SELECT key, payload FROM eo.events WHERE topic = 'snap.base' ORDER BY key;

-- what cannot become an event ends it, with the reason
CREATE TABLE snap.bad (id text PRIMARY KEY, v text);
INSERT INTO snap.bad VALUES ('good', 'good'), ('', 'no key');
SELECT eo.capture('snap.bad', topic => 'snap.bad');
SELECT eo.snapshot('snap.bad') AS id \gset
SELECT snap.wait(:id);
SELECT count(*) FROM eo.events WHERE topic = 'snap.bad';
SELECT finished_at IS NOT NULL AS finished FROM eo.snapshots WHERE id = :id;

-- the owner may, and his code runs as him; others see nothing of it
CREATE ROLE regress_eo_owner;
CREATE ROLE regress_eo_other;
SELECT eo.grant_producer('regress_eo_owner'), eo.grant_producer('regress_eo_other');
GRANT USAGE, CREATE ON SCHEMA snap TO regress_eo_owner, regress_eo_other;
SET ROLE regress_eo_owner;
CREATE TABLE snap.owned (id int PRIMARY KEY, who text);
CREATE FUNCTION snap.filter(id int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('application_name') = 'eo_outbox snapshot' THEN
		INSERT INTO snap.seen VALUES (id, current_user, session_user <> current_user, current_setting('search_path'));
	END IF;
	RETURN true;
END $$;
CREATE TABLE snap.seen (id int, who name, other boolean, path text);
INSERT INTO snap.owned VALUES (1, 'me');
SELECT eo.capture('snap.owned', topic => 'snap.owned', when_clause => 'snap.filter(id)');
SELECT eo.snapshot('snap.goods');
SELECT eo.stop_snapshot('snap.goods');
SELECT eo.snapshot('snap.owned') AS id \gset
SELECT snap.wait(:id);
SELECT * FROM snap.seen;
SELECT relation, state, rows_done FROM eo.snapshots;
SELECT * FROM eo.snapshot_job;
SELECT count(*) FROM eo.events;
SET ROLE regress_eo_other;
SELECT eo.snapshot('snap.owned');
SELECT count(*) FROM eo.snapshots;
RESET ROLE;

-- a filter cannot use the worker's powers
CREATE OR REPLACE FUNCTION snap.filter(id int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('application_name') = 'eo_outbox snapshot' THEN
		SET ROLE NONE;
	END IF;
	RETURN true;
END $$;
SET ROLE regress_eo_owner;
SELECT eo.snapshot('snap.owned') AS id \gset
SELECT snap.wait(:id);
RESET ROLE;

-- nor where its constants are computed beforehand; and row security hides nothing
CREATE FUNCTION snap.folded(n int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('application_name') = 'eo_outbox snapshot' AND current_user <> 'regress_eo_owner' THEN
		RAISE EXCEPTION 'runs as another one';
	END IF;
	RETURN true;
END $$;
SET ROLE regress_eo_owner;
SELECT eo.uncapture('snap.owned');
INSERT INTO snap.owned VALUES (2, 'you');
SELECT eo.capture('snap.owned', topic => 'snap.owned.again', when_clause => 'snap.folded(1)');
ALTER TABLE snap.owned ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY none ON snap.owned USING (false);
SELECT count(*) FROM snap.owned;
SELECT eo.snapshot('snap.owned') AS id \gset
SELECT snap.wait(:id);
RESET ROLE;
SELECT key, payload FROM eo.events WHERE topic = 'snap.owned.again' ORDER BY seq;

-- the conditions of others cannot see what is not theirs
CREATE FUNCTION snap.look(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'sees %', $1;
	RETURN true;
END $$;
SET ROLE regress_eo_other;
SELECT count(*) FROM eo.snapshots WHERE snap.look(error);
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA snap CASCADE;
RESET client_min_messages;
DROP OWNED BY regress_eo_owner, regress_eo_other;
DROP ROLE regress_eo_owner, regress_eo_other;
SELECT count(*) FROM eo.snapshot_job WHERE state IN ('waiting', 'running');
