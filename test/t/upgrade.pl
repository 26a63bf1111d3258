# pg_upgrade: the new cluster knows what was received and publishes what was
# waiting, but nothing before eo.adopt().  From the same version of PostgreSQL,
# or that of EO_OLD_PG (its bin's parent), where the extension is installed, too.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = new_log_server('old', install_path => $ENV{EO_OLD_PG} || undef);
my $old_version = $old->pg_version->major;
my $dir = PostgreSQL::Test::Utils::tempdir . '/later';
my $path = subscribe_file($old, 'f');
subscribe_pull($old, 'p');

# Two for which events are waiting: one whose broker is down, and a paused one.
value($old, <<EOS);
CREATE SERVER later FOREIGN DATA WRAPPER eo_file OPTIONS (path '$dir/later.jsonl');
CREATE SERVER paused FOREIGN DATA WRAPPER eo_file OPTIONS (path '$dir/paused.jsonl');
SELECT eo.subscribe('later', server => 'later');
SELECT eo.subscribe('paused', server => 'paused');
SELECT eo.pause('paused');
CREATE TABLE kept (id int PRIMARY KEY, t text);
CREATE TABLE copy (LIKE kept INCLUDING ALL);
SELECT eo.capture('kept', 'kept', mode => 'changelog');
CREATE TABLE paid (id text);
SELECT eo.deduplicate_table('paid', 'trigger', 'id');
EOS

# ---- what there is to be upgraded --------------------------------------------------

value($old, 'CALL test.put(20, 10000)');
value($old, "INSERT INTO kept SELECT i, 'before' FROM generate_series(1, 10) AS i");
is(pull($old, 'p'), 30, 'events have been pulled');
value($old, 'CALL test.put(5)');
my $last = value($old, 'SELECT max(seq) FROM eo.events');
ok(wait_published($old, 'f', $last), 'and published');
value($old, <<'EOS');
SELECT eo.apply_change('copy', to_jsonb(e)) FROM eo.events AS e WHERE topic = 'kept' ORDER BY seq;
SELECT eo.receive('c', 'older');
INSERT INTO eo.generation VALUES (0, 1, 1, clock_timestamp()) ON CONFLICT (family, class) DO UPDATE SET current = 1;
SELECT eo.receive('c', 'newer'), eo.receive_at('c', 's', 7);
INSERT INTO paid VALUES ('p');
BEGIN;
SELECT eo.idempotency_begin('s', 'k', '{"a": 1}');
SELECT eo.idempotency_complete('s', 'k', '"answer"', 201);
COMMIT;
EOS
my $token = value($old, "SELECT token FROM eo.idempotency_begin('s', 'leased', lease => '1 hour')");

# All that a user can tell of an event
my $all_events = "SELECT md5(string_agg((seq, event_id, topic, key, type, headers, payload, body)::text, ' ' ORDER BY seq))"
  . " FROM eo.events WHERE seq <= $last";
my $events = value($old, $all_events);
$old->stop;

# ---- the upgrade -------------------------------------------------------------------

sub upgrade
{
	my ($name, $conf, @options) = @_;
	my $new = PostgreSQL::Test::Cluster->new($name);

	# checksums are on by default since 18, and cannot be turned on by an upgrade
	my @initdb = $new->pg_version->major >= 18 && $old_version < 18 ? ('--no-data-checksums') : ();
	$new->init(extra => \@initdb);
	$new->append_conf('postgresql.conf', $conf);
	# It writes to where it runs.
	chdir $PostgreSQL::Test::Utils::tmp_check;
	my @command = (
		'pg_upgrade', '-N', '-d', $old->data_dir, '-D', $new->data_dir,
		'-b', $old->config_data('--bindir'), '-B', $new->config_data('--bindir'), '-s', $new->host, '-p', $old->port, '-P', $new->port, @options);
	ok(run_log(\@command), "pg_upgrade from PostgreSQL $old_version to the cluster \"$name\"") or exit 1;
	return $new;
}

my $new = upgrade('new', "shared_preload_libraries = 'eo_outbox'\nautovacuum = off\n" . mutant_conf());
my $lines = read_events($path);
mkdir $dir or die "could not make $dir: $!";
$new->start;

# ---- nothing is published ----------------------------------------------------------

