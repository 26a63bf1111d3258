# Snapshots that are interrupted, stopped, or meet commands on their table: what
# goes on does so where it was, the rest says why it ended, and nobody waits for
# longer than a chunk takes.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('faults', conf => "deadlock_timeout = 100ms\neo_outbox.snapshot_delay = 0\n");
my $rows = 3000;

# The worker stops at a row in the middle while somebody has the gate.
value($node, <<"EOS");
CREATE FUNCTION test.pass(row_id int) RETURNS boolean LANGUAGE plpgsql SET lock_timeout = 0 AS \$\$
BEGIN
	IF row_id IN (500, 2000) AND current_setting('application_name') = 'eo_outbox snapshot' THEN
		PERFORM pg_advisory_xact_lock_shared(row_id);
	END IF;
	RETURN true;
END \$\$;
CREATE FUNCTION test.fill(name text) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, n int, v text)', name);
	EXECUTE format('INSERT INTO %I SELECT i, 0, ''row '' || i FROM generate_series(1, $rows) AS i', name);
	PERFORM eo.capture(name, topic => name, when_clause => 'test.pass(id)');
END \$\$;
CREATE FUNCTION test.state(of_topic text) RETURNS TABLE (key text, payload jsonb) LANGUAGE sql AS \$\$
	SELECT key, payload FROM (SELECT DISTINCT ON (key) key, payload, type FROM eo.events
		WHERE topic = of_topic AND key IS NOT NULL
			AND seq > coalesce((SELECT max(seq) FROM eo.events WHERE topic = of_topic AND type LIKE '%.truncated'), 0)
		ORDER BY key, seq DESC) AS latest
	WHERE type NOT LIKE '%.deleted'
\$\$;
EOS

my $worker = "application_name = 'eo_outbox snapshot'";
my %gate;

sub close_gate
{
	my ($row) = @_;
	$gate{$row} = session($node);
	$gate{$row}->query_safe("SELECT pg_advisory_lock($row)");
	return;
}

sub open_gate
{
	my ($row) = @_;
	(delete $gate{$row})->quit;
	return;
}

sub wait_at_gate
{
	my ($row) = @_;
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE $worker AND locktype = 'advisory' AND objid = $row AND NOT granted")
	  or die "the worker does not come to row $row";
	return;
}

