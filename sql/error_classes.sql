-- The table of error classes in docs/reference.md, row by row: a handler raises
-- an example of each class, for the only event there is, and for one beside others
-- that go through.
CREATE SCHEMA error_classes;
SET search_path = error_classes;
CREATE TABLE example (sqlstate text PRIMARY KEY, what text, alone text, beside text);
INSERT INTO example VALUES
	('03000', 'SQL statement not yet complete'),
	('08006', 'connection failure'),
	('09000', 'triggered action exception'),
	('0A000', 'feature not supported'),
	('0B000', 'invalid transaction initiation'),
	('0F000', 'locator exception'),
	('0L000', 'invalid grantor'),
	('0P000', 'invalid role specification'),
	('0Z000', 'diagnostics exception'),
	('20000', 'case not found'),
	('21000', 'cardinality violation'),
	('22012', 'division by zero'),
	('23514', 'check violation'),
	('24000', 'invalid cursor state'),
	('25006', 'read only transaction'),
	('26000', 'invalid SQL statement name'),
	('27000', 'triggered data change violation'),
	('28000', 'invalid authorization'),
	('2B000', 'dependent privileges exist'),
	('2D000', 'invalid transaction termination'),
	('2F000', 'SQL routine exception'),
	('34000', 'invalid cursor name'),
	('38000', 'external routine exception'),
	('39000', 'external routine invocation'),
	('3B000', 'savepoint exception'),
	('3D000', 'invalid catalog name'),
	('3F000', 'invalid schema name'),
	('40001', 'serialization failure'),
	('40P01', 'deadlock detected'),
	('42501', 'insufficient privilege'),
	('42703', 'undefined column'),
	('42P01', 'undefined table'),
	('42883', 'undefined function'),
	('44000', 'with check option violation'),
	('53100', 'disk full'),
	('53200', 'out of memory'),
	('53300', 'too many connections'),
	('54001', 'statement too complex'),
	('55000', 'object not in prerequisite state'),
	('55006', 'object in use'),
	('55P03', 'lock not available'),
	('57014', 'query canceled'),
	('57P01', 'admin shutdown'),
	('58030', 'IO error'),
	('F0001', 'lock file exists'),
	('HV000', 'foreign data wrapper error'),
	('P0001', 'raise exception'),
	('U0042', 'a class of one''s own'),
	('XX000', 'internal error');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, sqlstate text);
CREATE TABLE dst (id int PRIMARY KEY, sqlstate text);
CREATE TABLE trouble (exists bool NOT NULL);
INSERT INTO trouble VALUES (true);
CREATE FUNCTION handler(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.sqlstate IS NOT NULL AND (SELECT t.exists FROM trouble t) THEN
		RAISE 'an example' USING ERRCODE = s.sqlstate;
	END IF;
	RETURN NEXT s;
END $$;

-- What becomes of an event, as soon as it can be seen; then all is well again.
CREATE PROCEDURE try(code text, neighbours bool, INOUT verdict text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO src (sqlstate) SELECT nullif(s, '') FROM unnest(CASE WHEN neighbours THEN ARRAY['', code, ''] ELSE ARRAY[code] END) s;
	COMMIT;
	LOOP
		IF pipeline.wait_for('c', timeout => '20 ms') THEN
			SELECT 'dead letter' INTO verdict FROM pipeline.dead_letters
			WHERE pipeline = 'c' AND kind = 'failed' AND stage = 'handler' AND sqlstate = code
				AND event->>'id' = (SELECT max(id)::text FROM src s WHERE s.sqlstate = code);
			EXIT;
		END IF;
		SELECT state INTO verdict FROM pipeline.status WHERE pipeline = 'c' AND state IN ('retrying', 'failed', 'paused');
		EXIT WHEN verdict IS NOT NULL;
	END LOOP;
	UPDATE trouble t SET exists = false;
	COMMIT;
	IF verdict = 'failed' THEN
		PERFORM pipeline.restart('c');
		COMMIT;
	END IF;
	IF NOT pipeline.wait_for('c') THEN
		verdict := verdict || ', for ever';
	END IF;
	UPDATE trouble t SET exists = true;
	COMMIT;
END $$;
CREATE PROCEDURE try_all() LANGUAGE plpgsql AS $$
DECLARE
	code text;
	single text;
	one_of_many text;
BEGIN
	FOR code IN SELECT e.sqlstate FROM example e ORDER BY 1 LOOP
		single := NULL;
		one_of_many := NULL;
		CALL try(code, false, single);
		CALL try(code, true, one_of_many);
		UPDATE example e SET alone = single, beside = one_of_many WHERE e.sqlstate = code;
	END LOOP;
END $$;
SET client_min_messages = warning;
-- so many attempts that no class of the moment comes to be failed meanwhile
SELECT pipeline.create_pipeline('c', 'src'),
	pipeline.add_stage('c', 'handler', 'transform', 'handler(src)', max_attempts => 1000),
	pipeline.add_output('c', 'dst'),
	pipeline.start('c');
CALL try_all();
TABLE example ORDER BY sqlstate COLLATE "C";

-- Nothing was lost: what is not a dead letter is there.
SELECT count(*) AS missing FROM src s
WHERE NOT EXISTS (SELECT FROM dst d WHERE d.id = s.id)
	AND NOT EXISTS (SELECT FROM pipeline.dead_letters l WHERE l.pipeline = 'c' AND l.event->>'id' = s.id::text);
SELECT balanced FROM pipeline.ledger('c');

-- The moment is over after max_attempts: failed, and no dead letter still.
SELECT pipeline.stop('c');
SELECT pipeline.drop_stage('c', 'handler'), pipeline.add_stage('c', 'handler', 'transform', 'handler(src)', max_attempts => 2);
SELECT pipeline.start('c');
SELECT count(*) AS letters FROM pipeline.dead_letters WHERE pipeline = 'c' \gset
INSERT INTO src (sqlstate) VALUES ('40P01');
CREATE FUNCTION reached(wanted text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
BEGIN
	LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = 'c') = wanted THEN RETURN true; END IF;
		IF clock_timestamp() > until THEN RETURN false; END IF;
		PERFORM pipeline.wait_for('c', timeout => '10 ms');
	END LOOP;
END $$;
SELECT reached('failed');
SELECT retries >= 3 AS retried FROM pipeline.workers WHERE pipeline = 'c';
SELECT count(*) - :letters AS letters FROM pipeline.dead_letters WHERE pipeline = 'c';
UPDATE trouble SET exists = false;
SELECT pipeline.restart('c');
SELECT pipeline.wait_for('c');
SELECT state FROM pipeline.status WHERE pipeline = 'c';

SELECT pipeline.drop_pipeline('c');
DROP SCHEMA error_classes CASCADE;
