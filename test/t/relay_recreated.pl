# An extension that was dropped and created again, and text that cannot travel.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('recreated');
my $old = subscribe_file($node, 's');
ok(wait_published($node, 's', enqueue($node, 'a', 100)), 'the first extension publishes');

# The new subscription has the id of the old one.
my $new = "$old.new";
$node->safe_psql('postgres', <<EOS);
BEGIN;
DROP EXTENSION eo_outbox CASCADE;
CREATE EXTENSION eo_outbox;
CREATE SERVER file_new FOREIGN DATA WRAPPER eo_file OPTIONS (path '$new');
SELECT eo.subscribe('s', '{*}', 'file_new', start_at => 'beginning');
COMMIT;
EOS
ok(wait_published($node, 's', enqueue($node, 'a', 52)), 'the second one does, too');
check_events($node, $new, 'true', 'from its own beginning');

# The database is SQL_ASCII: it takes bytes that are not UTF-8.
is($node->safe_psql('postgres', 'SHOW server_encoding'), 'SQL_ASCII', 'any bytes are text here');
my $seq = $node->safe_psql('postgres', <<'EOS');
DO $$ BEGIN
	PERFORM eo.enqueue('a', '"before"');
	PERFORM eo.enqueue('a', '"bad"', key => E'k\xff');
	PERFORM eo.enqueue('a', '"after"');
END $$;
SELECT eo.last_seq();
EOS
ok(wait_published($node, 's', $seq), 'an event whose text is not UTF-8 holds up nothing');
is($node->safe_psql('postgres', "SELECT payload, reason FROM eo.dead_letters"),
	'"bad"|invalid byte sequence for encoding "UTF8": 0xff', 'it is a dead letter that says why');
is(join(' ', map { $_->{data} } (read_events($new))[-2, -1]), '"before" "after"', 'the others have left');
$node->safe_psql('postgres', "SELECT eo.retry_dead_letter('s')");
ok($node->poll_query_until('postgres', 'SELECT attempts = 2 FROM eo.dead_letters'),
	'sending it again refuses it again');
ok(wait_published($node, 's', enqueue($node, 'a', 3)), 'and holds up nothing');
$node->stop;
done_testing();
