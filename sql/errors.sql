-- What is refused in a server that is fit, and how: SQLSTATE, message, detail,
-- hint.  What the server itself lacks is told in test/t.
\set SHOW_CONTEXT errors
\set state '\\echo SQLSTATE :SQLSTATE'
CREATE SCHEMA errors;
SET search_path = errors;
CREATE TABLE src (id int PRIMARY KEY, a text, n numeric(10,2));
CREATE TABLE dst (id int PRIMARY KEY, a text, n numeric(10,2));
CREATE TYPE pair AS (id int, b text);
CREATE FUNCTION check_src(s src) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::text $$;
CREATE FUNCTION to_pair(s src) RETURNS SETOF pair LANGUAGE sql IMMUTABLE AS $$ SELECT s.id, s.a $$;

--
-- create_pipeline
--
SELECT pipeline.create_pipeline(NULL, 'src');
:state
SELECT pipeline.create_pipeline('', 'src');
:state
SELECT pipeline.create_pipeline(repeat('x', 1025), 'src');
:state
SELECT pipeline.create_pipeline('e', NULL);
:state
SELECT pipeline.create_pipeline('e', 'nothing');
:state
SELECT pipeline.create_pipeline('e', 'src', operations => '{insert,upsert}');
:state
SELECT pipeline.create_pipeline('e', 'src', operations => '{}');
:state
SELECT pipeline.create_pipeline('e', 'src', operations => NULL);
:state
SELECT pipeline.create_pipeline('e', 'src', operations => '{insert,NULL}');
:state
SELECT pipeline.create_pipeline('e', 'src', consistency => 'weak');
:state
SELECT pipeline.create_pipeline('e', 'src', consistency => 'causal', workers => 4);
:state
SELECT pipeline.create_pipeline('e', 'src', workers => 0);
:state
SELECT pipeline.create_pipeline('e', 'src', workers => 4);
:state
SELECT pipeline.create_pipeline('e', 'src', lineage => 'all');
:state
SELECT pipeline.create_pipeline('e', 'src', partition_by => '{id,nope}');
:state

-- sources that cannot be one
CREATE VIEW a_view AS SELECT * FROM src;
SELECT pipeline.create_pipeline('e', 'a_view');
:state
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM src;
SELECT pipeline.create_pipeline('e', 'a_matview');
:state
CREATE TEMPORARY TABLE a_temp (id int);
SELECT pipeline.create_pipeline('e', 'a_temp');
:state
CREATE UNLOGGED TABLE "An Unlogged" (id int);
SELECT pipeline.create_pipeline('e', '"An Unlogged"');
:state
CREATE UNLOGGED TABLE parted (id int) PARTITION BY RANGE (id);
SELECT pipeline.create_pipeline('e', 'parted');
:state
DROP TABLE parted;
CREATE TABLE parted (id int) PARTITION BY RANGE (id);
CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE "Parted 2" PARTITION OF parted1 FOR VALUES FROM (0) TO (10);
SELECT pipeline.create_pipeline('e', 'parted');
:state
ALTER TABLE errors."Parted 2" SET LOGGED;
CREATE FOREIGN DATA WRAPPER dummy;
CREATE SERVER dummy FOREIGN DATA WRAPPER dummy;
CREATE FOREIGN TABLE parted3 PARTITION OF parted FOR VALUES FROM (10) TO (20) SERVER dummy;
SELECT pipeline.create_pipeline('e', 'parted');
:state
DROP FOREIGN DATA WRAPPER dummy CASCADE;
CREATE SEQUENCE a_sequence;
SELECT pipeline.create_pipeline('e', 'a_sequence');
:state
SELECT pipeline.create_pipeline('e', 'src_pkey');
:state
SELECT pipeline.create_pipeline('e', 'pair');
:state
SELECT pipeline.create_pipeline('e', 'pg_class');
:state
SELECT pipeline.create_pipeline('e', '_pipeline.pipelines');
:state
SELECT pipeline.create_pipeline('e', 'pipeline.pipelines');
:state
SELECT pipeline.create_pipeline('e', 1);
:state

-- a name in use
SELECT pipeline.create_pipeline('e', 'src');
SELECT pipeline.create_pipeline('e', 'dst');
:state

-- read only
BEGIN READ ONLY;
SELECT pipeline.create_pipeline('e2', 'src');
:state
ROLLBACK;

--
-- start without an output; a pipeline that was never started
--
SELECT pipeline.start('e');
:state
SELECT pipeline.restart('e');
:state
SELECT pipeline.wait_for('e');
:state
SELECT pipeline.start('nope');
:state
SELECT pipeline.start(NULL);
:state
SELECT pipeline.wait_for('nope');
:state
SELECT pipeline.drop_pipeline('nope');
:state
SELECT * FROM pipeline.ledger('nope');
:state
SELECT * FROM pipeline.explain('nope');
:state
SELECT pipeline.redrive('nope');
:state
SELECT pipeline.discard('nope', '{1}', 'why');
:state

