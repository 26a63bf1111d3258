# Where the relay cannot go on it sleeps, and goes on when it can: settings that
# change, a full window or a recount that meet a commit in progress, a lock.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_log_server('waits', conf => <<EOC);
eo_outbox.max_in_flight = 5
EOC
my $path = subscribe_file($node, 'f');
my $writer = session($node);
my $relay = value($node, 'SELECT relay_pid FROM eo.log_status()');
my $holder;

# Processor time of the relay until now, in seconds
sub used
{
	my @fields = split ' ', slurp_file("/proc/$relay/stat") =~ s/.*\) //sr;
	return ($fields[11] + $fields[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# One test.  Stalls are looked at each second, and a relay that does not sleep
# takes a processor from then on.
sub check_sleeps
{
	my ($what) = @_;

	usleep(1_200_000);  # lasts: until the relay has looked at the stall again
	my ($begun, $before) = (time, used());
	usleep(2_000_000);  # lasts: what is used in that time is compared
	cmp_ok((used() - $before) / (time - $begun), '<', 0.2, "the relay sleeps: $what");
	return;
}

# ---- settings ------------------------------------------------------------------

subscribe_stub($node, 'stalled', 'stall', topics => 'stalled');
enqueue($node, 'stalled', 20);
ok(wait_field($node, 'stalled', 'in_flight', 5), 'no more than max_in_flight');
$node->safe_psql('postgres', 'ALTER SYSTEM SET eo_outbox.max_in_flight = 50');
$node->reload;
ok(wait_field($node, 'stalled', 'in_flight', 20), 'which a reload changes');

# ---- a full window ---------------------------------------------------------------

$node->safe_psql('postgres', "SELECT eo.unsubscribe('stalled')");
subscribe_stub($node, 'full', 'stall', topics => 'full', options => '{"max_in_flight": 1}');
$node->safe_psql('postgres', "SELECT eo.pause('full')");
enqueue($node, 'full', 1);
$holder = hold_commit($node, $writer, "SELECT eo.enqueue('full', '2')");
$node->safe_psql('postgres', "SELECT eo.resume('full')");
ok(wait_field($node, 'full', 'in_flight', 1), 'an event in front of a commit in progress fills the window');
check_sleeps('a full window in front of a commit in progress');
release_commit($holder, $writer);
$node->safe_psql('postgres', "ALTER SERVER stub_full OPTIONS (SET script 'ack')");
ok(wait_published($node, 'full', value($node, 'SELECT max(seq) FROM eo.events')), 'and goes on');

# ---- a recount -------------------------------------------------------------------

$holder = hold_commit($node, $writer, "SELECT eo.enqueue('f', '1')");
my $behind = enqueue($node, 'f', 1);
$node->safe_psql('postgres', "SELECT eo.seek('f', $behind)");
ok(wait_field($node, 'f', 'state', 'starting'), 'seeking forward waits for a commit in progress');
check_sleeps('a recount that waits');
$node->safe_psql('postgres', "SELECT eo.pause('f')");
ok(wait_field($node, 'f', 'state', 'paused'), 'paused meanwhile');
check_sleeps('a recount of a paused subscription');
$node->safe_psql('postgres', "SELECT eo.resume('f')");
release_commit($holder, $writer);
ok(wait_field($node, 'f', 'state', 'streaming'), 'resumed, it arrives');
ok(wait_published($node, 'f', enqueue($node, 'f', 1)), 'and publishes what comes');

# ---- a lock ----------------------------------------------------------------------

$node->safe_psql('postgres', "SELECT eo.unsubscribe('full')");
my $n = () = read_events($path);
my $locker = session($node);
$locker->query_safe("BEGIN; LOCK TABLE eo.log_0 IN ACCESS EXCLUSIVE MODE");
$node->safe_psql('postgres', "SELECT eo.seek('f', 0)");
ok($node->poll_query_until('postgres', "SELECT last_error LIKE '%lock timeout%' FROM eo.subscriptions WHERE name = 'f'"),
	'who cannot read the log for a lock says so');
like(field($node, 'f', 'state'), qr/^(backoff|starting)$/, 'and tries again');
$locker->query_safe('COMMIT');
ok(wait_field($node, 'f', 'state', 'streaming'), 'by itself, when the lock is gone');
wait_until('all is replayed', sub { return read_events($path) > $n; });
is(value($node, 'SELECT relay_pid FROM eo.log_status()'), $relay, 'all in one relay');

$_->quit foreach $writer, $locker;
$node->stop;

done_testing();
