# Numbers of a log that finds itself somewhere else: promoted, copied, restored.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('epoch', streaming => 1);
my $path = subscribe_file($node, 'f');
subscribe_pull($node, 'p');
value($node, 'CALL test.put(10)');
pull($node, 'p');
wait_published($node, 'f', 10);

sub epoch
{
	my ($seq) = @_;
	return $seq >> 44;
}

# ---- a failover that loses the latest transactions --------------------------------

$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('promoted');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->append_conf('postgresql.conf', mutant_conf());
$standby->start;
value($node, 'CALL test.put(5)');
pull($node, 'p');
$node->poll_query_until('postgres', 'SELECT min(seq) = max(published_seq) OR true FROM eo.cursor');
wait_published($node, 'f', 15);
$node->wait_for_catchup($standby, 'replay');

# The standby gets nothing of what comes now; the primary publishes it.
$standby->stop;
value($node, 'CALL test.put(20)');
my $last = value($node, 'SELECT max(seq) FROM eo.events');
wait_published($node, 'f', $last);
$node->stop('immediate');
$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
$standby->start;
$standby->promote;
value($standby, 'CALL test.put(3)');
my $first = value($standby, "SELECT min(seq) FROM eo.events WHERE seq > 15");
cmp_ok($first, '>', $last, 'no number that the old primary gave out is used again');
is(epoch($first), 1, 'the epoch has risen by one');
is(pull($standby, 'p'), 3, 'the events are read');
check_pulled($standby, 'p', 'pull goes on');
ok($standby->poll_query_until('postgres',
		"SELECT string_agg(epoch || '/' || timeline, ' ' ORDER BY epoch) = '0/1 1/2' FROM eo.lineage"),
	'it is written down which timeline has which epoch');
