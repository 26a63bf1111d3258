# Publishers that fail in every way there is: the server does not notice, other
# subscriptions do not, and what happened and what follows is told.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('faults', conf => <<EOC);
max_worker_processes = 12
log_statement = none
eo_outbox.max_in_flight = 20000
EOC
my $path = subscribe_file($node, 'good');

sub drop_stub
{
	my ($name) = @_;
	$node->safe_psql('postgres', "SELECT eo.unsubscribe('$name'); DROP SERVER stub_$name");
	return;
}

# ---- crashes: at most so many restarts, then failed ---------------------------

my $n = 0;
foreach my $case (
	[ 'garbage@3', qr/protocol error: message of unknown type/ ],
	[ 'zeroframe@3', qr/protocol error: impossible frame length/ ],
	[ 'hugeframe@3', qr/protocol error: impossible frame length/ ],
	[ 'shortframe@3', qr/protocol error: malformed ACK/ ],
	[ 'forge@3', qr/protocol error: ACK of event \d+, which is not in flight/ ],
	[ 'retried@3', qr/protocol error: RETRIED of an event that was not sent again/ ],
	[ 'ready@3', qr/protocol error: READY came twice/ ],
	[ 'version:99@0', qr/protocol error: the publisher is of another version/ ],
	[ 'frame:5200@0', qr/protocol error: malformed READY/ ],
	[ 'frame:410000000000000001@0', qr/protocol error: message of type 0x41 before READY/ ],
	[ 'frame:4e00@3', qr/protocol error: malformed NACK/ ],
	[ 'frame:4c@3', qr/protocol error: malformed LOG/ ],
	[ 'frame:4900@3', qr/protocol error: malformed STAT/ ],
	[ 'frame:5400@3', qr/protocol error: RETRIED of an event that was not sent again/ ],
	[ 'frame:4e000000007fffffff0100000000@3', qr/protocol error: NACK of event 2147483647, which is not in flight/ ],
	[ 'frame:4e000000007fffffff0000000000@3', qr/protocol error: NACK of event 2147483647, which is not in flight/ ],
	[ 'abort@1', qr/was killed by signal 6/ ],
	[ 'die:11@1', qr/was killed by signal 11/ ],
	[ 'vanish@1', qr/was killed by signal 9/ ],
	[ 'exit:3@1', qr/exited with status 3/ ],
	[ 'exit:0@1', qr/exited with status 0/ ])
{
	my ($script, $expected) = @$case;
	my $name = 'crash' . ++$n;

	# without progress before it, which would forgive the crash
	$script = "stall\@1-2;$script" if $script =~ /\@3/;
	subscribe_stub($node, $name, $script, topics => 'a',
		options => '{"max_restarts": 2, "restart_window": 60000}');
	enqueue($node, 'a', 3);
	ok(wait_field($node, $name, 'state', 'failed'), "$script: fails");
	like(field($node, $name, 'last_error'), $expected, "$script: says why");
	is(field($node, $name, 'restarts'), '2', "$script: after two restarts");
	drop_stub($name);
}
ok(log_count($node, qr/subscription "crash1" has failed: protocol error/) == 1,
	'the log says which subscription has failed');
ok(log_count($node, qr/HINT: .*eo\.resume\(\)/) > 0, 'and what to do');

# ---- progress forgives --------------------------------------------------------

subscribe_stub($node, 'mortal', 'die:9@4', topics => 'a', options => '{"max_restarts": 2}');
my $seq = enqueue($node, 'a', 30);
ok(wait_published($node, 'mortal', $seq), 'a publisher that dies after three events gets on');
cmp_ok(field($node, 'mortal', 'restarts'), '>', 5, 'with many restarts');
drop_stub('mortal');
subscribe_stub($node, 'repeats', 'backwards@1', topics => 'a', options => '{"max_restarts": 0}');
enqueue($node, 'a', 1);
ok(wait_field($node, 'repeats', 'state', 'failed'), 'the same ACK twice fails');
like(field($node, 'repeats', 'last_error'),
	qr/protocol error: ACK of event \d+, which is not in flight/, 'and says why');
is(field($node, 'repeats', 'published'), '1', 'what was acknowledged before counts');
drop_stub('repeats');

# ---- a broker that is away: never failed --------------------------------------

subscribe_stub($node, 'away', 'nack:retry,broker is away', topics => 'a',
	options => '{"max_restarts": 0}');
enqueue($node, 'a', 1);
$node->poll_query_until('postgres',
	"SELECT restarts >= 4 FROM eo.subscriptions WHERE name = 'away'");
