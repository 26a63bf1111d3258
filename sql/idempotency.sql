-- Idempotency keys: states, leases, answers, and what is refused.
\c -
\set SHOW_CONTEXT never

-- what a scope holds, in either generation of its class
CREATE VIEW held AS
	SELECT s.name AS scope, i.key, i.state, i.code, i.response, i.token IS NOT NULL AS token,
		i.lease_until IS NOT NULL AS lease, i.recovery_point, i.generation
	FROM (SELECT *, 0 AS generation FROM eo.idempotency_day_0
		UNION ALL SELECT *, 1 FROM eo.idempotency_day_1) AS i
		JOIN eo.idempotency_scope AS s ON s.id = i.scope;
CREATE PROCEDURE end_lease(k text) LANGUAGE sql AS $$
	UPDATE eo.idempotency_day_0 SET lease_until = '2000-01-01' WHERE key = k;
	UPDATE eo.idempotency_day_1 SET lease_until = '2000-01-01' WHERE key = k;
$$;

-- a request and its repetition
BEGIN;
SELECT * FROM eo.idempotency_begin('pay', 'a', '{"amount": 10}');
SELECT eo.idempotency_complete('pay', 'a', '{"paid": true}', 201);
COMMIT;
SELECT * FROM eo.idempotency_begin('pay', 'a', '{"amount": 10}');
SELECT * FROM eo.idempotency_begin('pay', 'a', '{"amount": 10}', wait => false);

-- scopes do not know of each other
BEGIN;
SELECT state FROM eo.idempotency_begin('refund', 'a', '{"amount": 11}');
ROLLBACK;

-- what is rolled back was never claimed
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'rolled back');
SAVEPOINT s;
SELECT state FROM eo.idempotency_begin('pay', 'savepoint');
SELECT eo.idempotency_complete('pay', 'rolled back', '1');
ROLLBACK TO s;
SELECT state FROM eo.idempotency_begin('pay', 'savepoint');
SELECT eo.idempotency_complete('pay', 'savepoint', '2');
SELECT key, state, code, response FROM held WHERE scope = 'pay' ORDER BY 1;
ROLLBACK;
SELECT key FROM held ORDER BY 1;
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'rolled back');
ROLLBACK;

-- all of it in one transaction, and even in one statement
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'b');
SELECT eo.idempotency_complete('pay', 'b', 'null', 200);
SELECT state, code, response FROM eo.idempotency_begin('pay', 'b');
SELECT state FROM eo.idempotency_begin('pay', 'c');
SELECT state FROM eo.idempotency_begin('pay', 'c');
\echo :SQLSTATE
ROLLBACK;
SELECT (eo.idempotency_begin('pay', 'd')).state, eo.idempotency_complete('pay', 'd'), (eo.idempotency_begin('pay', 'd')).state;
SELECT state, count(*) FROM generate_series(1, 3) AS i, LATERAL (
	SELECT state, eo.idempotency_complete('pay', 'e' || i / 2) FROM eo.idempotency_begin('pay', 'e' || i / 2)) AS x GROUP BY 1 ORDER BY 1;

-- fingerprints: equal is what jsonb calls equal
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"a": 1.0, "b": ["x", null, true, {}]}');
SELECT eo.idempotency_complete('pay', 'f');
COMMIT;
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"b": ["x", null, true, {}], "a": 1.00}');
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"a": 1,"b":["x",null,true,{}]}');
SELECT state FROM eo.idempotency_begin('pay', 'f');
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"a": 1.0, "b": ["x", null, false, {}]}');
\echo :SQLSTATE
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"a": "1.0", "b": ["x", null, true, {}]}');
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"a": 1.0, "b": ["x", null, true, []]}');
SELECT state FROM eo.idempotency_begin('pay', 'f', '{"a": 1.0, "b": ["x", null, true], "c": {}}');
-- these all differ from each other
DO $$
DECLARE
	requests jsonb[] := ARRAY['1', '"1"', '[1]', '[[1]]', 'null', '[]', '{}', '[null]', '""', '{"": ""}', 'true', 'false',
		'["ab", "c"]', '["a", "bc"]', '["abc"]', '[["a"], "b"]', '[["a", "b"]]', '{"a": {"b": 1}}', '{"a": {}, "b": 1}', '10', '1e-1', '-1'];
	same int := 0;
