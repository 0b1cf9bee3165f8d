-- trigger.sql - a statement trigger does the work in the writer's transaction.
CREATE FUNCTION rival.at_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WITH v AS (
		INSERT INTO valid_orders SELECT v.* FROM added o CROSS JOIN LATERAL valid_of(
			ROW(o.order_id, o.customer_id, o.product_id, o.quantity, o.price, o.currency, o.channel,
				o.country, o.ordered_at, o.note)::orders) v RETURNING *)
	INSERT INTO large_orders SELECT order_id, customer_id, tier, category, amount, ordered_at FROM v WHERE amount > 5800;
	RETURN NULL;
END
$$;
CREATE TRIGGER at_once AFTER INSERT ON orders REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION rival.at_once();
