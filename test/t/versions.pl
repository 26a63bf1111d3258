# What only later versions of PostgreSQL have, and what must not come of it; the
# earlier ones run what they can of it.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('versions', conf => "max_worker_processes = 20\n");
my $version = $node->pg_version;
my $path = subscribe_file($node, 'f');

sub has
{
	my ($major) = @_;
	return $version >= $major;
}

sub relay_pid
{
	return value($node, 'SELECT relay_pid FROM eo.log_status()');
}

# All that is in the log has come out, by the relay that was there before.
sub publishes
{
	my ($what, $pid) = @_;
	my $seq = enqueue($node, 'after', 3);
	ok(wait_published($node, 'f', $seq), "$what: events come out");
	is(relay_pid(), $pid, '... by the same relay') if defined $pid;
	return;
}

# ---- the library that is loaded ---------------------------------------------------------------

is(value($node, <<'EOS'), 't', 'the server knows which version of the library it runs') if has(18);
SELECT version = (SELECT extversion FROM pg_extension WHERE extname = 'eo_outbox') FROM pg_get_loaded_modules()
WHERE module_name = 'eo_outbox'
EOS

# ---- uuids ---------------------------------------------------------------------------------

value($node, "SELECT eo.enqueue('seven', '1')");
value($node, "SELECT eo.enqueue('seven', '2', event_id => uuidv7())") if has(18);
is(value($node, "SELECT DISTINCT uuid_extract_version(event_id) FROM eo.events WHERE topic = 'seven'"), '7', 'event ids are of version 7')
  if has(17);
is(value($node, "SELECT max(abs(extract(epoch FROM uuid_extract_timestamp(event_id) - enqueued_at))) < 60 FROM eo.events WHERE topic = 'seven'"),
	't', '... and tell their time') if has(18);
is(value($node, "SELECT count(*) FROM eo.events WHERE topic = 'seven' AND substring(event_id::text, 15, 1) = '7'"), has(18) ? 2 : 1,
	'their text shows it');

# ---- 17: transaction_timeout -------------------------------------------------------------

# Who stands in a transaction for a second without ever waiting.
sub stall_at
{
	my ($point, $id, $sql) = @_;
	value($node, "ALTER SYSTEM SET eo_outbox.test_point = '$point:stall:1:$id'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('eo_outbox.test_point') = '$point:stall:1:$id'") or die 'no reload';
	value($node, $sql);
	wait_until("$point has been reached", sub { return $node->log_contains("test point \"$point\": stall") });
	return;
}

