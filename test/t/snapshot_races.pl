# A snapshot of a table meets changes of its rows at chosen moments: between the
# reading of a row and its append, with transactions in every state.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('races', streaming => 1, conf => "max_connections = 40\ndeadlock_timeout = 100ms\n");

value($node, <<'EOS');
-- What a consumer has that applies the events after a seq by key, in order.
CREATE FUNCTION test.state(of_topic text, since bigint) RETURNS TABLE (key text, payload jsonb) LANGUAGE sql AS $$
	SELECT key, payload FROM (SELECT DISTINCT ON (key) key, payload, type FROM eo.events
		WHERE topic = of_topic AND key IS NOT NULL AND seq > since
			AND seq > coalesce((SELECT max(seq) FROM eo.events WHERE topic = of_topic AND type LIKE '%.truncated'), 0)
		ORDER BY key, seq DESC) AS latest
	WHERE payload IS NOT NULL AND type NOT LIKE '%.deleted'
$$;

-- A row at which the worker stops while it makes events, if the gate is closed.
CREATE FUNCTION test.pass(row_id int) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
	IF row_id = 50 AND current_setting('application_name') = 'eo_outbox snapshot' THEN
		PERFORM pg_advisory_xact_lock_shared(50);
	END IF;
	RETURN true;
END $$;

CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t SELECT i, 0, 'row ' || i FROM generate_series(1, 900) AS i;
SELECT eo.capture('t', topic => 't', when_clause => 'test.pass(id)');
CREATE TABLE u (LIKE t INCLUDING ALL);
INSERT INTO u SELECT * FROM t;
SELECT eo.capture('u', topic => 'u', when_clause => 'test.pass(id)');
EOS

my $gate = session($node);

sub last_seq
{
	return value($node, "SELECT coalesce(max(seq), 0) FROM eo.events");
}

sub differences
{
	my ($since, $table) = @_;
	$table //= 't';
	return value($node, <<"EOS");
SELECT coalesce(table_row.key, event.key), table_row.payload, event.payload
FROM (SELECT id::text AS key, to_jsonb($table) AS payload FROM $table) AS table_row
	FULL JOIN test.state('$table', $since) AS event USING (key)
WHERE table_row.payload IS DISTINCT FROM event.payload ORDER BY 1 LIMIT 20
EOS
}

sub wait_state
{
	my ($id, $state) = @_;
	my $now;

	wait_until(
		"snapshot $id is $state",
		sub {
			$now = value($node, "SELECT concat_ws(': ', state, error) FROM eo.snapshots WHERE id = $id");
			return $now eq $state;
		});
	return is($now, $state, "snapshot $id is $state");
}

# The worker has read the first rows, and stands at the gate with them.
sub begin_at_gate
{
	my ($table) = @_;
	$table //= 't';
	$gate->query_safe('SELECT pg_advisory_lock(50)');
	my $id = value($node, "SELECT eo.snapshot('$table')");
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'eo_outbox snapshot' AND wait_event = 'advisory'")
	  or die 'the worker does not come to the gate';
	return $id;
}

sub open_gate
{
	$gate->query_safe('SELECT pg_advisory_unlock(50)');
	return;
}

# ---- transactions that have ended when the row is appended -------------------------

my $since = last_seq();
my $id = begin_at_gate();
value($node, "UPDATE t SET n = 1 WHERE id = 10");
value($node, "DELETE FROM t WHERE id = 11");
value($node, "UPDATE t SET id = 1012 WHERE id = 12");
value($node, "DELETE FROM t WHERE id = 13; INSERT INTO t VALUES (13, 2, 'again')");
value($node, "BEGIN; UPDATE t SET n = 3 WHERE id = 14; ROLLBACK");
value($node, "BEGIN; SAVEPOINT a; UPDATE t SET n = 4 WHERE id = 15; ROLLBACK TO a; UPDATE t SET n = 5 WHERE id = 16; COMMIT");
value($node, "BEGIN; SAVEPOINT a; UPDATE t SET n = 6 WHERE id = 17; RELEASE a; COMMIT");
value($node, "INSERT INTO t VALUES (2000, 7, 'new')");
value($node, "UPDATE t SET n = 8 WHERE id = 18; UPDATE t SET n = 9 WHERE id = 18");
open_gate();
wait_state($id, 'done');
is(differences($since), '', 'changes that were committed or rolled back meanwhile');
is(value($node, "SELECT count(*) FROM eo.events WHERE topic = 't' AND type = 't.read' AND key IN ('10', '11', '12', '13', '16', '17', '18') AND payload ->> 'n' = '0'"),
	'0', 'rows are left out as they were before they changed');

