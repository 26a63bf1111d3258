-- The views, and who may see and do what.
\c -
\set SHOW_CONTEXT never
SELECT eo.enqueue('views', '{"n": 1}', 'key') IS NOT NULL AS id_made;
SELECT eo.last_seq() AS last \gset

-- their columns are an interface
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
	FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'eo'::regnamespace AND (c.relkind = 'v' OR c.relname = 'event')
	GROUP BY 1 ORDER BY 1;
-- and so are the functions of the schema
SELECT p.oid::regprocedure AS function, CASE WHEN p.proretset THEN 'setof ' ELSE '' END || p.prorettype::regtype AS returns,
	p.provolatile AS volatile, p.proparallel AS parallel, p.proisstrict AS strict, p.prosecdef AS definer
	FROM pg_proc AS p WHERE p.pronamespace = 'eo'::regnamespace ORDER BY p.proname, p.oid::regprocedure::text;

SELECT segment, state, first_seq IS NOT NULL AS used, last_seq = :last AS holds_the_last, last_append <= now() AS appended, bytes > 0 AS has_bytes
	FROM eo.segments ORDER BY segment;
SELECT topic, payload, key FROM eo.events WHERE seq = :last;
SELECT count(*) FROM eo.stalls;
SELECT count(*) FROM eo.dead_letters;
SELECT lineage, epoch, last_seq = :last AS last, floor_seq FROM eo.log_status();

-- reading them takes no lock that an append waits for, nor scans the log
BEGIN;
SELECT count(*) >= 0 AS read FROM eo.subscriptions, eo.segments, eo.stalls;
SELECT c.relname, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
	WHERE l.pid = pg_backend_pid() AND c.relname ~ '^log_' AND l.mode <> 'AccessShareLock';
ROLLBACK;

-- pg_monitor reads the views, and nothing else
CREATE ROLE regress_eo_monitor;
CREATE ROLE regress_eo_producer;
CREATE ROLE regress_eo_operator;
GRANT pg_monitor TO regress_eo_monitor;
SET ROLE regress_eo_monitor;
SELECT count(*) > 0 AS read FROM eo.events;
SELECT count(*) >= 0 AS read FROM eo.subscriptions, eo.segments, eo.stalls, eo.dead_letters;
SELECT eo.enqueue('t', '1');
SELECT eo.subscribe('t', server => 's');
SELECT eo.unsubscribe('t');
SELECT count(*) FROM eo.log_0;
SELECT count(*) FROM eo.subscription;
RESET ROLE;

-- an event of several rows can be read as any other
SELECT eo.enqueue_bytes('views.large', (SELECT string_agg(sha256(int4send(i)), '') FROM generate_series(1, 1000) AS i)) IS NOT NULL AS id_made;
SET ROLE regress_eo_monitor;
SELECT length(body) FROM eo.events WHERE topic = 'views.large';
RESET ROLE;

-- producers enqueue, and configure nothing
SELECT eo.grant_producer('regress_eo_producer');
SET ROLE regress_eo_producer;
BEGIN;
SELECT eo.enqueue('views.producer', '1') IS NOT NULL AS id_made;
SELECT eo.enqueue_bytes('views.producer', '1') IS NOT NULL AS id_made;
SELECT count(*) FROM eo.pending();
COMMIT;
SELECT eo.last_seq() > :last AS appended;
SELECT eo.subscribe('t', server => 's');
SELECT eo.pause('t');
SELECT eo.grant_producer('regress_eo_monitor');
SELECT count(*) FROM eo.events;
SELECT count(*) FROM eo.subscriptions;
TRUNCATE eo.log_0;
RESET ROLE;
SELECT count(*) FROM eo.events WHERE topic = 'views.producer';

-- the role that enqueued need not be the one that commits
BEGIN;
SET ROLE regress_eo_producer;
SELECT eo.enqueue('views.roles', '1') IS NOT NULL AS id_made;
SET ROLE regress_eo_monitor;
COMMIT;
RESET ROLE;
SELECT count(*) FROM eo.events WHERE topic = 'views.roles';

-- nor does a hostile search_path matter
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.ge(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE FUNCTION hostile.texteq_trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.texteq_trap);
CREATE OPERATOR hostile.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.ge);
CREATE OPERATOR hostile.- (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_catalog.int8pl);
SET search_path = hostile, pg_catalog;
SELECT eo.enqueue('views.hostile', '1') IS NOT NULL AS id_made;
SELECT eo.subscribe('hostile') IS NOT NULL AS subscribed;
SELECT name, lag_events FROM eo.subscriptions;
SELECT eo.pause('hostile'), eo.resume('hostile');
SELECT count(*) FROM eo.fetch('hostile');
SELECT eo.unsubscribe('hostile');
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
RESET client_min_messages;

-- operators configure and watch, and produce nothing
SELECT eo.grant_operator('regress_eo_operator');
SET ROLE regress_eo_operator;
SELECT count(*) >= 0 AS read FROM eo.subscriptions, eo.segments, eo.stalls, eo.dead_letters;
SELECT count(*) > 0 AS read FROM eo.events;
SELECT eo.subscribe('operated') IS NOT NULL AS subscribed;
SELECT count(*) FROM eo.fetch('operated');
SELECT eo.unsubscribe('operated');
SELECT eo.enqueue('t', '1');
DELETE FROM eo.subscription;
RESET ROLE;
SELECT eo.grant_producer('no_such_role');
SELECT eo.grant_operator(0);

-- all that anybody but the owner may do
SELECT 'function' AS object, p.oid::regprocedure::text AS name, r.rolname, a.privilege_type
	FROM pg_proc AS p, aclexplode(p.proacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
	WHERE p.pronamespace = 'eo'::regnamespace AND a.grantee <> p.proowner
UNION ALL SELECT 'relation', c.oid::regclass::text, r.rolname, a.privilege_type
	FROM pg_class AS c, aclexplode(c.relacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
	WHERE c.relnamespace = 'eo'::regnamespace AND a.grantee <> c.relowner
UNION ALL SELECT 'schema', nspname, r.rolname, a.privilege_type
	FROM pg_namespace AS n, aclexplode(n.nspacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
	WHERE nspname = 'eo' AND a.grantee <> nspowner
UNION ALL SELECT 'wrapper', fdwname, r.rolname, a.privilege_type
	FROM pg_foreign_data_wrapper AS w, aclexplode(w.fdwacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
	WHERE fdwname ~ '^eo_' AND a.grantee <> fdwowner
ORDER BY 1, 3, 2, 4;
DROP OWNED BY regress_eo_monitor, regress_eo_producer, regress_eo_operator;
DROP ROLE regress_eo_monitor, regress_eo_producer, regress_eo_operator;
