# The generations that message ids are kept in: an id is recognised for at least
# its window, then its space is given back, and nobody waits for that.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $window = 2;    # seconds
my $calm = 4;      # seconds without a wake-up
my $node = new_log_server('retention', conf => <<EOC);
track_commit_timestamp = on
max_connections = 50
log_statement = none
EOC
my $dir = PostgreSQL::Test::Utils::tempdir("pgbench");

sub receive
{
	my ($consumer, $id) = @_;
	return value($node, "SELECT eo.receive('$consumer', '$id')");
}

# Polls a query until it answers 't'.
sub wait_sql
{
	my ($query) = @_;
	return $node->poll_query_until('postgres', $query);
}

# Bytes of the two tables of a class, indexes included.
sub bytes
{
	my ($class, $family) = @_;
	$family //= 'inbox';
	return "(SELECT sum(pg_relation_size(c.oid)) FROM pg_class AS c WHERE c.relname ~ '^${family}_${class}_[01]\$')";
}

sub emptied
{
	my ($what) = @_;
	return log_count($node, qr/eo_outbox empties table "eo\.$what/);
}

# The generation that is not filled.
sub older
{
	my ($class) = @_;
	return value($node, "SELECT 1 - current FROM eo.generation WHERE family = 0 AND class = $class");
}

# Starts clients that run a script for some seconds.
sub bench
{
	my ($clients, $seconds, $script) = @_;
	my $file = "$dir/" . ++$main::scripts;
	my $bench = { out => '', err => '' };

	append_to_file($file, $script);
	$bench->{run} = IPC::Run::start(
		[
			'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $seconds, '-f', $file,
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'>', \$bench->{out}, '2>', \$bench->{err});
	return $bench;
}

our $scripts = 0;

value($node, <<'EOS');
-- What happened because of an id, and when its receiver was told to go on.
CREATE TABLE test.effect (owner text, id text, at timestamptz);

-- Ids that come again and again within a few seconds.
CREATE FUNCTION test.id(span float8) RETURNS text VOLATILE LANGUAGE sql AS
	$$ SELECT 'k' || floor(extract(epoch FROM clock_timestamp()) * 40 - random() * span * 40)::bigint $$;

CREATE PROCEDURE test.work(n int) LANGUAGE plpgsql AS $$
DECLARE
	dice float8;
	k text;
BEGIN
	FOR i IN 1 .. n LOOP
		dice := random();
		IF dice < 0.5 THEN
			k := test.id(6);
			IF eo.receive('load', k) THEN
				INSERT INTO test.effect VALUES ('load', k, clock_timestamp());
			END IF;
		ELSIF dice < 0.8 THEN
			INSERT INTO test.effect SELECT 'load', r, clock_timestamp()
				FROM eo.receive('load', ARRAY[test.id(6), test.id(6), test.id(6)]) AS r;
		ELSE
			k := test.id(6);
			IF (eo.idempotency_begin('load', k)).state = 'new' THEN
				INSERT INTO test.effect VALUES ('scope', k, clock_timestamp());
				PERFORM eo.idempotency_complete('load', k, '1');
			END IF;
		END IF;
		IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END $$;

-- The least time from the commit of an effect to the next one of the same id.
CREATE VIEW test.gap AS
SELECT owner, id, extract(epoch FROM at - lag(pg_xact_commit_timestamp(xmin)) OVER (PARTITION BY owner, id ORDER BY at)) AS seconds
	FROM test.effect;
EOS

# ---- one id, once around

value($node, "SELECT eo.create_consumer('once', '$window seconds')");
my $begun = time();
is(receive('once', 'a'), 't', 'an id is new');
is(receive('once', 'a'), 'f', 'and then known');
cmp_ok(value($node, "SELECT " . bytes('day')), '>', 0, 'it takes space');
is(value($node, "SELECT ids, duplicates FROM eo.inbox_status WHERE consumer = 'once'"), '1|1', 'and is counted');
ok(wait_sql("SELECT " . bytes('day') . " = 0"), 'its space is given back: the tables have no bytes');
cmp_ok(time() - $begun, '>=', $window, 'not before its window is over');
cmp_ok(value($node, "SELECT max(pg_relation_size(i.indexrelid)) FROM pg_index AS i WHERE i.indrelid::regclass::text ~ 'inbox_day'"),
	'<=', 16384, 'and their indexes are as good as empty');
is(value($node, "SELECT ids, bytes, oldest, duplicates FROM eo.inbox_status WHERE consumer = 'once'"), '0|0||1',
	'the view knows');
is(receive('once', 'a'), 't', 'then the id is new again');

# ---- tables that somebody else has emptied

value($node, 'TRUNCATE eo.inbox_day_0, eo.inbox_day_1');
usleep(($window + 1) * 1_000_000);    # lasts: until the relay has nothing to do
is(receive('once', 'a'), 't', 'the first id after that');
ok(wait_sql("SELECT " . bytes('day') . " = 0"), 'is noticed');

# ---- under load, and across a crash of the server

value($node, "SELECT eo.create_consumer('load', '$window seconds'), eo.create_idempotency_scope('load', '$window seconds')");
my $before = emptied('inbox_day');
my $bench = bench(8, 14, "CALL test.work(20);\n");
ok($bench->{run}->finish, 'clients receive') or diag($bench->{err});
cmp_ok(emptied('inbox_day') - $before, '>=', 2, 'while generations come and go');
cmp_ok(emptied('idempotency_day'), '>=', 2, 'those of idempotency keys, too');
$bench = bench(8, 60, "CALL test.work(20);\n");
my $effects = value($node, 'SELECT count(*) FROM test.effect');
ok(wait_sql("SELECT count(*) > $effects + 200 FROM test.effect"), 'and again');
kill_everything($node);
$bench->{run}->finish;
$bench = bench(8, 14, "CALL test.work(20);\n");
ok($bench->{run}->finish, 'and after a crash') or diag($bench->{err});
is(value($node, "SELECT owner, id, seconds FROM test.gap WHERE seconds < $window"), '',
	'no id was taken twice within its window');
my ($again, $taken) = split /\|/, value($node, 'SELECT count(seconds), count(*) FROM test.gap');
cmp_ok($again, '>', 100, "$again of $taken were, after it");
cmp_ok(value($node, "SELECT duplicates FROM eo.inbox_status WHERE consumer = 'load'"), '>', 1000, 'and many duplicates came');

# ---- many who have the table by turns leave no gap

value($node, "SELECT eo.create_consumer('turns', '$window seconds')");
is(receive('turns', 'a'), 't', 'an id');
$before = emptied('inbox_day');
$bench = bench(12, 30, <<'EOS');
\set pause 15
BEGIN;
LOCK TABLE eo.inbox_day_0, eo.inbox_day_1 IN ACCESS SHARE MODE;
\sleep :pause ms
COMMIT;
EOS
my $held = "(SELECT count(*) > 0 FROM pg_locks WHERE relation = 'eo.inbox_day_0'::regclass AND granted)";
wait_until('somebody always has the tables', sub { return !grep { value($node, "SELECT $held") ne 't' } 1 .. 5 });
wait_until('it is given back', sub { return emptied('inbox_day') > $before });
is(value($node, "SELECT $held"), 't', 'space is given back though somebody always has the tables');
$bench->{run}->signal('KILL');
$bench->{run}->finish;

# ---- a transaction that stays open keeps what it has received, and nobody waits

value($node, "SELECT eo.create_consumer('open', '$window seconds')");
my $told = qr/eo_outbox cannot empty table/;
my $mentions = log_count($node, $told);
my $open = session($node);
is($open->query_safe("BEGIN; SELECT eo.receive('open', 'a')"), 't', 'an id in a transaction that stays open');
$bench = bench(4, 3 * $window, "SELECT eo.receive('open', test.id(1));\n");
ok($bench->{run}->finish, 'others receive meanwhile') or diag($bench->{err});
like($bench->{out}, qr/number of transactions actually processed: \d{3,}/, 'lots');
ok(wait_sql("SELECT count(*) > 0 FROM eo.generation WHERE family = 0 AND class = 0 AND switched_at = 'infinity'"),
	'the generation that it fills does not age');
wait_until('the log tells', sub { return log_count($node, $told) > $mentions });
is(value($node, 'SELECT count(*) FROM pg_locks WHERE NOT granted'), '0', 'nobody waits for a lock');
is(log_count($node, $told), $mentions + 1, 'it told so once');
$open->query_safe('COMMIT');
$begun = time();
my @answers;
while (1)
{
	my $answer = receive('open', 'a');
	last if time() - $begun >= $window;
	push @answers, $answer;
}
is(join('', grep { $_ ne 'f' } @answers), '', 'its id is known for the window from its end');
ok(wait_sql("SELECT " . bytes('day') . " = 0"), 'space is given back in the end');
$open->quit;

# ---- so does one that only has a lock, such as pg_dump

is(receive('open', 'b'), 't', 'an id');
$mentions = log_count($node, $told);
my $dump = session($node);
$dump->query_safe('BEGIN; LOCK TABLE eo.inbox_day_0, eo.inbox_day_1 IN ACCESS SHARE MODE');
$before = emptied('inbox_day');
wait_until('the log tells', sub { return log_count($node, $told) > $mentions });
my $relay = value($node, 'SELECT relay_pid FROM eo.log_status()');
$bench = bench(4, 2 * $window, "SELECT eo.receive('open', test.id(1));\n");
my $queued = 0;
while ($bench->{run}->pumpable)
{
	$bench->{run}->pump_nb;
	$queued += value($node, "SELECT count(*) FROM pg_locks WHERE pid = $relay AND NOT granted");
}
ok($bench->{run}->finish, 'others receive while the tables are locked') or diag($bench->{err});
is($queued, 0, 'the relay is not in line for the lock');
is(emptied('inbox_day'), $before, 'nothing is truncated');
is(log_count($node, $told), $mentions + 1, 'the log told so once');
$dump->query_safe('COMMIT');
ok(wait_sql("SELECT " . bytes('day') . " = 0"), 'everything is afterwards');
$dump->quit;

# ---- a table that somebody has for himself holds up nothing else

my $path = subscribe_file($node, 'f');
my $alone = session($node);
$alone->query_safe('BEGIN; LOCK TABLE eo.inbox_day_0, eo.generation, eo.tally');
value($node, "SELECT eo.receive('week', 'a')");
ok(wait_published($node, 'f', enqueue($node, 't', 10)), 'events are published');
is(value($node, "SELECT relay_pid = $relay FROM eo.log_status()"), 't', 'by the same relay');
$alone->query_safe('COMMIT');
$alone->quit;

# ---- what is written down, and what a restart remembers

# Who has a row of the same key holds up the relay in the middle.
my $holder = session($node);
my $counted = "SELECT ids FROM eo.inbox_status WHERE consumer = 'counted'";
my $stored = "SELECT held FROM eo.tally AS t JOIN eo.consumer AS c ON c.id = t.owner WHERE c.name = 'counted'";
my $row = <<"EOS";
BEGIN;
INSERT INTO eo.tally (family, owner, class, generation, held, bytes, first_at)
	SELECT 0, c.id, c.class, coalesce(g.current, 0), 0, 0, now()
	FROM eo.consumer AS c LEFT JOIN eo.generation AS g ON g.family = 0 AND g.class = c.class WHERE c.name = 'counted'
EOS
value($node, "SELECT eo.create_consumer('counted')");
$holder->query_safe($row);
is(value($node, "SELECT count(eo.receive('counted', i::text)) FROM generate_series(1, 50) AS i"), '50', '50 ids');
is(value($node, $counted), '50', 'are counted at once');
wait_locked($node, $relay);
is(value($node, $counted), '50', 'also while they are being written down');
value($node, "SELECT pg_terminate_backend($relay)");
ok(wait_sql("SELECT relay_pid <> $relay FROM eo.log_status()"), 'the relay ends in the middle');
is(value($node, $counted), '50', 'which changes nothing');
$relay = value($node, 'SELECT relay_pid FROM eo.log_status()');
wait_locked($node, $relay);
$holder->query_safe('ROLLBACK');
$holder->quit;
ok(wait_sql("SELECT coalesce(($stored), 0) = 50"), 'another one writes them down');
is(value($node, $counted), '50', 'and they are counted as before');
is(value($node, "SELECT count(eo.receive('counted', i::text)) FROM generate_series(1, 60) AS i"), '60', '10 more, and 50 again');
$node->restart;
is(value($node, "SELECT ids, duplicates FROM eo.inbox_status WHERE consumer = 'counted'"), '60|50', 'a restart forgets nothing');
value($node, "SELECT eo.drop_consumer('counted')");
ok(wait_sql("SELECT count(*) = 0 FROM eo.tally AS t WHERE family = 0 AND NOT EXISTS (SELECT FROM eo.consumer AS c WHERE c.id = t.owner)"),
	'what was counted of a consumer goes with it');

# ---- a crash right after a switch

value($node, "SELECT eo.create_consumer('crash', '$window seconds')");
is(receive('crash', 'a'), 't', 'an id');
my $was = value($node, "SELECT current FROM eo.generation WHERE family = 0 AND class = 0");
ok(wait_sql("SELECT current <> $was FROM eo.generation WHERE family = 0 AND class = 0"), 'a switch');
is(receive('crash', 'b'), 't', 'another id');
kill_everything($node);
is(receive('crash', 'b'), 'f', 'is known after a crash');
my ($older, $new);
do    # the next switch may come meanwhile
{
	$older = older(0);
	$new = 'c' . $older;
	is(receive('crash', $new), 't', 'new ones');
} while (older(0) != $older);
is(value($node, "SELECT count(*) FROM eo.inbox_day_$older WHERE message_id = '$new'"), '0', 'go where they went before');
ok(wait_sql("SELECT " . bytes('day') . " = 0"), 'and all of them go in the end');

# ---- with nothing to do there is nothing done

is(receive('week', 'b'), 't', 'an id with a long window');
ok(wait_sql('SELECT count(*) = 0 FROM eo.tally_status()'), 'that has been counted');
$relay = value($node, 'SELECT relay_pid FROM eo.log_status()');
sub switches
{
	my ($n) = slurp_file("/proc/$relay/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $n;
}
my $switches = switches();
wait_until(
	'everything is calm',
	sub {
		my $earlier = $switches;
		usleep(1_500_000);    # lasts: what counts as calm
		$switches = switches();
		return $switches == $earlier;
	});
usleep($calm * 1_000_000);
is(switches() - $switches, 0, "no wake-up of the relay in $calm s");

# ---- a dump knows what was received

value($node, <<'EOS');
SELECT eo.create_consumer('dump.long', '100 days');
SELECT eo.receive('dump.long', 'a'), eo.receive('dump.week', 'a'), eo.receive_at('dump.week', 's', 7);
BEGIN;
SELECT eo.idempotency_begin('dump', 'k', '1');
SELECT eo.idempotency_complete('dump', 'k', '"paid"', 201);
COMMIT;
UPDATE eo.generation SET current = 1 - current;
SELECT eo.receive('dump.week', 'b'), eo.receive('dump.week', 'a');
EOS
ok(wait_sql('SELECT count(*) = 0 FROM eo.tally_status()'), 'all is written down');
command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-d', $node->connstr('postgres') ], 'pg_dump');
my $known = "SELECT consumer, ids, duplicates, sources, \"window\" FROM eo.inbox_status WHERE consumer ~ '^dump' ORDER BY 1";
my $expected = value($node, $known);
$node->safe_psql('postgres', 'CREATE DATABASE copy');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), "$dir/dump" ], 'pg_restore');
is(value($node, $known, 'copy'), $expected, 'the counts are restored');
is(value($node, <<'EOS', 'copy'), 'f|f|f|t|duplicate|new', 'so are the ids and positions');
SELECT eo.receive('dump.long', 'a'), eo.receive('dump.week', 'a'), eo.receive('dump.week', 'b'), eo.receive('dump.week', 'c'),
	eo.receive_at('dump.week', 's', 7), eo.receive_at('dump.week', 's', 8)
