-- The trigger that skips rows whose message id was received before.
\c -
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA dedup;
CREATE TABLE dedup.payments (gone int, id bigint GENERATED ALWAYS AS IDENTITY, message_id text, amount int, twice int GENERATED ALWAYS AS (amount * 2) STORED);
ALTER TABLE dedup.payments DROP COLUMN gone;
CREATE TRIGGER dedup BEFORE INSERT ON dedup.payments FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('billing', 'message_id');
\t on
\pset format unaligned

\echo rows one by one, several in a statement, from a query
INSERT INTO dedup.payments (message_id, amount) VALUES ('p1', 1) RETURNING amount, twice;
INSERT INTO dedup.payments (message_id, amount) VALUES ('p1', 2) RETURNING amount, twice;
INSERT INTO dedup.payments (message_id, amount) VALUES ('p2', 3), ('p1', 4), ('p3', 5), ('p2', 6);
INSERT INTO dedup.payments (message_id, amount) SELECT 'p' || i % 5, i FROM generate_series(10, 30) AS i;
SELECT message_id, amount, twice FROM dedup.payments ORDER BY id;
\echo COPY
COPY dedup.payments (message_id, amount) FROM stdin;
p1	100
c1	101
c2	102
c1	103
c3	104
\.
SELECT message_id, amount FROM dedup.payments WHERE amount >= 100 ORDER BY id;
\echo with the functions it has one inbox
SELECT eo.receive('billing', 'p1'), eo.receive('billing', 'f1'), eo.receive('other', 'p1');
INSERT INTO dedup.payments (message_id, amount) VALUES ('f1', 1), ('f2', 2) RETURNING message_id;
\echo a row is not a cause, for there may be many
BEGIN;
INSERT INTO dedup.payments (message_id, amount) VALUES ('cause', 1);
SELECT eo.enqueue('dedup', '1') IS NOT NULL;
SELECT coalesce(headers::text, '(none)') FROM eo.pending();
ROLLBACK;
\echo rollback, savepoints, two phases, prepared statements
INSERT INTO dedup.payments (message_id, amount) VALUES ('cause', 1) RETURNING message_id;
BEGIN;
SAVEPOINT a;
INSERT INTO dedup.payments (message_id, amount) VALUES ('s1', 1), ('s2', 2);
ROLLBACK TO a;
INSERT INTO dedup.payments (message_id, amount) VALUES ('s2', 3), ('s2', 4) RETURNING message_id, amount;
COMMIT;
BEGIN; INSERT INTO dedup.payments (message_id, amount) VALUES ('two', 1); PREPARE TRANSACTION 'dedup'; COMMIT PREPARED 'dedup';
INSERT INTO dedup.payments (message_id, amount) VALUES ('two', 2), ('s1', 5) RETURNING message_id, amount;
PREPARE pay AS INSERT INTO dedup.payments (message_id, amount) VALUES ($1, $2) RETURNING message_id, amount;
EXECUTE pay('e1', 1); EXECUTE pay('e1', 2); EXECUTE pay('e2', 3);
\echo what is in the way of a row is decided after it
CREATE UNIQUE INDEX only_one ON dedup.payments (amount) WHERE amount > 1000;
INSERT INTO dedup.payments (message_id, amount) VALUES ('u1', 1001), ('u2', 1001) ON CONFLICT DO NOTHING RETURNING message_id;
INSERT INTO dedup.payments (message_id, amount) VALUES ('u3', 1001);
INSERT INTO dedup.payments (message_id, amount) VALUES ('u2', 1002), ('u3', 1003) RETURNING message_id;
\echo the table changes under it
ALTER TABLE dedup.payments RENAME message_id TO mid;
INSERT INTO dedup.payments (mid, amount) VALUES ('a1', 2001);
\echo :SQLSTATE
ALTER TABLE dedup.payments RENAME mid TO message_id;
ALTER TABLE dedup.payments ALTER message_id TYPE varchar(10);
INSERT INTO dedup.payments (message_id, amount) VALUES ('a1', 2002), ('p1', 2003) RETURNING message_id;

