-- An event exists if and only if the transaction that enqueued it committed.
\c -
\set SHOW_CONTEXT never
SELECT coalesce(max(seq), 0) AS start FROM eo.events \gset

-- the shortest way to enqueue a number, and to see those that the log holds
CREATE SCHEMA tx;
CREATE FUNCTION tx.put(i int) RETURNS void LANGUAGE sql AS $$ SELECT eo.enqueue('tx', to_jsonb(i)) $$;
CREATE FUNCTION tx.pending() RETURNS text LANGUAGE sql AS $$ SELECT coalesce(string_agg(payload::text, ' '), '') FROM eo.pending() $$;
CREATE FUNCTION tx.log(after bigint) RETURNS text LANGUAGE sql AS
	$$ SELECT coalesce(string_agg(payload::text, ' ' ORDER BY seq), '') FROM eo.events WHERE topic = 'tx' AND seq > after $$;
\t on
\pset format unaligned

\echo commit, rollback, and a transaction that failed
BEGIN; SELECT FROM tx.put(1); SELECT FROM tx.put(2); COMMIT;
BEGIN; SELECT FROM tx.put(3); ROLLBACK;
BEGIN; SELECT FROM tx.put(4); SELECT 1 / 0; COMMIT;
SELECT tx.put(5), 1 / 0;
SELECT FROM tx.put(6);
BEGIN; COMMIT;
SELECT tx.log(:start);

\echo savepoints
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT FROM tx.put(1);
SAVEPOINT a;
SELECT FROM tx.put(2);
ROLLBACK TO a;
SELECT FROM tx.put(3);
SAVEPOINT b;
SELECT FROM tx.put(4);
SAVEPOINT c;
SELECT FROM tx.put(5);
RELEASE c;
SELECT FROM tx.put(6);
SELECT tx.pending();
ROLLBACK TO b;
SELECT tx.pending();
SELECT FROM tx.put(7);
RELEASE b;
SELECT FROM tx.put(8);
COMMIT;
SELECT tx.log(:start);

\echo the same savepoint again and again, and an outer one that undoes released ones
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SAVEPOINT a;
SELECT FROM tx.put(1);
ROLLBACK TO a;
SELECT FROM tx.put(2);
ROLLBACK TO a;
SELECT FROM tx.put(3);
SAVEPOINT b;
SAVEPOINT c;
SAVEPOINT d;
SELECT FROM tx.put(4);
RELEASE d;
RELEASE c;
RELEASE b;
SELECT tx.pending();
ROLLBACK TO a;
SELECT tx.pending();
SELECT FROM tx.put(5);
SAVEPOINT b;
SELECT FROM tx.put(6);
SELECT 1 / 0;
ROLLBACK TO b;
SELECT FROM tx.put(7);
SAVEPOINT e;
SAVEPOINT f;
SELECT FROM tx.put(8);
RELEASE f;
SELECT FROM tx.put(9);
ROLLBACK TO e;
SELECT tx.pending();
COMMIT;
SELECT tx.log(:start);

\echo only a subtransaction enqueues, and is released or not
SELECT max(seq) AS start FROM eo.events \gset
BEGIN; SAVEPOINT a; SELECT FROM tx.put(1); RELEASE a; COMMIT;
BEGIN; SAVEPOINT a; SELECT FROM tx.put(2); COMMIT;
BEGIN; SAVEPOINT a; SELECT FROM tx.put(3); ROLLBACK TO a; COMMIT;
BEGIN; SAVEPOINT a; SELECT FROM tx.put(4); RELEASE a; ROLLBACK;
SELECT tx.log(:start);

\echo PL/pgSQL exception blocks, nested
SELECT max(seq) AS start FROM eo.events \gset
DO $$
BEGIN
	PERFORM tx.put(1);
	BEGIN
		PERFORM tx.put(2);
		BEGIN
			PERFORM tx.put(3);
			RAISE EXCEPTION 'inner';
		EXCEPTION WHEN raise_exception THEN
			PERFORM tx.put(4);
		END;
		PERFORM tx.put(5);
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM tx.put(6);
	END;
	BEGIN
		PERFORM tx.put(7);
	EXCEPTION WHEN OTHERS THEN
		PERFORM tx.put(8);
	END;
	FOR i IN 100 .. 105 LOOP
		BEGIN
			PERFORM tx.put(i);
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'even';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT tx.log(:start);

\echo an error of eo.enqueue itself, caught
SELECT max(seq) AS start FROM eo.events \gset
DO $$
BEGIN
	PERFORM tx.put(1);
	BEGIN
		PERFORM tx.put(2);
		PERFORM eo.enqueue('', '3');
	EXCEPTION WHEN invalid_parameter_value THEN
		PERFORM tx.put(4);
	END;
END $$;
SELECT tx.log(:start);

