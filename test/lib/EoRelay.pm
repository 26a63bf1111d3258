# Helpers for tests of the relay: a server with the extension, subscriptions to
# file and stub servers, waiting for what is reported, and the one check of what
# a file publisher has written.

package EoRelay;

use strict;
use warnings;
use Exporter 'import';
use File::Temp ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  new_server subscribe_file subscribe_stub field wait_field wait_until
  enqueue wait_published read_events check_events log_count server_starts
  alive kill_and_start
);

my $dir;
my $poll_interval = 20_000;    # microseconds

# A running server with the extension in database postgres.
sub new_server
{
	my ($name, %args) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $args{install_path});

	$node->init(allows_streaming => $args{streaming} // 0);
	$node->append_conf('postgresql.conf', <<EOC);
shared_preload_libraries = 'eo_outbox'
autovacuum = off
log_line_prefix = '%m [%p] %b '
restart_after_crash = on
EOC
	$node->append_conf('postgresql.conf', $args{conf}) if defined $args{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION eo_outbox');
	return $node;
}

# Polls a condition in Perl; dies when it has not come true in time, or in so
# many times that time.
sub wait_until
{
	my ($what, $condition, $times) = @_;
	my $limit = time() + ($times // 1) * $PostgreSQL::Test::Utils::timeout_default;

	while (!$condition->())
	{
		die "timed out waiting until $what" if time() > $limit;
		usleep($poll_interval);
	}
	return 1;
}

# Returns the path of the file.
sub subscribe_file
{
	my ($node, $name, %args) = @_;
	my $topics = $args{topics} // '*';
	my $start = $args{start_at} // 'now';
	my $db = $args{db} // 'postgres';

	$dir //= File::Temp::tempdir(CLEANUP => 1);
	my $path = "$dir/" . $node->name . "-$name.jsonl";
	$node->safe_psql($db,
		"CREATE SERVER file_$name FOREIGN DATA WRAPPER eo_file OPTIONS (path '$path')");
	$node->safe_psql($db,
		"SELECT eo.subscribe('$name', '{$topics}', 'file_$name', start_at => '$start')");
	return $path;
}

sub subscribe_stub
{
	my ($node, $name, $script, %args) = @_;
	my $topics = $args{topics} // '*';
	my $options = $args{options} // '{}';

	$node->safe_psql('postgres',
		"CREATE SERVER stub_$name FOREIGN DATA WRAPPER eo_stub OPTIONS (script '$script')");
	$node->safe_psql('postgres',
		"SELECT eo.subscribe('$name', '{$topics}', 'stub_$name', options => '$options')");
	return;
}

# A column of eo.subscriptions.
sub field
{
	my ($node, $name, $column) = @_;
	return $node->safe_psql('postgres',
		"SELECT $column FROM eo.subscriptions WHERE name = '$name'");
}

sub wait_field
{
	my ($node, $name, $column, $expected) = @_;
	my $ok = $node->poll_query_until('postgres',
		"SELECT $column FROM eo.subscriptions WHERE name = '$name'", $expected);

	diag($node->safe_psql('postgres', "SELECT * FROM eo.subscriptions")) unless $ok;
	return $ok;
}

# Commits events one by one; returns the seq of the last.
sub enqueue
{
	my ($node, $topic, $count, $payload) = @_;
	$payload //= 'to_jsonb(i)';
	return $node->safe_psql('postgres', <<EOS);
DO \$\$ BEGIN FOR i IN 1 .. $count LOOP
	PERFORM eo.enqueue('$topic', $payload);
	COMMIT;
END LOOP; END \$\$;
SELECT eo.last_seq();
EOS
}

sub wait_published
{
	my ($node, $name, $seq, $seconds) = @_;
	$seconds //= $PostgreSQL::Test::Utils::timeout_default;
	return $node->safe_psql('postgres',
		"SELECT eo.wait_published('$name', $seq, '$seconds s')") eq 't';
}

# The events of a file, with the fields that the checks look at.  That lines are
# well-formed is what the tests of the file publisher prove.
sub read_events
{
	my ($path) = @_;
	my @events;

	open(my $fh, '<', $path) or return ();
	while (my $line = <$fh>)
	{
		my %event;

		foreach my $name (qw(id sequence topic))
		{
			($event{$name}) = $line =~ /"$name":"([^"]*)"/ or die "no $name in $line";
		}
		($event{position}) = $line =~ /"position":(\d+)/ or die "no position in $line";
		($event{data}) = $line =~ /"data":(.*)\}$/;
		push @events, \%event;
	}
	close $fh;
	return @events;
}

# One test: a file has exactly the events of the log, once each, in order, with
# dense positions per topic.
sub check_events
{
	my ($node, $path, $where, $what) = @_;
	my @expected = split /\n/,
	  $node->safe_psql('postgres', "SELECT event_id FROM eo.events WHERE $where ORDER BY seq");
	my @events = read_events($path);
	my @problems;
	my %position;
	my $last = 0;

	push @problems, scalar(@events) . ' events instead of ' . scalar(@expected)
	  if @events != @expected;
	for my $i (0 .. $#events)
	{
		my $event = $events[$i];
		my $topic = $event->{topic};

		push @problems, "line $i is $event->{id}"
		  if ($expected[$i] // '') ne $event->{id};
		push @problems, "seq $event->{sequence} after $last" if $event->{sequence} <= $last;
		push @problems, "position $event->{position} of $topic after " . ($position{$topic} // 0)
		  if $event->{position} != ($position{$topic} // 0) + 1;
		$last = $event->{sequence};
		$position{$topic} = $event->{position};
		last if @problems > 5;
	}
	ok(@events > 0 && @problems == 0, $what) or diag(join("\n", @problems));
	return;
}

sub log_count
{
	my ($node, $pattern) = @_;
	my $log = slurp_file($node->logfile);
	my $count = () = $log =~ /$pattern/g;

	return $count;
}

# How often the server has come up, crashes included.
sub server_starts
{
	return log_count($_[0], qr/database system is ready to accept connections/);
}

# Whether a process runs; one that nobody has reaped yet does not.
sub alive
{
	open(my $fh, '<', "/proc/$_[0]/stat") or return 0;
	my $stat = <$fh> // '';
	return $stat =~ /\) [^ZX] /;
}

# Kills the postmaster, lets $between happen, and starts the server again as
# soon as its other processes have noticed.
sub kill_and_start
{
	my ($node, $between) = @_;
	my $pid = $node->{_pid};

	$node->kill9;
	$between->() if $between;
	wait_until('the postmaster has been reaped', sub { !-e "/proc/$pid" });
	wait_until('the server starts',
		sub { $node->{_pid} = undef; $node->start(fail_ok => 1) });
	return;
}

1;
