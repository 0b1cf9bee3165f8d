-- tables.sql - a small pipeline (one look-up, one output) for all parts but W1, and the
-- table that collects the figures.

\ir orders.sql

-- The output of the pipeline, and that of one statement.
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

-- The same work as one statement.
CREATE PROCEDURE in_one_statement() LANGUAGE sql AS $$
	INSERT INTO by_statement
	SELECT o.order_id, o.customer_id, c.tier, o.quantity,
		round(o.quantity * o.price * (1 - c.discount), 2), o.currency, o.country, o.ordered_at
	FROM orders o JOIN customers c ON c.customer_id = o.customer_id
	WHERE o.quantity > 0 AND o.price > 0 AND o.currency IN ('EUR', 'USD', 'GBP')
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

-- The methods of W1, as they are shown.
CREATE TABLE w1_methods (n int PRIMARY KEY, m text NOT NULL, label text NOT NULL);
INSERT INTO w1_methods VALUES
	(1, 'alone', 'L1: the writer alone'),
	(2, 'pipeline', 'pipeline, lineage row'),
	(3, 'pipeline_none', 'pipeline, lineage none'),
	(4, 'statement', 'L2: one statement afterwards'),
	(5, 'batches_10000', 'L2: batches of 10 000 afterwards'),
	(6, 'batches_1000', 'L2: batches of 1 000 afterwards'),
	(7, 'trigger', 'statement trigger'),
	(8, 'pgq', 'PgQ'),
	(9, 'replication', 'logical replication, raw rows only'),
	(10, 'replica_trigger', 'logical replication, replica trigger'),
	(11, 'watermark', 'watermark loop every second'),
	(12, 'jobs', 'jobs table, SKIP LOCKED');
