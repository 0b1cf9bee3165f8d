-- What a table must be to be a source of updates and deletes: what is refused,
-- with the command that mends it, when a pipeline is declared, when an output
-- needs more, when it is started, and while it runs.
\set state '\\echo SQLSTATE :SQLSTATE'
CREATE SCHEMA sources;
SET search_path = sources;

-- Replica identities.
CREATE TABLE no_key (a int NOT NULL, b int);
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{insert,truncate}');
SELECT pipeline.drop_pipeline('s');
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{update}');
:state
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{delete}');
:state
-- the hint names what would do: not an index on part of the rows, on an
-- expression, on a column that may be null, or one that is deferrable
CREATE UNIQUE INDEX "Part" ON no_key (a) WHERE b > 0;
CREATE UNIQUE INDEX expression ON no_key ((a + 1));
CREATE UNIQUE INDEX may_be_null ON no_key (a, b);
ALTER TABLE no_key ADD CONSTRAINT late UNIQUE (a) DEFERRABLE;
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{insert,update}');
:state
CREATE UNIQUE INDEX "Fine" ON no_key (a);
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{insert,update}');
:state
ALTER TABLE no_key REPLICA IDENTITY USING INDEX "Fine";
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{insert,update}');
SELECT pipeline.drop_pipeline('s');
DROP INDEX "Fine";
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{insert,update}');
:state
ALTER TABLE no_key ADD PRIMARY KEY (a) DEFERRABLE;
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{delete}');
:state
ALTER TABLE no_key REPLICA IDENTITY DEFAULT;
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{delete}');
:state
ALTER TABLE no_key REPLICA IDENTITY FULL;
SELECT pipeline.create_pipeline('s', 'no_key', operations => '{insert,update,delete,truncate}');
SELECT pipeline.drop_pipeline('s');
CREATE TABLE "With Key" (id int PRIMARY KEY, n int);
SELECT pipeline.create_pipeline('s', '"With Key"', operations => '{insert,update,delete}');
SELECT pipeline.drop_pipeline('s');
ALTER TABLE "With Key" REPLICA IDENTITY NOTHING;
SELECT pipeline.create_pipeline('s', '"With Key"', operations => '{delete,insert}');
:state
SELECT pipeline.create_pipeline('s', '"With Key"', operations => '{insert}');
SELECT pipeline.drop_pipeline('s');

-- Columns that an update may leave out of the log: those that can be stored out
-- of line, whatever they are now.
CREATE TABLE notes (id int PRIMARY KEY, note text);
SELECT pipeline.create_pipeline('s', 'notes', operations => '{insert,update}');
:state
SELECT pipeline.create_pipeline('s', 'notes', operations => '{insert,delete,truncate}');
SELECT pipeline.drop_pipeline('s');
ALTER TABLE notes REPLICA IDENTITY NOTHING;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{update}');
:state
ALTER TABLE notes REPLICA IDENTITY FULL;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{insert,update}');
SELECT pipeline.drop_pipeline('s');
-- the table has a toast table because of a column that is gone
ALTER TABLE notes REPLICA IDENTITY DEFAULT;
ALTER TABLE notes DROP note, ADD short varchar(5), ADD n numeric(10, 2), ADD b bit(32), ADD x xid, ADD u uuid;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{update}');
SELECT pipeline.drop_pipeline('s');
CREATE DOMAIN code AS varchar(3);
CREATE DOMAIN word AS text;
ALTER TABLE notes ADD c code;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{update}');
SELECT pipeline.drop_pipeline('s');
ALTER TABLE notes ADD w word;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{update}');
:state
ALTER TABLE notes ALTER w SET STORAGE MAIN;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{update}');
:state
ALTER TABLE notes ALTER w SET STORAGE PLAIN;
SELECT pipeline.create_pipeline('s', 'notes', operations => '{update}');
SELECT pipeline.drop_pipeline('s');
-- columns that are never out of line, since their rows are not large enough
CREATE TABLE small (id int PRIMARY KEY, a varchar(20), b varchar(20));
SELECT pipeline.create_pipeline('s', 'small', operations => '{update}');
SELECT pipeline.drop_pipeline('s');
-- columns of the key are logged with the old row
CREATE TABLE named (name text PRIMARY KEY, n int);
SELECT pipeline.create_pipeline('s', 'named', operations => '{update}');
SELECT pipeline.drop_pipeline('s');
CREATE TABLE lists (id int PRIMARY KEY, a int[]);
SELECT pipeline.create_pipeline('s', 'lists', operations => '{update}');
:state

-- Inheritance, of which the log knows nothing; a partition is a table like others.
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE "Child" (PRIMARY KEY (id)) INHERITS (parent);
SELECT pipeline.create_pipeline('s', 'parent');
:state
SELECT pipeline.create_pipeline('s', '"Child"');
:state
ALTER TABLE "Child" NO INHERIT parent;
SELECT pipeline.create_pipeline('s', 'parent');
SELECT pipeline.drop_pipeline('s');
SELECT pipeline.create_pipeline('s', '"Child"');
SELECT pipeline.drop_pipeline('s');
CREATE TABLE root (id int) PARTITION BY LIST (id);
CREATE TABLE leaf PARTITION OF root DEFAULT;
SELECT pipeline.create_pipeline('s', 'leaf');
SELECT pipeline.drop_pipeline('s');

