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

-- The owner, as in ALTER TABLE: who gives it away is a member of the new one, and that
-- has all rights that the pipeline needs.  Workers are connected as the new one.
CREATE ROLE alter_new;
CREATE TABLE who (id int, name text);
SELECT pipeline.create_pipeline('alter own', source => 'src');
SELECT pipeline.add_stage('alter own', 'who', 'transform', query => 'SELECT id, session_user::text AS name FROM event');
SELECT pipeline.add_output('alter own', 'who');
SELECT pipeline.start('alter own');
INSERT INTO src VALUES (101, 1);
SELECT pipeline.wait_for('alter own');
\set VERBOSITY default
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');
ALTER ROLE alter_new LOGIN;
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');
GRANT USAGE ON SCHEMA pipeline, alter TO alter_new;
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');
GRANT SELECT ON src TO alter_new;
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');
GRANT INSERT ON who TO alter_new;
GRANT pipeline_admin TO alter_user;
SET ROLE alter_user;
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');
RESET ROLE;
\set VERBOSITY terse
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_none');
SELECT pipeline.alter_pipeline('alter own', owner => 0::regrole);
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_new');	-- no change
INSERT INTO src VALUES (102, 1);
SELECT pipeline.wait_for('alter own');
SELECT id, name = current_user AS ours, name = 'alter_new' AS theirs FROM who ORDER BY id;
SELECT owner FROM pipeline.pipelines WHERE pipeline = 'alter own';
SET ROLE alter_user;
SELECT pipeline.alter_pipeline('alter own', owner => 'alter_user');	-- it may not log in
RESET ROLE;
-- A pipeline that stands, since its owner may not log in any more, is given to one who may.
ALTER ROLE alter_new NOLOGIN;
SELECT pipeline.stop('alter own');
INSERT INTO src VALUES (103, 1);
DO $$ BEGIN EXECUTE format('SELECT pipeline.alter_pipeline(''alter own'', owner => %L)', current_user); END $$;
SELECT pipeline.start('alter own');
SELECT pipeline.wait_for('alter own');
SELECT id, name = current_user AS ours FROM who WHERE id > 102;
SELECT action, detail - 'before' - 'owner' AS detail, detail->>'before' = current_user AS ours FROM pipeline.audit_log WHERE pipeline = 'alter own' AND action = 'alter_pipeline' ORDER BY id;
SELECT pipeline.drop_pipeline('alter own');

