-- many.sql - many pipelines on fewer tables, for the part with many of them.  Each
-- has an output of its own, so that none waits for another one's locks.
CREATE SEQUENCE fan_ids CACHE 100;

CREATE PROCEDURE many_tables(kind text, sources int, pipelines int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. sources LOOP
		EXECUTE format('CREATE TABLE %s_src_%s (id int PRIMARY KEY, v int NOT NULL) WITH (autovacuum_enabled = false)', kind, i);
		COMMIT;
	END LOOP;
	FOR i IN 1 .. pipelines LOOP
		EXECUTE format('CREATE TABLE %s_dst_%s (id int NOT NULL, w int NOT NULL) WITH (autovacuum_enabled = false)', kind, i);
		COMMIT;
	END LOOP;
END
$$;

-- Declare and start them; figures of the first and the last tenth.
CREATE PROCEDURE many_define(kind text, sources int, first int, last int) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	tenth int := (last - first + 1) / 10;
BEGIN
	FOR i IN first .. last LOOP
		PERFORM pipeline.create_pipeline(format('%s_%s', kind, i), source => format('%s_src_%s', kind, (i - 1) % sources + 1)::regclass);
		PERFORM pipeline.add_stage(format('%s_%s', kind, i), 'double', 'transform', query => 'SELECT id, 2 * v AS w FROM event');
		PERFORM pipeline.add_output(format('%s_%s', kind, i), format('%s_dst_%s', kind, i)::regclass);
		PERFORM pipeline.start(format('%s_%s', kind, i));
		COMMIT;
		IF tenth > 0 AND i = first + tenth - 1 THEN
			INSERT INTO figures VALUES (0, kind || '_define_first', 1000 * extract(epoch FROM clock_timestamp() - begun) / tenth);
		END IF;
		IF tenth > 0 AND i = last - tenth THEN
			begun := clock_timestamp();
		END IF;
	END LOOP;
	IF tenth > 0 THEN
		INSERT INTO figures VALUES (0, kind || '_define_last', 1000 * extract(epoch FROM clock_timestamp() - begun) / tenth);
	END IF;
END
$$;

-- So many rows into each source, ten a transaction, and nobody waits for the disk.
CREATE PROCEDURE many_write(kind text, sources int, first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('synchronous_commit', 'off', false);
	FOR low IN first .. last BY 10 LOOP
		FOR i IN 1 .. sources LOOP
			EXECUTE format('INSERT INTO %s_src_%s SELECT n, n FROM generate_series($1, $2) n', kind, i) USING low, least(low + 9, last);
			COMMIT;
		END LOOP;
	END LOOP;
END
$$;

-- Wait until all have done all.
CREATE PROCEDURE many_wait() LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_for_capture();
	WHILE EXISTS (SELECT FROM _pipeline.consumers() WHERE NOT caught_up) LOOP
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

-- Does each output have what one statement would make of its source?
CREATE FUNCTION many_wrong(kind text, sources int, pipelines int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	wrong bigint := 0;
	n bigint;
BEGIN
	FOR i IN 1 .. pipelines LOOP
		EXECUTE format('SELECT count(*) FROM (SELECT id, w FROM %1$s_dst_%2$s EXCEPT ALL SELECT id, 2 * v FROM %1$s_src_%3$s) x', kind, i, (i - 1) % sources + 1) INTO n;
		wrong := wrong + n;
		EXECUTE format('SELECT (SELECT count(*) FROM %1$s_src_%3$s) - (SELECT count(*) FROM %1$s_dst_%2$s)', kind, i, (i - 1) % sources + 1) INTO n;
		wrong := wrong + abs(n);
	END LOOP;
	RETURN wrong;
END
$$;

-- All at once: seconds until all are done, and when the first, the middle and the
-- last one of the pipelines made progress, and ended.
CREATE PROCEDURE many_burst(kind text, sources int, first int, last int) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz := clock_timestamp();
BEGIN
	CALL many_write(kind, sources, first, last);
	CALL many_wait();
	INSERT INTO figures VALUES (0, kind || '_burst', extract(epoch FROM clock_timestamp() - begun));
	INSERT INTO figures
	SELECT 0, format('%s_%s', kind, f.what), f.value
	FROM (
		SELECT percentile_cont(ARRAY[0.01, 0.5, 0.99]) WITHIN GROUP (ORDER BY x.half) AS half,
			max(x.half) AS latest, sum(x.events) AS events
		FROM (
			-- when it had done a half of its events, of the seconds since the beginning
			SELECT b.pipeline_id, max(b.events) AS events,
				min(extract(epoch FROM b.processed_at - begun)) FILTER (WHERE 2 * b.so_far >= b.events) AS half
			FROM (
				SELECT q.pipeline_id, q.processed_at,
					sum(q.events) OVER (PARTITION BY q.pipeline_id ORDER BY q.batch_id) AS so_far,
					sum(q.events) OVER (PARTITION BY q.pipeline_id) AS events
				FROM _pipeline.batches q JOIN _pipeline.pipelines p USING (pipeline_id)
				WHERE q.processed_at >= begun AND p.name LIKE kind || '\_%'
			) b
			GROUP BY b.pipeline_id
		) x
	) y
		CROSS JOIN LATERAL (VALUES ('half_p1', y.half[1]), ('half_p50', y.half[2]), ('half_p99', y.half[3]),
			('half_latest', y.latest), ('events', y.events)) f (what, value);
END
$$;