# ---- transactions that go on ---------------------------------------------------------

# None of them holds the snapshot up, however it ends later.
my %open = (
	committed => ['UPDATE t SET n = 10 WHERE id = 20', 'COMMIT'],
	'rolled back' => ['UPDATE t SET n = 11 WHERE id = 21', 'ROLLBACK'],
	deleted => ['DELETE FROM t WHERE id = 22', 'COMMIT'],
	'not deleted' => ['DELETE FROM t WHERE id = 23', 'ROLLBACK'],
	moved => ['UPDATE t SET id = 1024 WHERE id = 24', 'COMMIT'],
	'not moved' => ['UPDATE t SET id = 1025 WHERE id = 25', 'ROLLBACK'],
	savepoint => ['SAVEPOINT a; UPDATE t SET n = 12 WHERE id = 26; RELEASE a', 'COMMIT'],
	'undone savepoint' => ['SAVEPOINT a; UPDATE t SET n = 13 WHERE id = 27; ROLLBACK TO a', 'COMMIT'],
	'savepoint rolled back' => ['SAVEPOINT a; UPDATE t SET n = 14 WHERE id = 28', 'ROLLBACK TO a; COMMIT'],
	locked => ['SELECT FROM t WHERE id = 29 FOR UPDATE', 'COMMIT'],
	'shared' => ['SELECT FROM t WHERE id IN (30, 31, 32) FOR KEY SHARE', 'COMMIT'],
	'changed beside a lock' => ['UPDATE t SET n = 15 WHERE id IN (30, 33)', 'COMMIT'],
	'not changed beside a lock' => ['UPDATE t SET n = 16 WHERE id IN (31, 34)', 'ROLLBACK'],
	'locked besides' => ['SELECT FROM t WHERE id IN (33, 34) FOR KEY SHARE', 'COMMIT'],
);
my %sessions = map { $_ => session($node) } keys %open;
my $before = session($node);

$before->query_safe('BEGIN; UPDATE t SET n = 17 WHERE id = 35');
$since = last_seq();
$id = begin_at_gate();
foreach my $what (sort keys %open)
{
	$sessions{$what}->query_safe("BEGIN; $open{$what}[0]");
}
open_gate();
wait_state($id, 'done');
foreach my $what (sort keys %open)
{
	$sessions{$what}->query_safe($open{$what}[1]);
	$sessions{$what}->quit;
}
$before->query_safe('ROLLBACK');
is(differences($since), '', 'transactions that go on after the snapshot, and then end in either way');

# ---- transactions between append and commit --------------------------------------------

# Both have appended.  What becomes of their rows is known when they end.
foreach my $end (qw(commit abort))
{
	my $session = session($node);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$since = last_seq();
	$id = begin_at_gate();
	my $holder = hold_commit($node, $session, $end eq 'commit' ? 'UPDATE t SET n = 20 WHERE id = 40' : 'UPDATE t SET n = 21 WHERE id = 41');
	open_gate();
	$node->poll_query_until('postgres', "SELECT seconds > 1 OR rows > 0 FROM eo.snapshot_part WHERE job = $id")
	  or die 'the snapshot gets nowhere';
	is(value($node, "SELECT state, rows_done FROM eo.snapshots WHERE id = $id"), 'running|0', 'a transaction that is committing is waited for');
	ok(value($node, "SET lock_timeout = '2 s'; SELECT eo.enqueue('other', '1')"), 'and others append meanwhile');
	if ($end eq 'commit')
	{
		release_commit($holder, $session);
	}
	else
	{
		value($node, "SELECT pg_terminate_backend($pid)");
		$holder->quit;
	}
	wait_state($id, 'done');
	is(differences($since), '', "a transaction between append and $end");
	is( value($node, "SELECT count(*) FROM eo.events WHERE topic = 't' AND type = 't.read' AND seq > $since AND payload ->> 'n' = '0' AND key = " . ($end eq 'commit' ? "'40'" : "'41'")),
		$end eq 'commit' ? '0' : '1', "the row as it was is there if nobody has changed it");
	$session->quit if $end eq 'commit';
}

