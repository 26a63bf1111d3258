-- Servers, user mappings and subscriptions: what is checked, and what is kept.
\c -
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_eo_plain, regress_eo_op;
RESET client_min_messages;

-- servers: the wrong option is named, the right ones are listed
CREATE SERVER eo_f FOREIGN DATA WRAPPER eo_file;
\echo :SQLSTATE
CREATE SERVER eo_f FOREIGN DATA WRAPPER eo_file OPTIONS (paht '/tmp/x');
\echo :SQLSTATE
CREATE SERVER eo_f FOREIGN DATA WRAPPER eo_file OPTIONS (path 'relative/path');
\echo :SQLSTATE
CREATE SERVER eo_f FOREIGN DATA WRAPPER eo_file OPTIONS (path '/nonexistent/events', brokers 'a');
CREATE SERVER eo_f FOREIGN DATA WRAPPER eo_file OPTIONS (path '/nonexistent/events', max_in_flight '1');
CREATE SERVER eo_f FOREIGN DATA WRAPPER eo_file OPTIONS (path '/nonexistent/events');
ALTER SERVER eo_f OPTIONS (SET path 'x');
ALTER SERVER eo_f OPTIONS (DROP path);
\echo :SQLSTATE
ALTER SERVER eo_f OPTIONS (SET path '/nonexistent/other');
CREATE USER MAPPING FOR PUBLIC SERVER eo_f OPTIONS (password 'p');
\echo :SQLSTATE
ALTER FOREIGN DATA WRAPPER eo_file OPTIONS (path '/x');
\echo :SQLSTATE
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (guarantee 'exactly_once');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', guarantee 'exactly_twice');
\echo :SQLSTATE
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', "linger.ms" '-1');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', "linger.ms" '1.5');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', "linger.ms" ' 5');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', "socket.keepalive.enable" 'yes');
-- not even where the library would take them: files, plug-ins, and what the guarantees rest on
\set VERBOSITY terse
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', "plugin.library.paths" '/tmp/x.so');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', "ssl.ca.location" '/etc/passwd');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', acks '1');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1', password 'p');
CREATE SERVER eo_k FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1');
ALTER SERVER eo_k OPTIONS (ADD "socket.keepalive.enable" 'true');
ALTER SERVER eo_k OPTIONS (SET "socket.keepalive.enable" 'false');
ALTER SERVER eo_k OPTIONS (SET "socket.keepalive.enable" '1');
CREATE USER MAPPING FOR PUBLIC SERVER eo_k OPTIONS (brokers 'x');
CREATE USER MAPPING FOR PUBLIC SERVER eo_k OPTIONS (username 'u', password 'secret-of-the-mapping');
\set VERBOSITY default
CREATE SERVER other FOREIGN DATA WRAPPER no_such_wrapper;
CREATE FOREIGN DATA WRAPPER regress_eo_dummy;
CREATE FOREIGN DATA WRAPPER eo_pretender;
CREATE SERVER eo_dummy FOREIGN DATA WRAPPER regress_eo_dummy;
CREATE SERVER eo_pretending FOREIGN DATA WRAPPER eo_pretender;

-- only who may write files may name one
CREATE ROLE regress_eo_plain;
GRANT USAGE ON FOREIGN DATA WRAPPER eo_file TO regress_eo_plain;
GRANT CREATE ON DATABASE :DBNAME TO regress_eo_plain;
SET ROLE regress_eo_plain;
CREATE SERVER eo_mine FOREIGN DATA WRAPPER eo_file OPTIONS (path '/nonexistent/mine');
\echo :SQLSTATE
CREATE SERVER eo_mine FOREIGN DATA WRAPPER eo_kafka OPTIONS (brokers '127.0.0.1:1');
RESET ROLE;
GRANT pg_write_server_files TO regress_eo_plain;
SET ROLE regress_eo_plain;
CREATE SERVER eo_mine FOREIGN DATA WRAPPER eo_file OPTIONS (path '/nonexistent/mine');
RESET ROLE;
REVOKE pg_write_server_files FROM regress_eo_plain;
SET ROLE regress_eo_plain;
ALTER SERVER eo_mine OPTIONS (SET path '/nonexistent/elsewhere');
DROP SERVER eo_mine;
RESET ROLE;

