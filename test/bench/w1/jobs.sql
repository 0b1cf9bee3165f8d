-- jobs.sql - a statement trigger writes a job for each order; a consumer takes what nobody
-- else has (SKIP LOCKED), and looks again after 10 ms where there was nothing.
CREATE TABLE rival.jobs (job_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL);
CREATE FUNCTION rival.add_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO rival.jobs (order_id) SELECT order_id FROM added;
	RETURN NULL;
END
$$;
CREATE TRIGGER add_jobs AFTER INSERT ON orders REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION rival.add_jobs();
CREATE PROCEDURE rival.consume() LANGUAGE plpgsql AS $$
DECLARE
	ending bool;
	n int;
BEGIN
	LOOP
		SELECT over INTO ending FROM rival.state;
		COMMIT;
		WITH taken AS (
			DELETE FROM rival.jobs WHERE job_id = ANY (ARRAY(
				SELECT job_id FROM rival.jobs ORDER BY job_id LIMIT 1000 FOR UPDATE SKIP LOCKED))
			RETURNING order_id),
		v AS (
			INSERT INTO valid_orders SELECT v.* FROM taken JOIN orders o USING (order_id)
				CROSS JOIN LATERAL valid_of(o) v RETURNING *),
		l AS (
			INSERT INTO large_orders
			SELECT order_id, customer_id, tier, category, amount, ordered_at FROM v WHERE amount > 5800)
		SELECT count(*) INTO n FROM taken;
		COMMIT;
		CONTINUE WHEN n > 0;
		EXIT WHEN ending;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
