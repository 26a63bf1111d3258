# What may happen to the pages of a segment under a reader: stale target blocks,
# line pointers and blocks that VACUUM gave back, rewritten tables.
#
# The file subscription is read by the relay, which remembers the block it has
# come to; the pull subscription starts from the segment's first block each time.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('pages');
my $path = subscribe_file($node, 'f');
subscribe_pull($node, 'p');

sub last_ctid
{
	return value($node, 'SELECT ctid FROM eo.log_0 ORDER BY seq DESC LIMIT 1');
}

sub blocks
{
	return value($node, "SELECT pg_relation_size('eo.log_0') / 8192");
}

# ---- a target block that is not the last any more ------------------------------

# One backend has appended to block 0; another fills that and more, and leaves
# room in each page; then the first one appends again.
my $stale = session($node);
$stale->query_safe("SELECT eo.enqueue('t', '1')");
value($node, 'CALL test.put(40, 2500)');
cmp_ok(blocks(), '>', 5, 'another backend has filled some blocks');
wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
is(pull($node, 'p'), 41, 'all was read');
$stale->query_safe("SELECT eo.enqueue('t', '2')");
is(pull($node, 'p'), 1, 'a single event of a backend with a stale target block is read');
value($node, 'CALL test.put(40, 2500)');
$stale->query_safe("SELECT eo.enqueue('t', to_jsonb(i)) FROM generate_series(3, 5) AS i");
is(pull($node, 'p'), 43, 'so are several at once');
is(physical_order($node, 0), '0', 'rows stand in the order of their numbers');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
$stale->quit;

# ---- line pointers that VACUUM gave back ----------------------------------------

# Rows at the end of a page are aborted and read past; VACUUM shortens the page;
# the next row stands where they stood.
value($node, 'CALL test.put(1, 5000)');
value($node, 'CALL test.put(3)');
my $before = last_ctid();
abort_after_append($node, 7);
value($node, 'CALL test.put(1)');
abort_after_append($node, 7);
my $aborted = last_ctid();
pull($node, 'p');
wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
value($node, 'VACUUM (TRUNCATE false) eo.log_0');
value($node, 'CALL test.put(10)');
is(value($node, "SELECT count(*) > 0 FROM eo.log_0 WHERE ctid > '$before' AND ctid < '$aborted' AND seq > (SELECT max(seq) FROM test.pulled)"),
	't', 'line pointers in front of those read were used again');
cmp_ok(physical_order($node, 0), '>', 0, 'the rows of the page are not in order');
is(pull($node, 'p', 3), 10, 'what stands there is read');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');

# The same while the rows are pending.
abort_after_append($node, 7);
my $relay = stop_relay_idle($node);
value($node, 'CALL test.put(5)');
value($node, 'VACUUM (TRUNCATE false) eo.log_0');
value($node, 'CALL test.put(10)');
kill 'CONT', $relay;
is(pull($node, 'p', 4), 15, 'pending ones before and behind are read in order');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');

# ---- blocks that VACUUM gave back --------------------------------------------------

# The relay passes many aborted rows, and remembers their last block.
sub pass_aborted_rows
{
	abort_after_append($node, 1500, 2000);
	value($node, 'CALL test.put(1)') if $_[0];
	pull($node, 'p');
	wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
	# the relay has looked at the last row, and sleeps
	return stop_relay_idle($node);
}

$relay = pass_aborted_rows(0);
my $blocks = blocks();
value($node, 'VACUUM (TRUNCATE true) eo.log_0');
cmp_ok(blocks(), '<', $blocks - 300, 'VACUUM gave back blocks behind the last event');
kill 'CONT', $relay;
value($node, 'CALL test.put(5)');
is(pull($node, 'p'), 5, 'events in lower blocks than the last ones are read');
check_file($node, 'f', $path, 'file');

# The segment is shorter, and longer again, before the reader looks.
$relay = pass_aborted_rows(0);
$blocks = blocks();
value($node, 'VACUUM (TRUNCATE true) eo.log_0');
cmp_ok(blocks(), '<', $blocks - 300, 'VACUUM gave back blocks again');
value($node, "SELECT count(eo.enqueue_bytes('t', test.noise(2000, i::text))) FROM generate_series(1, 2000) AS i");
cmp_ok(blocks(), '>', $blocks, 'the segment has grown past the block that the relay remembers');
kill 'CONT', $relay;
is(pull($node, 'p'), 2000, 'all is read');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');