# A snapshot that has read some rows and stops at one of the next.
sub begin_midway
{
	my ($table, $arguments) = @_;
	close_gate(2000);
	my $id = value($node, "SELECT eo.snapshot('$table', chunk_rows => 100" . ($arguments // '') . ')');
	wait_at_gate(2000);
	return $id;
}

sub state
{
	my ($id) = @_;
	return value($node, "SELECT concat_ws(': ', state, error) FROM eo.snapshots WHERE id = $id");
}

sub wait_end
{
	my ($id) = @_;
	wait_until("snapshot $id has ended", sub { state($id) !~ /^(waiting|running)/ });
	return state($id);
}

sub wait_no_worker
{
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE $worker")
	  or die 'the worker stays';
	return;
}

# What a consumer has that applies the events by key, against the table.
sub differences
{
	my ($table) = @_;
	return value($node, <<"EOS");
SELECT coalesce(r.key, e.key), r.payload, e.payload
FROM (SELECT id::text AS key, to_jsonb($table) AS payload FROM $table) AS r
	FULL JOIN test.state('$table') AS e USING (key)
WHERE r.payload IS DISTINCT FROM e.payload ORDER BY 1 LIMIT 10
EOS
}

sub count_read
{
	my ($table) = @_;
	return value($node, "SELECT count(*) || '|' || count(DISTINCT key) FROM eo.events WHERE topic = '$table' AND type = '$table.read'");
}

# ---- killed ---------------------------------------------------------------------

value($node, "SELECT test.fill('killed')");
foreach my $how ('its worker is killed', 'the server is stopped at once', 'its worker is terminated')
{
	my $since = value($node, 'SELECT coalesce(max(seq), 0) FROM eo.events');
	my $id = begin_midway('killed');
	my $pid = value($node, "SELECT pid FROM eo.snapshots WHERE id = $id");

	is(value($node, "SELECT rows_done % 100 = 0 AND rows_done BETWEEN 1000 AND 2000 FROM eo.snapshots WHERE id = $id"), 't', 'some chunks are done');
	value($node, "UPDATE killed SET n = n + 1 WHERE id IN (1, 1950, 2950); DELETE FROM killed WHERE id = 1960; INSERT INTO killed VALUES (1960, -1, 'new')");
	if ($how =~ /terminated/)
	{
		value($node, "SELECT pg_terminate_backend($pid)");
	}
	elsif ($how =~ /stopped/)
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		kill 'KILL', $pid;
		wait_until('the server has noticed', sub { server_starts($node) == 2 });
		$node->poll_query_until('postgres', 'SELECT true');
	}
	$how =~ /terminated/ ? open_gate(2000) : delete $gate{2000};
	is(wait_end($id), 'done', "goes on when $how");
	my $read = "FROM eo.events WHERE topic = 'killed' AND type = 'killed.read' AND seq > $since";
	is(value($node, "SELECT rows_done - (SELECT count(*) $read), percent FROM eo.snapshots WHERE id = $id"), '0|100.0', 'counts all rows');
	is(value($node, "SELECT count(DISTINCT key) $read"), $rows, 'has them');

	# those that were changed may have moved to a page that was still to be read
	is(value($node, "SELECT key $read AND key NOT IN ('1', '1950', '1960', '2950') GROUP BY key HAVING count(*) > 1"), '', 'each of them once');
	is(differences('killed'), '', 'as they are');
}

# ---- stopped --------------------------------------------------------------------

{
	value($node, "SELECT test.fill('stopped')");
	my $id = begin_midway('stopped');
	my $session = session($node);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	send_query($session, "SELECT eo.stop_snapshot('stopped')");
	wait_locked($node, $pid);
	open_gate(2000);
	$session->query_safe('SELECT 1');
	my $count = count_read('stopped');
	is(state($id), 'stopped', 'is stopped');
	wait_no_worker();
	is(count_read('stopped'), $count, 'and nothing comes after that');
	is(value($node, "SELECT rows_done || '|' || rows_done, rows_done BETWEEN 1000 AND 2100, percent < 100 FROM eo.snapshots WHERE id = $id"),
		"$count|t|t", 'the view tells how far it came');

	# it waits for those who may stop it yet, and makes another one meanwhile
	$id = begin_midway('stopped');
	value($node, "SELECT test.fill('other')");
	my $other = value($node, "SELECT eo.snapshot('other')");
	send_query($session, "BEGIN; SELECT eo.stop_snapshot('stopped')");
	wait_locked($node, $pid);
	open_gate(2000);
	is(wait_end($other), 'done', 'while one is being stopped the next is made');
	is(state($id), 'running', 'and that one rests');
	$session->query_safe('ROLLBACK');
	is(wait_end($id), 'done', 'unless nothing comes of the stop');
	is(differences('stopped'), '', 'with all rows');
	$session->quit;

	# cancelled by an administrator
	$id = begin_midway('stopped');
	value($node, "SELECT pg_cancel_backend(pid) FROM eo.snapshots WHERE id = $id");
	like(wait_end($id), qr/^failed: canceling statement due to user request/, 'a cancel ends it');
	open_gate(2000);
}

# ---- commands on the table --------------------------------------------------------

# Sends a command, and waits until that waits for a lock; some need not, and are
# carried out.
sub send_until_waits
{
	my ($session, $command) = @_;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	send_query($session, "$command; SET application_name = 'carried out'");
	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND NOT granted)"
		. " OR application_name = 'carried out' FROM pg_stat_activity WHERE pid = $pid") or die "$command does not wait";
	return;
}

