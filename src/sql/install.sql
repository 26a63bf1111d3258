-- The last step: a relay starts when CREATE EXTENSION commits.

CREATE FUNCTION eo.installed() RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'eo_outbox_installed';
COMMENT ON FUNCTION eo.installed() IS 'asks for a relay when this transaction commits';
REVOKE ALL ON FUNCTION eo.installed() FROM PUBLIC;

SELECT eo.installed();
