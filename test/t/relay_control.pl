# Pausing, seeking, new options, brokers that are behind or ahead, truncation.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('control', conf => <<EOC);
max_worker_processes = 12
max_prepared_transactions = 2
eo_outbox.batch_events = 20
EOC

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# "seq/position" of the events in a file, after the first $skip
sub places
{
	my ($path, $skip) = @_;
	my @events = read_events($path);

	splice(@events, 0, $skip);
	return join ' ', map { "$_->{sequence}/$_->{position}" } @events;
}

# ---- pause and resume --------------------------------------------------------

my $path = subscribe_file($node, 's');
ok(wait_published($node, 's', enqueue($node, 'a', 10)), 'published');
my $pid = field($node, 's', 'publisher_pid');
sql("SELECT eo.pause('s')");
ok(wait_field($node, 's', 'state', 'paused'), 'paused');
ok(wait_field($node, 's', 'publisher_pid IS NULL', 't'), 'without a publisher');
ok(!alive($pid), 'which is gone');
is(field($node, 's', 'restarts'), '0', 'that is no restart');
my $seq = enqueue($node, 'a', 10);
ok(!wait_published($node, 's', $seq, 0.3), 'nothing is published while paused');
is(scalar(read_events($path)), 10, 'nothing is in the file');
sql("SELECT eo.resume('s')");
ok(wait_published($node, 's', $seq), 'published after the pause');
check_events($node, $path, 'true', 'all is there');

# ---- seek --------------------------------------------------------------------

enqueue($node, 'b', 5);
$seq = enqueue($node, 'a', 5);
wait_published($node, 's', $seq) or die;
is($seq, 30, 'thirty events');
sql("SELECT eo.seek('s', 18)");
wait_until('replayed', sub { scalar(read_events($path)) >= 42 });
is(places($path, 30), '19/19 20/20 21/1 22/2 23/3 24/4 25/5 26/21 27/22 28/23 29/24 30/25',
	'seek backwards repeats events with their seqs and positions');
ok(wait_published($node, 's', enqueue($node, 'a', 1)), 'and goes on');
is(places($path, 42), '31/26', 'after them');

sql("SELECT eo.pause('s')");
$seq = enqueue($node, 'a', 4);
sql("SELECT eo.seek('s', 33); SELECT eo.resume('s')");
ok(wait_published($node, 's', $seq), 'seek forwards');
is(places($path, 43), '34/29 35/30', 'leaves a gap in the positions');

# Killed in the middle of a replay
sql("SELECT eo.pause('s')");
wait_field($node, 's', 'state', 'paused') or die;
$seq = $node->safe_psql('postgres',
	"SELECT count(eo.enqueue('a', to_jsonb(i))) FROM generate_series(1, 20000) i; SELECT eo.last_seq()");
$seq =~ s/.*\n//s;
sql("SELECT eo.resume('s')");
ok(wait_published($node, 's', $seq), 'many events');
my $lines = scalar(read_events($path));
sql("SELECT eo.seek('s', 0)");
wait_until('the replay has begun', sub { scalar(read_events($path)) > $lines });
kill 'KILL', field($node, 's', 'publisher_pid') || die 'no publisher';
wait_until('replayed', sub { scalar(read_events($path)) >= $lines + $seq });
my @replay = read_events($path);
splice(@replay, 0, $lines);
is(join(' ', map { $_->{sequence} } @replay), join(' ', 1 .. $seq),
	'a replay whose publisher was killed is complete, and nothing is in it twice');

# ---- options -----------------------------------------------------------------

$pid = field($node, 's', 'publisher_pid');
my $other = "$path.other";
sql("ALTER SERVER file_s OPTIONS (SET path '$other')");
ok(wait_published($node, 's', enqueue($node, 'a', 3)), 'a new option takes effect');
wait_until('the other file is there', sub { scalar(read_events($other)) == 3 });
is(scalar(read_events($path)), $lines + $seq, 'nothing more goes to the old file');
isnt(field($node, 's', 'publisher_pid'), $pid, 'it has a new publisher');
$pid = field($node, 's', 'publisher_pid');
sql("CREATE SERVER unrelated FOREIGN DATA WRAPPER eo_stub");
sql("SELECT eo.subscribe('unrelated', server => 'unrelated')");
wait_field($node, 'unrelated', 'state', 'streaming') or die;
sql("CREATE USER MAPPING FOR PUBLIC SERVER unrelated");
is(field($node, 's', 'publisher_pid'), $pid, 'other changes leave it alone');
sql("SELECT eo.unsubscribe('s')");
wait_until('its publisher is gone', sub { !alive($pid) });
is(sql("SELECT count(*) FROM eo.cursor"), '1', 'unsubscribe removes its state')
  if $node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM eo.cursor');

