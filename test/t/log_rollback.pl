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

$node->stop;
done_testing();
