-- spike.sql - a table that gets ten times its traffic for a while, and a pipeline with
-- a handler of some cost on it.
CREATE TABLE spike_src (id bigint GENERATED ALWAYS AS IDENTITY, v int NOT NULL) WITH (autovacuum_enabled = false);
CREATE TABLE spike_dst (id bigint NOT NULL, w text NOT NULL) WITH (autovacuum_enabled = false);
CREATE FUNCTION spike_work(s spike_src) RETURNS SETOF spike_dst LANGUAGE plpgsql STABLE AS $$
DECLARE
	w text := s.v;
BEGIN
	FOR i IN 1 .. 40 LOOP
		w := md5(w);
	END LOOP;
	RETURN NEXT (s.id, w)::spike_dst;
END
$$;
SELECT pipeline.create_pipeline('spike', source => 'spike_src');
SELECT pipeline.add_stage('spike', 'work', 'transform', 'spike_work(spike_src)');
SELECT pipeline.add_output('spike', 'spike_dst');
SELECT pipeline.start('spike');
CREATE UNLOGGED TABLE spike_samples (at timestamptz NOT NULL, lag float8 NOT NULL, written bigint NOT NULL, done bigint NOT NULL);

-- Rows at a pace, a transaction every 10 ms.
CREATE PROCEDURE spike_write(a_second float8, seconds float8) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	written bigint := 0;
	passed float8;
BEGIN
	LOOP
		passed := extract(epoch FROM clock_timestamp() - begun);
		EXIT WHEN passed >= seconds AND written >= a_second * seconds;
		INSERT INTO spike_src (v) SELECT i FROM generate_series(written + 1, floor(least(passed, seconds) * a_second)::bigint) i;
		written := floor(least(passed, seconds) * a_second);
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

-- How far behind it is, as everybody can see it, until somebody says that it is over.
CREATE TABLE spike_over ();
CREATE PROCEDURE spike_watch() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		INSERT INTO spike_samples
		SELECT clock_timestamp(), extract(epoch FROM s.lag), coalesce(pg_sequence_last_value('spike_src_id_seq'), 0), s.events
		FROM pipeline.status s WHERE s.pipeline = 'spike';
		EXIT WHEN to_regclass('spike_over') IS NULL;
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
END
$$;
