# No event is read before its commit is on disk, also with synchronous_commit =
# off: what anybody has seen is still there after a crash.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

# Nobody else may do what the reader has to: neither the WAL writer, which is
# stopped, nor the background writer, before it writes a page.
my $node = new_log_server('flush', conf => <<EOC);
synchronous_commit = off
wal_writer_delay = 10s
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1h
full_page_writes = off
EOC
subscribe_pull($node, 'p');

# Stops the WAL writer while it sleeps and so holds no lock.
sub stop_wal_writer
{
	my $query = "FROM pg_stat_activity WHERE backend_type = 'walwriter'";
	my $pid = value($node, "SELECT pid $query");

	wait_until('the WAL writer sleeps',
		sub { return stop_if($node, $pid, "SELECT wait_event = 'WalWriterMain' $query") });
	return;
}

# A session that has done everything before, so that its commit is all there is.
sub ready_session
{
	my $session = session($node);

	$session->query_safe("SELECT eo.enqueue('warm', '1')");
	$session->query_safe("SELECT test.pull('p', 100)");
	stop_wal_writer();
	# the next record begins a page
	$session->query_safe('SELECT pg_switch_wal()');
	return $session;
}

sub survives
{
	my ($id) = @_;

	kill_everything($node);
	return value($node, "SELECT count(*) FROM eo.events WHERE event_id = '$id'");
}

# That a commit can be lost at all here: nobody has read it.
my $writer = ready_session();
my $id = $writer->query_safe("SELECT eo.enqueue('t', '\"unread\"')");
is(survives($id), '0', 'an asynchronous commit that nobody has read is lost in a crash');

for my $round (1 .. 3)
{
	$writer = ready_session();
	my $reader = session($node);
	$reader->query_safe("SELECT count(*) FROM eo.fetch('p')");
	$id = $writer->query_safe("SELECT eo.enqueue('t', '\"read\"')");
	is($reader->query_safe("SELECT event_id FROM eo.fetch('p')"), $id, 'an asynchronous commit is read');
	is(survives($id), '1', 'and has survived the crash');
}

# A commit whose hint bit is set already, by a reader of the table.
$writer = ready_session();
my $reader = session($node);
$reader->query_safe("SELECT count(*) FROM eo.fetch('p')");
$reader->query_safe("SELECT count(*) FROM eo.events");
$id = $writer->query_safe("SELECT eo.enqueue('t', '\"hinted\"')");
$reader->query_safe("SELECT count(*) FROM eo.events") for 1 .. 2;
is($reader->query_safe("SELECT event_id FROM eo.fetch('p') WHERE event_id = '$id'"), $id, 'an asynchronous commit with a hint is read');
is(survives($id), '1', 'and has survived the crash');

# Several in one batch, the last of which decides.
$writer = ready_session();
$reader = session($node);
$reader->query_safe("SELECT count(*) FROM eo.fetch('p')");
my @ids = map { $writer->query_safe("SELECT eo.enqueue('t', '$_')") } 1 .. 5;
is($reader->query_safe("SELECT max(event_id::text) FROM eo.fetch('p') WHERE event_id = '$ids[4]'"), $ids[4], 'five asynchronous commits are read');
kill_everything($node);
is(value($node, "SELECT count(*) FROM eo.events WHERE event_id IN ('" . join("', '", @ids) . "')"), '5', 'and have survived the crash');

# What has reached a file.
my $path = subscribe_file($node, 'f');
for my $round (1 .. 3)
{
	$writer = ready_session();
	wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
	value($node, 'SELECT pg_switch_wal()');
	$id = $writer->query_safe("SELECT eo.enqueue('t', '\"published\"')");
	wait_until('the event is in the file', sub { slurp_file($path) =~ /\Q$id\E/ });
	is(survives($id), '1', 'a published event has survived the crash');
}
wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
my @events = read_events($path);
is(scalar(grep { value($node, "SELECT count(*) FROM eo.events WHERE event_id = '$_->{id}' AND seq = $_->{sequence}") ne '1' } @events),
	0, 'all events in the file exist');
$node->stop;

done_testing();
