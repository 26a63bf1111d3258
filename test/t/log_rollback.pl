# What a transaction leaves behind that does not commit in the usual way: in
# two phases, rolled back after CREATE EXTENSION, or cancelled in its append; and
# what the functions behind eo.events say to arguments of another kind.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('rollback', conf => "max_prepared_transactions = 5\n");

# ---- two phases -----------------------------------------------------------------

# The file that the first one spilled to is closed with it.
my $spilling = <<'EOS';
SET eo_outbox.buffer_memory = 64;
BEGIN;
SAVEPOINT a;
SELECT count(eo.enqueue_bytes('t', test.noise(5000, i::text))) FROM generate_series(1, 100) AS i;
EOS
my ($ret, $out, $err) = $node->psql('postgres', "$spilling ROLLBACK TO a; PREPARE TRANSACTION 'eo'; $spilling COMMIT; ROLLBACK PREPARED 'eo'");
is("$ret$err", '0', 'a transaction with events after one that was prepared');
is(value($node, 'SELECT count(*) FROM eo.events'), '100', 'has all its events');
($ret, $out, $err) = $node->psql('postgres', "BEGIN; SELECT eo.subscribe('two'); PREPARE TRANSACTION 'eo'");
like($err, qr/cannot prepare a transaction that has configured eo_outbox/, 'configuration is not prepared');

# ---- CREATE EXTENSION rolled back ------------------------------------------------

subscribe_pull($node, 'p', 'beginning');
my $replace = 'DROP EXTENSION eo_outbox CASCADE; CREATE EXTENSION eo_outbox';
for my $undo ("BEGIN; $replace; SELECT eo.subscribe('x'); ROLLBACK",
	"BEGIN; SAVEPOINT a; $replace; SELECT eo.subscribe('x'); ROLLBACK TO a; COMMIT")
{
	my $last = value($node, 'CALL test.put(10); SELECT eo.last_seq()');
	value($node, $undo);
	is(value($node, 'CALL test.put(1); SELECT eo.last_seq()'), $last + 1, "numbers go on after $undo");
}
is(pull($node, 'p'), 122, 'all events are read');

# A commit that waits for the lock while the other extension is there.
my $creator = session($node);
my $writer = session($node);
my $last = value($node, 'SELECT last_seq FROM eo.log_status()');
my $pid = $writer->query_safe('SELECT pg_backend_pid()');
$writer->query_safe("BEGIN; SELECT eo.enqueue('t', '1')");
$creator->query_safe("BEGIN; $replace; SELECT eo.subscribe('x')");
send_query($writer, 'COMMIT');
wait_locked($node, $pid);
$creator->query_safe('ROLLBACK');
is($writer->query_safe('SELECT eo.last_seq()'), $last + 1, 'nor is one used again that waited for the rollback');
$_->quit for ($creator, $writer);

# ---- an append that fails halfway ---------------------------------------------------

# The relay has come to its last page; VACUUM gives the pages back, and the next
# events fill them.
my $path = subscribe_file($node, 'f');
$last = value($node, 'SELECT max(seq) FROM eo.events');
value($node, 'CALL test.put(1)');
wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
my ($large, $canceller) = (session($node), session($node));
$pid = $large->query_safe('SELECT pg_backend_pid()');
$large->query_safe(<<'EOS');
SET eo_outbox.max_event_size = '64MB';
BEGIN;
SELECT eo.enqueue_bytes('t', (SELECT string_agg(n, '') FROM test.noise(600000) AS n, generate_series(1, 100)));
EOS
send_query($canceller, <<"EOS");
DO \$\$ BEGIN
	WHILE (SELECT sum(bytes) FROM eo.segments) < 2000000 LOOP END LOOP;
	PERFORM pg_cancel_backend($pid);
END \$\$
EOS
$large->query('COMMIT');
like($large->{stderr}, qr/canceling statement due to user request/, 'cancelled while it appends');
$_->quit for ($large, $canceller);
cmp_ok(value($node, 'SELECT sum(bytes) FROM eo.segments'), '>', 1000000, 'some of its rows are there');
my $relay = stop_relay_idle($node);
value($node, "VACUUM (TRUNCATE) eo.log_$_") for (0 .. 7);
cmp_ok(value($node, 'SELECT sum(bytes) FROM eo.segments'), '<', 1000000, 'and are given back');
value($node, 'SELECT count(eo.enqueue_bytes(\'t\', test.noise(5000, i::text))) FROM generate_series(1, 400) AS i');
kill 'CONT', $relay;
wait_published($node, 'f', value($node, 'SELECT max(seq) FROM eo.events'));
check_events($node, $path, "seq > $last", 'none of the next events is passed over');

# ---- pieces of an event --------------------------------------------------------------

value($node, "SELECT eo.enqueue_bytes('pieces', test.noise(50000))");
for my $call ('body(s, h, seq, 1)', 'body(s, h, seq, 2)', 'payload(s, h, seq, 7)', 'body(s, h, seq, 40000)')
{
	($ret, $out, $err) = $node->psql('postgres', <<EOS);
SELECT eo.event_$call FROM (SELECT tableoid AS s, ctid AS h, seq FROM ONLY eo.log_0 WHERE topic = 'pieces') AS e
EOS
	like($err, qr/ERROR:  (event \d+ of the log is incomplete|not an event of the log in several rows)/, "eo.event_$call");
}
is(value($node, "SELECT octet_length(eo.event_body(tableoid, ctid, seq, 7)) FROM eo.log_0 WHERE topic = 'pieces'"), '50000', 'the whole');

$node->stop;
done_testing();
