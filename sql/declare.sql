-- Definitions: what the calls declare, change and drop, that all of it is
-- transactional, and that it holds from its own commit on.
CREATE SCHEMA declare;
SET search_path = declare;
CREATE TABLE src (id int PRIMARY KEY, a text);
CREATE TABLE dst (id int PRIMARY KEY, a text);
CREATE TABLE dst2 (id int PRIMARY KEY, a text, at timestamptz DEFAULT now());
CREATE FUNCTION valid(s src) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT s.a IS NOT NULL $$;
CREATE FUNCTION upper_a(s src) RETURNS SETOF src LANGUAGE sql IMMUTABLE AS $$ SELECT s.id, upper(s.a) $$;
SELECT coalesce(max(id), 0) AS last_audit FROM pipeline.audit_log \gset

-- A definition, as it is seen.
SELECT pipeline.create_pipeline('d', 'src');
SELECT pipeline.add_stage('d', 'valid', 'validate', 'valid(src)');
SELECT pipeline.add_stage('d', 'shout', 'transform', query => 'SELECT id, a || ''!'' AS a FROM event',
	on_error => 'skip', max_attempts => 7, timeout => '1.5 s');
SELECT pipeline.add_output('d', 'dst');
SELECT pipeline.add_output('d', 'dst2', name => 'second');
SELECT pipeline, owner = current_user::regrole AS mine, source, operations, consistency, partition_by, workers, lineage,
	search_path, running, version, created_at <= now() AS created
FROM pipeline.pipelines WHERE pipeline = 'd';
SELECT * FROM pipeline.stages WHERE pipeline = 'd' ORDER BY position;
SELECT * FROM pipeline.outputs WHERE pipeline = 'd' ORDER BY output;
SELECT pipeline, state, events, produced FROM pipeline.status WHERE pipeline = 'd';

-- Start, stop, restart; what is committed while it is stopped is not lost.
SELECT pipeline.start('d');
SELECT pipeline.start('d');
INSERT INTO src VALUES (1, 'one');
SELECT pipeline.wait_for('d');
SELECT pipeline.stop('d');
SELECT pipeline.stop('d');
INSERT INTO src VALUES (2, 'two');
SELECT pipeline.wait_for('d', timeout => '1 ms');
SELECT pipeline, state FROM pipeline.status WHERE pipeline = 'd';
SELECT pipeline.start('d');
SELECT pipeline.wait_for('d');
SELECT pipeline.restart('d');
INSERT INTO src VALUES (3, 'three'), (4, NULL);
SELECT pipeline.wait_for('d');
SELECT * FROM dst ORDER BY id;
SELECT id, a FROM dst2 ORDER BY id;
SELECT pipeline, running, version FROM pipeline.pipelines WHERE pipeline = 'd';
SELECT pipeline, state, events, produced, filtered, rejected, failed FROM pipeline.status WHERE pipeline = 'd';

-- Stages and outputs change while it runs, each time with a new version.
SELECT pipeline.drop_stage('d', 'shout');
INSERT INTO src VALUES (5, 'five');
SELECT pipeline.wait_for('d');
SELECT pipeline.drop_output('d', 'second');
INSERT INTO src VALUES (6, 'six');
SELECT pipeline.wait_for('d');
SELECT pipeline.add_stage('d', 'upper', 'transform', 'upper_a(src)');
INSERT INTO src VALUES (7, 'seven');
SELECT pipeline.wait_for('d');
SELECT * FROM dst WHERE id >= 5 ORDER BY id;
SELECT id, a FROM dst2 WHERE id >= 5 ORDER BY id;
SELECT output, source_key, outcome, version FROM pipeline.lineage
WHERE pipeline = 'd' AND (source_key->>'id')::int >= 5 ORDER BY (source_key->>'id')::int, output;
SELECT pipeline.drop_output('d', 'dst');	-- its last one
SELECT * FROM pipeline.ledger('d');

-- An output begins at its own place among the commits: with what its own
-- transaction inserts after the call.
SELECT pipeline.stop('d');
INSERT INTO src VALUES (10, 'before');
BEGIN;
INSERT INTO src VALUES (11, 'same transaction, before');
SELECT pipeline.add_output('d', 'dst2', name => 'later');
INSERT INTO src VALUES (12, 'same transaction, after');
COMMIT;
INSERT INTO src VALUES (13, 'after');
BEGIN;
SELECT pipeline.add_output('d', 'dst2', name => 'never');
INSERT INTO src VALUES (14, 'rolled back');
ROLLBACK;
INSERT INTO src VALUES (15, 'after the rollback');
SELECT pipeline.start('d');
SELECT pipeline.wait_for('d');
SELECT id FROM dst WHERE id >= 10 ORDER BY id;
SELECT id FROM dst2 WHERE id >= 10 ORDER BY id;
SELECT * FROM pipeline.ledger('d');

-- Rolled back means never happened.
BEGIN;
SELECT pipeline.drop_pipeline('d');
SELECT count(*) FROM pipeline.pipelines WHERE pipeline = 'd';
SELECT pipeline.create_pipeline('d', 'dst');
SELECT source FROM pipeline.pipelines WHERE pipeline = 'd';
ROLLBACK;
BEGIN;
SELECT pipeline.stop('d');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT pipeline.drop_stage('d', 'upper');
SELECT pipeline.drop_output('d', 'later');
ROLLBACK TO s;
INSERT INTO src VALUES (20, 'twenty');
COMMIT;
SELECT pipeline.wait_for('d');
SELECT id, a FROM dst2 WHERE id >= 20;
SELECT stage FROM pipeline.stages WHERE pipeline = 'd' ORDER BY position;

