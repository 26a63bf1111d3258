-- Captures the tables of a database, changes their rows, and compares the events
-- with what to_jsonb() tells of the rows.

CREATE SCHEMA checked;

CREATE VIEW checked.tables AS
SELECT c.oid::regclass AS relation, c.relkind, c.relpersistence, NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) AS root
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'eo', 'checked');

-- The tables that a table is a part or a child of, and that have none themselves.
CREATE FUNCTION checked.roots(rel regclass) RETURNS SETOF regclass LANGUAGE sql STABLE AS $$
	WITH RECURSIVE above AS (
		SELECT rel::oid AS oid UNION SELECT inhparent FROM pg_inherits JOIN above ON inhrelid = above.oid
	)
	SELECT oid::regclass FROM above WHERE NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = above.oid)
$$;

CREATE FUNCTION checked.topic(rel regclass) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = rel
$$;

CREATE FUNCTION checked.columns(rel regclass) RETURNS SETOF pg_attribute LANGUAGE sql STABLE AS $$
	SELECT * FROM pg_attribute WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped ORDER BY attnum
$$;

-- What eo.capture() has refused.
CREATE TABLE checked.refused (relation regclass, state text, message text, hint text);

CREATE FUNCTION checked.may_capture(rel regclass, mode text, keys name[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	s text; m text; h text;
BEGIN
	PERFORM eo.capture(rel, mode => mode, key_columns => keys);
	RETURN true;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS s = RETURNED_SQLSTATE, m = MESSAGE_TEXT, h = PG_EXCEPTION_HINT;
	INSERT INTO checked.refused VALUES (rel, s, m, h);
	RETURN false;
END $$;

-- A column that has a value in all rows, and not a long one.
CREATE FUNCTION checked.key_of(rel regclass) RETURNS name LANGUAGE plpgsql AS $$
DECLARE
	a record;
	good boolean;
BEGIN
	FOR a IN SELECT * FROM checked.columns(rel) ORDER BY attnotnull DESC, attnum LOOP
		EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s WHERE %I IS NULL OR octet_length(%I::text) NOT BETWEEN 1 AND 200)', rel, a.attname, a.attname)
			INTO good;
		IF good THEN
			RETURN a.attname;
		END IF;
	END LOOP;
	RETURN NULL;
END $$;

-- Removes what a refusal tells to, as the person would who reads it.
CREATE PROCEDURE checked.capture(mode text) LANGUAGE plpgsql AS $$
DECLARE
	t record;
	key name;
BEGIN
	FOR t IN SELECT * FROM checked.tables WHERE root ORDER BY relation::oid LOOP
		CONTINUE WHEN checked.may_capture(t.relation, mode, NULL);
		IF t.relpersistence = 'u' THEN
			EXECUTE format('ALTER TABLE %s SET LOGGED', t.relation);
			CONTINUE WHEN checked.may_capture(t.relation, mode, NULL);
		END IF;
		key := checked.key_of(t.relation);
		IF key IS NULL THEN
			EXECUTE format('ALTER TABLE %s ADD COLUMN "added key" int NOT NULL DEFAULT 7', t.relation);
			key := 'added key';
		END IF;
		PERFORM eo.capture(t.relation, mode => mode, key_columns => ARRAY[key]);
	END LOOP;
END $$;

CREATE PROCEDURE checked.uncapture() LANGUAGE sql AS $$
	SELECT eo.uncapture(relation) FROM eo.captures;
$$;

-- Nothing but our own triggers shall happen to the rows.
CREATE PROCEDURE checked.calm(rel regclass) LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', rel);
	FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = rel AND tgfoid = 'eo.capture_row()'::regprocedure LOOP
		EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', rel, name);
	END LOOP;
	FOR name IN SELECT rulename FROM pg_rewrite WHERE ev_class = rel LOOP
		EXECUTE format('ALTER TABLE %s DISABLE RULE %I', rel, name);
	END LOOP;
END $$;

-- The row that the payload of an event tells, old or new.
CREATE FUNCTION checked.told(mode text, payload jsonb, side text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN mode = 'delta' THEN
		(SELECT coalesce(jsonb_object_agg(key, value -> side), '{}') FROM jsonb_each(payload)) ELSE payload END::text
$$;

-- A value that is another one, where there is a simple way to it.
CREATE FUNCTION checked.other(a pg_attribute) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN a.attgenerated <> '' OR a.attidentity = 'a' THEN NULL
		WHEN t.oid IN ('text'::regtype, 'varchar'::regtype) THEN format('%I || ''~''', a.attname)
		WHEN t.typcategory = 'N' AND t.typname ~ '^(int|float|numeric)' THEN format('%I + 1', a.attname)
		WHEN t.typcategory = 'A' AND t.typname ~ '^_' THEN format('%I || %I', a.attname, a.attname)
		WHEN t.oid IN ('date'::regtype) THEN format('%I + 1', a.attname)
		WHEN t.oid IN ('timestamp'::regtype, 'timestamptz'::regtype, 'interval'::regtype, 'time'::regtype)
			THEN format('%I + interval ''1.5 s''', a.attname)
		WHEN t.oid = 'bool'::regtype THEN format('NOT %I', a.attname)
		WHEN t.oid = 'bytea'::regtype THEN format('%I || ''\x00''', a.attname)
		WHEN t.oid = 'jsonb'::regtype THEN format('jsonb_build_array(%I)', a.attname)
		WHEN t.oid = 'json'::regtype THEN format('json_build_array(%I)', a.attname)
		WHEN t.oid IN ('point'::regtype, 'box'::regtype, 'path'::regtype, 'circle'::regtype) THEN format('%I + point ''(1,2)''', a.attname)
		WHEN t.oid = 'money'::regtype THEN format('%I + %I', a.attname, a.attname)
		WHEN t.oid = 'inet'::regtype THEN format('%I + 1', a.attname)
	END
	FROM pg_type AS t WHERE t.oid = a.atttypid
$$;

CREATE TYPE checked.finding AS (relation regclass, step text, rows bigint, events bigint, wrong bigint, error text);

-- The rows as a temporary table that to_jsonb() gives, of which an event names what
-- a regclass is with its schema.
CREATE PROCEDURE checked.copy_rows(rel regclass, name text) LANGUAGE plpgsql AS $$
DECLARE
	path text := current_setting('search_path');
BEGIN
	PERFORM set_config('search_path', 'pg_catalog', true);
	EXECUTE format('DROP TABLE IF EXISTS pg_temp.%I', name);
	EXECUTE format('CREATE TEMP TABLE %I ON COMMIT DROP AS SELECT to_jsonb("the row") FROM ONLY %s AS "the row"', name, rel);
	PERFORM set_config('search_path', path, true);
END $$;

-- Compares the events since `before` with the rows in the temporary table `last`:
-- those of the old rows, or of the new ones.
CREATE FUNCTION checked.compare(rel regclass, mode text, step text, side text, before bigint) RETURNS checked.finding
LANGUAGE plpgsql AS $$
DECLARE
	found checked.finding := (rel, step, 0, 0, 0, NULL);
	types text[] := CASE WHEN side = 'old' THEN '{deleted}' ELSE '{inserted,updated}' END;
BEGIN
	DROP TABLE IF EXISTS pg_temp.told, pg_temp.want;
	CREATE TEMP TABLE told ON COMMIT DROP AS
		SELECT topic, type, checked.told(mode, payload, side) AS row FROM
			(SELECT * FROM eo.pending() OFFSET before) AS e WHERE substring(type, '[^.]*$') = ANY (types);
	CREATE TEMP TABLE want ON COMMIT DROP AS
		SELECT topic, to_jsonb::text AS row FROM pg_temp.last, (SELECT checked.topic(r) FROM checked.roots(rel) AS r) AS t (topic);
	SELECT count(*) INTO found.rows FROM want;
	SELECT count(*) INTO found.events FROM told;
	SELECT count(*) INTO found.wrong FROM (
		(SELECT topic, row FROM told EXCEPT ALL SELECT topic, row FROM want)
		UNION ALL
		(SELECT topic, row FROM want EXCEPT ALL SELECT topic, row FROM told)) AS d;
	RETURN found;
END $$;

-- Changes the rows of one table, and leaves it to the caller to roll back.
CREATE FUNCTION checked.check(rel regclass, mode text) RETURNS SETOF checked.finding LANGUAGE plpgsql AS $$
DECLARE
	written text;
	before bigint;
	most int;
	change record;
	n bigint;
	m text;
BEGIN
	CALL checked.calm(rel);
	SELECT string_agg(quote_ident(attname), ', ') INTO written FROM checked.columns(rel) WHERE attgenerated = '';
	EXECUTE format('CREATE TEMP TABLE copy ON COMMIT DROP AS SELECT %s FROM ONLY %s', written, rel);
	GET DIAGNOSTICS n = ROW_COUNT;
	most := CASE WHEN n > 5000 THEN 1 WHEN n > 1000 THEN 3 ELSE 25 END;
	CALL checked.copy_rows(rel, 'original');

	-- to the same value, and column by column to another, as a constraint may forbid
	FOR change IN SELECT * FROM (
		(SELECT 'updated' AS step, attname, quote_ident(attname) AS value FROM checked.columns(rel)
			WHERE attgenerated = '' AND attidentity <> 'a' LIMIT 1)
		UNION ALL
		(SELECT 'changed', attname, checked.other(a) FROM checked.columns(rel) AS a WHERE checked.other(a) IS NOT NULL LIMIT most)) AS c
		-- a delta has no whole rows to compare
		WHERE mode <> 'delta'
	LOOP
		BEGIN
			before := (SELECT count(*) FROM eo.pending());
			EXECUTE format('UPDATE ONLY %s SET %I = %s', rel, change.attname, change.value);
		EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
			GET STACKED DIAGNOSTICS m = MESSAGE_TEXT;
			RETURN NEXT (rel, 'refused', 0, 0, 0, m)::checked.finding;
			CONTINUE;
		END;
		CALL checked.copy_rows(rel, 'last');
		RETURN NEXT checked.compare(rel, mode, change.step, 'new', before);
	END LOOP;

	before := (SELECT count(*) FROM eo.pending());
	CALL checked.copy_rows(rel, 'last');
	EXECUTE format('DELETE FROM ONLY %s', rel);
	RETURN NEXT checked.compare(rel, mode, 'deleted', 'old', before);

	before := (SELECT count(*) FROM eo.pending());
	BEGIN
		EXECUTE format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT * FROM copy', rel, written);
	EXCEPTION WHEN check_violation OR not_null_violation THEN
		-- a constraint that is not valid, as NOT NULL may be from 18 on
		GET STACKED DIAGNOSTICS m = MESSAGE_TEXT;
		RETURN NEXT (rel, 'refused', 0, 0, 0, m)::checked.finding;
		RETURN;
	END;
	CALL checked.copy_rows(rel, 'last');
	RETURN NEXT checked.compare(rel, mode, 'inserted', 'new', before);
	SELECT count(*) INTO n FROM (SELECT to_jsonb::text FROM pg_temp.last EXCEPT ALL SELECT to_jsonb::text FROM pg_temp.original) AS d;
	IF n > 0 THEN
		RETURN NEXT (rel, 'not as it was', 0, 0, n, NULL)::checked.finding;
	END IF;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS m = MESSAGE_TEXT;
	RETURN NEXT (rel, 'error', 0, 0, 0, m || ' (' || SQLSTATE || ')')::checked.finding;
END $$;
