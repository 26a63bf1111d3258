-- The shop of the demonstration: ordinary tables, and events beside them.

CREATE SCHEMA shop;

CREATE TABLE shop.customer (
	id integer PRIMARY KEY,
	events integer NOT NULL DEFAULT 0	-- how many this customer has caused
);
CREATE TABLE shop.product (
	id integer PRIMARY KEY,
	name text NOT NULL,
	stock integer NOT NULL
);
CREATE TABLE shop.orders (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer integer NOT NULL REFERENCES shop.customer,
	product integer NOT NULL REFERENCES shop.product
);
CREATE TABLE shop.payment (
	order_id bigint PRIMARY KEY REFERENCES shop.orders,
	amount numeric NOT NULL
);

-- The application's own record of the events it committed, to compare with what
-- arrives: rows of an ordinary table, written by the same transactions.
CREATE TABLE shop.truth (
	event_id uuid PRIMARY KEY,
	topic text NOT NULL,
	key text NOT NULL,
	n integer NOT NULL
);

INSERT INTO shop.customer (id) SELECT generate_series(1, 200);
INSERT INTO shop.product
	SELECT i, (ARRAY['tea', 'mug', 'kettle', 'honey', 'lemon'])[i % 5 + 1], 1000000
	FROM generate_series(1, 20) AS i;

-- Enqueues one event of a customer, numbered 1, 2, 3 ... per customer by a row
-- that the transaction has locked.
CREATE FUNCTION shop.emit(topic text, customer integer, payload jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	number integer;
	event uuid;
BEGIN
	UPDATE shop.customer SET events = events + 1 WHERE id = emit.customer
		RETURNING events INTO number;
	event := eo.enqueue(topic, payload || jsonb_build_object('n', number),
						key => 'customer-' || customer);
	INSERT INTO shop.truth VALUES (event, topic, 'customer-' || customer, number);
END $$;

CREATE FUNCTION shop.place(customer integer, product integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	new_order bigint;
	what text;
BEGIN
	UPDATE shop.product SET stock = stock - 1 WHERE id = place.product
		RETURNING name INTO what;
	INSERT INTO shop.orders (customer, product) VALUES (place.customer, place.product)
		RETURNING id INTO new_order;
	PERFORM shop.emit('orders', customer,
					  jsonb_build_object('order', new_order, 'text', what || ' ordered'));
	PERFORM shop.emit('stock', customer,
					  jsonb_build_object('order', new_order, 'text', what || ' reserved'));
	RETURN new_order;
END $$;

CREATE FUNCTION shop.add_gift(order_id bigint) RETURNS void
LANGUAGE sql AS $$
	SELECT shop.emit('gifts', customer, jsonb_build_object('order', id, 'text', 'gift added'))
	FROM shop.orders WHERE id = order_id;
$$;

CREATE FUNCTION shop.pay(order_id bigint) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO shop.payment VALUES (order_id, 9.99);
	SELECT shop.emit('payments', customer, jsonb_build_object('order', id, 'text', 'paid'))
	FROM shop.orders WHERE id = order_id;
$$;

-- Tells the client, which nothing can roll back, which events of this
-- transaction are about to be undone.
CREATE FUNCTION shop.undoing(order_id bigint, why text, only_topic text = NULL) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'undone %', (
		SELECT jsonb_build_object('order', order_id, 'why', why,
								  'events', jsonb_agg(event_id), 'topics', jsonb_agg(topic))
		FROM eo.pending() WHERE topic = coalesce(only_topic, topic));
END $$;
