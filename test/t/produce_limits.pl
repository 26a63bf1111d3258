# What eo_outbox says where it cannot work: not preloaded, on a standby, with
# too many databases; and how much memory a large transaction takes.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---- not preloaded --------------------------------------------------------------

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
my ($ret, $out, $err) = $plain->psql('postgres', "\\set VERBOSITY verbose\nCREATE EXTENSION eo_outbox");
like($err, qr/ERROR:  55000: eo_outbox must be loaded when the server starts/, 'CREATE EXTENSION without shared_preload_libraries');
like($err, qr/HINT:  Add eo_outbox to shared_preload_libraries/, 'says what to set');
($ret, $out, $err) = $plain->psql('postgres', "LOAD 'eo_outbox'");
like($err, qr/must be loaded when the server starts/, 'nor can it be loaded by hand');
$plain->stop;

# ---- a standby --------------------------------------------------------------------

my $node = new_log_server('limits', streaming => 1, conf => "eo_outbox.max_databases = 2\nwork_mem = 4MB\n");
subscribe_pull($node, 'p');
value($node, 'CALL test.put(10)');
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
value($node, 'CALL test.put(5)');
$node->wait_for_catchup($standby, 'replay');
for my $call ("eo.enqueue('t', '1')", "eo.enqueue_bytes('t', '1')")
{
	($ret, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($err, qr/ERROR:  25006: cannot enqueue events on a standby/, "$call on a standby");
	like($err, qr/HINT:  Connect to the primary/, 'says what to do');
}
for my $call ("eo.fetch('p')", "eo.ack('p', 1)", "eo.subscribe('x')", "eo.pause('p')", "eo.seek('p', 1)", "eo.adopt()")
{
	($ret, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($err, qr/ERROR:  25006: /, "$call on a standby");
}
is(value($standby, 'SELECT count(*) FROM eo.events'), '15', 'the events can be seen there');
is(value($standby, "SELECT name || ' ' || state FROM eo.subscriptions"), 'p no relay', 'and the subscriptions');
is(value($standby, 'SELECT count(*) FROM eo.pending()'), '0', 'nothing is pending');
is(value($standby, 'SELECT count(*) FROM eo.segments'), '8', 'and the segments');
$standby->stop;

# ---- too many databases ---------------------------------------------------------------

for my $name ('two', 'three')
{
	value($node, "CREATE DATABASE $name");
}
value($node, 'CREATE EXTENSION eo_outbox', 'two');
($ret, $out, $err) = $node->psql('three', "\\set VERBOSITY verbose\nCREATE EXTENSION eo_outbox");
like($err, qr/ERROR:  53400: too many databases use eo_outbox/, 'one database too many');
like($err, qr/HINT:  Increase eo_outbox.max_databases/, 'says what to raise');
value($node, 'DROP DATABASE two');
value($node, 'CREATE EXTENSION eo_outbox', 'three');
pass('a dropped database makes room');

# ---- a million events in one transaction ---------------------------------------------

# Resident memory that is the process's own.
sub memory_kb
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/status") =~ /RssAnon:\s+(\d+)/ ? $1 : die 'no RssAnon';
}

my $path = subscribe_file($node, 'f');
my $writer = session($node);
my $pid = $writer->query_safe('SELECT pg_backend_pid()');
$writer->query_safe("SELECT eo.enqueue('warm', '1')");
my $before = memory_kb($pid);
my $relay = value($node, 'SELECT relay_pid FROM eo.log_status()');
$writer->query_safe('BEGIN');
$writer->query_safe("SELECT count(eo.enqueue('big', to_jsonb(i), 'key', 'type', '{\"header\": \"value\"}')) FROM generate_series(1, 1000000) AS i");
my $enqueued = memory_kb($pid);
cmp_ok($enqueued - $before, '<', 32 * 1024, 'memory after a million events were enqueued');
is($writer->query_safe('SELECT count(*) FROM eo.pending()'), '1000000', 'all are pending');

# Others append while it commits.
send_query($writer, 'COMMIT');
my $small = session($node);
my $done = '';
while ($done ne 't')
{
	$small->query_safe("SELECT eo.enqueue('small', '1')");
	$done = $small->query_safe("SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'idle'");
}
$writer->query_safe('SELECT 1');
cmp_ok(memory_kb($pid) - $before, '<', 48 * 1024, 'memory after they were appended');
is(value($node, <<'EOS'), 't', 'others have appended meanwhile');
SELECT count(*) > 0 FROM eo.events WHERE topic = 'small'
	AND seq BETWEEN (SELECT min(seq) FROM eo.events WHERE topic = 'big') AND (SELECT max(seq) FROM eo.events WHERE topic = 'big')
EOS
is(value($node, "SELECT count(*), count(DISTINCT seq), count(*) FILTER (WHERE wrong) FROM (SELECT seq, payload::int < lag(payload::int) OVER (ORDER BY seq) AS wrong FROM eo.events WHERE topic = 'big') AS e"),
	'1000000|1000000|0', 'a million events, in order');

my $last = value($node, 'SELECT max(seq) FROM eo.events');
ok(wait_published($node, 'f', $last), 'all are published');
my ($lines, $wrong, $seq) = (0, 0, 0);
open(my $fh, '<', $path) or die $!;
while (my $line = <$fh>)
{
	$lines++;
	my ($s) = $line =~ /"sequence":"?(\d+)/ or die $line;
	$wrong++ unless $s > $seq;
	$seq = $s;
}
close $fh;
is($lines, value($node, "SELECT count(*) FROM eo.events WHERE topic IN ('big', 'small', 'warm')"), 'once each');
is($wrong, 0, 'in order');

# Rolled back, it leaves nothing behind.
$writer->query_safe('BEGIN');
$writer->query_safe("SELECT count(eo.enqueue('big', to_jsonb(i))) FROM generate_series(1, 300000) AS i");
$writer->query_safe('ROLLBACK');
is(value($node, 'SELECT count(*) FROM pg_ls_tmpdir()'), '0', 'temporary files are gone');
is(value($node, 'SELECT max(seq) FROM eo.events'), $last, 'nothing was appended');
$_->quit foreach ($writer, $small);
$node->stop;

done_testing();
