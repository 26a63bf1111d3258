# The ring of segments: rotation, growth while somebody lags, truncation,
# retention, restarts.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('segments', conf => <<EOC);
eo_outbox.segment_size = 1MB
eo_outbox.retention = 0
EOC
my $path = subscribe_file($node, 'f');

sub segments
{
	my ($state) = @_;
	return value($node, "SELECT count(*) FROM eo.segments WHERE state = '$state'");
}

# About a megabyte of events.
sub megabytes
{
	my ($n) = @_;
	for my $i (1 .. $n)
	{
		value($node, "SELECT count(eo.enqueue_bytes('t', test.noise(1000, i::text))) FROM generate_series(1, 1100) AS i");
	}
	return value($node, 'SELECT last_seq FROM eo.log_status()');
}

sub set
{
	my ($name, $value) = @_;
	value($node, "ALTER SYSTEM SET $name = '$value'");
	value($node, 'SELECT pg_reload_conf()');
	return;
}

# Once around the ring and further, with everything published as it comes.
my $last = 0;
for my $round (1 .. 12)
{
	$last = megabytes(1);
	ok(wait_published($node, 'f', $last), "round $round is published");
	$node->poll_query_until('postgres', "SELECT count(*) <= 2 FROM eo.segments WHERE state <> 'free'")
	  or die 'segments are not truncated';
}
is(segments('active'), '1', 'one segment is active');
cmp_ok(segments('free'), '>=', 6, 'the published ones are free');
my @events = read_events($path);
is(scalar(@events), 1100 * 12, 'all events are in the file');
is(scalar(grep { $events[$_]->{sequence} != $events[ $_ - 1 ]->{sequence} + 1 } 1 .. $#events), 0,
	'in order, without a gap');
is(value($node, 'SELECT sum(bytes) <= 3 * 1024 * 1024 FROM eo.segments'), 't', 'the log has stayed small');

# Somebody lags: nothing fails, nothing is lost; the active segment grows.
value($node, "SELECT eo.pause('f')");
$last = megabytes(12);
is(segments('free'), '0', 'all segments are in use');
is(value($node, "SELECT bytes > 3 * 1024 * 1024 FROM eo.segments WHERE state = 'active'"), 't',
	'the active segment has grown beyond its size');
subscribe_pull($node, 'p');
$last = megabytes(1);
is(pull($node, 'p', 300), 1100, 'what comes then is read');
check_pulled($node, 'p', 'pull');
value($node, "SELECT eo.unsubscribe('p')");
$node->restart;
value($node, "SELECT eo.resume('f')");
ok(wait_published($node, 'f', $last), 'it catches up, also after a restart');
$node->poll_query_until('postgres', "SELECT count(*) = 7 FROM eo.segments WHERE state = 'free'")
  or die 'segments are not truncated';
@events = read_events($path);
is(scalar(@events), 1100 * 25, 'all events are in the file');
is(scalar(grep { $events[$_]->{sequence} <= $events[ $_ - 1 ]->{sequence} } 1 .. $#events), 0, 'in order');
my $active = value($node, "SELECT segment FROM eo.segments WHERE state = 'active'");
megabytes(1);
isnt(value($node, "SELECT segment FROM eo.segments WHERE state = 'active'"), $active, 'appends move on');

# A lock on a segment, such as pg_dump takes, only puts its truncation off.
wait_published($node, 'f', value($node, 'SELECT last_seq FROM eo.log_status()'));
$node->poll_query_until('postgres', "SELECT count(*) = 7 FROM eo.segments WHERE state = 'free'") or die;
$active = value($node, "SELECT segment FROM eo.segments WHERE state = 'active'");
my $dump = session($node);
$dump->query_safe("BEGIN; LOCK TABLE eo.log_$active IN ACCESS SHARE MODE");
$last = megabytes(3);
ok(wait_published($node, 'f', $last), 'events are appended and published while a segment is locked');
is(value($node, "SELECT state FROM eo.segments WHERE segment = $active"), 'full', 'which is not truncated');
is(value($node, "SELECT count(*) FROM pg_locks WHERE NOT granted"), '0', 'nobody waits for the lock');
$dump->query_safe('COMMIT');
ok($node->poll_query_until('postgres', "SELECT state = 'free' FROM eo.segments WHERE segment = $active"),
	'it is truncated when the lock is gone');
$dump->quit;

# Retention keeps what has been published, for replay.
set('eo_outbox.retention', '1h');
$last = megabytes(3);
ok(wait_published($node, 'f', $last), 'published');
my $full = segments('full');
cmp_ok($full, '>=', 2, 'published segments stay for the time of retention');
my $oldest = value($node, 'SELECT min(seq) FROM eo.events');
value($node, "SELECT eo.subscribe('replay', start_at => 'beginning')");
is(pull($node, 'replay', 500), value($node, 'SELECT count(*) FROM eo.events'), 'they can be read again');
check_pulled($node, 'replay', 'pull from the beginning');
my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT eo.subscribe('gone', start_at => '1')");
like($err, qr/ERROR:  22023: the log no longer holds the events after seq 1/, 'a place that is gone');
like($err, qr/HINT:  Use \d+ or more/, 'says where to start');
$node->restart;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM eo.segments WHERE state = 'unknown'")
  or die 'the log is not read';
is(segments('full'), $full, 'also after a restart');
value($node, "SELECT eo.unsubscribe('replay')");
set('eo_outbox.retention', '0');
ok($node->poll_query_until('postgres', "SELECT count(*) = 7 FROM eo.segments WHERE state = 'free'"),
	'and go when it is over');
cmp_ok(value($node, 'SELECT floor_seq FROM eo.log_status()'), '>=', $oldest, 'the floor has risen');

# A pull subscription holds segments as any other.
subscribe_pull($node, 'slow');
$last = megabytes(3);
ok(wait_published($node, 'f', $last), 'published');
cmp_ok(segments('full'), '>=', 2, 'segments wait for a pull subscription');
is(pull($node, 'slow'), 3300, 'it reads them');
ok($node->poll_query_until('postgres', "SELECT count(*) = 7 FROM eo.segments WHERE state = 'free'"), 'then they go');
value($node, "SELECT eo.unsubscribe('slow')");

# Age rotates too.
set('eo_outbox.segment_age', '1s');
$active = value($node, "SELECT segment FROM eo.segments WHERE state = 'active'");
ok($node->poll_query_until('postgres',
	"SELECT (SELECT segment FROM eo.segments WHERE state = 'active') <> $active FROM eo.enqueue('t', '1')"),
	'a segment that is old enough is left');
set('eo_outbox.segment_age', '1d');

# All rows gone, then a restart: numbers go on.
$last = value($node, 'SELECT last_seq FROM eo.log_status()');
wait_published($node, 'f', $last);
value($node, 'TRUNCATE eo.log_' . $_) foreach (0 .. 7);
$node->restart;
my $next = value($node, "SELECT FROM eo.enqueue('t', '1'); SELECT eo.last_seq()");
cmp_ok($next, '>', $last, 'numbers go on after a restart with an empty log');
ok(wait_published($node, 'f', $next), 'and are published');

# So they do after a crash, and whatever the active segment was.
$last = megabytes(2);
ok(wait_published($node, 'f', $last), 'published');
kill_everything($node);
$next = value($node, "SELECT FROM eo.enqueue('t', '1'); SELECT eo.last_seq()");
cmp_ok($next, '>', $last, 'numbers go on after a crash');
ok(wait_published($node, 'f', $next), 'and are published');
@events = read_events($path);
is($events[-1]->{sequence}, $next, 'up to the last');
is(scalar(grep { $events[$_]->{sequence} <= $events[ $_ - 1 ]->{sequence} } 1 .. $#events), 0, 'in order');
$node->stop;

done_testing();
