-- Changes of a source have a place among its rows: they are noted there, and the
-- pipeline goes on or stops there.
CREATE SCHEMA schema_events;
SET search_path = schema_events;
SET client_min_messages = warning;
CREATE ROLE regress_pipeline_ddl;
CREATE TYPE kind AS ENUM ('a', 'b');
CREATE TABLE src (id int PRIMARY KEY, a int, k kind, c text);
CREATE TABLE dst (id int, a int);
CREATE TABLE careful (id int, a int);
CREATE VIEW seen AS
SELECT pipeline, source, change, column_name, old_type, new_type, action, state,
	commit_lsn IS NOT NULL AND committed_at IS NOT NULL AND xid IS NOT NULL AS placed
FROM pipeline.schema_events ORDER BY id;
CREATE VIEW news AS
SELECT change, column_name, old_type, new_type FROM pipeline.schema_events WHERE pipeline = 'adapts' ORDER BY id;
CREATE PROCEDURE failed(name text) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
BEGIN
	WHILE clock_timestamp() < until AND (SELECT s.state FROM pipeline.status s WHERE s.pipeline = name) <> 'failed'
	LOOP
		PERFORM pipeline.wait_for(name, timeout => '10 ms');
	END LOOP;
END $$;
CREATE PROCEDURE paused(name text) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
BEGIN
	WHILE clock_timestamp() < until AND NOT EXISTS (
		SELECT FROM pipeline.status s JOIN pipeline.schema_events e USING (pipeline)
		WHERE s.pipeline = name AND s.state = 'paused' AND e.state = 'waiting')
	LOOP
		PERFORM pipeline.wait_for(name, timeout => '10 ms');
	END LOOP;
END $$;
SELECT pipeline.create_pipeline('x', 'src', on_schema_change => 'dead_letter');
SELECT pipeline.create_pipeline('x', 'src', on_schema_change => 'ignore');
SELECT pipeline.create_pipeline('x', 'src', on_schema_change => NULL);
SELECT pipeline.create_pipeline('adapts', 'src'), pipeline.create_pipeline('pauses', 'src', on_schema_change => 'pause');
SELECT pipeline, on_schema_change FROM pipeline.pipelines ORDER BY 1;
SELECT pipeline.add_stage(p, 't', 'transform', query => 'SELECT id, a FROM event') FROM unnest('{adapts,pauses}'::text[]) p;
SELECT pipeline.add_output('adapts', 'dst'), pipeline.add_output('pauses', 'careful');
-- none before the birth
ALTER TABLE src ADD COLUMN early int;
SELECT pipeline.start('adapts'), pipeline.start('pauses');
TABLE seen;

-- What changes nothing that an event shows is none, neither is what is taken back, or
-- a change of another table.
ALTER TABLE src ALTER COLUMN a SET STATISTICS 10, ALTER COLUMN a SET DEFAULT 1, ADD CHECK (a > 0);
CREATE INDEX ON src (a);
BEGIN;
SAVEPOINT s;
ALTER TABLE src DROP COLUMN early;
ROLLBACK TO s;
COMMIT;
ALTER TABLE dst ADD COLUMN more int;
CREATE TEMP TABLE src (id int);
ALTER TABLE pg_temp.src ADD COLUMN a int;
DROP TABLE pg_temp.src;
TABLE seen;

-- In a transaction that changes rows, too; here what pauses stops between them.
BEGIN;
INSERT INTO src VALUES (1, 1);
ALTER TABLE src ADD COLUMN d int DEFAULT 7;
INSERT INTO src VALUES (2, 2);
COMMIT;
INSERT INTO src VALUES (3, 3);
SELECT pipeline.wait_for('adapts');
CALL paused('pauses');
SELECT id FROM dst ORDER BY id;
SELECT id FROM careful ORDER BY id;
TABLE seen;
SELECT pipeline, state, last_error FROM pipeline.status ORDER BY 1;
SELECT severity, pipeline, what, hint FROM pipeline.health();

-- Going on: not before it is committed, and not while a column is missing that is used.
SET client_min_messages = notice;
SELECT pipeline.accept_schema('adapts');
BEGIN;
SELECT pipeline.accept_schema('pauses');
ROLLBACK;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SET client_min_messages = warning;
SELECT pipeline.wait_for('pauses');
SELECT id FROM careful ORDER BY id;
ALTER TABLE src RENAME COLUMN a TO aa;
INSERT INTO src VALUES (4, 4);
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SELECT state FROM pipeline.status WHERE pipeline = 'pauses';
-- as the hint says
BEGIN;
SELECT pipeline.stop('pauses'), pipeline.drop_stage('pauses', 't'),
	pipeline.add_stage('pauses', 't', 'transform', query => 'SELECT id, aa AS a FROM event'),
	pipeline.accept_schema('pauses'), pipeline.start('pauses');
