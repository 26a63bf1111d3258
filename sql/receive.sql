-- Receiving once: by id, many at once, by position; and what of it events carry.
\c -
\set SHOW_CONTEXT never
CREATE SCHEMA rx;
-- the ids that a batch finds new, in one line
CREATE FUNCTION rx.batch(ids text[], consumer text DEFAULT 'c') RETURNS text LANGUAGE sql AS
	$$ SELECT coalesce(string_agg(id, ' '), '') FROM eo.receive(consumer, ids) AS id $$;
-- how far a consumer has received a source, or how many ids
CREATE FUNCTION rx.held(name text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM eo.consumer AS c JOIN (SELECT * FROM eo.inbox_day_0 UNION ALL SELECT * FROM eo.inbox_day_1
		UNION ALL SELECT * FROM eo.inbox_week_0 UNION ALL SELECT * FROM eo.inbox_week_1
		UNION ALL SELECT * FROM eo.inbox_long_0 UNION ALL SELECT * FROM eo.inbox_long_1) AS i ON i.consumer = c.id
	WHERE c.name = held.name
$$;
\t on
\pset format unaligned

\echo what is refused
SELECT eo.receive(NULL, 'm');
\echo :SQLSTATE
SELECT eo.receive('c', NULL::text);
\echo :SQLSTATE
SELECT eo.receive('', 'm');
\echo :SQLSTATE
SELECT eo.receive(repeat('c', 129), 'm');
\echo :SQLSTATE
SELECT eo.receive(E'c\n', 'm');
\echo :SQLSTATE
SELECT eo.receive('c', '');
\echo :SQLSTATE
SELECT eo.receive('c', repeat('m', 1025));
\echo :SQLSTATE
SELECT eo.receive('c', repeat('é', 513));
SELECT eo.receive('c', E'm\tm');
\echo :SQLSTATE
SELECT eo.receive('c', E'm\x7f');
SELECT eo.receive('c', E'm\xff');
\echo :SQLSTATE
SELECT eo.receive('c', 'm', '[]');
\echo :SQLSTATE
SELECT eo.receive('c', 'm', '{"correlationid": 7}');
\echo :SQLSTATE
SELECT eo.receive('c', 'm', '{"ce_traceparent": null}');
SELECT eo.receive('c', 'm', '{"traceparent": "a\nb"}');
\echo :SQLSTATE
SELECT eo.receive('c', 'm', jsonb_build_object('tracestate', repeat('t', 4096)));
\echo :SQLSTATE
SELECT * FROM eo.receive(NULL, ARRAY['m']);
\echo :SQLSTATE
SELECT * FROM eo.receive('c', NULL::text[]);
\echo :SQLSTATE
SELECT * FROM eo.receive('c', ARRAY['m', NULL]);
\echo :SQLSTATE
SELECT * FROM eo.receive('c', ARRAY['m', '']);
SELECT * FROM eo.receive('c', ARRAY['m', repeat('m', 1025)]);
SELECT * FROM eo.receive('', ARRAY['m']);
SELECT eo.receive_at(NULL, 's', 1);
\echo :SQLSTATE
SELECT eo.receive_at('c', NULL, 1);
\echo :SQLSTATE
SELECT eo.receive_at('c', 's', NULL);
\echo :SQLSTATE
SELECT eo.receive_at('c', 's', 1, NULL);
\echo :SQLSTATE
SELECT eo.receive_at('', 's', 1);
SELECT eo.receive_at('c', '', 1);
\echo :SQLSTATE
SELECT eo.receive_at('c', repeat('s', 1025), 1);
SELECT eo.receive_at('c', E's\x01', 1);
BEGIN READ ONLY; SELECT eo.receive('c', 'm');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY; SELECT * FROM eo.receive('c', ARRAY['m']); ROLLBACK;
BEGIN READ ONLY; SELECT eo.receive_at('c', 's', 1); ROLLBACK;
SELECT count(*) AS consumers_after_all_that FROM eo.consumer WHERE name IN ('c', '');

\echo true once per consumer and id
SELECT eo.receive('c', 'm1'), eo.receive('c', 'm1');
SELECT eo.receive('c', 'm1'), eo.receive('d', 'm1'), eo.receive('d', 'm1');
SELECT id, eo.receive('c', id) FROM unnest(ARRAY['a', 'b', 'a', 'a', 'b']) WITH ORDINALITY AS u (id, n) ORDER BY n;
SELECT name, keep_for FROM eo.consumer WHERE name IN ('c', 'd') ORDER BY 1;

\echo ids that are nearly the same, and the shortest and longest ones
SELECT id, eo.receive('near', id), eo.receive('near', id) FROM unnest(ARRAY['x', 'x ', 'x  ', ' x', 'X', 'xx', '-', 'é', 'e']) AS id;
SELECT length(id), eo.receive('near', id), eo.receive('near', id)
	FROM (VALUES (repeat('m', 1023)), (repeat('m', 1024)), (repeat('m', 1023) || 'n'), (repeat('é', 512))) AS v (id);
SELECT eo.receive(repeat('c', 128), 'm'), eo.receive(repeat('c', 128), 'm'), eo.receive(repeat('c', 127), 'm');
SELECT rx.batch(ARRAY[repeat('m', 1024), repeat('m', 1022)], 'near') = repeat('m', 1022) AS only_the_new_one;

\echo a rollback gives it back, also to a savepoint and in an exception block
BEGIN; SELECT eo.receive('c', 'r1'); ROLLBACK;
BEGIN; SELECT eo.receive('c', 'r1'); SELECT 1 / 0; COMMIT;
SELECT eo.receive('c', 'r1'), eo.receive('c', 'r1');
BEGIN;
SELECT eo.receive('c', 'r2');
SAVEPOINT a;
SELECT eo.receive('c', 'r2'), eo.receive('c', 'r3'), eo.receive('first', 'r'), rx.batch(ARRAY['r4', 'r5']), eo.receive_at('c', 'r', 1);
ROLLBACK TO a;
SELECT eo.receive('c', 'r2'), eo.receive('c', 'r3'), eo.receive('first', 'r'), rx.batch(ARRAY['r4', 'r5']), eo.receive_at('c', 'r', 1);
SAVEPOINT b;
SELECT eo.receive('c', 'r6'), eo.receive_at('c', 'r', 2);
RELEASE b;
SELECT eo.receive('c', 'r6'), eo.receive_at('c', 'r', 2);
COMMIT;
SELECT id, eo.receive('c', id) FROM unnest(ARRAY['r2', 'r3', 'r4', 'r5', 'r6']) AS id;
SELECT eo.receive('first', 'r'), eo.receive_at('c', 'r', 2), eo.receive_at('c', 'r', 3);
DO $$
BEGIN
	FOR i IN 1 .. 4 LOOP
		BEGIN
			IF NOT eo.receive('c', 'again') THEN
				RAISE NOTICE 'attempt %: seen', i;
			ELSIF i < 3 THEN
				RAISE EXCEPTION 'attempt %', i;
			END IF;
		EXCEPTION WHEN raise_exception THEN
			RAISE NOTICE '%', sqlerrm;
		END;
	END LOOP;
END $$;

\echo isolation levels, alone
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT eo.receive('c', 'i1'), eo.receive('c', 'i1'), eo.receive('c', 'm1'); COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT eo.receive('c', 'i1'), eo.receive('c', 'i2'), rx.batch(ARRAY['i1', 'i2', 'i3']); COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT eo.receive_at('c', 'i', 1), eo.receive_at('c', 'i', 1), eo.receive_at('c', 'i', 2); COMMIT;

\echo many at once: the new ones, in the order given
SELECT eo.receive('c', ARRAY['z', 'm1', 'y', 'z', 'x', 'm1', 'y', 'w']);
SELECT rx.batch(ARRAY['w', 'v', 'x']), rx.batch(ARRAY['w', 'v', 'x']);
SELECT rx.batch(ARRAY[]::text[]), rx.batch(ARRAY[['p', 'o'], ['o', 'n']]), rx.batch('[5:6]={l,k}');
SELECT n, id FROM eo.receive('c', ARRAY['3', '1', '2']) WITH ORDINALITY AS r (id, n);
SELECT count(*) FROM eo.receive('many', ARRAY(SELECT i::text FROM generate_series(1, 20000) AS i));
SELECT count(*), min(id::int) FROM eo.receive('many', ARRAY(SELECT i::text FROM generate_series(30000, 1, -1) AS i)) AS id;
SELECT rx.held('many');
BEGIN; SELECT rx.batch(ARRAY['j', 'i']); ROLLBACK;
SELECT rx.batch(ARRAY['i', 'h', 'j']);
\echo nothing of a batch in which one is refused
SELECT * FROM eo.receive('c', ARRAY['g', 'f', E'e\n']);
SELECT rx.batch(ARRAY['f', 'g']);

\echo by position
SELECT eo.receive_at('c', 's', 1), eo.receive_at('c', 's', 1), eo.receive_at('c', 's', 2), eo.receive_at('c', 's', 4),
	eo.receive_at('c', 's', 3), eo.receive_at('c', 's', 4), eo.receive_at('c', 's', 1);
SELECT position, eo.receive_at('c', 's', position) FROM generate_series(3, 9) AS position;
SELECT eo.receive_at('c', 's', 20, false), eo.receive_at('c', 's', 20, dense => false), eo.receive_at('c', 's', 19, false),
	eo.receive_at('c', 's', 22, true), eo.receive_at('c', 's', 21, true);
SELECT eo.receive_at('d', 's', 7), eo.receive_at('c', 's2', -5), eo.receive_at('c', 's2', -4), eo.receive_at('c', 's2', 0, false);
SELECT eo.receive_at('c', 'ends', -9223372036854775808), eo.receive_at('c', 'ends', -9223372036854775808),
	eo.receive_at('c', 'ends', 9223372036854775807), eo.receive_at('c', 'ends', 9223372036854775807, false),
	eo.receive_at('c', 'ends', 9223372036854775807), eo.receive_at('c', 'ends', -9223372036854775808);
SELECT eo.receive_at('c', repeat('s', 1024), 1), eo.receive_at('c', repeat('s', 1024), 1);
SELECT c.name, substr(p.source, 1, 10), p.position FROM eo.received_position AS p JOIN eo.consumer AS c ON c.id = p.consumer
	WHERE c.name IN ('c', 'd') ORDER BY 1, 2;
BEGIN; SELECT eo.receive_at('c', 's', 22); ROLLBACK;
SELECT eo.receive_at('c', 's', 22);
DO $$ BEGIN
	FOR i IN 1 .. 3000 LOOP
		IF eo.receive_at('c', 'long', i) <> 'new' OR eo.receive_at('c', 'long', i) <> 'duplicate' OR eo.receive_at('c', 'long', i + 2) <> 'gap' THEN
			RAISE EXCEPTION 'at %', i;
		END IF;
	END LOOP;
END $$;

\echo cursors: what one has fetched counts; one WITH HOLD runs to its end at commit
BEGIN;
DECLARE c CURSOR FOR SELECT i, eo.receive('c', 'cursor' || i) FROM generate_series(1, 4) AS i;
FETCH 2 FROM c;
SAVEPOINT a;
FETCH 1 FROM c;
ROLLBACK TO a;
COMMIT;
BEGIN;
DECLARE h NO SCROLL CURSOR WITH HOLD FOR SELECT i, eo.receive('c', 'cursor' || i) FROM generate_series(1, 6) AS i;
FETCH 1 FROM h;
COMMIT;
FETCH ALL FROM h;
CLOSE h;
SELECT rx.batch(ARRAY(SELECT 'cursor' || i FROM generate_series(1, 7) AS i));

\echo functions of any volatility, deferred triggers, procedures that end transactions
CREATE FUNCTION rx.stable(id text) RETURNS boolean STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN eo.receive('c', id); END $$;
SELECT rx.stable('stable'), rx.stable('stable');
CREATE TABLE rx.effect (id text);
CREATE FUNCTION rx.late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT eo.receive('c', new.id) THEN
		RAISE EXCEPTION '% was here before', new.id;
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON rx.effect DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rx.late();
BEGIN; INSERT INTO rx.effect VALUES ('late1'), ('late2'); COMMIT;
BEGIN; INSERT INTO rx.effect VALUES ('late3'), ('late1'); COMMIT;
SELECT * FROM rx.effect ORDER BY id;
SELECT rx.batch(ARRAY['late1', 'late2', 'late3']);
CREATE PROCEDURE rx.batches() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6 LOOP
		PERFORM eo.receive('c', 'p' || i / 2);
		IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
	END LOOP;
END $$;
CALL rx.batches();
SELECT rx.batch(ARRAY['p0', 'p1', 'p2', 'p3']);

\echo two phases, once the consumer is known
BEGIN; SELECT eo.receive('c', 'two'), rx.batch(ARRAY['two1', 'two2']), eo.receive_at('c', 'two', 1); PREPARE TRANSACTION 'rx';
BEGIN; SELECT eo.enqueue('rx', '1') IS NOT NULL; SELECT headers FROM eo.pending(); ROLLBACK;
SET lock_timeout = '50ms';
SELECT eo.receive('c', 'two');
\echo :SQLSTATE
SELECT rx.batch(ARRAY['two0', 'two2']);
SELECT eo.receive_at('c', 'two', 1);
SELECT eo.receive('c', 'two3'), eo.receive('d', 'two'), eo.receive_at('c', 'two3', 1);
RESET lock_timeout;
COMMIT PREPARED 'rx';
SELECT eo.receive('c', 'two'), rx.batch(ARRAY['two0', 'two2']), eo.receive_at('c', 'two', 1), eo.receive_at('c', 'two', 2);
BEGIN; SELECT eo.receive('c', 'back'), eo.receive_at('c', 'two', 3); PREPARE TRANSACTION 'rx'; ROLLBACK PREPARED 'rx';
SELECT eo.receive('c', 'back'), eo.receive_at('c', 'two', 3);
BEGIN; SELECT eo.receive('unheard of', 'm'); PREPARE TRANSACTION 'rx';
\echo :SQLSTATE
SELECT count(*) FROM eo.consumer WHERE name = 'unheard of';

\echo causes
\pset null '(none)'
CREATE FUNCTION rx.put(headers jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT eo.enqueue('rx', '1', headers => put.headers);
	SELECT p.headers FROM eo.pending() WITH ORDINALITY AS p ORDER BY ordinality DESC LIMIT 1;
$$;
BEGIN;
SELECT rx.put(), rx.put('{"own": "1"}');
SELECT eo.receive('c', 'cause1'), rx.put();
SELECT eo.receive('c', 'cause1'), rx.put('{"own": "1"}');
SELECT eo.receive('c', 'cause2', '{"correlationid": "k", "traceparent": "00-1", "tracestate": "v=1", "other": "o"}'), rx.put();
SELECT eo.receive('c', 'm1', '{"correlationid": "of a duplicate"}'), rx.put();
SELECT eo.receive('c', 'cause3', '{"ce_correlationid": "binary", "ce_traceparent": "00-2", "content-type": "x"}'), rx.put();
SELECT eo.receive('c', 'cause4', '{}'), rx.put();
SELECT eo.receive('c', 'cause5', '{"ce_correlationid": "second", "correlationid": "first"}'), rx.put();
\echo the other forms name no single message, and leave the cause as it is
SELECT rx.batch(ARRAY['cause6', 'cause7']), eo.receive_at('c', 'causes', 1), rx.put();
\echo the transaction wins over the cause, the event over both
SET LOCAL eo_outbox.headers = '{"correlationid": "of the transaction", "tenant": "t"}';
SELECT rx.put(), rx.put('{"causationid": "its own"}'), rx.put('{"correlationid": ""}');
COMMIT;
SELECT rx.put();
SELECT headers FROM eo.events WHERE topic = 'rx' ORDER BY seq;
BEGIN; SELECT eo.receive('c', 'cause8'), rx.put(); ROLLBACK;
BEGIN; SELECT rx.put(); ROLLBACK;
\echo savepoints
BEGIN;
SELECT eo.receive('c', 'top'), rx.put() ->> 'causationid';
SAVEPOINT a;
SELECT eo.receive('c', 'in a'), rx.put() ->> 'causationid';
SAVEPOINT b;
SELECT rx.put() ->> 'causationid', eo.receive('c', 'in b'), rx.put() ->> 'causationid';
RELEASE b;
SELECT rx.put() ->> 'causationid';
SAVEPOINT c;
SAVEPOINT d;
SELECT eo.receive('c', 'in d'), rx.put() ->> 'causationid';
SELECT eo.receive('c', 'in d too'), rx.put() ->> 'causationid';
RELEASE d;
SELECT rx.put() ->> 'causationid';
ROLLBACK TO c;
SELECT rx.put() ->> 'causationid';
SELECT eo.receive('c', 'in d'), rx.put() ->> 'causationid';
ROLLBACK TO a;
SELECT rx.put() ->> 'causationid';
SAVEPOINT e;
SELECT 1 / 0;
ROLLBACK TO e;
SELECT rx.put() ->> 'causationid', eo.receive('c', 'in e'), rx.put() ->> 'causationid';
RELEASE a;
SELECT rx.put() ->> 'causationid';
COMMIT;
\echo the longest id there is fits
BEGIN;
SELECT eo.receive('c', repeat('l', 1024)), octet_length(rx.put()::text);
SELECT eo.receive('c', repeat('k', 1024), jsonb_build_object('correlationid', repeat('c', 1024), 'tracestate', repeat('t', 512))), octet_length(rx.put()::text);
COMMIT;

\echo tables that somebody has altered
-- what a call says after it; the table is as before then
CREATE FUNCTION rx.altered(alteration text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE 'ALTER TABLE eo.' || alteration;
	EXECUTE 'SELECT ' || call INTO answer;
	RAISE SQLSTATE 'RX000' USING MESSAGE = answer;
EXCEPTION WHEN OTHERS THEN
	RETURN concat_ws(' ', nullif(sqlstate, 'RX000'), sqlerrm);
END $$;
CREATE TABLE rx.target (id int PRIMARY KEY);
CREATE TABLE rx.call (name text, call text);
INSERT INTO rx.call VALUES
	('inbox_week_0', $$eo.receive('c', 'altered')$$),
	('inbox_week_1', $$eo.receive('c', 'altered')$$),
	('received_position', $$eo.receive_at('c', 'altered', 1)$$),
	('idempotency_day_0', $$state FROM eo.idempotency_begin('s', 'altered')$$),
	('idempotency_day_1', $$state FROM eo.idempotency_begin('s', 'altered')$$),
	('applied', $$eo.apply_change('rx.target', '{"seq": 1, "type": "t.inserted", "payload": {"id": 1}}')$$);
SELECT name, rx.altered(name || ' ADD added text DEFAULT 1', call) FROM rx.call;
SELECT name, rx.altered(name || ' ADD a text DEFAULT 1, ADD b int; ALTER TABLE eo.' || name || ' DROP a, DROP b', call) FROM rx.call;
SELECT alteration, rx.altered('idempotency_day_0 ' || alteration, $$state FROM eo.idempotency_begin('s', 'altered', '1', lease => '1 hour')$$)
FROM unnest(ARRAY['DROP response', 'DROP claimed_at', 'ALTER response TYPE text', 'RENAME response TO answer']) AS alteration;
ALTER TABLE eo.inbox_week_0 ADD added int;
SELECT eo.receive('c', 'altered');
ALTER TABLE eo.inbox_week_0 DROP added;
SELECT eo.receive('c', 'altered'), eo.receive('c', 'altered');

\echo privileges: nothing for PUBLIC; the function is enough, the tables stay closed
SET client_min_messages = warning;
CREATE ROLE regress_eo_receiver;
RESET client_min_messages;
SET ROLE regress_eo_receiver;
SELECT eo.receive('c', 'q');
RESET ROLE;
GRANT USAGE ON SCHEMA eo TO regress_eo_receiver;
SET ROLE regress_eo_receiver;
SELECT eo.receive('c', 'q');
\echo :SQLSTATE
SELECT * FROM eo.receive('c', ARRAY['q']);
SELECT eo.receive_at('c', 'q', 1);
RESET ROLE;
GRANT EXECUTE ON FUNCTION eo.receive(text, text, jsonb), eo.receive(text, text[]), eo.receive_at TO regress_eo_receiver;
SET ROLE regress_eo_receiver;
SELECT eo.receive('registered by the receiver', 'q'), eo.receive('c', 'q'), eo.receive('c', 'q'), eo.receive_at('c', 'q', 1);
SELECT * FROM eo.receive('c', ARRAY['q', 'q2']);
SELECT count(*) FROM eo.consumer;
INSERT INTO eo.inbox_week_0 VALUES (1, 'x');
SELECT * FROM eo.received_position;
RESET ROLE;
REVOKE ALL ON FUNCTION eo.receive(text, text, jsonb), eo.receive(text, text[]), eo.receive_at FROM regress_eo_receiver;
REVOKE USAGE ON SCHEMA eo FROM regress_eo_receiver;
DROP ROLE regress_eo_receiver;

\t off
\pset format aligned
SET client_min_messages = warning;
DROP SCHEMA rx CASCADE;
