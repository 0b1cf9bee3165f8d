-- health() names what is wrong and the command that mends it: each problem is
-- made, shown, mended by running its hint, and gone.
CREATE SCHEMA health;
SET search_path = health;
SET client_min_messages = warning;
CREATE ROLE regress_health_owner LOGIN;
CREATE ROLE regress_health_reader LOGIN IN ROLE pipeline_reader;
CREATE ROLE regress_health_nobody LOGIN;
GRANT USAGE ON SCHEMA pipeline TO regress_health_owner, regress_health_nobody;
GRANT USAGE ON SCHEMA health TO regress_health_owner;
CREATE TABLE src (id int PRIMARY KEY, a text);
CREATE TABLE dst (id int PRIMARY KEY, a text);
CREATE TABLE other (id int PRIMARY KEY, a text);
CREATE TABLE look (id int);
GRANT SELECT ON src, look TO regress_health_owner;
GRANT SELECT, INSERT ON dst, other TO regress_health_owner;
CREATE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	PERFORM FROM health.look;
	IF s.a = 'bad' THEN RAISE 'event is bad'; END IF;
	RETURN NEXT s;
END $$;
-- without times, and once the pipeline stands in a state
CREATE PROCEDURE reached(name text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = name) = wanted THEN RETURN; END IF;
		PERFORM pipeline.wait_for(name, timeout => '10 ms');
		COMMIT;
	END LOOP;
	RAISE 'pipeline "%" is not %', name, wanted;
END $$;
CREATE VIEW problems AS
SELECT severity, pipeline, what, since <= now() AS since, hint FROM pipeline.health();
\set show '\\x on \\\\ TABLE problems; \\x off'
\set mend '\\pset tuples_only on \\\\ SELECT hint FROM pipeline.health() \\gexec \\pset tuples_only off'

-- All is well: without pipelines, with one that is stopped, with one that runs.
TABLE problems;
SET ROLE regress_health_owner;
SELECT pipeline.create_pipeline('h', 'src'),
	pipeline.add_stage('h', 'f', 'transform', 'f(src)'),
	pipeline.add_output('h', 'dst'), pipeline.add_output('h', 'other');
RESET ROLE;
TABLE problems;
SELECT pipeline.start('h');
INSERT INTO src VALUES (1, 'good');
SELECT pipeline.wait_for('h');
TABLE problems;

-- Missing grants: of the target, of the handler, of what the handler needs.
REVOKE INSERT ON dst FROM regress_health_owner;
INSERT INTO src VALUES (2, 'good');
CALL reached('h', 'failed');
:show
:mend
SELECT pipeline.wait_for('h');
REVOKE EXECUTE ON FUNCTION f FROM PUBLIC;
INSERT INTO src VALUES (3, 'good');
CALL reached('h', 'failed');
:show
:mend
SELECT pipeline.wait_for('h');
REVOKE SELECT ON look FROM regress_health_owner;
INSERT INTO src VALUES (4, 'good');
CALL reached('h', 'failed');
:show
:mend
SELECT pipeline.wait_for('h');
REVOKE USAGE ON SCHEMA health FROM regress_health_owner;
INSERT INTO src VALUES (5, 'good');
CALL reached('h', 'failed');
:show
:mend
SELECT pipeline.wait_for('h');
TABLE problems;

-- A missing column.
ALTER TABLE dst DROP COLUMN a;
INSERT INTO src VALUES (6, 'good');
CALL reached('h', 'failed');
:show
:mend
SELECT pipeline.wait_for('h');
TABLE problems;

-- The owner may not log in, or not connect: seen before a worker is needed.
ALTER ROLE regress_health_owner NOLOGIN;
:show
:mend
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()) \gexec
:show
:mend
SELECT format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()),
	format('REVOKE CONNECT ON DATABASE %I FROM regress_health_owner', current_database()) \gexec
INSERT INTO src VALUES (7, 'good');
SELECT pipeline.wait_for('h');
TABLE problems;

-- A target, then the handler is gone, and nothing failed yet.
DROP TABLE other;
:show
:mend
DROP FUNCTION f(src);
:show
:mend
INSERT INTO src VALUES (8, 'good');
SELECT pipeline.wait_for('h');
TABLE problems;
-- They fail: still one row.
CREATE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.a = 'bad' THEN RAISE 'event is bad'; END IF;
	RETURN NEXT s;
END $$;
SELECT pipeline.add_stage('h', 'f', 'transform', 'f(src)');
BEGIN;
DROP FUNCTION f(src);
INSERT INTO src VALUES (9, 'good');
COMMIT;
CALL reached('h', 'failed');
:show
:mend
SELECT pipeline.wait_for('h');
CREATE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.a = 'bad' THEN RAISE 'event is bad'; END IF;
	RETURN NEXT s;