ROLLBACK;
ALTER TABLE src RENAME COLUMN aa TO a;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SELECT pipeline.wait_for('adapts'), pipeline.wait_for('pauses');
SELECT id FROM careful ORDER BY id;
SELECT pipeline, change, column_name, old_type, new_type, state, placed FROM seen;
SELECT who = current_user AS who, action, pipeline, jsonb_array_length(translate(detail->>'ids', '{}', '[]')::jsonb) AS accepted
FROM pipeline.audit_log WHERE action = 'accept_schema' AND pipeline = 'pauses' ORDER BY id;

-- All kinds, as one sees them; also those that come by a way of their own.
ALTER TABLE src DROP COLUMN d, ADD COLUMN e numeric(5, 2), ALTER COLUMN a TYPE bigint, ALTER COLUMN c TYPE varchar(7);
ALTER VIEW src RENAME COLUMN e TO ee;
DROP TYPE kind CASCADE;
ALTER TABLE src DROP CONSTRAINT src_pkey;
ALTER TABLE src ADD CONSTRAINT p PRIMARY KEY (id);
ALTER TABLE src REPLICA IDENTITY NOTHING;
CREATE UNIQUE INDEX u ON src (id, a);
ALTER TABLE src ALTER COLUMN a SET NOT NULL, REPLICA IDENTITY USING INDEX u;
DROP INDEX u;
ALTER TABLE src REPLICA IDENTITY FULL;
SELECT * FROM news OFFSET 3;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SELECT pipeline.wait_for('pauses');

-- By a role that knows nothing of pipelines.
GRANT ALL ON SCHEMA schema_events TO regress_pipeline_ddl;
ALTER TABLE src OWNER TO regress_pipeline_ddl;
SET ROLE regress_pipeline_ddl;
ALTER TABLE schema_events.src ADD COLUMN by_owner int;
SELECT count(*) FROM pipeline.schema_events;
RESET ROLE;
ALTER TABLE src OWNER TO CURRENT_USER;
SELECT change, column_name FROM news OFFSET 13;
GRANT USAGE ON SCHEMA pipeline TO regress_pipeline_ddl;
SET ROLE regress_pipeline_ddl;
SELECT count(*) FROM pipeline.schema_events;
SELECT pipeline.accept_schema('pauses');
RESET ROLE;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');

-- While a pipeline is stopped; and a table moves with its name.
SELECT pipeline.stop('adapts');
ALTER TABLE src DROP COLUMN by_owner;
ALTER TABLE src RENAME TO source;
INSERT INTO source VALUES (5, 5);
SELECT change, column_name, state, placed FROM seen WHERE pipeline = 'adapts' OFFSET 14;
SELECT pipeline.start('adapts');
SELECT pipeline.wait_for('adapts');
SELECT change, column_name, state, placed FROM seen WHERE pipeline = 'adapts' OFFSET 14;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SELECT pipeline.wait_for('pauses');

