-- Tables whose changes the connector and the encoder must tell alike.  All have
-- REPLICA IDENTITY FULL but those of the schema "identity".

CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION ltree;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy');
CREATE TYPE pair AS (first int, second text);
CREATE DOMAIN price AS numeric(8,3);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN short_text AS varchar(20);

CREATE TABLE numbers (
	id int PRIMARY KEY,
	i2 smallint, i4 int NOT NULL, i8 bigint, o oid,
	f4 real, f8 double precision,
	n numeric, n0 numeric(10), n2 numeric(10,2), n20 numeric(40,20), big numeric(38,0),
	m money, b boolean
);

CREATE TABLE texts (
	id bigint PRIMARY KEY,
	t text, v varchar, v10 varchar(10), c char, c5 char(5), qc "char", n name,
	ci citext, x xml, j json, jb jsonb, u uuid, b bytea NOT NULL DEFAULT ''
);

CREATE TABLE times (
	id int PRIMARY KEY,
	d date,
	t time, t0 time(0), t3 time(3), t6 time(6),
	tz timetz, tz0 timetz(0), tz3 timetz(3),
	ts timestamp, ts0 timestamp(0), ts3 timestamp(3), ts4 timestamp(4),
	tsz timestamptz, tsz0 timestamptz(0), tsz3 timestamptz(3), tsz4 timestamptz(4),
	i interval, i0 interval(0)
);

CREATE TABLE others (
	id int PRIMARY KEY,
	b1 bit, b8 bit(8), b12 bit(12), vb varbit, vb20 varbit(20),
	a inet, c cidr, m macaddr, m8 macaddr8,
	p point, e mood, dp price, di positive, dt short_text, h hstore, lt ltree,
	r4 int4range, r8 int8range, rn numrange, rd daterange, rt tsrange, rz tstzrange,
	v tsvector
);

-- Types that the connector has no schema for.
CREATE TABLE unknowns (
	id int PRIMARY KEY,
	q tsquery, l pg_lsn, row pair, mr int4multirange, md datemultirange,
	lq lquery, x xid, x8 xid8, rc regclass, ti tid, jp jsonpath, s pg_snapshot, tr txid_snapshot,
	iv int2vector, ov oidvector, rf refcursor
);

CREATE TABLE geometry (
	id int PRIMARY KEY,
	b box, l lseg, p path, g polygon, c circle, li line
);

CREATE TABLE lists (
	id int PRIMARY KEY,
	i2 smallint[], i4 int[], i8 bigint[], o oid[], f4 real[], f8 double precision[],
	n numeric[], n2 numeric(10,2)[], b boolean[],
	t text[], v varchar(10)[], c char(3)[], ci citext[], u uuid[], by bytea[],
	j json[], jb jsonb[], d date[], ti time[], tz timetz[], ts timestamp[], ts3 timestamp(3)[],
	tsz timestamptz[], a inet[], ci2 cidr[], ma macaddr[], r4 int4range[], rt tsrange[], rz tstzrange[],
	e mood[], h hstore[], lt ltree[], b8 bit(8)[]
);

-- Lists that the connector has no schema for.
CREATE TABLE unknown_lists (
	id int PRIMARY KEY,
	m money[], n name[], i interval[], vb varbit[], x xml[], p point[], bx box[],
	dp price[], r pair[], mr int4multirange[], q tsquery[]
);

-- Values at the limits, and such that the connector does not tell right.
CREATE TABLE limits (
	id int PRIMARY KEY,
	d date, ts timestamp, ts3 timestamp(3), tz timestamptz, tz3 timestamptz(3), t time, ttz timetz,
	n numeric, n2 numeric(10,2), n_2 numeric(5,-2), m money, o oid, vb varbit(4), v1 varbit(1),
	i int[], t2 text[], f double precision[], e mood[], lt ltree[], b8 bit(8)[],
	nn numeric[], dn date[], tsn timestamp[], tzn timestamptz[], by bytea[],
	dp price[], r pair[], mr int4multirange[], q tsquery[], h hstore
);

CREATE TABLE "Quoted ""Table" (
	"Key Column" text,
	"key.2" int,
	"a ""b"" é" int DEFAULT 5 NOT NULL,
	PRIMARY KEY ("key.2", "Key Column")
);

CREATE TABLE numeric_keys (n numeric, n2 numeric(6,2), d date, u uuid, s text, PRIMARY KEY (u, s, n2, n, d), v int);

CREATE TABLE computed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, note text);

CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, v int);
CREATE UNIQUE INDEX ON by_index (b, a);

CREATE TABLE large (id int PRIMARY KEY, small int, toasted text);

CREATE TABLE altered (id int PRIMARY KEY, a int, gone text, b text);

CREATE TABLE parted (id int, region text, v int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parted_north PARTITION OF parted FOR VALUES IN ('north');
CREATE TABLE parted_south PARTITION OF parted FOR VALUES IN ('south');

CREATE SCHEMA identity;
CREATE TABLE identity.plain (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL, c text);
CREATE TABLE identity.toasted (id int PRIMARY KEY, small int, toasted text);

CREATE TABLE last_table (id int PRIMARY KEY);
