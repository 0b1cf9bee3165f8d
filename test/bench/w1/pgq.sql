-- pgq.sql - PgQ: its trigger writes each row as JSON into a queue; a consumer makes the
-- ticks, at most 20 ms apart, and takes a tick's events at a time.
CREATE EXTENSION pgq;
SELECT pgq.create_queue('w1'), pgq.register_consumer('w1', 'rival'),
	pgq.set_queue_config('w1', 'ticker_max_lag', '20 ms'),
	pgq.set_queue_config('w1', 'ticker_idle_period', '100 ms');
CREATE TRIGGER queue_order AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pgq.jsontriga('w1');
CREATE PROCEDURE rival.consume() LANGUAGE plpgsql AS $$
DECLARE
	ending bool;
	n int;
	batch bigint;
BEGIN
	LOOP
		SELECT over INTO ending FROM rival.state;
		COMMIT;
		IF ending THEN
			PERFORM pgq.force_tick('w1');
			COMMIT;
		END IF;
		PERFORM pgq.ticker('w1');
		COMMIT;
		n := 0;
		LOOP
			batch := pgq.next_batch('w1', 'rival');
			EXIT WHEN batch IS NULL;
			WITH v AS (
				INSERT INTO valid_orders SELECT v.* FROM pgq.get_batch_events(batch) e
					CROSS JOIN LATERAL json_populate_record(NULL::orders, e.ev_data::json) o
					CROSS JOIN LATERAL valid_of(o) v RETURNING *)
			INSERT INTO large_orders
			SELECT order_id, customer_id, tier, category, amount, ordered_at FROM v WHERE amount > 5800;
			PERFORM pgq.finish_batch(batch);
			COMMIT;
			n := n + 1;
		END LOOP;
		COMMIT;
		EXIT WHEN ending;
		IF n = 0 THEN
			PERFORM pg_sleep(0.005);
		END IF;
	END LOOP;
END
$$;
