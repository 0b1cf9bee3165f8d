-- graph() draws what its reader may see: chained pipelines hang together over the
-- table between them, and no name breaks out of its label.
SET search_path = pg_catalog;
CREATE SCHEMA graph;
SET search_path = graph;
CREATE TABLE orders (id int PRIMARY KEY, v int);
CREATE TABLE "big; ""orders"" [x]
end" (id int PRIMARY KEY, v int);
CREATE TABLE billing (id int PRIMARY KEY, v int);
CREATE TABLE all_of_them (id int PRIMARY KEY, v int);

SELECT pipeline.create_pipeline('graph 1', source => 'orders', operations => '{insert,update,delete}');
SELECT pipeline.add_stage('graph 1', 'check', 'validate', query => 'SELECT v > 0 FROM event');
SELECT pipeline.add_stage('graph 1', '"]) --> x[<b>1. & #35;
`end`', 'transform', query => 'SELECT * FROM event');
SELECT pipeline.add_output('graph 1', '"big; ""orders"" [x]
end"');
SELECT pipeline.add_output('graph 1', 'billing', name => '- 1. billing');
SELECT pipeline.graph('graph 1');

-- Without a stage, and chained.
SELECT pipeline.create_pipeline('graph 2', source => '"big; ""orders"" [x]
end"');
SELECT pipeline.add_output('graph 2', 'all_of_them');
SELECT pipeline.start('graph 2');
INSERT INTO "big; ""orders"" [x]
end" VALUES (1, 1);
SELECT pipeline.wait_for('graph 2');
SELECT pipeline.graph('graph 2');
SELECT pipeline.deploy_stage('graph 1', 'check', query => 'SELECT v > 1 FROM event');

-- Each sees its own; numbers of nodes tell nothing of the rest.
CREATE ROLE graph_user;
GRANT USAGE ON SCHEMA pipeline, graph TO graph_user;
GRANT SELECT ON orders TO graph_user;
GRANT SELECT, INSERT ON all_of_them TO graph_user;
SET ROLE graph_user;
SELECT pipeline.graph();
SELECT pipeline.create_pipeline('graph 3', source => 'orders');
SELECT pipeline.add_stage('graph 3', 'mine', 'validate', query => 'SELECT true FROM event');
SELECT pipeline.add_output('graph 3', 'all_of_them');
SELECT pipeline.graph();
\set VERBOSITY terse
SELECT pipeline.graph('graph 1');
SELECT pipeline.graph('graph 9');
RESET ROLE;
GRANT pipeline_reader TO graph_user;
SET ROLE graph_user;
SELECT g ~ 'graph 1: stopped' AND g ~ 'graph 2: running' AND g ~ 'graph 3: stopped' AS all_of_them,
	g ~ 'check<br/>validate, version 2' AS version,
	(SELECT count(*) FROM regexp_matches(g, '\[\("graph\.#34;big', 'g')) AS table_between,
	g ~ E'o1 --> (t[0-9]+)\n.*    \\1 --> p' AS chained
FROM pipeline.graph() AS g;
RESET ROLE;

SELECT pipeline.drop_pipeline('graph 1', cascade => true), pipeline.drop_pipeline('graph 2'), pipeline.drop_pipeline('graph 3');
SET client_min_messages = warning;
DROP OWNED BY graph_user;
DROP ROLE graph_user;
DROP SCHEMA graph CASCADE;
