-- What a stage does with an event whose error is its own: dead letter, skip, halt.
CREATE SCHEMA on_error;
SET search_path = on_error;
CREATE TABLE src (id int PRIMARY KEY, bad text);
CREATE TABLE dst (id int PRIMARY KEY, bad text);
CREATE FUNCTION fail_if(s src, stage text) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.bad = stage THEN
		RAISE 'event % is bad', s.id USING DETAIL = 'It says so.';
	END IF;
	RETURN NEXT s;
END $$;
CREATE FUNCTION a(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT (f).* FROM fail_if(s, 'a') f $$;
CREATE FUNCTION b(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT (f).* FROM fail_if(s, 'b') f $$;
CREATE FUNCTION c(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT (f).* FROM fail_if(s, 'c') f $$;
-- Wait for a state of the pipeline, a minute at most.
CREATE FUNCTION reached(wanted text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
BEGIN
	LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = 'o') = wanted THEN RETURN true; END IF;
		IF clock_timestamp() > until THEN RETURN false; END IF;
		PERFORM pipeline.wait_for('o', timeout => '10 ms');
	END LOOP;
END $$;
-- The id of an event is nowhere the same: say only that one is there.
CREATE VIEW last_error AS
SELECT state, regexp_replace(last_error, '\([0-9A-F]+/[0-9A-F]+, \d+\)', '(id)') AS last_error
FROM pipeline.status WHERE pipeline = 'o';
CREATE VIEW letters AS SELECT event->>'id' AS event, stage, kind, reason, attempts, state
FROM pipeline.dead_letters WHERE pipeline = 'o';
SET client_min_messages = warning;
SELECT pipeline.create_pipeline('o', 'src'),
	pipeline.add_stage('o', 'valid', 'validate', query => 'SELECT bad IS DISTINCT FROM ''invalid'' FROM event', on_error => 'skip'),
	pipeline.add_stage('o', 'a', 'transform', 'a(src)'),
	pipeline.add_stage('o', 'b', 'transform', 'b(src)', on_error => 'skip'),
	pipeline.add_stage('o', 'c', 'transform', 'c(src)', on_error => 'halt'),
	pipeline.add_output('o', 'dst'),
	pipeline.start('o');

-- A dead letter of one stage, none of the other; a rejection is one always.
-- Both failed, and both are in the lineage; the ledger is balanced.
INSERT INTO src VALUES (1, NULL), (2, 'a'), (3, 'b'), (4, 'invalid'), (5, NULL);
SELECT pipeline.wait_for('o');
SELECT id FROM dst ORDER BY id;
SELECT * FROM letters ORDER BY event;
SELECT source_key->>'id' AS event, outcome, reason FROM pipeline.lineage WHERE pipeline = 'o' ORDER BY 1;
SELECT * FROM pipeline.ledger('o');
SELECT stage, errors FROM pipeline.stage_stats WHERE pipeline = 'o' ORDER BY position;

-- Halt: what was committed before is done, also what comes to grief elsewhere,
-- and nothing of the transaction of the event or after it.
BEGIN;
INSERT INTO src VALUES (10, NULL), (11, 'b');
COMMIT;
BEGIN;
INSERT INTO src VALUES (12);
INSERT INTO src VALUES (13, 'c');
COMMIT;
INSERT INTO src VALUES (14);
SELECT reached('failed');
SELECT id FROM dst WHERE id >= 10 ORDER BY id;
SELECT * FROM last_error;
SELECT * FROM pipeline.ledger('o');

-- It answers all the same: dead letters are run again ...
SELECT pipeline.redrive('o');
CREATE OR REPLACE FUNCTION reached_letters(wanted bigint) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		IF (SELECT count(*) FROM letters WHERE attempts = 2) = wanted THEN RETURN true; END IF;
		PERFORM pipeline.wait_for('o', timeout => '10 ms');
	END LOOP;
	RETURN false;
END $$;
SELECT reached_letters(2);
SELECT * FROM letters ORDER BY event;
SELECT reached('failed');
-- ... and it is stopped and started, and stands where it stood.
SELECT pipeline.stop('o');
SELECT reached('stopped');
SELECT pipeline.start('o');
SELECT reached('failed');
SELECT id FROM dst WHERE id >= 10 ORDER BY id;

-- It goes on when the handler is mended, in order and with nothing missing.
CREATE OR REPLACE FUNCTION c(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
SELECT pipeline.wait_for('o');
SELECT reached('running');
SELECT id FROM dst WHERE id >= 10 ORDER BY id;
SELECT count(*) FROM letters;

-- A dead letter that is run again in a stage that would halt or skip it stays one.
CREATE OR REPLACE FUNCTION a(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
CREATE OR REPLACE FUNCTION b(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT (f).* FROM fail_if(s, 'a') f $$;
SELECT pipeline.redrive('o');
SELECT pipeline.wait_for('o');
SELECT * FROM letters WHERE event = '2';
CREATE OR REPLACE FUNCTION b(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
CREATE OR REPLACE FUNCTION c(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT (f).* FROM fail_if(s, 'a') f $$;
SELECT pipeline.redrive('o', stage => 'b');
SELECT pipeline.wait_for('o');
SELECT * FROM letters WHERE event = '2';

-- Halted at the first event there is, and a position given up.
INSERT INTO src VALUES (20, 'a'), (21, NULL);
SELECT reached('failed');
SELECT pipeline.start('o', skip_to_now => true);
INSERT INTO src VALUES (22);
SELECT pipeline.wait_for('o');
SELECT id FROM dst WHERE id >= 20 ORDER BY id;
SELECT * FROM pipeline.ledger('o');

-- One transaction that is taken in two chunks, and halts in the second: nothing
-- of it is done, but what was committed before.
INSERT INTO src VALUES (99, NULL);
INSERT INTO src SELECT i, CASE WHEN i = 10900 THEN 'a' END FROM generate_series(101, 11000) i;
INSERT INTO src VALUES (12000, NULL);
SELECT reached('failed');
SELECT count(*), max(id) FROM dst WHERE id > 22;
CREATE OR REPLACE FUNCTION c(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
SELECT pipeline.wait_for('o');
SELECT count(*), max(id) FROM dst WHERE id > 22;
SELECT * FROM pipeline.ledger('o');

SELECT pipeline.drop_pipeline('o');
DROP SCHEMA on_error CASCADE;
