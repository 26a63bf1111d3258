-- What is done to the tables of schema.sql.  Each statement that stands alone is
-- a transaction.

INSERT INTO numbers VALUES
	(1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, false),
	(2, 32767, 2147483647, 9223372036854775807, 2147483647, 1.5, 1.5, 12345.678900, 9999999999, 99999999.99,
	 12345678901234567890.12345678901234567890, 99999999999999999999999999999999999999, 12345.67, true),
	(3, -32768, -2147483648, -9223372036854775808, 1, -1.5, -0.1, -0.000012300, -9999999999, -99999999.99,
	 -12345678901234567890.12345678901234567890, -99999999999999999999999999999999999999, -12345.67, NULL),
	(4, 1, 1, 1, 1, 0.1, 1e300, 1e40, 127, 1.27, 1, 127, 0.01, true),
	(5, 1, 1, 1, 1, 1e10, 1e-300, 128, 128, 1.28, -1, 128, -0.01, true),
	(6, 1, 1, 1, 1, 1e-10, 100, 1200, -128, -1.28, 0.5, -128, 1, true),
	(7, 1, 1, 1, 1, 1e7, 123456789012345680, -129, -129, -1.29, 0.1, -129, -1, true),
	(8, 1, 1, 1, 1, 'NaN', 'NaN', 255, 255, 2.55, 256, 255, 255, true),
	(9, 1, 1, 1, 1, 'Infinity', 'Infinity', 256, 256, 2.56, 256, 256, 256, true),
	(10, 1, 1, 1, 1, '-Infinity', '-Infinity', 0.10, 32768, -327.68, 256, -32768, 256, true),
	(11, 1, 1, 1, 1, 3.4028235e38, 1.7976931348623157e308, 123456789012345678901234567890.5, 1, 1, 1, 1, 1, true),
	(12, 1, 1, 1, 1, 1.17549435e-38, 4.9e-324, 1e-30, 1, 1, 1, 1, 1, true),
	(13, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE numbers SET i4 = i4 / 2, n = n * 3, m = m * 2;
DELETE FROM numbers WHERE id IN (2, 13);

INSERT INTO texts VALUES
	(1, '', '', '', '', '', '', '', '', NULL, '1', '1', '00000000-0000-0000-0000-000000000000', ''),
	(2, E'a "quoted" \\ text\nwith\tcontrols \x01 and ü € 😀', 'varchar', '0123456789', 'c', 'abc', 'q', 'a name',
	 'CiText', '<a b="c">d &amp; e</a>', '{"b": 1,  "a": [1, 2.50, null], "b": 2}',
	 '{"b": 1, "aa": [1, 2.50, null], "a": {"x": "\u00fc"}}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\x00ff10ab'),
	(-3, repeat('x', 100), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '"text"', 'null', NULL, '\x01'),
	(9223372036854775807, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '[]', '{}', NULL, '\xffff');
UPDATE texts SET t = t || '.', v10 = 'short' WHERE id < 3;
DELETE FROM texts WHERE id > 1;

SET TimeZone = 'America/New_York';
INSERT INTO times VALUES
	(1, '1970-01-01', '00:00', '00:00', '00:00', '00:00', '00:00+00', '00:00+00', '00:00+00',
	 '1970-01-01', '1970-01-01', '1970-01-01', '1970-01-01',
	 '1970-01-01 00:00+00', '1970-01-01 00:00+00', '1970-01-01 00:00+00', '1970-01-01 00:00+00', '0', '0'),
	(2, '2024-02-29', '23:59:59.999999', '12:34:56', '12:34:56.789', '12:34:56.7', '12:34:56.789012+05:30', '01:02:03-08', '01:02:03.4+01',
	 '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.7891',
	 '2024-02-29 12:34:56.789012+05:30', '2024-02-29 12:34:56Z', '2024-02-29 12:34:56.78+00', '2024-02-29 12:34:56.7+00',
	 '1 year 2 mons 3 days 04:05:06.789012', '-1 day 02:03:04'),
	(3, '1969-12-31', '00:00:00.000001', '00:00:01', '00:00:00.001', '01:00:00.1', '23:59:59.999999-14:59', '12:00+12', '12:00:00.12+00',
	 '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59', '1969-12-31 23:59:59.999', '1969-12-31 23:59:59.9999',
	 '1969-12-31 23:59:59.999999+00', '1969-12-31 23:59:59+00', '1969-12-31 23:59:59.999+00', '1969-12-31 23:59:59.9999+00',
	 '-1 year -2 mons +3 days -04:05:06.789012', '1 mon'),
	(4, '0001-01-01', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 '0001-01-01', '0001-01-01', '0001-01-01', '0001-01-01',
	 '0001-01-01 00:00+00', '0001-01-01 00:00+00', '0001-01-01 00:00+00', '0001-01-01 00:00+00', '178000000 years', '999:59:59'),
	(5, '9999-12-31', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 '9999-12-31 23:59:59', '9999-12-31', '9999-12-31', '9999-12-31',
	 '9999-12-31 00:00+00', '9999-12-31 00:00+00', '9999-12-31 00:00+00', '9999-12-31 00:00+00', '-1 us', '1.5 seconds'),
	(6, '12345-06-07', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 '12345-06-07', NULL, NULL, NULL, '12345-06-07 00:00+00', NULL, NULL, NULL, '0.1 seconds', NULL),
	(7, '0044-03-15 BC', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 '0044-03-15 BC', NULL, NULL, NULL, '0044-03-15 00:00+00 BC', NULL, NULL, NULL, '3 days', NULL),
	(8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE times SET ts = ts + '1 hour', tsz = tsz + '1 hour';
DELETE FROM times WHERE id = 2;

INSERT INTO others VALUES
	(1, '1', '10000000', '000000000001', '1', '10', '10.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
	 '(1.5,-2)', 'very happy', 1.5, 7, 'short', '"a"=>"1", "b"=>NULL, "q\"c"=>"x\\y"', 'top.middle.leaf',
	 '[1,5)', '[1,5]', '[1.50,2]', '[2024-01-01,2024-02-01)', '[2024-01-01 12:00,2024-02-01 13:00:00.5)',
	 '[2024-01-01 12:00+00,infinity)', 'the:1A quick:2 fox:3B'),
	(2, '0', '00000001', '111100001111', '', '00000000001111111111', '::1/64', '2001:db8::/32', NULL, NULL,
	 '(0,0)', 'sad', -0.001, 1, '', '', '', 'empty', '(,)', '(,1)', '(,2024-01-01]', 'empty', '(,)', ''),
	(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 NULL, NULL, NULL, NULL, NULL, NULL),
	(4, '1', '00000000', '000000000000', '1010101010101010101010101', '0', '10.0.0.0/8', NULL, NULL, NULL,
	 '(1e300,-1e-300)', 'ok', 0, 2, 'x', 'k=>v', 'a', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE others SET e = 'ok', p = '(3,4)' WHERE id < 3;
DELETE FROM others;

INSERT INTO unknowns VALUES
	(1, 'quick & fox', '16/B374D848', '(1,"a b")', '{[1,3),[5,7)}', '{[2024-01-01,2024-02-01)}', 'a.*.b', '123', '123456789012',
	 'pg_class', '(1,2)', '$.a[*]', '10:20:10,14', '10:20:10,14', '1 2', '3 4', 'cursor'),
	(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE unknowns SET l = '0/0' WHERE id = 1;
DELETE FROM unknowns;

INSERT INTO geometry VALUES
	(1, '(1,2),(3,4)', '[(1,2),(3,4)]', '[(1,2),(3,4),(5,6)]', '((0,0),(1,0),(1,1))', '<(1,2),3>', '{1,2,3}'),
	(2, '(0,0),(0,0)', '[(0,0),(0,0)]', '((1,2),(3,4),(5,6))', '((0,0))', '<(0,0),0>', '{0,1,0}'),
	(3, NULL, NULL, NULL, NULL, NULL, NULL);

INSERT INTO lists VALUES
	(1, '{1,NULL,-3}', '{1,NULL,-3}', '{1,NULL,9223372036854775807}', '{1,NULL,3}', '{1,NULL,0.1}', '{1,NULL,0.1}',
	 '{1.50,NULL,12345678901234567890}', '{1.50,NULL,-1}', '{t,NULL,f}',
	 '{a,NULL,"b \"c\" \\",""}', '{a,NULL}', '{a,NULL}', '{A,NULL}',
	 '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}', '{"\\x00ff",NULL}',
	 ARRAY['{"a":  1}', NULL]::json[], ARRAY['{"a":  1}', NULL]::jsonb[],
	 '{2024-02-29,NULL,1969-12-31}', '{12:34:56.789012,NULL}', '{12:34:56.789+05:30,NULL}',
	 '{2024-02-29 12:34:56.789012,NULL}', '{2024-02-29 12:34:56.789,NULL}', '{2024-02-29 12:34:56.789012+00,NULL}',
	 '{10.0.0.1,NULL,::1/64}', '{10.0.0.0/8,NULL}', '{08:00:2b:01:02:03,NULL}', '{"[1,5)",NULL}',
	 '{"[2024-01-01,2024-01-02)",NULL}', '{"[2024-01-01 00:00+00,2024-01-02 00:00+00)",NULL}',
	 '{sad,NULL,"very happy"}', ARRAY['a=>1', NULL]::hstore[], '{a.b,c}', '{10000000,NULL}'),
	(2, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
	 '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', NULL, '{}'),
	(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE lists SET i4 = i4 || 7 WHERE id = 1;
DELETE FROM lists;

INSERT INTO unknown_lists VALUES
	(1, '{1.50,NULL}', '{a,NULL}', '{1 day,NULL}', '{101,NULL}', '{<a/>,NULL}', '{"(1,2)",NULL}', '{(1,2),(3,4)}',
	 '{1.5,NULL}', '{"(1,a)",NULL}', '{"{[1,3)}",NULL}', '{"''a'' & ''b''",NULL}'),
	(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

INSERT INTO limits (id, m) VALUES (1, '92233720368547758.07'), (2, '-90071992547409.93');
INSERT INTO limits (id, n_2) VALUES (3, 12345);
INSERT INTO limits (id, e, lt, b8, dp, r, mr, q) VALUES
	(4, '{sad,ok}', '{}', '{10000000}', '{1.5}', '{"(1,a)"}', '{"{[1,3)}"}', '{"''a'' & ''b''"}');
INSERT INTO limits (id, vb, v1) VALUES (5, '1', '1'), (6, '0000', '0');
INSERT INTO limits (id, i, t2, by) VALUES (7, '{{1,2},{3,4}}', '{{a,b},{c,NULL}}', '{{"\\x01"},{"\\x02"}}');
INSERT INTO limits (id, f) VALUES (8, '{NaN,Infinity}');
INSERT INTO limits (id, ts, tz) VALUES
	(9, '294246-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00'),
	(10, '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC'),
	(11, '294276-12-31 23:59:59.999999', NULL);
INSERT INTO limits (id, d) VALUES (12, '5874897-12-31'), (13, '4713-01-01 BC'), (14, 'infinity'), (15, '-infinity');
INSERT INTO limits (id, ts, ts3, tz, tz3) VALUES
	(16, 'infinity', 'infinity', 'infinity', 'infinity'), (17, '-infinity', '-infinity', '-infinity', '-infinity');
INSERT INTO limits (id, n) VALUES (18, 'NaN'), (19, 'Infinity');
INSERT INTO limits (id, n2) VALUES (20, 'NaN');
INSERT INTO limits (id, nn) VALUES (21, '{NaN,1}');
INSERT INTO limits (id, dn, tsn, tzn) VALUES (22, '{infinity}', '{infinity}', '{infinity}');
INSERT INTO limits (id, t, ttz) VALUES (23, '24:00:00', '24:00:00+00'), (24, NULL, '24:00:00+01');
INSERT INTO limits (id, o) VALUES (25, '4000000000');
INSERT INTO limits (id, h) VALUES (26, 'first=>1, b=>2, longer=>3, "ä"=>NULL');
RESET TimeZone;

INSERT INTO "Quoted ""Table" VALUES ('a', 1), ('b "x" \ é', 2);
UPDATE "Quoted ""Table" SET "a ""b"" é" = 6;
UPDATE "Quoted ""Table" SET "key.2" = 3 WHERE "key.2" = 2;
DELETE FROM "Quoted ""Table";

INSERT INTO numeric_keys VALUES (1.50, 2.5, '2024-02-29', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'x', 1);
UPDATE numeric_keys SET v = 2;
UPDATE numeric_keys SET n = 1.500;
UPDATE numeric_keys SET n = 2;
DELETE FROM numeric_keys;

INSERT INTO computed VALUES (1, 21, DEFAULT, 'x');
UPDATE computed SET a = 22;
DELETE FROM computed;

INSERT INTO by_index VALUES (1, 'b', 1);
UPDATE by_index SET v = 2;
UPDATE by_index SET a = 2;
DELETE FROM by_index;

INSERT INTO large VALUES (1, 1, (SELECT string_agg(sha256(i::text::bytea)::text, '') FROM generate_series(1, 300) AS i));
UPDATE large SET small = 2;
DELETE FROM large;

-- Several statements in one transaction, savepoints, and what is rolled back.
BEGIN;
INSERT INTO altered VALUES (1, 1, 'gone', 'b'), (2, 2, 'gone', 'b');
UPDATE altered SET a = a + 1;
SAVEPOINT s;
INSERT INTO altered VALUES (3, 3, 'never', 'b');
ROLLBACK TO s;
SAVEPOINT s2;
DELETE FROM altered WHERE id = 2;
RELEASE s2;
INSERT INTO altered VALUES (2, 5, 'back', 'b');
COMMIT;
BEGIN;
INSERT INTO altered VALUES (4, 4, 'never', 'b');
ROLLBACK;
-- The key of one becomes that of the other.
BEGIN;
UPDATE altered SET id = id + 10;
UPDATE altered SET id = id - 9;
COMMIT;
INSERT INTO altered VALUES (2, 9, 'conflict', 'c') ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b;
TRUNCATE altered;

ALTER TABLE altered ADD COLUMN added numeric(5,1) DEFAULT 1.5;
INSERT INTO altered VALUES (1, 1, 'gone', 'b', 2.5);
ALTER TABLE altered DROP COLUMN gone;
UPDATE altered SET a = 2;
ALTER TABLE altered RENAME COLUMN b TO renamed;
UPDATE altered SET a = 3;
ALTER TABLE altered ALTER COLUMN a TYPE text;
UPDATE altered SET a = '4';
DELETE FROM altered;

INSERT INTO parted VALUES (1, 'north', 1), (2, 'south', 2);
UPDATE parted SET v = v + 1;
DELETE FROM parted;

INSERT INTO identity.plain VALUES (1, 1, 'b', 'c'), (2, 2, 'b', NULL);
UPDATE identity.plain SET a = 3 WHERE id = 1;
UPDATE identity.plain SET id = 5 WHERE id = 1;
DELETE FROM identity.plain;
INSERT INTO identity.toasted VALUES (1, 1, (SELECT string_agg(sha256(i::text::bytea)::text, '') FROM generate_series(1, 300) AS i));
UPDATE identity.toasted SET small = 2;
UPDATE identity.toasted SET toasted = 'short';
DELETE FROM identity.toasted;

INSERT INTO last_table VALUES (1);