EOS
is(value($node, "SELECT state, code, response FROM eo.idempotency_begin('dump', 'k', '1')", 'copy'), 'replay|201|"paid"',
	'and the answers');
is(value($node, "SELECT eo.receive('copy.new', 'a'); SELECT count(*) = count(DISTINCT id) FROM eo.consumer", 'copy'), "t\nt",
	'new consumers get new numbers');

# pg_restore --jobs takes the tables in any order: ids may come long before
# their consumer, together with what they are told apart from old ones by.
$node->safe_psql('postgres', 'CREATE DATABASE jobs');
value($node, <<'EOS', 'jobs');
CREATE EXTENSION eo_outbox;
BEGIN;
INSERT INTO eo.inbox_long_1 VALUES (7, 'a');
INSERT INTO eo.idempotency_day_1 (scope, key, state, claimed_at) VALUES (7, 'k', 'd', now());
INSERT INTO eo.idempotency_scope (id, name, keep_for, class) VALUES (7, 'short', '1 second', 0);
INSERT INTO eo.generation VALUES (0, 2, 0, now() - interval '50 days'), (1, 0, 0, now() - interval '50 days');
COMMIT;
EOS
$node->poll_query_until('jobs', "SELECT pg_relation_size('eo.idempotency_day_1') = 0")
  or die 'the relay of the other database does not turn generations';
value($node, "INSERT INTO eo.consumer (id, name, keep_for, class) VALUES (7, 'late', '100 days', 2)", 'jobs');
is(value($node, "SELECT eo.receive('late', 'a')", 'jobs'), 'f', 'ids that are restored before their consumer are kept');
$node->stop;

done_testing();
