# A state store: what eo.capture() puts on a topic, eo.apply_change() makes a
# table of again, whatever is delivered twice, in another order of the keys, by
# several at once, or before a crash; and the table can be emptied, dropped, and
# rebuilt with another shape.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{EO_SEED} // int(time() * 1000) % 1_000_000;
srand($seed);
diag("EO_SEED=$seed");

use constant STATEMENTS => 500;    # of each of three sessions

my $node = new_server('store', conf => <<EOC);
eo_outbox.retention = 1h
deadlock_timeout = 100ms
log_statement = none
EOC

# ---- the source, and sessions that change it ---------------------------------------

value($node, <<'EOS');
CREATE TYPE mood AS ENUM ('calm', 'angry');
CREATE TABLE item (id int PRIMARY KEY, name text DEFAULT 'unnamed', price numeric, tags text[], at timestamptz,
	mood mood, doc jsonb, raw bytea, span int4range, double numeric GENERATED ALWAYS AS (price * 2) STORED);
CREATE TABLE pair (b text, a int, v int, PRIMARY KEY (a, b));
SELECT eo.capture('item', mode => 'changelog');
SELECT eo.capture('pair');

-- One statement, chosen by chance.
CREATE FUNCTION change_item(truncates boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	k int := (random() * 40)::int;
	dice float := random();
BEGIN
	IF dice < 0.4 THEN
		INSERT INTO item VALUES (k, 'name ' || random(), random(), ARRAY['a', NULL, 'c"' || k], clock_timestamp(), 'calm', '{"a": [1, null]}', '\x00ff', '[1,5)')
			ON CONFLICT (id) DO UPDATE SET price = EXCLUDED.price, name = NULL, at = 'infinity', mood = 'angry';
	ELSIF dice < 0.6 THEN
		UPDATE item SET price = CASE WHEN random() < 0.2 THEN 'NaN' ELSE random() END, span = 'empty' WHERE id IN (k, k + 1);
	ELSIF dice < 0.75 THEN
		DELETE FROM item WHERE id = k;
	ELSIF dice < 0.9 THEN
		UPDATE item SET id = k + 1 WHERE id = k AND NOT EXISTS (SELECT FROM item WHERE id = k + 1);
	ELSIF dice < 0.98 OR NOT truncates THEN
		DELETE FROM item WHERE id % 10 = k % 10;
	ELSE
		TRUNCATE item;
	END IF;
END $$;
CREATE FUNCTION change_pair(truncates boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	k int := (random() * 6)::int;
	t text := chr(34 + (random() * 6)::int);
	dice float := random();
BEGIN
	IF dice < 0.5 THEN
		INSERT INTO pair VALUES (t, k, 1) ON CONFLICT (a, b) DO UPDATE SET v = pair.v + 1;
	ELSIF dice < 0.7 THEN
		DELETE FROM pair WHERE (a, b) = (k, t);
	ELSIF dice < 0.98 OR NOT truncates THEN
		UPDATE pair SET a = k + 1 WHERE (a, b) = (k, t) AND NOT EXISTS (SELECT FROM pair WHERE (a, b) = (k + 1, t));
	ELSE
		TRUNCATE pair;
	END IF;
END $$;
CREATE PROCEDURE churn(n int, seed float, truncates boolean DEFAULT true) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. n LOOP
		BEGIN
			PERFORM change_item(truncates), change_pair(truncates);
			IF random() < 0.1 THEN RAISE 'rolled back'; END IF;
		EXCEPTION WHEN raise_exception OR unique_violation OR deadlock_detected THEN
			NULL;
		END;
		IF random() < 0.3 THEN COMMIT; ELSIF random() < 0.05 THEN ROLLBACK; END IF;
	END LOOP;
END $$;

-- A digest of all rows.
CREATE FUNCTION digest(tab regclass, columns text DEFAULT '*') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT count(*) || md5(coalesce(string_agg(r::text, chr(10) ORDER BY r::text COLLATE "C"), %L))
		FROM (SELECT to_jsonb(t) FROM (SELECT %s FROM %s) AS t) AS s (r)', '', columns, tab) INTO result;
	RETURN result;
END $$;

-- The loop of a consumer: returns when nothing comes any more.
CREATE PROCEDURE follow(subscription text, target regclass, at_once int DEFAULT 100) LANGUAGE plpgsql AS $$
DECLARE
	e eo.event;
	last bigint;
BEGIN
	LOOP
		last := NULL;
		FOR e IN SELECT * FROM eo.fetch(subscription, at_once) LOOP
			PERFORM eo.apply_change(target, to_jsonb(e));
			last := e.seq;
		END LOOP;
		EXIT WHEN last IS NULL;
		PERFORM eo.ack(subscription, last);
		COMMIT;
	END LOOP;
END $$;

-- Events of a topic with keys in another order and some twice.  The order of
-- each key stays.
CREATE FUNCTION shuffled(which text, salt text, twice float DEFAULT 0) RETURNS SETOF jsonb LANGUAGE sql AS $$
	SELECT to_jsonb(e) FROM eo.events AS e, generate_series(1, CASE WHEN random() < twice THEN 2 ELSE 1 END)
	WHERE topic = which ORDER BY hashtext(coalesce(key, '') || salt), seq
$$;
-- Applies them, each in a transaction of its own if so asked.
CREATE PROCEDURE apply_shuffled(which text, target regclass, salt text, twice float DEFAULT 0, one_by_one boolean DEFAULT false) LANGUAGE plpgsql AS $$
DECLARE
	event jsonb;
	events jsonb[] := ARRAY(SELECT shuffled(which, salt, twice));
BEGIN
	FOREACH event IN ARRAY events LOOP
		PERFORM eo.apply_change(target, event);
		IF one_by_one THEN COMMIT; END IF;
	END LOOP;
END $$;
EOS

# Runs a script in several sessions at once.
sub side_by_side
{
	my (@scripts) = @_;
	my @runs = map {
		IPC::Run::start(
			[ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $_ ],
			'<', \undef, '2>', \my $errors)
	} @scripts;

	$_->finish or die "a session failed" foreach @runs;
	return;
}

sub digest
{
	my ($table, $columns) = @_;
	return value($node, "SELECT digest('$table', '" . ($columns // '*') . "')");
}

# Applies a topic to a table with one of the procedures.
sub call
{
	value($node, "CALL $_[0]");
	return;
}

my %shape = (
	'item' => "(LIKE item INCLUDING ALL)",
	'pair' => "(LIKE pair INCLUDING ALL)");

sub create_stores
{
	value($node, "CREATE TABLE ${_}_store $shape{$_}") foreach sort keys %shape;
	return;
}

# Both tables against their sources.
sub same
{
	my ($what) = @_;
	is(join(' ', map { digest("${_}_store") } qw(item pair)), join(' ', map { digest($_) } qw(item pair)), $what);
	return;
}

value($node, "SELECT eo.subscribe('${_}s', '{public.$_}', start_at => 'beginning')") foreach qw(item pair);
side_by_side(map { "CALL churn(@{[STATEMENTS]}, @{[rand()]})" } 1 .. 3);
# so that there is something to compare
call("churn(60, @{[rand()]}, false)");
my $count = value($node, "SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM eo.events GROUP BY topic) AS t");
like($count, qr/^\d{3,} \d{3,}$/, "events: $count");
my $types = value($node, "SELECT string_agg(DISTINCT type, ' ' ORDER BY type) FROM eo.events WHERE topic = 'public.pair'");
is($types, join(' ', map { "public.pair.$_" } qw(deleted inserted truncated updated)), 'of every kind');
isnt(value($node, 'SELECT count(*) FROM item'), '0', 'the source has rows');

# ---- following, again, and from the beginning -----------------------------------------

create_stores();
call("follow('${_}s', '${_}_store')") foreach qw(item pair);
same('a store is equal to its source');
value($node, "SELECT eo.seek('${_}s', 0)") foreach qw(item pair);
call("follow('${_}s', '${_}_store', 7)") foreach qw(item pair);
same('and still is when all of it has come once more');

for my $round (1 .. 5)
{
	my $part = rand();

	value($node, <<"EOS") foreach qw(item pair);
SELECT eo.apply_change('${_}_store', to_jsonb(e)) FROM eo.events AS e, generate_series(1, 2)
WHERE topic = 'public.$_' AND seq <= $part * (SELECT max(seq) FROM eo.events) ORDER BY seq
EOS
	call("apply_shuffled('public.$_', '${_}_store', '$round', 0.3)") foreach qw(item pair);
}
same('prefixes twice, and keys in any order, change nothing');

value($node, 'TRUNCATE item_store; DELETE FROM pair_store');
isnt(digest('item_store'), digest('item'), 'an emptied store is not equal');
value($node, "SELECT eo.seek('${_}s', 0)") foreach qw(item pair);
call("follow('${_}s', '${_}_store')") foreach qw(item pair);
same('emptied, it is rebuilt');

value($node, 'TRUNCATE item_store; DELETE FROM pair_store');
call("apply_shuffled('public.$_', '${_}_store', 'x', 0.3)") foreach qw(item pair);
same('also by keys in any order and events that come twice');

value($node, 'DROP TABLE item_store, pair_store');
create_stores();
value($node, "SELECT eo.seek('${_}s', 0)") foreach qw(item pair);
call("follow('${_}s', '${_}_store')") foreach qw(item pair);
same('dropped, it is rebuilt');
is(value($node, 'SELECT count(*) FROM eo.applied AS a WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = a.target)'),
	'0', 'nothing is kept of the dropped ones');

value($node, 'DROP TABLE item_store, pair_store');
create_stores();
call("apply_shuffled('public.$_', '${_}_store', 'y', 0.3)") foreach qw(item pair);
same('also by keys in any order');

# ---- several at once ------------------------------------------------------------------

foreach my $emptied (0, 1)
{
	value($node, 'DROP TABLE item_store, pair_store');
	create_stores();
	if ($emptied)
	{
		value($node, "SELECT eo.seek('${_}s', 0)") foreach qw(item pair);
		call("follow('${_}s', '${_}_store')") foreach qw(item pair);
		value($node, 'TRUNCATE item_store');
	}
	side_by_side(
		map {
			my $salt = "$emptied$_";
			map { "CALL apply_shuffled('public.$_', '${_}_store', '$salt', 0.1, true)" } qw(item pair)
		} 1 .. 3);
	same($emptied ? 'three at once rebuild it' : 'three at once build it');
}

# ---- a migration, while the source changes ---------------------------------------------

# A column renamed, one dropped, one of another type, one that is new, another key
# type, and another order.
value($node, <<'EOS');
CREATE TABLE item_v2 (title text, price_cents bigint GENERATED ALWAYS AS (round(nullif(price, 'NaN') * 100)) STORED, price numeric,
	id bigint PRIMARY KEY, source text NOT NULL DEFAULT 'shop', at text, mood text, tags jsonb);
SELECT eo.subscribe('migration', '{public.item}', start_at => 'beginning');
CREATE PROCEDURE migrate() LANGUAGE plpgsql AS $$
DECLARE
	e eo.event;
	last bigint;
BEGIN
	LOOP
		last := NULL;
		FOR e IN SELECT * FROM eo.fetch('migration', 50) LOOP
			e.payload := e.payload - 'name' || jsonb_build_object('title', e.payload -> 'name');
			PERFORM eo.apply_change('item_v2', to_jsonb(e));
			last := e.seq;
		END LOOP;
		EXIT WHEN last IS NULL;
		PERFORM eo.ack('migration', last);
		COMMIT;
	END LOOP;
END $$;
EOS
my $expected = 'id::bigint, name AS title, price, at, mood, to_jsonb(tags) AS tags';
my $actual = 'id, title, price, at::timestamptz, mood, tags';
side_by_side((map { "CALL churn(150, @{[rand()]})" } 1, 2), 'CALL migrate()', "CALL follow('items', 'item_store')");
call("churn(60, @{[rand()]}, false)");
call('migrate()');
is(digest('item_v2', $actual), digest('item', $expected), 'a table of a new shape is built beside the old one');
is(value($node, "SELECT count(*) FROM item_v2 WHERE source <> 'shop' OR price_cents IS DISTINCT FROM round(nullif(price, 'NaN') * 100)"),
	'0', 'with its own default and its generated column');
call("follow('${_}s', '${_}_store')") foreach qw(item pair);
same('the old one has followed, too');

# The source gets the new shape itself: events have it from the next one on.
value($node, <<'EOS');
ALTER TABLE item RENAME COLUMN name TO title;
ALTER TABLE item DROP COLUMN doc;
ALTER TABLE item ADD COLUMN stock int NOT NULL DEFAULT 3;
UPDATE item SET title = 'renamed ' || id WHERE id % 2 = 0;
INSERT INTO item (id, title) VALUES (1000, 'new');
EOS
value($node, 'CREATE TABLE item_v3 (LIKE item INCLUDING ALL)');
value($node, <<'EOS');
SELECT eo.apply_change('item_v3', CASE WHEN payload ? 'name'
	THEN jsonb_set(to_jsonb(e), '{payload}', payload || jsonb_build_object('title', payload -> 'name')) ELSE to_jsonb(e) END)
FROM eo.events AS e WHERE topic = 'public.item' ORDER BY seq
EOS
is(digest('item_v3'), digest('item'), 'a store of the new shape is rebuilt from events of both');

# ---- from the lines of a file, with the inbox, across a crash -----------------------------

my $path = subscribe_file($node, 'feed', topics => 'public.pair', start_at => 'beginning');
wait_published($node, 'feed', value($node, 'SELECT max(seq) FROM eo.events'));
my @lines = split /\n/, slurp_file($path);
ok(@lines > 100, scalar(@lines) . ' lines');

# What was received is known by its position.
sub statement_for
{
	my ($line, $target) = @_;
	return "SELECT eo.apply_change('$target', e) FROM (SELECT \$line\$$line\$line\$::jsonb) AS l (e)"
	  . " WHERE eo.receive_at('$target', e ->> 'source' || '/' || (e ->> 'topic'), (e ->> 'position')::bigint) = 'new';\n";
}

value($node, 'CREATE TABLE pair_file (LIKE pair INCLUDING ALL)');
my $some = int(@lines / 2);
value($node, join '', map { statement_for($_, 'pair_file') } @lines[ 0 .. $some ]);
my $stuck = session($node);
$stuck->query_safe('BEGIN;' . join '', map { statement_for($_, 'pair_file') } @lines[ $some + 1 .. $some + 20 ]);
kill_everything($node);
eval { $stuck->quit };
is(value($node, join('', map { statement_for($_, 'pair_file') } @lines) . 'SELECT 1;') =~ tr/\n//,
	@lines - $some - 1, 'after a crash, what was not committed is new, the rest a duplicate');
is(digest('pair_file'), digest('pair'), 'lines of a file make the table');
value($node, 'TRUNCATE pair_file; ' . join '', map { "SELECT eo.apply_change('pair_file', \$line\$$_\$line\$);\n" } @lines);
is(digest('pair_file'), digest('pair'), 'and rebuild it');

# ---- who meets at a key ------------------------------------------------------------------

value($node, 'CREATE TABLE duel (id int PRIMARY KEY, v int)');
value($node, <<'EOS');
CREATE FUNCTION put(seq int, v int) RETURNS text LANGUAGE sql AS
	$$ SELECT eo.apply_change('duel', jsonb_build_object('seq', seq, 'type', 'duel.updated', 'payload', jsonb_build_object('id', 1, 'v', v))) $$;
CREATE TABLE answer (what text, answer text);
EOS
my ($first, $second) = (session($node), session($node));
my $pid = $second->query_safe('SELECT pg_backend_pid()');

# The second comes while the first has not ended.
sub duel
{
	my ($what, $one, $two, $end, $answer, $v) = @_;

	$first->query_safe("BEGIN; SELECT put($one, $one)");
	send_query($second, "INSERT INTO answer SELECT '$what', put($two, $two)");
	wait_locked($node, $pid);
	$first->query_safe($end);
	wait_until("$what has ended", sub {
			value($node, "SELECT state FROM pg_stat_activity WHERE pid = $pid") =~ /^idle/;
		});
	is(value($node, "SELECT (SELECT answer FROM answer WHERE what = '$what'), (SELECT v FROM duel)"), "$answer|$v", $what);
	return;
}

duel('a newer one waits for the first of a key', 10, 11, 'COMMIT', 'updated', 11);
duel('an older one waits, and is stale', 21, 20, 'COMMIT', 'stale', 21);
duel('an older one waits, and counts after a rollback', 31, 30, 'ROLLBACK', 'updated', 30);
value($node, 'TRUNCATE duel');
duel('of two that rebuild, the older one is stale', 29, 28, 'COMMIT', 'stale', 29);

$second->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM duel');
value($node, 'SELECT put(40, 40)');
$second->query('SELECT put(41, 41)');
like($second->{stderr}, qr/could not serialize access.*\n.*DETAIL:  A transaction .* has recorded the same\./,
	'what a snapshot does not show is an error, as for any row');
$second->query('ROLLBACK');
$second->{stderr} = '';

# A truncation and events of the table exclude each other.
my $truncated = q{eo.apply_change('duel', '{"seq": 50, "type": "duel.truncated", "payload": {}}')};
$first->query_safe('BEGIN; SELECT put(45, 45)');
send_query($second, "INSERT INTO answer SELECT 'truncation', $truncated");
wait_locked($node, $pid);
$first->query_safe('COMMIT');
wait_until('the truncation has ended', sub { value($node, "SELECT count(*) FROM answer WHERE what = 'truncation'") eq '1' });
is(value($node, 'SELECT count(*) FROM duel'), '0', 'a truncation waits for older events, and takes their rows');
$first->query_safe("BEGIN; SELECT @{[$truncated =~ s/50/60/r]}");
send_query($second, "INSERT INTO answer SELECT 'late', put(55, 55)");
wait_locked($node, $pid);
$first->query_safe('COMMIT');
wait_until('the event has ended', sub { value($node, "SELECT count(*) FROM answer WHERE what = 'late'") eq '1' });
is(value($node, "SELECT answer, (SELECT count(*) FROM duel) FROM answer WHERE what = 'late'"), 'stale|0',
	'an older event waits for a truncation, and is stale');
$_->quit foreach $first, $second;

# ---- a dump takes along what was applied ---------------------------------------------------

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
my $applied = 'SELECT target, key, seq, deleted FROM eo.applied WHERE target IN (\'item_v3\'::regclass, \'pair_file\'::regclass) ORDER BY target::text, key COLLATE "C"';
my $truncations = 'SELECT target, seq FROM eo.applied_truncation ORDER BY target::text';
value($node, 'DROP TABLE item_v2');
command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
value($node, 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '-e', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
is(value($node, $applied, 'restored'), value($node, $applied), 'a restored database knows what was applied');
is(value($node, $truncations, 'restored'), value($node, $truncations), 'and what was truncated');
is(value($node, "SELECT eo.apply_change('pair_file', \$line\$$lines[-1]\$line\$)", 'restored'), 'stale',
	'an event that came before the dump is stale there');

$node->stop;
done_testing();
