# What later versions of PostgreSQL let a captured table have: generated columns
# that are not stored, keys that are counted differently.  The earlier ones run
# what they can of it.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('columns', conf => "max_worker_processes = 20\n");
my $version = $node->pg_version;

sub has
{
	my ($major) = @_;
	return $version >= $major;
}

sub fails
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	return $status == 0 ? 'it worked' : $err;
}

# ---- generated columns, stored and (18) virtual --------------------------------------

# The events of a topic without its name, one a line
sub told
{
	my ($topic) = @_;
	return value($node, "SELECT concat_ws(' ', substring(type, '[a-z]+\$'), key, coalesce(payload::text, 'none'))"
		. " FROM eo.events WHERE topic = '$topic' ORDER BY seq");
}

sub table_of
{
	my ($name, $kind) = @_;
	return <<EOS;
CREATE TABLE $name (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) $kind, v text,
	loud text GENERATED ALWAYS AS (upper(v)) $kind, price numeric(6,2) GENERATED ALWAYS AS (n::numeric / 3) $kind);
EOS
}

my %captures = (
	fact => '',
	delta => "mode => 'delta'",
	changelog => "mode => 'changelog'",
	filtered => "when_clause => 'twice > 10 AND loud IS NOT NULL'",
	keyed => "key_columns => '{twice}'",
	chosen => "columns => '{loud}'");

sub change_rows
{
	my ($name, $arguments) = @_;
	my $snapshot = $arguments =~ /delta/ ? '' : "SELECT eo.snapshot('$name');";
	value($node, <<EOS);
SELECT eo.capture('$name', '$name'@{[ $arguments && ", $arguments" ]});
INSERT INTO $name VALUES (1, 1, DEFAULT, 'a'), (2, 6, DEFAULT, 'b'), (3, 7, DEFAULT, repeat('long', 5000));
UPDATE $name SET n = n + 5;
UPDATE $name SET n = 2 WHERE id = 2;
UPDATE $name SET v = NULL WHERE id = 1;
DELETE FROM $name WHERE id = 3;
INSERT INTO $name VALUES (4, 8, DEFAULT, 'd'), (5, 0, DEFAULT, 'e');
$snapshot
EOS
	$node->poll_query_until('postgres',
		"SELECT state = 'done' FROM eo.snapshots WHERE relation = '$name'::regclass") or die "no snapshot of $name"
	  if $snapshot;
	value($node, "TRUNCATE $name");
	return told($name);
}

