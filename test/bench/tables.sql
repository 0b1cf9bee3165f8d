-- tables.sql - the work of the benchmark, its writers, its rivals written by
-- hand, and the table that collects the figures.

\ir orders.sql

-- The output of the pipeline, and those of its rivals.
CREATE TABLE billing (
	order_id bigint PRIMARY KEY,
	customer_id int NOT NULL,
	tier text NOT NULL,
	quantity int NOT NULL,
	amount numeric NOT NULL,
	currency text NOT NULL,
	country text NOT NULL,
	ordered_at timestamptz NOT NULL
) WITH (autovacuum_enabled = false);
CREATE TABLE by_batches (LIKE billing INCLUDING ALL) WITH (autovacuum_enabled = false);
CREATE TABLE by_statement (LIKE billing INCLUDING ALL) WITH (autovacuum_enabled = false);

-- What one pipeline makes of an order; null from check_order is valid.
CREATE FUNCTION check_order(o orders) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN o.quantity <= 0 THEN 'quantity is not positive'
		WHEN o.price <= 0 THEN 'price is not positive'
		WHEN o.currency NOT IN ('EUR', 'USD', 'GBP') THEN 'unknown currency' END
$$;
CREATE FUNCTION with_customer(o orders) RETURNS SETOF billing LANGUAGE sql STABLE AS $$
	SELECT o.order_id, o.customer_id, c.tier, o.quantity,
		round(o.quantity * o.price * (1 - c.discount), 2), o.currency, o.country, o.ordered_at
	FROM customers c WHERE c.customer_id = o.customer_id
$$;

-- What pgbench's TPC-B script inserts, and its output.
CREATE TABLE movements (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	aid int NOT NULL,
	home int NOT NULL,
	bid int NOT NULL,
	delta int NOT NULL,
	at timestamp NOT NULL
) WITH (autovacuum_enabled = false);
CREATE TYPE movement AS (aid int, home int, bid int, delta int, at timestamp);
CREATE FUNCTION check_movement(h pgbench_history) RETURNS bool LANGUAGE sql IMMUTABLE
RETURN abs(h.delta) >= 50;
CREATE FUNCTION with_account(h pgbench_history) RETURNS SETOF movement LANGUAGE sql STABLE AS $$
	SELECT h.aid, a.bid, h.bid, h.delta, h.mtime FROM pgbench_accounts a WHERE a.aid = h.aid
$$;

-- The rivals: the same work as one statement, and in batches with a position.
-- The latter is right only because a single writer commits its ids in order.
CREATE PROCEDURE in_one_statement() LANGUAGE sql AS $$
	INSERT INTO by_statement
	SELECT o.order_id, o.customer_id, c.tier, o.quantity,
		round(o.quantity * o.price * (1 - c.discount), 2), o.currency, o.country, o.ordered_at
	FROM orders o JOIN customers c ON c.customer_id = o.customer_id
	WHERE o.quantity > 0 AND o.price > 0 AND o.currency IN ('EUR', 'USD', 'GBP')
$$;
CREATE TABLE position (done bigint NOT NULL);
INSERT INTO position VALUES (0);
CREATE PROCEDURE in_batches(size bigint) LANGUAGE plpgsql AS $$
DECLARE
	upto bigint;
	goal bigint := (SELECT max(order_id) FROM orders);
BEGIN
	LOOP
		SELECT done INTO upto FROM position FOR UPDATE;
		EXIT WHEN upto >= goal;
		INSERT INTO by_batches
		SELECT o.order_id, o.customer_id, c.tier, o.quantity,
			round(o.quantity * o.price * (1 - c.discount), 2), o.currency, o.country, o.ordered_at
		FROM orders o JOIN customers c ON c.customer_id = o.customer_id
		WHERE o.quantity > 0 AND o.price > 0 AND o.currency IN ('EUR', 'USD', 'GBP')
			AND o.order_id > upto AND o.order_id <= upto + size;
		UPDATE position SET done = upto + size;
		COMMIT;
	END LOOP;
END
$$;

-- Insert single orders at random times and note when each is in the output.  A
-- loop that asks for the row would keep a core busy and delay the others by the
-- scheduler's slices, so wait_for waits, and then the row must be there.  For the
-- same load without a pipeline: do not look.
CREATE UNLOGGED TABLE probes (
	round int NOT NULL,
	with_pipeline bool NOT NULL,
	commit_ms float8 NOT NULL,
	since_commit_begun_ms float8,
	since_commit_returned_ms float8
);
CREATE PROCEDURE probe(round int, look bool, seconds float8, a_second float8) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + seconds * interval '1 s';
	begun timestamptz;
	returned timestamptz;
	seen timestamptz;
	id bigint;
	commits float8[];
	begins float8[];
	returns float8[];
BEGIN
	WHILE clock_timestamp() < until LOOP
		PERFORM pg_sleep(-ln(1 - random()) / a_second);
		COMMIT;
		INSERT INTO orders (customer_id, product_id, quantity, price, currency, channel, country, ordered_at, note)
		VALUES (1 + floor(random() * 100000), 1, 1, 10, 'EUR', 'web', 'de', now(), 'a probe')
		RETURNING order_id INTO id;
		begun := clock_timestamp();
		COMMIT;
		returned := clock_timestamp();
		IF look THEN
			PERFORM pipeline.wait_for('orders');
			PERFORM FROM billing WHERE order_id = id;
			seen := clock_timestamp();
			IF NOT FOUND THEN
				RAISE 'order % is not in the output', id;
			END IF;
		END IF;
		COMMIT;
		commits := commits || 1000 * extract(epoch FROM returned - begun)::float8;
		begins := begins || 1000 * extract(epoch FROM seen - begun)::float8;
		returns := returns || 1000 * extract(epoch FROM seen - returned)::float8;
	END LOOP;
	INSERT INTO probes
	SELECT probe.round, look, p.* FROM unnest(commits, begins, returns) p;
END
$$;

-- Make capture decode again all that is not confirmed, by ending it, and measure
-- from the start of the next one until it has written all of it to the spool.
CREATE PROCEDURE decode_again(INOUT seconds float8 DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	goal pg_lsn := pg_current_wal_flush_lsn();
	before int := (SELECT pid FROM _pipeline.databases());
	again bool := false;
	d record;
BEGIN
	PERFORM pg_terminate_backend(before);
	LOOP
		SELECT pid, decoded_lsn < goal AS behind INTO d FROM _pipeline.databases();
		IF d.pid <> before THEN
			again := again OR d.behind;
			EXIT WHEN again AND NOT d.behind;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.001);
	END LOOP;
	SELECT extract(epoch FROM clock_timestamp() - backend_start) INTO STRICT seconds
	FROM pg_stat_activity WHERE pid = d.pid;
END
$$;

-- One figure of one repetition; the median of all, alone and with the range.
CREATE TABLE figures (round int NOT NULL, what text NOT NULL, value float8 NOT NULL);
CREATE FUNCTION median(name text) RETURNS numeric LANGUAGE sql AS $$
	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY value)::numeric FROM figures WHERE what = name
$$;
CREATE FUNCTION figure(name text, digits int DEFAULT 2) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN count(*) = 0 THEN '-' ELSE round(median(name), digits)::text END ||
		CASE WHEN count(*) > 1 THEN
			format(' (%s to %s)', round(min(value)::numeric, digits), round(max(value)::numeric, digits))
		ELSE '' END
	FROM figures WHERE what = name
$$;
CREATE FUNCTION ratio(a text, b text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(round(median(a) / nullif(median(b), 0), 2)::text, '-')
$$;
