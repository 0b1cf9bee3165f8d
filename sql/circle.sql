-- Pipelines that read what others write: chains flow, circles are refused, and
-- one source can have several pipelines.
CREATE SCHEMA circle;
SET search_path = circle;
CREATE TABLE a (id int PRIMARY KEY, way text);
CREATE TABLE b (id int PRIMARY KEY, way text);
CREATE TABLE c (id int PRIMARY KEY, way text);
CREATE TABLE d (id int PRIMARY KEY, way text);
CREATE FUNCTION step(way text, step text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT concat_ws(' ', way, step) $$;

-- A pipeline into its own source, itself and over two and three pipelines.
SELECT pipeline.create_pipeline('a to b', 'a');
SELECT pipeline.add_output('a to b', 'a');
SELECT pipeline.add_stage('a to b', 's', 'transform', query => 'SELECT id, step(way, ''ab'') AS way FROM event'),
	pipeline.add_output('a to b', 'b');
SELECT pipeline.create_pipeline('b to c', 'b'),
	pipeline.add_stage('b to c', 's', 'transform', query => 'SELECT id, step(way, ''bc'') AS way FROM event');
SELECT pipeline.add_output('b to c', 'a');
SELECT pipeline.add_output('b to c', 'c');
SELECT pipeline.create_pipeline('c to d', 'c'),
	pipeline.add_stage('c to d', 's', 'transform', query => 'SELECT id, step(way, ''cd'') AS way FROM event');
SELECT pipeline.add_output('c to d', 'b');
SELECT pipeline.add_output('c to d', 'a');
SELECT pipeline.add_output('c to d', 'd');

-- A partitioned target among whose partitions is a source.
CREATE TABLE parted (id int, way text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (1) TO (1000);
SELECT pipeline.create_pipeline('p', 'part1');
SELECT pipeline.add_output('p', 'parted');
SELECT pipeline.add_output('p', 'a');
SELECT pipeline.add_output('a to b', 'parted');
SELECT pipeline.drop_pipeline('p', cascade => true);
-- A partitioned source, itself and over another pipeline: what is written into a
-- partition of it, or into what it is a partition of, is its event; what goes into
-- another partition than the source is not.
CREATE TABLE part2 PARTITION OF parted FOR VALUES FROM (1000) TO (9000) PARTITION BY RANGE (id);
CREATE TABLE part2a PARTITION OF part2 FOR VALUES FROM (1000) TO (2000);
CREATE TABLE part2b PARTITION OF part2 FOR VALUES FROM (2000) TO (9000);
SELECT pipeline.create_pipeline('p', 'part2');
SELECT pipeline.add_output('p', 'part2a');
SELECT pipeline.add_output('p', 'part2');
SELECT pipeline.add_output('p', 'parted');
SELECT pipeline.add_output('p', 'part1', name => 'other partition');
SELECT pipeline.create_pipeline('q', 'parted');
SELECT pipeline.add_output('q', 'part2b');
SELECT pipeline.add_output('q', 'a');
SELECT pipeline.add_output('a to b', 'part1');
SELECT pipeline.drop_pipeline('p');
SELECT pipeline.drop_pipeline('q', cascade => true), pipeline.drop_pipeline('p');

-- The chain flows: what one writes is the event of the next.  Each is started
-- while the one before it runs.
SELECT pipeline.start('a to b');
INSERT INTO a VALUES (1, 'too early');
SELECT pipeline.wait_for('a to b');
SELECT pipeline.start('b to c');
SELECT pipeline.start('c to d');
INSERT INTO a VALUES (2, 'x'), (3, 'y');
SELECT pipeline.wait_for('a to b'), pipeline.wait_for('b to c'), pipeline.wait_for('c to d');
SELECT * FROM b ORDER BY id;
SELECT * FROM c ORDER BY id;
SELECT * FROM d ORDER BY id;
-- somebody else's rows are events as well
INSERT INTO c VALUES (10, 'by hand');
SELECT pipeline.wait_for('c to d');
SELECT * FROM d WHERE id = 10;
-- one failure on the way is the failure of that pipeline only
INSERT INTO d VALUES (20, 'in the way');
INSERT INTO a VALUES (20, 'stopped at d'), (21, 'through');
SELECT pipeline.wait_for('a to b'), pipeline.wait_for('b to c'), pipeline.wait_for('c to d');
SELECT id, way FROM d WHERE id >= 20 ORDER BY id;
SELECT pipeline, event, sqlstate FROM pipeline.dead_letters WHERE pipeline IN ('a to b', 'b to c', 'c to d');
DELETE FROM d WHERE id = 20;
SELECT pipeline.redrive('c to d');
SELECT pipeline.wait_for('c to d');
SELECT id, way FROM d WHERE id >= 20 ORDER BY id;
SELECT 'a to b' AS pipeline, * FROM pipeline.ledger('a to b')
UNION ALL SELECT 'b to c', * FROM pipeline.ledger('b to c')
UNION ALL SELECT 'c to d', * FROM pipeline.ledger('c to d') ORDER BY 1, 2;

-- A pipeline whose target others read is dropped with cascade only; they stay.
SELECT pipeline.drop_pipeline('a to b');
SELECT pipeline.drop_pipeline('a to b', cascade => true);
INSERT INTO b VALUES (30, 'by hand');
SELECT pipeline.wait_for('b to c'), pipeline.wait_for('c to d');
SELECT * FROM d WHERE id = 30;
-- now the circle would be none
SELECT pipeline.add_output('c to d', 'a');
SELECT pipeline.drop_pipeline('b to c', cascade => true), pipeline.drop_pipeline('c to d');

-- Several pipelines on one source, into one target and others; each has its
-- own position and its own failures.
TRUNCATE a, b, c;
CREATE TABLE all_of (way text);
SELECT pipeline.create_pipeline('one', 'a'), pipeline.add_output('one', 'b'),
	pipeline.add_stage('one', 's', 'validate', query => 'SELECT way <> ''bad'' FROM event'), pipeline.start('one');
SELECT pipeline.create_pipeline('two', 'a'), pipeline.add_output('two', 'c'),
	pipeline.add_stage('two', 's', 'transform', query => 'SELECT id, upper(way) AS way FROM event'), pipeline.start('two');
SELECT pipeline.create_pipeline('three', 'a'),
	pipeline.add_stage('three', 's', 'transform', query => 'SELECT way FROM event'),
	pipeline.add_output('three', 'all_of', name => 'once'), pipeline.add_output('three', 'all_of', name => 'twice'), pipeline.start('three');
INSERT INTO a VALUES (1, 'good'), (2, 'bad');
SELECT pipeline.stop('two');
INSERT INTO a VALUES (3, 'later');
SELECT pipeline.wait_for('one'), pipeline.wait_for('three'), pipeline.wait_for('two', timeout => '1 ms');
SELECT * FROM b ORDER BY id;
SELECT way, count(*) FROM all_of GROUP BY way ORDER BY way;
SELECT pipeline.start('two');
SELECT pipeline.wait_for('two');
SELECT * FROM c ORDER BY id;
SELECT pipeline, state, events, produced, rejected FROM pipeline.status WHERE pipeline IN ('one', 'two', 'three') ORDER BY pipeline;
SELECT * FROM pipeline.ledger('three');
SELECT pipeline.drop_pipeline('one'), pipeline.drop_pipeline('two'), pipeline.drop_pipeline('three');

-- What a declaration cannot see: a handler, and a trigger of the target, that
-- write into the source.  A pipeline never takes its own writes for events,
-- others do; what came of a handler's row in the source is there all the same.
TRUNCATE a, b, c;
CREATE FUNCTION echo(r a) RETURNS SETOF a LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO circle.a VALUES (r.id + 100, 'by the handler'); RETURN NEXT r; END $$;
CREATE FUNCTION echo_trigger() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO circle.a VALUES (NEW.id + 200, 'by the trigger'); RETURN NULL; END $$;
CREATE TRIGGER echo AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION echo_trigger();
SELECT pipeline.create_pipeline('echo', 'a'), pipeline.add_stage('echo', 'echo', 'transform', 'echo(a)'),
	pipeline.add_output('echo', 'b'), pipeline.start('echo');
SELECT pipeline.create_pipeline('other', 'a'), pipeline.add_output('other', 'c'), pipeline.start('other');
INSERT INTO a VALUES (1, 'by hand');
SELECT pipeline.wait_for('echo');
INSERT INTO a VALUES (2, 'by hand');
SELECT pipeline.wait_for('echo'), pipeline.wait_for('other');
SELECT * FROM a ORDER BY id;
SELECT * FROM b ORDER BY id;
SELECT * FROM c ORDER BY id;
SELECT 'echo' AS pipeline, * FROM pipeline.ledger('echo') UNION ALL SELECT 'other', * FROM pipeline.ledger('other') ORDER BY 1;
SELECT pipeline.drop_pipeline('echo'), pipeline.drop_pipeline('other');

SET client_min_messages = warning;
DROP SCHEMA circle CASCADE;
