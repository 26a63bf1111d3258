-- Applying changes to a table: what becomes of each event, what is refused, every
-- type, and the records of what was applied.
\c -
\set SHOW_CONTEXT never
SET timezone = 'UTC';
CREATE SCHEMA ap;
-- an event of a change, as to_jsonb() gives a row of eo.event
CREATE FUNCTION ap.event(seq bigint, op text, payload jsonb, key text DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT jsonb_build_object('seq', seq, 'type', 'ap.t.' || op, 'key', key, 'payload', payload, 'body', NULL, 'topic', 'ap.t') $$;
CREATE FUNCTION ap.apply(target regclass, seq bigint, op text, payload jsonb, key text DEFAULT NULL) RETURNS text LANGUAGE sql AS
	$$ SELECT eo.apply_change(target, ap.event(seq, op, payload, key)) $$;
CREATE FUNCTION ap.records(target regclass) RETURNS TABLE (key text, seq bigint, deleted boolean) LANGUAGE sql AS
	$$ SELECT key, seq, deleted FROM eo.applied AS a WHERE a.target = records.target ORDER BY key COLLATE "C" $$;
CREATE TABLE ap.t (id int PRIMARY KEY, name text, n numeric DEFAULT 7);
\t on
\pset format unaligned

\echo what becomes of an event
SELECT ap.apply('ap.t', 10, 'inserted', '{"id": 1, "name": "a", "n": 1}', '1');
SELECT ap.apply('ap.t', 11, 'updated', '{"id": 1, "name": "b", "n": 2}', '1');
SELECT ap.apply('ap.t', 11, 'updated', '{"id": 1, "name": "b", "n": 2}', '1');
SELECT ap.apply('ap.t', 10, 'inserted', '{"id": 1, "name": "a", "n": 1}', '1');
SELECT ap.apply('ap.t', 12, 'updated', '{"id": 2, "name": "upsert"}', '2');
SELECT ap.apply('ap.t', 13, 'inserted', '{"id": 2, "name": "again", "n": null}', '2');
SELECT ap.apply('ap.t', 14, 'read', '{"id": 3, "name": "found", "n": 3}', '3');
SELECT * FROM ap.t ORDER BY id;
SELECT ap.apply('ap.t', 20, 'deleted', '{"id": 1, "name": "b", "n": 2}', '1');
SELECT ap.apply('ap.t', 20, 'deleted', '{"id": 1, "name": "b", "n": 2}', '1');
SELECT ap.apply('ap.t', 11, 'updated', '{"id": 1, "name": "b", "n": 2}', '1');
\echo tombstones
SELECT ap.apply('ap.t', 21, 'deleted', NULL, '2');
SELECT ap.apply('ap.t', 22, 'deleted', 'null', '99');
SELECT ap.apply('ap.t', 19, 'inserted', '{"id": 99}', '99');
SELECT ap.apply('ap.t', 23, 'inserted', '{"id": 1, "name": "new"}', '1');
SELECT * FROM ap.t ORDER BY id;
SELECT * FROM ap.records('ap.t');

\echo as a line of a file
SELECT eo.apply_change('ap.t', '{"specversion":"1.0","id":"x","source":"/db","sequence":"30","type":"ap.t.inserted","time":"2026-01-01T00:00:00Z","partitionkey":"4","topic":"ap.t","position":1,"datacontenttype":"application/json","data":{"id": 4, "name": "line"}}');
SELECT eo.apply_change('ap.t', '{"specversion":"1.0","id":"x","source":"/db","sequence":"31","type":"ap.t.deleted","partitionkey":"4","topic":"ap.t","position":2,"data":null}');
\echo the same event as it is pending has no number
BEGIN;
SELECT eo.enqueue('ap.t', '{"id": 5}', '5', 'ap.t.inserted') IS NOT NULL;
SELECT eo.apply_change('ap.t', to_jsonb(e)) FROM eo.pending() AS e;
ROLLBACK;
SELECT eo.enqueue('ap.t', '{"id": 5, "name": "real"}', '5', 'ap.t.inserted') IS NOT NULL;
SELECT eo.enqueue('ap.t', NULL, '3', 'ap.t.deleted') IS NOT NULL;
SELECT eo.apply_change('ap.t', to_jsonb(e) || jsonb_build_object('seq', 1000 + row_number() OVER (ORDER BY seq))) FROM eo.events AS e WHERE topic = 'ap.t' ORDER BY seq;
SELECT * FROM ap.t ORDER BY id;

\echo what is refused
SELECT eo.apply_change(NULL, '{}');
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', NULL);
SELECT eo.apply_change(0, ap.event(1, 'inserted', '{"id": 1}'));
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', '[]');
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', '5');
SELECT eo.apply_change('ap.t', '{}');
SELECT eo.apply_change('ap.t', '{"seq": 5, "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"type": "x.inserted", "payload": {"id": 1}}');
\echo :SQLSTATE
SELECT s, eo.apply_change('ap.t', jsonb_build_object('seq', s, 'type', 'x.inserted', 'payload', '{"id": 1}'::jsonb)) FROM unnest(ARRAY['"1.5"']::jsonb[]) AS s;
SELECT eo.apply_change('ap.t', '{"seq": 1.5, "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": 0, "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": -3, "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": "", "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": "9223372036854775808", "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": [1], "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": "12a", "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": "9223372036854775810", "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": "92233720368547758070", "type": "x.inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": 5, "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "orders.shipped", "payload": null}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "inserted", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "orders.shipped", "payload": {"id": 1}}');
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.insertedx", "payload": {"id": 1}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.inserted", "payload": null}');
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.inserted", "payload": [1]}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.inserted", "body": "\\x00"}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.deleted", "body": "\\x00"}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.deleted", "payload": null}');
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "x.deleted", "key": 5, "payload": null}');
SELECT ap.apply('ap.t', 1, 'inserted', '{"name": "no key"}');
\echo :SQLSTATE
SELECT ap.apply('ap.t', 1, 'inserted', '{}');
SELECT ap.apply('ap.t', 1, 'inserted', '{"id": null}');
\echo :SQLSTATE
SELECT ap.apply('ap.t', 1, 'deleted', '{"name": "no key"}');
SELECT ap.apply('ap.t', 1, 'inserted', '{"id": "x"}');
\echo :SQLSTATE
SELECT ap.apply('ap.t', 1, 'deleted', NULL, 'x');
SELECT ap.apply('ap.t', 1, 'inserted', '{"id": 1, "n": "x"}');
\set SHOW_CONTEXT errors
SELECT ap.apply('ap.t', 1, 'inserted', '{"id": 1, "n": "x"}');
\set SHOW_CONTEXT never
\echo deltas, and the format of Debezium
SELECT ap.apply('ap.t', 1, 'inserted', '{"id": {"new": 1}, "name": {"new": "a"}}', '1');
\echo :SQLSTATE
SELECT ap.apply('ap.t', 1, 'updated', '{"name": {"old": "a", "new": "b"}}', '1');
SELECT ap.apply('ap.t', 1, 'deleted', '{"id": {"old": 1}, "name": {"old": "a"}}', '1');
SELECT ap.apply('ap.t', 1, 'updated', '{"before": null, "after": {"id": 1}, "op": "c", "source": {}, "ts_ms": 1}', '{"id": 1}');
\echo :SQLSTATE
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "ap.t", "payload": {"before": null, "after": {"id": 1}, "op": "c", "source": {}}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "ap.t", "payload": {"schema": {}, "payload": {"after": {"id": 1}, "op": "c", "source": {}}}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "ap.t", "payload": {"schema": {}, "payload": {"before": {"id": 1}, "op": "d", "source": {}}}}');
\echo what only looks like them
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "ap.t", "payload": {"payload": {"after": {"id": 1}, "op": "c", "source": {}}}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "ap.t", "payload": {"schema": {}, "payload": "text"}}');
SELECT eo.apply_change('ap.t', '{"seq": 1, "type": "ap.t", "payload": {"op": "c", "source": {}}}');
SELECT ap.apply('ap.t', 1, 'inserted', '{"name": {"new": "a", "more": 1}}');
SELECT ap.apply('ap.t', 1, 'inserted', '{"name": {}}');
BEGIN READ ONLY; SELECT ap.apply('ap.t', 1, 'inserted', '{"id": 1}'); ROLLBACK;