BEGIN
	FOR i IN 1 .. cardinality(requests) LOOP
		PERFORM eo.idempotency_begin('prints', 'p' || i, requests[i]), eo.idempotency_complete('prints', 'p' || i);
		FOR j IN 1 .. cardinality(requests) LOOP
			BEGIN
				PERFORM eo.idempotency_begin('prints', 'p' || i, requests[j]);
				same := same + 1;
			EXCEPTION WHEN SQLSTATE 'EO422' THEN
			END;
		END LOOP;
	END LOOP;
	RAISE NOTICE '% requests, % equal pairs', cardinality(requests), same;
END $$;
SELECT DISTINCT length(fingerprint) FROM eo.idempotency_day_0 WHERE fingerprint IS NOT NULL;
-- the digest is kept for long, so it must not change
SELECT encode(fingerprint, 'hex') FROM eo.idempotency_day_0 WHERE key = 'f';
-- without one there is nothing to compare with
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'g');
SELECT eo.idempotency_complete('pay', 'g');
SELECT state FROM eo.idempotency_begin('pay', 'g', '1');
COMMIT;

-- committed without an answer: the work was done
SELECT state FROM eo.idempotency_begin('pay', 'unanswered');
SELECT * FROM eo.idempotency_begin('pay', 'unanswered');
SELECT eo.idempotency_complete('pay', 'unanswered', '1');
\echo :SQLSTATE

-- codes that release the key, and those that do not
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'h');
SELECT eo.idempotency_complete('pay', 'h', '"try again"', 503);
SELECT eo.idempotency_complete('pay', 'h', '"try again"', 503);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'h');
SELECT eo.idempotency_complete('pay', 'h', '"try again"', 500);
COMMIT;
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'h');
SELECT eo.idempotency_complete('pay', 'h', '"no"', 499);
COMMIT;
SELECT state, code, response FROM eo.idempotency_begin('pay', 'h');
UPDATE eo.idempotency_scope SET release_codes = '{[400,500),[600,601)}' WHERE name = 'pay';
SELECT code, (eo.idempotency_begin('pay', 'code ' || code)).state, eo.idempotency_complete('pay', 'code ' || code, code => code)
	FROM unnest(ARRAY[399, 400, 499, 500, 599, 600, 601]) AS code;
SELECT key, code FROM held WHERE key LIKE 'code %' ORDER BY 1;
UPDATE eo.idempotency_scope SET release_codes = '{}' WHERE name = 'pay';
SELECT (eo.idempotency_begin('pay', 'stored')).state, eo.idempotency_complete('pay', 'stored', code => 500);
SELECT state, code FROM eo.idempotency_begin('pay', 'stored');
UPDATE eo.idempotency_scope SET release_codes = DEFAULT WHERE name = 'pay';

-- to answer twice: the same, or not
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'i');
SELECT eo.idempotency_complete('pay', 'i', '{"n": 1}');
SELECT eo.idempotency_complete('pay', 'i', '{"n": 1.0}');
SELECT eo.idempotency_complete('pay', 'i', '{"n": 2}');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'i');
SELECT eo.idempotency_complete('pay', 'i');
SELECT eo.idempotency_complete('pay', 'i', NULL, 201);
ROLLBACK;
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'i');
SELECT eo.idempotency_complete('pay', 'i');
SELECT eo.idempotency_complete('pay', 'i', 'null');
ROLLBACK;

-- large answers
SELECT (eo.idempotency_begin('pay', 'large')).state,
	eo.idempotency_complete('pay', 'large', (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 10000) AS i));
SELECT jsonb_array_length(response), response ->> 9999 = md5('10000') AS whole FROM eo.idempotency_begin('pay', 'large');

