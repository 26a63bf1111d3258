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
$node->stop;
done_testing();
