-- Brokers: a server of one of these wrappers, its credentials a user mapping.

CREATE FUNCTION eo.validate_file(options text[], catalog oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'eo_outbox_validate_file';
COMMENT ON FUNCTION eo.validate_file(text[], oid) IS 'checks the options of a file server';

CREATE FOREIGN DATA WRAPPER eo_file NO HANDLER VALIDATOR eo.validate_file;
COMMENT ON FOREIGN DATA WRAPPER eo_file IS 'eo_outbox: events as lines of a file';

CREATE FUNCTION eo.validate_kafka(options text[], catalog oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'eo_outbox_validate_kafka';
COMMENT ON FUNCTION eo.validate_kafka(text[], oid) IS 'checks the options of a Kafka server';

CREATE FOREIGN DATA WRAPPER eo_kafka NO HANDLER VALIDATOR eo.validate_kafka;
COMMENT ON FOREIGN DATA WRAPPER eo_kafka IS 'eo_outbox: events as records of Apache Kafka';

CREATE FUNCTION eo.validate_stub(options text[], catalog oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'eo_outbox_validate_stub';
COMMENT ON FUNCTION eo.validate_stub(text[], oid) IS 'checks the options of a stub server';

CREATE FOREIGN DATA WRAPPER eo_stub NO HANDLER VALIDATOR eo.validate_stub;
COMMENT ON FOREIGN DATA WRAPPER eo_stub IS 'eo_outbox: a publisher with scripted faults, present in test builds only';
