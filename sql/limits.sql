-- A pipeline that fails too much pauses: the circuit breaker, and the limit of
-- open dead letters.  Both go on by themselves.
CREATE SCHEMA limits;
SET search_path = limits;
CREATE TABLE src (id int PRIMARY KEY, bad bool NOT NULL DEFAULT false);
CREATE TABLE dst (id int PRIMARY KEY, bad bool);
CREATE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.bad THEN RAISE 'event is bad'; END IF;
	RETURN NEXT s;
END $$;
CREATE FUNCTION reached(wanted text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
BEGIN
	LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = 'l') = wanted THEN RETURN true; END IF;
		IF clock_timestamp() > until THEN RETURN false; END IF;
		PERFORM pipeline.wait_for('l', timeout => '10 ms');
	END LOOP;
END $$;
CREATE PROCEDURE commit_each(first int, last int, bad bool) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN first .. last LOOP
		INSERT INTO src VALUES (i, bad);
		COMMIT;
	END LOOP;
END $$;
CREATE VIEW state AS SELECT state, last_error FROM pipeline.status WHERE pipeline = 'l';
CREATE VIEW letters AS SELECT attempts, state, count(*) FROM pipeline.dead_letters WHERE pipeline = 'l'
GROUP BY attempts, state ORDER BY attempts, state;
SET client_min_messages = warning;
SELECT pipeline.create_pipeline('l', 'src'),
	pipeline.add_stage('l', 'f', 'transform', 'f(src)'),
	pipeline.add_output('l', 'dst'),
	pipeline.start('l');

-- Half of the window may fail; the breaker opens after the
-- transaction of the event that was too much, and not in it.
INSERT INTO src SELECT i, true FROM generate_series(1, 500) i;
SELECT pipeline.wait_for('l');
SELECT state FROM pipeline.status WHERE pipeline = 'l';
SELECT pipeline.stop('l');
CALL commit_each(501, 1100, true);
SELECT pipeline.start('l');
SELECT reached('paused');
SELECT * FROM state;
SELECT * FROM letters;
SELECT * FROM pipeline.ledger('l');

-- It closes by itself when the handler is mended ...
CREATE OR REPLACE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT s; END $$;
SELECT pipeline.wait_for('l');
SELECT reached('running');
SELECT * FROM letters;
SELECT pipeline.redrive('l');
SELECT pipeline.wait_for('l');
SELECT count(*), min(id), max(id) FROM dst;
SELECT * FROM pipeline.ledger('l');

-- ... and when later events are good, for which it need not be told.
CREATE OR REPLACE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.bad THEN RAISE 'event is bad again'; END IF;
	RETURN NEXT s;
END $$;
SELECT pipeline.stop('l');
CALL commit_each(2001, 2510, true);
CALL commit_each(2511, 2600, false);
SELECT pipeline.start('l');
SELECT pipeline.wait_for('l');
SELECT count(*) FROM dst WHERE id > 2000;
SELECT * FROM pipeline.ledger('l');
-- Run again in vain, they do not count: they are none of the stream of events.
SELECT pipeline.redrive('l');
SELECT pipeline.wait_for('l');
SELECT state FROM pipeline.status WHERE pipeline = 'l';
SELECT pipeline.discard('l', array_agg(id), 'a test') FROM pipeline.dead_letters WHERE pipeline = 'l' AND state = 'open';
SELECT * FROM letters;
-- Paused, it is stopped; started, it has an empty window.
SELECT pipeline.stop('l');
CALL commit_each(3001, 3550, true);
SELECT pipeline.start('l');
SELECT reached('paused');
SELECT pipeline.stop('l');
SELECT reached('stopped');
SELECT count(*) AS failed FROM pipeline.dead_letters WHERE pipeline = 'l' AND state = 'open';
SELECT pipeline.start('l');
SELECT pipeline.wait_for('l');
SELECT count(*) AS failed FROM pipeline.dead_letters WHERE pipeline = 'l' AND state = 'open';

-- Changed and dropped while it is paused.
INSERT INTO src SELECT i, true FROM generate_series(4001, 4600) i;
INSERT INTO src VALUES (4601);
SELECT reached('paused');
SELECT pipeline.drop_stage('l', 'f');
SELECT pipeline.wait_for('l');
SELECT id, bad FROM dst WHERE id > 4000;
SELECT pipeline.drop_pipeline('l');
DROP SCHEMA limits CASCADE;
