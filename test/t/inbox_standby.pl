# What was received is known after a failover; a standby itself receives nothing.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', streaming => 1, conf => "max_prepared_transactions = 5\n");
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# The second generation is filled, as after the first window.
value($primary, <<'EOS');
CREATE TABLE paid (id text);
SELECT eo.deduplicate_table('paid', 'trigger', 'id');
SELECT eo.receive('c', 'older');
INSERT INTO eo.generation VALUES (0, 1, 1, clock_timestamp()) ON CONFLICT (family, class) DO UPDATE SET current = 1;
SELECT eo.receive('c', 'newer'), eo.receive_at('c', 's', 7);
INSERT INTO paid VALUES ('p');
BEGIN;
SELECT eo.receive('c', 'prepared');
PREPARE TRANSACTION 'p';
BEGIN;
SELECT eo.receive('c', 'given up');
PREPARE TRANSACTION 'g';
EOS
$primary->wait_for_catchup($standby);

foreach my $sql ("SELECT eo.receive('c', 'm')", "SELECT eo.receive('c', ARRAY['m'])", "SELECT eo.receive_at('c', 's', 8)",
	"SELECT eo.receive('c', 'older')", "SELECT state FROM eo.idempotency_begin('s', 'k')", "SELECT eo.create_consumer('d')",
	"SELECT eo.deduplicate_table('paid', 'again', 'id')")
{
	my ($ret, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY sqlstate\n$sql");

	like($err, qr/ERROR:  25006/, "refused on a standby: $sql");
}

$primary->stop('immediate');
$standby->promote;
is(value($standby, "SELECT current FROM eo.generation WHERE family = 0 AND class = 1"), '1', 'the second generation is still filled');
is(value($standby, "SELECT eo.receive('c', 'older'), eo.receive('c', 'newer'), eo.receive_at('c', 's', 7), eo.receive_at('c', 's', 8)"),
	'f|f|duplicate|new', 'the new primary knows what the old one has received');
is(value($standby, "INSERT INTO paid VALUES ('p'), ('q') RETURNING id"), 'q', 'and its trigger');
is(value($standby, "SELECT eo.receive('c', 'later')"), 't', 'receives');
is(value($standby, "SELECT count(*) FROM eo.inbox_week_1 WHERE message_id = 'later'"), '1', 'into the same generation');

# Transactions that the old primary had prepared
my $session = session($standby);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
foreach my $case ([ 'prepared', "COMMIT PREPARED 'p'", 'f' ], [ 'given up', "ROLLBACK PREPARED 'g'", 't' ])
{
	my ($id, $end, $answer) = @$case;

	send_query($session, "SELECT eo.receive('c', '$id')");
	wait_locked($standby, $pid);
	value($standby, $end);
	is($session->query_safe('SELECT 1'), "$answer\n1", "the one of $end");
}
$session->quit;
$standby->stop;
done_testing();
