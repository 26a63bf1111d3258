-- What the examples work on.  As a superuser, in a database with the extension:
--
--   psql -f schema.sql

CREATE TABLE payment (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	account text NOT NULL,
	amount integer NOT NULL CHECK (amount > 0)
);

CREATE TABLE balance (
	account text PRIMARY KEY,
	amount integer NOT NULL
);

CREATE ROLE shop LOGIN;
GRANT SELECT, INSERT, UPDATE ON payment, balance TO shop;
SELECT eo.grant_producer('shop');
SELECT eo.grant_consumer('shop');
