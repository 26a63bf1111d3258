-- Views for watching, and the functions that read shared memory for them.

CREATE FUNCTION eo.subscription_status(
	OUT id integer, OUT state text, OUT publisher_pid integer, OUT read_seq bigint,
	OUT acked_seq bigint, OUT published bigint, OUT published_bytes bigint,
	OUT refused bigint, OUT in_flight bigint, OUT lag_bytes bigint, OUT restarts bigint,
	OUT oldest_unpublished timestamptz, OUT last_ack_at timestamptz,
	OUT next_start_at timestamptz, OUT last_error_at timestamptz, OUT last_error text
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_subscription_status';
COMMENT ON FUNCTION eo.subscription_status() IS 'what the relay reports of each subscription';

CREATE FUNCTION eo.segment_status(
	OUT segment integer, OUT active boolean, OUT first_seq bigint, OUT last_seq bigint,
	OUT last_append timestamptz
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_segment_status';
COMMENT ON FUNCTION eo.segment_status() IS 'the ring of segments';

CREATE FUNCTION eo.log_status(
	OUT relay_pid integer, OUT lineage text, OUT epoch integer, OUT last_seq bigint,
	OUT floor_seq bigint, OUT stall_xid xid, OUT stall_seq bigint, OUT stall_since timestamptz
) RETURNS record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_log_status';
COMMENT ON FUNCTION eo.log_status() IS 'the log and its relay';

CREATE FUNCTION eo.event_payload(segment oid, head tid, seq bigint, parts integer) RETURNS jsonb
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_event_payload';
COMMENT ON FUNCTION eo.event_payload(oid, tid, bigint, integer) IS 'the payload of an event that takes several rows';

CREATE FUNCTION eo.event_body(segment oid, head tid, seq bigint, parts integer) RETURNS bytea
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_event_body';
COMMENT ON FUNCTION eo.event_body(oid, tid, bigint, integer) IS 'the bytes of an event that takes several rows';

CREATE VIEW eo.events AS
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_0 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_1 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_2 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_3 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_4 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_5 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_6 WHERE part OPERATOR(pg_catalog.<=) 0
UNION ALL
SELECT seq, event_id, topic, key, type,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NULL
		THEN eo.event_payload(tableoid, ctid, seq, -part::integer) ELSE payload END AS payload,
	CASE WHEN part OPERATOR(pg_catalog.<) 0 AND content_type IS NOT NULL
		THEN eo.event_body(tableoid, ctid, seq, -part::integer) ELSE body END AS body,
	content_type, headers, enqueued_at
FROM eo.log_7 WHERE part OPERATOR(pg_catalog.<=) 0;
COMMENT ON VIEW eo.events IS 'the events that the log holds, published or not';

CREATE VIEW eo.subscriptions AS
SELECT s.name,
	CASE WHEN l.relay_pid IS NULL THEN 'no relay'
		ELSE coalesce(st.state, 'unknown') END AS state,
	CASE WHEN s.server IS NULL THEN NULL
		ELSE coalesce(pg_catalog.substr(w.fdwname::text, 4), 'missing') END AS kind,
	s.topics,
	s.server,
	greatest(st.acked_seq, c.seq, s.start_seq) AS seq,
	greatest(l.last_seq OPERATOR(pg_catalog.-) greatest(st.acked_seq, c.seq, s.start_seq), 0) AS lag_events,
	st.lag_bytes,
	CASE WHEN st.oldest_unpublished IS NULL THEN 0::double precision
		ELSE pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) st.oldest_unpublished) END AS lag_seconds,
	coalesce(st.published, 0) AS published,
	(SELECT pg_catalog.count(*) FROM eo.dead_letter AS d WHERE d.subscription OPERATOR(pg_catalog.=) s.id) AS dead,
	coalesce(st.in_flight, 0) AS in_flight,
	coalesce(st.restarts, 0) AS restarts,
	st.publisher_pid,
	st.last_ack_at,
	st.last_error,
	st.last_error_at,
	st.next_start_at,
	s.owner,
	s.created_at
FROM eo.subscription AS s
	LEFT JOIN eo.cursor AS c ON c.subscription OPERATOR(pg_catalog.=) s.id
	LEFT JOIN eo.subscription_status() AS st ON st.id OPERATOR(pg_catalog.=) s.id
	LEFT JOIN pg_catalog.pg_foreign_server AS f ON f.srvname OPERATOR(pg_catalog.=) s.server
	LEFT JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) f.srvfdw
	CROSS JOIN eo.log_status() AS l;
COMMENT ON VIEW eo.subscriptions IS 'each subscription: its state, place, lag and last error; counters since server start';