-- A command never fails because of pipelines; what was not told is found with the next row.
ALTER EVENT TRIGGER pipeline_schema_changed DISABLE;
ALTER TABLE source ADD COLUMN untold int;
INSERT INTO source (id, a, untold) VALUES (6, 6, 6);
SELECT pipeline.wait_for('adapts');
CALL paused('pauses');
SELECT pipeline, change, column_name, state, placed FROM seen WHERE column_name = 'untold' ORDER BY 1, 2;
SELECT state FROM pipeline.status ORDER BY pipeline;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SELECT pipeline.wait_for('pauses');
-- also if dead letters are run again in between
ALTER TABLE source ADD COLUMN later int;
INSERT INTO _pipeline.dead_letters (pipeline_id, version, code_version, kind, source, operation, event, commit_lsn, seq, xid, committed_at)
SELECT pipeline_id, 1, 1, 'failed', source, 'insert', '{"id": 60, "a": 60}', '0/1', 1, '1', now() FROM _pipeline.pipelines WHERE name = 'pauses';
SELECT pipeline.redrive('pauses');
SELECT pipeline.wait_for('pauses');
INSERT INTO source (id, a) VALUES (61, 61);
CALL paused('pauses');
SELECT id FROM careful WHERE id > 6 ORDER BY id;
SELECT pipeline.accept_schema('pauses');
SELECT pipeline.wait_for('pauses');
SELECT id FROM careful WHERE id > 6 ORDER BY id;
SELECT pipeline.wait_for('adapts');
DELETE FROM careful WHERE id > 6;
DELETE FROM dst WHERE id > 6;
ALTER EVENT TRIGGER pipeline_schema_changed ENABLE ALWAYS;
ALTER TABLE _pipeline.layouts RENAME TO hidden;
ALTER TABLE source DROP COLUMN untold;
ALTER EVENT TRIGGER pipeline_schema_changed DISABLE;
ALTER TABLE _pipeline.hidden RENAME TO layouts;
ALTER EVENT TRIGGER pipeline_schema_changed ENABLE ALWAYS;
INSERT INTO source (id, a) VALUES (7, 7);
SELECT pipeline.wait_for('adapts');
CALL paused('pauses');
SELECT pipeline, change, column_name, state, placed FROM seen WHERE column_name = 'untold' ORDER BY 1, 2;
CALL paused('pauses');
SELECT pipeline.accept_schema('pauses');
SELECT pipeline.wait_for('pauses');
SELECT (SELECT string_agg(id::text, ' ' ORDER BY id) FROM dst) AS dst, (SELECT string_agg(id::text, ' ' ORDER BY id) FROM careful) AS careful;

-- A pause ends with its pipeline, and with a birth anew.
ALTER TABLE source ADD COLUMN last int;
SELECT pipeline.start('pauses', skip_to_now => true);
INSERT INTO source (id, a) VALUES (8, 8);
SELECT pipeline.wait_for('pauses');
SELECT state FROM pipeline.status WHERE pipeline = 'pauses';
DROP TABLE source CASCADE;
SELECT pipeline.wait_for('adapts');
CALL paused('pauses');
SELECT pipeline, change, state FROM seen WHERE change = 'drop_table' ORDER BY 1;
SELECT pipeline.drop_pipeline('adapts'), pipeline.drop_pipeline('pauses');
SELECT count(*) FROM _pipeline.schema_events;
SELECT count(*) FROM _pipeline.layouts;

-- Under an output of mode upsert a pipeline stops where less of old rows is known than it
-- needs, since the output would not be what the source is.
CREATE TABLE src (id int PRIMARY KEY, a int);
CREATE TABLE mirror (id int PRIMARY KEY, a int);
CREATE TABLE by_both (id int, a int, PRIMARY KEY (id, a));
SELECT pipeline.create_pipeline('u', 'src', '{insert,update,delete}'), pipeline.add_output('u', 'mirror'), pipeline.start('u');
INSERT INTO src VALUES (1, 1), (2, 2);
ALTER TABLE src REPLICA IDENTITY FULL;
UPDATE src SET a = 10 WHERE id = 1;
ALTER TABLE src REPLICA IDENTITY DEFAULT;
DELETE FROM src WHERE id = 2;
SELECT pipeline.wait_for('u');
TABLE mirror ORDER BY id;
ALTER TABLE src REPLICA IDENTITY NOTHING;
CALL paused('u');
SELECT state, last_error FROM pipeline.status;
ALTER TABLE src REPLICA IDENTITY FULL;
SELECT pipeline.accept_schema('u');
SELECT pipeline.add_output('u', 'by_both');
INSERT INTO src VALUES (3, 3);
SELECT pipeline.wait_for('u');
ALTER TABLE src REPLICA IDENTITY DEFAULT;
CALL paused('u');
SELECT state, last_error FROM pipeline.status;
ALTER TABLE src REPLICA IDENTITY FULL;
SELECT pipeline.accept_schema('u');
DELETE FROM src;
SELECT pipeline.wait_for('u');
SELECT (SELECT count(*) FROM mirror) AS mirror, (SELECT count(*) FROM by_both) AS by_both;
SELECT change, old_type, new_type, action, state FROM seen;
SELECT pipeline.drop_pipeline('u');

