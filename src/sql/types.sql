-- An event as functions return it.

CREATE TYPE eo.event AS (
	seq bigint,
	position bigint,
	event_id uuid,
	topic text,
	key text,
	type text,
	payload jsonb,
	body bytea,
	content_type text,
	headers jsonb,
	enqueued_at timestamptz
);
COMMENT ON TYPE eo.event IS 'an event of the log; payload for JSON, body for bytes, neither for a tombstone';