# What has to wait is gone on with later: nothing before it is left out, nor
# comes twice, though a slice of rows begins on one page and ends on the next.
{
	my $session = session($node);
	my $row = value($node, "SELECT min(id) FROM u WHERE ctid >= '(1,0)'");

	cmp_ok($row % 100, '>', 1, 'a page begins in the middle of a slice');
	$since = last_seq();
	$id = begin_at_gate('u');
	my $holder = hold_commit($node, $session, "UPDATE u SET n = 22 WHERE id = $row");
	open_gate();
	$node->poll_query_until('postgres', "SELECT seconds > 1 OR rows >= $row FROM eo.snapshot_part WHERE job = $id")
	  or die 'the snapshot gets nowhere';
	is(value($node, "SELECT rows_done FROM eo.snapshots WHERE id = $id"), $row - ($row - 1) % 100 - 1,
		'the slice with the row has to wait');
	release_commit($holder, $session);
	wait_state($id, 'done');
	is(differences($since, 'u'), '', 'rows that had to wait');
	is(value($node, "SELECT count(*) = count(DISTINCT key), count(*) - rows_done, rows_done >= 899 FROM eo.events, eo.snapshots AS s WHERE topic = 'u' AND type = 'u.read' AND s.id = $id GROUP BY rows_done"),
		't|0|t', 'come once, and are counted once');
	$session->quit;
}

# A consumer that begins behind an event which is not committed yet gets the row
# all the same: the snapshot begins when that is decided.
{
	my $session = session($node);
	my $holder = hold_commit($node, $session, 'UPDATE t SET n = 30 WHERE id = 60');
	my $start = subscribe_pull($node, 'late');

	$id = value($node, "SELECT eo.snapshot('t', 'late')");
	$node->poll_query_until('postgres',
		"SELECT xact_start - backend_start > '1 s' FROM pg_stat_activity WHERE application_name = 'eo_outbox snapshot'")
	  or die 'there is no worker that tries more than once';
	is(value($node, "SELECT state FROM eo.snapshots WHERE id = $id"), 'waiting', 'no snapshot begins before what was appended is decided');
	release_commit($holder, $session);
	wait_state($id, 'done');
	pull($node, 'late');
	is(value($node, <<'EOS'), '', 'a consumer that began between append and commit');
SELECT coalesce(table_row.key, event.key) FROM (SELECT id::text AS key, to_jsonb(t) AS payload FROM t) AS table_row
	FULL JOIN (SELECT payload ->> 'id' AS key, payload FROM test.pulled WHERE subscription = 'late') AS event USING (key)
WHERE table_row.payload IS DISTINCT FROM event.payload
EOS
	$session->quit;
}

# ---- a commit that waits for a standby is decided --------------------------------------

# It has been noted; nothing takes it back but the loss of the server.
{
	my $session = session($node);

	$since = last_seq();
	$id = begin_at_gate();
	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	$node->reload;
	wait_until('the setting is known', sub { value($node, 'SHOW synchronous_standby_names') eq 'nobody' });
	value($node, 'CHECKPOINT');    # it is the checkpointer that makes commits wait
	send_query($session, "UPDATE t SET n = 40 WHERE id = 45");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	  or die 'nobody waits for the standby';
	open_gate();
	wait_state($id, 'done');
	$node->safe_psql('postgres', "ALTER SYSTEM RESET synchronous_standby_names");
	$node->reload;
	$session->query_safe('SELECT 1');
	is(differences($since), '', 'a commit that waits for a standby');
	$session->quit;
}

$gate->quit;
$node->stop;
done_testing();
