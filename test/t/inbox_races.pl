# Receivers that meet at one id or one source at chosen moments.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('races', conf => "max_prepared_transactions = 5\ndeadlock_timeout = 100ms\n");

value($node, <<'EOS');
SELECT eo.receive('c', 'first');
CREATE TABLE answer (what text, answer text);
EOS

sub pid_of
{
	return $_[0]->query_safe('SELECT pg_backend_pid()');
}

# ---- several wait for one ---------------------------------------------------------

# The first is rolled back: one of them is next, and the others wait for that one.
my $holder = session($node);
my @waiters = map { session($node) } 1 .. 4;
my %waiter = map { pid_of($_) => $_ } @waiters;
my $pids = join ',', keys %waiter;
my %calls = (
	'one' => "eo.receive('c', 'awaited')::text",
	'batch' => "(SELECT string_agg(r, ' ') FROM eo.receive('c', ARRAY['b', 'awaited too', 'a']) AS r)",
	'position' => "eo.receive_at('c', 'awaited', 1)");
my %answers = (one => 'true false', batch => 'b awaited too a (none)', position => 'new duplicate');

foreach my $what (sort keys %calls)
{
	my $call = $calls{$what};
	my @winner;

	$holder->query_safe("BEGIN; SELECT $call");
	foreach my $pid (keys %waiter)
	{
		$waiter{$pid}->query_safe('BEGIN');
		send_query($waiter{$pid}, "INSERT INTO answer VALUES ('$what', coalesce($call, '(none)'))");
		wait_locked($node, $pid);
	}
	$holder->query_safe('ROLLBACK');
	wait_until(
		"one of the waiters for $what is next",
		sub {
			my $state = value($node, <<"EOS");
SELECT string_agg(pid::text, ',') FILTER (WHERE state LIKE 'idle in transaction%'),
	count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity WHERE pid IN ($pids)
EOS
			return 0 unless $state =~ /^(\d+)\|3$/;
			@winner = ($1);
			return 1;
		});
	my $next = delete $waiter{ $winner[0] };
	$next->query_safe('COMMIT');
	$_->query_safe('COMMIT') foreach values %waiter;
	$waiter{ $winner[0] } = $next;
	is(value($node, "SELECT string_agg(answer, ' ' ORDER BY n) FROM (SELECT answer, count(*) AS n FROM answer WHERE what = '$what' GROUP BY 1) AS a"),
		$answers{$what}, "$what: one of four waiters is next");
	is(value($node, "SELECT min(n) || ' ' || max(n) FROM (SELECT count(*) AS n FROM answer WHERE what = '$what' GROUP BY answer) AS a"),
		'1 3', "$what: and the other three are not");
}
$_->quit foreach values %waiter;

# ---- all at the same id at once ------------------------------------------------------