# ---- where to start -------------------------------------------------------------

# The same file again, from the beginning: what it has is of another subscription.
sql("SELECT eo.subscribe('s2', server => 'file_s', start_at => 'beginning')");
$seq = sql("SELECT last_seq FROM eo.log_status()");
ok(wait_published($node, 's2', $seq), 'a new subscription on a used file');
is(scalar(read_events($other)), 3 + $seq, 'gets every event');

# The broker has more than the relay knows: those are not sent again.
subscribe_stub($node, 'ahead', 'log', topics => 'c');
enqueue($node, 'c', 3);
$seq = enqueue($node, 'c', 3);
wait_published($node, 'ahead', $seq) or die;
sql("SELECT eo.pause('ahead')");
wait_field($node, 'ahead', 'state', 'paused') or die;
my $ahead = enqueue($node, 'c', 4);
my $last = enqueue($node, 'c', 2);
sql("ALTER SERVER stub_ahead OPTIONS (SET script 'position:$ahead;stall')");
sql("SELECT eo.resume('ahead')");
ok(wait_field($node, 'ahead', 'state', 'failed'), 'what the relay has not sent the broker cannot have');
like(field($node, 'ahead', 'last_error'), qr/$ahead, which did not come from this database \(it sent none after $seq\)/, 'and that is said');
sql("SELECT pg_terminate_backend(relay_pid) FROM eo.log_status()");
sql("SELECT eo.resume('ahead')");
ok(wait_published($node, 'ahead', $ahead), 'what a relay before it may have sent is passed over');
ok(wait_field($node, 'ahead', 'in_flight', '2'), 'the rest is sent');
is(sql("SELECT position FROM eo.position JOIN eo.subscription ON id = subscription WHERE name = 'ahead'"),
	'10', 'positions are counted on');
sql("ALTER SERVER stub_ahead OPTIONS (SET script 'log')");
ok(wait_published($node, 'ahead', $last), 'and published');

# The broker has less than it acknowledged.
my $lost = $last - 3;
sql("ALTER SERVER stub_ahead OPTIONS (SET script 'position:$lost')");
wait_until('a warning says so', sub { log_count($node, qr/has lost what came after event $lost/) });
ok(wait_published($node, 'ahead', $last), 'what the broker lost is sent again');
is(sql("SELECT position FROM eo.position JOIN eo.subscription ON id = subscription WHERE name = 'ahead'"),
	'12', 'under the same positions');
is(field($node, 'ahead', 'published'), 6 + 2 + 3, 'three events were sent again');

# The broker has what this log has never had.
sql("ALTER SERVER stub_ahead OPTIONS (SET script 'position:9999999')");
ok(wait_field($node, 'ahead', 'state', 'failed'), 'a broker from the future fails');
like(field($node, 'ahead', 'last_error'), qr/9999999, which did not come from this database/, 'and says why');
sql("SELECT eo.seek('ahead', $last)");
ok(wait_field($node, 'ahead', 'state', 'streaming'), 'eo.seek() goes on anyway');
$last = enqueue($node, 'c', 1);
ok(wait_published($node, 'ahead', $last), 'and publishes');

# The broker has forgotten all it had: only the same one, with the same options.
subscribe_stub($node, 'forgetful', 'position:0', topics => 'f');
$last = enqueue($node, 'f', 2);
ok(wait_published($node, 'forgetful', $last), 'a broker that has no position yet is published to');
kill 'KILL', field($node, 'forgetful', 'publisher_pid');
ok(wait_field($node, 'forgetful', 'state', 'failed'), 'one that has none any more fails');
like(field($node, 'forgetful', 'last_error'), qr/no longer keeps a position .*it had acknowledged $last.*eo\.seek\(\)/, 'and says why');
sql("SELECT eo.resume('forgetful')");
ok(wait_field($node, 'forgetful', 'state', 'failed'), 'also when it is asked again');
sql("SELECT eo.seek('forgetful', $last - 1)");
wait_until('eo.seek() says where to go on', sub { field($node, 'forgetful', 'published') == 3 });
sql("SELECT pg_terminate_backend(relay_pid) FROM eo.log_status()");
ok(wait_field($node, 'forgetful', 'state', 'failed'), 'it is watched from then on, by the next relay too');
sql("ALTER SERVER stub_forgetful OPTIONS (SET script 'position:0;log')");
ok($node->poll_query_until('postgres', "SELECT kept_as IS NULL FROM eo.cursor WHERE subscription ="
		  . " (SELECT id FROM eo.subscription WHERE name = 'forgetful')"), 'other options are another broker, for the next relay too');
