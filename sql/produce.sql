-- eo.enqueue, eo.enqueue_bytes, eo.pending, eo.last_seq and eo_outbox.headers.
--
-- Numbers are shown relative to where the log stood when the test began.
\c -
SET timezone = 'UTC';
SELECT eo.last_seq() IS NULL AS nothing_appended_yet;
SELECT coalesce(max(seq), 0) AS start FROM eo.events \gset

-- what the log holds since the start
CREATE FUNCTION pg_temp.since(bigint) RETURNS TABLE (n bigint, topic text, key text, type text, payload jsonb, body bytea, content_type text, headers jsonb)
LANGUAGE sql AS 'SELECT seq - $1, topic, key, type, payload, body, content_type, headers FROM eo.events WHERE seq > $1 ORDER BY seq';

-- the least, and all arguments
BEGIN;
SELECT eo.enqueue('produce.least', '{"a": 1}') IS NOT NULL AS id_made;
SELECT eo.enqueue('produce.all', '{"b": [2, null]}', 'key-1', 'type.v1', '{"tenant": "acme"}',
	'018f0000-0000-7000-8000-000000000001');
SELECT eo.enqueue(topic => 'produce.named', payload => '3', type => 'type.v2',
	event_id => '018f0000-0000-7000-8000-000000000002');
SELECT eo.enqueue_bytes('produce.bytes', '\x00ff10', 'key-2', 'type.v3', '{"a": "b"}', 'image/png',
	'018f0000-0000-7000-8000-000000000003');
SELECT eo.enqueue_bytes('produce.bytes', 'plain', event_id => '018f0000-0000-7000-8000-000000000004');

-- before the commit they are pending, without a number, and not in the log
SELECT seq, position, topic, key, type, payload, body, content_type, headers, enqueued_at <= clock_timestamp() AS past
	FROM eo.pending();
SELECT * FROM pg_temp.since(:start);
SELECT eo.last_seq() IS NULL AS still_nothing_appended;
COMMIT;

-- after it, they are in the log with their ids
SELECT * FROM eo.pending();
SELECT * FROM pg_temp.since(:start);
SELECT event_id FROM eo.events WHERE seq > :start + 1 ORDER BY seq;
SELECT eo.last_seq() - :start AS last;
SELECT count(*) FROM eo.events WHERE seq > :start AND enqueued_at NOT BETWEEN now() - interval '1 hour' AND now();

-- eo.last_seq() is that of the latest commit that appended
BEGIN;
SELECT eo.enqueue('produce.gone', '1') IS NOT NULL AS id_made;
ROLLBACK;
SELECT 1 AS commits_without_an_event;
SELECT eo.last_seq() - :start AS last;

-- ids are UUIDs of version 7, made anew for each event, and begin with the time
BEGIN;
CREATE TEMP TABLE ids AS SELECT i, eo.enqueue('produce.ids', to_jsonb(i)) AS id, clock_timestamp() AS made
	FROM generate_series(1, 1000) AS i;
