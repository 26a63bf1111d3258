# Idempotency keys: twins at the same time, backends and servers that die, and
# those who wait for a lease.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant TWINS => 16;

my $node = new_server('idempotency', conf => <<EOC);
max_connections = 60
max_prepared_transactions = 5
EOC

# pay() waits while somebody holds advisory lock 1.
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE effect (key text);
CREATE FUNCTION pay(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect VALUES (request ->> 'key');
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN jsonb_build_object('by', pg_backend_pid());
END $$;
CREATE TABLE held (key text PRIMARY KEY);
EOS

# Sends a begin that will not return at once; returns its process.
sub start_begin
{
	my ($session, $args) = @_;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	send_query($session, "SELECT state, response, recovery_point FROM eo.idempotency_begin($args)");
	return $pid;
}

# Waits until a process sleeps for a lease.
sub wait_asleep
{
	my ($pid) = @_;
	$node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Extension'")
	  or die "process $pid does not wait for a lease";
	return;
}

sub lease
{
	my ($key, $lease) = @_;
	return value($node, "SELECT token FROM eo.idempotency_begin('leases', '$key', lease => '$lease')");
}

# SQLSTATE of a query, or what it returned.
sub outcome
{
	my ($query) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n$query;");

	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : $out;
}

# ---- twins -------------------------------------------------------------------------

# The scope is new, too.
sub twins
{
	my ($key, $between) = @_;
	my $gate = session($node);
	my @twins = map { session($node) } 1 .. TWINS;

	$gate->query_safe('SELECT pg_advisory_lock(1)');
	my @pids = map { $_->query_safe('SELECT pg_backend_pid()') } @twins;
	foreach my $twin (@twins)
	{
		send_query($twin,
			"SELECT eo.idempotent('twins $key', '$key', jsonb_build_object('key', '$key'), 'pay(jsonb)')");
	}
	wait_locked($node, $_) foreach @pids;
	$between->(@pids) if $between;
	$gate->quit;

	# What each was told; nothing if it has died.
	my %answers;
	foreach my $twin (@twins)
	{
		my $answer = eval { $twin->query('SELECT 1') } // '';
		$answers{$1}++ if $answer =~ /(\{.*\})/;
		eval { $twin->quit };
	}
	return \%answers;
}

my $answers = twins('a');
is(join(',', values %$answers), TWINS, 'all twins get the same answer');
is(value($node, "SELECT count(*) FROM effect WHERE key = 'a'"), 1, 'and one of them has done the work');

$answers = twins(
	'b',
	sub {
		value($node, <<EOS);
SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND NOT granted
EOS
	});
is(join(',', values %$answers), TWINS - 1, 'where the one that works is ended, the others agree');
is(value($node, "SELECT count(*) FROM effect WHERE key = 'b'"), 1, 'and another one has done the work');

# ---- many keys at once, with failures ----------------------------------------------

my $dir = PostgreSQL::Test::Utils::tempdir;
append_to_file("$dir/keys.pgbench", <<'EOS');
\set k random(1, 40)
\set fails random(1, 3)
\if :fails = 1
BEGIN;
SELECT eo.idempotent('load', 'k' || :k, jsonb_build_object('key', 'load ' || :k), 'pay(jsonb)');
ROLLBACK;
\else
SELECT eo.idempotent('load', 'k' || :k, jsonb_build_object('key', 'load ' || :k), 'pay(jsonb)');
\endif
EOS
$node->command_ok([ 'pgbench', '-n', '-c', TWINS, '-j', 2, '-t', 100, '-f', "$dir/keys.pgbench", 'postgres' ],
	'many twins, some of which roll back');
is(value($node, "SELECT count(*) || ' ' || count(DISTINCT key) FROM effect WHERE key LIKE 'load%'"),
	'40 40', 'each key has its effect once');

# A lease as a lock: who has it is alone.  A waiter that is not woken would wait
# for an hour.
append_to_file("$dir/leases.pgbench", <<'EOS');
\set k random(1, 3)
SELECT token FROM eo.idempotency_begin('locks', 'k' || :k, lease => '1 hour') \gset
INSERT INTO held VALUES (:k);
DELETE FROM held WHERE key = :k::text;
SELECT eo.idempotency_release('locks', 'k' || :k, ':token');
EOS
$node->safe_psql('postgres', "SELECT eo.idempotency_begin('locks', 'k')");
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=120s';
	$node->command_ok([ 'pgbench', '-n', '-c', TWINS, '-j', 2, '-t', 100, '-f', "$dir/leases.pgbench", 'postgres' ],
		'leases are given to one at a time, and everybody gets his turn');
}

# ---- waiting for a lease -----------------------------------------------------------

my $waiter = session($node);
my $other = session($node);
my $token = lease('two', '1 hour');
my $pid = start_begin($waiter, "'leases', 'two'");
wait_asleep($pid);
wait_asleep(start_begin($other, "'leases', 'two'"));

