-- batches.sql - afterwards, INSERT ... SELECT in batches of :size orders, with a position.
-- Right only because nobody writes orders meanwhile.
CREATE TABLE rival.position (done bigint NOT NULL, size int NOT NULL);
INSERT INTO rival.position VALUES (0, :size);
CREATE PROCEDURE rival.finish() LANGUAGE plpgsql AS $$
DECLARE
	at rival.position;
	upto bigint;
BEGIN
	LOOP
		SELECT * INTO at FROM rival.position FOR UPDATE;
		SELECT max(order_id) INTO upto
		FROM (SELECT order_id FROM orders WHERE order_id > at.done ORDER BY order_id LIMIT at.size) o;
		EXIT WHEN upto IS NULL;
		WITH v AS (
			INSERT INTO valid_orders SELECT v.* FROM orders o CROSS JOIN LATERAL valid_of(o) v
			WHERE o.order_id > at.done AND o.order_id <= upto RETURNING *)
		INSERT INTO large_orders
		SELECT order_id, customer_id, tier, category, amount, ordered_at FROM v WHERE amount > 5800;
		UPDATE rival.position SET done = upto;
		COMMIT;
	END LOOP;
END
$$;

-- What decoding by built-in means costs is measured on the same orders.
CREATE PUBLICATION decode FOR TABLE orders;
SELECT pg_create_logical_replication_slot('decode', 'pgoutput');