-- An error takes back the call and leaves the transaction's savepoints.
BEGIN;
SAVEPOINT s;
SELECT pipeline.add_stage('d', 'upper', 'transform', 'upper_a(src)');
ROLLBACK TO s;
SELECT version FROM pipeline.pipelines WHERE pipeline = 'd';
COMMIT;
SELECT pipeline.drop_pipeline('d');
SELECT count(*) FROM pipeline.pipelines WHERE pipeline = 'd';
SELECT count(*) FROM pipeline.lineage WHERE pipeline = 'd';
INSERT INTO src VALUES (21, 'nobody reads it');

-- Table, pipeline and start in one transaction: the rows that it inserts after
-- the start are events.
BEGIN;
CREATE TABLE young (id int PRIMARY KEY);
CREATE TABLE young_out (id int PRIMARY KEY);
INSERT INTO young VALUES (1);
SELECT pipeline.create_pipeline('young', 'young');
SELECT pipeline.add_output('young', 'young_out');
SELECT pipeline.start('young');
INSERT INTO young VALUES (2);
SAVEPOINT s;
INSERT INTO young VALUES (3);
ROLLBACK TO s;
INSERT INTO young VALUES (4);
COMMIT;
INSERT INTO young VALUES (5);
SELECT pipeline.wait_for('young');
SELECT * FROM young_out ORDER BY id;

-- Started, stopped and started again in one transaction; dropped and declared
-- again under the same name.
BEGIN;
SELECT pipeline.stop('young');
SELECT pipeline.start('young');
COMMIT;
INSERT INTO young VALUES (6);
SELECT pipeline.wait_for('young');
BEGIN;
SELECT pipeline.drop_pipeline('young');
SELECT pipeline.create_pipeline('young', 'young');
SELECT pipeline.add_output('young', 'young_out');
INSERT INTO young VALUES (7);
SELECT pipeline.start('young');
COMMIT;
INSERT INTO young VALUES (8);
SELECT pipeline.wait_for('young');
SELECT * FROM young_out ORDER BY id;
SELECT * FROM pipeline.ledger('young');
SELECT pipeline.drop_pipeline('young');

-- Declared in a subtransaction that goes; nothing of it is left.
BEGIN;
SAVEPOINT s;
SELECT pipeline.create_pipeline('gone', 'src'), pipeline.add_output('gone', 'dst'), pipeline.start('gone');
ROLLBACK TO s;
INSERT INTO src VALUES (30, 'no event');
COMMIT;
SELECT pipeline.stop('gone');
SELECT id FROM dst WHERE id = 30;

-- Names: quoted, with spaces, longer than an identifier, in any script.
CREATE SCHEMA "Odd ""Schema""";
CREATE TABLE "Odd ""Schema"""."Src Täble" ("Id" int PRIMARY KEY, "a b" text, "select" int, _ord int);
CREATE TABLE "Odd ""Schema"""."Dst Täble" (LIKE "Odd ""Schema"""."Src Täble" INCLUDING ALL);
CREATE FUNCTION "Odd ""Schema"""."Check It"(r "Odd ""Schema"""."Src Täble") RETURNS text
LANGUAGE sql STABLE AS $$ SELECT CASE WHEN r."select" < 0 THEN 'it''s negative' END $$;
SELECT pipeline.create_pipeline('Pipe "line" ''π''' || repeat('x', 70), '"Odd ""Schema"""."Src Täble"');
SELECT pipeline.add_stage(p, 'a ''stage'' "ß"', 'validate', '"Odd ""Schema"""."Check It"("Odd ""Schema"""."Src Täble")'),
	pipeline.add_stage(p, 'query', 'transform', query => 'SELECT "Id", "a b", "select", _ord FROM "event"'),
	pipeline.add_output(p, '"Odd ""Schema"""."Dst Täble"'),
	pipeline.start(p)
FROM (SELECT 'Pipe "line" ''π''' || repeat('x', 70) AS p) p;
INSERT INTO "Odd ""Schema"""."Src Täble" VALUES (1, 'ü', 1, 1), (2, 'ü', -1, 2);
SELECT pipeline.wait_for('Pipe "line" ''π''' || repeat('x', 70));
SELECT * FROM "Odd ""Schema"""."Dst Täble";
SELECT pipeline, output, source_key, outcome, reason, output_key FROM pipeline.lineage
WHERE pipeline LIKE 'Pipe %' ORDER BY source_key;
SELECT stage, event FROM pipeline.dead_letters WHERE pipeline LIKE 'Pipe %';
SELECT handler FROM pipeline.stages WHERE pipeline LIKE 'Pipe %' AND handler IS NOT NULL;
SELECT pipeline.drop_stage(p, 'a ''stage'' "ß"'), pipeline.stop(p), pipeline.drop_output(p, 'Dst Täble'), pipeline.drop_pipeline(p)
FROM (SELECT 'Pipe "line" ''π''' || repeat('x', 70) AS p) p;

-- What was done is in the audit log.
SELECT pipeline, action, who = current_user AS mine, detail FROM pipeline.audit_log
WHERE id > :last_audit AND pipeline IN ('d', 'young') ORDER BY id;
SET client_min_messages = warning;
DROP SCHEMA declare, "Odd ""Schema""" CASCADE;