isnt(field($node, 'away', 'state'), 'failed', 'an outage is not a crash');
like(field($node, 'away', 'last_error'), qr/broker is away/, 'its reason is shown');
my $delay = field($node, 'away',
	'extract(epoch FROM coalesce(next_start_at, now()) - last_error_at) * 1000');
cmp_ok($delay, '<', 31_000, 'the delay is bounded');
$node->safe_psql('postgres', "ALTER SERVER stub_away OPTIONS (SET script 'ack')");
ok(wait_field($node, 'away', 'state', 'streaming'), 'it goes on when the broker is back');
drop_stub('away');

subscribe_stub($node, 'refused', 'fail:no route to host', options => '{"max_restarts": 0}');
$node->poll_query_until('postgres',
	"SELECT restarts >= 2 FROM eo.subscriptions WHERE name = 'refused'");
like(field($node, 'refused', 'last_error'), qr/no route to host/, 'nor is a failure to connect');
drop_stub('refused');

# A status of 1 is what a publisher ends with that cannot go on for now.
subscribe_stub($node, 'leaves', 'exit:1@1', topics => 'a', options => '{"max_restarts": 0}');
enqueue($node, 'a', 1);
$node->poll_query_until('postgres',
	"SELECT restarts >= 2 FROM eo.subscriptions WHERE name = 'leaves'");
isnt(field($node, 'leaves', 'state'), 'failed', 'nor is an exit with status 1');
like(field($node, 'leaves', 'last_error'), qr/the publisher exited with status 1$/, 'which is told');
drop_stub('leaves');

# ---- what it says on stderr -----------------------------------------------------

subscribe_stub($node, 'speaks', 'stderr:cannot open the shop@1;exit:3@2', topics => 'a',
	options => '{"max_restarts": 0}');
enqueue($node, 'a', 1);
wait_until('the log has it',
	sub { log_count($node, qr/subscription "speaks": publisher: cannot open the shop$/m) == 1 });
enqueue($node, 'a', 1);
ok(wait_field($node, 'speaks', 'state', 'failed'), 'a publisher that says why it ends');
like(field($node, 'speaks', 'last_error'), qr/exited with status 3: cannot open the shop/, 'is quoted');
drop_stub('speaks');
my $long = 'x' x 2500;
subscribe_stub($node, 'shouts', "stderr:$long\@1", topics => 'a');
ok(wait_published($node, 'shouts', enqueue($node, 'a', 1)), 'a line that is too long does no harm');
wait_until('the log has its end', sub { log_count($node, qr/subscription "shouts": publisher: x+$/m) > 1 });
is(log_count($node, qr/publisher: x{1001}/), 0, 'and comes in pieces');
drop_stub('shouts');

# ---- asked to stop at an awkward time ----------------------------------------------

foreach my $case ([ 'unready', 'noready' ], [ 'deaf', 'hang@1' ])
{
	my ($name, $script) = @$case;

	subscribe_stub($node, $name, $script, topics => 'a');
	enqueue($node, 'a', 1);
	if ($name eq 'deaf')
	{
		wait_field($node, $name, 'in_flight', '1') or die;
	}
	else
	{
		$node->poll_query_until('postgres',
			"SELECT publisher_pid IS NOT NULL FROM eo.subscriptions WHERE name = '$name'") or die;
	}
	my $pid = field($node, $name, 'publisher_pid');
	$node->safe_psql('postgres', "SELECT eo.pause('$name')");
	wait_until("it is gone", sub { !alive($pid) });
	ok(wait_field($node, $name, 'publisher_pid IS NULL', 't'), "$script: is ended by eo.pause()");
	is(field($node, $name, 'restarts'), '0', "$script: which is no restart");
	drop_stub($name);
}

# ---- no answer ----------------------------------------------------------------

foreach my $script ('stall@2', 'hang@2', 'busy@2')
{
	my ($name) = $script =~ /(\w+)/;

	subscribe_stub($node, $name, $script, topics => 'a', options => '{"ack_timeout": 300}');
	wait_published($node, $name, enqueue($node, 'a', 1)) or die;
	my $last = enqueue($node, 'a', 1);
	ok(wait_published($node, $name, $last),
		"$script: is killed after ack_timeout, and the next one gets on");
	like(field($node, $name, 'last_error'), qr/no event was acknowledged for 300 ms/,
		"$script: says why");
	drop_stub($name);
}

# ---- others are not delayed ---------------------------------------------------

