# When relays start and when they leave.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('start', streaming => 1, conf => "max_worker_processes = 12\n");

sub relay_pid
{
	my ($n, $db) = @_;
	my $pid = $n->safe_psql($db // 'postgres', 'SELECT relay_pid FROM eo.log_status()');
	return $pid eq '' ? 0 : $pid;
}

sub wait_relay
{
	my ($n, $db) = @_;
	return $n->poll_query_until($db // 'postgres',
		'SELECT relay_pid IS NOT NULL FROM eo.log_status()');
}

sub relays
{
	my ($n) = @_;
	return $n->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eo_outbox relay'");
}

# ---- start -------------------------------------------------------------------

ok(wait_relay($node), 'a relay runs after CREATE EXTENSION');
is(relays($node), '1', 'and only there');
my $path = subscribe_file($node, 's');
ok(wait_published($node, 's', enqueue($node, 'a', 20)), 'it publishes');
is( $node->safe_psql('postgres',
		"SELECT application_name FROM pg_stat_activity WHERE backend_type = 'eo_outbox relay'"),
	'eo_outbox relay', 'it has a name in pg_stat_activity');

$node->restart;
ok(wait_relay($node), 'a relay runs after a restart');
ok(wait_published($node, 's', enqueue($node, 'a', 20)), 'it publishes');

my $publisher = field($node, 's', 'publisher_pid');
kill 'KILL', relay_pid($node);
wait_until('the server has come back', sub { server_starts($node) >= 3 });
$node->poll_query_until('postgres', 'SELECT true');
ok(wait_relay($node), 'a relay runs after it was killed, and the server restarted');
wait_until('the old publisher is gone', sub { !alive($publisher) });
pass('the publisher died with its relay');
ok(wait_published($node, 's', enqueue($node, 'a', 20)), 'it publishes');

$publisher = field($node, 's', 'publisher_pid');
kill_and_start($node,
	sub { wait_until('its publisher is gone', sub { !alive($publisher) }) });
pass('the publisher died with its server');
ok(wait_relay($node), 'a relay runs after the postmaster was killed');
ok(wait_published($node, 's', enqueue($node, 'a', 20)), 'it publishes');
check_events($node, $path, 'true', 'all that was committed is in the file, once, in order');

my $pid = relay_pid($node);
my $starts = server_starts($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->poll_query_until('postgres',
	"SELECT relay_pid IS NOT NULL AND relay_pid <> $pid FROM eo.log_status()");
isnt(relay_pid($node), $pid, 'a relay that was told to end is replaced');
$pid = relay_pid($node);
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
ok(wait_published($node, 's', enqueue($node, 'a', 20)), 'a cancel does not disturb it');
is(relay_pid($node), $pid, 'it is the same one');
my $launcher = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'eo_outbox launcher'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
$node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'eo_outbox launcher' AND pid <> $launcher")
  or die 'no new launcher';
is(relay_pid($node), $pid, 'a new launcher leaves the relay alone');
is(relays($node), '1', 'and starts no second one');
is(server_starts($node), $starts, 'the server was never restarted');

# ---- promotion ---------------------------------------------------------------

# One that publishes for the first time when the standby does not hear of it any more
my $fresh_path = PostgreSQL::Test::Utils::tempdir() . '/fresh.jsonl';
my ($fresh_start) = split /\n/, $node->safe_psql('postgres', <<EOS);
BEGIN;
CREATE SERVER file_fresh FOREIGN DATA WRAPPER eo_file OPTIONS (path '$fresh_path');
SELECT eo.subscribe('fresh', '{*}', 'file_fresh');
SELECT eo.pause('fresh');
COMMIT;
EOS
enqueue($node, 'a', 5);
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
is(relays($standby), '0', 'no relay on a standby');
# Who watches it there must not make it look as if somebody had seen to the database.
$standby->safe_psql('postgres', 'SELECT count(*) FROM eo.subscriptions');
my $before = $node->safe_psql('postgres', 'SELECT last_seq FROM eo.log_status()');
$node->wait_for_catchup($standby, 'replay');
$standby->stop;
$node->safe_psql('postgres', "SELECT eo.resume('fresh')");
ok(wait_published($node, 'fresh', $before), 'another subscription begins to publish');
$node->stop;
$standby->start;
$standby->promote;
ok(wait_relay($standby), 'a relay runs after promotion');
my $after = enqueue($standby, 'a', 20);
ok(wait_published($standby, 's', $after), 'it publishes');
ok($after > $before + (1 << 43), 'under a new epoch');
check_events($standby, $path, 'true', 'the file goes on where it was');
$standby->safe_psql('postgres', "SELECT eo.resume('fresh')");
ok(wait_published($standby, 'fresh', $after), 'the other one publishes, too');
check_events($standby, $fresh_path, "seq > $fresh_start", 'after what it cannot know that it had published');
$standby->stop;

# ---- leaving -----------------------------------------------------------------

$node->start;
ok(wait_relay($node), 'the old server runs again');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION eo_outbox');
ok(wait_relay($node, 'other'), 'a second database has its own relay');
is(relays($node), '2', 'there are two');
subscribe_file($node, 'o', db => 'other');
$publisher = '';
wait_until('it publishes',
	sub { $publisher = $node->safe_psql('other', 'SELECT publisher_pid FROM eo.subscriptions') });

my $t = time();
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE other');
cmp_ok(time() - $t, '<', 5, 'CREATE DATABASE from a database with a relay');
ok(wait_relay($node, 'other'), 'whose relay comes back');
$t = time();
$node->safe_psql('postgres', 'ALTER DATABASE other RENAME TO renamed');
cmp_ok(time() - $t, '<', 5, 'ALTER DATABASE RENAME');
ok(wait_relay($node, 'renamed'), 'the relay comes back under the new name');
my ($ret, $out, $err) = $node->psql('postgres', 'BEGIN; DROP DATABASE renamed;');
like($err, qr/cannot run inside a transaction block/, 'DROP DATABASE fails in a transaction block');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
$pid = relay_pid($node, 'renamed');
($ret, $out, $err) = $node->psql('postgres', 'DROP DATABASE renamed',
	extra_params => [ '-U', 'nobody' ]);
like($err, qr/must be owner/, 'DROP DATABASE fails for others');
is(relay_pid($node, 'renamed'), $pid, 'neither stops the relay');

$t = time();
$node->safe_psql('postgres', 'DROP DATABASE copy');
cmp_ok(time() - $t, '<', 5, 'DROP DATABASE of the copy');
$publisher = $node->safe_psql('renamed', 'SELECT publisher_pid FROM eo.subscriptions');
$t = time();
$node->safe_psql('postgres', 'DROP DATABASE renamed');
cmp_ok(time() - $t, '<', 5, 'DROP DATABASE with a relay that publishes');
wait_until('its publisher is gone', sub { $publisher eq '' || !alive($publisher) });
$node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'eo_outbox relay'");
is(relays($node), '1', 'its relay does not come back');

$publisher = field($node, 's', 'publisher_pid');
$t = time();
$node->safe_psql('postgres', 'DROP EXTENSION eo_outbox CASCADE');
cmp_ok(time() - $t, '<', 5, 'DROP EXTENSION');
$node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'eo_outbox relay'")
  or die 'the relay stays';
is(relays($node), '0', 'the relay leaves');
wait_until('its publisher is gone', sub { !alive($publisher) });
for my $i (1 .. 3)
{
	$node->safe_psql('postgres', 'CREATE EXTENSION eo_outbox');
	$t = time();
	ok(wait_relay($node), "CREATE EXTENSION again, round $i");
	cmp_ok(time() - $t, '<', 2, 'the relay comes at once');
	$node->safe_psql('postgres', 'DROP EXTENSION eo_outbox');
}

# While a transaction that drops it has not ended, everything waits in peace.
$node->safe_psql('postgres', 'CREATE EXTENSION eo_outbox');
wait_relay($node);
subscribe_file($node, 'again');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION eo_outbox CASCADE; ROLLBACK');
ok(wait_published($node, 'again', enqueue($node, 'a', 5)), 'DROP EXTENSION rolled back');

$t = time();
$node->stop('smart');
cmp_ok(time() - $t, '<', 10, 'a smart shutdown does not wait for the relay');

# ---- no worker left ----------------------------------------------------------

$node->append_conf('postgresql.conf', "max_worker_processes = 2\nmax_logical_replication_workers = 0\n");
$node->start;
ok(wait_relay($node), 'launcher and relay fit into two workers');
$node->safe_psql('postgres', 'CREATE DATABASE third');
$node->safe_psql('third', 'CREATE EXTENSION eo_outbox');
wait_until('a warning says so',
	sub { log_count($node, qr/all background workers are in use/) > 0 });
ok(log_count($node, qr/HINT: .*Increase max_worker_processes/) > 0, 'a warning says what to raise');
ok(wait_published($node, 'again', enqueue($node, 'a', 5)), 'the relay that runs goes on');
$node->safe_psql('postgres', 'DROP EXTENSION eo_outbox CASCADE');
ok(wait_relay($node, 'third'), 'the other one starts when a worker is free');
$node->stop;

done_testing();
