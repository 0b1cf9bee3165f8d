-- Whose fault an error is: the event, its stage or output; and whose it is not.
CREATE SCHEMA blame;
SET search_path = blame;
SET client_min_messages = warning;
CREATE VIEW letters AS SELECT event->>'id' AS event, stage, output, kind, sqlstate, reason
FROM pipeline.dead_letters WHERE pipeline = 'b' ORDER BY commit_lsn, seq;
CREATE VIEW counts AS SELECT output, events, produced, rejected, failed, balanced
FROM pipeline.ledger('b');

--
-- The stage that fails, in a chain that becomes one query.
--
CREATE TABLE src (id int PRIMARY KEY, bad text, n int);
CREATE TABLE dst (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, bad text, n int);
CREATE FUNCTION a(s src) RETURNS SETOF src LANGUAGE sql STABLE AS
$$ SELECT s.id, s.bad, s.n / CASE WHEN s.bad = 'a' THEN 0 ELSE 1 END $$;
CREATE FUNCTION b(s src) RETURNS src LANGUAGE sql STABLE AS
$$ SELECT s.id, s.bad, s.n / CASE WHEN s.bad = 'b' THEN 0 ELSE 1 END $$;
CREATE FUNCTION c(s src) RETURNS SETOF src LANGUAGE sql STABLE AS
$$ SELECT s.id, s.bad, s.n / CASE WHEN s.bad = 'c' THEN 0 ELSE 1 END $$;
SELECT pipeline.create_pipeline('b', 'src'),
	pipeline.add_stage('b', 'a', 'transform', 'a(src)'),
	pipeline.add_stage('b', 'b', 'enrich', 'b(src)'),
	pipeline.add_stage('b', 'c', 'transform', 'c(src)'),
	pipeline.add_stage('b', 'query', 'transform', query =>
		'SELECT id, bad, n / CASE WHEN bad = ''query'' THEN 0 ELSE 1 END AS n FROM event'),
	pipeline.add_stage('b', 'valid', 'validate', query =>
		'SELECT 1 / CASE WHEN bad = ''valid'' THEN 0 ELSE 1 END = 1 AND bad IS DISTINCT FROM ''rejected'' FROM event'),
	pipeline.add_output('b', 'dst');
SELECT pipeline.start('b');
INSERT INTO src
SELECT i, CASE WHEN i % 10 = 0 THEN (ARRAY['a', 'b', 'c', 'query', 'valid', 'rejected'])[i / 10] END, i
FROM generate_series(1, 65) i;
SELECT pipeline.wait_for('b');
SELECT * FROM letters;
-- the good ones are there in their order
SELECT count(*), bool_and(after) FROM (SELECT id > coalesce(lag(id) OVER (ORDER BY place), 0) AS after FROM dst) o;
SELECT * FROM counts;
SELECT stage, events, rows, errors FROM pipeline.stage_stats WHERE pipeline = 'b' ORDER BY position;
-- each alone
INSERT INTO src VALUES (101, 'a', 1);
INSERT INTO src VALUES (102, 'b', 1);
INSERT INTO src VALUES (103, 'c', 1);
SELECT pipeline.wait_for('b');
SELECT event, stage, output, sqlstate FROM letters WHERE event > '100' AND length(event) = 3;
SELECT * FROM counts;
-- an error that the planner finds: of every event, in a stage that has a name
CREATE OR REPLACE FUNCTION c(s src) RETURNS SETOF src LANGUAGE sql STABLE AS
$$ SELECT s.id, s.bad, 1 / 0 $$;
INSERT INTO src VALUES (111, NULL, 1), (112, 'b', 1), (113, NULL, 1);
SELECT pipeline.wait_for('b');
SELECT event, stage, output, sqlstate FROM letters WHERE event LIKE '11_';
SELECT pipeline.drop_pipeline('b');

--
-- Rows after the first one of an event that fail in an early stage.
--
CREATE TABLE many (id int PRIMARY KEY, stage1 int, stage2 int, stage3 int, skip int);
CREATE TABLE parts (place int GENERATED ALWAYS AS IDENTITY, id int, one int, two int, three int);
SELECT pipeline.create_pipeline('b', 'many'),
	-- so many rows, the last of which fails if the number is negative
	pipeline.add_stage('b', 'one', 'transform', query =>
		'SELECT event.*, i AS one, 1 / (i + least(stage1, 0)) AS x FROM event, generate_series(1, abs(stage1)) i'),
	pipeline.add_stage('b', 'odd', 'validate', query => 'SELECT one <> skip OR skip IS NULL FROM event'),
	pipeline.add_stage('b', 'two', 'transform', query =>
		'SELECT event.*, i AS two, 1 / (i + least(stage2, 0)) AS y FROM event, generate_series(1, abs(stage2)) i WHERE skip IS DISTINCT FROM -one'),
	pipeline.add_stage('b', 'three', 'transform', query =>
		'SELECT id, one, two, i AS three, 1 / (i + least(stage3, 0)) + 0 * x + 0 * y AS z FROM event, generate_series(1, abs(stage3)) i'),
	pipeline.add_stage('b', 'four', 'transform', query => 'SELECT id, one, two, three + 0 * z AS three FROM event'),
	pipeline.add_output('b', 'parts'),
	pipeline.start('b');
