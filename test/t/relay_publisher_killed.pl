# A publisher that is killed at any moment costs a reconnect, nothing else.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{EO_SEED} // time() % 1_000_000;
srand($seed);
diag("EO_SEED=$seed");

# The log must keep all of it for the check.
my $node = new_server('killed', conf => <<EOC);
max_worker_processes = 12
eo_outbox.retention = '1h'
eo_outbox.batch_events = 50
eo_outbox.max_in_flight = 200
EOC
my %path = (
	all => subscribe_file($node, 'all'),
	some => subscribe_file($node, 'some', topics => 'a*,*c'),
	slow => subscribe_file($node, 'slow', topics => 'b'));

# Two clients; a third of what they do is undone.
sub start_client
{
	my ($sql) = @_;
	my ($out, $err);
	return IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', \undef, '>', \$out, '2>', \$err);
}

# They go on until the table is empty.
$node->safe_psql('postgres', 'CREATE TABLE going AS SELECT 1');
my @clients = map { start_client(<<EOS) } 1 .. 2;
DO \$\$
DECLARE i int := 0;
BEGIN
	WHILE EXISTS (SELECT FROM going) LOOP
		i := i + 1;
		PERFORM eo.enqueue((ARRAY['ab', 'b', 'bc'])[1 + (i / 3) % 3], to_jsonb(i));
		IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END
\$\$;
EOS

my $kills = 0;
while ($kills < 40)
{
	my @pids = grep { $_ ne '' } split /\n/, $node->safe_psql('postgres',
		'SELECT publisher_pid FROM eo.subscriptions');

	kill 'KILL', $pids[ int(rand(@pids)) ] and $kills++ if @pids;
	usleep(int(rand(100_000)));
}
$node->safe_psql('postgres', 'DELETE FROM going');
$_->finish foreach @clients;
my $seq = $node->safe_psql('postgres', 'SELECT last_seq FROM eo.log_status()');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM eo.events'), '>', 1000,
	'the clients were busy');
foreach my $name (sort keys %path)
{
	ok(wait_published($node, $name, $seq), "$name catches up after $kills kills in all");
}
check_events($node, $path{all}, 'true', 'one file has every event');
check_events($node, $path{some}, "topic LIKE 'a%' OR topic LIKE '%c'", 'one has those of its topics');
check_events($node, $path{slow}, "topic = 'b'", 'one has those of its topic');
cmp_ok(field($node, 'all', 'restarts') + field($node, 'some', 'restarts')
	  + field($node, 'slow', 'restarts'), '>', 10, 'publishers were restarted often');
is(server_starts($node), 1, 'the server was never restarted');

# ---- with the server ---------------------------------------------------------

foreach my $round (1 .. 3)
{
	my $read = field($node, 'all', 'published');
	my $client = start_client(
		"DO \$\$ BEGIN FOR i IN 1 .. 30000 LOOP PERFORM eo.enqueue('ab', to_jsonb(i)); COMMIT; END LOOP; END \$\$");

	wait_until('events flow', sub { field($node, 'all', 'published') > $read + 50 });
	kill_and_start($node);
	$client->finish;
	$seq = $node->safe_psql('postgres', "SELECT eo.enqueue('ab', '0'); SELECT eo.last_seq()");
	$seq =~ s/.*\n//s;
	ok(wait_published($node, 'all', $seq), "everything is published after a crash, round $round");
	check_events($node, $path{all}, 'true', 'every committed event is in the file, once');
}

# No orphans: all publishers are children of the relay.
my $relay = $node->safe_psql('postgres', 'SELECT relay_pid FROM eo.log_status()');
my @parents = split /\n/, `ps -o ppid= -C eo-publish-file`;
is(scalar(grep { $_ == $relay } @parents), 3, 'each subscription has one publisher');
$node->stop;

done_testing();
