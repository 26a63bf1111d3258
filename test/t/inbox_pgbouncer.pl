# Everything through a PgBouncer that pools transactions: sixteen clients share
# four backends, and each transaction of a client may be on another one.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant CLIENTS => 16;
use constant BACKENDS => 4;
use constant MESSAGES => 400;

my $node = new_log_server('pooled', conf => <<EOC);
max_connections = 30
max_prepared_transactions = 5
deadlock_timeout = 100ms
eo_outbox.retention = 1h
log_statement = none
EOC

# ---- the pooler ---------------------------------------------------------------------

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = value($node, 'SELECT current_user');
my $backend = 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres';
append_to_file("$dir/users", qq("$user" ""\n));
append_to_file("$dir/ini", <<EOS);
[databases]
pool = $backend pool_size=@{[BACKENDS]}
single = $backend pool_size=1
[pgbouncer]
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
pool_mode = transaction
max_client_conn = 100
logfile = $dir/log
EOS
my $said = '';
my $pooler = IPC::Run::start([ 'pgbouncer', '-q', "$dir/ini" ], '<', \undef, '>', \$said, '2>&1');
END { $pooler->kill_kill if $pooler; }
wait_until('the pooler is there', sub { -S "$dir/.s.PGSQL.$port" });

# SQL through the pooler; the rows, or the error.
sub pooled
{
	my ($sql, $pool) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', "host=$dir port=$port dbname=" . ($pool // 'pool') ],
		'<', \$sql, '>', \$out, '2>', \$err);
	return ($out . $err) =~ s/\s+\z//r;
}

# ---- configuration, and transactions one by one -----------------------------------------

is(pooled("SELECT eo.create_consumer('pool', '1 day')"), '', 'a consumer');
is(pooled("SELECT eo.receive('pool', 'm'), eo.receive('pool', 'm'), eo.receive('first use', 'm')"), 't|f|t', 'receive');
is(pooled("SELECT string_agg(r, ' ') FROM eo.receive('pool', ARRAY['o', 'm', 'n']) AS r"), 'o n', 'a batch');
is(pooled("SELECT eo.receive_at('pool', 's', 1); SELECT eo.receive_at('pool', 's', 1); SELECT eo.receive_at('pool', 's', 3)"),
	"new\nduplicate\ngap", 'by position');
is(pooled("CREATE TABLE paid (id int, client int, pid int DEFAULT pg_backend_pid()); SELECT eo.deduplicate_table('paid', 'paid', 'id')"), '', 'a trigger');
is(pooled("COPY paid (id) FROM stdin;\n-1\n-2\n-1\n\\.\nSELECT count(*) FROM paid"), '2', 'COPY');
like(pooled("SELECT eo.subscribe('p', '{pool}')"), qr/^\d+$/, 'a subscription');
is(pooled(<<'EOS'), 'new|f', 'a key');
BEGIN;
SELECT state, response IS NOT NULL FROM eo.idempotency_begin('pool', 'k', '{"r": 1}');
SELECT FROM eo.idempotency_complete('pool', 'k', '{"a": 1}', 201);
COMMIT;
EOS
is(pooled("SELECT state, code, response FROM eo.idempotency_begin('pool', 'k', '{\"r\": 1}')"), 'replay|201|{"a": 1}', 'its answer');
is(pooled("SELECT state FROM eo.idempotency_begin('pool', 'k', '{\"r\": 2}')"), 'ERROR:  EO422', 'another request');
is(pooled("BEGIN; SELECT eo.receive('pool', 'two'); PREPARE TRANSACTION 'two'; COMMIT PREPARED 'two'; SELECT eo.receive('pool', 'two')"),
	"t\nf", 'two phases');

# ---- nothing of a transaction is left in the backend ---------------------------------------