INSERT INTO many VALUES
	(1, 2, 2, 2, NULL), (2, -2, 1, 1, NULL), (3, -3, 2, 2, NULL), (4, 1, -2, 1, NULL), (5, 2, -2, 3, NULL), (6, 1, 1, -2, NULL), (7, 2, 2, -2, NULL),
	(8, -2, 1, 1, -1), (9, -3, 1, 1, -2), (10, -1, 1, 1, NULL), (11, 2, 1, 1, NULL);
INSERT INTO many VALUES (12, 2, 2, 2, 2), (13, -2, 1, 1, 1), (14, 1, 1, 1, NULL);
SELECT pipeline.wait_for('b');
SELECT * FROM letters;
SELECT id, one, two, three FROM parts ORDER BY place;
SELECT * FROM counts;
SELECT stage, errors FROM pipeline.stage_stats WHERE pipeline = 'b' ORDER BY position;
SELECT pipeline.drop_pipeline('b');

--
-- Outputs: which one failed is told, and an event is in all of them or in none.
--
CREATE TABLE item (id int PRIMARY KEY, bad text);
CREATE TABLE left_side (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, bad text CHECK (bad <> 'left'));
CREATE TABLE right_side (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, bad text CHECK (bad <> 'right'));
CREATE FUNCTION to_left(i item) RETURNS SETOF item LANGUAGE sql STABLE AS
$$ SELECT i.id / CASE WHEN i.bad = 'to_left' THEN 0 ELSE 1 END, i.bad $$;
CREATE FUNCTION to_right(i item) RETURNS SETOF item LANGUAGE sql STABLE AS
$$ SELECT i.id / CASE WHEN i.bad = 'to_right' THEN 0 ELSE 1 END, i.bad FROM generate_series(1, 2) n WHERE n = 1
   UNION ALL SELECT i.id + 1000, i.bad $$;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
	IF NEW.bad = TG_ARGV[0] THEN
		RAISE '% % refused by %', TG_TABLE_NAME, NEW.id, TG_NAME USING ERRCODE = coalesce(TG_ARGV[1], 'P0001');
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER before_left BEFORE INSERT ON left_side FOR EACH ROW EXECUTE FUNCTION refuse('before_left');
CREATE TRIGGER after_right AFTER INSERT ON right_side FOR EACH ROW EXECUTE FUNCTION refuse('after_right');
CREATE CONSTRAINT TRIGGER late_left AFTER INSERT ON left_side DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse('late_left');
CREATE CONSTRAINT TRIGGER late_right AFTER INSERT ON right_side DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse('late_right', 'XX000');
INSERT INTO left_side (id) VALUES (11);
INSERT INTO right_side (id) VALUES (12), (1013);
SELECT pipeline.create_pipeline('b', 'item'),
	pipeline.add_stage('b', 'stage', 'transform', query => 'SELECT id / CASE WHEN bad = ''stage'' THEN 0 ELSE 1 END AS id, bad FROM event'),
	pipeline.add_output('b', 'left_side', transform => 'to_left(item)'),
	pipeline.add_output('b', 'right_side', transform => 'to_right(item)', name => 'right'),
	pipeline.start('b');
INSERT INTO item VALUES (1, NULL), (2, 'left'), (3, 'right'), (4, 'to_left'), (5, 'to_right'), (6, 'stage'), (7, NULL),
	(8, 'before_left'), (9, 'after_right'), (10, NULL), (11, NULL), (12, NULL), (13, NULL), (14, 'late_left'), (15, 'late_right'), (16, NULL);
SELECT pipeline.wait_for('b');
SELECT * FROM letters;
SELECT id FROM left_side ORDER BY place;
SELECT id FROM right_side ORDER BY place;
SELECT * FROM counts;
SELECT stage, events, rows, errors FROM pipeline.stage_stats WHERE pipeline = 'b' ORDER BY position;
-- each alone in its transaction, but in one batch
SELECT pipeline.stop('b');
INSERT INTO item VALUES (21, NULL);
INSERT INTO item VALUES (22, 'late_left');
INSERT INTO item VALUES (23, 'late_right');
INSERT INTO item VALUES (24, 'right');
INSERT INTO item VALUES (25, 'late_left');
INSERT INTO item VALUES (26, NULL);
SELECT pipeline.start('b');
SELECT pipeline.wait_for('b');
SELECT * FROM letters WHERE event LIKE '2_';
SELECT id FROM left_side WHERE id > 20 ORDER BY place;
SELECT * FROM counts;
SELECT pipeline.drop_pipeline('b');

