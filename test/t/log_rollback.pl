# What a transaction leaves behind that does not commit in the usual way: in
# two phases, or rolled back after CREATE EXTENSION.

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

$node->stop;
done_testing();