\echo procedures that end transactions
SELECT max(seq) AS start FROM eo.events \gset
CREATE PROCEDURE tx.batches() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6 LOOP
		PERFORM tx.put(i);
		IF i % 3 = 0 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
	PERFORM tx.put(7);
END $$;
CALL tx.batches();
SELECT tx.log(:start);
SELECT eo.last_seq() = max(seq) FROM eo.events;

\echo COMMIT AND CHAIN, ROLLBACK AND CHAIN
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT FROM tx.put(1);
COMMIT AND CHAIN;
SELECT tx.pending();
SELECT FROM tx.put(2);
ROLLBACK AND CHAIN;
SELECT tx.pending();
SELECT FROM tx.put(3);
COMMIT;
SELECT tx.log(:start);

\echo several statements in one message are one transaction
SELECT max(seq) AS start FROM eo.events \gset
SELECT FROM tx.put(1)\; SELECT FROM tx.put(2);
SELECT FROM tx.put(3)\; SELECT 1 / 0;
SELECT FROM tx.put(4)\; COMMIT\; SELECT FROM tx.put(5)\; ROLLBACK;
SELECT tx.log(:start);

\echo cursors: what one has fetched counts; one WITH HOLD runs to its end at commit
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
DECLARE c CURSOR FOR SELECT i, tx.put(i) FROM generate_series(1, 5) AS i;
FETCH 2 FROM c;
COMMIT;
SELECT tx.log(:start);
BEGIN;
DECLARE h NO SCROLL CURSOR WITH HOLD FOR SELECT i, tx.put(i) FROM generate_series(11, 15) AS i;
FETCH 2 FROM h;
SELECT tx.pending();
COMMIT;
FETCH ALL FROM h;
CLOSE h;
SELECT tx.log(:start);
BEGIN;
SAVEPOINT a;
DECLARE c CURSOR FOR SELECT i, tx.put(i) FROM generate_series(21, 25) AS i;
FETCH 2 FROM c;
ROLLBACK TO a;
SELECT FROM tx.put(26);
COMMIT;
SELECT tx.log(:start);

\echo deferred triggers enqueue at commit, after everything else
SELECT max(seq) AS start FROM eo.events \gset
CREATE TABLE tx.orders (id int PRIMARY KEY, ok boolean DEFAULT true);
CREATE FUNCTION tx.order_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM tx.put(new.id);
	IF NOT new.ok THEN
		RAISE EXCEPTION 'order % refused', new.id;
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON tx.orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION tx.order_event();
INSERT INTO tx.orders VALUES (1);
BEGIN;
INSERT INTO tx.orders VALUES (2), (3);
SELECT tx.pending();
SELECT FROM tx.put(100);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT tx.pending();
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO tx.orders VALUES (4);
SELECT FROM tx.put(101);
COMMIT;
BEGIN;
SELECT FROM tx.put(102);
INSERT INTO tx.orders VALUES (5, true), (6, false);
COMMIT;
SELECT tx.log(:start);
SELECT eo.last_seq() - :start;