END $$;
SELECT pipeline.add_stage('h', 'f', 'transform', 'f(src)', on_error => 'halt');
INSERT INTO src VALUES (10, 'bad');
CALL reached('h', 'failed');
SELECT severity, pipeline, regexp_replace(what, '[0-9A-F]+/[0-9A-F]+', 'LSN') AS what, hint FROM problems;
SELECT pipeline.drop_stage('h', 'f');
SELECT pipeline.wait_for('h');
TABLE problems;

-- Dead letters: soon too many, too many, and to be run again by nobody.
CREATE OR REPLACE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.a = 'bad' THEN RAISE 'event is bad'; END IF;
	RETURN NEXT s;
END $$;
SELECT pipeline.add_stage('h', 'f', 'transform', 'f(src)');
ALTER SYSTEM SET pipeline.dead_letter_limit = 5;
SELECT pg_reload_conf();
INSERT INTO src SELECT i, CASE WHEN i > 25 THEN 'bad' ELSE 'good' END FROM generate_series(21, 30) i;
SELECT pipeline.wait_for('h');
:show
INSERT INTO src VALUES (31, 'bad');
SELECT pipeline.wait_for('h');
INSERT INTO src VALUES (32, 'bad');
CALL reached('h', 'paused');
:show
CREATE OR REPLACE FUNCTION f(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, s.a $$;
:mend
SELECT pipeline.wait_for('h');
TABLE problems;
CREATE OR REPLACE FUNCTION f(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF s.a = 'bad' THEN RAISE 'event is bad'; END IF;
	RETURN NEXT s;
END $$;
INSERT INTO src VALUES (33, 'bad');
SELECT pipeline.wait_for('h');
SELECT pipeline.stop('h');
SELECT pipeline.redrive('h');
:show
:mend
SELECT pipeline.wait_for('h');
TABLE problems;

-- The breaker, which closes by itself.
ALTER SYSTEM SET pipeline.breaker_window = 10;
ALTER SYSTEM RESET pipeline.dead_letter_limit;
SELECT pg_reload_conf();
SELECT pipeline.restart('h');
INSERT INTO src SELECT i, 'bad' FROM generate_series(41, 50) i;
SELECT pipeline.wait_for('h');
INSERT INTO src VALUES (51, 'bad');
CALL reached('h', 'paused');
:show
CREATE OR REPLACE FUNCTION f(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, s.a $$;
SELECT pipeline.wait_for('h');
TABLE problems;
ALTER SYSTEM RESET pipeline.breaker_window;
SELECT pg_reload_conf();

-- The source is gone.
SELECT pipeline.create_pipeline('no source', 'look');
SELECT pipeline.add_output('no source', 'dst');
SELECT pipeline.start('no source');
DROP TABLE look;
:show
:mend
TABLE problems;

-- Names and hints of handlers can hold anything: what is shown beside a command
-- stays a comment.
CREATE FUNCTION evil(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN RAISE 'no' USING ERRCODE = '42501', HINT = E'*/ CREATE TABLE health.evil1 (); /*\n\nCREATE TABLE health.evil2 (); --'; END $$;
SELECT pipeline.create_pipeline(E'*/ CREATE TABLE health.evil3 ();\nCREATE TABLE health.evil4 ();', 'src') \g (format=unaligned tuples_only=on)
SELECT pipeline.add_stage(pipeline, 'evil', 'transform', 'evil(src)'), pipeline.add_output(pipeline, 'dst'), pipeline.start(pipeline)
FROM pipeline.pipelines WHERE pipeline LIKE '*/%' \g (format=unaligned tuples_only=on)
INSERT INTO src VALUES (61, 'good');
SELECT pipeline AS evil FROM pipeline.pipelines WHERE pipeline LIKE '*/%' \gset
CALL reached(:'evil', 'failed');
:show
:mend
SELECT pipeline.discard('h', '{}', 'none');
SELECT relname FROM pg_class WHERE relname LIKE 'evil%';

-- Whoever may see the pipeline sees its problems.
CALL reached(:'evil', 'failed');
ALTER ROLE regress_health_owner NOLOGIN;
SET ROLE regress_health_reader;
SELECT count(*) FROM pipeline.health();
SET ROLE regress_health_owner;
SELECT count(*) FROM pipeline.health();
SET ROLE regress_health_nobody;
SELECT count(*) FROM pipeline.health();
SELECT * FROM _pipeline.problems;
RESET ROLE;
ALTER ROLE regress_health_owner LOGIN;
SELECT pipeline.drop_pipeline(:'evil') \g (format=unaligned tuples_only=on)

-- The last output: created again, or the end of it.
DROP TABLE dst;
:show
CREATE TABLE dst (id int PRIMARY KEY, a text);
GRANT SELECT, INSERT ON dst TO regress_health_owner;
INSERT INTO src VALUES (62, 'good');
SELECT pipeline.wait_for('h');
TABLE problems;
DROP TABLE dst;
INSERT INTO src VALUES (63, 'good');
CALL reached('h', 'failed');
:show
:mend
TABLE problems;

DROP SCHEMA health CASCADE;
DROP OWNED BY regress_health_owner, regress_health_nobody;
DROP ROLE regress_health_owner, regress_health_reader, regress_health_nobody;