-- Operations: from the commit on, wherever the worker is.
CREATE TABLE ops (id int PRIMARY KEY, v int);
CREATE TABLE ops_log (op text, id int, v int);
CREATE TABLE ops_copy (id int PRIMARY KEY, v int);
CREATE FUNCTION ops_row(r ops, e pipeline.event) RETURNS SETOF ops_log LANGUAGE sql STABLE AS
'SELECT (e).operation, (r).id, (r).v';
SELECT pipeline.create_pipeline('alter ops', source => 'ops');
SELECT pipeline.add_output('alter ops', 'ops_log', transform => 'ops_row(ops, pipeline.event)');
SELECT pipeline.start('alter ops');
-- another one, so that all is in the spool
SELECT pipeline.create_pipeline('alter all', source => 'ops', operations => '{insert,update,delete,truncate}');
SELECT pipeline.add_output('alter all', 'ops_copy');
SELECT pipeline.start('alter all');
INSERT INTO ops VALUES (1, 1), (2, 1);
UPDATE ops SET v = 2;
SELECT pipeline.wait_for('alter ops');
\set VERBOSITY default
SELECT pipeline.alter_pipeline('alter ops', operations => '{}');
SELECT pipeline.alter_pipeline('alter ops', operations => '{insert,upsert}');
SELECT pipeline.alter_pipeline('alter ops', operations => '{insert,update,delete}');
\set VERBOSITY terse
ALTER TABLE ops REPLICA IDENTITY FULL;
-- while it stands, all of this is on its way
SELECT pipeline.stop('alter ops');
UPDATE ops SET v = 3 WHERE id = 1;
SELECT pipeline.alter_pipeline('alter ops', operations => '{delete,insert,update,insert}');
UPDATE ops SET v = 4 WHERE id = 1;
SELECT pipeline.alter_pipeline('alter ops', operations => '{delete,update,insert}');	-- no change
DELETE FROM ops WHERE id = 1;
INSERT INTO ops VALUES (3, 4);
BEGIN;
UPDATE ops SET v = 5 WHERE id = 2;
SELECT pipeline.alter_pipeline('alter ops', operations => '{insert}');
ROLLBACK;
UPDATE ops SET v = 5 WHERE id = 3;
SELECT pipeline.alter_pipeline('alter ops', operations => '{insert}');
UPDATE ops SET v = 6 WHERE id = 3;
DELETE FROM ops WHERE id = 3;
INSERT INTO ops VALUES (4, 6);
SELECT pipeline.alter_pipeline('alter ops', operations => '{update}');
UPDATE ops SET v = 7 WHERE id = 4;
INSERT INTO ops VALUES (5, 7);
SELECT pipeline.start('alter ops');
SELECT pipeline.wait_for('alter ops');
SELECT * FROM ops_log ORDER BY v, id, op;
SELECT operations FROM pipeline.pipelines WHERE pipeline = 'alter ops';
SELECT detail FROM pipeline.audit_log WHERE pipeline = 'alter ops' AND action = 'alter_pipeline' ORDER BY id;
-- An output of mode upsert goes on following its source.
SELECT pipeline.wait_for('alter all');
TABLE ops_copy ORDER BY id;
\set VERBOSITY default
SELECT pipeline.alter_pipeline('alter all', operations => '{insert,update,truncate}');
\set VERBOSITY terse
SELECT pipeline.drop_pipeline('alter ops'), pipeline.drop_pipeline('alter all');
-- Never started, anything goes; one more may come while it runs.
TRUNCATE ops_copy;
SELECT pipeline.create_pipeline('alter all', source => 'ops', operations => '{insert,update,delete}');
SELECT pipeline.add_output('alter all', 'ops_copy', mode => 'upsert');
SELECT pipeline.alter_pipeline('alter all', operations => '{insert}');
SELECT pipeline.start('alter all');
INSERT INTO ops VALUES (11, 1), (12, 1);
UPDATE ops SET v = 2 WHERE id > 10;
SELECT pipeline.alter_pipeline('alter all', operations => '{insert,update,delete,truncate}');
UPDATE ops SET v = 3 WHERE id = 11;
DELETE FROM ops WHERE id = 12;
SELECT pipeline.wait_for('alter all');
TABLE ops_copy ORDER BY id;
TRUNCATE ops;
SELECT pipeline.wait_for('alter all');
TABLE ops_copy;
-- Several workers take no truncate.
SELECT pipeline.alter_pipeline('alter all', consistency => 'eventual', workers => 2);
SELECT pipeline.drop_pipeline('alter all');
CREATE FOREIGN TABLE ops_stream (id int, v int) SERVER pipeline;
SELECT pipeline.create_pipeline('alter stream', source => 'ops_stream');
SELECT pipeline.alter_pipeline('alter stream', operations => '{insert,delete}');
SELECT pipeline.drop_pipeline('alter stream');

-- consistency and partition_by: before the first start, or when all is done.
CREATE TABLE shared (id int, a int, b int);
SELECT pipeline.create_pipeline('alter share', source => 'shared');
CREATE TABLE shared_out (id int, a int, b int, worker int DEFAULT pg_backend_pid());
SELECT pipeline.add_output('alter share', 'shared_out');
SELECT pipeline.alter_pipeline('alter share', consistency => 'weak');
SELECT pipeline.alter_pipeline('alter share', partition_by => '{}');
SELECT pipeline.alter_pipeline('alter share', partition_by => '{c}');
SELECT pipeline.alter_pipeline('alter share', workers => 3);
SELECT pipeline.alter_pipeline('alter share', consistency => 'causal', workers => 3);
SELECT pipeline.alter_pipeline('alter share', consistency => 'causal', partition_by => '{b}', workers => 2);
SELECT pipeline.alter_pipeline('alter share', consistency => 'causal', partition_by => '{a}', workers => 3);
SELECT consistency, partition_by, workers FROM pipeline.pipelines WHERE pipeline = 'alter share';
SELECT pipeline.start('alter share');
INSERT INTO shared SELECT n, n % 7, n % 11 FROM generate_series(1, 100) n;
SELECT pipeline.wait_for('alter share');
\set VERBOSITY default
SELECT pipeline.alter_pipeline('alter share', partition_by => '{b}');
SELECT pipeline.alter_pipeline('alter share', partition_by => '{a}', consistency => 'causal');	-- no change
SELECT pipeline.stop('alter share');
INSERT INTO shared SELECT n, n % 7, n % 11 FROM generate_series(101, 200) n;
SELECT pipeline.alter_pipeline('alter share', partition_by => '{b}');
SELECT pipeline.start('alter share');
SELECT pipeline.wait_for('alter share');
\set VERBOSITY terse
SELECT pipeline.stop('alter share');
SELECT pipeline.alter_pipeline('alter share', partition_by => '{b}');
-- All go on from one position.
SELECT count(*), count(DISTINCT (commit_lsn, seq)) AS positions FROM _pipeline.checkpoints
WHERE pipeline_id = (SELECT pipeline_id FROM _pipeline.pipelines WHERE name = 'alter share');
INSERT INTO shared SELECT n, n % 7, n % 11 FROM generate_series(201, 300) n;
SELECT pipeline.start('alter share');
SELECT pipeline.wait_for('alter share');
SELECT count(*), count(DISTINCT id) FROM shared_out;
-- Each value of a had one worker, and each value of b has one now.
SELECT count(DISTINCT worker) > 1 AS several, bool_and(x.workers = 1) AS one_each FROM shared_out,
	LATERAL (SELECT count(DISTINCT o.worker) AS workers FROM shared_out o WHERE o.a = shared_out.a AND o.id <= 100) x WHERE id <= 100;