-- So it does where partitions come or go with rows in them, or are emptied.
CREATE TABLE root (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE p1 PARTITION OF root FOR VALUES IN (1);
CREATE TABLE p2 (part int NOT NULL, gone int, id int NOT NULL, PRIMARY KEY (id, part));
ALTER TABLE p2 DROP COLUMN gone;
ALTER TABLE root ATTACH PARTITION p2 FOR VALUES IN (2);
CREATE TABLE sub PARTITION OF root FOR VALUES IN (3, 4) PARTITION BY LIST (part);
CREATE TABLE p3 PARTITION OF sub FOR VALUES IN (3);
CREATE TABLE image (id int, part int, PRIMARY KEY (id, part));
CREATE TABLE history (id int, part int);
SELECT pipeline.create_pipeline('u', 'root', '{insert,update,delete,truncate}'), pipeline.add_output('u', 'image'), pipeline.start('u');
SELECT pipeline.create_pipeline('a', 'root'), pipeline.add_output('a', 'history'), pipeline.start('a');
INSERT INTO root VALUES (1, 1), (2, 2), (3, 3);
-- without rows: goes on
CREATE TABLE p4 PARTITION OF sub FOR VALUES IN (4);
CREATE TABLE p5 (LIKE root INCLUDING ALL);
ALTER TABLE root ATTACH PARTITION p5 FOR VALUES IN (5);
INSERT INTO root VALUES (4, 4), (5, 5);
ALTER TABLE p1 REPLICA IDENTITY FULL;
SELECT pipeline.wait_for('u'), pipeline.wait_for('a');
SELECT state FROM pipeline.status ORDER BY pipeline;
-- with rows
ALTER TABLE root DETACH PARTITION p5;
CALL paused('u');
SELECT last_error FROM pipeline.status WHERE pipeline = 'u';
SELECT pipeline.accept_schema('u');
DROP TABLE p3;
CALL paused('u');
SELECT pipeline.accept_schema('u');
ALTER TABLE root ATTACH PARTITION p5 FOR VALUES IN (5, 6);
INSERT INTO root VALUES (6, 6);
CALL paused('u');
SELECT pipeline.accept_schema('u');
SELECT pipeline.wait_for('u');
INSERT INTO root VALUES (7, 2);
TRUNCATE p2;
INSERT INTO root VALUES (8, 2);
CALL paused('u');
SELECT last_error FROM pipeline.status WHERE pipeline = 'u';
SELECT id FROM image ORDER BY id;
SELECT pipeline.accept_schema('u');
SELECT pipeline.wait_for('u');
SELECT id FROM image ORDER BY id;
-- what was too much goes with the next truncate of all
TRUNCATE root;
INSERT INTO root VALUES (9, 1);
SELECT pipeline.wait_for('u'), pipeline.wait_for('a');
SELECT id FROM image ORDER BY id;
SELECT id FROM history ORDER BY id;
SELECT pipeline, change, old_type, new_type, action, state, placed FROM seen;
-- whose rows nobody logs
CREATE UNLOGGED TABLE p7 PARTITION OF root FOR VALUES IN (7);
CALL paused('u');
SELECT last_error FROM pipeline.status WHERE pipeline = 'u';
DROP TABLE p7;
SELECT pipeline.accept_schema('u');
CREATE TABLE plain (id int PRIMARY KEY, part int);
CREATE TABLE plain_image (LIKE plain INCLUDING ALL);
SELECT pipeline.create_pipeline('l', 'plain', '{insert,update,delete,truncate}'), pipeline.add_output('l', 'plain_image'), pipeline.start('l');
INSERT INTO plain VALUES (1, 1);
ALTER TABLE plain SET UNLOGGED;
CALL failed('l');
SELECT last_error FROM pipeline.status WHERE pipeline = 'l';
ALTER TABLE plain SET LOGGED;
INSERT INTO plain VALUES (2, 2);
SELECT pipeline.wait_for('l');
TABLE plain_image;
-- what older rows have in a new column is the same, however dates are written there
SELECT pipeline.stop('l');
INSERT INTO plain VALUES (3, 3);
SET datestyle = 'SQL, DMY';
ALTER TABLE plain ADD d date DEFAULT '01-02-2024';
RESET datestyle;
ALTER TABLE plain ALTER part TYPE bigint;
ALTER TABLE plain_image ADD d date, ALTER part TYPE bigint;
SELECT pipeline.start('l');
SELECT pipeline.wait_for('l');
SELECT id, to_char(s.d, 'YYYY-MM-DD') AS source, to_char(i.d, 'YYYY-MM-DD') AS image FROM plain s JOIN plain_image i USING (id) WHERE id = 3;
SELECT pipeline.drop_pipeline('l');
SELECT pipeline.drop_pipeline('u'), pipeline.drop_pipeline('a');
DROP SCHEMA schema_events CASCADE;
REVOKE USAGE ON SCHEMA pipeline FROM regress_pipeline_ddl;
DROP ROLE regress_pipeline_ddl;