-- a lease is committed, and its token is what counts
SELECT state, code IS NULL AND response IS NULL AND recovery_point IS NULL AS nothing_else, token
	FROM eo.idempotency_begin('pay', 'j', '{"amount": 1}', lease => '1 hour') \gset j_
SELECT :'j_state' AS state, :'j_nothing_else' AS nothing_else, :'j_token'::uuid IS NOT NULL AS token;
SELECT * FROM held WHERE key = 'j';
\set VERBOSITY terse
SELECT state FROM eo.idempotency_begin('pay', 'j', wait => false);
\echo :SQLSTATE
\set VERBOSITY default
SELECT state FROM eo.idempotency_begin('pay', 'j', '{"amount": 2}', wait => false);
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'j', '1');
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'j', '1', token => gen_random_uuid());
\echo :SQLSTATE
SELECT eo.idempotency_release('pay', 'j');
\echo :SQLSTATE
SELECT eo.idempotency_release('pay', 'j', gen_random_uuid());
\echo :SQLSTATE
SELECT eo.idempotency_checkpoint('pay', 'j', 'x', gen_random_uuid());
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'j', '{"charge": 7}', 201, :'j_token');
SELECT * FROM eo.idempotency_begin('pay', 'j', '{"amount": 1}', wait => false, lease => '1 hour');
SELECT * FROM held WHERE key = 'j';
-- the commit of a completion may get lost on its way to the client, so it may be repeated
SELECT eo.idempotency_complete('pay', 'j', '{"charge": 7}', 201, :'j_token');
SELECT eo.idempotency_complete('pay', 'j', '{"charge": 8}', 201, :'j_token');
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'j', '{"charge": 7}', 201, gen_random_uuid());
SELECT eo.idempotency_release('pay', 'j', :'j_token');
\echo :SQLSTATE
SELECT eo.idempotency_checkpoint('pay', 'j', 'x', :'j_token');
\echo :SQLSTATE

-- released by its holder
SELECT token FROM eo.idempotency_begin('pay', 'k', lease => '1 hour') \gset k_
SELECT eo.idempotency_release('pay', 'k', :'k_token');
SELECT eo.idempotency_release('pay', 'k', :'k_token');
\echo :SQLSTATE
SELECT token FROM eo.idempotency_begin('pay', 'k', wait => false, lease => '1 hour') \gset k_
SELECT eo.idempotency_complete('pay', 'k', '"later"', 503, :'k_token');
SELECT count(*) FROM held WHERE key = 'k';
SELECT eo.idempotency_complete('pay', 'k', '"later"', 503, :'k_token');
\echo :SQLSTATE

-- taken over when it is over, with what is known
SELECT token FROM eo.idempotency_begin('pay', 'l', '1', lease => '1 hour') \gset l_
SELECT eo.idempotency_checkpoint('pay', 'l', 'charged', :'l_token');
CALL end_lease('l');
SELECT state FROM eo.idempotency_begin('pay', 'l', '2');
\echo :SQLSTATE
SELECT state, recovery_point, token <> :'l_token' AS other_token, token
	FROM eo.idempotency_begin('pay', 'l', wait => false, lease => '1 hour') \gset m_
SELECT :'m_state' AS state, :'m_recovery_point' AS recovery_point, :'m_other_token' AS other_token;
SELECT state FROM eo.idempotency_begin('pay', 'l', '2');
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'l', '"late"', token => :'l_token');
\echo :SQLSTATE
SELECT eo.idempotency_release('pay', 'l', :'l_token');
\echo :SQLSTATE
SELECT eo.idempotency_checkpoint('pay', 'l', 'x', :'l_token', '1 hour');
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'l', '"in time"', token => :'m_token');
SELECT state, response FROM eo.idempotency_begin('pay', 'l', '1');

-- a lease that is over and that nobody has taken over is still its holder's
SELECT token FROM eo.idempotency_begin('pay', 'm', lease => '1 hour') \gset m_
CALL end_lease('m');
SELECT eo.idempotency_complete('pay', 'm', '1', token => :'m_token');
SELECT state, response FROM eo.idempotency_begin('pay', 'm');

