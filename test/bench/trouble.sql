-- trouble.sql - tables and functions of the parts that measure what failures cost.
CREATE TABLE readings (reading_id int PRIMARY KEY, divisor int NOT NULL, note text NOT NULL)
	WITH (autovacuum_enabled = false);
CREATE TABLE good_readings (reading_id int PRIMARY KEY, note text NOT NULL)
	WITH (autovacuum_enabled = false);
CREATE TABLE places (place int PRIMARY KEY);
INSERT INTO places VALUES (1);
CREATE TABLE places_read (reading_id int PRIMARY KEY,
	place int NOT NULL REFERENCES places DEFERRABLE INITIALLY DEFERRED) WITH (autovacuum_enabled = false);

-- A bad row has the divisor 0.
CREATE FUNCTION sql_reading(r readings) RETURNS SETOF good_readings LANGUAGE sql STABLE AS
$$ SELECT r.reading_id / r.divisor, r.note $$;
CREATE FUNCTION plpgsql_reading(r readings) RETURNS SETOF good_readings LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT (r.reading_id / r.divisor, r.note)::good_readings; END $$;
CREATE FUNCTION deferred_reading(r readings) RETURNS SETOF places_read LANGUAGE sql STABLE AS
$$ SELECT r.reading_id, r.divisor $$;
CREATE PROCEDURE write_readings(events int, every int) LANGUAGE plpgsql AS $$
BEGIN
	FOR lowest IN 1 .. events BY 1000 LOOP
		INSERT INTO readings
		SELECT i, CASE WHEN every > 0 AND i % nullif(every, 0) = 0 THEN 0 ELSE 1 END, 'a note of some length'
		FROM generate_series(lowest, lowest + 999) i;
		COMMIT;
	END LOOP;
END
$$;