--
-- add_stage: its arguments
--
SELECT pipeline.add_stage('nope', 's', 'validate', 'check_src(src)');
:state
SELECT pipeline.add_stage('e', '', 'validate', 'check_src(src)');
:state
SELECT pipeline.add_stage('e', 's', 'filter', 'check_src(src)');
:state
SELECT pipeline.add_stage('e', 's', 'aggregate', query => 'SELECT count(*) AS n FROM event');
:state
SELECT pipeline.add_stage('e', 's', 'validate');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', 'SELECT true FROM event');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', workers => 2);
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', partition_by => '{id}');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', on_error => 'ignore');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', max_attempts => 0);
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', timeout => '0');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', timeout => '-1 s');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', timeout => '24 days');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)', timeout => '1 month');
:state

-- handlers that cannot be one
SELECT pipeline.add_stage('e', 's', 'validate', 'nope(src)');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(dst)');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 1);
:state
CREATE FUNCTION on_pair(p pair) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_pair(pair)');
:state
CREATE TYPE src_like AS (id bigint, a text, n numeric(10,2));
CREATE FUNCTION on_src_like(p src_like) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_src_like(src_like)');
:state
CREATE TYPE src_short AS (id int, a text);
CREATE FUNCTION on_src_short(p src_short) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_src_short(src_short)');
:state
CREATE FUNCTION on_int(i int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_int(int)');
:state
CREATE FUNCTION on_two(s src, i int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_two(src, int)');
:state
CREATE FUNCTION on_nothing() RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_nothing()');
:state
CREATE PROCEDURE a_procedure(s src) LANGUAGE sql AS $$ SELECT 1 $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'a_procedure(src)');
:state
CREATE FUNCTION to_int(s src) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'to_int(src)');
:state
SELECT pipeline.add_stage('e', 's', 'transform', 'to_int(src)');
:state
SELECT pipeline.add_stage('e', 's', 'enrich', 'check_src(src)');
:state
SELECT pipeline.add_stage('e', 's', 'validate', 'to_pair(src)');
:state
CREATE FUNCTION to_record(s src) RETURNS SETOF record LANGUAGE sql IMMUTABLE AS $$ SELECT 1, 2 $$;
SELECT pipeline.add_stage('e', 's', 'transform', 'to_record(src)');
:state
CREATE FUNCTION on_any(a anyelement) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
SELECT pipeline.add_stage('e', 's', 'validate', 'on_any(anyelement)');
:state

-- queries that cannot be one
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT * FORM event');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT nope FROM event');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT * FROM nope');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => '');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT 1 AS id; SELECT 2 AS id');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'DELETE FROM src RETURNING id');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'WITH d AS (DELETE FROM src RETURNING id) SELECT id FROM d');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT id INTO t FROM event');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT src.id FROM event, src FOR UPDATE OF src');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT id, id + 1 FROM event');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT * FROM event JOIN dst ON dst.id = event.id');
:state
SELECT pipeline.add_stage('e', 's', 'validate', query => 'SELECT id FROM event');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'SELECT id FROM event WHERE id = $1');
:state
SELECT pipeline.add_stage('e', 's', 'transform', query => 'VACUUM');
:state

-- a name in use, another search_path
SELECT pipeline.add_stage('e', 'pair', 'transform', 'to_pair(src)');
SELECT pipeline.add_stage('e', 'pair', 'validate', 'check_src(src)');
:state
SET search_path = errors, public;
SELECT pipeline.add_stage('e', 's', 'validate', 'errors.on_pair(errors.pair)');
:state
SET search_path = errors;

-- what the stage before returns is no longer the source's row
SELECT pipeline.add_stage('e', 's', 'validate', 'check_src(src)');
:state

--
-- add_output
--
SELECT pipeline.add_output('nope', 'dst');
:state
SELECT pipeline.add_output('e', NULL);
:state
SELECT pipeline.add_output('e', 'nope');
:state
SELECT pipeline.add_output('e', 'dst', mode => 'replace');
:state
SELECT pipeline.add_output('e', 'dst', key => '{id}');
:state
SELECT pipeline.add_output('e', 'dst', name => '');
:state
SELECT pipeline.add_output('e', 'dst', transform => 'nope(pair)');
:state
SELECT pipeline.add_output('e', 'dst', transform => 'to_pair(src)');
:state
SELECT pipeline.add_output('e', 'dst', transform => 'on_pair(pair)');
:state