my $headers = "SELECT coalesce(headers::text, '(none)') FROM eo.pending()";
my $enqueue = "SELECT FROM eo.enqueue('leftover', '1')";
foreach my $end ('COMMIT', 'ROLLBACK', "PREPARE TRANSACTION 'left'; ROLLBACK PREPARED 'left'")
{
	my $id = $end =~ s/\W+/ /gr;
	my $first = pooled("BEGIN; SELECT pg_backend_pid(); SET LOCAL eo_outbox.headers = '{\"t\": \"1\"}'; SELECT eo.receive('pool', '$id'); $end", 'single');
	my $second = pooled("BEGIN; SELECT pg_backend_pid(); $enqueue; $headers; ROLLBACK", 'single');

	like("$first\n$second", qr/^(\d+)\nt\n\1\n\(none\)$/, "nothing after $end");
}
is(pooled("SELECT eo.receive('only rolled back', '1'); BEGIN; SELECT eo.drop_consumer('only rolled back'); ROLLBACK; "
		. "BEGIN; SELECT eo.receive('never there', '1'); ROLLBACK", 'single'), "t\n\nt", 'what another client of the backend has rolled back');
is(pooled("SELECT eo.receive('only rolled back', '1'), eo.receive('never there', '1'), eo.receive('never there', '1')", 'single'), 'f|t|f', 'it does not know');

# ---- many clients ------------------------------------------------------------------------

