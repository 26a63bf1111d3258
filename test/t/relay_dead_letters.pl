# Events that a broker refuses for good, and their second chance.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dead', conf => <<EOC);
max_worker_processes = 12
EOC

sub dead
{
	my ($name) = @_;
	return $node->safe_psql('postgres', <<EOS);
SELECT d.seq, d.position, d.topic, coalesce(d.payload::text, encode(d.body, 'escape')), d.reason, d.attempts
FROM eo.dead_letter d JOIN eo.subscription s ON s.id = d.subscription
WHERE s.name = '$name' ORDER BY d.seq
EOS
}

# ---- refused -----------------------------------------------------------------

subscribe_stub($node, 's', 'nack:permanent,too large@3');
my $seq = enqueue($node, 'a', 5);
ok(wait_published($node, 's', $seq), 'a refused event does not stop the others');
is(dead('s'), '3|3|a|3|too large|1', 'it is kept, with its position and the reason');
is(field($node, 's', 'published'), '4', 'the others are published');
is(field($node, 's', 'dead'), '1', 'it is counted');
ok(log_count($node, qr/WARNING: .*subscription "s": event 3 of topic "a" was refused: too large/) == 1,
	'the log says so');

# Headers, key, type, bytes and NULL are kept as they are.
$node->safe_psql('postgres', "ALTER SERVER stub_s OPTIONS (SET script 'nack:permanent')");
wait_field($node, 's', 'state', 'streaming');
$seq = $node->safe_psql('postgres', <<EOS);
SELECT eo.enqueue('b', '{"x": [1, "ü"]}', 'k', 'typ', '{"h": "v"}');
SELECT eo.enqueue_bytes('b', '\\x00ff', 'k2');
SELECT eo.enqueue('b', NULL, 'k3');
SELECT eo.last_seq();
EOS
$seq =~ s/.*\n//s;
ok(wait_published($node, 's', $seq), 'all are refused');
is( $node->safe_psql('postgres', <<EOS), '3', 'dead letters are what the log has');
SELECT count(*) FROM eo.dead_letter d JOIN eo.events e USING (seq)
WHERE d.topic = 'b' AND (d.event_id, d.topic, d.enqueued_at) = (e.event_id, e.topic, e.enqueued_at)
AND d.key IS NOT DISTINCT FROM e.key AND d.type IS NOT DISTINCT FROM e.type
AND d.headers IS NOT DISTINCT FROM e.headers AND d.payload IS NOT DISTINCT FROM e.payload
AND d.body IS NOT DISTINCT FROM e.body AND d.content_type IS NOT DISTINCT FROM e.content_type
EOS
is(field($node, 's', 'state'), 'streaming', 'the subscription goes on');

# Many at once
$seq = $node->safe_psql('postgres', <<EOS);
SELECT count(eo.enqueue('many', to_jsonb(i))) FROM generate_series(1, 5000) i;
SELECT eo.last_seq();
EOS
$seq =~ s/.*\n//s;
ok(wait_published($node, 's', $seq), 'thousands are refused');
is($node->safe_psql('postgres', "SELECT count(*), min(position), max(position) FROM eo.dead_letter WHERE topic = 'many'"),
	'5000|1|5000', 'each is kept');

# ---- retried ------------------------------------------------------------------

$node->safe_psql('postgres', "SELECT eo.retry_dead_letter('s', 3)");
ok($node->poll_query_until('postgres',
		"SELECT attempts = 2 FROM eo.dead_letter WHERE seq = 3"), 'refused again: one attempt more');
is($node->safe_psql('postgres', 'SELECT count(*) FROM eo.dead_letter_retry'), '0', 'the request is done');

$node->safe_psql('postgres', "ALTER SERVER stub_s OPTIONS (SET script 'ack')");
$node->safe_psql('postgres', "SELECT eo.retry_dead_letter('s', 3)");
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM eo.dead_letter WHERE seq = 3"), 'published: it is gone');
is($node->safe_psql('postgres', "SELECT eo.retry_dead_letter('s')"), '5003', 'all others');
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM eo.dead_letter"), 'are published');
is($node->safe_psql('postgres', 'SELECT count(*) FROM eo.dead_letter_retry'), '0', 'no request is left');

# To a file: at the end, with its old seq and position.
my $path = subscribe_file($node, 'f');
$node->safe_psql('postgres', <<EOS);
INSERT INTO eo.dead_letter (subscription, seq, position, event_id, topic, payload, enqueued_at, reason)
SELECT id, 2, 77, '11111111-1111-1111-1111-111111111111', 'a', '{"old": 1}', now(), 'test' FROM eo.subscription WHERE name = 'f';
SELECT eo.retry_dead_letter('f', 2);
EOS
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM eo.dead_letter'), 'a retry to a file');
my @events = read_events($path);
is("$events[-1]{sequence} $events[-1]{position}", '2 77', 'keeps seq and position');

# A publisher that dies with a retry unanswered
subscribe_stub($node, 'r', 'nack:permanent@1');
enqueue($node, 'a', 1);
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM eo.dead_letter") or die;
$node->safe_psql('postgres', "ALTER SERVER stub_r OPTIONS (SET script 'stall\@retry')");
wait_field($node, 'r', 'state', 'streaming');
$node->safe_psql('postgres', "SELECT eo.retry_dead_letter('r')");
is($node->safe_psql('postgres', "SELECT eo.retry_dead_letter('r', seq) FROM eo.dead_letter"), '1', 'asked for twice');
my $pid = field($node, 'r', 'publisher_pid');
$node->safe_psql('postgres', "ALTER SERVER stub_r OPTIONS (SET script 'ack')");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM eo.dead_letter'),
	'a retry survives its publisher');

# ---- the publisher is killed between refusal and acknowledgement -----------------

# The file has 4 of 5 events when it is killed; the refused one must not be lost.
subscribe_stub($node, 'k', 'nack:permanent,bad@2;stall@4');
$seq = enqueue($node, 'k', 5);
$node->poll_query_until('postgres', "SELECT in_flight > 0 FROM eo.subscriptions WHERE name = 'k'");
wait_until('the refusal has come', sub { log_count($node, qr/of topic "k" was refused/) > 0 });
$pid = field($node, 'k', 'publisher_pid');
# the next publisher says that its broker has all
$node->safe_psql('postgres', "ALTER SERVER stub_k OPTIONS (SET script 'position:$seq')");
kill 'KILL', $pid;
ok(wait_published($node, 'k', $seq), 'the next publisher finds all of them in the broker');
is(dead('k') =~ s/^\d+//r, '|2|k|2|bad|1', 'the refused one is a dead letter');

# ---- removal ---------------------------------------------------------------------

$node->safe_psql('postgres', "SELECT eo.unsubscribe('k')");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM eo.dead_letter'),
	'dead letters go with their subscription');
$node->stop;

done_testing();