\echo tables that cannot be a target
CREATE TABLE ap.keyless (id int UNIQUE, a int);
CREATE UNIQUE INDEX ON ap.keyless ((a + 1));
CREATE VIEW ap.v AS SELECT * FROM ap.t;
SELECT ap.apply('ap.keyless', 1, 'inserted', '{"id": 1}');
\echo :SQLSTATE
SELECT ap.apply('ap.v', 1, 'inserted', '{"id": 1}');
\echo :SQLSTATE
SELECT ap.apply('ap.t_pkey', 1, 'inserted', '{"id": 1}');

\echo other keys: a unique index that is not null, several columns, one that can be deferred
CREATE TABLE ap.uniq (a int, b text NOT NULL);
CREATE UNIQUE INDEX ON ap.uniq (b) WHERE a > 5;
SELECT ap.apply('ap.uniq', 1, 'inserted', '{"a": 1, "b": "x"}', 'x');
CREATE UNIQUE INDEX ON ap.uniq (b) INCLUDE (a);
SELECT ap.apply('ap.uniq', 1, 'inserted', '{"a": 1, "b": "x"}', 'x'), ap.apply('ap.uniq', 2, 'updated', '{"a": 2, "b": "x"}', 'x');
TABLE ap.uniq;
CREATE TABLE ap.pair (v int, b text, a int, PRIMARY KEY (a, b));
SELECT ap.apply('ap.pair', 1, 'inserted', '{"a": 1, "b": "x", "v": 1}', '[1, "x"]'), ap.apply('ap.pair', 2, 'inserted', '{"a": 1, "b": "y\"]", "v": 1}', '[1, "y\"]"]');
SELECT ap.apply('ap.pair', 3, 'updated', '{"a": 1, "b": "x", "v": 2}', '[1, "x"]'), ap.apply('ap.pair', 4, 'deleted', NULL, '[1, "y\"]"]');
SELECT ap.apply('ap.pair', 1, 'inserted', '{"a": 1, "b": "x", "v": 1}'), ap.apply('ap.pair', 2, 'inserted', '{"a": 1, "b": "y\"]", "v": 1}');
TABLE ap.pair;
SELECT * FROM ap.records('ap.pair');
SELECT ap.apply('ap.pair', 5, 'deleted', NULL, '1');
\echo :SQLSTATE
SELECT ap.apply('ap.pair', 5, 'deleted', NULL, '[1, "x", 3]');
SELECT ap.apply('ap.pair', 5, 'deleted', NULL, '[1');
SELECT ap.apply('ap.pair', 5, 'deleted', NULL, '[1, null]');
SELECT ap.apply('ap.pair', 5, 'inserted', '{"a": 1}');
SELECT ap.apply('ap.t', 5, 'deleted', NULL, '[1, 2]');
CREATE TABLE ap.later (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int);
INSERT INTO ap.later VALUES (2, 0);
SELECT ap.apply('ap.later', 1, 'inserted', '{"id": 1, "v": 1}'), ap.apply('ap.later', 2, 'updated', '{"id": 1, "v": 2}'),
	ap.apply('ap.later', 3, 'inserted', '{"id": 2, "v": 3}'), ap.apply('ap.later', 4, 'deleted', '{"id": 1}');
