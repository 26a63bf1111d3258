-- Consumers and idempotency scopes: their windows, their views, who may use them.
\c -
\set SHOW_CONTEXT never

-- windows
SELECT eo.create_consumer('reg.x', '999 milliseconds');
\echo :LAST_ERROR_SQLSTATE
SELECT eo.create_consumer('reg.x', '-1 day');
SELECT eo.create_consumer('reg.x', '36501 days');
SELECT eo.create_consumer('', '1 day');
SELECT eo.create_consumer(repeat('x', 129), '1 day');
SELECT eo.create_consumer(E'a\nb', '1 day');
SELECT eo.create_idempotency_scope('reg.x', '0');
SELECT eo.create_idempotency_scope('reg.x', '200 years');
SELECT eo.create_idempotency_scope(E'\t');
SELECT eo.create_consumer('reg.second', '1 second'), eo.create_consumer('reg.day', '24 hours'),
	eo.create_consumer('reg.week', '1 day 1 second'), eo.create_consumer('reg.8', '8 days'),
	eo.create_consumer('reg.month', '1 month'), eo.create_consumer('reg.default');
SELECT name, keep_for, class, also_classes, also_until FROM eo.consumer WHERE name ~ '^reg[.]' ORDER BY id;
SELECT eo.create_idempotency_scope('reg.default'),
	eo.create_idempotency_scope('reg.codes', '3 days', '{[400,500),[503,503]}');
SELECT name, keep_for, class, release_codes FROM eo.idempotency_scope WHERE name ~ '^reg[.]' ORDER BY id;

-- the same again changes nothing
SELECT sum(xmin::text::bigint) AS rows_before FROM eo.consumer WHERE name ~ '^reg[.]' \gset
SELECT eo.create_consumer('reg.day', '1 day'), eo.create_consumer('reg.default', '7 days');
SELECT sum(xmin::text::bigint) = :rows_before AS unchanged FROM eo.consumer WHERE name ~ '^reg[.]';
SELECT eo.create_idempotency_scope('reg.codes', '3 days', '{[400,500)}');
SELECT keep_for, release_codes FROM eo.idempotency_scope WHERE name = 'reg.codes';

-- a window of the same class
SELECT eo.create_consumer('reg.day', '2 hours');
SELECT keep_for, class, also_classes, also_until FROM eo.consumer WHERE name = 'reg.day';

-- one of another class: keys are looked for in both, with no end as yet
BEGIN;
SELECT eo.create_consumer('reg.day', '20 days');
SELECT keep_for, class, also_classes, also_until FROM eo.consumer WHERE name = 'reg.day';
SELECT eo.create_consumer('reg.day', '3 days');
SELECT keep_for, class, also_classes, also_until FROM eo.consumer WHERE name = 'reg.day';
SAVEPOINT s;
SELECT eo.receive('reg.day', 'a');
ROLLBACK;
SELECT keep_for, class, also_classes FROM eo.consumer WHERE name = 'reg.day';
-- what was in force for a class and is over counts no more
UPDATE eo.consumer SET also_classes = 4, also_until = now() - interval '1 minute' WHERE name = 'reg.second';
SELECT eo.create_consumer('reg.second', '2 days');
SELECT class, also_classes FROM eo.consumer WHERE name = 'reg.second';

-- what has been left behind is kept for as long as a window that grows afterwards, and no shorter
SELECT eo.create_consumer('reg.grows', '1 hour');
SELECT eo.create_consumer('reg.grows', '2 days');
UPDATE eo.consumer SET also_until = '2100-01-01' WHERE name = 'reg.grows';
SELECT eo.create_consumer('reg.grows', '6 days');
SELECT eo.create_consumer('reg.grows', '3 days');
SELECT keep_for, also_until = '2100-01-05' AS grown FROM eo.consumer WHERE name = 'reg.grows';
UPDATE eo.consumer SET also_until = '2000-01-01' WHERE name = 'reg.grows';
SELECT eo.create_consumer('reg.grows', '8 days');
SELECT keep_for, also_until = '2000-01-01' AS over FROM eo.consumer WHERE name = 'reg.grows';

-- ids are recognised across such a change, both ways
SELECT eo.receive('reg.moves', 'week');
SELECT eo.create_consumer('reg.moves', '1 hour');
SELECT eo.receive('reg.moves', 'week') AS week, eo.receive('reg.moves', 'day') AS day;
SELECT eo.create_consumer('reg.moves', '1 year');
SELECT eo.receive('reg.moves', 'week') AS week, eo.receive('reg.moves', 'day') AS day, eo.receive('reg.moves', 'long') AS long;
SELECT eo.create_consumer('reg.moves', '7 days');
SELECT eo.receive('reg.moves', 'week') AS week, eo.receive('reg.moves', 'day') AS day, eo.receive('reg.moves', 'long') AS long;
-- also by a transaction that has made another one meanwhile and rolled back
BEGIN;
SAVEPOINT s;
SELECT eo.create_consumer('reg.moves', '1 hour');
ROLLBACK TO s;
SELECT eo.receive('reg.moves', 'week') AS week, eo.receive('reg.moves', 'new') AS new;
COMMIT;
SELECT eo.receive('reg.moves', 'new') AS new;

