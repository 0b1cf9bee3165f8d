-- What stops a pipeline, what does not, and how it goes on.
CREATE SCHEMA repair;
SET search_path = repair;
CREATE TABLE src (id int PRIMARY KEY, n int);
CREATE TABLE dst (id int PRIMARY KEY, n int);
CREATE FUNCTION half(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.n < 0 THEN
		EXECUTE 'SELECT * FROM no_such_table';
	END IF;
	RETURN NEXT s;
END $$;
CREATE FUNCTION letters() RETURNS TABLE (id text, stage text, sqlstate text, reason text) LANGUAGE sql AS
$$ SELECT event->>'id', d.stage, d.sqlstate, d.reason FROM pipeline.dead_letters d
   WHERE pipeline = 'repair' AND state = 'open' ORDER BY d.commit_lsn, d.seq $$;
SET client_min_messages = warning;
SELECT pipeline.create_pipeline('repair', 'src');
SELECT pipeline.add_stage('repair', 'half', 'transform', 'half(src)');
SELECT pipeline.add_output('repair', 'dst');
SELECT pipeline.start('repair');

-- Errors that look like a broken environment, but others go through: they are
-- the events' own, also at the head of a batch.
INSERT INTO src VALUES (1, -1), (2, -1), (3, 3), (4, 4);
SELECT pipeline.wait_for('repair');
SELECT * FROM dst ORDER BY id;
SELECT * FROM letters();

-- A dropped function stops the pipeline and blames no event; it goes on by
-- itself when the function is there again.
BEGIN;
DROP FUNCTION half(src);
INSERT INTO src VALUES (5, 5), (6, 6);
COMMIT;
SELECT pipeline.wait_for('repair', timeout => '0.3 s');
SELECT state, last_error FROM pipeline.status WHERE pipeline = 'repair';
CREATE FUNCTION half(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, s.n * 10 $$;
SELECT pipeline.wait_for('repair');
SELECT * FROM dst WHERE id > 4 ORDER BY id;
SELECT count(*) FROM letters();
SELECT state FROM pipeline.status WHERE pipeline = 'repair';

-- A missing column of the target, likewise.
ALTER TABLE dst RENAME COLUMN n TO m;
INSERT INTO src VALUES (7, 7);
SELECT pipeline.wait_for('repair', timeout => '0.3 s');
SELECT state, last_error FROM pipeline.status WHERE pipeline = 'repair';
ALTER TABLE dst RENAME COLUMN m TO n;
SELECT pipeline.wait_for('repair');
SELECT * FROM dst WHERE id = 7;

-- skip_to_now gives up what is left to be done.
SELECT pipeline.stop('repair');
INSERT INTO src VALUES (8, 8);
SELECT pipeline.start('repair', skip_to_now => true);
INSERT INTO src VALUES (9, 9);
SELECT pipeline.wait_for('repair');
SELECT * FROM dst WHERE id > 7 ORDER BY id;
SELECT events, produced, failed, balanced FROM pipeline.ledger('repair');
-- also while it runs, after a batch that could not be done
ALTER TABLE dst RENAME COLUMN n TO m;
INSERT INTO src VALUES (10, 10);
SELECT pipeline.wait_for('repair', timeout => '0.3 s');
BEGIN;
ALTER TABLE dst RENAME COLUMN m TO n;
SELECT pipeline.start('repair', skip_to_now => true);
INSERT INTO src VALUES (11, 11);
COMMIT;
SELECT pipeline.wait_for('repair');
SELECT * FROM dst WHERE id > 9 ORDER BY id;
SELECT action, detail ? 'skipped_from' AS skipped FROM pipeline.audit_log
WHERE pipeline = 'repair' AND action = 'start' ORDER BY id DESC LIMIT 2;

SELECT pipeline.drop_pipeline('repair');
DROP SCHEMA repair CASCADE;
