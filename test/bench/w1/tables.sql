-- tables.sql - the work W1: products beside the customers, two outputs, and the batch
-- query that every method's outputs are compared with.
CREATE TABLE products (
	product_id int PRIMARY KEY,
	category text NOT NULL,
	tax numeric(4,2) NOT NULL
);
INSERT INTO products SELECT i, 'category ' || i % 50, (ARRAY[0.07, 0.19])[1 + i % 2]
FROM generate_series(1, 10000) i;
VACUUM ANALYZE products;

CREATE TABLE valid_orders (
	order_id bigint PRIMARY KEY,
	customer_id int NOT NULL,
	tier text NOT NULL,
	category text NOT NULL,
	quantity int NOT NULL,
	amount numeric NOT NULL,
	currency text NOT NULL,
	country text NOT NULL,
	ordered_at timestamptz NOT NULL
) WITH (autovacuum_enabled = false);
CREATE TABLE large_orders (
	order_id bigint PRIMARY KEY,
	customer_id int NOT NULL,
	tier text NOT NULL,
	category text NOT NULL,
	amount numeric NOT NULL,
	ordered_at timestamptz NOT NULL
) WITH (autovacuum_enabled = false);

-- The batch query, on whose result all must agree.
CREATE VIEW batch_valid AS
	SELECT o.order_id, o.customer_id, c.tier, p.category, o.quantity,
		round(o.quantity * o.price * (1 - c.discount) * (1 + p.tax), 2) AS amount,
		o.currency, o.country, o.ordered_at
	FROM orders o JOIN customers c USING (customer_id) JOIN products p USING (product_id)
	WHERE o.quantity > 0 AND o.price > 0 AND o.currency IN ('EUR', 'USD', 'GBP');
CREATE VIEW batch_large AS
	SELECT order_id, customer_id, tier, category, amount, ordered_at FROM batch_valid WHERE amount > 5800;

-- The same for one order at a time: the rivals' work.  The planner sees through it, so
-- that it is the join above.
CREATE FUNCTION valid_of(o orders) RETURNS SETOF valid_orders LANGUAGE sql STABLE AS $$
	SELECT o.order_id, o.customer_id, c.tier, p.category, o.quantity,
		round(o.quantity * o.price * (1 - c.discount) * (1 + p.tax), 2), o.currency, o.country, o.ordered_at
	FROM customers c, products p
	WHERE c.customer_id = o.customer_id AND p.product_id = o.product_id
		AND o.quantity > 0 AND o.price > 0 AND o.currency IN ('EUR', 'USD', 'GBP')
$$;

-- What belongs to a rival.  A rival with a process of its own has rival.consume, which
-- ends when all is done after "over" was set; others may have rival.finish.
CREATE SCHEMA rival;
CREATE TABLE rival.state (over bool NOT NULL);
INSERT INTO rival.state VALUES (false);
