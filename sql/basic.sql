-- A committed row comes out of a pipeline: the first example of README.
CREATE SCHEMA basic;
SET search_path = basic;
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, qty int, price numeric);
CREATE TABLE customers (customer_id int PRIMARY KEY, tier text);
CREATE TABLE billing (id int PRIMARY KEY, tier text, amount numeric);
CREATE TABLE gold (id int PRIMARY KEY, tier text);
CREATE TYPE enriched_order AS (id int, customer_id int, amount numeric, tier text);
CREATE TYPE gold_row AS (id int, tier text);
INSERT INTO customers VALUES (1, 'gold'), (2, 'silver');

CREATE FUNCTION check_order(o orders) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN o.qty <= 0 THEN 'quantity must be positive' END $$;
CREATE FUNCTION with_customer(o orders) RETURNS SETOF enriched_order LANGUAGE sql STABLE AS
$$ SELECT o.id, o.customer_id, o.qty * o.price, c.tier FROM customers c WHERE c.customer_id = o.customer_id $$;
CREATE FUNCTION only_gold(e enriched_order) RETURNS SETOF gold_row LANGUAGE sql STABLE AS
$$ SELECT e.id, e.tier WHERE e.tier = 'gold' $$;
CREATE FUNCTION to_billing(e enriched_order) RETURNS SETOF billing LANGUAGE sql STABLE AS
$$ SELECT e.id, e.tier, e.amount $$;

SELECT pipeline.create_pipeline('basic', source => 'orders');
SELECT pipeline.add_stage('basic', 'check', 'validate', 'check_order(orders)');
SELECT pipeline.add_stage('basic', 'customer', 'enrich', 'with_customer(orders)');
SELECT pipeline.add_output('basic', 'billing', transform => 'to_billing(enriched_order)');
SELECT pipeline.add_output('basic', 'gold', transform => 'only_gold(enriched_order)');
INSERT INTO orders VALUES (0, 1, 1, 1.00);	-- before the start: no event
SELECT pipeline.start('basic');

INSERT INTO orders VALUES (1, 1, 2, 10.00), (2, 2, 1, 5.50), (3, 1, 0, 1.00), (4, 9, 1, 1.00);
SELECT pipeline.wait_for('basic');
SELECT * FROM billing ORDER BY id;
SELECT * FROM gold ORDER BY id;
SELECT output, operation, source_key, outcome, reason, output_key
FROM pipeline.lineage WHERE pipeline = 'basic' ORDER BY output, source_key;
SELECT stage, kind, reason, event, state FROM pipeline.dead_letters
WHERE pipeline = 'basic' ORDER BY event->>'id';
SELECT output, events, produced, filtered, rejected, failed, balanced
FROM pipeline.ledger('basic') ORDER BY output;

-- A rolled back row is no event, neither is one rolled back to a savepoint.
BEGIN;
INSERT INTO orders VALUES (5, 1, 1, 1.00);
ROLLBACK;
BEGIN;
INSERT INTO orders VALUES (6, 1, 1, 1.00);
SAVEPOINT s;
INSERT INTO orders VALUES (7, 1, 1, 1.00);
ROLLBACK TO s;
INSERT INTO orders VALUES (8, 1, 1, 1.00);
COMMIT;
SELECT pipeline.wait_for('basic');
SELECT id FROM billing ORDER BY id;

-- Repair and run again, or give up.
INSERT INTO customers VALUES (9, 'new');
SELECT pipeline.redrive('basic', stage => 'customer');
SELECT pipeline.discard('basic', (SELECT array_agg(id) FROM pipeline.dead_letters
								  WHERE pipeline = 'basic' AND state = 'open' AND stage = 'check'), 'a test order');
SELECT pipeline.wait_for('basic');
SELECT id FROM billing ORDER BY id;
SELECT stage, state, attempts FROM pipeline.dead_letters WHERE pipeline = 'basic' ORDER BY stage;
SELECT output, source_key, outcome, attempts FROM pipeline.lineage
WHERE pipeline = 'basic' AND source_key->>'id' = '4' ORDER BY output;
SELECT output, events, produced, filtered, rejected, failed, balanced
FROM pipeline.ledger('basic') ORDER BY output;

SELECT pipeline.stop('basic');
SELECT pipeline.drop_pipeline('basic');
SET client_min_messages = warning;
DROP SCHEMA basic CASCADE;
