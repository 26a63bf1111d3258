# Consumers whose window changes so much that their ids go to other tables: no
# duplicate gets through, however long those take that do it or receive.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $window = 2;    # seconds, the shortest one here
my $node = new_log_server('moves', conf => <<EOC);
track_commit_timestamp = on
max_connections = 50
EOC
my $dir = PostgreSQL::Test::Utils::tempdir("pgbench");

sub receive
{
	my ($consumer, $id) = @_;
	return value($node, "SELECT eo.receive('$consumer', '$id')");
}

sub wait_sql
{
	my ($query) = @_;
	return $node->poll_query_until('postgres', $query);
}

sub no_end
{
	my ($consumer) = @_;
	return "SELECT also_until = 'infinity' FROM eo.consumer WHERE name = '$consumer'";
}

# ---- an id of a transaction that goes on for longer than the new window

value($node, "SELECT eo.create_consumer('late', '3 days')");
my $first = session($node);
is($first->query_safe("BEGIN; SELECT eo.receive('late', 'a')"), 't', 'a transaction receives an id and stays open');
value($node, "SELECT eo.create_consumer('late', '$window seconds')");
is(receive('late', 'b'), 't', 'others receive');
usleep(($window + 1.5) * 1_000_000);    # lasts: the new window
is(value($node, no_end('late')), 't', 'the old tables count while it lasts');
my $second = session($node);
my $pid = $second->query_safe('SELECT pg_backend_pid()');
send_query($second, "SELECT eo.receive('late', 'a') AS answer");
wait_locked($node, $pid);
pass('a duplicate waits for it');
$first->query_safe('COMMIT');
is($second->query_safe('SELECT 1'), "f\n1", 'and is one');
ok(wait_sql('SELECT NOT coalesce((' . no_end('late') . '), true)'), 'then there is an end to it');
is(value($node, "SELECT also_until - clock_timestamp() BETWEEN '0' AND '$window seconds' FROM eo.consumer WHERE name = 'late'"),
	't', 'after the window');
is(receive('late', 'a'), 'f', 'until which the id is known');

# ---- a change that is held up between its statement and its commit

value($node, "SELECT eo.create_consumer('stalled', '3 days')");
my $change = session($node);
my $holder = hold_commit($node, $change, "SELECT eo.create_consumer('stalled', '$window seconds')");
is(receive('stalled', 'a'), 't', 'an id while a change is being committed');
usleep(($window + 0.5) * 1_000_000);    # lasts: the new window
is(receive('stalled', 'b'), 't', 'another one');
release_commit($holder, $change);
is(receive('stalled', 'a') . receive('stalled', 'b'), 'ff', 'are known when it has been');
is(value($node, "SELECT class FROM eo.consumer WHERE name = 'stalled'"), '0', 'as it has');

# ---- a change of a session that knows the consumer, and one that is undone

$first->query_safe("SELECT eo.receive('late', 'c')");
value($node, "SELECT eo.create_consumer('late', '30 days')");
is($first->query_safe("SELECT eo.receive('late', 'd')"), 't', 'a session learns of a change');
is(value($node, "SELECT count(*) FROM eo.inbox_long_0 WHERE message_id = 'd'"), '1', 'at once');
$second->query_safe("BEGIN; SELECT eo.create_consumer('late', '3 days'); ROLLBACK");
is($second->query_safe("SELECT eo.receive('late', 'd')"), 'f', 'one that is undone changes nothing');

# ---- under load, with a change every now and then, some of them slow

value($node, <<"EOS");
SELECT eo.create_consumer('load', '$window seconds');
CREATE TABLE test.effect (id text, at timestamptz);
CREATE PROCEDURE test.work(n int) LANGUAGE plpgsql AS \$\$
DECLARE
	k text;
BEGIN
	FOR i IN 1 .. n LOOP
		k := 'k' || floor(extract(epoch FROM clock_timestamp()) * 40 - random() * 160)::bigint;
		IF eo.receive('load', k) THEN
			INSERT INTO test.effect VALUES (k, clock_timestamp());
		END IF;
		IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END \$\$;
EOS
append_to_file("$dir/work", "CALL test.work(20);\n");
my ($out, $err) = ('', '');
my $bench = IPC::Run::start(
	[ 'pgbench', '-n', '-c', '8', '-j', '2', '-T', '24', '-f', "$dir/work", '-h', $node->host, '-p', $node->port, 'postgres' ],
	'>', \$out, '2>', \$err);
my @windows = ('3 days', "$window seconds", '30 days', '3 days', "$window seconds", '30 days', "$window seconds");
my $changes = 0;
while ($bench->pumpable)
{
	my $next = $windows[ $changes++ % @windows ];
	my $pause = $changes % 3 == 0 ? $window + 0.5 : 0;

	value($node, "BEGIN; SELECT eo.create_consumer('load', '$next'); SELECT pg_sleep($pause); COMMIT");
	$bench->pump_nb;
	usleep(rand(1_000_000));
}
ok($bench->finish, 'clients receive') or diag($err);
cmp_ok($changes, '>', 8, "while the window changes $changes times");
is(value($node, <<"EOS"), '', 'no id was taken twice within the shortest window');
SELECT id, gap FROM (
	SELECT id, at - lag(pg_xact_commit_timestamp(xmin)) OVER (PARTITION BY id ORDER BY at) AS gap FROM test.effect) AS gaps
WHERE gap < '$window seconds'
EOS
cmp_ok(value($node, 'SELECT count(*) FROM test.effect'), '>', 500, 'of many');
cmp_ok(value($node, "SELECT duplicates FROM eo.inbox_status WHERE consumer = 'load'"), '>', 500, 'with many duplicates');
$first->quit;
$second->quit;
$change->quit;
$node->stop;

done_testing();