-- taken over without a lease, by the transaction
SELECT token FROM eo.idempotency_begin('pay', 'n', lease => '1 hour') \gset n_
CALL end_lease('n');
BEGIN;
SELECT state, token, recovery_point FROM eo.idempotency_begin('pay', 'n', '5');
SELECT state, token, lease FROM held WHERE key = 'n';
ROLLBACK;
SELECT state, token, lease FROM held WHERE key = 'n';
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'n', '5');
SAVEPOINT s;
SELECT state FROM eo.idempotency_begin('pay', 'n', '5');
ROLLBACK TO s;
SELECT eo.idempotency_complete('pay', 'n', '1', token => :'n_token');
ROLLBACK TO s;
SELECT eo.idempotency_complete('pay', 'n', '1');
COMMIT;
SELECT eo.idempotency_complete('pay', 'n', '1', token => :'n_token');
\echo :SQLSTATE
SELECT state FROM eo.idempotency_begin('pay', 'n', '6');
\echo :SQLSTATE

-- checkpoints extend the lease, or leave it
SELECT token FROM eo.idempotency_begin('pay', 'o', lease => '1 hour') \gset o_
SELECT lease_until FROM eo.idempotency_day_0 WHERE key = 'o' \gset o_
SELECT eo.idempotency_checkpoint('pay', 'o', 'one', :'o_token');
SELECT recovery_point, lease_until = :'o_lease_until' AS same FROM eo.idempotency_day_0 WHERE key = 'o';
SELECT eo.idempotency_checkpoint('pay', 'o', NULL, :'o_token', '2 hours');
SELECT recovery_point, lease_until > :'o_lease_until'::timestamptz + '59 min'::interval AS longer FROM eo.idempotency_day_0 WHERE key = 'o';
CALL end_lease('o');
SELECT eo.idempotency_checkpoint('pay', 'o', 'two', :'o_token', '1 hour');
\set VERBOSITY terse
SELECT state FROM eo.idempotency_begin('pay', 'o', wait => false);
\set VERBOSITY default
-- within a transaction of the claim's own they need no token
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'p', lease => '1 hour');
SELECT eo.idempotency_checkpoint('pay', 'p', 'begun', NULL, '2 hours');
COMMIT;
SELECT state, recovery_point FROM held WHERE key = 'p';
SELECT eo.idempotency_checkpoint('pay', 'p', 'x', NULL);
\echo :SQLSTATE
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'q');
SELECT eo.idempotency_checkpoint('pay', 'q', 'x', NULL);
SELECT eo.idempotency_checkpoint('pay', 'q', 'x', NULL, '1 hour');
\echo :SQLSTATE
ROLLBACK;

-- released by the transaction that has claimed it
BEGIN;
SELECT state FROM eo.idempotency_begin('pay', 'r');
SELECT eo.idempotency_release('pay', 'r');
SELECT state FROM eo.idempotency_begin('pay', 'r');
SELECT eo.idempotency_complete('pay', 'r', '1');
SELECT eo.idempotency_release('pay', 'r');
SELECT state FROM eo.idempotency_begin('pay', 'r');
SELECT eo.idempotency_complete('pay', 'r', '2');
COMMIT;
SELECT state, response FROM eo.idempotency_begin('pay', 'r');
SELECT eo.idempotency_release('pay', 'r');
\echo :SQLSTATE
SELECT eo.idempotency_release('pay', 'nobody');
\echo :SQLSTATE
SELECT eo.idempotency_complete('pay', 'nobody');
\echo :SQLSTATE
SELECT eo.idempotency_checkpoint('pay', 'nobody', 'x', gen_random_uuid());
\echo :SQLSTATE

-- a lease of no use
SELECT eo.idempotency_begin('pay', 's', lease => '0');
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', 's', lease => '-1 s');
SELECT eo.idempotency_begin('pay', 's', lease => '25 hours');
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', 's', lease => '1000000 years');
SELECT eo.idempotency_checkpoint('pay', 'o', 'x', :'o_token', '25 hours');
SELECT eo.idempotency_checkpoint('pay', 'o', 'x', :'o_token', '0');

