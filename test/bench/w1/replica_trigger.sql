-- replica_trigger.sql - as replication.sql, and there a replica trigger does the work,
-- row by row.
\ir replication.sql
CREATE FUNCTION rival.on_arrival() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
	v valid_orders;
BEGIN
	SELECT * INTO v FROM valid_of(NEW);
	IF FOUND THEN
		INSERT INTO valid_orders VALUES (v.*);
		IF v.amount > 5800 THEN
			INSERT INTO large_orders VALUES (v.order_id, v.customer_id, v.tier, v.category, v.amount, v.ordered_at);
		END IF;
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER on_arrival AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION rival.on_arrival();
ALTER TABLE orders ENABLE REPLICA TRIGGER on_arrival;
