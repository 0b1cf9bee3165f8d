-- Versions of stages: what can be deployed and what is refused, going back, what
-- lineage and stage_versions say of it, functions that are replaced, and stages that
-- are dropped.
\set VERBOSITY terse
SET search_path = pg_catalog;
CREATE SCHEMA deploy;
SET search_path = deploy;
CREATE TABLE src (id int PRIMARY KEY, v int NOT NULL);
CREATE TYPE row_out AS (id int, v int, by text);
CREATE TYPE row_other AS (id int, w int, by text);
CREATE TABLE dst (id int PRIMARY KEY, v int, by text);
CREATE FUNCTION one(s src) RETURNS SETOF row_out LANGUAGE sql STABLE AS $$ SELECT s.id, s.v, 'one' $$;
CREATE FUNCTION two(s src) RETURNS SETOF row_out LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, s.v * 2, 'two'; END $$;
CREATE FUNCTION other(s src) RETURNS SETOF row_other LANGUAGE sql STABLE AS $$ SELECT s.id, s.v, 'other' $$;
CREATE FUNCTION valid(s src) RETURNS bool LANGUAGE sql STABLE AS $$ SELECT s.v >= 0 $$;
CREATE FUNCTION after(r row_out) RETURNS SETOF dst LANGUAGE sql STABLE AS $$ SELECT r.id, r.v, r.by $$;

-- What ran: by the output's row, and by lineage and stage_versions.
CREATE VIEW ran AS
SELECT d.id, d.v, d.by, s.version, s.handler IS NOT NULL AS is_handler, s.state
FROM dst d
	JOIN pipeline.lineage l ON l.pipeline = 'deploy' AND l.output = 'dst' AND (l.output_key->>'id')::int = d.id
	LEFT JOIN pipeline.stage_versions s ON s.pipeline = l.pipeline AND s.stage = 'make'
		AND l.version >= s.since AND (l.version < s.until) IS NOT FALSE;

SELECT pipeline.create_pipeline('deploy', source => 'src');
SELECT pipeline.add_stage('deploy', 'make', 'transform', 'one(src)');
SELECT pipeline.add_output('deploy', 'dst');
SELECT stage, version, state, handler, query, definition, since, until, deployed_by = current_user AS by_us,
	first_lsn IS NULL AND last_lsn IS NULL AS unused
FROM pipeline.stage_versions WHERE pipeline = 'deploy';

-- One of the three must be given.
SELECT pipeline.deploy_stage('deploy', 'make');
SELECT pipeline.deploy_stage('deploy', 'make', 'two(src)', query => 'SELECT 1');
SELECT pipeline.deploy_stage('deploy', 'make', 'two(src)', version => 1);
SELECT pipeline.deploy_stage('deploy', 'make', query => 'SELECT 1', version => 1);
SELECT pipeline.deploy_stage(NULL, 'make', 'two(src)');
SELECT pipeline.deploy_stage('deploy', NULL, 'two(src)');
SELECT pipeline.deploy_stage('none', 'make', 'two(src)');
\set VERBOSITY default
SELECT pipeline.deploy_stage('deploy', 'none', 'two(src)');
SELECT pipeline.deploy_stage('deploy', 'make', version => 3);

-- What does not fit is refused, and changes nothing.
SELECT pipeline.deploy_stage('deploy', 'make', 'other(src)');
SELECT pipeline.deploy_stage('deploy', 'make', 'valid(src)');
SELECT pipeline.deploy_stage('deploy', 'make', 'after(row_out)');
SELECT pipeline.deploy_stage('deploy', 'make', query => 'SELECT id, v AS w FROM event');
SELECT pipeline.deploy_stage('deploy', 'make', query => 'DELETE FROM src');
SET search_path = public;
SELECT pipeline.deploy_stage('deploy', 'make', query => 'SELECT id, v FROM event');
SET search_path = deploy;
SELECT pipeline.add_stage('deploy', 'after', 'transform', 'after(row_out)');
SELECT pipeline.deploy_stage('deploy', 'make', 'other(src)');
\set VERBOSITY terse
SELECT version, handler, query FROM pipeline.stages WHERE pipeline = 'deploy' AND stage = 'make';
SELECT version FROM pipeline.pipelines WHERE pipeline = 'deploy';