--
-- Event or environment: by evidence.
--
CREATE TABLE probe (id int PRIMARY KEY, bad text);
CREATE TABLE probed (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, bad text);
CREATE TABLE lookup (bad text);
CREATE FUNCTION look(p probe) RETURNS SETOF probe LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF p.bad = 'XX000' THEN
		RAISE 'internal error' USING ERRCODE = 'XX000';
	ELSIF p.bad = '42P01' THEN
		EXECUTE 'SELECT FROM no_such_table';
	END IF;
	PERFORM FROM lookup l WHERE l.bad = p.bad;
	RETURN NEXT p;
END $$;
SELECT pipeline.create_pipeline('b', 'probe'),
	pipeline.add_stage('b', 'valid', 'validate', query => 'SELECT bad IS DISTINCT FROM ''invalid'' FROM event'),
	pipeline.add_stage('b', 'look', 'transform', 'look(probe)'),
	pipeline.add_output('b', 'probed'),
	pipeline.start('b');
-- one of many, at any place; also several in a row at the end, and next to those
-- that never come so far
INSERT INTO probe SELECT i, CASE i WHEN 50 THEN 'XX000' WHEN 60 THEN '42P01' END FROM generate_series(1, 100) i;
INSERT INTO probe VALUES (101, 'XX000'), (102, NULL);
INSERT INTO probe VALUES (103, NULL), (104, '42P01');
INSERT INTO probe VALUES (105, NULL), (106, 'XX000'), (107, 'XX000'), (108, '42P01');
INSERT INTO probe VALUES (109, 'invalid'), (110, NULL), (111, 'XX000'), (112, 'invalid'), (113, 'invalid');
SELECT pipeline.wait_for('b');
SELECT * FROM letters;
SELECT count(*) FROM probed;
SELECT * FROM counts;
-- all of them, and all that come so far
CREATE FUNCTION stands() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
	found record;
BEGIN
	LOOP
		SELECT state, last_error INTO found FROM pipeline.status WHERE pipeline = 'b';
		IF found.state = 'failed' OR clock_timestamp() > until THEN RETURN concat_ws(': ', found.state, found.last_error); END IF;
		PERFORM pipeline.wait_for('b', timeout => '10 ms');
	END LOOP;
END $$;
ALTER TABLE lookup RENAME TO elsewhere;
INSERT INTO probe VALUES (201, NULL), (202, NULL), (203, NULL);
SELECT stands();
ALTER TABLE elsewhere RENAME TO lookup;
SELECT pipeline.wait_for('b');
ALTER TABLE lookup RENAME TO elsewhere;
INSERT INTO probe VALUES (211, 'invalid'), (212, NULL), (213, 'invalid'), (214, 'invalid'), (215, NULL);
SELECT stands();
SELECT count(*) FROM letters WHERE event > '200';
ALTER TABLE elsewhere RENAME TO lookup;
SELECT pipeline.wait_for('b');
SELECT event, kind FROM letters WHERE event > '200' AND length(event) = 3;
SELECT id FROM probed WHERE id > 200 ORDER BY place;
SELECT * FROM counts;
SELECT stage, errors FROM pipeline.stage_stats WHERE pipeline = 'b' ORDER BY position;
SELECT pipeline.drop_pipeline('b');

--
-- Keys, and what shows only at the end.
--
CREATE TABLE node (id int, parent int, kind text);
CREATE TABLE parent (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY);
CREATE TABLE child (place int GENERATED ALWAYS AS IDENTITY, id int UNIQUE DEFERRABLE INITIALLY DEFERRED,
	parent int CONSTRAINT has_parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
	now int CONSTRAINT has_known REFERENCES parent);
CREATE TYPE parent_row AS (id int);
CREATE TYPE child_row AS (id int, parent int, now int);
CREATE FUNCTION to_parent(n node) RETURNS SETOF parent_row LANGUAGE sql STABLE AS
$$ SELECT n.id WHERE n.kind IN ('parent', 'both') $$;
CREATE FUNCTION to_child(n node) RETURNS SETOF child_row LANGUAGE sql STABLE AS
$$ SELECT n.id, n.parent, CASE n.kind WHEN 'now' THEN n.parent END WHERE n.kind IN ('child', 'now', 'both') $$;
CREATE FUNCTION check_node(n node) RETURNS bool LANGUAGE plpgsql STABLE AS
$$ BEGIN IF n.kind = 'bad' THEN RAISE 'bad node'; END IF; RETURN true; END $$;
SELECT pipeline.create_pipeline('b', 'node'),
	pipeline.add_stage('b', 'check', 'validate', 'check_node(node)'),
	-- the child's table first
	pipeline.add_output('b', 'child', transform => 'to_child(node)'),
	pipeline.add_output('b', 'parent', transform => 'to_parent(node)'),
	pipeline.start('b');
