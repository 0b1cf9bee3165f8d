-- pipeline.sql - the pipeline with lineage :lineage (row, none).
CREATE EXTENSION pipeline;

-- null is valid
CREATE FUNCTION check_order(o orders) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN o.quantity <= 0 THEN 'quantity is not positive'
		WHEN o.price <= 0 THEN 'price is not positive'
		WHEN o.currency NOT IN ('EUR', 'USD', 'GBP') THEN 'unknown currency' END
$$;
CREATE TYPE customer_order AS (order_id bigint, customer_id int, tier text, discount numeric, product_id int,
	quantity int, price numeric, currency text, country text, ordered_at timestamptz);
CREATE FUNCTION with_customer(o orders) RETURNS SETOF customer_order LANGUAGE sql STABLE AS $$
	SELECT o.order_id, o.customer_id, c.tier, c.discount, o.product_id, o.quantity, o.price, o.currency, o.country, o.ordered_at
	FROM customers c WHERE c.customer_id = o.customer_id
$$;
CREATE FUNCTION with_product(o customer_order) RETURNS SETOF valid_orders LANGUAGE sql STABLE AS $$
	SELECT o.order_id, o.customer_id, o.tier, p.category, o.quantity,
		round(o.quantity * o.price * (1 - o.discount) * (1 + p.tax), 2), o.currency, o.country, o.ordered_at
	FROM products p WHERE p.product_id = o.product_id
$$;
CREATE FUNCTION only_large(v valid_orders) RETURNS SETOF large_orders LANGUAGE sql STABLE AS $$
	SELECT v.order_id, v.customer_id, v.tier, v.category, v.amount, v.ordered_at WHERE v.amount > 5800
$$;

SELECT pipeline.create_pipeline('w1', source => 'orders', lineage => :'lineage');
SELECT pipeline.add_stage('w1', 'check', 'validate', 'check_order(orders)');
SELECT pipeline.add_stage('w1', 'customer', 'enrich', 'with_customer(orders)');
SELECT pipeline.add_stage('w1', 'product', 'enrich', 'with_product(customer_order)');
SELECT pipeline.add_output('w1', 'valid_orders');
SELECT pipeline.add_output('w1', 'large_orders', transform => 'only_large(valid_orders)');
SELECT pipeline.start('w1');
SELECT pipeline.wait_for('w1');

CREATE PROCEDURE rival.finish() LANGUAGE plpgsql AS $$
BEGIN
	IF NOT pipeline.wait_for('w1', timeout => '10 min') THEN
		RAISE 'the pipeline did not finish';
	END IF;
END
$$;