# Each waits for the chunk under way and no longer, though the snapshot has more.
foreach my $case (
	[ 'DROP TABLE %s', qr/^failed: table "\w+" was dropped$/ ],
	[ "SELECT eo.uncapture('%s')", qr/^failed: table "\w+" is not captured any more$/ ],
	[ "BEGIN; SELECT eo.uncapture('%1\$s'), eo.capture('%1\$s', topic => 'again'); COMMIT", qr/^failed: table "\w+" was captured anew during its snapshot/ ],
	[ 'ALTER TABLE %s DISABLE TRIGGER ALL', qr/^failed: table "\w+" is not captured any more$/ ],
	[ 'ALTER TABLE %s ALTER n TYPE text', qr/^done$/ ],
	[ "ALTER TABLE %s ADD more int DEFAULT 7, DROP COLUMN v", qr/^done$/ ],
	[ 'VACUUM FULL %s', qr/^done$/ ],
	[ 'TRUNCATE %s', qr/^done$/ ],
	[ "BEGIN; TRUNCATE %1\$s; INSERT INTO %1\$s SELECT i, 9 FROM generate_series(100, 700) AS i; COMMIT", qr/^done$/ ],
	[ "BEGIN; DELETE FROM %1\$s WHERE id > 1000; COMMIT; VACUUM (TRUNCATE) %1\$s", qr/^done$/ ],
	[ 'ALTER TABLE %s RENAME TO %1$s_renamed', qr/^done$/ ])
{
	my ($command, $expected) = @$case;
	my $table = 'table_' . (value($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'table\\_%' AND relkind = 'r'") + 1);

	$table .= '_' . int(rand(1e9));
	value($node, "SELECT test.fill('$table')");
	my $id = begin_midway($table);
	my $session = session($node);

	send_until_waits($session, sprintf($command, $table));
	open_gate(2000);
	$session->query_safe('SELECT 1');
	like(wait_end($id), $expected, sprintf($command, 'the table'));
	$session->quit;
	next if $expected !~ /done/;
	if ($command =~ /RENAME/)
	{
		value($node, "ALTER TABLE ${table}_renamed RENAME TO $table");
	}
	if ($command =~ /^ALTER.*ADD/)
	{
		# Rows that were read before are not told of again: a column that was
		# added is not a change of them.
		is(value($node, "SELECT count(DISTINCT key) FROM eo.events WHERE topic = '$table'"), $rows, 'all rows are told of');
		is(value($node, "SELECT payload FROM eo.events WHERE topic = '$table' AND key = '3000'"), '{"n": 0, "id": 3000, "more": 7}', 'in the shape of their time');
		next;
	}
	is(differences($table), '', 'all rows are told of as they are');
	is(value($node, "SELECT percent FROM eo.snapshots WHERE id = $id"), '100.0', 'and that is all');
}

# ---- partitions -------------------------------------------------------------------

foreach my $command ('DROP TABLE parts_2', 'ALTER TABLE parts DETACH PARTITION parts_2', 'ALTER TABLE parts DETACH PARTITION parts_2; DROP TABLE parts_2')
{
	value($node, <<"EOS");
CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (2500);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (2500) TO (2600);
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (2600) TO (4000);
INSERT INTO parts SELECT i, i FROM generate_series(1, $rows) AS i;
SELECT eo.capture('parts', topic => 'parts', when_clause => 'test.pass(id)');
EOS
	my $since = value($node, 'SELECT coalesce(max(seq), 0) FROM eo.events');
	my $id = begin_midway('parts');
	my $session = session($node);

	send_until_waits($session, $command);
	open_gate(2000);
	$session->query_safe('SELECT 1');
	is(wait_end($id), 'done', $command);
	is(value($node, "SELECT count(*), count(DISTINCT key) FROM eo.events WHERE topic = 'parts' AND seq > $since"), '2900|2900', 'the others are told of');
	$session->quit;
	value($node, 'DROP TABLE IF EXISTS parts, parts_2');
}

# ---- locks ------------------------------------------------------------------------

{
	value($node, "SELECT test.fill('locked')");
	my $id = begin_midway('locked');
	my $session = session($node);
	my $other = value($node, "SELECT eo.snapshot('other')");
	my $pid = value($node, "SELECT pid FROM eo.snapshots WHERE id = $id");

	send_until_waits($session, 'BEGIN; LOCK TABLE locked');
	open_gate(2000);
	$session->query_safe('SELECT 1');
	is(wait_end($other), 'done', 'while a table is locked, the snapshot of another one is made');
	is(state($id), 'running', 'and that of the locked one rests');
	is(value($node, "SELECT count(*) FROM pg_locks WHERE NOT granted"), '0', 'without waiting for the lock');
	is(value($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND backend_type = 'eo_outbox snapshot'"), '1', 'by the same worker');
	my $new = value($node, "SELECT eo.snapshot('stopped')");
	is(wait_end($new), 'done', 'also one that is asked for later');
	$session->query_safe('COMMIT');
	is(wait_end($id), 'done', 'it goes on after that');
	is(differences('locked'), '', 'with all rows');
	is(count_read('locked'), "$rows|$rows", 'once');
	$session->quit;
}

# ---- no long transaction -------------------------------------------------------------

{
	close_gate(500);
	close_gate(2000);
	my $id = value($node, "SELECT eo.snapshot('locked', chunk_rows => 100)");

	wait_at_gate(500);
	my $xmin = value($node, "SELECT backend_xmin FROM pg_stat_activity WHERE $worker");

	# numbers of transactions, so that the next snapshot is another one
	value($node, 'SELECT txid_current()') foreach 1 .. 3;
	open_gate(500);
	wait_at_gate(2000);
	cmp_ok(value($node, "SELECT backend_xmin::text::bigint - $xmin FROM pg_stat_activity WHERE $worker"), '>', 3,
		'a snapshot does not keep VACUUM from what went before its chunk');
	is(value($node, "SELECT DISTINCT mode FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE $worker AND relation = 'locked'::regclass"),
		'AccessShareLock', 'and locks the table against nothing but changes of its shape');
	open_gate(2000);
	wait_end($id);
}

# ---- one subscription ------------------------------------------------------------------

{
	value($node, "SELECT eo.subscribe('one', '{other}'), eo.subscribe('two', '{other}')");
	my $id = value($node, "SELECT eo.snapshot('other', 'one')");

	is(wait_end($id), 'done', 'for one subscription');
	is(value($node, "SELECT subscription FROM eo.snapshots WHERE id = $id"), 'one', 'which the view names');
	value($node, "UPDATE other SET n = 5 WHERE id = 1");
	is(pull($node, 'one', 5000), $rows + 1, 'which gets the rows');
	is(pull($node, 'two', 5000), 1, 'the others get what changes');

	$id = begin_midway('other', ", subscription => 'one'");
	my ($ret, $out, $err) = $node->psql('postgres', "SELECT eo.snapshot('other', 'one')");
	like($err, qr/a snapshot of table "other" is under way already/, 'there is one at a time');
	value($node, "SELECT eo.unsubscribe('one')");
	open_gate(2000);
	like(wait_end($id), qr/^failed: the subscription of the snapshot of table "other" was dropped/, 'one that is dropped ends it');
}

# ---- progress ---------------------------------------------------------------------------

{
	my $id;
	my @seen;
	my @running;
	my $set_delay = sub {
		$node->safe_psql('postgres', "ALTER SYSTEM SET eo_outbox.snapshot_delay = $_[0]");
		$node->reload;
	};

	# slow, until it has been seen often enough
	$set_delay->(1000);
	$id = value($node, "SELECT eo.snapshot('other', chunk_rows => 50)");

	wait_until(
		'it has ended',
		sub {
			push @seen, value($node, "SELECT percent, rows_done, state, rows_estimate >= rows_done, time_left IS NOT NULL AND pid IS NOT NULL AND rows_per_second > 0 FROM eo.snapshots WHERE id = $id");
			push @running, $seen[-1] if $seen[-1] =~ /running/ && $seen[-1] !~ /^0/;
			$set_delay->(20) if @running == 6;
			return $seen[-1] !~ /waiting|running/;
		});
	my @percent = map { /^([\d.]+)/ } @seen;
	my @done = map { /\|(\d+)\|/ } @seen;
	is(join(' ', @percent), join(' ', sort { $a <=> $b } @percent), 'the percentage rises');
	is(join(' ', @done), join(' ', sort { $a <=> $b } @done), 'as do the rows');
	is($seen[-1], "100.0|$rows|done|t|f", 'up to all');
	cmp_ok(scalar(@running), '>', 5, 'which can be watched');
	is(scalar(grep { !/\|t\|t$/ } @running), 0, 'with the time that is left');
}

$node->stop;
done_testing();
