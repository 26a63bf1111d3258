# Headers, names and options that are almost right: refused with an error that is
# meant for users, or taken and given back as they were.
#
# Starts from the lines of test/fuzz/corpus and changes them at random.  FUZZ_SEED
# repeats a run, FUZZ_ROUNDS (3) is its length.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FUZZ_SEED} // (time ^ $$);
my $rounds = $ENV{FUZZ_ROUNDS} // 3;
my $per_round = 400;
my @bytes = (map({ chr } 0 .. 0x20), '"', '\\', '{', '}', ':', ',', '*', '=', "\x7f", "\x80", "\xc3\xa6", "\xf0\x9f\x90\x98", "\xff");

srand $seed;
note "FUZZ_SEED=$seed";

sub corpus
{
	my ($name) = @_;
	return split /\n/, PostgreSQL::Test::Utils::slurp_file("test/fuzz/corpus/$name");
}

sub mutate
{
	my ($text) = @_;

	for (1 .. int(rand 4))
	{
		my $at = int(rand(length($text) + 1));
		my $length = int(rand 8);
		my $what = int(rand 5);
		my $part = substr($text, $at, $length);

		if ($what == 0) { substr($text, $at, 0) = $bytes[ rand @bytes ]; }
		elsif ($what == 1) { substr($text, $at, $length) = ''; }
		elsif ($what == 2) { substr($text, $at, 0) = $part x (1 + int(rand 3)); }
		elsif ($what == 3) { substr($text, $at, 0) = substr($text, rand(length($text) + 1), $length); }
		elsif (rand() < 0.1) { substr($text, $at, 0) = 'x' x (2**int(rand 15)); }
	}
	return $text;
}

my $node = new_server('fuzz');
$node->safe_psql('postgres', "CREATE DATABASE unicode ENCODING 'UTF8' TEMPLATE template0");
$node->safe_psql('unicode', 'CREATE EXTENSION eo_outbox');
$node->safe_psql('unicode', <<'EOS');
CREATE SCHEMA fuzz;
CREATE TABLE fuzz.result (kind text, input bytea, state text, message text);

-- What the documentation says of headers, apart from the size
CREATE FUNCTION fuzz.good_headers(headers jsonb) RETURNS boolean LANGUAGE sql AS
	$$ SELECT jsonb_typeof(headers) = 'object' AND NOT EXISTS (
		SELECT FROM jsonb_each(CASE jsonb_typeof(headers) WHEN 'object' THEN headers END) AS h
		WHERE h.key !~ '^[A-Za-z0-9_.-]+$' OR jsonb_typeof(h.value) <> 'string'
			OR h.value #>> '{}' ~ '[\x01-\x1f]') $$;

CREATE FUNCTION fuzz.try_headers(input text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	parsed jsonb;
BEGIN
	BEGIN
		parsed := input;
	EXCEPTION WHEN data_exception THEN
		RETURN 'not JSON';
	END;
	PERFORM eo.enqueue('t', '{}', headers => parsed);
	IF NOT fuzz.good_headers(parsed) THEN
		RETURN 'taken, and wrong';
	END IF;
	IF NOT EXISTS (SELECT FROM eo.pending() AS e WHERE e.headers = parsed OR parsed = '{}') THEN
		RETURN 'taken, and changed';
	END IF;
	RETURN 'taken';
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN CASE WHEN fuzz.good_headers(parsed) AND length(input) < 100 THEN 'right, and refused' ELSE 'refused' END;
END
$$;

CREATE FUNCTION fuzz.try_setting(input text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM set_config('eo_outbox.headers', input, true);
	PERFORM eo.enqueue('t', '{}');
	RETURN 'taken';
END
$$;

CREATE FUNCTION fuzz.try_text(input text) RETURNS text LANGUAGE plpgsql AS
$$
BEGIN
	BEGIN PERFORM eo.enqueue('t', '{}', key => input); EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
	BEGIN PERFORM eo.enqueue('t', '{}', type => input); EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
	BEGIN
		PERFORM eo.enqueue_bytes('t', '\x00', content_type => input);
	EXCEPTION WHEN invalid_parameter_value THEN NULL;
	END;
	PERFORM eo.enqueue(input, '{}');
	RETURN CASE WHEN EXISTS (SELECT FROM eo.pending() AS e WHERE e.topic = input) THEN 'taken' ELSE 'taken, and changed' END;
END
$$;

CREATE FUNCTION fuzz.try_option(input text) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE
	place text;
	call text;
	result text := 'refused';
BEGIN
	FOREACH place IN ARRAY '{pg_foreign_server,pg_user_mapping,pg_foreign_data_wrapper}'::text[] LOOP
		FOREACH call IN ARRAY ARRAY[$call$eo.validate_kafka(ARRAY[$1, 'brokers=a'], $2)$call$,
			'eo.validate_kafka(ARRAY[$1], $2)', $call$eo.validate_file(ARRAY[$1, 'path=/tmp/x'], $2)$call$] LOOP
			BEGIN
				EXECUTE 'SELECT ' || call USING input, place::regclass;
				result := 'taken';
			EXCEPTION WHEN OTHERS THEN
				IF SQLSTATE !~ '^(HV|22|42)' THEN
					RAISE;
				END IF;
			END;
		END LOOP;
	END LOOP;
	RETURN result;
END
$$;

CREATE PROCEDURE fuzz.try(kind text, input bytea) LANGUAGE plpgsql AS
$$
DECLARE
	state text := '00000';
	said text;
BEGIN
	BEGIN
		EXECUTE format('SELECT fuzz.try_%s($1)', kind) INTO said USING convert_from(input, 'UTF8');
	EXCEPTION WHEN OTHERS THEN
		state := SQLSTATE;
		said := SQLERRM;
	END;
	INSERT INTO fuzz.result VALUES (kind, input, state, said);
END
$$;
EOS

foreach my $test ([ 'headers', 'headers' ], [ 'setting', 'headers' ], [ 'text', 'texts' ], [ 'option', 'options' ])
{
	my ($kind, $file) = @$test;
	my @lines = corpus($file);
	my @inputs = (@lines, map { mutate($lines[ rand @lines ]) } 1 .. $rounds * $per_round);

	while (my @some = splice @inputs, 0, $per_round)
	{
		my $sql = join '', map { "CALL fuzz.try('$kind', '\\x" . unpack('H*', $_) . "');\n" } @some;
		$node->safe_psql('unicode', $sql);
	}
	is( $node->safe_psql('unicode', <<EOS), '', "$kind: no error but those for users, and what is taken is right");
SELECT state, left(message, 200), input FROM fuzz.result
WHERE kind = '$kind' AND (state !~ '^(00|22|54)' OR message LIKE '%, and %') LIMIT 5
EOS
	is( $node->safe_psql('unicode', "SELECT count(*) > 20 FROM fuzz.result WHERE kind = '$kind' AND message = 'taken'"),
		't', "$kind: some are taken");
}
is($node->safe_psql('unicode', 'SELECT 1'), '1', 'the server is up');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/TRAP:|terminated by signal/, 'no process crashed');
$node->stop;

done_testing();
