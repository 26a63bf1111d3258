-- Rules that every object of the extension keeps.  Each query lists offenders.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS eo_outbox;
RESET client_min_messages;

CREATE TEMP VIEW member AS
	SELECT d.classid, d.objid, i.type, i.schema, i.identity
	FROM pg_depend AS d, pg_extension AS e,
		pg_identify_object(d.classid, d.objid, d.objsubid) AS i
	WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		AND d.deptype = 'e' AND e.extname = 'eo_outbox'
		-- the types that come with relations, which 17 counts as members
		AND NOT EXISTS (SELECT FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
			WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid
				AND (t.typcategory = 'A' OR c.relkind <> 'c'));

SELECT count(*) > 0 AS has_members FROM member;

-- a comment
SELECT type, identity FROM member
	WHERE obj_description(objid, classid::regclass::text::name) IS NULL
	ORDER BY 1, 2;

-- the schema eo, where there is one
SELECT type, identity FROM member WHERE schema <> 'eo' ORDER BY 1, 2;

-- nothing for PUBLIC
SELECT p.oid::regprocedure AS executable_by_public
	FROM pg_proc AS p JOIN member AS m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass,
		aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
	WHERE a.grantee = 0
	ORDER BY 1;
SELECT c.oid::regclass AS granted_to_public, a.privilege_type
	FROM pg_class AS c JOIN member AS m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass,
		aclexplode(c.relacl) AS a
	WHERE a.grantee = 0
	ORDER BY 1, 2;
SELECT w.fdwname AS granted_to_public
	FROM pg_foreign_data_wrapper AS w
		JOIN member AS m ON m.objid = w.oid AND m.classid = 'pg_foreign_data_wrapper'::regclass,
		aclexplode(w.fdwacl) AS a
	WHERE a.grantee = 0
	ORDER BY 1;
SELECT a.privilege_type AS public_may_with_schema_eo
	FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
	WHERE n.nspname = 'eo' AND a.grantee = 0;

-- a fixed search_path wherever rights are borrowed
SELECT p.oid::regprocedure AS security_definer_without_search_path
	FROM pg_proc AS p JOIN member AS m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass
	WHERE p.prosecdef AND NOT EXISTS (
		SELECT FROM unnest(p.proconfig) AS c WHERE c LIKE 'search_path=pg_catalog%')
	ORDER BY 1;

-- names of C functions
SELECT p.oid::regprocedure AS badly_named, p.prosrc
	FROM pg_proc AS p JOIN member AS m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass
		JOIN pg_language AS l ON l.oid = p.prolang
	WHERE l.lanname = 'c' AND p.prosrc !~ '^eo_outbox_'
	ORDER BY 1;
DROP VIEW member;