foreach my $name (qw(f later))
{
	ok(wait_field($new, $name, 'state', 'waiting for adoption'), "subscription \"$name\" waits for adoption");
}
is(value($new, $all_events), $events, 'the events are there, unaltered');
value($new, 'CALL test.put(3)');
value($new, "UPDATE kept SET t = 'after' WHERE id <= 5");
my $end = value($new, 'SELECT max(seq) FROM eo.events');
is(value($new, "SELECT count(*), min(seq) >> 44 FROM eo.events WHERE seq > $last"), '8|1',
	'appends go on under a new epoch, those of captured tables, too');
my ($ret, $out, $err) = $new->psql('postgres', "SELECT eo.fetch('p')");
like($err, qr/subscription "p" belongs to another database/, 'it cannot be pulled from');
$new->restart;
wait_field($new, $_, 'state', 'waiting for adoption') foreach qw(f later);
is(scalar(my @now = read_events($path)), $lines, 'nothing is published');
ok(!-e "$dir/later.jsonl", 'nor what was waiting');

# ---- what was received -------------------------------------------------------------

is(value($new, "SELECT eo.receive('c', 'older'), eo.receive('c', 'newer'), eo.receive('c', 'later')"), 'f|f|t', 'message ids are known');
is(value($new, "SELECT eo.receive_at('c', 's', 7), eo.receive_at('c', 's', 8)"), 'duplicate|new', 'and positions');
is(value($new, "INSERT INTO paid VALUES ('p'), ('q') RETURNING id"), 'q', 'the trigger knows them, too');
is(value($new, "SELECT state, code, response FROM eo.idempotency_begin('s', 'k', '{\"a\": 1}')"), 'replay|201|"answer"', 'answers are replayed');
value($new, "SELECT eo.idempotency_complete('s', 'leased', '\"late\"', token => '$token')");
is(value($new, "SELECT state, response FROM eo.idempotency_begin('s', 'leased')"), 'replay|"late"', 'who had a lease has it');
is(value($new, "SELECT DISTINCT eo.apply_change('copy', to_jsonb(e)) FROM eo.events AS e WHERE topic = 'kept' AND seq <= $last"),
	'stale', 'changes that were applied are not applied again');
value($new, "SELECT eo.apply_change('copy', to_jsonb(e)) FROM eo.events AS e WHERE topic = 'kept' AND seq > $last ORDER BY seq");
is(value($new, 'TABLE copy EXCEPT TABLE kept'), '', 'later ones are');

# ---- adopted -----------------------------------------------------------------------

is(value($new, 'SELECT eo.adopt()'), 't', 'it is adopted');
ok(wait_published($new, 'later', $end), 'what was waiting is published');
check_file($new, 'later', "$dir/later.jsonl", 'the one that was waiting is whole');
ok($new->poll_query_until('postgres', "SELECT last_error LIKE '%holds events of another source%' FROM eo.subscriptions WHERE name = 'f'"),
	'a file goes on being the one of the old cluster');
is(scalar(@now = read_events($path)), $lines, 'so it is as it was');
value($new, "ALTER SERVER file_f OPTIONS (SET path '$dir/f.jsonl')");
ok(wait_published($new, 'f', $end), 'another one is filled');
is(join(' ', map { "$_->{sequence}/$_->{topic}/$_->{position}" } @now = read_events("$dir/f.jsonl")),
	value($new, <<EOS), 'with what the old one has not got, and positions go on');
SELECT string_agg(concat_ws('/', seq, topic, position), ' ' ORDER BY seq)
	FROM (SELECT seq, topic, row_number() OVER (PARTITION BY topic ORDER BY seq) AS position FROM eo.events) AS e WHERE seq > $last
EOS
ok(!-e "$dir/paused.jsonl", 'the paused one is still paused');
value($new, "SELECT eo.resume('paused')");
check_file($new, 'paused', "$dir/paused.jsonl", 'and whole when it goes on');
is(pull($new, 'p'), 13, 'what was not pulled yet is');
check_pulled($new, 'p', 'so all is, once');
$new->stop;

# ---- a cluster whose configuration does not name the library yet ---------------------

my $bare = upgrade('bare', "autovacuum = off\n", '--link');
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'eo_outbox'\n" . mutant_conf());
$bare->start;
is(value($bare, $all_events), $events, 'the events are there');
ok(wait_field($bare, 'f', 'state', 'waiting for adoption'), 'and wait for adoption');
$bare->stop;

done_testing();