TABLE ap.later;

\echo columns: unknown and missing ones, generated, identity, only the key
CREATE TABLE ap.cols ("The Id" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "a""b" text DEFAULT 'def', twice text GENERATED ALWAYS AS ("a""b" || "a""b") STORED,
	gone int, serial int GENERATED ALWAYS AS IDENTITY, free int GENERATED BY DEFAULT AS IDENTITY);
ALTER TABLE ap.cols DROP COLUMN gone;
SELECT ap.apply('ap.cols', 1, 'inserted', '{"The Id": 77, "a\"b": "x", "twice": {"not": "text"}, "gone": 1, "unknown": [], "serial": 5, "free": 6}');
SELECT ap.apply('ap.cols', 2, 'updated', '{"The Id": 77, "unknown": [], "free": 7}');
SELECT ap.apply('ap.cols', 3, 'updated', '{"The Id": 77, "a\"b": null, "serial": 5}');
SELECT ap.apply('ap.cols', 4, 'inserted', '{"The Id": 78, "unknown": []}'), ap.apply('ap.cols', 5, 'updated', '{"The Id": 78}');
SELECT * FROM ap.cols ORDER BY 1;
CREATE TABLE ap.computed (a int, k int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY);
SELECT ap.apply('ap.computed', 1, 'inserted', '{"a": 4, "k": 8}'), ap.apply('ap.computed', 2, 'updated', '{"a": 4, "k": 8}'), ap.apply('ap.computed', 3, 'deleted', NULL, '8');
TABLE ap.computed;

\echo values of every kind
CREATE TYPE ap.color AS ENUM ('red', 'green');
CREATE TYPE ap.point3 AS (x int, label text, tags text[]);
CREATE DOMAIN ap.posint AS int CHECK (value > 0);
CREATE DOMAIN ap.required AS text NOT NULL;
CREATE TABLE ap.kinds (id uuid PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, num numeric(10, 2), nan numeric, money money,
	c char(5), vc varchar(3), by bytea, d date, t time, ttz timetz, ts timestamp, tstz timestamptz, iv interval, inet inet, mac macaddr,
	bit bit(4), vb varbit, pt point, box box, j json, jb jsonb, tv tsvector, x xml, arr int[], arr2 text[][], color ap.color, colors ap.color[],
	comp ap.point3, comps ap.point3[], pos ap.posint, dreq ap.required DEFAULT 'there', r int4range, mr nummultirange, o oid, rc regclass, lsn pg_lsn, "char" "char");