my @kinds = has(18) ? qw(stored virtual) : qw(stored);
foreach my $case (sort keys %captures)
{
	my %events;
	foreach my $kind (@kinds)
	{
		value($node, table_of("${case}_$kind", $kind));
		$events{$kind} = change_rows("${case}_$kind", $captures{$case});
	}
	cmp_ok(length $events{stored}, '>', 200, "there are events ($case)");
	is($events{virtual} // $events{stored}, $events{stored}, "virtual columns are told as stored ones ($case)");
}

# What is told is what there is.
foreach my $kind (@kinds)
{
	value($node, table_of("same_$kind", $kind) . table_of("copy_$kind", $kind) . <<EOS);
SELECT eo.capture('same_$kind', 'same_$kind');
INSERT INTO same_$kind VALUES (1, 1, DEFAULT, 'a'), (2, NULL, DEFAULT, NULL);
EOS
	is(value($node, "SELECT count(*) FROM same_$kind AS t JOIN eo.events AS e ON payload = to_jsonb(t) WHERE topic = 'same_$kind'"),
		2, "a payload is what to_jsonb() gives ($kind)");
	value($node, "SELECT eo.apply_change('copy_$kind', to_jsonb(e)) FROM eo.events AS e WHERE topic = 'same_$kind' ORDER BY seq");
	is(value($node, "SELECT count(*) FROM same_$kind AS a JOIN copy_$kind AS b ON to_jsonb(a) = to_jsonb(b)"),
		2, "and can be applied to such a table ($kind)");
	value($node, <<EOS);
CREATE TABLE bezium_$kind (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (100 / n) $kind);
SELECT eo.capture('bezium_$kind', 'bezium_$kind', format => 'debezium');
INSERT INTO bezium_$kind VALUES (1, 1);
EOS
	is(value($node, "SELECT payload->'after' FROM eo.events WHERE topic = 'bezium_$kind'"),
		'{"n": 1, "id": 1}', "Debezium has none of them ($kind)");
}

if (has(18))
{
	value($node, "INSERT INTO bezium_virtual VALUES (2, 0)");
	value($node, <<'EOS');
CREATE TABLE failing (id int PRIMARY KEY, n int, share int GENERATED ALWAYS AS (100 / n));
SELECT eo.capture('failing');
EOS
	like(fails('INSERT INTO failing VALUES (1, 0)'), qr/division by zero.*capture of table "public.failing"/s,
		'a virtual column that cannot be computed fails the statement, which says where');
	value($node, "SELECT eo.uncapture('failing'); SELECT eo.capture('failing', exclude => '{share}');"
		. ' INSERT INTO failing VALUES (1, 0)');
	is(told('public.failing'), 'inserted 1 {"n": 0, "id": 1}', 'unless it is excluded');
	value($node, "ALTER TABLE same_virtual ALTER twice SET EXPRESSION AS (n * 3); UPDATE same_virtual SET n = 5 WHERE id = 1");
	is(value($node, "SELECT payload->'twice' FROM eo.events WHERE topic = 'same_virtual' ORDER BY seq DESC LIMIT 1"),
		15, 'another expression is told from then on');

	value($node, <<'EOS');
CREATE TABLE parts (id int, n int, twice int GENERATED ALWAYS AS (n * 2), PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 (n int, twice int GENERATED ALWAYS AS (n * 2), gone int, id int NOT NULL);
ALTER TABLE parts_1 DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (10);
SELECT eo.capture('parts', 'parts', when_clause => 'twice > 2');
CREATE TABLE parts_2 PARTITION OF parts (twice GENERATED ALWAYS AS (n * 20)) FOR VALUES FROM (10) TO (20);
INSERT INTO parts VALUES (1, 1), (2, 2), (11, 1);
TRUNCATE parts_2;
EOS
	is(told('parts'), <<'EOS' =~ s/\n\z//r, 'partitions have expressions of their own');
inserted 2 {"n": 2, "id": 2, "twice": 4}
inserted 11 {"n": 1, "id": 11, "twice": 20}
deleted 11 {"n": 1, "id": 11, "twice": 20}
EOS
	value($node, "CREATE TABLE dedup (id text, double text GENERATED ALWAYS AS (id || id))");
	like(fails("SELECT eo.deduplicate_table('dedup', 'trigger', 'double')"), qr/is generated and cannot be the message id/,
		'a virtual column is no message id');
}

# ---- 18: keys that PostgreSQL counts differently ---------------------------------------

if (has(18))
{
	value($node, <<'EOS');
CREATE TABLE rented (room int4range, during tstzrange, who text, PRIMARY KEY (room, during WITHOUT OVERLAPS));
CREATE TABLE copied (LIKE rented INCLUDING ALL);
SELECT eo.capture('rented', 'rented');
SET TimeZone = 'Asia/Tokyo';
INSERT INTO rented VALUES ('[1,2)', '[2026-01-01 00:00Z, 2026-02-01 00:00Z)', 'a'), ('[1,2)', '[2026-02-01 00:00Z,)', 'b');
SET TimeZone = 'Europe/Berlin';
UPDATE rented SET who = 'c' WHERE who = 'b';
DELETE FROM rented WHERE who = 'a';
EOS
	is(value($node, "SELECT string_agg(substring(type, '[a-z]+\$') || ' ' || key, E'\\n' ORDER BY seq) FROM eo.events WHERE topic = 'rented'"),
		<<'EOS' =~ s/\n\z//r, 'a key WITHOUT OVERLAPS is a key, the same in every time zone');
inserted ["[1,2)", "[\"2026-01-01 00:00:00+00\",\"2026-02-01 00:00:00+00\")"]
inserted ["[1,2)", "[\"2026-02-01 00:00:00+00\",)"]
updated ["[1,2)", "[\"2026-02-01 00:00:00+00\",)"]
deleted ["[1,2)", "[\"2026-01-01 00:00:00+00\",\"2026-02-01 00:00:00+00\")"]
EOS
	like(fails("SELECT eo.apply_change('copied', to_jsonb(e)) FROM eo.events AS e WHERE topic = 'rented'"),
		qr/table "copied" has no key.*WITHOUT OVERLAPS/s, 'but none to apply changes by');

	value($node, <<'EOS');
CREATE TABLE lax (a int, b int NOT NULL);
INSERT INTO lax VALUES (NULL, 1);
ALTER TABLE lax ADD CONSTRAINT a_there NOT NULL a NOT VALID;
CREATE UNIQUE INDEX ON lax (a);
EOS
	like(fails("SELECT eo.capture('lax')"), qr/captured table "lax" has no key/,
		'a column whose NOT NULL was not validated is no key');
	value($node, "UPDATE lax SET a = 2; ALTER TABLE lax VALIDATE CONSTRAINT a_there; SELECT eo.capture('lax'); UPDATE lax SET b = 3");
	is(told('public.lax'), 'updated 2 {"a": 2, "b": 3}', 'a validated one is');

	value($node, <<'EOS');
CREATE TABLE sevens (id uuid DEFAULT uuidv7() PRIMARY KEY);
SELECT eo.capture('sevens', 'sevens');
INSERT INTO sevens DEFAULT VALUES;
EOS
	is(value($node, "SELECT count(*) FROM eo.events JOIN sevens ON key = id::text"), 1, 'uuidv7() makes keys');
}
$node->stop;
done_testing();
