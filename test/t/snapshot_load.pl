# Snapshots of tables that many clients change at the same time: a consumer that
# begins before a snapshot and applies what it gets by key ends with the table.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $rounds = 4;
my $seconds = 4;    # of a round
my $node = new_log_server('load', conf => <<EOC);
eo_outbox.segment_size = 4MB
eo_outbox.retention = 0
deadlock_timeout = 50ms
max_connections = 40
log_min_error_statement = panic
EOC

# Facts, a changelog, and partitions; some values are stored apart.
value($node, <<'EOS');
CREATE TABLE t0 (id int PRIMARY KEY, n int NOT NULL, v text);
CREATE TABLE t1 (LIKE t0 INCLUDING ALL);
CREATE TABLE t2 (LIKE t0 INCLUDING ALL) PARTITION BY RANGE (id);
CREATE TABLE t2_low PARTITION OF t2 FOR VALUES FROM (MINVALUE) TO (1500);
CREATE TABLE t2_middle (v text, dropped int, n int NOT NULL, id int NOT NULL);
ALTER TABLE t2_middle DROP COLUMN dropped;
ALTER TABLE t2 ATTACH PARTITION t2_middle FOR VALUES FROM (1500) TO (3000);
CREATE TABLE t2_high PARTITION OF t2 FOR VALUES FROM (3000) TO (MAXVALUE);
SELECT eo.capture('t0', topic => 't0'), eo.capture('t1', topic => 't1', mode => 'changelog'), eo.capture('t2', topic => 't2');
CREATE FUNCTION test.fill(r int, n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO t%s SELECT i, 0, ''row '' || i FROM generate_series(1, %s) AS i ON CONFLICT DO NOTHING', r, n);
END $$;
SELECT test.fill(r, 4000) FROM generate_series(0, 2) AS r;

-- A new key, if nobody has it.
CREATE FUNCTION test.move(r int, i int, j int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('UPDATE t%s SET id = $2 WHERE id = $1', r) USING i, j;
EXCEPTION WHEN unique_violation THEN
	NULL;
END $$;

-- What subscriptions got, and what a consumer that applies it by key has then.
CREATE TABLE test.got (subscription text, seq bigint, key text, type text, payload jsonb);
CREATE FUNCTION test.take(name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	WITH taken AS (INSERT INTO test.got SELECT name, seq, key, type, payload FROM eo.fetch(name, 20000) RETURNING seq)
	SELECT max(seq) INTO last FROM taken;
	IF last IS NOT NULL THEN
		PERFORM eo.ack(name, last);
	END IF;
	RETURN coalesce(last, 0);
END $$;
CREATE FUNCTION test.state(name text) RETURNS TABLE (key text, payload jsonb) LANGUAGE sql AS $$
	SELECT key, payload FROM (SELECT DISTINCT ON (key) key, payload, type FROM test.got
		WHERE subscription = name AND key IS NOT NULL
			AND seq > coalesce((SELECT max(seq) FROM test.got WHERE subscription = name AND type LIKE '%.truncated'), 0)
		ORDER BY key, seq DESC) AS latest
	WHERE payload IS NOT NULL AND type NOT LIKE '%.deleted'
$$;
EOS

my $pick = "\\set r random(0, 2)\n\\set i random(1, 4500)\n\\set j random(1, 4500)\n";
my %script = (
	update => [ 30, "UPDATE t:r SET n = n + 1 WHERE id = :i;\n" ],
	wide => [ 5, "UPDATE t:r SET v = (SELECT string_agg(md5((:i * g)::text), '') FROM generate_series(1, 150) AS g) WHERE id = :i;\n" ],
	many => [ 3, "UPDATE t:r SET n = n + 1 WHERE id BETWEEN :i AND :i + 30;\n" ],
	insert => [ 15, "INSERT INTO t:r VALUES (:i, 0, 'new') ON CONFLICT (id) DO UPDATE SET n = excluded.n - 1;\n" ],
	delete => [ 10, "DELETE FROM t:r WHERE id = :i;\n" ],
	again => [ 5, "BEGIN;\nDELETE FROM t:r WHERE id = :i;\nINSERT INTO t:r VALUES (:i, 1, 'again') ON CONFLICT DO NOTHING;\nEND;\n" ],
	move => [ 10, "SELECT test.move(:r, :i, :j);\n" ],
	rollback => [ 10, "BEGIN;\nUPDATE t:r SET n = -1 WHERE id = :i;\nDELETE FROM t:r WHERE id = :j;\nROLLBACK;\n" ],
	savepoint => [ 10, "BEGIN;\nSAVEPOINT a;\nUPDATE t:r SET n = n + 1 WHERE id = :i;\nSAVEPOINT b;\nDELETE FROM t:r WHERE id = :j;\n"
		  . "UPDATE t:r SET n = -2 WHERE id = :i;\nROLLBACK TO b;\nRELEASE a;\nEND;\n" ],
	lock => [ 5, "BEGIN;\nSELECT FROM t:r WHERE id BETWEEN :i AND :i + 5 FOR KEY SHARE;\nUPDATE t:r SET n = n + 1 WHERE id = :i + 2;\n"
		  . "SELECT FROM t:r WHERE id = :i + 3 FOR UPDATE;\nEND;\n" ],
	strict => [ 5, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT n FROM t:r WHERE id = :j;\nUPDATE t:r SET n = n + 1 WHERE id = :i;\nEND;\n" ],
	slow => [ 5, "\\set ms random(1, 30)\nBEGIN;\nUPDATE t:r SET n = n + 1 WHERE id = :i;\n\\sleep :ms ms\nUPDATE t:r SET n = n + 1 WHERE id = :j;\nEND;\n" ],
	async => [ 5, "BEGIN;\nSET LOCAL synchronous_commit = off;\nUPDATE t:r SET n = n + 1 WHERE id = :i;\nEND;\n" ],
	vacuum => [ 1, "VACUUM t:r;\n" ],
);

# Now and then one of them does this, besides.
my %rare = (
	truncate => "BEGIN;\nTRUNCATE t:r;\nSELECT test.fill(:r, 3000);\nEND;\n",
	rewrite => "VACUUM FULL t:r;\n",
);
my $dir = PostgreSQL::Test::Utils::tempdir('pgbench');

sub script_file
{
	my ($name, $text) = @_;
	append_to_file("$dir/$name", $pick . $text);
	return "$dir/$name";
}

my @files = map { ('-f', script_file($_, $script{$_}[1]) . "\@$script{$_}[0]") } sort keys %script;
my %rare_files = map { $_ => script_file($_, $rare{$_}) } sort keys %rare;

sub start_bench
{
	my ($output, @args) = @_;
	return IPC::Run::start(
		[ 'pgbench', '-n', '--max-tries=50', @args, '-h', $node->host, '-p', $node->port, 'postgres' ],
		'>', $output, '2>&1');
}

sub start_snapshot
{
	my ($table, $name) = @_;
	value($node, "SELECT eo.subscribe('$name', '{$table}')");
	return value($node, "SELECT eo.snapshot('$table', '$name', 50)");
}

sub differences
{
	my ($table, $name) = @_;
	1 while value($node, "SELECT test.take('$name')") > 0;
	return value($node, <<"EOS");
SELECT coalesce(r.key, e.key), left(r.payload::text, 50), left(e.payload::text, 50)
FROM (SELECT id::text AS key, to_jsonb($table) AS payload FROM $table) AS r
	FULL JOIN test.state('$name') AS e USING (key)
WHERE r.payload IS DISTINCT FROM e.payload ORDER BY 1 LIMIT 10
EOS
}

my ($snapshots, $changed) = (0, 0);
foreach my $round (1 .. $rounds)
{
	my ($out, $rare_out) = ('', '');
	my %pending;
	my %begun;
	my $delay = $round % 2;

	$node->safe_psql('postgres', "ALTER SYSTEM SET eo_outbox.snapshot_delay = $delay");
	$node->reload;
	my $bench = start_bench(\$out, '-c', 6, '-j', 2, '-T', $seconds, "--random-seed=$round", @files);
	my $until = time() + $seconds - 1;

	while (time() < $until || %pending)
	{
		foreach my $r (0 .. 2)
		{
			my $state = $pending{$r} ? value($node, "SELECT state FROM eo.snapshots WHERE id = $pending{$r}") : '';

			delete $pending{$r} if $state !~ /waiting|running/;
			die "a snapshot of t$r has $state" if $state !~ /^(waiting|running|done|)$/;
			if (!$pending{$r} && time() < $until)
			{
				my $name = "s_${round}_${r}_" . ++$snapshots;

				$pending{$r} = start_snapshot("t$r", $name);
				push @{ $begun{$r} }, $name;
			}
		}
		if ($round > 2)
		{
			my $rare_bench = start_bench(\$rare_out, '-c', 1, '-t', 1, '-f', $rare_files{ $round % 2 ? 'truncate' : 'rewrite' });
			$rare_bench->finish or die $rare_out;
		}
		# it may have ended before the last snapshot
		$bench->pump_nb if $bench->pumpable;
	}
	ok($bench->finish, "round $round") or diag($out);
	foreach my $r (sort keys %begun)
	{
		my @wrong = grep { $_ ne '' } map { differences("t$r", $_) } @{ $begun{$r} };

		is(join("\n", @wrong), '', scalar(@{ $begun{$r} }) . " snapshots of t$r");
	}
	$changed += value($node, "SELECT count(*) FROM test.got WHERE type NOT LIKE '%.read'");
	value($node, "SELECT eo.unsubscribe(name) FROM eo.subscriptions; TRUNCATE test.got");
}
cmp_ok($snapshots, '>=', 3 * $rounds, "$snapshots snapshots");
cmp_ok($changed, '>', 1000, "beside $changed changes");

$node->stop;
done_testing();