\echo what is refused when it fires
INSERT INTO dedup.payments (amount) VALUES (3001);
\echo :SQLSTATE
INSERT INTO dedup.payments (message_id, amount) VALUES ('', 3002);
\echo :SQLSTATE
INSERT INTO dedup.payments (message_id, amount) VALUES (E'a\tb', 3002);
CREATE TABLE dedup.wrong (i int, message_id text, doubled text GENERATED ALWAYS AS (message_id || message_id) STORED);
CREATE TRIGGER t AFTER INSERT ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong', 'message_id');
INSERT INTO dedup.wrong VALUES (1, 'w');
\echo :SQLSTATE
DROP TRIGGER t ON dedup.wrong;
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH STATEMENT EXECUTE FUNCTION eo.deduplicate('wrong', 'message_id');
INSERT INTO dedup.wrong VALUES (1, 'w');
\echo :SQLSTATE
DROP TRIGGER t ON dedup.wrong;
CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong', 'message_id');
INSERT INTO dedup.wrong VALUES (1, 'w') RETURNING i;
UPDATE dedup.wrong SET i = 2;
\echo :SQLSTATE
DELETE FROM dedup.wrong;
DROP TRIGGER t ON dedup.wrong;
CREATE VIEW dedup.wrong_view AS SELECT i, message_id FROM dedup.wrong;
CREATE TRIGGER t INSTEAD OF INSERT ON dedup.wrong_view FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong', 'message_id');
INSERT INTO dedup.wrong_view VALUES (1, 'v');
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong');
INSERT INTO dedup.wrong VALUES (1, 'x');
\echo :SQLSTATE
DROP TRIGGER t ON dedup.wrong;
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong', 'message_id', 'more');
INSERT INTO dedup.wrong VALUES (1, 'x');
DROP TRIGGER t ON dedup.wrong;
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong', 'nothing');
INSERT INTO dedup.wrong VALUES (1, 'x');
\echo :SQLSTATE
DROP TRIGGER t ON dedup.wrong;
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('wrong', 'doubled');
INSERT INTO dedup.wrong VALUES (1, 'x');
\echo :SQLSTATE
DROP TRIGGER t ON dedup.wrong;
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('', 'message_id');
INSERT INTO dedup.wrong VALUES (1, 'x');
\echo :SQLSTATE
DROP TRIGGER t ON dedup.wrong;
SELECT eo.deduplicate();
CREATE TRIGGER t BEFORE INSERT ON dedup.wrong FOR EACH ROW WHEN (NEW.message_id IS NOT NULL) EXECUTE FUNCTION eo.deduplicate('wrong', 'message_id');
INSERT INTO dedup.wrong VALUES (1, NULL), (2, 'x'), (3, NULL), (4, 'x') RETURNING i;
BEGIN READ ONLY; INSERT INTO dedup.wrong VALUES (5, 'y'); ROLLBACK;

