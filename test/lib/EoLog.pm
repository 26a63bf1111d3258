# Helpers for tests of the log: a server on which EO_MUTANT may have taken a
# safety mechanism away, sessions that stop between append and commit, and
# readers that check what they get.

package EoLog;

use strict;
use warnings;
use EoRelay;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  new_log_server mutant_conf session send_query value abort_after_append
  hold_commit release_commit subscribe_pull pull check_pulled check_file
  physical_order stop_if stop_relay_idle kill_everything wait_locked make_helpers
);

my $gates = 0;

# One failure is enough to notice a missing mechanism.
if (($ENV{EO_MUTANT} // '') ne '')
{
	my $ok = \&Test::Builder::ok;

	no warnings 'redefine';
	*Test::Builder::ok = sub {
		my $good = $ok->(@_);
		exit 1 unless $good;
		return $good;
	};
}

# The line of the configuration that takes the mechanism away.
sub mutant_conf
{
	my $mutant = $ENV{EO_MUTANT} // '';
	return $mutant eq '' ? '' : "eo_outbox.test_$mutant = on\n";
}

sub new_log_server
{
	my ($name, %args) = @_;
	my $node = new_server($name, %args, conf => ($args{conf} // '') . mutant_conf());

	make_helpers($node, 'postgres');
	return $node;
}

sub make_helpers
{
	my ($node, $db) = @_;
	$node->safe_psql($db, <<'EOS');
CREATE SCHEMA test;

-- Bytes that do not compress.
CREATE FUNCTION test.noise(size int, salt text DEFAULT '') RETURNS bytea LANGUAGE sql AS
	$$ SELECT coalesce(substr(string_agg(sha256(convert_to(salt || i, 'UTF8')), '' ORDER BY i), 1, size), '')
		FROM generate_series(1, size / 32 + 1) AS i $$;

-- One event per transaction.
CREATE PROCEDURE test.put(n int, size int DEFAULT 0, topic text DEFAULT 't') LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM eo.enqueue_bytes(topic, test.noise(size, i::text));
		COMMIT;
	END LOOP;
END $$;

-- Locks what a session empties at its commit.
CREATE FUNCTION test.hold(tab text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE (SELECT format('LOCK TABLE %s IN ACCESS SHARE MODE', oid::regclass)
		FROM pg_class WHERE relname = tab AND relpersistence = 't');
END $$;

-- What a pull subscription returned, in the order in which it did.
CREATE TABLE test.pulled (n bigserial, subscription text, seq bigint, event_id uuid, topic text, position bigint,
	payload jsonb, body bytea);
CREATE FUNCTION test.pull(name text, max_events int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	e eo.event;
	n bigint := 0;
	last bigint;
BEGIN
	FOR e IN SELECT * FROM eo.fetch(name, max_events) LOOP
		INSERT INTO test.pulled (subscription, seq, event_id, topic, position, payload, body)
			VALUES (name, e.seq, e.event_id, e.topic, e.position, e.payload, e.body);
		last := e.seq;
		n := n + 1;
	END LOOP;
	IF n > 0 THEN
		PERFORM eo.ack(name, last);
	END IF;
	RETURN n;
END $$;

-- What is wrong with what was pulled, against what the log holds.
CREATE FUNCTION test.problems(name text) RETURNS TABLE (problem text, n bigint) LANGUAGE sql AS $$
	SELECT 'lost', count(*) FROM eo.events AS e
		WHERE seq > (SELECT start_seq FROM eo.subscription AS s WHERE s.name = problems.name)
			AND NOT EXISTS (SELECT FROM test.pulled AS p WHERE p.subscription = problems.name AND p.event_id = e.event_id AND p.seq = e.seq)
	UNION ALL
	SELECT 'phantom', count(*) FROM test.pulled AS p WHERE p.subscription = problems.name
		AND NOT EXISTS (SELECT FROM eo.events AS e WHERE p.event_id = e.event_id AND p.seq = e.seq)
	UNION ALL
	SELECT 'altered', count(*) FROM test.pulled AS p JOIN eo.events AS e USING (seq) WHERE p.subscription = problems.name
		AND (p.topic, p.payload, p.body) IS DISTINCT FROM (e.topic, e.payload, e.body)
	UNION ALL
	SELECT 'out of order', count(*) FROM (SELECT p.seq <= lag(p.seq) OVER (ORDER BY p.n) AS wrong
		FROM test.pulled AS p WHERE p.subscription = problems.name) AS o WHERE wrong
	UNION ALL
	SELECT 'wrong position', count(*) FROM (SELECT p.position <> row_number() OVER (PARTITION BY p.topic ORDER BY p.n) AS wrong
		FROM test.pulled AS p WHERE p.subscription = problems.name) AS o WHERE wrong
$$;
EOS
	return;
}

# A psql that stays; its errors do not end it.  The time limit is for its whole
# life, not for a query.
sub session
{
	my ($node, $db) = @_;
	return $node->background_psql($db // 'postgres', on_error_stop => 0,
		timeout => 4 * $PostgreSQL::Test::Utils::timeout_default);
}

# Sends a query that will not return at once.
sub send_query
{
	my ($session, $query) = @_;
	$session->query_until(qr/sent/, "\\echo sent\n$query;\n");
	return;
}

sub value
{
	my ($node, $query, $db) = @_;
	return $node->safe_psql($db // 'postgres', $query);
}

# Appends $n events in a transaction that fails after that: emptying a
# temporary table at commit is refused when another one refers to it.
sub abort_after_append
{
	my ($node, $n, $size, $session) = @_;
	$size //= 0;
	my $sql = <<EOS;
BEGIN;
CREATE TEMP TABLE emptied (i int PRIMARY KEY) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE refers (i int REFERENCES emptied);
SELECT count(eo.enqueue_bytes('aborted', test.noise($size, i::text))) FROM generate_series(1, $n) AS i;
COMMIT;
EOS
	my ($ret, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0);
	like($err, qr/unsupported ON COMMIT/, "$n events of $size bytes appended, then aborted");
	return;
}

# Runs $query in $session and stops its commit between append and commit record.
# Returns the session that holds it up.
sub hold_commit
{
	my ($node, $session, $query) = @_;
	my $holder = session($node);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $gate = 'gate_' . ++$gates;

	$session->query_safe("CREATE TEMP TABLE $gate (i int) ON COMMIT DELETE ROWS");
	$session->query_safe("BEGIN; INSERT INTO $gate VALUES (1); $query");
	$holder->query_safe("BEGIN; SELECT test.hold('$gate')");
	send_query($session, 'COMMIT');
	wait_locked($node, $pid);
	return $holder;
}

sub release_commit
{
	my ($holder, $session) = @_;
	$holder->query_safe('COMMIT');
	$holder->quit;
	$session->query_safe('SELECT 1');
	return;
}

sub wait_locked
{
	my ($node, $pid) = @_;
	$node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_locks WHERE pid = $pid AND NOT granted")
	  or die "process $pid does not wait for a lock";
	return;
}

sub subscribe_pull
{
	my ($node, $name, $start, $db) = @_;
	$start //= 'now';
	return value($node, "SELECT eo.subscribe('$name', start_at => '$start')", $db);
}

# Pulls until nothing comes any more; returns how many came.
sub pull
{
	my ($node, $name, $max, $db) = @_;
	my $total = 0;
	$max //= 1000;
	while ((my $n = value($node, "SELECT test.pull('$name', $max)", $db)) > 0)
	{
		$total += $n;
	}
	return $total;
}

# One test: all that the log holds has been pulled, once, in order, unaltered.
sub check_pulled
{
	my ($node, $name, $what, $db) = @_;
	is(value($node, "SELECT problem, n FROM test.problems('$name') WHERE n > 0", $db), '', $what);
	return;
}

# One test: the same for a file subscription that started when the log was empty.
sub check_file
{
	my ($node, $name, $path, $what) = @_;
	my $last = value($node, 'SELECT max(seq) FROM eo.events');

	wait_published($node, $name, $last);
	check_events($node, $path, 'true', $what);
	return;
}

# Rows of a segment that stand behind one with a higher seq.
sub physical_order
{
	my ($node, $segment) = @_;
	return value($node,
		"SELECT count(*) FROM (SELECT seq < lag(seq) OVER (ORDER BY ctid) AS wrong FROM eo.log_$segment) AS o WHERE wrong");
}

# Stops a process if a query says 't' then.  It may have been stopped with
# something that the query needs, so that there is no answer.
sub stop_if
{
	my ($node, $pid, $query) = @_;
	my $late = 0;

	kill 'STOP', $pid;
	my ($ret, $answer) = $node->psql('postgres', $query, timeout => 10, timed_out => \$late);
	return 1 if !$late && $answer eq 't';
	kill 'CONT', $pid;
	return 0;
}

# Stops the relay when it has nothing to do, and holds no lock or snapshot.
sub stop_relay_idle
{
	my ($node, $db) = @_;
	my $pid = value($node, 'SELECT relay_pid FROM eo.log_status()', $db);

	wait_until('the relay is idle', sub { return stop_if($node, $pid, <<EOS) });
SELECT backend_xmin IS NULL AND backend_xid IS NULL
	AND NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid)
	FROM pg_stat_activity AS a WHERE pid = $pid
EOS
	return $pid;
}

# kill -9 of every process of the server at once, then starts it again.
sub kill_everything
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	my @children = split /\s+/, `pgrep -P $postmaster`;

	kill 'KILL', $postmaster, @children;
	kill_and_start($node);
	return;
}

1;
