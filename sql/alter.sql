-- What was declared of pipelines and stages can be changed, from the next batch on:
-- settings of their own, reactions to errors, search_path, names; and what is refused.
\set VERBOSITY default
SET search_path = pg_catalog;
CREATE SCHEMA alter;
SET search_path = alter;
CREATE TABLE src (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE dst (id int PRIMARY KEY, v int, mem text);
CREATE TABLE words (word text);
INSERT INTO words VALUES ('first');

SELECT pipeline.create_pipeline('alter', source => 'src');
-- Settings are checked when they are given.
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '[]');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '1');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_size": 3}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": 0}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": "many"}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": "1MB"}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": true}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": [1]}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": null}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"batch_bytes": "1kB"}');
SELECT pipeline.add_stage('alter', 's', 'validate', query => 'SELECT true FROM event', settings => '{"work_mem": "1 parsec"}');
\set VERBOSITY terse
SELECT pipeline.add_stage('alter', 'make', 'transform',
	query => $$SELECT id, 100 / v AS v, current_setting('work_mem') AS mem FROM event$$,
	settings => '{"batch_rows": 3, "batch_bytes": "1MB", "work_mem": 1234}');
-- Those of a later stage are kept, and have no effect as long as it begins no segment.
SELECT pipeline.add_stage('alter', 'last', 'validate', query => 'SELECT true FROM event', settings => '{"batch_rows": 1}');
SELECT pipeline.add_output('alter', 'dst');
SELECT stage, settings FROM pipeline.stages WHERE pipeline = 'alter' ORDER BY position;
SELECT pipeline.start('alter');

-- A transaction of more rows than a batch is taken in several.
CREATE VIEW sizes AS
SELECT array_agg(events ORDER BY batch_id) AS sizes FROM (
	SELECT b.batch_id, b.events FROM pipeline.batches b WHERE b.last_lsn = (SELECT max(last_lsn) FROM pipeline.batches)
) b;
INSERT INTO src SELECT n, n FROM generate_series(1, 8) n;
SELECT pipeline.wait_for('alter');
SELECT * FROM sizes;
SELECT DISTINCT mem FROM dst;

-- Changed, it holds for the next batch; the stage says more than its pipeline.
SELECT pipeline.alter_pipeline('alter', settings => '{"batch_rows": 5, "work_mem": "2MB"}');
INSERT INTO src SELECT n, n FROM generate_series(11, 18) n;
SELECT pipeline.wait_for('alter');
SELECT * FROM sizes;
SELECT pipeline.alter_stage('alter', 'make', settings => '{"batch_rows": 4}');
INSERT INTO src SELECT n, n FROM generate_series(21, 28) n;
SELECT pipeline.wait_for('alter');
SELECT * FROM sizes;
SELECT DISTINCT mem FROM dst WHERE id > 20;
SELECT pipeline.alter_stage('alter', 'make', settings => '{}');
INSERT INTO src SELECT n, n FROM generate_series(31, 38) n;
SELECT pipeline.wait_for('alter');
SELECT * FROM sizes;
SELECT settings FROM pipeline.pipelines WHERE pipeline = 'alter';
SELECT stage, settings FROM pipeline.stages WHERE pipeline = 'alter' ORDER BY position;
SELECT pipeline.alter_pipeline('alter', settings => '{}');
INSERT INTO src SELECT n, n FROM generate_series(41, 48) n;
SELECT pipeline.wait_for('alter');
SELECT * FROM sizes;
SELECT count(DISTINCT mem) AS one, bool_and(mem = current_setting('work_mem')) AS ours FROM dst WHERE id > 40;

SELECT pipeline.alter_pipeline('alter', settings => '{"batch_bytes": "64kB"}');
INSERT INTO src SELECT n, n FROM generate_series(1001, 3000) n;
SELECT pipeline.wait_for('alter');
SELECT cardinality(sizes) > 1 AS several FROM sizes;
SELECT pipeline.alter_pipeline('alter', settings => '{}');
INSERT INTO src SELECT n, n FROM generate_series(3001, 5000) n;
SELECT pipeline.wait_for('alter');
SELECT * FROM sizes;
DELETE FROM dst WHERE id > 1000;

-- What user code sets for its session does not outlive the batch.
CREATE FUNCTION leak(s src) RETURNS SETOF dst LANGUAGE plpgsql VOLATILE AS $$
DECLARE now text := current_setting('work_mem');
BEGIN
	PERFORM set_config('work_mem', '99MB', false);
	RETURN QUERY SELECT s.id, s.v, now;
END $$;
SELECT pipeline.deploy_stage('alter', 'make', 'leak(src)');
SELECT pipeline.alter_stage('alter', 'make', settings => '{"work_mem": "3MB"}');
INSERT INTO src VALUES (51, 1);
SELECT pipeline.wait_for('alter');
INSERT INTO src VALUES (52, 1);
SELECT pipeline.wait_for('alter');
SELECT id, mem FROM dst WHERE id > 50 ORDER BY id;