subscribe_stub($node, 'stalled', 'stall', topics => 'a');
subscribe_stub($node, 'hanging', 'hang@1', topics => 'a');
subscribe_stub($node, 'silent', 'noready', topics => 'a');
subscribe_stub($node, 'slow', 'slow:1000', topics => 'a', options => '{"max_in_flight": 1}');
subscribe_stub($node, 'failed', 'abort', topics => 'a', options => '{"max_restarts": 0}');
subscribe_stub($node, 'paused', 'ack', topics => 'a');
$node->safe_psql('postgres', "SELECT eo.pause('paused')");
$seq = $node->safe_psql('postgres', <<EOS);
SELECT count(eo.enqueue('a', to_jsonb(repeat('x', 2000)))) FROM generate_series(1, 30000);
SELECT eo.last_seq();
EOS
$seq =~ s/.*\n//s;
ok(wait_published($node, 'good', $seq), 'a large backlog of the others');
ok(wait_field($node, 'failed', 'state', 'failed'), 'with every kind of trouble');
my @latencies;
foreach (1 .. 20)
{
	my $last = enqueue($node, 'a', 1);
	my $t = time();
	wait_published($node, 'good', $last) or die;
	push @latencies, time() - $t;
}
@latencies = sort { $a <=> $b } @latencies;
cmp_ok($latencies[10], '<', 0.5, 'does not delay the good one');
is(field($node, 'paused', 'in_flight'), '0', 'nothing is sent to the paused one');
cmp_ok(field($node, 'stalled', 'in_flight'), '<=', 20_000, 'what is in flight is bounded');
ok($node->safe_psql('postgres',
		"SELECT bool_and(state = 'streaming') FROM eo.subscriptions WHERE name = 'good'") eq 't',
	'the good one streams');

# ---- configuration that cannot work -------------------------------------------

$node->safe_psql('postgres', <<EOS);
CREATE SERVER gone FOREIGN DATA WRAPPER eo_stub;
SELECT eo.subscribe('orphan', server => 'gone');
DROP SERVER gone CASCADE;
EOS
ok(wait_field($node, 'orphan', 'state', 'failed'), 'a dropped server fails its subscription');
like(field($node, 'orphan', 'last_error'), qr/server "gone" does not exist/, 'and says so');
$node->safe_psql('postgres', 'CREATE SERVER gone FOREIGN DATA WRAPPER eo_stub');
ok(wait_field($node, 'orphan', 'state', 'streaming'), 'it goes on when the server is there');

# Another one takes its name, at once.
sub replace_server
{
	my ($wrapper) = @_;
	$node->safe_psql('postgres',
		"BEGIN; DROP SERVER gone CASCADE; CREATE SERVER gone FOREIGN DATA WRAPPER $wrapper; COMMIT");
	return;
}

$node->safe_psql('postgres', 'CREATE FOREIGN DATA WRAPPER foreign_data');
replace_server('foreign_data');
ok(wait_field($node, 'orphan', 'state', 'failed'), 'a server of that name which is no broker fails it');
like(field($node, 'orphan', 'last_error'), qr/server "gone" is not of a kind that can be published to/, 'and is told from none');
replace_server('eo_stub');
ok(wait_field($node, 'orphan', 'state', 'streaming'), 'it goes on when there is one');