CREATE TABLE ap.kinds_copy (LIKE ap.kinds INCLUDING ALL);
INSERT INTO ap.kinds VALUES
	('00000000-0000-0000-0000-000000000001', true, -5, 9007199254740993, 1.1, 'NaN', 12.5, 'NaN', 3, 'ab', 'xyz', '\x00ff', 'infinity', '24:00', '12:00+02', '0044-03-15 BC',
	'2026-01-01 12:00+02', '-1 day 02:03:04.5', '::1/64', '08:00:2b:01:02:03', '1010', '11', '(1,2)', '(1,2),(0,0)', '{"a" :  1}', '{"old": 1, "new": 2}', 'a:1 b:2', '<a>1</a>',
	'[2:3]={1,null}', '{{a,"b,"},{"NULL",null}}', 'green', '{red,green}', '(1,"a ""b","{x,y}")', '{"(1,,)","(,b,{})"}', 5, 'r', '[1,5)', '{[1,2),(3,)}', 4294967295, 'ap.t', '0/16B3748', 'x');
INSERT INTO ap.kinds (id, f8, num, ts, tstz, iv) VALUES ('00000000-0000-0000-0000-000000000002', '-Infinity', 0, '-infinity', 'infinity', '1 year -2 months +3 days -00:00:01');
SELECT ap.apply('ap.kinds_copy', 1, 'inserted', to_jsonb(k)) FROM ap.kinds AS k;
SELECT ap.apply('ap.kinds_copy', 2, 'updated', to_jsonb(k)) FROM ap.kinds AS k;
SELECT count(*), bool_and(to_jsonb(one) = to_jsonb(two)) FROM ap.kinds AS one JOIN ap.kinds_copy AS two USING (id);
SELECT ap.apply('ap.kinds_copy', 3, 'inserted', '{"id": "00000000-0000-0000-0000-000000000003", "pos": -1}');
SELECT ap.apply('ap.kinds_copy', 3, 'inserted', '{"id": "00000000-0000-0000-0000-000000000003", "dreq": null}');
SELECT ap.apply('ap.kinds_copy', 3, 'inserted', '{"id": "00000000-0000-0000-0000-000000000003", "vc": "long"}');
\echo a type that changes while the table does not
ALTER TYPE ap.point3 ADD ATTRIBUTE more int;
SELECT ap.apply('ap.kinds_copy', 4, 'updated', '{"id": "00000000-0000-0000-0000-000000000001", "comp": {"x": 2, "more": 9}}');
SELECT comp FROM ap.kinds_copy WHERE id = '00000000-0000-0000-0000-000000000001';
ALTER TYPE ap.color ADD VALUE 'blue';
SELECT ap.apply('ap.kinds_copy', 5, 'updated', '{"id": "00000000-0000-0000-0000-000000000001", "color": "blue"}');
ALTER DOMAIN ap.posint DROP CONSTRAINT posint_check;
SELECT ap.apply('ap.kinds_copy', 6, 'updated', '{"id": "00000000-0000-0000-0000-000000000001", "pos": -1}');