if (has(17))
{
	local $ENV{PGOPTIONS} = '-c transaction_timeout=0';
	$node->append_conf('postgresql.conf', "transaction_timeout = 300ms\n");
	$node->restart;
	$node->poll_query_until('postgres', 'SELECT relay_pid IS NOT NULL FROM eo.log_status()') or die 'no relay';
	my $pid = relay_pid();
	my $launcher = value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'eo_outbox launcher'");

	stall_at('relay_read', 1, "SELECT eo.enqueue('slow', '1')");
	publishes('transaction_timeout, reading', $pid);
	stall_at('cursor_write', 2, "SELECT eo.enqueue('slow', '2')");
	publishes('transaction_timeout, writing the cursor', $pid);
	value($node, "CREATE TABLE slow AS SELECT 1 AS id; ALTER TABLE slow ADD PRIMARY KEY (id); SELECT eo.capture('slow', 'slow')");
	stall_at('snapshot_append', 3, "SELECT eo.snapshot('slow')");
	ok($node->poll_query_until('postgres', "SELECT state = 'done' FROM eo.snapshots WHERE relation = 'slow'::regclass"),
		'transaction_timeout ends no snapshot');

	# the launcher cannot look at the databases
	my $session = session($node);
	$session->query_safe("BEGIN; LOCK TABLE pg_database; SELECT pg_terminate_backend($pid)");
	wait_until('the launcher waits',
		sub { return $session->query_safe("SELECT count(*) FROM pg_locks WHERE pid = $launcher AND NOT granted") });
	$session->query_safe('SELECT pg_sleep(1)');    # lasts: longer than the timeout
	$session->query_safe('ROLLBACK');
	$session->quit;
	$node->poll_query_until('postgres', "SELECT relay_pid <> $pid FROM eo.log_status()") or die 'no relay';
	is(value($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'eo_outbox launcher'"),
		$launcher, 'nor does it end the launcher');
	ok(!$node->log_contains('due to transaction timeout'), 'nobody else was ended either');
	$node->append_conf('postgresql.conf', "transaction_timeout = 0\n");
	value($node, 'ALTER SYSTEM RESET eo_outbox.test_point');
	$node->restart;
}

# ---- 17: the builtin locale provider, login triggers, MAINTAIN ---------------------------------

if (has(17))
{
	foreach my $locale ('C', 'C.UTF-8', has(18) ? 'PG_UNICODE_FAST' : ())
	{
		my $db = 'builtin_' . lc($locale =~ s/\W//gr);
		value($node, "CREATE DATABASE $db TEMPLATE template0 ENCODING UTF8 LOCALE_PROVIDER builtin BUILTIN_LOCALE '$locale' LOCALE 'C'");
		value($node, 'CREATE EXTENSION eo_outbox', $db);
		value($node, <<'EOS', $db);
CREATE TABLE t ("Größe" text PRIMARY KEY, loud text GENERATED ALWAYS AS (upper("Größe")) STORED);
SELECT eo.subscribe('p', '{größe*}');
SELECT eo.capture('t', 'größe.t', when_clause => $$"Größe" <> 'x'$$);
INSERT INTO t VALUES ('straße'), ('x');
SELECT eo.enqueue('größe', '1', key => 'É'), eo.enqueue('GRÖSSE', '2');
EOS
		is(value($node, "SELECT string_agg(topic || ' ' || key, ', ' ORDER BY seq) FROM eo.fetch('p')", $db),
			'größe.t straße, größe É', "topics, keys and filters with the builtin locale $locale");
		value($node, "DROP DATABASE $db");
	}

	my $pid = relay_pid();
	value($node, <<'EOS');
CREATE FUNCTION logged_in() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM eo.enqueue('logins', to_jsonb(session_user::text));
	IF current_setting('application_name') = 'refused' THEN
		RAISE EXCEPTION 'no';
	END IF;
END $$;
CREATE EVENT TRIGGER logged_in ON login EXECUTE FUNCTION logged_in();
EOS
	value($node, 'SELECT 1');
	isnt($node->psql('postgres', 'SELECT 1', connstr => $node->connstr('postgres') . ' application_name=refused'),
		0, 'a login trigger refuses');
	is(value($node, "DROP EVENT TRIGGER logged_in; SELECT count(*) FROM eo.events WHERE topic = 'logins'"),
		2, 'and what it enqueued for those it let in is there');
	publishes('after a login trigger', $pid);

	value($node, "CREATE ROLE keeper; GRANT pg_maintain TO keeper; GRANT USAGE ON SCHEMA eo TO keeper; SELECT eo.enqueue('kept', '1')");
	my $before = value($node, "SELECT md5(string_agg(e::text, ' ' ORDER BY seq)) FROM eo.events AS e");
	$node->safe_psql('postgres', "SET ROLE keeper;\n$_;")
	  foreach ('VACUUM (FULL) eo.log_0', 'VACUUM (FREEZE) eo.log_1', 'REINDEX SCHEMA eo', 'VACUUM', 'ANALYZE', 'VACUUM (FULL) eo.subscription');
	is(value($node, "SELECT md5(string_agg(e::text, ' ' ORDER BY seq)) FROM eo.events AS e"),
		$before, 'whoever may maintain the log does it no harm');
	publishes('after maintenance');
}

# ---- 18: methods of asynchronous I/O --------------------------------------------------------

if (has(18))
{
	my $known = $node->safe_psql('postgres', "SELECT array_to_string(enumvals, ' ') FROM pg_settings WHERE name = 'io_method'");

	value($node, "CREATE TABLE big (id int PRIMARY KEY, v text, loud text GENERATED ALWAYS AS (upper(v)));"
		. " INSERT INTO big SELECT i, repeat('x', 500) FROM generate_series(1, 3000) AS i;"
		. " SELECT eo.capture('big', 'big')");
	foreach my $method (split / /, $known)
	{
		$node->append_conf('postgresql.conf', "io_method = $method\n");
		$node->restart;
		$node->poll_query_until('postgres', 'SELECT relay_pid IS NOT NULL FROM eo.log_status()') or die 'no relay';
		my $id = value($node, "SELECT eo.snapshot('big')");
		$node->poll_query_until('postgres', "SELECT state = 'done' FROM eo.snapshots WHERE id = $id") or die 'no snapshot';
		publishes("io_method = $method");
		my $publisher = field($node, 'f', 'publisher_pid');
		opendir(my $fds, "/proc/$publisher/fd") or die "no publisher $publisher: $!";
		my @open = grep { !/^\./ && (readlink("/proc/$publisher/fd/$_") // '') !~ /^(\/|socket:|pipe:)/ } readdir($fds);
		closedir($fds);
		is("@open", '', '... and no descriptor of the server is open in the publisher');
	}
}

check_file($node, 'f', $path, 'the file has everything, once, in order');
$node->stop;
done_testing();
