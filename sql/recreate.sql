-- What a pipeline is made of goes away and comes back: it stands meanwhile, blames
-- no event, and goes on by itself.
CREATE SCHEMA recreate;
SET client_min_messages = warning;
CREATE ROLE regress_pipeline_maker LOGIN;
CREATE ROLE regress_pipeline_stranger LOGIN;
CREATE ROLE regress_pipeline_heir LOGIN IN ROLE regress_pipeline_maker;
GRANT USAGE ON SCHEMA pipeline TO regress_pipeline_maker;
GRANT ALL ON SCHEMA recreate TO regress_pipeline_maker, regress_pipeline_stranger;
SET search_path = recreate;

-- Wait until the pipeline stands because of an error, a minute at most; say so, and
-- what of the events since then was done all the same.
CREATE FUNCTION stands(wanted text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
	found record;
BEGIN
	LOOP
		SELECT state, last_error, events INTO found FROM pipeline.status WHERE pipeline = 'r';
		EXIT WHEN found.state = 'failed' AND found.last_error ~ wanted OR clock_timestamp() > until;
		PERFORM pipeline.wait_for('r', timeout => '10 ms');
	END LOOP;
	RETURN found.state || ': ' || found.last_error ||
		CASE WHEN found.events <> (SELECT count(*) FROM kept) THEN ' (events are counted)' ELSE '' END ||
		CASE WHEN EXISTS (SELECT FROM pipeline.dead_letters WHERE pipeline = 'r') THEN ' (dead letters)' ELSE '' END;
END $$;

SET ROLE regress_pipeline_maker;
CREATE TABLE src (id int PRIMARY KEY, v int);
CREATE TABLE kept (id int PRIMARY KEY, v int);
CREATE TABLE dst (id int PRIMARY KEY, v int);
CREATE TABLE lookup (v int);
INSERT INTO lookup VALUES (1);
CREATE FUNCTION handler(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, lookup.v FROM lookup; END $$;
SELECT pipeline.create_pipeline('r', 'src'),
	pipeline.add_stage('r', 'stage', 'transform', 'handler(src)'),
	pipeline.add_output('r', 'kept'),
	pipeline.add_output('r', 'dst'),
	pipeline.start('r');
RESET ROLE;
CREATE VIEW result AS
SELECT (SELECT string_agg(concat_ws('/', id, v), ' ' ORDER BY id) FROM kept) AS kept, state, l.events, l.produced, l.failed, l.balanced
FROM pipeline.status s, pipeline.ledger('r') l WHERE s.pipeline = 'r' AND l.output = 'dst';
INSERT INTO src VALUES (1), (2);
SELECT pipeline.wait_for('r');
SELECT * FROM result;

-- the target, by the same role
SET ROLE regress_pipeline_maker;
DROP TABLE dst;
INSERT INTO src VALUES (3), (4);
RESET ROLE;
SELECT stands('');
SET ROLE regress_pipeline_maker;
CREATE TABLE dst (id int PRIMARY KEY, v int);
RESET ROLE;
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;
SELECT * FROM result;
SELECT output, target FROM pipeline.outputs WHERE pipeline = 'r' ORDER BY 1;

-- in one transaction, with another column and a trigger
BEGIN;
SET LOCAL ROLE regress_pipeline_maker;
DROP TABLE dst;
CREATE TABLE dst (id int PRIMARY KEY, v int, w int DEFAULT 7);
INSERT INTO src VALUES (5);
COMMIT;
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;

-- by somebody who has nothing to do with the owner: its triggers would run as the owner
DROP TABLE dst;
SET ROLE regress_pipeline_stranger;
CREATE TABLE dst (id int PRIMARY KEY, v int);
GRANT ALL ON dst TO regress_pipeline_maker;
INSERT INTO dst VALUES (0, 0);
RESET ROLE;
INSERT INTO src VALUES (6);
SELECT stands('');
SELECT * FROM dst;
-- it goes on by itself when the table becomes the owner's
ALTER TABLE dst OWNER TO regress_pipeline_maker;
SELECT pipeline.wait_for('r');
SELECT * FROM dst;
DROP TABLE dst;
SET ROLE regress_pipeline_stranger;
CREATE TABLE dst (id int PRIMARY KEY, v int);
RESET ROLE;
INSERT INTO src VALUES (60);
SELECT stands('another role');
-- neither does a start adopt it
SELECT pipeline.stop('r');
SELECT pipeline.start('r');
ALTER TABLE dst OWNER TO regress_pipeline_heir;
SELECT pipeline.start('r');
GRANT INSERT, SELECT ON dst TO regress_pipeline_maker;
SELECT pipeline.start('r');
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;
SELECT * FROM result;

-- by a member of the owner's role
DROP TABLE dst;
SET ROLE regress_pipeline_heir;
CREATE TABLE dst (id int PRIMARY KEY, v int);
RESET ROLE;
INSERT INTO src VALUES (7);
SELECT stands('');
GRANT INSERT, SELECT ON dst TO regress_pipeline_maker;
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;

-- given to somebody else: it is the same table, and not a matter of the name
ALTER TABLE dst OWNER TO regress_pipeline_stranger;
GRANT INSERT, SELECT ON dst TO regress_pipeline_maker;
INSERT INTO src VALUES (70);
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;
ALTER TABLE dst OWNER TO regress_pipeline_maker;

-- a name is only what a table is found by when it is gone
ALTER TABLE dst RENAME TO renamed;
SET ROLE regress_pipeline_maker;
CREATE TABLE dst (id int PRIMARY KEY, v int);
RESET ROLE;
INSERT INTO src VALUES (8);
SELECT pipeline.wait_for('r');
SELECT count(*) FROM dst;
SELECT * FROM renamed ORDER BY id;
DROP TABLE renamed;
INSERT INTO src VALUES (9);
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;
SELECT * FROM result;

-- a view has the name
ALTER TABLE dst RENAME TO away;
DROP TABLE away;
SET ROLE regress_pipeline_maker;
CREATE VIEW dst AS SELECT * FROM kept;
RESET ROLE;
INSERT INTO src VALUES (10);
SELECT stands('');
DROP VIEW dst;
SET ROLE regress_pipeline_maker;
CREATE TABLE dst (id int PRIMARY KEY, v int);
RESET ROLE;
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;

-- a table that a handler reads
DROP TABLE lookup;
INSERT INTO src VALUES (11), (12);
SELECT stands('');
SET ROLE regress_pipeline_maker;
CREATE TABLE lookup AS SELECT 2 AS v;
RESET ROLE;
SELECT pipeline.wait_for('r');
SELECT * FROM result;

-- the handler
DROP FUNCTION handler(src);
INSERT INTO src VALUES (13), (14);
SELECT stands('');
SET ROLE regress_pipeline_maker;
CREATE FUNCTION handler(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, 3 $$;
RESET ROLE;
SELECT pipeline.wait_for('r');
SELECT * FROM result;

-- a grant, of the target and of the schema
REVOKE INSERT ON dst FROM regress_pipeline_maker;
INSERT INTO src VALUES (15);
SELECT stands('');
GRANT INSERT ON dst TO regress_pipeline_maker;
SELECT pipeline.wait_for('r');
REVOKE ALL ON SCHEMA recreate FROM regress_pipeline_maker;
INSERT INTO src VALUES (16);
SELECT stands('');
GRANT ALL ON SCHEMA recreate TO regress_pipeline_maker;
SELECT pipeline.wait_for('r');
SELECT * FROM result;

-- a column of the target
ALTER TABLE dst DROP COLUMN v;
INSERT INTO src VALUES (17);
SELECT stands('');
ALTER TABLE dst ADD COLUMN v int;
SELECT pipeline.wait_for('r');
SELECT * FROM result;
SELECT * FROM dst WHERE id > 15 ORDER BY id;

-- the first attempt with a new target is taken back, because of one event
CREATE VIEW adopted AS
SELECT o.target = to_regclass('recreate.dst') AS noted,
	(SELECT count(*) FROM pipeline.audit_log WHERE pipeline = 'r' AND action = 'adopt_target') AS audited
FROM pipeline.outputs o WHERE pipeline = 'r' AND output = 'dst';
SELECT noted FROM adopted;
SELECT audited AS before FROM adopted \gset
SELECT who, detail FROM pipeline.audit_log WHERE pipeline = 'r' AND action = 'adopt_target' ORDER BY id LIMIT 1;
SET ROLE regress_pipeline_maker;
BEGIN;
DROP TABLE dst;
CREATE TABLE dst (id int PRIMARY KEY, v int);
INSERT INTO dst VALUES (18, 0);
INSERT INTO src VALUES (18), (19);
COMMIT;
RESET ROLE;
SELECT pipeline.wait_for('r');
SELECT * FROM dst ORDER BY id;
SELECT noted, audited - :before AS audited FROM adopted;

SELECT pipeline.drop_pipeline('r');
DROP SCHEMA recreate CASCADE;
REVOKE USAGE ON SCHEMA pipeline FROM regress_pipeline_maker;
DROP ROLE regress_pipeline_maker, regress_pipeline_stranger, regress_pipeline_heir;