\echo the text of a key does not depend on how it is written, nor on the session
CREATE TABLE ap.by_time (at timestamptz, n numeric, v int, PRIMARY KEY (at, n));
SELECT ap.apply('ap.by_time', 5, 'inserted', '{"at": "2026-01-01T12:00:00+02:00", "n": 1.50, "v": 1}');
SET timezone = 'Asia/Tokyo';
SET datestyle = 'SQL, DMY';
SELECT ap.apply('ap.by_time', 4, 'updated', '{"at": "2026-01-01T10:00:00Z", "n": 1.5, "v": 2}'), ap.apply('ap.by_time', 6, 'deleted', NULL, '["2026-01-01T19:00:00+09:00", 1.5]');
SELECT * FROM ap.records('ap.by_time');
CREATE TABLE ap.by_interval (k interval PRIMARY KEY);
SET intervalstyle = 'sql_standard';
SELECT ap.apply('ap.by_interval', 1, 'inserted', '{"k": "-1 days +02:00:00"}');
SET intervalstyle = 'iso_8601';
SELECT ap.apply('ap.by_interval', 1, 'inserted', '{"k": "P-1DT2H"}');
SELECT * FROM ap.records('ap.by_interval');
RESET intervalstyle; RESET datestyle; SET timezone = 'UTC';
\echo keys that are arrays, composite, JSON, long
CREATE TABLE ap.by_array (k int[] PRIMARY KEY);
SELECT ap.apply('ap.by_array', 1, 'inserted', '{"k": [1, 2]}'), ap.apply('ap.by_array', 2, 'deleted', NULL, '[1, 2]');
CREATE TABLE ap.by_row (k ap.point3 PRIMARY KEY);
SELECT ap.apply('ap.by_row', 1, 'inserted', '{"k": {"x": 1, "label": "l", "tags": null, "more": 3}}'), ap.apply('ap.by_row', 2, 'deleted', NULL, '{"x": 1, "label": "l", "tags": null, "more": 3}');
CREATE TABLE ap.by_json (k jsonb PRIMARY KEY);
SELECT ap.apply('ap.by_json', 2, 'inserted', '{"k": {"a": 1}}'), ap.apply('ap.by_json', 3, 'deleted', NULL, '{"a": 1}'), ap.apply('ap.by_json', 4, 'deleted', NULL, '5');
CREATE TABLE ap.by_text (k text PRIMARY KEY, v int);
SELECT ap.apply('ap.by_text', 1, 'inserted', jsonb_build_object('k', k, 'v', 1), k), ap.apply('ap.by_text', 2, 'updated', jsonb_build_object('k', k, 'v', 2), k), ap.apply('ap.by_text', 1, 'inserted', jsonb_build_object('k', k, 'v', 1), k)
	FROM unnest(ARRAY['', ' ', '[1]', '{', 'a' || repeat('é', 1200), repeat('x', 2500), 'null']) AS k;
SELECT left(key, 20), length(key), seq FROM ap.records('ap.by_text');
SELECT ap.apply('ap.by_text', 3, 'deleted', NULL, k) FROM ap.by_text;
SELECT count(*) FROM ap.by_text;

\echo the table may change
CREATE TABLE ap.alter (id int PRIMARY KEY, a int, b int);
SELECT ap.apply('ap.alter', 1, 'inserted', '{"id": 1, "a": 1, "b": 1, "c": "one"}');
ALTER TABLE ap.alter DROP COLUMN a;
ALTER TABLE ap.alter ADD COLUMN c text;
SELECT ap.apply('ap.alter', 2, 'updated', '{"id": 1, "a": 1, "b": 2, "c": "two"}');
ALTER TABLE ap.alter ALTER COLUMN b TYPE text;
ALTER TABLE ap.alter RENAME COLUMN c TO d;
SELECT ap.apply('ap.alter', 3, 'updated', '{"id": 1, "b": "three", "c": "three", "d": "three"}');
ALTER TABLE ap.alter RENAME TO altered;
SELECT ap.apply('ap.altered', 4, 'updated', '{"id": 1, "b": "four"}');
ALTER SCHEMA ap RENAME TO "Ap";
ALTER SCHEMA "Ap" RENAME TO ap;
SELECT ap.apply('ap.altered', 5, 'updated', '{"id": 1, "b": "five"}');
ALTER TABLE ap.altered DROP CONSTRAINT alter_pkey;
SELECT ap.apply('ap.altered', 6, 'updated', '{"id": 1, "b": "six"}');
ALTER TABLE ap.altered ADD PRIMARY KEY (b, id);
SELECT ap.apply('ap.altered', 7, 'updated', '{"id": 1, "b": "five", "d": "seven"}');
SELECT * FROM ap.altered;
SELECT * FROM ap.records('ap.altered');
\echo many sets of columns
CREATE TABLE ap.wide (id int PRIMARY KEY, c1 int, c2 int, c3 int, c4 int, c5 int, c6 int, c7 int, c8 int);
SELECT ap.apply('ap.wide', i, 'updated', (SELECT jsonb_object_agg('c' || c, i) FROM generate_series(1, 8) AS c WHERE i >> (c - 1) & 1 = 1) || '{"id": 1}') AS result, count(*)
	FROM generate_series(1, 255) AS i GROUP BY 1 ORDER BY 1;
SELECT * FROM ap.wide;