# Who comes second waits for the first, so that they go from id to id in step.
value($node, <<'EOS');
CREATE TABLE effect (form text, id int);
CREATE TABLE paid (id int);
SELECT eo.deduplicate_table('paid', 'trigger', 'id');
CREATE FUNCTION take(form text, id int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF form = 'one' AND eo.receive('one', id::text) OR form = 'position' AND eo.receive_at('at', 'source', id) = 'new'
		OR form = 'key' AND (SELECT state = 'new' FROM eo.idempotency_begin('keys', id::text)) THEN
		INSERT INTO effect VALUES (form, id);
	ELSIF form = 'batch' THEN
		INSERT INTO effect SELECT form, r::int FROM eo.receive('batch', ARRAY[id, id + 2, id + 1]::text[]) AS r;
	ELSIF form = 'trigger' THEN
		INSERT INTO paid VALUES (id);
	END IF;
	IF form = 'key' AND EXISTS (SELECT FROM effect AS e WHERE e.id = take.id AND e.form = 'key' AND xmin = pg_current_xact_id()::xid) THEN
		PERFORM eo.idempotency_complete('keys', id::text, to_jsonb(id));
	END IF;
END $$;
CREATE PROCEDURE march(form text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1);
	COMMIT;
	FOR id IN 1 .. 1500 LOOP
		PERFORM take(form, id);
		IF (id + pg_backend_pid()) % 5 = 0 THEN
			ROLLBACK;
			PERFORM take(form, id);
		END IF;
		COMMIT;
	END LOOP;
END $$;
EOS
my @marchers = map { session($node) } 1 .. 8;
foreach my $form (qw(one batch position key trigger))
{
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	send_query($_, "CALL march('$form')") foreach @marchers;
	wait_until('they are ready',
		sub { value($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == @marchers });
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	$_->query_safe('SELECT 1') foreach @marchers;
	value($node, "INSERT INTO effect SELECT 'trigger', id FROM paid") if $form eq 'trigger';
	is(value($node, "SELECT count(*), count(DISTINCT id) FROM effect WHERE form = '$form'"),
		join('|', ($form eq 'batch' ? 1502 : 1500) x 2), "$form: eight in step, every effect once");
	unlike($_->{stderr}, qr/ERROR/, 'without an error') foreach @marchers;
	$_->{stderr} = '' foreach @marchers;
}
$_->quit foreach @marchers;

# ---- what changes between a look and the insertion -------------------------------------

# A receiver takes the id's lock and opens the generations one after another;
# the other one can be locked away from it.
my ($first, $second) = map { session($node) } 1 .. 2;
my @pid = map { pid_of($_) } $first, $second;

sub start_receiving
{
	my ($session, $pid, $id) = @_;

	send_query($session, "INSERT INTO answer VALUES ('$id', eo.receive('w', '$id')::text)");
	wait_locked($node, $pid);
	return;
}

sub answers
{
	my ($id) = @_;
	return value($node, "SELECT string_agg(answer, ' ' ORDER BY answer) FROM answer WHERE what = '$id'");
}

sub where_is
{
	my ($id) = @_;
	return join ' ', grep {
		value($node, "SELECT count(*) FROM eo.inbox_$_ WHERE message_id = '$id'")
	} map { ("${_}_0", "${_}_1") } qw(day week long);
}

value($node, "SELECT eo.create_consumer('w', '7 days')");
is(value($node, "SELECT count(*) FROM eo.generation WHERE family = 0 AND class = 1 AND current <> 0"), '0', 'the first generation is filled');
$holder->query_safe('BEGIN; LOCK TABLE eo.inbox_week_1 IN ACCESS EXCLUSIVE MODE');
start_receiving($first, $pid[0], 'turned');
start_receiving($second, $pid[1], 'turned');
value($node, <<'EOS');
INSERT INTO eo.generation VALUES (0, 1, 1, clock_timestamp())
	ON CONFLICT (family, class) DO UPDATE SET current = 1, switched_at = EXCLUDED.switched_at
EOS
$holder->query_safe('COMMIT');
$_->query_safe('SELECT 1') foreach $first, $second;
is(answers('turned'), 'false true', 'the generation is switched meanwhile: once');
is(where_is('turned'), 'week_0 week_1', 'in the new generation, too, where it is not forgotten too early');

$holder->query_safe('BEGIN; LOCK TABLE eo.inbox_week_0 IN ACCESS EXCLUSIVE MODE');
start_receiving($first, $pid[0], 'moved');
start_receiving($second, $pid[1], 'moved');
value($node, "SELECT eo.create_consumer('w', '30 days')");
$holder->query_safe('COMMIT');
$_->query_safe('SELECT 1') foreach $first, $second;
is(answers('moved'), 'false true', 'the window moves to another class meanwhile: once');
is(where_is('moved'), 'week_1', 'in the old class');
is(value($node, "SELECT eo.receive('w', 'moved'), eo.receive('w', 'turned'), eo.receive('w', 'after')"), 'f|f|t', 'nothing is forgotten');
is(where_is('after'), 'long_0', 'the next is in the new class');

# Who has come before the end counts; who comes after it has to try again.
$holder->query_safe('BEGIN; LOCK TABLE eo.inbox_long_1 IN ACCESS EXCLUSIVE MODE');
start_receiving($first, $pid[0], 'dropped');
start_receiving($second, $pid[1], 'dropped');
value($node, "SELECT eo.drop_consumer('w')");
$holder->query_safe('COMMIT');
$first->query_safe('SELECT 1');
$second->query('SELECT 1');
is(answers('dropped'), 'true', 'the consumer is dropped meanwhile: the first has received');
like($second->{stderr}, qr/consumer "w" was dropped at the same time/, 'the second has to try again');
is(value($node, "SELECT eo.receive('w', 'dropped'), eo.receive('w', 'dropped')"), 't|f', 'a new consumer has received nothing');
$second->{stderr} = '';

# A session knows what another one has dropped and created again.
is($first->query_safe("SELECT eo.receive('w', 'after')"), 't', 'before');
value($node, "SELECT eo.drop_consumer('w')");
is($first->query_safe("SELECT eo.receive('w', 'after')"), 't', 'after the consumer was dropped');
value($node, 'DROP EXTENSION eo_outbox CASCADE; CREATE EXTENSION eo_outbox');
is($first->query_safe("SELECT eo.receive('x', 'm')"), 't', 'after the extension was created again: another consumer, with the number of the first');
is($first->query_safe("SELECT eo.receive('w', 'm')"), 't', 'which is not taken for it');
is(value($node, "SELECT count(*) FROM eo.consumer"), '2', 'both are there');
$_->quit foreach $holder, $first, $second;

$node->stop;
done_testing();
