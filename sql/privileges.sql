-- Who may declare, touch and see what, and as whom handlers run.
\set SHOW_CONTEXT never
\set state '\\echo SQLSTATE :SQLSTATE'
SET client_min_messages = warning;
CREATE SCHEMA privileges;
CREATE ROLE regress_pipeline_owner LOGIN;
CREATE ROLE regress_pipeline_other LOGIN;
CREATE ROLE regress_pipeline_reader LOGIN IN ROLE pipeline_reader;
CREATE ROLE regress_pipeline_operator LOGIN IN ROLE pipeline_operator;
CREATE ROLE regress_pipeline_admin LOGIN IN ROLE pipeline_admin;
CREATE ROLE "Regress pipeline nologin" NOLOGIN;
GRANT USAGE ON SCHEMA privileges TO PUBLIC;
SET search_path = privileges;

-- PUBLIC has nothing: the schema is the gate, and _pipeline is shut, also around
-- the view that health() reads as its caller.
SELECT nspname, has_schema_privilege('regress_pipeline_other', oid, 'USAGE') AS usage,
	has_schema_privilege('regress_pipeline_other', oid, 'CREATE') AS "create"
FROM pg_namespace WHERE nspname IN ('pipeline', '_pipeline') ORDER BY nspname;
SELECT relname FROM pg_class
WHERE relnamespace = '_pipeline'::regnamespace AND relkind IN ('r', 'v', 'S')
	AND (has_table_privilege('regress_pipeline_other', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
		OR has_table_privilege('pipeline_admin', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'));
SELECT relname, privilege FROM pg_class, unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) privilege
WHERE relnamespace = 'pipeline'::regnamespace AND relkind IN ('r', 'v')
	AND has_table_privilege('pipeline_admin', oid, privilege);
SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolinherit FROM pg_roles
WHERE rolname IN ('pipeline_reader', 'pipeline_operator', 'pipeline_admin') ORDER BY rolname;
SET ROLE regress_pipeline_other;
SELECT * FROM pipeline.pipelines;
SELECT pipeline.create_pipeline('p', 'pg_class');
SELECT * FROM _pipeline.pipelines;
RESET ROLE;

-- The owner declares its own, with what a reader and a writer need.
GRANT USAGE ON SCHEMA pipeline TO regress_pipeline_owner, regress_pipeline_other, "Regress pipeline nologin";
CREATE TABLE src (id int PRIMARY KEY, a text);
CREATE TABLE dst (id int PRIMARY KEY, who text, session text);
CREATE SCHEMA privileges_hidden;
CREATE TABLE privileges_hidden.dst (id int PRIMARY KEY, who text, session text);
CREATE FUNCTION who(s src) RETURNS SETOF dst LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, current_user::text, session_user::text; END $$;
REVOKE EXECUTE ON FUNCTION who(src) FROM PUBLIC;
SET ROLE regress_pipeline_owner;
SELECT pipeline.create_pipeline('p', 'src');
:state
RESET ROLE;
GRANT SELECT ON src TO regress_pipeline_owner;
SET ROLE regress_pipeline_owner;
SELECT pipeline.create_pipeline('p', 'src');
SELECT pipeline.add_stage('p', 'who', 'transform', 'who(src)');
:state
RESET ROLE;
GRANT EXECUTE ON FUNCTION who(src) TO regress_pipeline_owner;
SET ROLE regress_pipeline_owner;
SELECT pipeline.add_stage('p', 'who', 'transform', 'who(src)');
SELECT pipeline.add_output('p', 'dst');
:state
RESET ROLE;
GRANT INSERT ON dst TO regress_pipeline_owner;
SET ROLE regress_pipeline_owner;
SELECT pipeline.add_output('p', 'dst');
:state
RESET ROLE;
GRANT SELECT (id) ON dst TO regress_pipeline_owner;
SET ROLE regress_pipeline_owner;
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.add_output('p', 'privileges_hidden.dst', name => 'hidden');
:state
SELECT pipeline.add_stage('p', 'denied', 'transform', query => 'SELECT e.* FROM event e WHERE EXISTS (SELECT FROM privileges_hidden.dst)');
:state
SELECT pipeline.start('p');
INSERT INTO src VALUES (1, 'one');
RESET ROLE;
INSERT INTO src VALUES (1, 'one');
SET ROLE regress_pipeline_owner;
SELECT pipeline.wait_for('p');
RESET ROLE;
-- The handler ran as the owner, whose session it was too.
SELECT * FROM dst;

-- Another role neither touches nor sees it.
SET ROLE regress_pipeline_other;
SELECT count(*) FROM pipeline.pipelines;
SELECT count(*) FROM pipeline.stages;
SELECT count(*) FROM pipeline.outputs;
SELECT count(*) FROM pipeline.status;
SELECT count(*) FROM pipeline.workers;
SELECT count(*) FROM pipeline.stage_stats;
SELECT count(*) FROM pipeline.lineage;
SELECT count(*) FROM pipeline.batches;
SELECT count(*) FROM pipeline.dead_letters;
SELECT count(*) FROM pipeline.audit_log;
SELECT pipeline.start('p');
:state
SELECT pipeline.stop('p');
:state
SELECT pipeline.restart('p');
:state
SELECT pipeline.drop_pipeline('p');
:state
SELECT pipeline.add_stage('p', 's', 'validate', query => 'SELECT true FROM event');
:state
SELECT pipeline.drop_stage('p', 'who');
:state
SELECT pipeline.add_output('p', 'dst', name => 'x');
:state
SELECT pipeline.drop_output('p', 'dst');
:state
SELECT pipeline.wait_for('p');
:state
SELECT pipeline.redrive('p');
:state
SELECT pipeline.discard('p', '{1}', 'why');
:state
SELECT * FROM pipeline.ledger('p');
:state
SELECT * FROM pipeline.explain('p');
:state
SELECT pipeline.create_pipeline('p', 'src');
:state
RESET ROLE;

-- Readers see all but what went through; operators operate; admins alter.
INSERT INTO dst VALUES (2, 'somebody', 'else');
INSERT INTO src VALUES (2, 'two');
SELECT pipeline.wait_for('p');
SET ROLE regress_pipeline_reader;
SELECT pipeline, owner FROM pipeline.pipelines WHERE pipeline = 'p';
SELECT pipeline, stage FROM pipeline.stages WHERE pipeline = 'p';
SELECT pipeline, output FROM pipeline.outputs WHERE pipeline = 'p';
SELECT pipeline, state, events, produced, failed FROM pipeline.status WHERE pipeline = 'p';
SELECT seq, source_key, outcome, reason, output_key FROM pipeline.lineage WHERE pipeline = 'p' ORDER BY commit_lsn, seq;
SELECT count(*) FROM pipeline.dead_letters WHERE pipeline = 'p';
SELECT count(*) FROM pipeline.audit_log WHERE pipeline = 'p';
SELECT * FROM pipeline.ledger('p');
SELECT pipeline.wait_for('p');
SELECT count(*) > 0 AS explained FROM pipeline.explain('p');
SELECT pipeline.stop('p');
:state
SELECT pipeline.redrive('p');
:state
RESET ROLE;
SET ROLE regress_pipeline_operator;
SELECT source_key, outcome, reason, output_key FROM pipeline.lineage WHERE pipeline = 'p' ORDER BY commit_lsn, seq;
SELECT sqlstate, event FROM pipeline.dead_letters WHERE pipeline = 'p';
SELECT pipeline.stop('p');
SELECT pipeline.start('p');
SELECT pipeline.redrive('p');
SELECT pipeline.wait_for('p');
SELECT pipeline.discard('p', (SELECT array_agg(id) FROM pipeline.dead_letters WHERE pipeline = 'p'), 'a test');
SELECT pipeline.drop_output('p', 'dst');
:state
SELECT pipeline.drop_pipeline('p');
:state
RESET ROLE;
SET ROLE regress_pipeline_admin;
SELECT pipeline.add_output('p', 'dst', name => 'again');
SELECT pipeline.drop_output('p', 'again');
SELECT action, who, detail - 'ids' AS detail FROM pipeline.audit_log
WHERE pipeline = 'p' AND who NOT IN ('regress_pipeline_owner')
	AND id > (SELECT max(id) FROM pipeline.audit_log WHERE pipeline = 'p' AND action = 'create_pipeline')
ORDER BY id;
RESET ROLE;

-- What an admin adds is checked with the rights of the owner.
CREATE FUNCTION only_admin(s src) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
REVOKE EXECUTE ON FUNCTION only_admin(src) FROM PUBLIC;
SET ROLE regress_pipeline_owner;
SELECT pipeline.create_pipeline('p2', 'src');
RESET ROLE;
SELECT pipeline.add_stage('p2', 's', 'validate', 'only_admin(src)');
:state
SELECT pipeline.add_output('p2', 'privileges_hidden.dst');
:state
SET ROLE regress_pipeline_owner;
SELECT pipeline.drop_pipeline('p2'), pipeline.drop_pipeline('p');
RESET ROLE;

-- An owner that may not log in, may not use the schema any more, or is subject
-- to row security is told so.
GRANT SELECT ON src TO "Regress pipeline nologin";
GRANT SELECT, INSERT ON dst TO "Regress pipeline nologin";
SET ROLE "Regress pipeline nologin";
SELECT pipeline.create_pipeline('p3', 'src');
SELECT pipeline.add_stage('p3', 'shape', 'transform', query => 'SELECT id, a AS who FROM event');
SELECT pipeline.add_output('p3', 'dst');
SELECT pipeline.start('p3');
:state
RESET ROLE;
ALTER ROLE "Regress pipeline nologin" LOGIN;
REVOKE USAGE ON SCHEMA pipeline FROM "Regress pipeline nologin";
SELECT pipeline.start('p3');
:state
GRANT USAGE ON SCHEMA pipeline TO "Regress pipeline nologin";
ALTER TABLE src ENABLE ROW LEVEL SECURITY;
SELECT pipeline.start('p3');
:state
SET ROLE "Regress pipeline nologin";
SELECT pipeline.create_pipeline('p4', 'src');
:state
RESET ROLE;
ALTER TABLE src DISABLE ROW LEVEL SECURITY;
REVOKE SELECT ON src FROM "Regress pipeline nologin";
SELECT pipeline.start('p3');
:state
GRANT SELECT ON src TO "Regress pipeline nologin";
REVOKE INSERT ON dst FROM "Regress pipeline nologin";
SELECT pipeline.start('p3');
:state
GRANT INSERT ON dst TO "Regress pipeline nologin";
SELECT pipeline.start('p3');
INSERT INTO src VALUES (3, 'three');
SELECT pipeline.wait_for('p3');
SELECT id, who FROM dst WHERE id = 3 ORDER BY who;
SELECT pipeline.drop_pipeline('p3');

-- A handler cannot become somebody else.
CREATE TABLE attempts (id int, who text, session text, role text, PRIMARY KEY (id, who));
GRANT SELECT, INSERT ON attempts TO regress_pipeline_owner;
CREATE FUNCTION attempt(s src) RETURNS SETOF attempts LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	EXECUTE s.a;
	RETURN QUERY SELECT s.id, current_user::text, session_user::text, current_setting('role');
END $$;
SET ROLE regress_pipeline_owner;
SELECT pipeline.create_pipeline('escape', 'src'),
	pipeline.add_stage('escape', 'attempt', 'transform', 'attempt(src)'),
	pipeline.add_output('escape', 'attempts'),
	pipeline.start('escape');
RESET ROLE;
-- the first one is good, or errors of this class would stop the pipeline
INSERT INTO src VALUES (9, 'SELECT 1'),
	(10, 'SET ROLE postgres'),
	(11, 'SET ROLE regress_pipeline_other'),
	(12, 'SET SESSION AUTHORIZATION regress_pipeline_other'),
	(13, 'RESET SESSION AUTHORIZATION'),
	(14, 'RESET ROLE'),
	(15, 'SET ROLE NONE'),
	(16, 'SET search_path = pg_temp'),
	(17, 'SELECT set_config(''role'', ''pipeline_admin'', false)'),
	(18, 'SET row_security = off'),
	(19, 'UPDATE _pipeline.pipelines SET owner = 10'),
	(20, 'DELETE FROM pipeline.dead_letters'),
	(21, 'SELECT pipeline._accept(1000000)'),
	(22, 'COMMIT'),
	(23, 'ROLLBACK'),
	(24, 'SELECT pipeline._produced(0, 1)'),
	(25, 'SELECT pipeline._produced(7, 1, 2, 3)');
INSERT INTO src VALUES (26, 'SELECT 1');
SELECT pipeline.wait_for('escape');
SELECT * FROM attempts ORDER BY id;
-- it can lie about its own rows only
SELECT source_key, outcome, part, output_key FROM pipeline.lineage
WHERE pipeline = 'escape' AND (source_key->>'id')::int >= 24 ORDER BY source_key->'id', part;
SELECT d.event->>'a' AS attempt, d.sqlstate, d.reason FROM pipeline.dead_letters d
WHERE pipeline = 'escape' ORDER BY d.event->'id';
SELECT pipeline, state, last_error FROM pipeline.status WHERE pipeline = 'escape';
SELECT * FROM pipeline.ledger('escape');

-- An owner that is gone: what it declared can be seen, and dropped.
SELECT pipeline.stop('escape');
DROP OWNED BY regress_pipeline_owner;
DROP ROLE regress_pipeline_owner;
SELECT running FROM pipeline.pipelines WHERE pipeline = 'escape';
SELECT pipeline.start('escape');
:state
SET ROLE regress_pipeline_other;
SELECT pipeline.stop('escape');
:state
RESET ROLE;
SET ROLE regress_pipeline_admin;
SELECT pipeline.drop_pipeline('escape');
RESET ROLE;

DROP SCHEMA privileges, privileges_hidden CASCADE;
REVOKE USAGE ON SCHEMA pipeline FROM regress_pipeline_other, "Regress pipeline nologin";
DROP ROLE regress_pipeline_other, regress_pipeline_reader, regress_pipeline_operator,
	regress_pipeline_admin, "Regress pipeline nologin";
