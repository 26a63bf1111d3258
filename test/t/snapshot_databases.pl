# Snapshots where there is no worker to be had, where the database or the
# extension goes away, in copies of a database, and on standbys.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The launcher, that of logical replication, three relays, and one more
my $node = new_log_server('databases', streaming => 1, conf => "max_worker_processes = 6\nmax_connections = 30\n");
my $rows = 1000;
my $worker = "application_name = 'eo_outbox snapshot'";

sub make_database
{
	my ($db) = @_;
	value($node, "CREATE DATABASE $db") if $db ne 'postgres';
	value($node, "CREATE EXTENSION eo_outbox", $db) if $db ne 'postgres';
	value($node, <<"EOS", $db);
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, $rows) AS i;
SELECT eo.capture('t', topic => 't');
EOS
	$node->poll_query_until($db, 'SELECT relay_pid IS NOT NULL FROM eo.log_status()') or die "no relay for $db";
	return;
}

# In milliseconds: the worker pauses so long after each hundred rows.
sub set_delay
{
	my ($server, $delay) = @_;
	$server->safe_psql('postgres', "ALTER SYSTEM SET eo_outbox.snapshot_delay = $delay");
	$server->reload;
	return;
}

sub begin_midway
{
	my ($db) = @_;
	set_delay($node, 1000);
	my $id = value($node, "SELECT eo.snapshot('t', chunk_rows => 100)", $db);
	$node->poll_query_until($db, "SELECT rows_done > 0 FROM eo.snapshots WHERE id = $id") or die 'the snapshot does not begin';
	return $id;
}

sub workers
{
	my ($db) = @_;
	return value($node, "SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND $worker");
}

sub wait_end
{
	my ($server, $db, $id) = @_;
	my $state;

	wait_until(
		"snapshot $id in $db has ended",
		sub {
			$state = $server->safe_psql($db, "SELECT concat_ws(': ', state, error) FROM eo.snapshots WHERE id = $id");
			return $state !~ /^(waiting|running)/;
		});
	return $state;
}

sub count_read
{
	my ($server, $db) = @_;
	return $server->safe_psql($db, "SELECT count(*), count(DISTINCT key) FROM eo.events WHERE type = 't.read'");
}

make_database($_) foreach qw(postgres one two);

# ---- no worker to be had ---------------------------------------------------------

value($node, 'CREATE DATABASE three');
value($node, 'CREATE EXTENSION eo_outbox', 'three');
$node->poll_query_until('three', 'SELECT relay_pid IS NOT NULL FROM eo.log_status()') or die 'no relay';
value($node, 'ALTER DATABASE postgres SET default_transaction_read_only = on');
my $id = value($node, "SET default_transaction_read_only = off; SELECT eo.snapshot('t')");
wait_until('a warning says so', sub { log_count($node, qr/no worker for eo\.snapshot\(\), because all background workers are in use/) });
ok(log_count($node, qr/HINT:  Increase max_worker_processes \(now 6\)/), 'that no worker is to be had is told, and what helps');
is(value($node, "SELECT state, pid FROM eo.snapshots WHERE id = $id"), 'waiting|', 'the snapshot waits');
value($node, 'DROP DATABASE three', 'template1');
is(wait_end($node, 'postgres', $id), 'done', 'until there is one; that transactions are read only by default does not matter');
value($node, 'ALTER DATABASE postgres RESET default_transaction_read_only', 'one');

# ---- what goes away ------------------------------------------------------------------

begin_midway('one');
is(workers('one'), '1', 'a snapshot is under way');
value($node, 'SET client_min_messages = warning; DROP EXTENSION eo_outbox CASCADE', 'one');
pass('DROP EXTENSION does not wait for all of it');
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'one' AND application_name LIKE 'eo_outbox%'")
  or die 'a worker stays';
pass('and nobody is left');
value($node, 'DROP TABLE t; CREATE EXTENSION eo_outbox', 'one');
value($node, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); SELECT eo.capture('t', topic => 't')", 'one');
set_delay($node, 0);
is(wait_end($node, 'one', value($node, "SELECT eo.snapshot('t')", 'one')), 'done', 'with the extension created anew there are snapshots again');

value($node, "INSERT INTO t SELECT i FROM generate_series(2, $rows) AS i", 'one');
begin_midway('one');
value($node, 'DROP DATABASE one');
pass('DROP DATABASE does not wait for it either');

# ---- copies --------------------------------------------------------------------------

$id = begin_midway('two');
value($node, 'CREATE DATABASE copy TEMPLATE two');
$node->poll_query_until('copy', 'SELECT relay_pid IS NOT NULL FROM eo.log_status()') or die 'no relay for the copy';
set_delay($node, 0);
is(wait_end($node, 'two', $id), 'done', 'a database that was copied meanwhile goes on');
is(count_read($node, 'two'), "$rows|$rows", 'with all rows');
my $copied = count_read($node, 'copy');
is(value($node, "SELECT state, rows_done || '|' || rows_done, rows_done < $rows, pid FROM eo.snapshots WHERE id = $id", 'copy'), "waiting|$copied|t|",
	'the copy does not, though it could tell how far it was');
is(workers('copy'), '0', 'and has no worker');
my $other = value($node, 'CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1);'
	  . "SELECT eo.capture('u', topic => 'u'); SELECT eo.snapshot('u')", 'copy');
$other =~ s/.*\n//s;
is(workers('copy'), '0', 'nor for another one');
is(count_read($node, 'copy'), $copied, 'nothing is put on its topics');
value($node, 'SELECT eo.adopt()', 'copy');
is(wait_end($node, 'copy', $id), 'done', 'before it is adopted');
is(count_read($node, 'copy'), "$rows|$rows", 'then it has all rows');
is(wait_end($node, 'copy', $other), 'done', 'and the other one is made as well');
value($node, 'DROP DATABASE copy');

# ---- standbys ------------------------------------------------------------------------

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
my ($ret, $out, $err) = $standby->psql('two', "SELECT eo.snapshot('t')");
like($err, qr/cannot execute eo\.snapshot\(\) in a read-only transaction/, 'a standby cannot be asked for a snapshot');
($ret, $out, $err) = $standby->psql('two', "SELECT eo.stop_snapshot('t')");
like($err, qr/cannot execute eo\.stop_snapshot\(\) in a read-only transaction/, 'nor to stop one');

value($node, "UPDATE t SET v = 'changed' WHERE id = 5", 'two');
my $since = value($node, 'SELECT max(seq) FROM eo.events', 'two');
$id = begin_midway('two');
$node->wait_for_catchup($standby);
my $seen = $standby->safe_psql('two', "SELECT state, rows_done > 0 AND rows_done < $rows, percent < 100, pid FROM eo.snapshots WHERE id = $id");
is($seen, 'running|t|t|', 'it shows how far the primary has come');
$node->stop('immediate');
set_delay($standby, 0);
$standby->promote;
is(wait_end($standby, 'two', $id), 'done', 'after its promotion it goes on');
is($standby->safe_psql('two', <<"EOS"), '', 'and all rows are there');
SELECT coalesce(r.key, e.key) FROM (SELECT id::text AS key, to_jsonb(t) AS payload FROM t) AS r
	FULL JOIN (SELECT DISTINCT ON (key) key, payload FROM eo.events WHERE topic = 't' AND seq > $since ORDER BY key, seq DESC) AS e USING (key)
WHERE r.payload IS DISTINCT FROM e.payload
EOS

$standby->stop;
done_testing();