$last = enqueue($node, 'f', 1);
ok(wait_published($node, 'forgetful', $last), 'it is published to');

# ---- truncation --------------------------------------------------------------------

sql("ALTER SYSTEM SET eo_outbox.segment_size = '1MB'");
sql("ALTER SYSTEM SET eo_outbox.retention = 0");
sql("SELECT pg_reload_conf()");
subscribe_stub($node, 'few', 'ack', topics => 'never');
my $start = sql("SELECT eo.subscribe('pull', '{never}')");
foreach (1 .. 6)
{
	sql("SELECT count(eo.enqueue('d', (SELECT jsonb_agg(md5((i * 1000 + j)::text)) FROM generate_series(1, 100) j)))"
		  . " FROM generate_series(1, 400) i");
}
$seq = sql('SELECT last_seq FROM eo.log_status()');
wait_published($node, $_, $seq) or die foreach qw(s2 ahead few unrelated);
cmp_ok(sql('SELECT floor_seq FROM eo.log_status()'), '<=', $start, 'a pull subscription keeps the log');
sql("SELECT eo.ack('pull', $seq)");
sql("SELECT eo.enqueue('d', '1')");
ok($node->poll_query_until('postgres',
		"SELECT floor_seq > $start FROM eo.log_status()"), 'segments that nobody needs are truncated')
  or diag(sql('SELECT * FROM eo.segments'));
wait_field($node, 'few', 'lag_events', '0');
ok($node->poll_query_until('postgres',
		"SELECT count(*) <= 2 FROM eo.segments WHERE state <> 'free'"), 'all of them');

# With no subscription at all the log is truncated too.
$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->safe_psql('empty', 'CREATE EXTENSION eo_outbox');
foreach (1 .. 4)
{
	$node->safe_psql('empty',
		"SELECT count(eo.enqueue('d', (SELECT jsonb_agg(md5((i * 1000 + j)::text)) FROM generate_series(1, 100) j)))"
		  . " FROM generate_series(1, 400) i");
}
ok($node->poll_query_until('empty',
		"SELECT count(*) <= 1 FROM eo.segments WHERE state <> 'free'"), 'without subscriptions too');
$node->safe_psql('postgres', 'DROP DATABASE empty');

# The broker has lost what the log has lost too.
sql("ALTER SERVER stub_ahead OPTIONS (SET script 'position:1')");
ok(wait_field($node, 'ahead', 'state', 'failed'), 'a loss that cannot be mended fails');
like(field($node, 'ahead', 'last_error'), qr/lost what came after event 1 .*eo\.seek\(\) accepts/,
	'and says what is missing');
$seq = sql('SELECT last_seq FROM eo.log_status()');
sql("SELECT eo.seek('ahead', $seq)");
ok(wait_field($node, 'ahead', 'state', 'streaming'), 'eo.seek() accepts it');

# ---- a copy of the database ----------------------------------------------------------

sql('CREATE DATABASE copy TEMPLATE postgres');
ok($node->poll_query_until('copy',
		"SELECT bool_and(state = 'waiting for adoption') FROM eo.subscriptions WHERE server IS NOT NULL"),
	'a copy does not publish') or diag($node->safe_psql('copy', 'SELECT name, state FROM eo.subscriptions'));
is($node->safe_psql('copy', 'SELECT count(publisher_pid) FROM eo.subscriptions'), '0', 'it has no publishers');
$node->safe_psql('copy', 'SELECT eo.adopt()');
ok($node->poll_query_until('copy',
		"SELECT bool_or(state = 'streaming') FROM eo.subscriptions"), 'before eo.adopt()');