-- targets that cannot be one
SELECT pipeline.add_output('e', 'a_view');
:state
SELECT pipeline.add_output('e', 'a_temp');
:state
SELECT pipeline.add_output('e', 'pg_class');
:state
SELECT pipeline.add_output('e', '_pipeline.batches');
:state
SELECT pipeline.add_output('e', 'a_sequence');
:state
CREATE TABLE ruled (id int, b text);
CREATE RULE r AS ON INSERT TO ruled DO ALSO NOTIFY x;
SELECT pipeline.add_output('e', 'ruled');
:state

-- columns that do not fit
SELECT pipeline.add_output('e', 'dst');
:state
CREATE TABLE wrong_type (id int, b int[]);
SELECT pipeline.add_output('e', 'wrong_type');
:state
CREATE TABLE needs_more (id int, b text, c int NOT NULL);
SELECT pipeline.add_output('e', 'needs_more');
:state
CREATE DOMAIN required AS int NOT NULL;
CREATE TABLE needs_domain (id int, b text, c required);
SELECT pipeline.add_output('e', 'needs_domain');
:state
CREATE TABLE generated (id int, b text GENERATED ALWAYS AS ('x') STORED);
SELECT pipeline.add_output('e', 'generated');

-- a name in use; an unlogged target is only weak
SELECT pipeline.add_output('e', 'generated');
:state
CREATE UNLOGGED TABLE unlogged_target (id int, b text);
SELECT pipeline.add_output('e', 'unlogged_target');
SELECT pipeline.drop_output('e', 'unlogged_target');

--
-- drop_stage and drop_output
--
SELECT pipeline.drop_stage('e', 'nope');
:state
SELECT pipeline.drop_stage('e', NULL);
:state
SELECT pipeline.drop_output('e', 'nope');
:state
SELECT pipeline.redrive('e', stage => 'nope');
:state
SELECT pipeline.discard('e', NULL, 'why');
:state
SELECT pipeline.discard('e', '{1}', NULL);
:state
SELECT pipeline.discard('e', '{1}', '');
:state
SELECT * FROM pipeline.explain('e', 2);
:state

--
-- What went away after the declaration is found at start, and can be dropped.
--
CREATE TABLE short_lived (id int, b text);
CREATE TABLE short_lived2 (id int, b text);
SELECT pipeline.add_output('e', 'short_lived'), pipeline.add_output('e', 'short_lived2');
DROP TABLE short_lived, short_lived2;
SELECT pipeline.start('e');
:state
SELECT pipeline.drop_output('e', 'short_lived');
SELECT pipeline.drop_output('e', 'short_lived2');
DROP FUNCTION to_pair(src);
SELECT pipeline.start('e');
:state
SELECT pipeline.drop_stage('e', 'pair');
SELECT pipeline.start('e');
:state
SELECT pipeline.drop_output('e', 'generated');
SELECT pipeline.add_output('e', 'dst');
ALTER TABLE dst DROP COLUMN a;
SELECT pipeline.start('e');
:state
ALTER TABLE dst ADD COLUMN a text;
ALTER TABLE src SET UNLOGGED;
SELECT pipeline.start('e');
:state
ALTER TABLE src SET LOGGED;
SELECT pipeline.start('e');

-- while it runs, the chain must stay whole and an output stay
CREATE FUNCTION shift(s src) RETURNS SETOF src_like LANGUAGE sql IMMUTABLE AS $$ SELECT s.id + 1, s.a, s.n $$;
CREATE FUNCTION back(s src_like) RETURNS SETOF src LANGUAGE sql IMMUTABLE AS $$ SELECT s.id - 1, s.a, s.n $$;
BEGIN;
SELECT pipeline.add_stage('e', 'shift', 'transform', 'shift(src)'), pipeline.add_stage('e', 'back', 'transform', 'back(src_like)');
SELECT pipeline.drop_stage('e', 'shift');
:state
ROLLBACK;
SELECT pipeline.drop_output('e', 'dst');
:state

-- wait_for needs a snapshot that moves on
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pipeline.wait_for('e');
:state
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pipeline.wait_for('e');
:state
ROLLBACK;

-- the notes of compiled statements are not for anybody else
SELECT pipeline._accept(1);
:state
SELECT pipeline._pass(1, 1, true);
:state
SELECT pipeline._pass(1, 1, 'x'::text);
:state
SELECT pipeline._reach(1, 1);
:state
SELECT pipeline._mark(1, 0);
:state
SELECT pipeline._produced(0);
:state
SELECT pipeline._produced(0, 1);
:state
SELECT pipeline._event(1);
:state
SELECT pipeline._wants(1, 0);
:state
SELECT pipeline._accept(NULL), pipeline._mark(NULL);
:state

-- the source of a pipeline went away
SELECT pipeline.stop('e');
SET client_min_messages = warning;
DROP TABLE src CASCADE;
SELECT pipeline.start('e');
:state
SELECT pipeline, state FROM pipeline.status WHERE pipeline = 'e';
SELECT pipeline.drop_pipeline('e');
SET client_min_messages = warning;
DROP SCHEMA errors CASCADE;