SELECT count(DISTINCT worker) > 1 AS several, bool_and(x.workers = 1) AS one_each FROM shared_out,
	LATERAL (SELECT count(DISTINCT o.worker) AS workers FROM shared_out o WHERE o.b = shared_out.b AND o.id > 200) x WHERE id > 200;
SELECT pipeline.stop('alter share');
SELECT pipeline.alter_pipeline('alter share', consistency => 'strong');
SELECT pipeline.alter_pipeline('alter share', consistency => 'strong', workers => 1);
SELECT pipeline.start('alter share');
SELECT pipeline.alter_pipeline('alter share', workers => 1);
SELECT pipeline.wait_for('alter share');
SELECT pipeline.stop('alter share');
SELECT pipeline.alter_pipeline('alter share', consistency => 'strong');
SELECT pipeline.alter_pipeline('alter share', consistency => 'eventual', workers => 2);
SELECT consistency, partition_by, workers FROM pipeline.pipelines WHERE pipeline = 'alter share';
INSERT INTO shared SELECT n, n % 7, n % 11 FROM generate_series(301, 400) n;
SELECT pipeline.start('alter share');
SELECT pipeline.wait_for('alter share');
SELECT count(*), count(DISTINCT id) FROM shared_out;
-- What is stored of a row goes by its worker: dead letters, and what upserts keep.
SELECT pipeline.add_stage('alter share', 'div', 'transform', query => 'SELECT id / (id - 401) AS id, a, b FROM event');
INSERT INTO shared VALUES (401, 1, 1);
SELECT pipeline.wait_for('alter share');
SELECT pipeline.stop('alter share');
SELECT pipeline.alter_pipeline('alter share', partition_by => '{a}');
SELECT pipeline.discard('alter share', array_agg(id), 'test') FROM pipeline.dead_letters WHERE pipeline = 'alter share';
SELECT pipeline.start('alter share');
SELECT pipeline.wait_for('alter share');
SELECT pipeline.stop('alter share');
SELECT pipeline.alter_pipeline('alter share', partition_by => '{a}');
SELECT detail FROM pipeline.audit_log WHERE pipeline = 'alter share' AND action = 'alter_pipeline' ORDER BY id;
SELECT pipeline.drop_pipeline('alter share');
SELECT pipeline.create_pipeline('alter kept', source => 'ops', operations => '{insert,update,delete}', consistency => 'causal', partition_by => '{id}');
SELECT pipeline.add_stage('alter kept', 'same', 'transform', query => 'SELECT id, v FROM event');
SELECT pipeline.add_output('alter kept', 'ops_copy');
SELECT pipeline.start('alter kept');
INSERT INTO ops VALUES (21, 1);
SELECT pipeline.wait_for('alter kept');
SELECT pipeline.stop('alter kept');
\set VERBOSITY default
SELECT pipeline.alter_pipeline('alter kept', consistency => 'eventual');
\set VERBOSITY terse
SELECT pipeline.drop_pipeline('alter kept');

SET client_min_messages = warning;
DROP OWNED BY alter_user, alter_new;
DROP ROLE alter_user, alter_new;
DROP SCHEMA alter, "Alter, 2" CASCADE;
