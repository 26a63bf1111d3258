# With nothing to do, launcher, relay and publishers do not wake up at all.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# Seconds without a wake-up, once things have calmed down
my $period = 4;

# Seconds without a wake-up that count as calm
my $calm = 1.5;

my $node = new_server('idle', conf => <<EOC);
max_worker_processes = 12
log_statement = none
EOC
my $path = subscribe_file($node, 's');
subscribe_file($node, 'paused');
subscribe_stub($node, 'failed', 'abort', options => '{"max_restarts": 0}');
subscribe_stub($node, 'none', 'ack', topics => 'never');
$node->safe_psql('postgres', "SELECT eo.subscribe('pull')");
$node->safe_psql('postgres', "SELECT eo.pause('paused')");
my $seq = enqueue($node, 'a', 100);
ok(wait_published($node, 's', $seq), 'events are published');
ok(wait_published($node, 'none', $seq), 'and passed by who does not want them');
ok(wait_field($node, 'failed', 'state', 'failed'), 'one subscription has failed');
ok(wait_field($node, 'paused', 'state', 'paused'), 'one is paused');

my %processes = split /[|\n]/, $node->safe_psql('postgres', <<EOS);
SELECT 'relay', relay_pid FROM eo.log_status() UNION ALL
SELECT 'launcher', pid FROM pg_stat_activity WHERE backend_type = 'eo_outbox launcher' UNION ALL
SELECT 'publisher of ' || name, publisher_pid FROM eo.subscriptions WHERE publisher_pid IS NOT NULL
EOS
is(join(',', sort keys %processes), 'launcher,publisher of none,publisher of s,relay',
	'these processes run');

# How often a process has gone to sleep, which is how often it was woken.
sub switches
{
	my ($pid) = @_;
	my ($n) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $n;
}

sub snapshot
{
	return map { $_ => switches($processes{$_}) } keys %processes;
}

# The sessions above have just ended; wait until their echoes have too.
my %before = snapshot();
wait_until(
	'everything is calm',
	sub {
		my %earlier = %before;
		usleep($calm * 1_000_000);
		%before = snapshot();
		return !grep { $before{$_} != $earlier{$_} } keys %before;
	});
usleep($period * 1_000_000);
my %after = snapshot();
foreach my $name (sort keys %processes)
{
	is($after{$name} - $before{$name}, 0, "no wake-up of the $name in $period s");
}
ok(wait_published($node, 's', enqueue($node, 'a', 1)), 'and all of it wakes up again');
my %awake = snapshot();
cmp_ok($awake{relay}, '>', $after{relay}, 'which the count shows');

# While publishers are at work, commits do not wake the relay, nor for one that has
# nothing to do with them: it looks each 5 ms, and waits for the disk perhaps, with
# each subscription in turn.
my $commits = 5000;
subscribe_stub($node, 'at_work', 'stall');
$node->safe_psql('postgres', "SELECT eo.unsubscribe(name) FROM eo.subscriptions WHERE name NOT IN ('at_work', 'none')");
ok(wait_field($node, 'at_work', 'state', 'streaming'), 'a publisher runs that settles nothing');
my $begun = time;
my $woken = switches($processes{relay});
$node->safe_psql('postgres', "SET synchronous_commit = off;\n" . "SELECT eo.enqueue('a', '1');\n" x $commits);
my $looks = (time - $begun) / 0.005;
cmp_ok(switches($processes{relay}) - $woken, '<', 100 + 4 * $looks, "$commits commits do not each wake the relay");
ok( wait_until(
		'all are sent',
		sub {
			return $node->safe_psql('postgres', "SELECT in_flight FROM eo.subscriptions WHERE name = 'at_work'") == $commits;
		}),
	'and all of them are sent');
$node->stop;

done_testing();