-- to drop is to forget
SELECT eo.drop_consumer('reg.none');
\echo :LAST_ERROR_SQLSTATE
SELECT eo.drop_idempotency_scope('reg.none');
SELECT eo.receive('reg.drop', 'a'), eo.receive_at('reg.drop', 's', 5);
SELECT eo.receive('reg.drop', 'a'), eo.receive_at('reg.drop', 's', 5);
SELECT ids, duplicates, sources FROM eo.inbox_status WHERE consumer = 'reg.drop';
BEGIN;
SELECT eo.drop_consumer('reg.drop');
SELECT eo.receive('reg.drop', 'a'), eo.receive_at('reg.drop', 's', 5);
ROLLBACK;
SELECT eo.receive('reg.drop', 'a'), eo.receive_at('reg.drop', 's', 5);
BEGIN;
SELECT eo.drop_consumer('reg.drop');
SELECT eo.receive('reg.drop', 'b');
COMMIT;
SELECT eo.receive('reg.drop', 'a'), eo.receive('reg.drop', 'b'), eo.receive_at('reg.drop', 's', 5);
SELECT ids, duplicates, sources, "window" FROM eo.inbox_status WHERE consumer = 'reg.drop';
SELECT state FROM eo.idempotency_begin('reg.drop', 'a');
SELECT eo.drop_idempotency_scope('reg.drop');
SELECT state FROM eo.idempotency_begin('reg.drop', 'a');
SELECT eo.registry_changed();
BEGIN;
SELECT eo.create_consumer('reg.prepared');
PREPARE TRANSACTION 'reg';

-- counts: what was committed, savepoints that are rolled back excepted
BEGIN;
SELECT eo.receive('reg.count', '1');
SAVEPOINT a;
SELECT eo.receive('reg.count', '2'), eo.receive('reg.count', '1');
SAVEPOINT b;
SELECT eo.receive('reg.count', '3');
RELEASE b;
SELECT eo.receive('reg.count', '4'), eo.receive('reg.other', '4');
ROLLBACK TO a;
SELECT eo.receive('reg.count', '5');
SAVEPOINT c;
SELECT eo.receive('reg.count', '6'), eo.receive('reg.count', '1'), eo.receive('reg.other', '6');
RELEASE c;
SELECT ids, duplicates FROM eo.inbox_status WHERE consumer IN ('reg.count', 'reg.other');
COMMIT;
SELECT consumer, ids, bytes BETWEEN ids * 50 AND ids * 120 AS bytes, oldest BETWEEN created_at AND clock_timestamp() AS oldest, duplicates
	FROM eo.inbox_status WHERE consumer IN ('reg.count', 'reg.other') ORDER BY 1;
BEGIN;
SELECT eo.receive('reg.count', '7');
ROLLBACK;
DO $$ BEGIN
	FOR i IN 1 .. 100 LOOP
		BEGIN
			PERFORM eo.receive('reg.count', 'loop ' || i);
			IF i % 2 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END $$;
SELECT ids, duplicates FROM eo.inbox_status WHERE consumer = 'reg.count';
SELECT count(*) FROM eo.receive('reg.count', ARRAY['8', '1', '9', '8', 'loop 1']);
SELECT ids, duplicates FROM eo.inbox_status WHERE consumer = 'reg.count';
SELECT eo.receive_at('reg.count', 's1', 1), eo.receive_at('reg.count', 's2', 1);
SELECT eo.receive_at('reg.count', 's1', 1), eo.receive_at('reg.count', 's2', 3);
SELECT ids, duplicates, sources FROM eo.inbox_status WHERE consumer = 'reg.count';
SELECT consumer, ids, bytes, oldest, duplicates, sources, "window" FROM eo.inbox_status WHERE consumer = 'reg.month';
BEGIN;
SELECT state FROM eo.idempotency_begin('reg.codes', 'a', '1');
SELECT eo.idempotency_complete('reg.codes', 'a', '"done"', 201);
COMMIT;
SELECT state, code, response FROM eo.idempotency_begin('reg.codes', 'a', '1');
SELECT scope, keys, bytes > 0 AS bytes, oldest IS NOT NULL AS oldest, replays, expiry, release_codes
	FROM eo.idempotency_status WHERE scope ~ '^reg[.]' ORDER BY 1;

-- none of it scans what was received
BEGIN;
SELECT count(*) > 0 AS read FROM eo.inbox_status, eo.idempotency_status;
SELECT c.relname FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
	WHERE l.pid = pg_backend_pid() AND c.relname ~ '^(inbox|idempotency)_(day|week|long)';
ROLLBACK;

-- consumers receive, and configure nothing but themselves
CREATE ROLE regress_eo_consumer;
SELECT eo.grant_consumer('regress_eo_consumer');
SELECT p.oid::regprocedure AS may_execute FROM pg_proc AS p
	WHERE p.pronamespace = 'eo'::regnamespace AND has_function_privilege('regress_eo_consumer', p.oid, 'EXECUTE')
	ORDER BY p.oid::regprocedure::text;
SELECT c.relname AS may_read FROM pg_class AS c
	WHERE c.relnamespace = 'eo'::regnamespace AND c.relkind IN ('r', 'v') AND has_table_privilege('regress_eo_consumer', c.oid, 'SELECT');
SET ROLE regress_eo_consumer;
SELECT eo.create_consumer('reg.role', '1 hour'), eo.create_consumer('reg.role', '2 days');
SELECT eo.receive('reg.role', 'a'), eo.receive_at('reg.role', 's', 1);
SELECT eo.receive('reg.first', 'a');
SELECT eo.receive('reg.role', ARRAY['a', 'b']);
SELECT state FROM eo.idempotency_begin('reg.role', 'a');
SELECT eo.drop_consumer('reg.role');
SELECT eo.create_idempotency_scope('reg.role');
SELECT eo.drop_idempotency_scope('reg.role');
SELECT eo.enqueue('t', '1');
SELECT count(*) FROM eo.inbox_status;
SELECT count(*) FROM eo.inbox_week_0;
DELETE FROM eo.consumer;
RESET ROLE;
DROP OWNED BY regress_eo_consumer;
DROP ROLE regress_eo_consumer;