\echo partitions and children
CREATE TABLE ap.part (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE ap.part_eu PARTITION OF ap.part FOR VALUES IN ('eu');
CREATE TABLE ap.part_us (v int, region text NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
ALTER TABLE ap.part ATTACH PARTITION ap.part_us FOR VALUES IN ('us');
SELECT ap.apply('ap.part', 1, 'inserted', '{"id": 1, "region": "us", "v": 1}'), ap.apply('ap.part', 2, 'updated', '{"id": 1, "region": "us", "v": 2}'),
	ap.apply('ap.part', 3, 'inserted', '{"id": 1, "region": "eu", "v": 1}'), ap.apply('ap.part', 4, 'deleted', NULL, '[1, "eu"]'), ap.apply('ap.part', 5, 'inserted', '{"id": 2, "region": "xx"}');
SELECT ap.apply('ap.part', 1, 'inserted', '{"id": 1, "region": "us", "v": 1}'), ap.apply('ap.part', 2, 'updated', '{"id": 1, "region": "us", "v": 2}'),
	ap.apply('ap.part', 3, 'inserted', '{"id": 1, "region": "eu", "v": 1}'), ap.apply('ap.part', 4, 'deleted', NULL, '[1, "eu"]');
SELECT tableoid::regclass, * FROM ap.part;
CREATE TABLE ap.parent (id int PRIMARY KEY, v int);
CREATE TABLE ap.child () INHERITS (ap.parent);
INSERT INTO ap.child VALUES (1, 0);
SELECT ap.apply('ap.parent', 1, 'inserted', '{"id": 1, "v": 1}'), ap.apply('ap.parent', 2, 'deleted', NULL, '1'), ap.apply('ap.parent', 3, 'truncated', '{}');
SELECT tableoid::regclass, * FROM ap.parent;

\echo rows that are there already, a trigger that declines, one that applies to another table
CREATE TABLE ap.there (id int PRIMARY KEY, v int);
INSERT INTO ap.there VALUES (1, 1), (2, 2);
SELECT ap.apply('ap.there', 1, 'inserted', '{"id": 1, "v": 9}'), ap.apply('ap.there', 1, 'deleted', NULL, '2');
TABLE ap.there;
CREATE FUNCTION ap.decline() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER decline BEFORE INSERT OR UPDATE OR DELETE ON ap.there FOR EACH ROW EXECUTE FUNCTION ap.decline();
SELECT ap.apply('ap.there', 2, 'updated', '{"id": 1, "v": 10}'), ap.apply('ap.there', 3, 'inserted', '{"id": 3, "v": 10}'), ap.apply('ap.there', 3, 'deleted', NULL, '1');
TABLE ap.there;
DROP TRIGGER decline ON ap.there;
CREATE TABLE ap.second (id int PRIMARY KEY, v int);
CREATE FUNCTION ap.forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ap.apply('ap.second', new.v, 'updated', to_jsonb(new));
	IF new.id < 103 THEN PERFORM ap.apply('ap.there', new.v, 'updated', to_jsonb(new) || jsonb_build_object('id', new.id + 1)); END IF;
	RETURN new;
END $$;
CREATE TRIGGER forward AFTER INSERT OR UPDATE ON ap.there FOR EACH ROW EXECUTE FUNCTION ap.forward();
SELECT ap.apply('ap.there', 50, 'inserted', '{"id": 100, "v": 50}'), ap.apply('ap.there', 51, 'updated', '{"id": 100, "v": 51}');
SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM ap.there;
SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM ap.second;

\echo a rollback takes the record along
BEGIN;
SELECT ap.apply('ap.t', 2000, 'updated', '{"id": 50, "name": "x"}');
SAVEPOINT s;
SELECT ap.apply('ap.t', 2001, 'updated', '{"id": 50, "name": "y"}'), ap.apply('ap.t', 2002, 'deleted', NULL, '50');
ROLLBACK TO s;
SELECT ap.apply('ap.t', 2001, 'updated', '{"id": 50, "name": "z"}');
COMMIT;
BEGIN; SELECT ap.apply('ap.t', 2002, 'deleted', NULL, '50'); ROLLBACK;
SELECT ap.apply('ap.t', 2002, 'updated', '{"id": 50, "name": "last"}');
SELECT * FROM ap.t WHERE id = 50;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT ap.apply('ap.t', 2003, 'updated', '{"id": 50}'), ap.apply('ap.t', 2004, 'updated', '{"id": 50}'), ap.apply('ap.t', 2003, 'updated', '{"id": 50}'); COMMIT;

\echo emptied and rebuilt: what is replayed counts again, what was deleted stays deleted
CREATE TABLE ap.state (id int PRIMARY KEY, v int);
CREATE TABLE ap.history (seq bigint, op text, id int, v int);
INSERT INTO ap.history VALUES (1, 'inserted', 1, 1), (2, 'inserted', 2, 1), (3, 'updated', 1, 2), (4, 'deleted', 1, NULL), (5, 'inserted', 3, 1), (6, 'inserted', 1, 3), (7, 'deleted', 2, NULL), (8, 'updated', 3, 2);
CREATE VIEW ap.replay AS SELECT seq, ap.apply('ap.state', seq, op, CASE WHEN op <> 'deleted' THEN jsonb_build_object('id', id, 'v', v) END, id::text) FROM (SELECT * FROM ap.history ORDER BY seq OFFSET 0) AS h;
SELECT string_agg(apply, ' ' ORDER BY seq) FROM ap.replay;
SELECT string_agg(apply, ' ' ORDER BY seq) FROM ap.replay;
SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM ap.state;
TRUNCATE ap.state;
SELECT string_agg(apply, ' ' ORDER BY seq) FROM ap.replay;
SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM ap.state;
DELETE FROM ap.state WHERE id = 3;
SELECT string_agg(apply, ' ' ORDER BY seq) FROM ap.replay;
SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM ap.state;
DROP TABLE ap.state CASCADE;
SELECT count(*) FROM eo.applied AS a WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = a.target);
CREATE TABLE ap.state (id int PRIMARY KEY, v int);
SELECT string_agg(ap.apply('ap.state', seq, op, CASE WHEN op <> 'deleted' THEN jsonb_build_object('id', id, 'v', v) END, id::text), ' ' ORDER BY seq) FROM ap.history;
SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM ap.state;
\echo and the records of the dropped one are gone, those of the others are not
SELECT count(*) FROM eo.applied AS a WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = a.target);
SELECT count(*) FROM ap.records('ap.t');

