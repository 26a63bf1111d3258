-- What a transaction of the load does, and the truth about it: who committed
-- has a row in truth for each event it made, and nobody else has.

CREATE SCHEMA load;

CREATE TABLE load.truth (
	id text PRIMARY KEY,
	cycle integer NOT NULL,
	topic text NOT NULL,
	key text NOT NULL,
	n bigint NOT NULL,
	txn text NOT NULL,
	size integer NOT NULL,
	event_id uuid NOT NULL,
	digest text NOT NULL		-- md5 of the payload
);
CREATE INDEX ON load.truth (cycle);

-- All transactions, also those that made no event.
CREATE TABLE load.kept (
	txn text PRIMARY KEY,
	cycle integer NOT NULL
);
CREATE INDEX ON load.kept (cycle);

-- The number of the last event of a key, so that an order can be told.
CREATE TABLE load.key (
	topic text,
	key text,
	n bigint NOT NULL,
	PRIMARY KEY (topic, key)
);

-- Captured tables, one for each mode: what their events say, applied, must be
-- the table again.  Each change of a row counts it up and notes its transaction.
CREATE TABLE load.account (
	id integer PRIMARY KEY,
	amount integer NOT NULL,
	note text
);
CREATE TABLE load.fact (LIKE load.account INCLUDING ALL);
CREATE TABLE load.delta (LIKE load.account INCLUDING ALL);

-- What messages did that came in, and what requests did that carry a key.
CREATE TABLE load.effect (
	message text NOT NULL,
	cycle integer NOT NULL,
	txn text
);
CREATE INDEX ON load.effect (message);
CREATE TABLE load.posted (
	message text NOT NULL,
	cycle integer NOT NULL,
	txn text
);
CREATE INDEX ON load.posted (message);
CREATE TABLE load.source (
	name text PRIMARY KEY,
	position bigint NOT NULL
);
CREATE TABLE load.answered (
	request text NOT NULL,
	cycle integer NOT NULL,
	response jsonb NOT NULL
);
CREATE INDEX ON load.answered (request);

-- What came out of the subscription that this database consumes itself.
CREATE TABLE load.consumed (
	arrival bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	seq bigint NOT NULL,
	position bigint NOT NULL,
	topic text NOT NULL,
	event_id text NOT NULL,
	type text,
	key text,
	payload jsonb
);

-- So many characters, some of two and three bytes and some that JSON escapes,
-- that hardly compress and are no other event's.
CREATE FUNCTION load.filler(id text, size integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT coalesce(left(translate(string_agg(encode(sha512(convert_to(id || ' ' || i, 'UTF8')), 'base64'), '' ORDER BY i), '+/=', 'ü€"'), size), '')
	FROM generate_series(1, (size + 87) / 88) AS i
$$;

CREATE FUNCTION load.make(id text, cycle integer, topic text, key text, txn text, size integer, filler integer)
RETURNS uuid LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
	last bigint;
	payload jsonb;
	event_id uuid;
BEGIN
	INSERT INTO load.key AS k VALUES (topic, key, 1)
		ON CONFLICT ON CONSTRAINT key_pkey DO UPDATE SET n = k.n + 1 RETURNING k.n INTO last;
	payload := jsonb_build_object('id', id, 'n', last, 'txn', txn, 'size', size, 'filler', load.filler(id, filler));
	event_id := eo.enqueue(topic, payload, key => key);
	INSERT INTO load.truth VALUES (id, cycle, topic, key, last, txn, size, event_id, md5(payload::text));
	RETURN event_id;
END $$;

-- One that an error undoes.
CREATE FUNCTION load.make_in_vain(id text, cycle integer, topic text, key text, txn text, size integer, filler integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM load.make(id, cycle, topic, key, txn, size, filler);
	RAISE 'in vain' USING ERRCODE = 'EOVAN';
EXCEPTION WHEN SQLSTATE 'EOVAN' THEN
	NULL;
END $$;

-- An event on each topic, the captured tables' too, to be waited for.
CREATE FUNCTION load.mark(marker text, cycle integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	topic text;
	payload jsonb := jsonb_build_object('id', marker, 'n', 1, 'txn', marker, 'size', 2);
BEGIN
	FOREACH topic IN ARRAY '{orders,stock}'::text[] LOOP
		INSERT INTO load.key VALUES (topic, mark.marker, 1);
		INSERT INTO load.truth VALUES (mark.marker || ' ' || topic, mark.cycle, topic, mark.marker, 1, mark.marker, 2,
			eo.enqueue(topic, payload, key => mark.marker), md5(payload::text));
	END LOOP;
	INSERT INTO load.account AS a VALUES (-1, 1, marker) ON CONFLICT (id) DO UPDATE SET amount = a.amount + 1, note = excluded.note;
	INSERT INTO load.fact AS a VALUES (-1, 1, marker) ON CONFLICT (id) DO UPDATE SET amount = a.amount + 1, note = excluded.note;
	INSERT INTO load.delta AS a VALUES (-1, 1, marker) ON CONFLICT (id) DO UPDATE SET amount = a.amount + 1, note = excluded.note;
END $$;

-- A message that may come many times; its effect is a row.
CREATE FUNCTION load.consume(message text, cycle integer, txn text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF NOT eo.receive('torture', message) THEN
		RETURN false;
	END IF;
	INSERT INTO load.effect VALUES (message, cycle, txn);
	RETURN true;
END $$;

-- The next message of a source that numbers them.  Who has the source's row
-- knows what must be said.
CREATE FUNCTION load.consume_next(source text, cycle integer, txn text) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
	next bigint;
	told text[];
BEGIN
	INSERT INTO load.source AS s VALUES (source, 1)
		ON CONFLICT ON CONSTRAINT source_pkey DO UPDATE SET position = s.position + 1 RETURNING s.position INTO next;
	-- Where a source begins is for its first message to say.
	told := ARRAY[CASE WHEN next = 1 THEN 'gap' ELSE eo.receive_at('torture_at', source, next + 1) END,
		eo.receive_at('torture_at', source, next), eo.receive_at('torture_at', source, next)];
	IF told <> '{gap,new,duplicate}' THEN
		RAISE 'of message % of % receive_at says %', next, source, told USING ERRCODE = 'EOBAD';
	END IF;
	INSERT INTO load.effect VALUES (source || ':' || next, cycle, txn);
	RETURN source || ':' || next;
END $$;

-- What would be said now if all of them came once more: which messages are new,
-- and the answers to the requests that are not.  None of it stays.
CREATE FUNCTION load.ask_again(messages text[], requests text[], OUT fresh text[], OUT answers jsonb) LANGUAGE plpgsql AS $$
DECLARE
	request text;
	answer record;
BEGIN
	fresh := ARRAY(SELECT eo.receive('torture', messages));
	answers := '{}';
	FOREACH request IN ARRAY requests LOOP
		SELECT state, response INTO answer FROM eo.idempotency_begin('torture', request, '{}');
		IF answer.state = 'replay' THEN
			answers := answers || jsonb_build_object(request, answer.response);
		END IF;
	END LOOP;
	RAISE 'enough' USING ERRCODE = 'EOASK';
EXCEPTION WHEN SQLSTATE 'EOASK' THEN
	NULL;		-- the variables keep what they have
END $$;

SELECT eo.create_consumer('recent', '2 seconds'), eo.deduplicate_table('load.posted', 'posted', 'message');
SELECT eo.capture('load.account', mode => 'changelog'), eo.capture('load.fact', mode => 'fact'), eo.capture('load.delta', mode => 'delta');
