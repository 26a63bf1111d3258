# Sixteen clients deliver 5,000 messages three times each, to every form of the
# inbox, with rollbacks, backends that are terminated, and two crashes of the
# server in the middle: every effect happens once.
#
# A client is a session that works off its deliveries in a procedure.  It notes
# its place now and then, in a transaction of its own, as a consumer of a broker
# would: after an error, or when its backend is gone, it delivers again what
# came after that.

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

use constant CLIENTS => 16;
use constant MESSAGES => 5000;
use constant SOURCES => 20;

my $node = new_log_server('once', conf => <<EOC);
max_connections = 60
deadlock_timeout = 100ms
eo_outbox.retention = 1h
log_min_messages = error
log_statement = none
log_min_error_statement = panic
EOC
value($node, <<'EOS');
-- What happened, and what became of it.
CREATE TABLE effect (n bigserial, form text, id int, place int);
CREATE TABLE account (form text, number int, balance bigint NOT NULL DEFAULT 0, PRIMARY KEY (form, number)) WITH (fillfactor = 50);
CREATE FUNCTION take_effect(form text, id int, place int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO effect (form, id, place) VALUES (form, id, place);
	UPDATE account AS a SET balance = balance + take_effect.id WHERE a.form = take_effect.form AND number = take_effect.id % 500;
$$;

CREATE TABLE paid (id int, region int) PARTITION BY LIST (region);
CREATE TABLE paid_0 PARTITION OF paid FOR VALUES IN (0);
CREATE TABLE paid_1 (region int, id int);
ALTER TABLE paid ATTACH PARTITION paid_1 FOR VALUES IN (1);
CREATE FUNCTION paid() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM take_effect('trigger', new.id, new.region);
	RETURN NULL;
END $$;
CREATE TRIGGER paid AFTER INSERT ON paid FOR EACH ROW EXECUTE FUNCTION paid();
SELECT eo.deduplicate_table('paid', 'once trigger', 'id');

-- One delivery, or several at once, place being the client.  Accounts are in an
-- order that lets nobody deadlock.
CREATE FUNCTION take_one(ids int[], place int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF eo.receive('once one', ids[1]::text) THEN
		PERFORM take_effect('one', ids[1], place);
		PERFORM eo.enqueue('once', to_jsonb(ids[1]));
	END IF;
END $$;
CREATE FUNCTION take_batch(ids int[], place int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM take_effect('batch', id::int, place) FROM (SELECT id FROM eo.receive('once batch', ids::text[]) AS id ORDER BY id::int % 500) AS n;
END $$;
CREATE FUNCTION take_position(ids int[], place int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	answer text := eo.receive_at('once position', 'source ' || ids[1] % 20, ids[1] / 20);
BEGIN
	IF answer = 'new' THEN
		PERFORM take_effect('position', ids[1], place);
	ELSIF answer = 'gap' THEN
		INSERT INTO effect (form, id, place) VALUES ('gap', ids[1], place);
	END IF;
END $$;
CREATE FUNCTION take_trigger(ids int[], place int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO paid SELECT id, id % 2 FROM unnest(ids) AS id ORDER BY id % 500, id;
$$;
CREATE FUNCTION take_key(ids int[], place int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	begun record;
	answer jsonb := jsonb_build_object('id', ids[1]);
BEGIN
	SELECT * INTO begun FROM eo.idempotency_begin('once', ids[1]::text, answer);
	IF begun.state = 'new' THEN
		PERFORM take_effect('key', ids[1], place);
		PERFORM eo.idempotency_complete('once', ids[1]::text, answer);
	ELSIF begun.response IS DISTINCT FROM answer OR begun.code IS DISTINCT FROM 200 THEN
		INSERT INTO effect (form, id, place) VALUES ('wrong answer', ids[1], place);
	END IF;
END $$;

CREATE TABLE delivery (form text, client int, n int, id int, PRIMARY KEY (form, client, n));
CREATE TABLE progress (form text, client int, done int, last int, size int, PRIMARY KEY (form, client)) WITH (fillfactor = 50);
CREATE PROCEDURE deliver(c int) LANGUAGE plpgsql AS $$
DECLARE
	p progress;
BEGIN
	LOOP
		SELECT * INTO p FROM progress WHERE client = c AND done < last ORDER BY random() LIMIT 1;
		EXIT WHEN NOT FOUND;
		COMMIT;
		FOR i IN 1 .. 40 LOOP
			EXECUTE 'SELECT take_' || p.form || '($1, $2)'
				USING ARRAY(SELECT id FROM delivery AS d WHERE d.form = p.form AND d.client = c AND d.n > p.done AND d.n <= p.done + p.size ORDER BY d.n), c;
			IF random() < 0.1 THEN
				ROLLBACK;
			ELSE
				COMMIT;
				p.done := p.done + p.size;
				EXIT WHEN p.done >= p.last;
			END IF;
		END LOOP;
		UPDATE progress SET done = p.done WHERE form = p.form AND client = c;
		COMMIT;
	END LOOP;
END $$;
EOS

# Who delivers what when.  Half of the messages come in any order; of the others
# the three deliveries are near each other, so that they meet.  A source is
# delivered in order by each of three clients.
value($node, sprintf(<<'EOS', CLIENTS, MESSAGES, SOURCES));
SELECT setseed(0.4711);
CREATE TEMP TABLE form (form text, size int);
INSERT INTO form VALUES ('one', 1), ('batch', 20), ('trigger', 3), ('key', 1), ('position', 1);
INSERT INTO delivery
	SELECT form, client, row_number() OVER (PARTITION BY form, client ORDER BY place), id
	FROM (SELECT form, id, floor(random() * %1$d)::int AS client, CASE WHEN id %% 2 = 0 THEN random() * %2$d ELSE id + random() * 30 END AS place
		FROM form, generate_series(1, %2$d) AS id, generate_series(1, 3) WHERE form <> 'position' OFFSET 0) AS d;
INSERT INTO delivery
	SELECT 'position', client, row_number() OVER (PARTITION BY client ORDER BY place), id
	FROM (SELECT id, (id %% %3$d + copy * 5) %% %1$d AS client, id / %3$d AS place
		FROM generate_series(%3$d, %2$d + %3$d - 1) AS id, generate_series(1, 3) AS copy) AS d;
INSERT INTO progress SELECT form, client, 0, max(n), min(size) FROM delivery JOIN form USING (form) GROUP BY form, client;
INSERT INTO account SELECT form, number FROM form, generate_series(0, 499) AS number;
ANALYZE;
EOS
is(value($node, 'SELECT string_agg(n::text, \',\') FROM (SELECT count(*) AS n FROM delivery GROUP BY form) AS d'),
	join(',', (3 * MESSAGES) x 5), 'three deliveries of each message in each form');

# ---- delivery -----------------------------------------------------------------------

my @levels = ('read committed', 'read committed', 'repeatable read', 'serializable');
my $scripts = PostgreSQL::Test::Utils::tempdir();
my @clients;

append_to_file("$scripts/$_", "CALL deliver($_);\n" x 500) foreach 0 .. CLIENTS - 1;

sub start_client
{
	my ($client) = @_;
	my $run = { out => '' };

	local $ENV{PGAPPNAME} = "client $client";
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=" . ($levels[ $client % @levels ] =~ s/ /\\ /gr);
	$run->{handle} = IPC::Run::start(
		[ 'psql', '-XAtq', '-f', "$scripts/$client", '-d', $node->connstr('postgres') ],
		'<', \undef, '>', \$run->{out}, '2>', \$run->{out});
	$clients[$client] = $run;
	return;
}

# What is left, or '' while the server is not there.
sub left
{
	my ($ret, $out) = $node->psql('postgres', 'SELECT sum(last - done) FROM progress WHERE done < last', on_error_die => 0);
	return $ret == 0 ? $out || 0 : '';
}

my %incident = (terminated => 0, crashes => 0, restarts => 0);
my $total = value($node, 'SELECT sum(last) FROM progress');
my $next = $total;    # what is left when somebody is thrown out again
my @crashes = (
	# one backend dies, and takes the others along
	[ 0.7 * $total, sub {
		my $pid = value($node, "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'client%' ORDER BY random() LIMIT 1");
		my $starts = server_starts($node);
		kill 'KILL', $pid;
		wait_until('the server has come up', sub { server_starts($node) > $starts });
	}],
	# all of them, and the postmaster
	[ 0.35 * $total, sub { kill_everything($node) } ]);

start_client($_) foreach 0 .. CLIENTS - 1;
wait_until(
	'everything has been delivered',
	sub {
		my $left = left();
		return 1 if $left eq '0';
		if (@crashes && $left ne '' && $left < $crashes[0][0])
		{
			(shift @crashes)->[1]->();
			$incident{crashes}++;
		}
		elsif ($left ne '' && $left < $next)
		{
			$next = $left - $total / 60;
			$node->psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'client%' ORDER BY random() LIMIT 2");
			$incident{terminated} += 2;
		}
		foreach my $client (0 .. CLIENTS - 1)
		{
			my $handle = $clients[$client]{handle};

			$handle->pump_nb if $handle->pumpable;
			next if $handle->pumpable;
			$handle->finish;
			start_client($client);
			$incident{restarts}++;
		}
		return 0;
	},
	4);
$_->{handle}->finish foreach @clients;
note("$incident{terminated} backends terminated, $incident{crashes} crashes, $incident{restarts} clients started again");
is($incident{crashes}, 2, 'with two crashes');
cmp_ok($incident{restarts}, '>', CLIENTS, 'and all clients more than once thrown out');

# ---- what has happened ----------------------------------------------------------------

foreach my $form (qw(one batch position trigger key))
{
	is(value($node, "SELECT count(*), count(DISTINCT id) FROM effect WHERE form = '$form'"), MESSAGES . '|' . MESSAGES,
		"$form: every effect once");
	is(value($node, <<"EOS"), '0', "$form: every balance is right");
SELECT count(*) FROM account AS a WHERE form = '$form' AND balance <>
	(SELECT coalesce(sum(id), 0) FROM (SELECT DISTINCT id FROM delivery WHERE form = '$form') AS d WHERE id % 500 = number)
EOS
	cmp_ok(value($node, "SELECT count(DISTINCT place) FROM effect WHERE form = '$form'"), '>', 1, "$form: by several");
}
is(value($node, "SELECT count(*) FROM effect WHERE form IN ('gap', 'wrong answer')"), '0', 'no gap in a source, no wrong answer');
is(value($node, 'SELECT count(*), count(DISTINCT id) FROM paid'), MESSAGES . '|' . MESSAGES, 'trigger: every row once');
is(value($node, <<'EOS'), '0', 'position: effects of a source in its order');
SELECT count(*) FROM (SELECT id < lag(id) OVER (PARTITION BY id % 20 ORDER BY n) AS wrong FROM effect WHERE form = 'position') AS e WHERE wrong
EOS
is(value($node, "SELECT count(*), min(position), max(position) FROM eo.received_position"), SOURCES . '|' . MESSAGES / SOURCES . '|' . MESSAGES / SOURCES,
	'position: one row for each source');
is(value($node, <<'EOS'), MESSAGES . '|' . MESSAGES . '|' . MESSAGES, 'one: an event for each effect, which names its cause');
SELECT count(*), count(DISTINCT payload), count(*) FILTER (WHERE headers ->> 'causationid' = payload::text) FROM eo.events WHERE topic = 'once'
EOS
is(value($node, "SELECT count(*) FROM generate_series(1, @{[MESSAGES]}) AS i WHERE eo.receive('once one', i::text)"), '0', 'nothing is new any more');
$node->stop;
done_testing();