SELECT count(DISTINCT id) AS different,
	count(*) FILTER (WHERE id::text !~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$') AS wrong,
	count(*) FILTER (WHERE abs(extract(epoch FROM made)
		- ('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0) > 60) AS wrong_time
	FROM ids;
COMMIT;
SELECT count(*), count(DISTINCT seq), max(seq) - min(seq) AS range,
	count(*) FILTER (WHERE seq <> first + i - 1) AS out_of_order
	FROM (SELECT e.seq, i.i, min(e.seq) OVER () AS first FROM eo.events AS e JOIN ids AS i ON i.id = e.event_id) AS e;

-- tombstones have neither payload nor body; JSON's null is a payload
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT eo.enqueue('produce.tombstone', NULL, 'k') IS NOT NULL AS id_made;
SELECT eo.enqueue_bytes('produce.tombstone', NULL, 'k') IS NOT NULL AS id_made;
SELECT eo.enqueue('produce.json_null', 'null', 'k') IS NOT NULL AS id_made;
SELECT topic, payload IS NULL AS no_payload, body IS NULL AS no_body, content_type FROM eo.pending();
COMMIT;
SELECT topic, payload IS NULL AS no_payload, body IS NULL AS no_body, content_type
	FROM pg_temp.since(:start);

-- empty payloads, and values at their limits
SELECT max(seq) AS start FROM eo.events \gset
SELECT eo.enqueue_bytes('produce.empty', '') IS NOT NULL AS id_made;
SELECT eo.enqueue('produce.empty', '{}', headers => '{}') IS NOT NULL AS id_made;
SELECT eo.enqueue('produce.empty', '""', headers => '{"empty": ""}') IS NOT NULL AS id_made;
SELECT * FROM pg_temp.since(:start);
SELECT max(seq) AS start FROM eo.events \gset
SELECT eo.enqueue(repeat('t', 249), '1', repeat('k', 1024), repeat('y', 255),
	jsonb_build_object(repeat('h', 128), repeat('v', 3900))) IS NOT NULL AS id_made;
SELECT eo.enqueue(U&'caf\00e9 \2615', '"\u2615"', U&'cl\00e9', U&'\0442\0438\043f', '{"name": "\u2615"}') IS NOT NULL AS id_made;
SELECT n, length(topic), length(key), length(type), length(headers::text) FROM pg_temp.since(:start) WHERE n = 1;
SELECT * FROM pg_temp.since(:start) WHERE n = 2;

-- payloads of all sizes, easy and impossible to compress, come back as they
-- were, from eo.pending() and from the log
CREATE FUNCTION pg_temp.noise(size int) RETURNS bytea LANGUAGE sql AS
$$ SELECT coalesce(substr(string_agg(decode(md5(i::text), 'hex'), '' ORDER BY i), 1, size), '')
	FROM generate_series(1, size / 16 + 1) AS i $$;
CREATE TEMP TABLE sizes AS
	SELECT size, pg_temp.noise(size) AS noise, convert_to(repeat('x', size), 'UTF8') AS dull
	FROM unnest(ARRAY[1, 100, 1999, 2000, 2001, 4000, 7800, 7900, 7990, 8000, 8010, 8050, 8100, 8160, 8200, 15990,
		16000, 16010, 24000, 100000, 1000000]) AS size;
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT count(eo.enqueue_bytes('produce.noise', noise, size::text)) FROM sizes;
SELECT count(eo.enqueue_bytes('produce.dull', dull, size::text)) FROM sizes;
SELECT count(eo.enqueue('produce.json', jsonb_build_object('v', encode(noise, 'base64')), size::text)) FROM sizes WHERE size < 700000;
SELECT p.topic, count(*),
	count(*) FILTER (WHERE CASE p.topic WHEN 'produce.noise' THEN body = noise WHEN 'produce.dull' THEN body = dull
		ELSE payload = jsonb_build_object('v', encode(noise, 'base64')) END) AS same
	FROM eo.pending() AS p JOIN sizes ON size = key::int GROUP BY 1 ORDER BY 1;
COMMIT;
SELECT p.topic, count(*),
	count(*) FILTER (WHERE CASE p.topic WHEN 'produce.noise' THEN body = noise WHEN 'produce.dull' THEN body = dull
		ELSE payload = jsonb_build_object('v', encode(noise, 'base64')) END) AS same
	FROM pg_temp.since(:start) AS p JOIN sizes ON size = key::int GROUP BY 1 ORDER BY 1;

-- each of them alone in its transaction
SELECT max(seq) AS start FROM eo.events \gset
SELECT format('SELECT eo.enqueue_bytes(%L, noise, size::text) IS NOT NULL AS id_made FROM sizes WHERE size = %s',
	'produce.alone', size) FROM sizes WHERE size IN (1, 8000, 8100, 16000, 1000000) ORDER BY size \gexec
SELECT n, key, body = noise AS same FROM pg_temp.since(:start) JOIN sizes ON size = key::int ORDER BY n;

-- compression: a dull megabyte takes few rows, a noisy one many
SELECT CASE WHEN body = dull THEN 'dull' ELSE 'noise' END AS kind,
	(SELECT count(*) FROM eo.log_0 AS l WHERE l.seq = e.seq) > 100 AS many_rows
	FROM eo.events AS e JOIN sizes ON size = key::int AND size = 1000000
	WHERE topic IN ('produce.noise', 'produce.dull')
	ORDER BY 1;

-- larger ones where the limit allows it
SET eo_outbox.max_event_size = '6MB';
CREATE TEMP TABLE large AS SELECT pg_temp.noise(5000000) AS b, to_jsonb(encode(pg_temp.noise(3000000), 'hex')) AS j;
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT eo.enqueue_bytes('produce.large', b) IS NOT NULL AS id_made FROM large;
SELECT eo.enqueue('produce.large', j) IS NOT NULL AS id_made FROM large;
SELECT coalesce(p.body = l.b, p.payload = l.j) AS same FROM eo.pending() AS p, large AS l;
COMMIT;
SELECT n, coalesce(e.body = l.b, e.payload = l.j) AS same FROM pg_temp.since(:start) AS e, large AS l ORDER BY n;
RESET eo_outbox.max_event_size;

-- large headers are compressed beside a large payload
SELECT max(seq) AS start FROM eo.events \gset
SELECT eo.enqueue_bytes('produce.headers', pg_temp.noise(9000), repeat('k', 1024), repeat('y', 255),
	jsonb_build_object('h', repeat('v', 4000))) IS NOT NULL AS id_made;
SELECT n, body = pg_temp.noise(9000) AS same, key = repeat('k', 1024) AS same_key,
	headers = jsonb_build_object('h', repeat('v', 4000)) AS same_headers FROM pg_temp.since(:start);

-- a toasted and a compressed argument
CREATE TEMP TABLE toasted (j jsonb, b bytea);
INSERT INTO toasted SELECT jsonb_build_object('v', repeat('x', 100000)), pg_temp.noise(100000);
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT eo.enqueue('produce.toasted', j) IS NOT NULL AS id_made FROM toasted;
SELECT eo.enqueue_bytes('produce.toasted', b) IS NOT NULL AS id_made FROM toasted;
COMMIT;
SELECT n, coalesce(e.payload = t.j, e.body = t.b) AS same FROM pg_temp.since(:start) AS e, toasted AS t ORDER BY n;

-- eo_outbox.headers is added to every event; the event's own win
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SET LOCAL eo_outbox.headers = '{"traceparent": "00-1", "tenant": "acme"}';
SELECT eo.enqueue('produce.setting', '1') IS NOT NULL AS id_made;
SELECT eo.enqueue('produce.setting', '2', headers => '{"tenant": "own", "x": "y"}') IS NOT NULL AS id_made;
SELECT eo.enqueue_bytes('produce.setting', '3') IS NOT NULL AS id_made;
SET LOCAL eo_outbox.headers = '{"traceparent": "00-2"}';
SELECT eo.enqueue('produce.setting', '4') IS NOT NULL AS id_made;
SAVEPOINT s;
SET LOCAL eo_outbox.headers = '{"traceparent": "00-3"}';
SELECT eo.enqueue('produce.setting', '5') IS NOT NULL AS id_made;
ROLLBACK TO s;
SELECT eo.enqueue('produce.setting', '6') IS NOT NULL AS id_made;
SET LOCAL eo_outbox.headers = '{}';
SELECT eo.enqueue('produce.setting', '7') IS NOT NULL AS id_made;
SET LOCAL eo_outbox.headers = '';
SELECT eo.enqueue('produce.setting', '8', headers => '{"x": "y"}') IS NOT NULL AS id_made;
COMMIT;
SELECT eo.enqueue('produce.setting', '9') IS NOT NULL AS id_made;
SELECT n, payload, headers FROM pg_temp.since(:start);

-- the order is that of the calls, also of calls within one query
SELECT max(seq) AS start FROM eo.events \gset
BEGIN;
SELECT count(eo.enqueue('produce.order', to_jsonb(i))) FROM generate_series(1, 700) AS i;
SELECT count(eo.enqueue_bytes('produce.order', int4send(i))) FROM generate_series(701, 1400) AS i;
COMMIT;
SELECT count(*), count(*) FILTER (WHERE n IS DISTINCT FROM coalesce(payload::bigint, ('x' || encode(body, 'hex'))::bit(32)::bigint)) AS misplaced
	FROM pg_temp.since(:start);
SELECT eo.last_seq() - :start AS last;

-- eo.pending() may be asked between calls, and within a query that enqueues
BEGIN;
SELECT eo.enqueue('produce.pending', '1') IS NOT NULL AS id_made;
SELECT count(*) FROM eo.pending();
SELECT eo.enqueue('produce.pending', '2') IS NOT NULL AS id_made;
SELECT topic, payload FROM eo.pending();
SELECT p.payload, eo.enqueue('produce.copy', p.payload) IS NOT NULL AS id_made FROM eo.pending() AS p;
SELECT topic, payload FROM eo.pending();
ROLLBACK;
SELECT * FROM eo.pending();
DISCARD TEMP;
