# Commits that take their time: a backend stopped between append and commit, one
# that waits for a synchronous standby, and waiting for the append lock.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_log_server('commit', streaming => 1, conf => <<EOC);
max_prepared_transactions = 5
deadlock_timeout = 100ms
EOC
my $path = subscribe_file($node, 'f');
subscribe_pull($node, 'p');
my $writer = session($node);
my $other = session($node);
my ($ret, $out, $err);

sub in_file
{
	return scalar(read_events($path));
}

# ---- stopped between append and commit record --------------------------------------

my $holder = hold_commit($node, $writer, "SELECT eo.enqueue('t', '\"held\"')");
my $pid = value($node, "SELECT pid FROM pg_locks WHERE NOT granted");
value($node, 'CALL test.put(20)');
is(pull($node, 'p'), 0, 'nothing behind the stopped commit is read');
ok($node->poll_query_until('postgres', "SELECT pid = $pid AND seq = 1 AND wait_event_type = 'Lock' FROM eo.stalls"),
	'eo.stalls shows whom the log waits for');
is(in_file(), 0, 'nothing is published');
is(value($node, 'SELECT count(*) FROM eo.events'), '20', 'though it can be seen');
release_commit($holder, $writer);
is(pull($node, 'p'), 21, 'all is read when it has committed');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM eo.stalls'), 'the stall is over');

# It is cancelled instead, or its process ends.
for my $how ('cancel', 'terminate')
{
	$holder = hold_commit($node, $writer, "SELECT eo.enqueue('t', '\"never\"')");
	value($node, 'CALL test.put(5)');
	is(pull($node, 'p'), 0, 'nothing behind the stopped commit is read');
	value($node, "SELECT pg_${how}_backend(pid) FROM pg_locks WHERE NOT granted");
	# a backend that ends still waits for the lock, to drop its temporary tables
	ok($node->poll_query_until('postgres', "SELECT count(*) = 5 FROM eo.fetch('p')"), "what stands behind is read after $how");
	is(pull($node, 'p'), 5, 'all of it');
	$holder->query_safe('COMMIT');
	$holder->quit;
	check_pulled($node, 'p', 'pull');
	check_file($node, 'f', $path, 'file');
	eval { $writer->quit };
	$writer = session($node);
}

# Stopped by a signal, at whatever instruction: many times, each time the reader
# must get all or nothing.
my $load = session($node);
$pid = $load->query_safe('SELECT pg_backend_pid()');
send_query($load, 'CALL test.put(3000)');
my $reader = session($node);
for my $round (1 .. 30)
{
	# it may hold a lock that the reader needs, so it must go on by itself
	kill 'STOP', $pid;
	send_query($reader, "SELECT test.pull('p', 100000)");
	usleep(10_000);  # lasts: the reader may need a lock of the stopped one
	kill 'CONT', $pid;
	$reader->query_safe('SELECT 1');
}
$reader->quit;
$load->query_safe('SELECT 1');
pull($node, 'p');
check_pulled($node, 'p', 'a writer stopped at random');
check_file($node, 'f', $path, 'file');
$load->quit;

# ---- waiting for a synchronous standby ---------------------------------------------

value($node, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
value($node, 'SELECT pg_reload_conf()');
$node->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names') = 'nobody'") or die;
value($node, 'CHECKPOINT');    # it is the checkpointer that makes commits wait
$writer->query_safe('SELECT 1');
send_query($writer, "SELECT eo.enqueue('t', '\"waits\"')");
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'") or die;
value($node, "SET synchronous_commit = local; CALL test.put(5)");
is(value($node, "SET synchronous_commit = local; SELECT test.pull('p', 100)"), '0',
	'a commit on disk that waits for its standby is not read, nor what stands behind it');
ok($node->poll_query_until('postgres', "SELECT wait_event = 'SyncRep' FROM eo.stalls"), 'eo.stalls shows it');
value($node, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
$node->poll_query_until('postgres', "SELECT count(*) = 6 FROM eo.fetch('p')") or die;
is(value($node, "SET synchronous_commit = local; SELECT test.pull('p', 100)"), '6', 'it is read when it no longer waits');
value($node, "ALTER SYSTEM RESET synchronous_standby_names");
value($node, 'SELECT pg_reload_conf()');
$node->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names') = ''") or die;
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
eval { $writer->quit };
$writer = session($node);

# ---- the append lock ------------------------------------------------------------------

# After a restart, whoever needs the log first takes the append lock and looks at
# all segments.  A prepared transaction holds it up in the middle.
value($node, "BEGIN; LOCK TABLE eo.log_5 IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'hold'");
$_->quit foreach ($writer, $other);
$node->restart;
$writer = session($node);
$other = session($node);
$pid = $writer->query_safe('SELECT pg_backend_pid()');
my $other_pid = $other->query_safe('SELECT pg_backend_pid()');
send_query($writer, "SELECT eo.enqueue('t', '\"first\"')");
send_query($other, "SELECT eo.enqueue('t', '\"second\"')");
wait_locked($node, $_) foreach ($pid, $other_pid);
ok($node->poll_query_until('postgres', "SELECT count(*) >= 2 FROM pg_locks WHERE NOT granted AND locktype = 'object' OR relation = 'eo.log_5'::regclass AND NOT granted"),
	'appends wait');
value($node, "SELECT pg_cancel_backend($other_pid)");
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_locks WHERE NOT granted AND pid = $other_pid") or die;
pass('a wait for the append lock can be cancelled');
($ret, $out, $err) = $node->psql('postgres', "SET lock_timeout = '50ms'; SELECT eo.enqueue('t', '\"third\"')");
like($err, qr/canceling statement due to lock timeout/, 'and times out');
value($node, "COMMIT PREPARED 'hold'");
$writer->query_safe('SELECT 1');
value($node, 'CALL test.put(3)');
is(pull($node, 'p'), 4, 'the others are appended and read');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
eval { $_->quit } foreach ($writer, $other);

# A transaction that holds such a lock may itself enqueue: a deadlock is found,
# nothing hangs.
value($node, "BEGIN; LOCK TABLE eo.log_5 IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'hold'");
$node->restart;
$writer = session($node);
$other = session($node);
$pid = $writer->query_safe('SELECT pg_backend_pid()');
$other->query_safe("BEGIN; SELECT eo.enqueue('t', '\"locker\"')");
send_query($other, "LOCK TABLE eo.log_5 IN ACCESS EXCLUSIVE MODE");
$other_pid = value($node, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE eo.log_5%'");
wait_locked($node, $other_pid);
send_query($writer, "SELECT eo.enqueue('t', '\"writer\"')");
wait_locked($node, $pid);
value($node, "COMMIT PREPARED 'hold'");
$other->query_safe('SELECT 1');
send_query($other, 'COMMIT');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_locks WHERE NOT granted'), 'nobody waits for ever');
ok($node->poll_query_until('postgres', 'SELECT relay_pid IS NOT NULL FROM eo.log_status()'), 'a relay runs');
value($node, 'CALL test.put(3)');
cmp_ok(pull($node, 'p'), '>=', 3, 'appends go on');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
eval { $_->quit } foreach ($writer, $other);
$node->stop;

done_testing();