-- Of a partitioned table all partitions are asked, on every level.
CREATE TABLE years (id int, year int, note text) PARTITION BY LIST (year);
SELECT pipeline.create_pipeline('s', 'years', operations => '{update}');
SELECT pipeline.drop_pipeline('s');
CREATE TABLE year1 PARTITION OF years FOR VALUES IN (1);
CREATE TABLE year2 PARTITION OF years FOR VALUES IN (2) PARTITION BY LIST (id);
CREATE TABLE year2_1 PARTITION OF year2 FOR VALUES IN (1);
ALTER TABLE year1 REPLICA IDENTITY FULL;
SELECT pipeline.create_pipeline('s', 'years', operations => '{delete}');
:state
SELECT pipeline.create_pipeline('s', 'years', operations => '{update}');
:state
ALTER TABLE year2_1 REPLICA IDENTITY FULL;
SELECT pipeline.create_pipeline('s', 'years', operations => '{update,delete}');
SELECT pipeline.drop_pipeline('s');
ALTER TABLE years ADD PRIMARY KEY (id, year);
ALTER TABLE year2_1 REPLICA IDENTITY DEFAULT;
SELECT pipeline.create_pipeline('s', 'years', operations => '{delete}');
SELECT pipeline.drop_pipeline('s');
SELECT pipeline.create_pipeline('s', 'year2', operations => '{update}');
:state

-- Other relations.
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE elsewhere (id int) SERVER nowhere;
SELECT pipeline.create_pipeline('s', 'elsewhere');
:state

-- Operations are kept once each, in one order.
SELECT pipeline.create_pipeline('s', 'small', operations => '{truncate,insert,delete,insert,update,truncate}');
SELECT operations FROM pipeline.pipelines WHERE pipeline = 's';
SELECT pipeline.drop_pipeline('s');
SELECT pipeline.create_pipeline('s', 'small', operations => '{Insert}');
:state
SELECT pipeline.create_pipeline('s', 'small', operations => '{"insert,update"}');
:state

-- Old rows of deletes go to an output that appends, if a handler on the way takes
-- the event; then all of them must be known.
CREATE TABLE src (id int PRIMARY KEY, n int);
CREATE TABLE dst (id int, n int);
CREATE TABLE log (id int, n int, operation text);
CREATE FUNCTION check_it(s src, e pipeline.event) RETURNS bool LANGUAGE sql STABLE AS $$ SELECT true $$;
CREATE FUNCTION log_it(s src, e pipeline.event) RETURNS log LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN (s.id, s.n, e.operation)::sources.log; END $$;
SELECT pipeline.create_pipeline('s', 'src', operations => '{insert,delete}');
SELECT pipeline.add_output('s', 'dst', mode => 'append');
SELECT pipeline.add_output('s', 'log', transform => 'log_it(src, pipeline.event)', mode => 'append');
:state
SELECT pipeline.add_stage('s', 'check', 'validate', 'check_it(src, pipeline.event)');
:state
SELECT output FROM pipeline.outputs WHERE pipeline = 's';
ALTER TABLE src REPLICA IDENTITY FULL;
SELECT pipeline.add_output('s', 'log', transform => 'log_it(src, pipeline.event)', mode => 'append');
-- it is checked again at start
ALTER TABLE src REPLICA IDENTITY DEFAULT;
SELECT pipeline.start('s');
:state
SELECT pipeline.drop_output('s', 'log');
SELECT pipeline.start('s');
SELECT pipeline.stop('s');
ALTER TABLE src REPLICA IDENTITY NOTHING;
SELECT pipeline.start('s');
:state
ALTER TABLE src REPLICA IDENTITY FULL;
SELECT pipeline.add_output('s', 'log', transform => 'log_it(src, pipeline.event)', mode => 'append');
SELECT pipeline.start('s');

-- While it runs, the pipeline stands until the identity is mended.
CREATE PROCEDURE reached(wanted text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = 's') = wanted THEN RETURN; END IF;
		PERFORM pipeline.wait_for('s', timeout => '10 ms');
		COMMIT;
	END LOOP;
	RAISE 'pipeline "s" is not %', wanted;