my $new = value($standby, 'SELECT max(seq) FROM eo.events');
ok(wait_published($standby, 'f', $new), 'they are published');
my @events = read_events($path);
is($events[-1]->{sequence}, $new, 'in the same file');
is(scalar(grep { $events[$_]->{sequence} <= $events[ $_ - 1 ]->{sequence} } 1 .. $#events), 0, 'in order');
$standby->restart;
value($standby, 'CALL test.put(1)');
is(value($standby, 'SELECT max(seq) FROM eo.events'), $new + 1, 'the epoch stays after a restart');

# The same with on_new_timeline = pause: nothing is published before eo.adopt().
$standby->backup('c');
my $paused = PostgreSQL::Test::Cluster->new('paused');
$paused->init_from_backup($standby, 'c', has_streaming => 1);
$paused->append_conf('postgresql.conf', "eo_outbox.on_new_timeline = pause\nprimary_conninfo = ''\n" . mutant_conf());
$paused->start;
wait_published($standby, 'f', $new + 1);
$standby->stop;
my $lines = read_events($path);
$paused->promote;
value($paused, 'CALL test.put(3)');
$new = value($paused, 'SELECT max(seq) FROM eo.events');
is(epoch($new), 2, 'appends go on under a new epoch');
wait_field($paused, 'f', 'state', 'waiting for adoption');
pass('the subscription waits for adoption');
is(scalar(my @now = read_events($path)), $lines, 'nothing is published');
my ($ret, $out, $err) = $paused->psql('postgres', "\\set VERBOSITY verbose\nSELECT eo.fetch('p')");
like($err, qr/ERROR:  55000: subscription "p" waits for adoption/, 'nor can anything be pulled');
($ret, $out, $err) = $paused->psql('postgres', "SELECT eo.ack('p', $new)");
like($err, qr/HINT:  Run eo.adopt\(\)/, 'or acknowledged');
is(value($paused, "BEGIN; SELECT eo.adopt(); SELECT count(*) > 0 FROM eo.fetch('p'); ROLLBACK"), "t\nt", 'who adopts it can, in the same transaction');
($ret, $out, $err) = $paused->psql('postgres', "SELECT eo.fetch('p')");
like($err, qr/waits for adoption/, 'nobody else, as that was rolled back');
is(value($paused, 'SELECT eo.adopt()'), 't', 'it is adopted');
is(pull($paused, 'p'), 4, 'then all that waited can be pulled');
ok(wait_published($paused, 'f', $new), 'then it is');
is(value($paused, 'SELECT eo.adopt()'), 'f', 'there is nothing to adopt any more');
$paused->stop;

# ---- copies of a database --------------------------------------------------------------

$node = new_log_server('copied');
$path = subscribe_file($node, 'f2');
subscribe_pull($node, 'p');
value($node, 'CALL test.put(10)');
wait_published($node, 'f2', 10);
pull($node, 'p');
$lines = read_events($path);

# One test after another for a copy that is not the original any more.
sub check_copy
{
	my ($db, $what) = @_;

	value($node, 'CALL test.put(3)', $db);
	my $seq = value($node, 'SELECT max(seq) FROM eo.events', $db);
	cmp_ok($seq, '>', value($node, 'SELECT max(seq) FROM eo.events'), "$what: numbers lie above those of the original");
	ok($node->poll_query_until($db, "SELECT state = 'waiting for adoption' FROM eo.subscriptions WHERE name = 'f2'"),
		"$what: its subscription waits");
	($ret, $out, $err) = $node->psql($db, "\\set VERBOSITY verbose\nSELECT eo.fetch('p')");
	like($err, qr/ERROR:  55000: subscription "p" belongs to another database/, "$what: it cannot be pulled from");
	like($err, qr/HINT:  Run eo.adopt\(\)/, "$what: the hint says what to do");
	is(scalar(my @e = read_events($path)), $lines, "$what: nothing was published");
	is(value($node, 'SELECT eo.adopt()', $db), 't', "$what: is adopted");
	cmp_ok(value($node, "SELECT count(*) FROM eo.fetch('p')", $db), '>=', 3, "$what: can be pulled from");
	$node->poll_query_until($db, "SELECT state <> 'waiting for adoption' FROM eo.subscriptions WHERE name = 'f2'");
	isnt(value($node, "SELECT state FROM eo.subscriptions WHERE name = 'f2'", $db), 'waiting for adoption', "$what: its subscription runs");
	value($node, "SELECT eo.unsubscribe('f2')", $db);
	return;
}

value($node, 'CREATE DATABASE template_copy TEMPLATE postgres', 'template1');
value($node, 'DROP SERVER file_f2', 'template_copy');
check_copy('template_copy', 'CREATE DATABASE TEMPLATE');

# A server restarted on a copy of its files is the same server; a dump restored
# into another database is not.
my $dump = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
unlike(slurp_file($dump), qr/COPY eo\.(log_|cursor|position|dead_letter)/, 'events and cursors are not dumped');
like(slurp_file($dump), qr/COPY eo\.subscription /, 'subscriptions are');
value($node, 'CREATE DATABASE restored');
($ret, $out, $err) = $node->psql('restored', undef, extra_params => [ '-f', $dump, '-v', 'ON_ERROR_STOP=1' ]);
is($ret, 0, 'the dump is restored') or diag($err);
value($node, 'DROP SERVER file_f2', 'restored');
value($node, 'TRUNCATE test.pulled', 'restored');
check_copy('restored', 'pg_dump');

# An append goes by what is restored, though the relay has not seen it yet.
value($node, 'CREATE DATABASE slow');
value($node, 'CREATE EXTENSION eo_outbox', 'slow');
$node->poll_query_until('slow', "SELECT count(*) = 1 FROM eo.lineage");
my $relay = stop_relay_idle($node, 'slow');
value($node, "INSERT INTO eo.lineage SELECT 0, 1, 1, 1, 1", 'slow');
value($node, "SELECT eo.enqueue('t', '1')", 'slow');
is(value($node, 'SELECT min(seq) >> 44 FROM eo.events', 'slow'), '1', 'the epoch rises with the restored lineage at once');

# Neither does an error in the midst of it leave the old epoch in force.
value($node, "ALTER SYSTEM SET eo_outbox.test_point = 'lineage_load:error:1:1'");
value($node, 'SELECT pg_reload_conf()');
$node->poll_query_until('slow', "SELECT current_setting('eo_outbox.test_point') <> ''");
value($node, "INSERT INTO eo.lineage SELECT 5, 1, 1, 1, 1", 'slow');
($ret, $out, $err) = $node->psql('slow', "SELECT eo.enqueue('t', '2')");
like($err, qr/test point "lineage_load"/, 'eo.lineage cannot be read');
value($node, "SELECT eo.enqueue('t', '3')", 'slow');
is(value($node, 'SELECT max(seq) >> 44 FROM eo.events', 'slow'), '6', 'it is read by the next append');
kill 'CONT', $relay;
value($node, 'ALTER SYSTEM RESET eo_outbox.test_point');
value($node, 'SELECT pg_reload_conf()');

# The original does not care.
value($node, 'CALL test.put(3)');
check_file($node, 'f2', $path, 'the original goes on');

# A dump restored over the database that it came from: events were published
# after it was taken, under numbers that must not come again.
my $clean = $node->basedir . '/clean.sql';
command_ok([ 'pg_dump', '--clean', '-d', $node->connstr('postgres'), '-f', $clean ], 'pg_dump --clean');
value($node, 'CALL test.put(50)');
$last = value($node, 'SELECT max(seq) FROM eo.events');
ok(wait_published($node, 'f2', $last), 'events are published after the dump');
$lines = read_events($path);
($ret, $out, $err) = $node->psql('postgres', undef, extra_params => [ '-f', $clean, '-v', 'ON_ERROR_STOP=1' ]);
is($ret, 0, 'it is restored over its origin') or diag($err);
value($node, 'CALL test.put(3)');
cmp_ok(value($node, 'SELECT min(seq) FROM eo.events'), '>', $last, 'no number is used again');
wait_field($node, 'f2', 'state', 'waiting for adoption');
is(scalar(@now = read_events($path)), $lines, 'nothing is published before it is adopted');
is(value($node, 'SELECT eo.adopt()'), 't', 'it is adopted');
value($node, 'CALL test.put(3)');
ok(wait_published($node, 'f2', value($node, 'SELECT max(seq) FROM eo.events')), 'and publishes');
@now = read_events($path);
is(scalar(grep { $now[$_]->{sequence} <= $now[ $_ - 1 ]->{sequence} } 1 .. $#now), 0, 'in order');
$node->stop;

done_testing();