CREATE FUNCTION result(low int, OUT parents text, OUT children text, OUT bad text, OUT balanced bool) LANGUAGE sql AS $$
	SELECT (SELECT string_agg(id::text, ' ' ORDER BY place) FROM parent WHERE id BETWEEN low AND low + 99),
		(SELECT string_agg(id::text, ' ' ORDER BY place) FROM child WHERE id BETWEEN low AND low + 99),
		(SELECT string_agg(concat_ws('/', event, coalesce(stage, output, '?'), sqlstate), ' ') FROM letters
		 WHERE event::int BETWEEN low AND low + 99),
		(SELECT bool_and(c.balanced) FROM counts c)
$$;
-- in both orders, alone
INSERT INTO node VALUES (1, NULL, 'parent'), (2, 1, 'child');
INSERT INTO node VALUES (3, 4, 'child'), (4, NULL, 'parent'), (5, 5, 'both');
SELECT pipeline.wait_for('b');
SELECT * FROM result(0);
-- with rows that raise errors before, between and behind them
INSERT INTO node VALUES (101, NULL, 'bad'), (102, 104, 'child'), (103, NULL, 'bad'), (104, NULL, 'parent'), (105, NULL, 'bad'),
	(106, 108, 'child'), (107, 106, 'child'), (108, NULL, 'parent'), (106, NULL, 'parent'), (109, 108, 'child');
SELECT pipeline.wait_for('b');
SELECT * FROM result(100);
-- a parent that is itself bad takes its children with it; one that is there already does not
INSERT INTO node VALUES (201, 203, 'child'), (202, 204, 'child'), (1, NULL, 'parent'), (203, NULL, 'bad'),
	(204, NULL, 'parent'), (205, 203, 'child'), (206, 1, 'child'), (207, 204, 'child');
SELECT pipeline.wait_for('b');
SELECT * FROM result(200);
SELECT event, output, sqlstate FROM letters WHERE event = '1';
-- only children whose parent never comes; and among others, in transactions of one batch
INSERT INTO node SELECT i, 999, 'child' FROM generate_series(301, 305) i;
SELECT pipeline.wait_for('b');
SELECT pipeline.stop('b');
INSERT INTO node VALUES (310, 311, 'child'), (311, NULL, 'parent');
INSERT INTO node VALUES (312, 998, 'child');
INSERT INTO node VALUES (313, 314, 'child'), (314, NULL, 'parent'), (315, 998, 'child'), (316, 314, 'child');
INSERT INTO node VALUES (317, 998, 'child'), (318, 998, 'child');
-- in the next transaction it would be too late
INSERT INTO node VALUES (319, 320, 'child');
INSERT INTO node VALUES (320, NULL, 'parent');
INSERT INTO node VALUES (321, 320, 'child');
SELECT pipeline.start('b');
SELECT pipeline.wait_for('b');
SELECT * FROM result(300);
-- deferred and immediate keys: the second one is the bad one
INSERT INTO node VALUES (401, 1, 'child'), (402, 1, 'child'), (401, 4, 'child'), (403, 1, 'child');
INSERT INTO node VALUES (402, 1, 'child');
INSERT INTO node VALUES (404, NULL, 'parent'), (405, NULL, 'parent'), (404, NULL, 'parent');
-- an immediate foreign key sees the parents of before, and of its statement
INSERT INTO node VALUES (411, 1, 'now'), (412, 997, 'now'), (413, 413, 'parent'), (414, 413, 'now'), (415, 1, 'now');
SELECT pipeline.wait_for('b');
SELECT * FROM result(400);
SELECT reason FROM letters WHERE event IN ('401', '402', '404', '412') ORDER BY reason;
SELECT * FROM counts;
SELECT stage, errors FROM pipeline.stage_stats WHERE pipeline = 'b' ORDER BY position;

--
-- A transaction that is taken in several chunks, with the parent in the last one.
--
INSERT INTO node SELECT i, CASE i WHEN 11001 THEN NULL WHEN 1700 THEN 996 ELSE 11001 END, CASE i WHEN 11001 THEN 'parent' WHEN 5000 THEN 'bad' ELSE 'child' END
FROM generate_series(1001, 11001) i;
SELECT pipeline.wait_for('b');
SELECT count(*), min(id), max(id), bool_and(after) FROM (SELECT id, id > coalesce(lag(id) OVER (ORDER BY place), 0) AS after FROM child WHERE id > 1000) o;
SELECT * FROM letters WHERE event::int > 1000;
SELECT * FROM counts;
SELECT pipeline.drop_pipeline('b');
DROP SCHEMA blame CASCADE;