-- A deployment before the start is one, too; events of each version.
SELECT pipeline.start('deploy');
INSERT INTO src VALUES (1, 1);
SELECT pipeline.wait_for('deploy');
SELECT pipeline.deploy_stage('deploy', 'make', 'two(src)');
INSERT INTO src VALUES (2, 1);
SELECT pipeline.wait_for('deploy');
SELECT pipeline.deploy_stage('deploy', 'make', query => $$SELECT id, v * 3 AS v, 'three' AS by FROM event$$);
INSERT INTO src VALUES (3, 1);
SELECT pipeline.wait_for('deploy');
SELECT pipeline.deploy_stage('deploy', 'make', version => 2);
SELECT pipeline.deploy_stage('deploy', 'make', version => 2);
INSERT INTO src VALUES (4, 1);
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran ORDER BY id;
SELECT version, handler, query FROM pipeline.stages WHERE pipeline = 'deploy' AND stage = 'make';
SELECT version, state, handler, query, since, until FROM pipeline.stage_versions
WHERE pipeline = 'deploy' AND stage = 'make' ORDER BY since;

-- From which to which event each was in force.
SELECT v.version, v.state,
	v.first_lsn = (SELECT min(commit_lsn) FROM pipeline.lineage l WHERE l.pipeline = 'deploy' AND l.version >= v.since AND (l.version < v.until) IS NOT FALSE) AS first,
	v.last_lsn >= (SELECT max(commit_lsn) FROM pipeline.lineage l WHERE l.pipeline = 'deploy' AND l.version >= v.since AND (l.version < v.until) IS NOT FALSE) AS last,
	v.last_lsn < lead(v.first_lsn) OVER (ORDER BY v.since) AS before_next
FROM pipeline.stage_versions v WHERE v.pipeline = 'deploy' AND v.stage = 'make' ORDER BY v.since;

-- Rolled back, it never was.
BEGIN;
SELECT pipeline.deploy_stage('deploy', 'make', version => 1);
ROLLBACK;
INSERT INTO src VALUES (5, 1);
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran WHERE id = 5;

-- A function that is replaced is another version, from the next batch on.
CREATE OR REPLACE FUNCTION two(s src) RETURNS SETOF row_out LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, s.v * 22, 'two, again'; END $$;
INSERT INTO src VALUES (6, 1);
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran WHERE id > 4 ORDER BY id;
SELECT version, state, deployed_by IS NULL AS noticed, definition LIKE '%two, again%' AS again
FROM pipeline.stage_versions WHERE pipeline = 'deploy' AND stage = 'make' AND handler LIKE '%two%' ORDER BY since;
-- What it was before cannot come back by itself.
\set VERBOSITY default
SELECT pipeline.deploy_stage('deploy', 'make', version => 2);
\set VERBOSITY terse
-- But as soon as it is what it was.
CREATE OR REPLACE FUNCTION two(s src) RETURNS SETOF row_out LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, s.v * 2, 'two'; END $$;
SELECT pipeline.deploy_stage('deploy', 'make', version => 2);
INSERT INTO src VALUES (7, 1);
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran WHERE id = 7;
-- The version in force, replaced since its last batch.
CREATE OR REPLACE FUNCTION two(s src) RETURNS SETOF row_out LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, s.v * 2, 'two!'; END $$;
SELECT pipeline.deploy_stage('deploy', 'make', version => 2);
-- Gone altogether.
SELECT pipeline.deploy_stage('deploy', 'make', version => 1);
DROP FUNCTION two;
\set VERBOSITY default
SELECT pipeline.deploy_stage('deploy', 'make', version => 2);
\set VERBOSITY terse

-- Settings and attributes of a function are part of it; so is what it calls, if its
-- body is stored with dependencies.
CREATE FUNCTION word() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'word' $$;
CREATE FUNCTION four(s src) RETURNS SETOF row_out LANGUAGE sql STABLE
BEGIN ATOMIC SELECT s.id, s.v, word(); END;
SELECT pipeline.deploy_stage('deploy', 'make', 'four(src)');
INSERT INTO src VALUES (8, 1);
SELECT pipeline.wait_for('deploy');
CREATE OR REPLACE FUNCTION word() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'another' $$;
INSERT INTO src VALUES (9, 1);
SELECT pipeline.wait_for('deploy');
ALTER FUNCTION four VOLATILE;
INSERT INTO src VALUES (10, 1);
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran WHERE id > 7 ORDER BY id;

