-- What is refused, with its SQLSTATE and what the hint says.
\c -
\set SHOW_CONTEXT never
SELECT coalesce(max(seq), 0) AS start FROM eo.events \gset

-- topic, key, type: empty, too long, not printable, null
SELECT eo.enqueue('', '1');
\echo :SQLSTATE
SELECT eo.enqueue(NULL, '1');
\echo :SQLSTATE
SELECT eo.enqueue(repeat('t', 250), '1');
\echo :SQLSTATE
SELECT eo.enqueue(repeat('é', 125), '1');
\echo :SQLSTATE
SELECT eo.enqueue(E'a\nb', '1');
\echo :SQLSTATE
SELECT eo.enqueue(E'a\x7f', '1');
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', key => '');
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', key => repeat('k', 1025));
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', key => E'k\t');
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', type => '');
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', type => repeat('y', 256));
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', type => E'\x01');
\echo :SQLSTATE
SELECT eo.enqueue_bytes('', 'x');
SELECT eo.enqueue_bytes(NULL, 'x');
SELECT eo.enqueue_bytes('t', 'x', content_type => '');
\echo :SQLSTATE
SELECT eo.enqueue_bytes('t', 'x', content_type => repeat('c', 256));
\echo :SQLSTATE
SELECT eo.enqueue_bytes('t', 'x', content_type => E'text/plain\r\nX: y');
\echo :SQLSTATE

-- headers: a flat object of strings, with names that every broker takes
SELECT eo.enqueue('t', '1', headers => '[]');
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', headers => '"text"');
SELECT eo.enqueue('t', '1', headers => 'null');
SELECT eo.enqueue('t', '1', headers => '{"a": 1}');
\echo :SQLSTATE
SELECT eo.enqueue('t', '1', headers => '{"a": null}');
SELECT eo.enqueue('t', '1', headers => '{"a": {"b": "c"}}');
SELECT eo.enqueue('t', '1', headers => '{"a": ["b"]}');
SELECT eo.enqueue('t', '1', headers => '{"": "a"}');
SELECT eo.enqueue('t', '1', headers => '{"a b": "c"}');
SELECT eo.enqueue('t', '1', headers => '{"a:": "c"}');
SELECT eo.enqueue('t', '1', headers => jsonb_build_object(repeat('h', 129), 'v'));
SELECT eo.enqueue('t', '1', headers => '{"a": "b\r\nc: d"}');
SELECT eo.enqueue('t', '1', headers => jsonb_build_object('h', repeat('v', 4100)));
\echo :SQLSTATE
SELECT eo.enqueue_bytes('t', 'x', headers => '{"a": 1}');

-- the setting is checked when it is set, and again as headers are
SET eo_outbox.headers = 'nonsense';
\echo :SQLSTATE
SET eo_outbox.headers = '[]';
SET eo_outbox.headers = '{"a": 1}';
SET eo_outbox.headers = '{"a": {"b": "c"}}';
SET eo_outbox.headers = '{"a": "b"';
SET eo_outbox.headers = '{"a": "b"} x';
SET eo_outbox.headers = '{"a": "b",}';
SET eo_outbox.headers = '{"a b": "c"}';
SELECT eo.enqueue('t', '1');
\echo :SQLSTATE
-- nor is it half taken over by an error
SELECT eo.enqueue('t', '1');
RESET eo_outbox.headers;

-- the limit holds for both together
BEGIN;
SELECT set_config('eo_outbox.headers', jsonb_build_object('a', repeat('v', 3000))::text, true) IS NOT NULL AS set;
SELECT eo.enqueue('t', '1', headers => jsonb_build_object('a', repeat('w', 3000))) IS NOT NULL AS the_own_one_wins;
SELECT eo.enqueue('t', '1', headers => jsonb_build_object('b', repeat('w', 3000)));
ROLLBACK;

-- the payload
SELECT eo.enqueue_bytes('t', convert_to(repeat('x', 1048577), 'UTF8'));
\echo :SQLSTATE
SET eo_outbox.max_event_size = '1kB';
SELECT eo.enqueue('t', to_jsonb(repeat('x', 1020)));
\echo :SQLSTATE
SELECT eo.enqueue_bytes('t', convert_to(repeat('x', 1025), 'UTF8'));
BEGIN;
SELECT eo.enqueue_bytes('t', convert_to(repeat('x', 1024), 'UTF8')) IS NOT NULL AS just_fits;
ROLLBACK;
RESET eo_outbox.max_event_size;

-- a transaction in two phases
BEGIN;
SELECT eo.enqueue('t', '1') IS NOT NULL AS id_made;
PREPARE TRANSACTION 'eo';
\echo :SQLSTATE
SELECT * FROM eo.pending();
BEGIN;
SAVEPOINT a;
SELECT eo.enqueue('t', '1') IS NOT NULL AS id_made;
ROLLBACK TO a;
SELECT 1 AS nothing_enqueued;
PREPARE TRANSACTION 'eo';
ROLLBACK PREPARED 'eo';

-- a read-only transaction
BEGIN READ ONLY;
SELECT eo.enqueue('t', '1');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT eo.enqueue('t', '1') IS NOT NULL AS id_made;
SET TRANSACTION READ ONLY;
SELECT eo.enqueue_bytes('t', '1');
ROLLBACK;
-- may read
BEGIN READ ONLY;
SELECT * FROM eo.pending();
SELECT count(*) AS since FROM eo.events WHERE seq > :start;
COMMIT;

