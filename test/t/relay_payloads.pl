# What a publisher gets is, to the byte, what PostgreSQL makes of the payload.

use strict;
use warnings;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('payloads');
$node->safe_psql('postgres', "CREATE DATABASE unicode ENCODING 'UTF8' TEMPLATE template0");
$node->safe_psql('unicode', 'CREATE EXTENSION eo_outbox');
my $path = subscribe_file($node, 's', db => 'unicode');

$node->safe_psql('unicode', <<'EOS');
CREATE TABLE payloads (n int GENERATED ALWAYS AS IDENTITY, value jsonb);
INSERT INTO payloads (value) VALUES
	('{}'), ('[]'), ('null'), ('true'), ('false'), ('0'), ('""'), ('"text"'),
	('-1.50'), ('1e-20'), ('12345678901234567890.123456789'), ('1e100'),
	('[[], {}, [[]], [{}], {"a": []}]'), ('[1, [2, [3, {"b": [null, true]}]], 4]'),
	('{"a": {"b": {"c": 1}, "d": []}, "e": "f"}'), ('{"": ""}'),
	('"\"\\\/\b\f\n\r\t"'), ('"\u0001\u001f\u007f"'), ('{"k\"\\\n": "v\u0002"}'),
	('"æøå – 漢字 – 🐘"'), ('["a\"b", "\"", "c\"", "\"d", "\"\""]');
INSERT INTO payloads (value)
	SELECT jsonb_build_array(repeat('x', n) || E'\n' || repeat('"', n)) FROM generate_series(0, 300, 7) AS n;
INSERT INTO payloads (value)
	SELECT jsonb_object_agg(chr(i), jsonb_build_array(chr(i), i)) FROM generate_series(1, 2000) AS i;
INSERT INTO payloads (value)
	SELECT to_jsonb(string_agg(md5(i::text), E'\t')) FROM generate_series(1, 3000) AS i;
EOS
is($node->safe_psql('unicode', <<"EOS"), 't', 'all payloads are published');
DO \$\$ BEGIN PERFORM eo.enqueue('t', value, n::text) FROM payloads ORDER BY n; END \$\$;
SELECT eo.wait_published('s', eo.last_seq(), '$PostgreSQL::Test::Utils::timeout_default s');
EOS
is( $node->safe_psql('unicode', <<EOS),
SELECT count(*), count(DISTINCT p.n)
FROM regexp_split_to_table(pg_read_file('$path'), E'\\n') AS line
	JOIN payloads AS p ON line <> '' AND p.n = (line::jsonb ->> 'partitionkey')::int
WHERE position('"data":' || p.value::text in line) > 0
EOS
	$node->safe_psql('unicode', 'SELECT count(*), count(*) FROM payloads'),
	'as PostgreSQL prints them');

# ---- databases that are not in UTF-8 -----------------------------------------------

# What has no form in UTF-8 is refused, and that holds up nothing.
foreach my $case (
	[ 'LATIN1', 'caf\xe9' ],
	[ 'WIN1252', 'caf\xe9', '\x81', qr/byte sequence 0x81 in encoding "WIN1252" has no equivalent/ ],
	[ 'SQL_ASCII', 'cafe', 'caf\xe9', qr/invalid byte sequence for encoding "UTF8"/ ])
{
	my ($encoding, $good, $bad, $reason) = @$case;
	my $db = lc $encoding;
	my $in_utf8 = $good =~ s/\\xe9/\xc3\xa9/r;

	$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION eo_outbox');
	my $file = subscribe_file($node, $db, db => $db);
	my $publish = sub {
		my $seq = $node->safe_psql($db, "SET client_encoding = '$encoding'; $_[0]; SELECT eo.last_seq()");

		$seq =~ s/.*\n//s;
		return $node->safe_psql($db,
			"SELECT eo.wait_published('$db', $seq, '$PostgreSQL::Test::Utils::timeout_default s')") eq 't';
	};

	ok($publish->("SELECT eo.enqueue('t', to_jsonb(E'$good'::text), E'$good', E'$good', jsonb_build_object('h', E'$good'))"),
		"$encoding: published");
	like((PostgreSQL::Test::Utils::slurp_file($file) =~ /(.*)\n\z/)[0],
		qr/^(?=.*"type":"$in_utf8")(?=.*"partitionkey":"$in_utf8")(?=.*"h":"$in_utf8").*"data":"$in_utf8"}$/, "$encoding: in UTF-8");
	next if !defined $bad;
	foreach my $event (
		"'t', '1', E'$bad'", "'t', '1', 'k', E'$bad'", "'t', to_jsonb(E'$bad'::text)",
		"'t', '1', headers => jsonb_build_object('h', E'$bad')", "E'$bad', '1'")
	{
		ok($publish->("SELECT eo.enqueue($event)"), "$encoding: $event is passed over");
	}
	is($node->safe_psql($db, 'SELECT count(*) FROM eo.dead_letter'), '5', "$encoding: all are dead letters");
	like($node->safe_psql($db, 'SELECT DISTINCT reason FROM eo.dead_letter'), $reason, "$encoding: with the reason");
	ok($publish->("SELECT eo.enqueue('t', '2')"), "$encoding: the next one is published");
	my @events = read_events($file);
	is("@{[scalar(@events)]} $events[-1]{data}", '2 2', "$encoding: and nothing else");
	$node->safe_psql($db, "SELECT eo.retry_dead_letter('$db')");
	ok($node->poll_query_until($db, 'SELECT bool_and(attempts = 2) FROM eo.dead_letter'), "$encoding: a retry changes nothing");
	is(scalar(read_events($file)), 2, "$encoding: in the file either");
}

# ---- what a publisher says ------------------------------------------------------------

# A reason is kept as text of the database, whatever bytes it comes in.
foreach my $case (
	[ 'unicode', '636166c3a9', "caf\xc3\xa9" ],
	[ 'unicode', '630a097f64', 'c   d' ],
	[ 'unicode', '636166e964', 'caf?d' ],
	[ 'latin1', '636166c3a9', 'caf??' ],
	[ 'unicode', '', '' ])
{
	my ($db, $bytes, $expected) = @$case;
	my $next = $node->safe_psql($db, 'SELECT last_seq + 1 FROM eo.log_status()');
	my $frame = sprintf('4e%016x01%08x%s', $next, length($bytes) / 2, $bytes);

	$node->safe_psql($db, "CREATE SERVER stub FOREIGN DATA WRAPPER eo_stub OPTIONS (script 'frame:$frame;stall\@2-')");
	$node->safe_psql($db, "SELECT eo.subscribe('stub', server => 'stub')");
	$node->safe_psql($db, "SELECT eo.enqueue('t', '1')");
	ok($node->poll_query_until($db, "SELECT count(*) = 1 FROM eo.dead_letter WHERE seq = $next"), "refused for 0x$bytes");
	is($node->safe_psql($db, "SELECT reason FROM eo.dead_letter WHERE seq = $next"), $expected, "kept as \"$expected\"");
	$node->safe_psql($db, "SELECT eo.unsubscribe('stub'); DROP SERVER stub");
}
$node->stop;
done_testing();