-- A broken stage is repaired for the events that stand before it.
CREATE FUNCTION broken(s src) RETURNS SETOF row_out LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, s.v, c.by FROM not_yet c; END $$;
SELECT pipeline.deploy_stage('deploy', 'make', 'broken(src)');
INSERT INTO src VALUES (11, 1), (12, 1);
SELECT pipeline.wait_for('deploy', timeout => '100 ms');
SELECT pipeline.deploy_stage('deploy', 'make', query => $$SELECT id, v, 'repaired' AS by FROM event$$);
INSERT INTO src VALUES (13, 1);
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran WHERE id > 10 ORDER BY id;
SELECT count(*) FROM pipeline.dead_letters WHERE pipeline = 'deploy';

-- Dead letters say under which definition they failed, and are run under today's.
SELECT pipeline.deploy_stage('deploy', 'make', query => $$SELECT id, v / 0 AS v, 'zero' AS by FROM event$$);
INSERT INTO src VALUES (14, 1);
SELECT pipeline.wait_for('deploy');
SELECT v.version, d.version = v.since AS exactly FROM pipeline.dead_letters d, pipeline.stage_versions v
WHERE d.pipeline = 'deploy' AND v.pipeline = 'deploy' AND v.stage = 'make' AND v.state = 'live';
SELECT pipeline.deploy_stage('deploy', 'make', version => 1);
SELECT pipeline.redrive('deploy');
SELECT pipeline.wait_for('deploy');
SELECT * FROM ran WHERE id = 14;

-- Rates of a stage: what came since a sample, which is taken anew after a minute.
CREATE VIEW rates AS
SELECT stage, position, measured, events,
	events_per_second * extract(epoch FROM measured) AS measured_events,
	abs(rows_per_second * extract(epoch FROM measured) - rows) < 1 AND
	abs(errors_per_second * extract(epoch FROM measured) - errors) < 1 AND
	abs(time_per_second * extract(epoch FROM measured) - extract(epoch FROM time)) < 1 AS others
FROM pipeline.stage_stats WHERE pipeline = 'deploy';
SELECT stage, abs(measured_events - events) < 1 AS events, others, measured BETWEEN '0' AND '1 min' AS measured
FROM rates ORDER BY position;
UPDATE _pipeline.stage_counts SET sample = '{4,0,0,0}',
	former_at = former_at - interval '1 day', sampled_at = clock_timestamp() - interval '100 s'
WHERE pipeline_id = (SELECT pipeline_id FROM _pipeline.pipelines WHERE name = 'deploy');
SELECT stage, abs(measured_events - events) < 1 AS events, others, measured > '1 day' AS measured
FROM rates ORDER BY position;
INSERT INTO src VALUES (15, 1);
SELECT pipeline.wait_for('deploy');
SELECT stage, abs(measured_events - (events - 4)) < 1 AS events, others, measured BETWEEN '100 s' AND '130 s' AS measured
FROM rates ORDER BY position;

-- A stage that is dropped leaves its versions behind.
SELECT pipeline.drop_stage('deploy', 'after');
SELECT stage, version, state, until IS NOT NULL AS over FROM pipeline.stage_versions
WHERE pipeline = 'deploy' AND stage = 'after';
SELECT count(*) AS events, count(*) FILTER (WHERE version IS NULL) AS unknown FROM ran;
SELECT action, detail->>'stage' AS stage, detail->>'version' AS version
FROM pipeline.audit_log WHERE pipeline = 'deploy' AND action IN ('deploy_stage', 'replace_function') ORDER BY id;

-- Only who may alter a pipeline deploys.
CREATE ROLE deploy_user;
GRANT USAGE ON SCHEMA pipeline TO deploy_user;
GRANT pipeline_operator TO deploy_user;
SET ROLE deploy_user;
SELECT pipeline.deploy_stage('deploy', 'make', version => 1);
RESET ROLE;
REVOKE pipeline_operator FROM deploy_user;
SET ROLE deploy_user;
SELECT count(*) FROM pipeline.stage_versions WHERE pipeline = 'deploy';
RESET ROLE;

SELECT pipeline.stop('deploy');
SELECT pipeline.deploy_stage('deploy', 'make', 'four(src)');
SELECT pipeline.start('deploy');
INSERT INTO src VALUES (20, 1);
SELECT pipeline.wait_for('deploy');
SELECT id, by FROM ran WHERE id = 20;
SELECT pipeline.drop_pipeline('deploy');
SELECT count(*) FROM _pipeline.stage_versions v WHERE v.pipeline_id NOT IN (SELECT pipeline_id FROM _pipeline.pipelines);
SET client_min_messages = warning;
DROP OWNED BY deploy_user;
DROP ROLE deploy_user;
DROP SCHEMA deploy CASCADE;