\echo truncations
SELECT ap.apply('ap.state', 10, 'truncated', '{}');
SELECT count(*) FROM ap.state;
SELECT * FROM ap.records('ap.state');
SELECT ap.apply('ap.state', 10, 'truncated', '{}'), ap.apply('ap.state', 9, 'truncated', NULL), ap.apply('ap.state', 9, 'inserted', '{"id": 1}'), ap.apply('ap.state', 9, 'deleted', NULL, '1'), ap.apply('ap.state', 11, 'inserted', '{"id": 1, "v": 11}');
INSERT INTO ap.state VALUES (100, 1);
SELECT ap.apply('ap.state', 20, 'inserted', '{"id": 2, "v": 20}'), ap.apply('ap.state', 21, 'inserted', '{"id": 3, "v": 21}'), ap.apply('ap.state', 22, 'deleted', '{"id": 3}'), ap.apply('ap.state', 12, 'inserted', '{"id": 4, "v": 12}');
INSERT INTO ap.state VALUES (3, 0);
SELECT ap.apply('ap.state', 15, 'truncated', '{}');
SELECT * FROM ap.state ORDER BY id;
SELECT * FROM ap.records('ap.state');
SELECT ap.apply('ap.state', 14, 'updated', '{"id": 2, "v": 14}'), ap.apply('ap.state', 14, 'inserted', '{"id": 7, "v": 14}'), ap.apply('ap.state', 16, 'inserted', '{"id": 7, "v": 16}'), ap.apply('ap.state', 19, 'updated', '{"id": 2, "v": 19}');
\echo of keys of several columns, and more rows than are read at once
CREATE TABLE ap.many (a int, b timestamptz, v int, PRIMARY KEY (a, b));
INSERT INTO ap.many SELECT i, '2026-01-01Z', 0 FROM generate_series(1, 2500) AS i;
SELECT ap.apply('ap.many', 99 + i % 2 * 2, 'updated', jsonb_build_object('a', i, 'b', '2026-01-01T01:00:00+01:00', 'v', i)) AS result, count(*) FROM generate_series(1000, 1011) AS i GROUP BY 1;
SET timezone = 'Asia/Tokyo';
SELECT ap.apply('ap.many', 100, 'truncated', '{}');
SET timezone = 'UTC';
SELECT count(*), min(a), max(a), bool_and(a = v), bool_and(a % 2 = 1) FROM ap.many;
\echo emptied and rebuilt with a truncation in the history
TRUNCATE ap.state;
SELECT ap.apply('ap.state', 12, 'inserted', '{"id": 4, "v": 12}'), ap.apply('ap.state', 15, 'truncated', '{}'), ap.apply('ap.state', 16, 'inserted', '{"id": 7, "v": 16}'), ap.apply('ap.state', 20, 'inserted', '{"id": 2, "v": 20}');
SELECT * FROM ap.state ORDER BY id;