-- keys and scopes: null, empty, too long, not printable
SELECT eo.idempotency_begin(NULL, 'k');
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', NULL);
\echo :SQLSTATE
SELECT eo.idempotency_begin('', 'k');
\echo :SQLSTATE
SELECT eo.idempotency_begin(repeat('s', 129), 'k');
SELECT eo.idempotency_begin(E's\n', 'k');
SELECT eo.idempotency_begin('pay', '');
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', repeat('k', 256));
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', repeat('é', 128));
SELECT eo.idempotency_begin('pay', E'k\t1');
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', E'k\x7f');
SELECT state FROM eo.idempotency_begin('pay', repeat('é', 127) || ' ');
SELECT eo.idempotency_begin('pay', 'k', wait => NULL);
\echo :SQLSTATE
SELECT eo.idempotency_complete(NULL, 'k');
SELECT eo.idempotency_complete('pay', NULL);
SELECT eo.idempotency_complete('pay', '');
SELECT eo.idempotency_complete('pay', 'k', code => NULL);
\echo :SQLSTATE
SELECT eo.idempotency_release(NULL, 'k');
SELECT eo.idempotency_release('pay', NULL);
SELECT eo.idempotency_checkpoint(NULL, 'k', 'x', NULL);
SELECT eo.idempotency_checkpoint('pay', NULL, 'x', NULL);
BEGIN READ ONLY;
SELECT eo.idempotency_begin('pay', 'a');
\echo :SQLSTATE
ROLLBACK;

