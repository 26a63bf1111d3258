# Readers that keep reading while eight clients commit, roll back and fail: they
# get all that committed, once, in strictly rising order.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = 8;
my $node = new_log_server('stress', conf => <<EOC);
eo_outbox.segment_size = 1MB
eo_outbox.retention = 1h
max_connections = 50
EOC
my $path = subscribe_file($node, 'f');
subscribe_pull($node, 'p');
value($node, <<'EOS');
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account SELECT i, 100 FROM generate_series(0, 9) AS i;
-- The number of a key's event is that of the row's update.
CREATE TABLE counter (key text PRIMARY KEY, n int NOT NULL);
INSERT INTO counter SELECT 'k' || i, 0 FROM generate_series(0, 19) AS i;
CREATE FUNCTION test.count(k text) RETURNS uuid LANGUAGE sql AS
$$ WITH u AS (UPDATE counter SET n = n + 1 WHERE key = k RETURNING n)
	SELECT eo.enqueue('counted', to_jsonb(n), k) FROM u $$;
EOS

my %script = (
	one => "\\set k random(0, 19)\nSELECT test.count('k' || :k);\n",
	several => "\\set k random(0, 19)\nBEGIN;\nSELECT test.count('k' || :k);\nSELECT eo.enqueue('plain', '1');\n"
	  . "SELECT eo.enqueue_bytes('plain', test.noise(3000));\nEND;\n",
	rollback => "\\set k random(0, 19)\nBEGIN;\nSELECT test.count('k' || :k);\nSELECT eo.enqueue('undone', '1');\nROLLBACK;\n",
	savepoint => "\\set k random(0, 19)\nBEGIN;\nSELECT eo.enqueue('plain', '1');\nSAVEPOINT s;\nSELECT test.count('k' || :k);\n"
	  . "SELECT eo.enqueue('undone', '1');\nROLLBACK TO s;\nSELECT eo.enqueue('plain', '2');\nEND;\n",
	serializable => "\\set a random(0, 9)\n\\set b random(0, 9)\nBEGIN ISOLATION LEVEL SERIALIZABLE;\n"
	  . "SELECT sum(balance) FROM account WHERE id <> :a;\nUPDATE account SET balance = balance - 1 WHERE id = :a;\n"
	  . "UPDATE account SET balance = balance + 1 WHERE id = :b;\nSELECT eo.enqueue('moved', '1');\nEND;\n",
	async => "\\set k random(0, 19)\nBEGIN;\nSET LOCAL synchronous_commit = off;\nSELECT test.count('k' || :k);\nEND;\n",
	late => "BEGIN;\nCREATE TEMP TABLE emptied (i int PRIMARY KEY) ON COMMIT DELETE ROWS;\n"
	  . "DROP TABLE emptied;\nSELECT eo.enqueue_bytes('plain', test.noise(20000));\nEND;\n",
);
my @files;
my $dir = PostgreSQL::Test::Utils::tempdir("pgbench");
foreach my $name (sort keys %script)
{
	append_to_file("$dir/$name", $script{$name});
	push @files, '-f', "$dir/$name@" . ($name eq 'late' ? 2 : 4);
}

my ($out, $err) = ('', '');
my $bench = IPC::Run::start(
	[
		'pgbench', '-n', '-c', '8', '-j', '2', '-T', $seconds, '--max-tries=5', '--random-seed=4711',
		@files, '-h', $node->host, '-p', $node->port, 'postgres'
	],
	'>', \$out, '2>', \$err);

my ($total, $rounds) = (0, 0);
while ($bench->pumpable)
{
	$bench->pump_nb;
	$total += value($node, "SELECT test.pull('p', " . (1 + $rounds * 37 % 900) . ')');
	$rounds++;
}
ok($bench->finish, 'pgbench') or diag($err);
like($out, qr/number of transactions actually processed: \d{3,}/, 'with some transactions');
cmp_ok($rounds, '>', 20, 'read many times meanwhile');
$total += pull($node, 'p');

cmp_ok($total, '>', 1000, "$total events were read");
is($total, value($node, 'SELECT count(*) FROM eo.events'), 'as many as there are');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
is(value($node, "SELECT count(*) FROM test.pulled WHERE topic = 'undone'"), '0', 'nothing that was rolled back');
is(value($node, <<'EOS'), '0', 'the events of each key count without a gap');
SELECT count(*) FROM (SELECT payload::int <> row_number() OVER (PARTITION BY e.key ORDER BY e.seq) AS wrong
	FROM eo.events AS e WHERE topic = 'counted') AS o WHERE wrong
EOS
is(value($node, "SELECT count(*) FROM counter AS c WHERE n <> (SELECT count(*) FROM eo.events AS e WHERE topic = 'counted' AND e.key = c.key)"),
	'0', 'and up to the count in the table');
is(value($node, 'SELECT sum(balance) FROM account'), '1000', 'SERIALIZABLE kept its promise');
is(value($node, "SELECT string_agg(DISTINCT s::text, ',') FROM (SELECT count(*) - count(DISTINCT seq) AS s FROM eo.events) AS e"), '0', 'no number twice');
for my $segment (0 .. 7)
{
	is(physical_order($node, $segment), '0', "segment $segment is in order");
}

# All again after a crash under load.
$bench = IPC::Run::start(
	[
		'pgbench', '-n', '-c', '8', '-j', '2', '-T', '60', '--max-tries=5',
		@files, '-h', $node->host, '-p', $node->port, 'postgres'
	],
	'>', \$out, '2>', \$err);
my $mark = value($node, 'SELECT last_seq FROM eo.log_status()');
while (value($node, 'SELECT last_seq FROM eo.log_status()') < $mark + 500)
{
	value($node, "SELECT test.pull('p', 200)");
}
kill_everything($node);
$bench->finish;
value($node, "SELECT eo.enqueue('after', '1')");
pull($node, 'p');
check_pulled($node, 'p', 'pull after a crash under load');
check_file($node, 'f', $path, 'file after a crash under load');
is(value($node, "SELECT count(*) FROM counter AS c WHERE n <> (SELECT count(*) FROM eo.events AS e WHERE topic = 'counted' AND e.key = c.key)"),
	'0', 'every update has its event');
$node->stop;

done_testing();