-- The reaction to an error, attempts, timeout.
SELECT pipeline.deploy_stage('alter', 'make', query => 'SELECT id, 100 / v AS v FROM event');
INSERT INTO src VALUES (61, 0);
SELECT pipeline.wait_for('alter');
SELECT pipeline.alter_stage('alter', 'make', on_error => 'skip', max_attempts => 2, timeout => '5 s');
INSERT INTO src VALUES (62, 0);
SELECT pipeline.wait_for('alter');
SELECT stage, event->>'id' AS id FROM pipeline.dead_letters WHERE pipeline = 'alter';
SELECT on_error, max_attempts, timeout, settings FROM pipeline.stages WHERE pipeline = 'alter' AND stage = 'make';
SELECT pipeline.alter_stage('alter', 'make', timeout => '0');
SELECT on_error, max_attempts, timeout, settings FROM pipeline.stages WHERE pipeline = 'alter' AND stage = 'make';
SELECT pipeline.alter_stage('alter', 'make', on_error => 'panic');
SELECT pipeline.alter_stage('alter', 'make', max_attempts => 0);
SELECT pipeline.alter_stage('alter', 'make', timeout => '-1 s');
SELECT pipeline.alter_stage('alter', 'make', timeout => '25 days');
SELECT pipeline.alter_stage('alter', 'make', settings => '{"nothing": 1}');
SELECT pipeline.alter_stage('alter', 'make');
SELECT pipeline.alter_stage('alter', 'none', on_error => 'skip');
SELECT pipeline.alter_stage('none', 'make', on_error => 'skip');

-- Another name: dead letters and versions go along.
SELECT pipeline.alter_stage('alter', 'make', new_name => 'last');
SELECT pipeline.alter_stage('alter', 'make', new_name => '');
SELECT pipeline.alter_stage('alter', 'make', new_name => 'divide');
SELECT position, stage FROM pipeline.stages WHERE pipeline = 'alter' ORDER BY position;
SELECT DISTINCT stage FROM pipeline.dead_letters WHERE pipeline = 'alter';
SELECT stage, count(*) FROM pipeline.stage_versions WHERE pipeline = 'alter' GROUP BY stage ORDER BY stage;
UPDATE src SET v = 1 WHERE id = 61;
SELECT pipeline.deploy_stage('alter', 'divide', query => 'SELECT id, 1 AS v FROM event');
SELECT pipeline.redrive('alter', stage => 'divide');
SELECT pipeline.wait_for('alter');
SELECT * FROM dst WHERE id > 60;

-- The pipeline: lineage, search_path, name.
SELECT pipeline.alter_pipeline('alter', lineage => 'none', on_schema_change => 'pause');
INSERT INTO src VALUES (71, 1);
SELECT pipeline.wait_for('alter');
SELECT count(*) FROM pipeline.lineage WHERE pipeline = 'alter' AND source_key->>'id' = '71';
SELECT lineage, on_schema_change FROM pipeline.pipelines WHERE pipeline = 'alter';
SELECT pipeline.alter_pipeline('alter', lineage => 'row', on_schema_change => 'adapt');
SELECT pipeline.deploy_stage('alter', 'divide', query => 'SELECT id, v, word AS mem FROM event, words');
CREATE SCHEMA "Alter, 2";
CREATE TABLE "Alter, 2".words (word text);
INSERT INTO "Alter, 2".words VALUES ('second');
INSERT INTO src VALUES (81, 1);
SELECT pipeline.wait_for('alter');
SELECT pipeline.alter_pipeline('alter', search_path => '"Alter, 2", ALTER');
INSERT INTO src VALUES (82, 1);
SELECT pipeline.wait_for('alter');
SELECT id, mem FROM dst WHERE id > 80 ORDER BY id;
SELECT search_path FROM pipeline.pipelines WHERE pipeline = 'alter';
SELECT pipeline.alter_pipeline('alter', search_path => 'pg_catalog');	-- no table "words"
SELECT pipeline.alter_pipeline('alter', search_path => 'none_such');
SELECT pipeline.alter_pipeline('alter', search_path => 'pg_temp');
SELECT pipeline.alter_pipeline('alter', search_path => 'a b,,');
SELECT pipeline.alter_pipeline('alter', lineage => 'column');
SELECT pipeline.alter_pipeline('alter', on_schema_change => 'dead_letter');
SELECT pipeline.alter_pipeline('alter', settings => '{"work_mem": 1}');
SELECT pipeline.alter_pipeline('alter');
SELECT pipeline.create_pipeline('alter 2', source => 'src');
SELECT pipeline.alter_pipeline('alter', new_name => 'alter 2');
SELECT pipeline.alter_pipeline('alter', new_name => 'alter 3');
INSERT INTO src VALUES (91, 1);
SELECT pipeline.wait_for('alter 3');
SELECT pipeline.wait_for('alter');
SELECT pipeline, state FROM pipeline.status WHERE pipeline LIKE 'alter%' ORDER BY 1;
SELECT count(*) FROM dst WHERE id = 91;
SELECT pipeline, action, detail FROM pipeline.audit_log
WHERE action LIKE 'alter%' AND pipeline LIKE 'alter%' ORDER BY id;

CREATE ROLE alter_user;
GRANT USAGE ON SCHEMA pipeline TO alter_user;
GRANT pipeline_operator TO alter_user;
SET ROLE alter_user;
SELECT pipeline.alter_pipeline('alter 3', lineage => 'none');
SELECT pipeline.alter_stage('alter 3', 'divide', on_error => 'skip');
RESET ROLE;

SELECT pipeline.drop_pipeline('alter 3'), pipeline.drop_pipeline('alter 2');
SET client_min_messages = warning;
DROP OWNED BY alter_user;
DROP ROLE alter_user;
DROP SCHEMA alter, "Alter, 2" CASCADE;