\echo privileges: those of the caller on the table, none on the records
CREATE ROLE regress_ap_user;
GRANT USAGE ON SCHEMA ap TO regress_ap_user;
GRANT SELECT, INSERT, UPDATE ON ap.state TO regress_ap_user;
SET ROLE regress_ap_user;
SELECT eo.apply_change('ap.state', '{}');
\echo :SQLSTATE
RESET ROLE;
SELECT eo.grant_consumer('regress_ap_user');
SET ROLE regress_ap_user;
SELECT ap.apply('ap.state', 100, 'inserted', '{"id": 1}');
\echo :SQLSTATE
SELECT ap.apply('ap.t', 100, 'inserted', '{"id": 1}');
TABLE eo.applied;
DELETE FROM eo.applied;
RESET ROLE;
GRANT DELETE ON ap.state TO regress_ap_user;
SET ROLE regress_ap_user;
SELECT ap.apply('ap.state', 100, 'inserted', '{"id": 1}'), ap.apply('ap.state', 101, 'deleted', '{"id": 2}'), ap.apply('ap.state', 1, 'deleted', '{"id": 2}'), ap.apply('ap.state', 102, 'truncated', '{}');
RESET ROLE;
\echo its search_path does not matter
CREATE SCHEMA regress_ap_evil;
CREATE FUNCTION regress_ap_evil.fool(int, int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''fooled''; END';
CREATE OPERATOR regress_ap_evil.= (FUNCTION = regress_ap_evil.fool, LEFTARG = int, RIGHTARG = int);
SET search_path = regress_ap_evil, pg_catalog;
SELECT 1 = 1;
SELECT eo.apply_change('ap.t', '{"seq": 5000, "type": "t.inserted", "payload": {"id": 500}}'), eo.apply_change('ap.t', '{"seq": 5001, "type": "t.updated", "payload": {"id": 500, "n": 1}}'),
	eo.apply_change('ap.t', '{"seq": 5001, "type": "t.updated", "payload": {"id": 500, "n": 1}}'), eo.apply_change('ap.t', '{"seq": 5002, "type": "t.deleted", "key": "500"}');
RESET search_path;
DROP SCHEMA regress_ap_evil CASCADE;

\echo row security
CREATE TABLE ap.tenants (id int PRIMARY KEY, owner text, v int);
ALTER TABLE ap.tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON ap.tenants USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON ap.tenants TO regress_ap_user;
SELECT ap.apply('ap.tenants', 1, 'inserted', '{"id": 1, "owner": "other", "v": 1}');
SET ROLE regress_ap_user;
SELECT ap.apply('ap.tenants', 2, 'inserted', '{"id": 2, "owner": "regress_ap_user", "v": 1}'), ap.apply('ap.tenants', 3, 'updated', '{"id": 2, "owner": "regress_ap_user", "v": 2}');
SELECT ap.apply('ap.tenants', 4, 'inserted', '{"id": 3, "owner": "other", "v": 1}');
\echo :SQLSTATE
SELECT ap.apply('ap.tenants', 5, 'updated', '{"id": 1, "owner": "regress_ap_user", "v": 66}');
\echo :SQLSTATE
SELECT ap.apply('ap.tenants', 1, 'updated', '{"id": 1, "owner": "regress_ap_user", "v": 66}');
SELECT ap.apply('ap.tenants', 999, 'deleted', '{"id": 1}'), ap.apply('ap.tenants', 999, 'deleted', '{"id": 77}'), ap.apply('ap.tenants', 999, 'deleted', '{"id": 2}');
SELECT ap.apply('ap.tenants', 999, 'truncated', '{}');
\echo :SQLSTATE
RESET ROLE;
SELECT * FROM ap.records('ap.tenants');
TABLE ap.tenants;

\echo temporary tables
CREATE TEMP TABLE ap_temp (id int PRIMARY KEY, v int);
SELECT ap.apply('ap_temp', 1, 'inserted', '{"id": 1}'), ap.apply('ap_temp', 1, 'inserted', '{"id": 1}');
\echo what a dump would take: nothing of temporary and dropped tables
SELECT count(*) FROM eo.applied WHERE target = 'ap_temp'::regclass;
SELECT extcondition[i] <> '' FROM pg_extension, generate_subscripts(extconfig, 1) AS i WHERE extname = 'eo_outbox' AND extconfig[i]::regclass::text LIKE 'eo.applied%';

SET client_min_messages = warning;
DROP SCHEMA ap CASCADE;
SELECT eo.enqueue('ap.end', '{}') IS NOT NULL;
DROP OWNED BY regress_ap_user;
DROP ROLE regress_ap_user;