\echo a constraint that fails at commit takes the events along
SELECT max(seq) AS start FROM eo.events \gset
CREATE TABLE tx.unique_later (i int UNIQUE DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO tx.unique_later VALUES (1), (1);
SELECT FROM tx.put(1);
COMMIT;
SELECT FROM tx.put(2);
SELECT tx.log(:start);

\echo the same for an error after the append, which leaves a gap in the numbers
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
CREATE TEMP TABLE emptied (i int PRIMARY KEY) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE refers (i int REFERENCES emptied);
SELECT FROM tx.put(1);
SELECT FROM tx.put(2);
COMMIT;
SELECT tx.pending();
SELECT eo.last_seq() - :start;
SELECT FROM tx.put(3);
SELECT tx.log(:start), eo.last_seq() - :start;

\echo a buffer that spills to a file: order, savepoints, pending
SELECT max(seq) AS start FROM eo.events \gset
SET eo_outbox.buffer_memory = '64kB';
CREATE FUNCTION tx.bulk(from_i int, to_i int) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(eo.enqueue('tx.bulk', to_jsonb(i), headers => jsonb_build_object('h', repeat('x', 200))))
		FROM generate_series(from_i, to_i) AS i $$;
CREATE FUNCTION tx.ranges(after bigint) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(a || '-' || b, ' ' ORDER BY a) FROM
		(SELECT min(i) AS a, max(i) AS b FROM
			(SELECT payload::int AS i, seq, row_number() OVER (ORDER BY seq) AS n
				FROM eo.events WHERE topic = 'tx.bulk' AND seq > after) AS e GROUP BY i - n) AS r $$;
CREATE FUNCTION tx.misplaced(after bigint) RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(*) FROM (SELECT payload::int < lag(payload::int) OVER (ORDER BY seq) AS bad
		FROM eo.events WHERE topic = 'tx.bulk' AND seq > after) AS e WHERE bad $$;
BEGIN;
SELECT tx.bulk(1, 1000);
SAVEPOINT a;
SELECT tx.bulk(1001, 2000);
SELECT count(*), min(payload::int), max(payload::int) FROM eo.pending();
ROLLBACK TO a;
SELECT count(*), min(payload::int), max(payload::int) FROM eo.pending();
SELECT tx.bulk(2001, 2001);
SAVEPOINT b;
SELECT tx.bulk(2002, 2010);
ROLLBACK TO b;
SELECT tx.bulk(2011, 3500);
SAVEPOINT c;
SELECT tx.bulk(3501, 5000);
SAVEPOINT d;
SELECT tx.bulk(5001, 6000);
RELEASE d;
ROLLBACK TO c;
SELECT count(*), min(payload::int), max(payload::int) FROM eo.pending();
SELECT tx.bulk(6001, 6100);
COMMIT;
SELECT tx.ranges(:start), tx.misplaced(:start);

\echo everything spilled, then everything undone
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SAVEPOINT a;
SELECT tx.bulk(1, 2000);
ROLLBACK TO a;
SELECT count(*) FROM eo.pending();
COMMIT;
BEGIN;
SELECT tx.bulk(1, 2000);
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT tx.bulk(1, 2000);
ROLLBACK TO a;
SELECT tx.bulk(1, 3);
COMMIT;
SELECT tx.ranges(:start), tx.misplaced(:start);

\echo rows of one event on both sides of the border between file and memory
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT count(eo.enqueue_bytes('tx.parts', (SELECT string_agg(sha256(int4send(i * 1000 + j)), '' ORDER BY j) FROM generate_series(1, 900) AS j), i::text))
	FROM generate_series(1, 12) AS i;
SAVEPOINT a;
SELECT count(eo.enqueue_bytes('tx.parts', (SELECT string_agg(sha256(int4send(i * 1000 + j)), '' ORDER BY j) FROM generate_series(1, 900) AS j), i::text))
	FROM generate_series(13, 20) AS i;
ROLLBACK TO a;
SELECT count(*) FROM eo.pending();
COMMIT;
SELECT count(*), count(*) FILTER (WHERE body =
		(SELECT string_agg(sha256(int4send(key::int * 1000 + j)), '' ORDER BY j) FROM generate_series(1, 900) AS j)) AS same
	FROM eo.events WHERE topic = 'tx.parts' AND seq > :start;
RESET eo_outbox.buffer_memory;

\echo isolation levels, NOTIFY, and a transaction that only reads
SELECT max(seq) AS start FROM eo.events \gset
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT FROM tx.put(1); COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM tx.put(2); COMMIT;
BEGIN; SELECT FROM tx.put(3); NOTIFY tx; COMMIT;
BEGIN READ ONLY; SELECT tx.log(:start); COMMIT;
SELECT tx.log(:start);

\echo events of other objects that end with the transaction
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
CREATE TEMP TABLE gone (i int) ON COMMIT DROP;
INSERT INTO gone VALUES (1);
SELECT FROM tx.put(1) AS p, gone;
COMMIT;
BEGIN;
TRUNCATE tx.orders;
SELECT FROM tx.put(2);
COMMIT;
SELECT tx.log(:start);

\echo a random tree of savepoints, against a table that the server rolls back itself
SELECT max(seq) AS start FROM eo.events \gset
CREATE TABLE tx.model (i int);
CREATE PROCEDURE tx.grow(depth int, INOUT n int) LANGUAGE plpgsql AS $$
DECLARE before int;
BEGIN
	FOR k IN 1 .. 4 LOOP
		n := n + 1;
		PERFORM tx.put(n);
		INSERT INTO tx.model VALUES (n);
		IF depth > 0 THEN
			before := n;
			BEGIN
				CALL tx.grow(depth - 1, n);
				IF (n * 7919 + k) % 3 = 0 THEN
					RAISE EXCEPTION '%', n;
				END IF;
			EXCEPTION WHEN raise_exception THEN
				n := sqlerrm::int;
			END;
		END IF;
	END LOOP;
END $$;
SET eo_outbox.buffer_memory = '64kB';
DO $$ DECLARE n int := 0; BEGIN CALL tx.grow(5, n); END $$;
RESET eo_outbox.buffer_memory;
SELECT count(*) > 1000 AS enough, count(*) < 5460 AS some_undone FROM tx.model;
SELECT count(*) AS different FROM (
	SELECT payload::int AS i, row_number() OVER (ORDER BY seq) AS n FROM eo.events WHERE topic = 'tx' AND seq > :start) AS e
	FULL JOIN (SELECT i, row_number() OVER (ORDER BY i) AS n FROM tx.model) AS m USING (i, n)
	WHERE e.n IS NULL OR m.n IS NULL;
\t off
\pset format aligned
SET client_min_messages = warning;
DROP SCHEMA tx CASCADE;