\echo types of ids; the same one in every session, however it prints values
CREATE DOMAIN dedup.id AS text CHECK (value <> 'bad');
CREATE TABLE dedup.typed (t text, i int, u uuid, b bytea, n numeric, c char(4), d dedup.id, at timestamptz, f float8);
CREATE FUNCTION dedup.only(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	DROP TRIGGER IF EXISTS dedup ON dedup.typed;
	EXECUTE format('CREATE TRIGGER dedup BEFORE INSERT ON dedup.typed FOR EACH ROW EXECUTE FUNCTION eo.deduplicate(%L, %L)', 'typed ' || what, what);
END $$;
SELECT FROM dedup.only('i'); INSERT INTO dedup.typed (i) VALUES (1), (2), (1), (-2), (2) RETURNING i;
SELECT eo.receive('typed i', '2'), eo.receive('typed i', '3');
SELECT FROM dedup.only('u'); INSERT INTO dedup.typed (u) VALUES ('c0ffee00-0000-4000-8000-000000000001'), ('C0FFEE00-0000-4000-8000-000000000001') RETURNING u;
SELECT FROM dedup.only('n'); INSERT INTO dedup.typed (n) VALUES (1), (1.0), (1) RETURNING n;
SELECT FROM dedup.only('c'); INSERT INTO dedup.typed (c) VALUES ('ab'), ('ab  '), ('abc') RETURNING c;
SELECT FROM dedup.only('d'); INSERT INTO dedup.typed (d) VALUES ('x'), ('y'), ('x') RETURNING d;
SELECT FROM dedup.only('b');
SET bytea_output = 'escape'; INSERT INTO dedup.typed (b) VALUES ('\x0001'), ('abc'), ('\x0001') RETURNING b;
SET bytea_output = 'hex'; INSERT INTO dedup.typed (b) VALUES ('\x0001'), ('abc'), ('\x02') RETURNING b;
SELECT eo.receive('typed b', '\x02');
SELECT FROM dedup.only('at');
SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; INSERT INTO dedup.typed (at) VALUES ('2024-05-06 07:08:09+00') RETURNING at;
SET TimeZone = 'America/Lima'; SET DateStyle = 'ISO'; INSERT INTO dedup.typed (at) VALUES ('2024-05-06 07:08:09+00'), ('2024-05-06 07:08:10+00') RETURNING at;
RESET TimeZone; RESET DateStyle;
SELECT FROM dedup.only('f');
SET extra_float_digits = -5; INSERT INTO dedup.typed (f) VALUES (0.1::float8 + 0.2), (0.3) RETURNING f;
SHOW extra_float_digits;
RESET extra_float_digits; INSERT INTO dedup.typed (f) VALUES (0.1::float8 + 0.2), (0.3) RETURNING f;
SELECT FROM dedup.only('t'); ALTER TABLE dedup.typed ALTER t SET STORAGE EXTERNAL;
INSERT INTO dedup.typed (t) SELECT repeat('t', 1024) || substr('xyz', i, 0) FROM generate_series(1, 3) AS i;
INSERT INTO dedup.typed (t) VALUES (repeat('t', 1025));

\echo partitions: other attribute numbers, levels, rows given to a partition itself
CREATE TABLE dedup.part (region text, message_id text, amount int) PARTITION BY LIST (region);
CREATE TABLE dedup.part_eu (a int, amount int, message_id text, region text);
ALTER TABLE dedup.part_eu DROP COLUMN a;
ALTER TABLE dedup.part ATTACH PARTITION dedup.part_eu FOR VALUES IN ('eu');
CREATE TABLE dedup.part_us PARTITION OF dedup.part FOR VALUES IN ('us') PARTITION BY RANGE (amount);
CREATE TABLE dedup.part_us_small PARTITION OF dedup.part_us FOR VALUES FROM (0) TO (100);
CREATE TABLE dedup.part_us_large PARTITION OF dedup.part_us FOR VALUES FROM (100) TO (1000);
CREATE TRIGGER dedup BEFORE INSERT ON dedup.part FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('parts', 'message_id');
INSERT INTO dedup.part VALUES ('eu', '1', 1), ('us', '1', 2), ('us', '2', 3), ('us', '2', 500), ('us', '3', 501), ('eu', '3', 4), ('eu', '4', 5);
COPY dedup.part (amount, message_id, region) FROM stdin;
6	4	us
7	5	eu
502	6	us
8	6	eu
\.
INSERT INTO dedup.part_eu (region, message_id, amount) VALUES ('eu', '6', 9), ('eu', '7', 10);
INSERT INTO dedup.part_us VALUES ('us', '7', 11), ('us', '8', 12);
INSERT INTO dedup.part_us_small VALUES ('us', '8', 13), ('us', '9', 14);
CREATE TABLE dedup.part_late (message_id text, amount int, region text);
INSERT INTO dedup.part_late VALUES ('10', 15, 'asia');
ALTER TABLE dedup.part ATTACH PARTITION dedup.part_late FOR VALUES IN ('asia');
INSERT INTO dedup.part VALUES ('asia', '9', 16), ('asia', '11', 17);
SELECT tableoid::regclass, * FROM dedup.part ORDER BY amount;
\echo a partition with a trigger of its own besides: one of the two counts a row
CREATE TRIGGER a_first BEFORE INSERT ON dedup.part_eu FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('parts', 'message_id');
CREATE TRIGGER z_last BEFORE INSERT ON dedup.part_eu FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('parts', 'message_id');
CREATE TRIGGER other BEFORE INSERT ON dedup.part_eu FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('other parts', 'message_id');
INSERT INTO dedup.part VALUES ('eu', '20', 20), ('eu', '20', 21), ('eu', '1', 22), ('eu', '21', 23) RETURNING message_id, amount;
ALTER TABLE dedup.part_eu DISABLE TRIGGER a_first;
INSERT INTO dedup.part VALUES ('eu', '21', 24), ('eu', '22', 25) RETURNING message_id, amount;
ALTER TABLE dedup.part_eu DISABLE TRIGGER dedup;
INSERT INTO dedup.part VALUES ('eu', '22', 26), ('eu', '23', 27) RETURNING message_id, amount;
ALTER TABLE dedup.part_eu ENABLE REPLICA TRIGGER dedup;
INSERT INTO dedup.part VALUES ('eu', '24', 28), ('eu', '24', 29) RETURNING message_id, amount;
SET session_replication_role = replica;
INSERT INTO dedup.part VALUES ('eu', '24', 30), ('eu', '25', 31) RETURNING message_id, amount;
RESET session_replication_role;
ALTER TABLE dedup.part_eu ENABLE TRIGGER dedup;
DROP TRIGGER a_first ON dedup.part_eu;
DROP TRIGGER z_last ON dedup.part_eu;
CREATE TRIGGER a_first BEFORE INSERT ON dedup.part_eu FOR EACH ROW WHEN (NEW.amount < 40) EXECUTE FUNCTION eo.deduplicate('parts', 'message_id');
INSERT INTO dedup.part VALUES ('eu', '30', 39);
\echo :SQLSTATE
DROP TRIGGER a_first ON dedup.part_eu;
CREATE TRIGGER z_last BEFORE INSERT ON dedup.part_eu FOR EACH ROW WHEN (NEW.amount < 40) EXECUTE FUNCTION eo.deduplicate('parts', 'message_id');
INSERT INTO dedup.part VALUES ('eu', '30', 39), ('eu', '30', 40), ('eu', '31', 41) RETURNING message_id, amount;
DROP TRIGGER z_last ON dedup.part_eu;

\echo rows that an UPDATE moves to another partition are no duplicates of themselves
CREATE VIEW dedup.places AS SELECT string_agg(format('%s:%s', message_id, region || CASE WHEN region <> 'us' THEN '' WHEN amount < 100 THEN '<' ELSE '>' END), ' '
	ORDER BY message_id::int) FROM dedup.part WHERE message_id::int < 9;
TABLE dedup.places;
UPDATE dedup.part SET region = 'us' WHERE message_id IN ('1', '4');
UPDATE dedup.part SET region = 'eu', amount = 50 WHERE message_id = '3' RETURNING region, message_id;
UPDATE dedup.part_us SET amount = amount + 200 WHERE message_id IN ('1', '2');
UPDATE dedup.part AS p SET region = 'asia' FROM (VALUES ('5'), ('6')) AS v (id) WHERE id = message_id;
TABLE dedup.places;
-- of several statements in one
WITH moved AS (UPDATE dedup.part SET region = 'eu' WHERE message_id = '8' RETURNING message_id) SELECT * FROM moved;
CREATE FUNCTION dedup.move(id text, to_region text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	INSERT INTO dedup.part VALUES ('eu', id, 60), ('eu', 'n' || id, 61);
	UPDATE dedup.part SET region = to_region WHERE message_id = id RETURNING region INTO result;
	RETURN result;
END $$;
SELECT dedup.move('2', 'asia'), dedup.move('7', 'us');
DELETE FROM dedup.part WHERE message_id ~ '^n';
TABLE dedup.places;
-- in cursors, rolled back, and after errors
BEGIN;
SAVEPOINT a;
UPDATE dedup.part SET region = 'us' WHERE message_id IN ('2', '8');
INSERT INTO dedup.part VALUES ('eu', '8', 62) RETURNING 'not a duplicate';
ROLLBACK TO a;
UPDATE dedup.part SET region = 'nowhere' WHERE message_id = '8';
ROLLBACK;
INSERT INTO dedup.part VALUES ('eu', '8', 63) RETURNING 'not a duplicate';
-- one that was there before the trigger
UPDATE dedup.part SET region = 'eu' WHERE message_id = '10' RETURNING message_id;
-- MERGE that only moves
MERGE INTO dedup.part AS p USING (VALUES ('4'), ('5')) AS v (id) ON p.message_id = v.id
	WHEN MATCHED THEN UPDATE SET region = 'eu';
-- and one that only inserts
MERGE INTO dedup.part AS p USING (VALUES ('1', 70), ('4000', 71), ('4001', 72)) AS v (id, n) ON p.message_id = v.id AND p.amount = v.n
	WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT VALUES ('us', v.id, v.n);
SELECT message_id, amount FROM dedup.part WHERE message_id::int >= 4000 ORDER BY 1;
TABLE dedup.places;
-- a statement that does both
WITH moved AS (UPDATE dedup.part SET region = 'us' WHERE message_id = '8') INSERT INTO dedup.part VALUES ('eu', '5000', 73);
\echo :SQLSTATE
WITH moved AS (UPDATE dedup.part SET amount = amount WHERE message_id = '8') INSERT INTO dedup.part VALUES ('eu', '5001', 74) RETURNING message_id;
WITH moved AS (UPDATE dedup.part_us SET region = region WHERE message_id = '1') INSERT INTO dedup.part VALUES ('eu', '8', 75) RETURNING 'not a duplicate';
TABLE dedup.places;

\echo eo.deduplicate_table()
CREATE TABLE dedup."Odd 'table'" ("Odd ""column""" text, n int);
SELECT FROM eo.deduplicate_table('dedup."Odd ''table''"', E'o\\dd ''consumer''', 'Odd "column"');
INSERT INTO dedup."Odd 'table'" VALUES ('o', 1), ('o', 2), ('p', 3) RETURNING n;
SELECT eo.receive(E'o\\dd ''consumer''', 'p');
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'dedup."Odd ''table''"'::regclass;
SELECT FROM eo.deduplicate_table('dedup."Odd ''table''"', 'again', 'n');
\echo :SQLSTATE
CREATE TABLE dedup.whole (k int, message_id text) PARTITION BY LIST (k);
CREATE TABLE dedup.half PARTITION OF dedup.whole FOR VALUES IN (1);
SELECT FROM eo.deduplicate_table('dedup.whole', 'whole', 'message_id');
INSERT INTO dedup.whole VALUES (1, 'h'), (1, 'h') RETURNING k;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname = 'eo_deduplicate' AND tgrelid::regclass::text ~ 'whole|half' ORDER BY 1;
SELECT FROM eo.deduplicate_table(0, 'c', 'm');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.nothing', 'c', 'm');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.wrong_view', 'c', 'message_id');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.wrong', 'c', 'nothing');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.wrong', 'c', 'ctid');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.wrong', 'c', 'doubled');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.wrong', '', 'message_id');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.wrong', E'c\x01', 'message_id');
BEGIN READ ONLY; SELECT FROM eo.deduplicate_table('dedup.wrong', 'c', 'message_id'); ROLLBACK;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'dedup.wrong'::regclass AND tgname = 'eo_deduplicate';
\echo privileges: who creates the trigger needs them, who inserts does not
CREATE ROLE regress_eo_owner;
CREATE ROLE regress_eo_inserter;
GRANT USAGE ON SCHEMA eo TO regress_eo_owner;
GRANT ALL ON SCHEMA dedup TO regress_eo_owner;
GRANT USAGE ON SCHEMA dedup TO regress_eo_inserter;
GRANT EXECUTE ON FUNCTION eo.deduplicate_table TO regress_eo_owner;
GRANT TRIGGER ON dedup.wrong TO regress_eo_owner;
SET ROLE regress_eo_owner;
CREATE TABLE dedup.owned (message_id text);
GRANT INSERT ON dedup.owned TO regress_eo_inserter;
SELECT FROM eo.deduplicate_table('dedup.wrong', 'c', 'message_id');
\echo :SQLSTATE
SELECT FROM eo.deduplicate_table('dedup.owned', 'c', 'message_id');
\echo :SQLSTATE
CREATE TRIGGER own BEFORE INSERT ON dedup.owned FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('c', 'message_id');
RESET ROLE;
GRANT EXECUTE ON FUNCTION eo.deduplicate TO regress_eo_owner;
SET ROLE regress_eo_owner;
SELECT FROM eo.deduplicate_table('dedup.owned', 'of an owner', 'message_id');
SET ROLE regress_eo_inserter;
INSERT INTO dedup.owned VALUES ('1'), ('2'), ('1');
SELECT FROM eo.deduplicate_table('dedup.owned', 'c', 'message_id');
RESET ROLE;
SELECT * FROM dedup.owned;
DROP TABLE dedup.owned;
REVOKE ALL ON FUNCTION eo.deduplicate, eo.deduplicate_table FROM regress_eo_owner;
REVOKE ALL ON SCHEMA eo FROM regress_eo_owner;
DROP OWNED BY regress_eo_owner, regress_eo_inserter;
DROP ROLE regress_eo_owner, regress_eo_inserter;

\t off
\pset format aligned
DROP SCHEMA dedup CASCADE;