END $$;
INSERT INTO src VALUES (1, 1), (2, 2), (3, 3);
SELECT pipeline.wait_for('s');
ALTER TABLE src REPLICA IDENTITY DEFAULT;
INSERT INTO src VALUES (4, 4);
DELETE FROM src WHERE id = 2;
CALL reached('failed');
SELECT what, hint FROM pipeline.health() \gx
SELECT hint FROM pipeline.health() \gexec
DELETE FROM src WHERE id = 1;
SELECT pipeline.wait_for('s');
SELECT * FROM dst ORDER BY id;
SELECT * FROM log ORDER BY id, operation;
-- what was deleted meanwhile is not known: a dead letter, and not a row of nulls
SELECT operation, sqlstate, reason, detail, event, old_event FROM pipeline.dead_letters WHERE pipeline = 's';
SELECT pipeline.redrive('s');
SELECT pipeline.wait_for('s');
SELECT reason, attempts, state FROM pipeline.dead_letters WHERE pipeline = 's';
SELECT * FROM pipeline.ledger('s');
-- without the output that takes it, it is one that is filtered
SELECT pipeline.drop_output('s', 'log');
SELECT pipeline.redrive('s');
SELECT pipeline.wait_for('s');
SELECT reason, attempts, state FROM pipeline.dead_letters WHERE pipeline = 's';
SELECT * FROM pipeline.ledger('s');
SELECT pipeline.drop_pipeline('s');

-- A large value that an update leaves as it is, is not logged while the replica
-- identity is not FULL: that is an error of the event, and no null, though the
-- table has it.
CREATE TABLE docs (id int PRIMARY KEY, n int, code int NOT NULL UNIQUE, doc text, doc2 text);
ALTER TABLE docs ALTER doc SET STORAGE EXTERNAL, ALTER doc2 SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE seen (id int, n int, size int, step int GENERATED ALWAYS AS IDENTITY);
SELECT pipeline.create_pipeline('s', 'docs', operations => '{insert,update,delete}'),
	pipeline.add_stage('s', 'size', 'transform', query => 'SELECT id, n, length(doc) + length(doc2) AS size FROM event'),
	pipeline.add_output('s', 'seen', mode => 'append'),
	pipeline.start('s');
INSERT INTO docs VALUES (1, 1, 11, repeat('x', 5000), repeat('y', 4000)), (2, 2, 12, 'small', 'small');
UPDATE docs SET n = n + 10;
SELECT pipeline.wait_for('s');
SELECT pipeline.stop('s');
ALTER TABLE docs REPLICA IDENTITY USING INDEX docs_code_key;
UPDATE docs SET n = n + 10;
UPDATE docs SET n = n + 10, doc = 'small' WHERE id = 1;
UPDATE docs SET n = n + 10, doc2 = 'small' WHERE id = 1;
DELETE FROM docs;
ALTER TABLE docs REPLICA IDENTITY FULL;
SELECT pipeline.start('s');
SELECT pipeline.wait_for('s');
SELECT id, n, size FROM seen ORDER BY step;
SELECT operation, sqlstate, reason, detail, context, event, old_event FROM pipeline.dead_letters WHERE pipeline = 's' ORDER BY commit_lsn, seq \gx
SELECT operation, source_key, outcome FROM pipeline.lineage WHERE pipeline = 's' ORDER BY commit_lsn, seq;
SELECT pipeline.redrive('s');
SELECT pipeline.wait_for('s');
SELECT reason, detail, attempts, state FROM pipeline.dead_letters WHERE pipeline = 's' ORDER BY commit_lsn, seq;
SELECT * FROM pipeline.ledger('s');
SELECT pipeline.drop_pipeline('s');
-- so it is for an output of mode upsert, before which the pipeline stands; it is
-- right again with the next update
CREATE TABLE sizes (id int PRIMARY KEY, n int, size int);
SELECT pipeline.create_pipeline('s', 'docs', operations => '{insert,update,delete}'),
	pipeline.add_stage('s', 'size', 'transform', query => 'SELECT id, n, length(doc) + length(doc2) AS size FROM event'),
	pipeline.add_output('s', 'sizes'),
	pipeline.start('s');
INSERT INTO docs VALUES (1, 1, 11, repeat('x', 5000), 'small'), (2, 2, 12, 'small', 'small'), (3, 3, 13, repeat('x', 5000), 'small');
SELECT pipeline.wait_for('s');
SELECT pipeline.stop('s');
ALTER TABLE docs REPLICA IDENTITY DEFAULT;
UPDATE docs SET n = n + 10;
UPDATE docs SET id = 30, n = 33 WHERE id = 3;
DELETE FROM docs WHERE id = 2;
ALTER TABLE docs REPLICA IDENTITY FULL;
SELECT pipeline.start('s');
-- it is known that something may be missing
CALL reached('paused');
SELECT pipeline.accept_schema('s');
SELECT pipeline.wait_for('s');
SELECT * FROM sizes ORDER BY id;
SELECT operation, reason, event, old_event FROM pipeline.dead_letters WHERE pipeline = 's' ORDER BY commit_lsn, seq;
UPDATE docs SET n = n + 100;
SELECT pipeline.wait_for('s');
SELECT * FROM sizes ORDER BY id;
SELECT * FROM pipeline.ledger('s');
SELECT pipeline.drop_pipeline('s');
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER nowhere CASCADE;
DROP SCHEMA sources CASCADE;