-- a parallel worker, where a function is marked wrongly
CREATE SCHEMA err;
CREATE FUNCTION err.mislabelled(i int) RETURNS uuid PARALLEL SAFE LANGUAGE plpgsql AS
	$$ BEGIN RETURN eo.enqueue('t', to_jsonb(i)); END $$;
CREATE TABLE err.many AS SELECT i FROM generate_series(1, 1000) AS i;
ANALYZE err.many;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
SELECT count(err.mislabelled(i)) FROM err.many;
\echo :SQLSTATE
-- it is not parallel where it is marked rightly
EXPLAIN (COSTS OFF) SELECT eo.enqueue('t', to_jsonb(i)) FROM err.many;
EXPLAIN (COSTS OFF) SELECT eo.enqueue_bytes('t', int4send(i)) FROM err.many;
EXPLAIN (COSTS OFF) SELECT i FROM err.many;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET parallel_leader_participation;

-- a security-restricted operation
CREATE FUNCTION err.pretends(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
	$$ BEGIN PERFORM eo.enqueue('t', to_jsonb(i)); RETURN i; END $$;
CREATE INDEX ON err.many (err.pretends(i));
\echo :SQLSTATE
CREATE MATERIALIZED VIEW err.view AS SELECT err.pretends(i) FROM err.many;
CREATE MATERIALIZED VIEW err.view AS SELECT err.pretends(i) FROM err.many WITH NO DATA;
REFRESH MATERIALIZED VIEW err.view;
\echo :SQLSTATE

-- no privilege
CREATE ROLE regress_eo_nobody;
SET ROLE regress_eo_nobody;
SELECT eo.enqueue('t', '1');
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA eo TO regress_eo_nobody;
SET ROLE regress_eo_nobody;
SELECT eo.enqueue('t', '1');
\echo :SQLSTATE
SELECT eo.enqueue_bytes('t', 'x');
SELECT * FROM eo.pending();
SELECT eo.last_seq();
SELECT eo.wait_published('s', 1, '0');
SELECT * FROM eo.events;
\echo :SQLSTATE
INSERT INTO eo.log_0 (seq, enqueued_at, event_id, part, topic) VALUES (1, now(), gen_random_uuid(), 0, 't');
RESET ROLE;
DROP OWNED BY regress_eo_nobody;

-- a subscription that does not exist
SELECT eo.wait_published('no such', 1, '1 s');
\echo :SQLSTATE

-- null arguments
CREATE FUNCTION err.outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT ' || call;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || sqlerrm;
END $$;
SELECT call, err.outcome('eo.' || call) FROM unnest(ARRAY[
	$$pause(NULL)$$, $$resume(NULL)$$, $$unsubscribe(NULL)$$, $$seek(NULL, 1)$$, $$seek('s', NULL)$$,
	$$retry_dead_letter(NULL)$$, $$fetch(NULL)$$, $$fetch('s', NULL)$$, $$fetch('s', 1, NULL)$$, $$ack(NULL, 1)$$,
	$$wait_published(NULL, 1, '1 s')$$, $$wait_published('s', 1, NULL)$$,
	$$create_consumer(NULL)$$, $$create_consumer('c', NULL)$$, $$drop_consumer(NULL)$$,
	$$create_idempotency_scope(NULL)$$, $$create_idempotency_scope('s', NULL)$$,
	$$create_idempotency_scope('s', release_codes => NULL)$$, $$drop_idempotency_scope(NULL)$$,
	$$deduplicate_table(NULL, 'c', 'i')$$, $$deduplicate_table('pg_class', NULL, 'i')$$, $$deduplicate_table('pg_class', 'c', NULL)$$,
	$$capture(NULL)$$, $$capture('err.many', mode => NULL)$$, $$capture('err.many', format => NULL)$$,
	$$capture('err.many', key_columns => '{}')$$, $$capture('err.many', columns => '{i,NULL}')$$, $$capture('err.many', exclude => '{NULL}')$$,
	$$uncapture(NULL)$$, $$grant_producer(NULL)$$, $$grant_consumer(NULL)$$, $$grant_operator(NULL)$$]) AS call;
-- the last seq of no events
SELECT eo.subscribe('nulls') IS NOT NULL AS subscribed;
SELECT eo.ack('nulls', (SELECT max(seq) FROM eo.fetch('nulls')));
-- nobody publishes what its reader fetches
SELECT eo.wait_published('nulls', 1, '1 s');
\echo :SQLSTATE
SELECT eo.unsubscribe('nulls');

-- settings that do not exist, or not for everybody
SET eo_outbox.no_such = 1;
\echo :SQLSTATE
\set VERBOSITY sqlstate
SET eo_outbox.buffer_memory = '1kB';
SET eo_outbox.max_event_size = '100B';
SET eo_outbox.segment_size = '1MB';
SET ROLE regress_eo_nobody;
SET eo_outbox.max_event_size = '1MB';
RESET ROLE;
DROP ROLE regress_eo_nobody;
\set VERBOSITY default

-- helpers are of no use to those who call them by hand
SELECT eo.configuration_changed();
SELECT eo.event_payload('pg_class'::regclass, '(0,1)', 1, 1);
\echo :SQLSTATE
SELECT eo.event_body('eo.log_0'::regclass, '(0,1)', 1, 0);
SELECT eo.event_body('eo.log_0'::regclass, '(0,1)', -1, 2);
\echo :SQLSTATE

-- nothing of all this has come into the log
SELECT count(*) FROM eo.events WHERE seq > :start;
SET client_min_messages = warning;
DROP SCHEMA err CASCADE;
