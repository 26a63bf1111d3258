-- Subscriptions without a server: eo.fetch() and eo.ack().
\c -
\set SHOW_CONTEXT never
SELECT eo.enqueue('pull.before', '0') IS NOT NULL AS id_made;
SELECT eo.last_seq() AS start \gset

SELECT eo.subscribe('all') - :start AS start;
SELECT eo.subscribe('some', '{pull.a*,pull.*.x}') - :start AS start;
SELECT * FROM eo.fetch('all');
BEGIN;
SELECT eo.enqueue('pull.a', '1', 'k', 'y', '{"h": "v"}', '018f0000-0000-7000-8000-000000000001');
SELECT eo.enqueue('pull.b', '2') IS NOT NULL AS id_made;
SELECT eo.enqueue_bytes('pull.a', 'three') IS NOT NULL AS id_made;
SELECT eo.enqueue('pull.b.x', NULL) IS NOT NULL AS id_made;
-- nothing before the commit
SELECT * FROM eo.fetch('all');
COMMIT;
SELECT eo.enqueue_bytes('pull.ab', decode(repeat('00ff', 20000), 'hex')) IS NOT NULL AS id_made;

-- in order, with a position per topic; and the same again until it is acknowledged
SELECT seq - :start AS n, position, topic, key, type, payload, length(body), content_type, headers FROM eo.fetch('all');
SELECT seq - :start AS n, position, topic, payload FROM eo.fetch('some');
SELECT seq - :start AS n, position, event_id, topic FROM eo.fetch('some', 1);
SELECT seq - :start AS n, position, topic FROM eo.fetch('all', 2);
SELECT seq - :start AS n, position, topic FROM eo.fetch('all', 2);

-- an acknowledgement counts if its transaction commits
BEGIN;
SELECT eo.ack('all', :start + 2);
SELECT seq - :start AS n, position, topic FROM eo.fetch('all');
ROLLBACK;
SELECT seq - :start AS n, position, topic FROM eo.fetch('all', 1);
SELECT eo.ack('all', :start + 2);
SELECT eo.ack('all', :start + 1);
SELECT seq - :start AS n, position, topic FROM eo.fetch('all');
SELECT eo.ack('some', :start + 4);
SELECT seq - :start AS n, position, topic FROM eo.fetch('some');
SELECT eo.ack('all', :start + 5);
SELECT eo.ack('some', :start + 5);
SELECT * FROM eo.fetch('all') UNION ALL SELECT * FROM eo.fetch('some');

-- replay: an event keeps its number and its position
SELECT eo.seek('all', :start + 2);
SELECT seq - :start AS n, position, topic FROM eo.fetch('all');
SELECT eo.seek('all', :start + 4);
SELECT seq - :start AS n, position, topic FROM eo.fetch('all');
SELECT eo.ack('all', :start + 5);
SELECT eo.enqueue('pull.a', '6') IS NOT NULL AS id_made;
SELECT seq - :start AS n, position, topic FROM eo.fetch('all');

-- what rolled back leaves a gap in the numbers, none in the positions
BEGIN;
CREATE TEMP TABLE emptied (i int PRIMARY KEY) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE refers (i int REFERENCES emptied);
SELECT eo.enqueue('pull.a', '7') IS NOT NULL AS id_made;
COMMIT;
SELECT eo.enqueue('pull.a', '8') IS NOT NULL AS id_made;
SELECT seq - :start AS n, position, topic, payload FROM eo.fetch('all');

-- paused
SELECT eo.pause('all');
SELECT count(*) FROM eo.fetch('all');
SELECT eo.resume('all');
SELECT count(*) FROM eo.fetch('all');

-- waiting: at once where there are events, until the end of the time where not
SELECT count(*) FROM eo.fetch('all', 10, '1 hour');
SELECT eo.ack('all', :start + 8);
SELECT count(*) FROM eo.fetch('all', 10, '10 ms');
SELECT count(*) FROM eo.fetch('all', 10, '-1 hour');

-- what is refused
SELECT eo.fetch('no such');
\echo :SQLSTATE
SELECT eo.ack('no such', :start);
\echo :SQLSTATE
SELECT eo.fetch('all', 0);
\echo :SQLSTATE
\set VERBOSITY sqlstate
SELECT eo.ack('all', :start + 1000);
\set VERBOSITY default
CREATE SERVER eo_pull FOREIGN DATA WRAPPER eo_file OPTIONS (path '/nonexistent/x');
SELECT eo.subscribe('pushed', server => 'eo_pull') IS NOT NULL AS subscribed;
SELECT eo.pause('pushed');
SELECT eo.fetch('pushed');
\echo :SQLSTATE
SELECT eo.unsubscribe('pushed');
DROP SERVER eo_pull;
CREATE ROLE regress_eo_reader;
GRANT USAGE ON SCHEMA eo TO regress_eo_reader;
SET ROLE regress_eo_reader;
SELECT eo.fetch('all');
SELECT eo.ack('all', 1);
\echo :SQLSTATE
RESET ROLE;
DROP OWNED BY regress_eo_reader;
DROP ROLE regress_eo_reader;

SELECT eo.unsubscribe('all'), eo.unsubscribe('some');
SELECT count(*) FROM eo.fetch('all');

-- columns that somebody has added to the tables of the log stay empty
\set db :DBNAME
CREATE DATABASE regress_eo_altered;
\c regress_eo_altered
CREATE EXTENSION eo_outbox;
SELECT eo.subscribe('all');
CREATE PROCEDURE alter_log(what text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. 7 LOOP
		EXECUTE (SELECT format('ALTER TABLE eo.log_%s ', i) || string_agg(format(what, j), ', ') FROM generate_series(1, 40) AS j);
	END LOOP;
END $$;
SELECT eo.enqueue('before', '1') IS NOT NULL AS id_made;
CALL alter_log('ADD added_%s int NOT NULL DEFAULT 1');
SELECT eo.enqueue('altered', '2', 'key') IS NOT NULL AS id_made;
\c -
SELECT eo.enqueue('altered', '3', 'key') IS NOT NULL AS id_made;
SELECT eo.enqueue('altered', to_jsonb(repeat('ab', 20000)), type => 'large') IS NOT NULL AS id_made;
SELECT topic, key, type, length(payload::text) AS length FROM eo.fetch('all');
CALL alter_log('DROP added_%s');
SELECT eo.enqueue('after', '4') IS NOT NULL AS id_made;
SELECT topic, key, type, length(payload::text) AS length FROM eo.fetch('all');
SELECT topic, key, type, length(payload::text) AS length FROM eo.events ORDER BY seq;
\c :db
DROP DATABASE regress_eo_altered;