CREATE VIEW eo.segments AS
SELECT segment,
	CASE WHEN active IS NULL THEN 'unknown' WHEN active THEN 'active' WHEN first_seq IS NULL THEN 'free' ELSE 'full' END AS state,
	first_seq, last_seq, last_append,
	pg_catalog.pg_relation_size(pg_catalog.format('eo.log_%s', segment)::pg_catalog.regclass) AS bytes
FROM eo.segment_status();
COMMENT ON VIEW eo.segments IS 'the ring of segments that the log is kept in';

CREATE VIEW eo.stalls AS
SELECT l.stall_xid AS xid, l.stall_seq AS seq, l.stall_since AS since,
	a.pid, a.usename, a.application_name, a.client_addr, a.state,
	a.wait_event_type, a.wait_event, a.xact_start, a.query
FROM eo.log_status() AS l
	LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.backend_xid OPERATOR(pg_catalog.=) l.stall_xid
WHERE l.stall_xid IS NOT NULL;
COMMENT ON VIEW eo.stalls IS 'the transaction whose end the log is waiting for, if any';

CREATE VIEW eo.dead_letters AS
SELECT s.name AS subscription, d.seq, d.position, d.event_id, d.topic, d.key, d.type,
	d.headers, d.payload, d.body, d.content_type, d.enqueued_at, d.reason, d.failed_at,
	d.attempts, r.seq IS NOT NULL AS retrying
FROM eo.dead_letter AS d
	JOIN eo.subscription AS s ON s.id OPERATOR(pg_catalog.=) d.subscription
	LEFT JOIN eo.dead_letter_retry AS r
		ON r.subscription OPERATOR(pg_catalog.=) d.subscription AND r.seq OPERATOR(pg_catalog.=) d.seq;
COMMENT ON VIEW eo.dead_letters IS 'events that a broker refused for good, and why';

CREATE FUNCTION eo.tally_status(
	OUT family smallint, OUT owner integer, OUT held bigint, OUT bytes bigint,
	OUT first_at timestamptz, OUT repeats bigint
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'eo_outbox_tally_status';
COMMENT ON FUNCTION eo.tally_status() IS 'what was counted of consumers and scopes and is not in the tables yet';

CREATE VIEW eo.inbox_status AS
SELECT c.name AS consumer,
	coalesce(t.held, 0)::bigint AS ids,
	coalesce(t.bytes, 0)::bigint AS bytes,
	t.first_at AS oldest,
	coalesce(t.repeats, 0)::bigint AS duplicates,
	(SELECT pg_catalog.count(*) FROM eo.received_position AS p
		WHERE p.consumer OPERATOR(pg_catalog.=) c.id) AS sources,
	c.keep_for AS "window",
	c.created_at
FROM eo.consumer AS c
	LEFT JOIN (
		SELECT owner, pg_catalog.sum(held) AS held, pg_catalog.sum(bytes) AS bytes,
			pg_catalog.min(first_at) AS first_at, pg_catalog.sum(repeats) AS repeats
		FROM (
			SELECT family, owner, held, bytes, first_at, 0 AS repeats FROM eo.tally
			UNION ALL
			SELECT family, owner, 0, 0, NULL, repeats FROM eo.tally_repeats
			UNION ALL
			SELECT family, owner, held, bytes, first_at, repeats FROM eo.tally_status()
		) AS counts
		WHERE family OPERATOR(pg_catalog.=) 0::smallint
		GROUP BY owner
	) AS t ON t.owner OPERATOR(pg_catalog.=) c.id;
COMMENT ON VIEW eo.inbox_status IS 'each consumer: the ids that it recognises, about, and the duplicates that it has seen';

CREATE VIEW eo.idempotency_status AS
SELECT s.name AS scope,
	coalesce(t.held, 0)::bigint AS keys,
	coalesce(t.bytes, 0)::bigint AS bytes,
	t.first_at AS oldest,
	coalesce(t.repeats, 0)::bigint AS replays,
	s.keep_for AS expiry,
	s.release_codes,
	s.created_at
FROM eo.idempotency_scope AS s
	LEFT JOIN (
		SELECT owner, pg_catalog.sum(held) AS held, pg_catalog.sum(bytes) AS bytes,
			pg_catalog.min(first_at) AS first_at, pg_catalog.sum(repeats) AS repeats
		FROM (
			SELECT family, owner, held, bytes, first_at, 0 AS repeats FROM eo.tally
			UNION ALL
			SELECT family, owner, 0, 0, NULL, repeats FROM eo.tally_repeats
			UNION ALL
			SELECT family, owner, held, bytes, first_at, repeats FROM eo.tally_status()
		) AS counts
		WHERE family OPERATOR(pg_catalog.=) 1::smallint
		GROUP BY owner
	) AS t ON t.owner OPERATOR(pg_catalog.=) s.id;
COMMENT ON VIEW eo.idempotency_status IS 'each scope: the keys that it holds, about, and the answers that it has replayed';