-- subscriptions: names
SELECT eo.subscribe('', server => 'eo_f');
\echo :SQLSTATE
SELECT eo.subscribe(repeat('n', 64), server => 'eo_f');
SELECT eo.subscribe(E'a\nb', server => 'eo_f');
SELECT eo.subscribe(NULL, server => 'eo_f');
\echo :SQLSTATE
-- topics
SELECT eo.subscribe('s', '{}', 'eo_f');
\echo :SQLSTATE
SELECT eo.subscribe('s', '{a,NULL}', 'eo_f');
SELECT eo.subscribe('s', '{a,""}', 'eo_f');
SELECT eo.subscribe('s', ARRAY[repeat('x', 250)], 'eo_f');
SELECT eo.subscribe('s', NULL, 'eo_f');
-- server
SELECT eo.subscribe('s', server => 'no_such');
\echo :SQLSTATE
SELECT eo.subscribe('s', server => 'eo_dummy');
\echo :SQLSTATE
SELECT eo.subscribe('s', server => 'eo_pretending');
SELECT eo.subscribe('s', handler => 'pg_sleep(double precision)');
\echo :SQLSTATE
-- options
SELECT eo.subscribe('s', server => 'eo_f', options => '{"path": "/x"}');
\echo :SQLSTATE
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": 0}');
\echo :SQLSTATE
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": "many"}');
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": null}');
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": [1]}');
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": true}');
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": {"of": 1}}');
SELECT eo.subscribe('s', server => 'eo_f', options => '{"max_in_flight": "99999999999999999999"}');
SELECT eo.subscribe('s', server => 'eo_f', options => '[]');
SELECT eo.subscribe('s', server => 'eo_f', options => '"x"');
SELECT eo.subscribe('s', options => '{"max_in_flight": 1}');
-- start
SELECT eo.subscribe('s', server => 'eo_f', start_at => 'yesterday');
\echo :SQLSTATE
SELECT eo.subscribe('s', server => 'eo_f', start_at => '-1');
SELECT eo.subscribe('s', server => 'eo_f', start_at => '1x');
SELECT eo.subscribe('s', server => 'eo_f', start_at => '');
SELECT eo.subscribe('s', server => 'eo_f', start_at => '99999999999999999999');
\set VERBOSITY sqlstate
SELECT eo.subscribe('s', server => 'eo_f', start_at => '4611686018427387904');
\set VERBOSITY default
SELECT count(*) FROM eo.subscriptions;

-- good ones, and what the view says
SELECT eo.enqueue('subscribe', '1') IS NOT NULL AS id_made;
SELECT eo.last_seq() AS last \gset
SELECT eo.subscribe('now', server => 'eo_f') - :last AS start;
SELECT eo.subscribe('beginning', '{orders.*,payments}', 'eo_f', start_at => 'Beginning') >= 0 AS started;
SELECT eo.subscribe('at', '{*}', 'eo_k', options => '{"max_in_flight": 100, "linger.ms": "5", "guarantee": "exactly_once"}',
	start_at => (:last - 1)::text) - :last AS start;
SELECT eo.subscribe('now', server => 'eo_f');
\echo :SQLSTATE
SELECT eo.subscribe('näme with "odd" characters; --', server => 'eo_f') IS NOT NULL AS subscribed;
SELECT name, kind, topics, server, seq - :last AS seq, lag_events, published, dead, owner = current_user AS own
	FROM eo.subscriptions WHERE name <> 'beginning' ORDER BY name;

-- a transaction that rolls back leaves nothing
BEGIN;
SELECT eo.subscribe('rolled back', server => 'eo_f') IS NOT NULL AS subscribed;
SELECT eo.unsubscribe('now');
SELECT eo.pause('at');
ROLLBACK;
SELECT s.name, s.paused FROM eo.subscription AS s WHERE name IN ('rolled back', 'now', 'at') ORDER BY name;

-- pause, resume, seek, unsubscribe
SELECT eo.pause('at'), eo.pause('at');
SELECT paused FROM eo.subscription WHERE name = 'at';
SELECT eo.resume('at');
SELECT paused FROM eo.subscription WHERE name = 'at';
SELECT eo.seek('at', :last);
\set VERBOSITY sqlstate
SELECT eo.seek('at', :last + 1000000);
SELECT eo.seek('at', -1);
\set VERBOSITY default
SELECT eo.pause('no such');
\echo :SQLSTATE
SELECT eo.resume('no such');
SELECT eo.seek('no such', :last);
SELECT eo.unsubscribe('no such');
SELECT eo.retry_dead_letter('no such');
SELECT eo.retry_dead_letter('now', 1);
\echo :SQLSTATE
SELECT eo.retry_dead_letter('now');
SELECT eo.wait_published('now', NULL, '1 h') IS NULL AS nothing_to_wait_for;
SELECT eo.adopt() AS nothing_to_adopt;

-- secrets do not show
SELECT count(*) AS shows_a_secret FROM eo.subscriptions AS s WHERE s::text LIKE '%secret-of%';

-- who may do what
CREATE ROLE regress_eo_op;
SELECT eo.grant_operator('regress_eo_op');
SET ROLE regress_eo_op;
SELECT eo.subscribe('of op', server => 'eo_k');
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER eo_k TO regress_eo_op;
SET ROLE regress_eo_op;
SELECT eo.subscribe('of op', server => 'eo_k') IS NOT NULL AS subscribed;
SELECT eo.pause('of op');
SELECT name, kind, owner FROM eo.subscriptions WHERE owner = 'regress_eo_op';
SELECT eo.unsubscribe('of op');
SELECT * FROM eo.subscription;
SELECT eo.enqueue('t', '1');
RESET ROLE;
SET ROLE regress_eo_plain;
SELECT eo.subscribe('x', server => 'eo_k');
RESET ROLE;

-- a server that goes away under its subscription
DROP SERVER eo_k CASCADE;
SELECT name, kind FROM eo.subscriptions WHERE name = 'at';

SELECT eo.unsubscribe(name) FROM eo.subscriptions;
SELECT count(*) FROM eo.subscriptions;
SET client_min_messages = warning;
DROP SERVER eo_f CASCADE;
DROP FOREIGN DATA WRAPPER regress_eo_dummy CASCADE;
DROP FOREIGN DATA WRAPPER eo_pretender CASCADE;
DROP OWNED BY regress_eo_plain, regress_eo_op;
DROP ROLE regress_eo_plain, regress_eo_op;