# A user truncates the segment: what was in it is gone, what comes is read.
$relay = stop_relay_idle($node);
value($node, 'TRUNCATE eo.log_0');
value($node, 'CALL test.put(20, 100)');
kill 'CONT', $relay;
is(pull($node, 'p'), 20, 'events after a TRUNCATE by hand are read');
my $seq = value($node, 'SELECT max(seq) FROM eo.events');
ok(wait_published($node, 'f', $seq), 'and published');
my @events = read_events($path);
is($events[-1]->{sequence}, $seq, 'up to the last');
is(scalar(grep { $events[$_]->{sequence} <= $events[ $_ - 1 ]->{sequence} } 1 .. $#events), 0, 'in order');

$node->stop;

# ---- rewritten segments -----------------------------------------------------------

my $rewritten = new_log_server('rewritten');
$node = $rewritten;
$path = subscribe_file($node, 'g');
subscribe_pull($node, 'p');

sub cluster_reversed
{
	value($node, 'BEGIN; CREATE INDEX reversed ON eo.log_0 (seq DESC, part DESC); CLUSTER eo.log_0 USING reversed; DROP INDEX eo.reversed; COMMIT');
	cmp_ok(physical_order($node, 0), '>', 1, 'CLUSTER has reversed the segment');
	return;
}

value($node, 'CALL test.put(100, 50)');
value($node, "SELECT eo.enqueue_bytes('t', test.noise(30000))");
is(value($node, "SELECT test.pull('p', 30)"), 30, 'some were read, the others are pending');
value($node, "SELECT eo.pause('g')");
value($node, 'CALL test.put(100, 50)');
cluster_reversed();
is(value($node, "SELECT test.pull('p', 30)"), 30, 'reading goes on in the rewritten segment');
value($node, 'CALL test.put(10, 50)');
value($node, "SELECT eo.enqueue_bytes('t', test.noise(30000))");
is(pull($node, 'p', 17), 152, 'all the others are read');
check_pulled($node, 'p', 'pull after CLUSTER');
value($node, "SELECT eo.resume('g')");
check_file($node, 'g', $path, 'file after CLUSTER');

# Appends and aborts in a rewritten segment, an event that is being committed.
value($node, 'CALL test.put(10, 50)');
abort_after_append($node, 20);
my $writer = session($node);
my $holder = hold_commit($node, $writer, "SELECT eo.enqueue('t', '\"held\"')");
value($node, 'CALL test.put(10, 50)');
is(pull($node, 'p'), 10, 'reading stops at the one that is being committed');
release_commit($holder, $writer);
is(pull($node, 'p'), 11, 'and goes on when it has');
check_pulled($node, 'p', 'pull');
check_file($node, 'g', $path, 'file');

# More rows than one scan of a rewritten segment takes.
value($node, "SELECT eo.pause('g')");
value($node, "SELECT count(eo.enqueue('t', to_jsonb(i))) FROM generate_series(1, 12000) AS i");
cluster_reversed();
is(pull($node, 'p', 5000), 12000, 'all of a large rewritten segment is read');
value($node, "SELECT eo.resume('g')");
check_pulled($node, 'p', 'pull');
check_file($node, 'g', $path, 'file');

# VACUUM FULL while the relay is in the middle of it, and after a restart.
$relay = stop_relay_idle($node);
value($node, 'CALL test.put(50, 50)');
abort_after_append($node, 50);
value($node, 'CALL test.put(50, 50)');
value($node, 'VACUUM FULL eo.log_0');
kill 'CONT', $relay;
is(pull($node, 'p'), 100, 'VACUUM FULL loses nothing');
value($node, 'CALL test.put(5)');
$node->restart;
value($node, 'CALL test.put(5)');
is(pull($node, 'p'), 10, 'nor does a restart after it');
cluster_reversed();
$node->restart;
value($node, 'CALL test.put(5)');
is(pull($node, 'p'), 5, 'nor one after CLUSTER');
check_pulled($node, 'p', 'pull');
check_file($node, 'g', $path, 'file');

# Frozen rows have no transaction any more.
value($node, 'VACUUM (FREEZE) eo.log_0');
value($node, 'CALL test.put(5)');
is(pull($node, 'p'), 5, 'frozen rows are no obstacle');
subscribe_pull($node, 'all', 'beginning');
value($node, 'VACUUM (FREEZE) eo.log_0');
pull($node, 'all', 10000);
check_pulled($node, 'all', 'the whole log again, frozen');
check_file($node, 'g', $path, 'file');
$writer->quit;
$node->stop;

done_testing();