# A package may have left its publisher out.
my $library = $node->config_data('--pkglibdir') . '/eo_outbox/eo-publish-stub';
END { rename "$library.away", $library if defined $library && -e "$library.away" }
rename $library, "$library.away" or die "could not rename $library: $!";
kill 'KILL', field($node, 'orphan', 'publisher_pid');
ok(wait_field($node, 'orphan', 'state', 'failed'), 'a publisher that is not installed fails its subscription');
like(field($node, 'orphan', 'last_error'), qr/eo-publish-stub" is not installed: No such file/, 'and says so');
rename "$library.away", $library or die;
$node->safe_psql('postgres', "SELECT eo.resume('orphan')");
ok(wait_field($node, 'orphan', 'state', 'streaming'), 'it goes on when it is');

# Options that are stored may be of a version that knew others.
foreach my $case (
	[ '{"flavour": "sweet"}', qr/option "flavour" of the subscription is not known/ ],
	[ '{"max_in_flight": "many"}', qr/option "max_in_flight" of the subscription must be an integer/ ],
	[ '{"max_in_flight": true}', qr/option "max_in_flight" of the subscription must be an integer/ ],
	[ '{"max_in_flight": [1]}', qr/option "max_in_flight" of the subscription is not a string, number or boolean/ ],
	[ '{"flavour": null, "max_in_flight": 0}', qr/option "flavour" of the subscription is not a string/ ])
{
	my ($options, $expected) = @$case;

	$node->safe_psql('postgres', "UPDATE eo.subscription SET options = '$options' WHERE name = 'orphan'");
	ok( $node->poll_query_until('postgres',
			"SELECT state = 'failed' AND last_error LIKE 'option %' FROM eo.subscriptions WHERE name = 'orphan'"),
		"stored options $options fail");
	like(field($node, 'orphan', 'last_error'), $expected, 'and say which');
	$node->safe_psql('postgres', "UPDATE eo.subscription SET options = '{}' WHERE name = 'orphan'");
	ok(wait_field($node, 'orphan', 'state', 'streaming'), 'it goes on without them');
}
my $optional = subscribe_file($node, 'optional');
wait_field($node, 'optional', 'state', 'streaming') or die;
$node->safe_psql('postgres', <<EOS);
BEGIN;
ALTER FOREIGN DATA WRAPPER eo_file NO VALIDATOR;
ALTER SERVER file_optional OPTIONS (DROP path);
COMMIT;
EOS
ok(wait_field($node, 'optional', 'state', 'failed'), 'a server without what it must have fails');
like(field($node, 'optional', 'last_error'), qr/option "path" of the server is missing/, 'and says what');
$node->safe_psql('postgres', "ALTER SERVER file_optional OPTIONS (ADD path '$optional')");
ok(wait_field($node, 'optional', 'state', 'streaming'), 'it goes on when it has it');

# The user mapping is that of the subscription's owner, else everybody's, else none.
$node->safe_psql('postgres', <<EOS);
CREATE ROLE seller;
GRANT USAGE ON FOREIGN SERVER gone TO seller;
SELECT eo.grant_operator('seller');
ALTER FOREIGN DATA WRAPPER eo_stub NO VALIDATOR;
EOS
$node->safe_psql('postgres', "SET ROLE seller; SELECT eo.subscribe('sale', server => 'gone')");
ok(wait_field($node, 'sale', 'state', 'streaming'), 'without a user mapping');
$node->safe_psql('postgres', "CREATE USER MAPPING FOR PUBLIC SERVER gone OPTIONS (flavour 'sweet')");
foreach my $name ('sale', 'orphan')
{
	ok(wait_field($node, $name, 'state', 'failed'), "$name: that of everybody is read");
	like(field($node, $name, 'last_error'), qr/option "flavour" of the user mapping is not known/, 'and checked');
}
$node->safe_psql('postgres', 'CREATE USER MAPPING FOR seller SERVER gone');
ok(wait_field($node, 'sale', 'state', 'streaming'), 'one of the owner takes its place');
is(field($node, 'orphan', 'state'), 'failed', 'for nobody else');
$node->safe_psql('postgres', 'DROP USER MAPPING FOR PUBLIC SERVER gone');
ok(wait_field($node, 'orphan', 'state', 'streaming'), 'without one again');
$node->safe_psql('postgres', "CREATE USER MAPPING FOR CURRENT_USER SERVER gone OPTIONS (flavour 'sweet')");
ok(wait_field($node, 'orphan', 'state', 'failed'), 'orphan: that of its own owner is read');
is(field($node, 'sale', 'state'), 'streaming', 'and not by the subscription of another');
$node->safe_psql('postgres', "DROP USER MAPPING FOR CURRENT_USER SERVER gone; SELECT eo.unsubscribe('sale')");
ok(wait_field($node, 'orphan', 'state', 'streaming'), 'it goes on without it');

# ---- an error inside the relay ------------------------------------------------

subscribe_stub($node, 'broken', 'ack', topics => 'e');
wait_published($node, 'broken', enqueue($node, 'e', 1)) or die;
my $id = $node->safe_psql('postgres', "SELECT id FROM eo.subscription WHERE name = 'broken'");
$node->safe_psql('postgres',
	"ALTER TABLE eo.position ADD CONSTRAINT trouble CHECK (subscription <> $id OR position < 3)");
$seq = enqueue($node, 'e', 5);
ok(wait_published($node, 'good', $seq), 'an error in one subscription does not disturb another');
$node->poll_query_until('postgres',
	"SELECT last_error LIKE '%violates check constraint%' FROM eo.subscriptions WHERE name = 'broken'");
like(field($node, 'broken', 'last_error'), qr/violates check constraint "trouble"/, 'it is shown');
$node->safe_psql('postgres', 'ALTER TABLE eo.position DROP CONSTRAINT trouble');
ok(wait_published($node, 'broken', $seq), 'and tried again');

check_events($node, $path, 'true', 'the file has everything, once, in order');
is(server_starts($node), 1, 'the server was never restarted');
is($node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eo_outbox relay'"), '1',
	'the relay lives');
is(log_count($node, qr/eo_outbox relay has started/), 1, 'and is the first one');

my @pids = grep { $_ ne '' } split /\n/,
  $node->safe_psql('postgres', 'SELECT publisher_pid FROM eo.subscriptions');
$node->stop;
is(scalar(grep { alive($_) } @pids), 0, 'no publisher is left when the server has stopped');

done_testing();