is(server_starts($node), 1, 'the server was never restarted');
$node->poll_query_until('postgres', 'SELECT relay_pid IS NOT NULL FROM eo.log_status()') or die 'no relay';
is(log_count($node, qr/relay has started for database "postgres"/), 4,
	'nor was the relay, but where it was ended and for the copy');
ok($node->poll_query_until('copy', "SELECT state = 'streaming' FROM eo.subscriptions WHERE name = 'forgetful'"),
	'a broker that never kept a position of the copy has not forgotten it');

# ---- configuration that cannot be read yet ----------------------------------------

my $present = subscribe_file($node, 'present');
wait_field($node, 'present', 'state', 'streaming') or die;
my $relay = sql('SELECT relay_pid FROM eo.log_status()');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE eo.lineage IN ACCESS EXCLUSIVE MODE');
subscribe_file($node, 'later');
ok(!wait_published($node, 'later', 1, 1.5), 'a locked table delays a new subscription');
ok(wait_published($node, 'present', enqueue($node, 'a', 5)), 'and no other one');
$locker->query_safe('COMMIT');
ok(wait_field($node, 'later', 'state', 'streaming'), 'it starts when it can');
is(sql('SELECT relay_pid FROM eo.log_status()'), $relay, 'by the same relay');
$locker->quit;
sql("SELECT eo.unsubscribe('later')");

# ---- servers in a prepared transaction --------------------------------------------

my ($ret, $out, $err) = $node->psql('postgres', <<EOS);
BEGIN;
ALTER SERVER file_present OPTIONS (SET path '$present.prepared');
PREPARE TRANSACTION 'server';
EOS
is("$ret$err", '0', 'a change of a server is prepared');
$seq = enqueue($node, 'a', 1);
wait_published($node, 'present', $seq) or die;
ok(!-e "$present.prepared", 'it is not in force');
sql("COMMIT PREPARED 'server'");
wait_until('the new path is in use', sub { -e "$present.prepared" });
sql("SELECT eo.unsubscribe('present')");
$node->psql('postgres', "SELECT eo.subscribe('pull')");
($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT eo.wait_published('pull', 1, '1 s')");
like($err, qr/ERROR:  42809: subscription "pull" is not published to a server/, 'nobody publishes what is pulled');
sql("SELECT eo.unsubscribe('pull')");

# ---- locks -----------------------------------------------------------------------------

# A session that holds a lock until the table is empty.
sub start_locker
{
	my ($lock) = @_;
	my ($out, $err);

	sql('DROP TABLE IF EXISTS held; CREATE TABLE held AS SELECT 1');
	my $session = IPC::Run::start(
		[
			'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'BEGIN', '-c', $lock, '-c',
			'DO $$ BEGIN WHILE EXISTS (SELECT FROM public.held) LOOP END LOOP; END $$',
			'-c', 'COMMIT'
		],
		'<', \undef, '>', \$out, '2>', \$err);
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'DO %public.held%' AND pid <> pg_backend_pid()")
	  or die;
	return $session;
}

$path = subscribe_file($node, 'locked', topics => 'l');
wait_published($node, 'locked', enqueue($node, 'l', 1)) or die;
my $lines_before = 1;
foreach my $lock (
	"SELECT FROM eo.cursor WHERE subscription = (SELECT id FROM eo.subscription WHERE name = 'locked') FOR UPDATE",
	'LOCK TABLE eo.cursor',
	'LOCK TABLE eo.position',
	'DROP EXTENSION eo_outbox CASCADE')
{
	my $session = start_locker($lock);
	my $drop = $lock =~ /^DROP/;

	# While the extension is being dropped nobody can enqueue either.
	if (!$drop)
	{
		my $last = enqueue($node, 'l', 1);
		wait_until('published', sub { scalar(read_events($path)) > $lines_before });
		ok(1, "published in spite of $lock");
		ok(!wait_published($node, 'locked', $last, 0.3), 'and not told before it is on record');
		$lines_before++;
	}
	sql('DELETE FROM held');
	$session->finish;
	next if $drop;
	ok(wait_published($node, 'locked', sql('SELECT last_seq FROM eo.log_status()')), 'but then');
}
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'eo_outbox relay' AND datname = 'postgres'"),
	'DROP EXTENSION in a long transaction: the relay leaves at its end');
is(log_count($node, qr/deadlock/), 0, 'without a deadlock');
is(log_count($node, qr/eo_outbox relay ERROR/), 0, 'and without an error');
$node->stop;

done_testing();