my $switches = sub {
	my ($n) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $n;
};
my $before = $switches->();
value($node, 'SELECT pg_sleep(1)');    # lasts: for as long as nothing may happen
is($switches->() - $before, 0, 'who waits for a lease sleeps');

# What concerns other keys does not let anybody go.
value($node, "SELECT eo.idempotency_release('leases', 'elsewhere', '" . lease('elsewhere', '1 hour') . "')");
wait_asleep($pid);
value($node, "SELECT eo.idempotency_complete('leases', 'two', '\"answer\"', token => '$token')");
like($_->query('SELECT 1'), qr/^replay\|"answer"\|/m, 'a waiter gets the answer') foreach $waiter, $other;

# The claim itself is waited for first, and then the lease.
my $holder = session($node);
$holder->query_safe('BEGIN');
$token = $holder->query_safe("SELECT token FROM eo.idempotency_begin('leases', 'committed', lease => '1 hour')");
$pid = start_begin($waiter, "'leases', 'committed'");
wait_locked($node, $pid);
$holder->query_safe('COMMIT');
wait_asleep($pid);

# A completion that is rolled back wakes nobody.
$holder->query_safe("BEGIN; SELECT eo.idempotency_complete('leases', 'committed', '0', token => '$token')");
$holder->query_safe('ROLLBACK');
wait_asleep($pid);
is(outcome("SELECT state FROM eo.idempotency_begin('leases', 'committed', wait => false)"), 'EO409', 'the lease goes on');

# An extension is seen when the first lease would have ended.
value($node, "SELECT eo.idempotency_checkpoint('leases', 'committed', 'half', '$token', '1 hour')");
wait_asleep($pid);

# What is prepared is waited for as a transaction, since nobody tells of its end.
$holder->query_safe("BEGIN; SELECT eo.idempotency_complete('leases', 'committed', '1', token => '$token')");
$holder->query_safe("PREPARE TRANSACTION 'completion'");
wait_locked($node, $pid);
value($node, "COMMIT PREPARED 'completion'");
like($waiter->query('SELECT 1'), qr/^replay\|1\|/m, 'a completion in two phases is waited for');

# A waiter whose lease ends takes over.
$token = lease('short', '1 second');
value($node, "SELECT eo.idempotency_checkpoint('leases', 'short', 'charged', '$token')");
start_begin($waiter, "'leases', 'short', lease => '1 hour'");
like($waiter->query('SELECT 1'), qr/^new\|\|charged$/m, 'a lease that ends is taken over, with the recovery point');
is(outcome("SELECT eo.idempotency_complete('leases', 'short', '1', token => '$token')"), 'EO410', 'the late holder is refused');

$_->quit foreach $waiter, $other, $holder;

# ---- a backend dies between begin and commit ---------------------------------------

my $starts = server_starts($node);
my $session = session($node);
my $begun = $session->query_safe("BEGIN; SELECT state FROM eo.idempotency_begin('crash', 'k'); SELECT pg_backend_pid()");
my ($victim) = $begun =~ /(\d+)$/;
is(outcome("SELECT state FROM eo.idempotency_begin('crash', 'other', wait => false)"), 'EO409',
	'the scope is being registered');
kill 'KILL', $victim;
wait_until('the server has restarted', sub { server_starts($node) > $starts });
eval { $session->quit };
$node->poll_query_until('postgres', 'SELECT true');
is(value($node, "SELECT state FROM eo.idempotency_begin('crash', 'k', wait => false)"), 'new', 'a backend that dies wedges no key');

# ---- the server dies ---------------------------------------------------------------

my $long = lease('long', '1 hour');
my $short = lease('ends', '2 seconds');
value($node, "SELECT eo.idempotency_checkpoint('leases', 'ends', 'sent', '$short')");
$session = session($node);
$session->query_safe("BEGIN; SELECT eo.idempotency_begin('crash', 'open'); SELECT eo.idempotency_complete('crash', 'open', '1')");
kill_and_start($node);
eval { $session->quit };

is(value($node, "SELECT state FROM eo.idempotency_begin('crash', 'open', wait => false)"), 'new', 'an open claim is gone with the server');
is(value($node, "SELECT state FROM eo.idempotency_begin('twins a', 'a')"), 'replay', 'an answer is not');
is(outcome("SELECT state FROM eo.idempotency_begin('leases', 'long', wait => false)"), 'EO409', 'nor is a lease');
is(outcome("SELECT eo.idempotency_complete('leases', 'long', '1', token => '$long')"), '', 'its holder completes it');
is(value($node, "SELECT state, recovery_point FROM eo.idempotency_begin('leases', 'ends', lease => '1 hour')"),
	'new|sent', 'one that ended is taken over');
is(outcome("SELECT eo.idempotency_complete('leases', 'ends', '1', token => '$short')"), 'EO410', 'and its holder refused');

$node->stop;
done_testing();