-- eo.idempotent: once, and then what it returned
CREATE TABLE done (request jsonb, by text DEFAULT current_user);
CREATE FUNCTION do_pay(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO done VALUES (request);
	RETURN CASE WHEN request ->> 'to' <> 'nobody' THEN jsonb_build_object('charge', (SELECT count(*) FROM done)) END;
END $$;
SELECT eo.idempotent('pay', 'call 1', '{"to": "x"}', 'do_pay(jsonb)');
SELECT eo.idempotent('pay', 'call 1', '{"to": "x"}', 'do_pay(jsonb)');
SELECT eo.idempotent('pay', 'call 1', '{"to": "y"}', 'do_pay(jsonb)');
\echo :SQLSTATE
SELECT eo.idempotent('pay', 'call 2', '{"to": "nobody"}', 'do_pay(jsonb)') IS NULL AS "null";
SELECT eo.idempotent('pay', 'call 2', '{"to": "nobody"}', 'do_pay(jsonb)') IS NULL AS "null";
SELECT eo.idempotent('pay', 'call 3', NULL, 'do_pay(jsonb)') IS NULL AS "null";
SELECT eo.idempotent('pay', 'call ' || 4 + i / 2, '{"to": "z"}', 'do_pay(jsonb)') FROM generate_series(0, 3) AS i;
SELECT request FROM done;
SELECT key, state, code, response FROM held WHERE key LIKE 'call%' ORDER BY key;
-- an error is no answer
CREATE FUNCTION to_jsonb_of_text(text) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
CREATE FUNCTION fail(jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1 / 0) $$;
SELECT eo.idempotent('pay', 'call 6', '1', 'fail(jsonb)');
SELECT eo.idempotent('pay', 'call 6', '1', 'to_jsonb(anyelement)');
\echo :SQLSTATE
SELECT eo.idempotent('pay', 'call 6', '1', 'now()');
SELECT eo.idempotent('pay', 'call 6', '1', 'jsonb_concat(jsonb, jsonb)');
SELECT eo.idempotent('pay', 'call 6', '1', 'to_jsonb_of_text(text)');
SELECT eo.idempotent('pay', 'call 6', '1', 'jsonb_array_elements(jsonb)');
SELECT eo.idempotent('pay', 'call 6', '1', 'end_lease(text)');
SELECT eo.idempotent('pay', 'call 6', '1', 'jsonb_agg(anyelement)');
SELECT eo.idempotent('pay', 'call 6', '1', NULL);
\echo :SQLSTATE
SELECT eo.idempotent('pay', 'call 6', '1', 0);
\echo :SQLSTATE
SELECT eo.idempotent(NULL, 'k', '1', 'do_pay(jsonb)');
SELECT eo.idempotent('pay', NULL, '1', 'do_pay(jsonb)');
SELECT count(*) FROM held WHERE key = 'call 6';
-- a strict function is not called for nothing
CREATE FUNCTION echo(jsonb) RETURNS jsonb STRICT LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'called'; RETURN $1; END $$;
SELECT eo.idempotent('pay', 'call 7', NULL, 'echo(jsonb)') IS NULL AS "null";
SELECT eo.idempotent('pay', 'call 7a', '[]', 'echo(jsonb)');
-- the function may settle it itself
CREATE FUNCTION settles(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM eo.idempotency_complete('pay', 'call 8', '"same"', 200);
	RETURN request;
END $$;
SELECT eo.idempotent('pay', 'call 8', '"same"', 'settles(jsonb)');
CREATE FUNCTION again(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN eo.idempotent('pay', 'call 9', request, 'again(jsonb)');
END $$;
SELECT eo.idempotent('pay', 'call 9', '1', 'again(jsonb)');
\echo :SQLSTATE

-- it runs as the caller, who must be allowed to
CREATE ROLE eo_idempotency_test;
GRANT USAGE ON SCHEMA eo TO eo_idempotency_test;
GRANT EXECUTE ON FUNCTION eo.idempotent TO eo_idempotency_test;
REVOKE EXECUTE ON FUNCTION do_pay FROM PUBLIC;
SET ROLE eo_idempotency_test;
SELECT eo.idempotent('pay', 'call 10', '1', 'do_pay(jsonb)');
\echo :SQLSTATE
SELECT eo.idempotency_begin('pay', 'call 10');
RESET ROLE;
GRANT EXECUTE ON FUNCTION do_pay TO eo_idempotency_test;
SET ROLE eo_idempotency_test;
SELECT eo.idempotent('pay', 'call 10', '1', 'do_pay(jsonb)');
RESET ROLE;
GRANT ALL ON done TO eo_idempotency_test;
SET ROLE eo_idempotency_test;
SELECT eo.idempotent('pay', 'call 10', '{"to": "role"}', 'do_pay(jsonb)');
SELECT eo.idempotent('pay', 'call 10', '{"to": "role"}', 'do_pay(jsonb)');
-- a new scope, too
SELECT eo.idempotent('scope of a role', 'call', '{"to": "role"}', 'do_pay(jsonb)') IS NOT NULL AS ok;
RESET ROLE;
SELECT by = 'eo_idempotency_test' AS as_caller, count(*) FROM done GROUP BY 1 ORDER BY 1;

-- a row in either generation, and in both
SELECT token FROM eo.idempotency_begin('turn', 'old', lease => '1 hour') \gset old_
SELECT token FROM eo.idempotency_begin('turn', 'both', lease => '1 hour') \gset both_
SELECT token FROM eo.idempotency_begin('turn', 'gone', lease => '1 hour') \gset gone_
SELECT token FROM eo.idempotency_begin('turn', 'checked', lease => '1 hour') \gset checked_
SELECT token FROM eo.idempotency_begin('turn', 'taken', lease => '1 hour') \gset taken_
SELECT (eo.idempotency_begin('turn', 'answered')).state, eo.idempotency_complete('turn', 'answered', '1');
CALL end_lease('taken');
INSERT INTO eo.idempotency_day_1 SELECT * FROM eo.idempotency_day_0 WHERE key IN ('both', 'gone');
INSERT INTO eo.generation VALUES (1, 0, 1, now());
SELECT key, generation FROM held WHERE scope = 'turn' ORDER BY 1, 2;
SELECT eo.idempotency_complete('turn', 'old', '"old"', token => :'old_token');
SELECT eo.idempotency_complete('turn', 'both', '"both"', token => :'both_token');
SELECT eo.idempotency_complete('turn', 'gone', '"gone"', 500, token => :'gone_token');
SELECT eo.idempotency_checkpoint('turn', 'checked', 'x', :'checked_token');
SELECT state FROM eo.idempotency_begin('turn', 'taken', lease => '1 hour');
SELECT state, response FROM eo.idempotency_begin('turn', 'answered');
SELECT * FROM held WHERE scope = 'turn' ORDER BY key, generation;
SELECT key, response, (eo.idempotency_begin('turn', key)).state FROM held
	WHERE scope = 'turn' AND state = 'd' AND generation = 0 ORDER BY 1;
TRUNCATE eo.idempotency_day_0;
UPDATE eo.generation SET current = 0 WHERE family = 1 AND class = 0;
SELECT key, (eo.idempotency_begin('turn', key)).response FROM unnest(ARRAY['old', 'both']) AS key;
SELECT eo.idempotency_release('turn', 'checked', :'checked_token');
SELECT key, generation FROM held WHERE scope = 'turn' ORDER BY 1, 2;

-- an index that somebody has added to the tables is not filled with nonsense
CREATE INDEX added ON eo.idempotency_day_0 (token);
SELECT state FROM eo.idempotency_begin('pay', 'indexed', lease => '1 hour');
\echo :SQLSTATE
DROP INDEX eo.added;
SELECT state FROM eo.idempotency_begin('pay', 'indexed', lease => '1 hour');

-- a scope that has moved to other tables for longer than it keeps its keys, and
-- back: what it has left behind is older than what it brings
SELECT eo.create_idempotency_scope('moves', '1 hour');
SELECT (eo.idempotency_begin('moves', 'again', '1')).state, eo.idempotency_complete('moves', 'again', '"old"');
SELECT token FROM eo.idempotency_begin('moves', 'leased', lease => '1 hour') \gset old_
SELECT token FROM eo.idempotency_begin('moves', 'answered', lease => '1 hour') \gset answered_
SELECT eo.create_idempotency_scope('moves', '2 days');
SELECT eo.idempotency_checkpoint('moves', key, 'moved', token) FROM
	(VALUES ('leased', :'old_token'::uuid), ('answered', :'answered_token')) AS leases (key, token);
UPDATE eo.idempotency_scope SET also_until = '2000-01-01' WHERE name = 'moves';
SELECT (eo.idempotency_begin('moves', 'again', '2')).state, eo.idempotency_complete('moves', 'again', '"new"');
SELECT eo.idempotency_checkpoint('moves', 'leased', 'extended', :'old_token', '20 hours');
SELECT eo.idempotency_complete('moves', 'answered', '"answer"', token => :'answered_token');
SELECT eo.create_idempotency_scope('moves', '1 hour');
CALL end_lease('leased');
CALL end_lease('answered');
SELECT state, response FROM eo.idempotency_begin('moves', 'again', '2', wait => false);
SELECT state, response FROM eo.idempotency_begin('moves', 'answered', wait => false);
\set VERBOSITY sqlstate
SELECT state FROM eo.idempotency_begin('moves', 'leased', wait => false);
\set VERBOSITY default
SELECT eo.idempotency_complete('moves', 'leased', '"in time"', token => :'old_token');
SELECT key, (eo.idempotency_begin('moves', key)).response FROM unnest(ARRAY['again', 'leased', 'answered']) AS key;
TRUNCATE eo.idempotency_week_0, eo.idempotency_week_1;

DROP OWNED BY eo_idempotency_test;
DROP ROLE eo_idempotency_test;
DROP FUNCTION do_pay, fail, echo, settles, again;
DROP TABLE done;
DROP PROCEDURE end_lease;
DROP VIEW held;
TRUNCATE eo.idempotency_day_0, eo.idempotency_day_1;
DELETE FROM eo.generation;
DELETE FROM eo.idempotency_scope;
