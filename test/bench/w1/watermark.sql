-- watermark.sql - every second, all orders of the transactions that have ended since.
-- The position is a transaction id: ids of orders are not committed in their order.
ALTER TABLE orders ADD written_by xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX ON orders (written_by);
CREATE TABLE rival.position (done xid8 NOT NULL);
INSERT INTO rival.position VALUES ('0');
CREATE PROCEDURE rival.consume() LANGUAGE plpgsql AS $$
DECLARE
	due timestamptz := clock_timestamp();
	before xid8;
	upto xid8;
	ending bool;
BEGIN
	LOOP
		SELECT over INTO ending FROM rival.state;
		COMMIT;
		upto := pg_snapshot_xmin(pg_current_snapshot());
		COMMIT;
		SELECT done INTO before FROM rival.position FOR UPDATE;
		WITH v AS (
			INSERT INTO valid_orders SELECT v.* FROM orders o CROSS JOIN LATERAL valid_of(o) v
			WHERE o.written_by >= before AND o.written_by < upto RETURNING *)
		INSERT INTO large_orders
		SELECT order_id, customer_id, tier, category, amount, ordered_at FROM v WHERE amount > 5800;
		UPDATE rival.position SET done = upto;
		COMMIT;
		EXIT WHEN ending;
		due := greatest(due + interval '1 s', clock_timestamp());
		PERFORM pg_sleep(extract(epoch FROM due - clock_timestamp()));
	END LOOP;
END
$$;