value($node, <<'EOS');
CREATE TABLE effect (form text, id int, client int, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION take_batch(ids int[], client int) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO effect SELECT 'batch', r::int, client FROM eo.receive('pool batch', ids::text[]) AS r $$;
EOS
my %script = (
	# the client decides, in the middle of the transaction
	one => <<"EOS",
\\set id random(1, @{[MESSAGES]})
BEGIN;
SELECT eo.receive('pool one', :id::text, jsonb_build_object('correlationid', 'c' || :id))::int AS new \\gset
\\if :new
INSERT INTO effect VALUES ('one', :id, :client_id);
SELECT eo.enqueue('pool', to_jsonb(:id));
\\endif
COMMIT;
EOS
	rollback => <<"EOS",
\\set id random(1, @{[MESSAGES]})
BEGIN;
SELECT eo.receive('pool one', :id::text)::int AS new \\gset
\\if :new
INSERT INTO effect VALUES ('one', :id, :client_id);
\\endif
ROLLBACK;
EOS
	batch => <<"EOS",
\\set id random(1, @{[MESSAGES]} - 40)
BEGIN;
SELECT take_batch(ARRAY(SELECT i FROM generate_series(:id, :id + 40) AS i ORDER BY (i * 7919) % (:id + 13)), :client_id);
COMMIT;
EOS
	# two clients share a source, each of which delivers it from the beginning
	position => <<"EOS",
BEGIN;
SELECT (eo.receive_at('pool at', 'source ' || :client_id / 2, :place) = 'new')::int AS new \\gset
\\if :new
INSERT INTO effect VALUES ('position ' || :client_id / 2, :place, :client_id);
\\endif
COMMIT;
\\set place :place + 1
EOS
	trigger => <<"EOS",
\\set id random(1, @{[MESSAGES]} - 1)
INSERT INTO paid VALUES (:id, :client_id), (:id + 1, :client_id);
EOS
	key => <<"EOS",
\\set id random(1, @{[MESSAGES]})
BEGIN;
SELECT (state = 'new')::int AS new, coalesce(response, '0') AS answer FROM eo.idempotency_begin('pool keys', :id::text) \\gset
\\if :new
INSERT INTO effect VALUES ('key', :id, :client_id);
SELECT eo.idempotency_complete('pool keys', :id::text, to_jsonb(:id));
\\elif :answer <> :id
INSERT INTO effect VALUES ('wrong answer', :id, :client_id);
\\endif
COMMIT;
EOS
	# the token goes from transaction to transaction with the client
	lease => <<"EOS",
\\set own :own + 1
\\set key :client_id * 100000 + :own / 2
SELECT (state = 'new')::int AS new, token FROM eo.idempotency_begin('pool leases', :key::text, lease => '10 min') \\gset
\\if :new
SELECT eo.idempotency_checkpoint('pool leases', :key::text, 'half', ':token');
BEGIN;
INSERT INTO effect VALUES ('lease', :key, :client_id);
SELECT eo.idempotency_complete('pool leases', :key::text, to_jsonb(:own), 200, ':token');
COMMIT;
\\endif
EOS
);
my @files;
foreach my $name (sort keys %script)
{
	append_to_file("$dir/$name", $script{$name});
	push @files, '-f', "$dir/$name";
}
my ($out, $err) = ('', '');
my $good = IPC::Run::run(
	[
		'pgbench', '-n', '-c', CLIENTS, '-j', 2, '-t', 800, '--max-tries=50', '--random-seed=4711', '-D', 'place=1', '-D', 'own=1',
		@files, '-h', $dir, '-p', $port, '-U', $user, 'pool'
	],
	'<', \undef, '>', \$out, '2>', \$err);
ok($good, 'pgbench') or diag($err);
like($out, qr/number of transactions actually processed: @{[CLIENTS * 800]}\b/, 'all transactions') or diag($out, $err);
unlike($err, qr/abort/, 'no client gave up') or diag($err);

foreach my $form (qw(one batch key))
{
	is(value($node, "SELECT count(*) - count(DISTINCT id), count(*) > @{[MESSAGES * 0.9]} FROM effect WHERE form = '$form'"), '0|t', "$form: every effect once");
}
is(value($node, "SELECT count(*) - count(DISTINCT id), count(*) > @{[MESSAGES * 0.9]} FROM paid WHERE id > 0"), '0|t', 'trigger: every row once');
is(value($node, <<'EOS'), CLIENTS / 2, 'position: each source without a gap, and once');
SELECT count(*) FROM (SELECT count(*) AS n, count(DISTINCT id) AS d, max(id) AS last FROM effect WHERE form LIKE 'position%' GROUP BY form) AS s
	WHERE n = last AND d = last AND n > 50
EOS
is(value($node, "SELECT count(*) - count(DISTINCT id), count(*) > 500 FROM effect WHERE form = 'lease'"), '0|t', 'lease: every effect once');
is(value($node, "SELECT count(*) FROM effect WHERE form = 'wrong answer'"), '0', 'no wrong answer');
is(value($node, <<'EOS'), BACKENDS . '|' . CLIENTS, 'the clients have shared the backends');
SELECT count(DISTINCT pid), count(DISTINCT client) FILTER (WHERE pids > 1)
	FROM (SELECT client, pid, count(*) OVER (PARTITION BY client) AS pids FROM (SELECT DISTINCT client, pid FROM effect WHERE form = 'one') AS d) AS e
EOS

# What the effects have caused, read through the pooler, too.
value($node, <<'EOS');
CREATE TABLE got (id int, cause text, correlation text, position bigint);
CREATE FUNCTION pull() RETURNS bigint LANGUAGE sql AS $$
	WITH f AS (SELECT * FROM eo.fetch('p', 150)), i AS (
		INSERT INTO got SELECT payload::int, headers ->> 'causationid', headers ->> 'correlationid', position FROM f)
	SELECT max(seq) FROM f
$$;
CREATE FUNCTION pull_and_ack() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	last bigint := pull();
BEGIN
	PERFORM eo.ack('p', last) WHERE last IS NOT NULL;
	RETURN last IS NOT NULL;
END $$;
EOS
my $pulls = 0;
$pulls++ while pooled('SELECT pull_and_ack()') eq 't';
cmp_ok($pulls, '>', 2, 'events pulled');
is(value($node, "SELECT count(*), count(DISTINCT id), min(position), max(position), bool_and(cause = id::text AND correlation = 'c' || id) FROM got"),
	value($node, "SELECT count(*), count(*), 1, count(*), true FROM effect WHERE form = 'one'"), 'an event for each effect, which names its cause');

$pooler->signal('INT');
$pooler->finish;
undef $pooler;
$node->stop;
done_testing();
