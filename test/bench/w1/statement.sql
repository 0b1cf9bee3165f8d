-- statement.sql - afterwards, INSERT ... SELECT in one statement.
CREATE PROCEDURE rival.finish() LANGUAGE sql AS $$
	WITH v AS (
		INSERT INTO valid_orders SELECT v.* FROM orders o CROSS JOIN LATERAL valid_of(o) v RETURNING *)
	INSERT INTO large_orders SELECT order_id, customer_id, tier, category, amount, ordered_at FROM v WHERE amount > 5800
$$;
