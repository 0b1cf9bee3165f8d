-- A partitioned table as a source: the rows of all its partitions, on whatever
-- level and with whatever layout, are rows of it; a partition, or a table between
-- the two, may be a source besides.
CREATE SCHEMA partitions;
SET search_path = partitions;
CREATE TABLE m (
	dropped int,
	id int NOT NULL,
	region text NOT NULL,
	note text DEFAULT 'default',
	amount numeric(10,2),
	twice int GENERATED ALWAYS AS (id * 2) STORED) PARTITION BY LIST (region);
ALTER TABLE m DROP COLUMN dropped;
CREATE TABLE m_north PARTITION OF m FOR VALUES IN ('north');
CREATE TABLE m_south PARTITION OF m FOR VALUES IN ('south') PARTITION BY RANGE (id);
CREATE TABLE m_south_low PARTITION OF m_south FOR VALUES FROM (0) TO (100);
-- columns in another order, and dropped ones
CREATE TABLE m_south_high (
	gone1 text,
	amount numeric(10,2),
	gone2 int,
	twice int GENERATED ALWAYS AS (id * 2) STORED,
	region text NOT NULL,
	id int NOT NULL,
	note text,
	gone3 int);
ALTER TABLE m_south_high DROP COLUMN gone1, DROP COLUMN gone2, DROP COLUMN gone3;
ALTER TABLE m_south ATTACH PARTITION m_south_high FOR VALUES FROM (100) TO (1000);
ALTER TABLE m_north REPLICA IDENTITY FULL;
ALTER TABLE m_south_low REPLICA IDENTITY FULL;
ALTER TABLE m_south_high REPLICA IDENTITY FULL;

CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, id int, region text, note text, amount numeric(10,2), twice int);
CREATE TABLE seen_south (LIKE seen INCLUDING ALL);
CREATE TABLE seen_high (LIKE seen INCLUDING ALL);
-- What triggers saw.
CREATE TABLE oracle (LIKE seen INCLUDING ALL, op text, parts text[]);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE parts text[] := ARRAY(SELECT relid::text FROM pg_partition_ancestors(TG_RELID));
BEGIN
	IF TG_OP = 'DELETE' THEN
		INSERT INTO oracle (id, op, parts) VALUES (OLD.id, TG_OP, parts);
	ELSE
		INSERT INTO oracle (id, region, note, amount, twice, op, parts)
		SELECT NEW.id, NEW.region, NEW.note, NEW.amount, t.twice, TG_OP, parts
		FROM m t WHERE t.tableoid = TG_RELID AND t.id = NEW.id;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON m FOR EACH ROW EXECUTE FUNCTION note();

-- A role that may read the table, and none of its partitions.
CREATE ROLE partitions_owner LOGIN;
GRANT USAGE ON SCHEMA pipeline, partitions TO partitions_owner;
GRANT SELECT ON m TO partitions_owner;
GRANT INSERT ON seen TO partitions_owner;
SET ROLE partitions_owner;
SELECT pipeline.create_pipeline('south', 'm_south');
SELECT pipeline.create_pipeline('root', 'm', operations => '{insert,update,delete,truncate}'),
	pipeline.add_stage('root', 'columns', 'transform', query => 'SELECT id, region, note, amount, twice FROM event'),
	pipeline.add_output('root', 'seen', mode => 'append'),
	pipeline.start('root');
RESET ROLE;
SELECT pipeline.create_pipeline('south', 'm_south', operations => '{insert,update,delete,truncate}'),
	pipeline.add_stage('south', 'columns', 'transform', query => 'SELECT id, region, note, amount, twice FROM event'),
	pipeline.add_output('south', 'seen_south', mode => 'append'),
	pipeline.start('south');
SELECT pipeline.create_pipeline('high', 'm_south_high', operations => '{insert,update,delete,truncate}'),
	pipeline.add_stage('high', 'columns', 'transform', query => 'SELECT id, region, note, amount, twice FROM event'),
	pipeline.add_output('high', 'seen_high', mode => 'append'),
	pipeline.start('high');

-- Wait, and count what differs from what triggers saw, in order.
CREATE FUNCTION differs(name text, source text, seen text, OUT events bigint, OUT filtered bigint, OUT produced bigint,
	OUT deletes bigint, OUT differ bigint) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT pipeline.wait_for(name, timeout => '30s') THEN
		RAISE 'pipeline % did not catch up: %', name, (SELECT to_jsonb(s) FROM pipeline.status s WHERE s.pipeline = name);
	END IF;
	EXECUTE format('
		WITH s AS (SELECT row_number() OVER (ORDER BY n) AS place, id, region, note, amount, twice FROM %I),
			o AS (SELECT row_number() OVER (ORDER BY n) AS place, id, region, note, amount, twice FROM oracle
				WHERE op <> ''DELETE'' AND %L = ANY (parts))
		SELECT (SELECT count(*) FROM oracle WHERE op = ''DELETE'' AND %2$L = ANY (parts)),
			count(*) FILTER (WHERE s IS DISTINCT FROM o) FROM s FULL JOIN o USING (place)', seen, source)
	INTO deletes, differ;
	SELECT l.events, l.filtered, l.produced INTO events, filtered, produced FROM pipeline.ledger(name) l;
END $$;
CREATE VIEW differences AS
SELECT 'root' AS pipeline, * FROM differs('root', 'm', 'seen')
UNION ALL SELECT 'south', * FROM differs('south', 'm_south', 'seen_south')
UNION ALL SELECT 'high', * FROM differs('high', 'm_south_high', 'seen_high');

-- Into the table, the table between and partitions.
INSERT INTO m (id, region, note, amount) VALUES (1, 'north', 'one', 1.5), (2, 'south', DEFAULT, 2), (200, 'south', 'high', NULL);
INSERT INTO m_south VALUES (3, 'south', 'by the middle', 3), (300, 'south', NULL, 0.01);
INSERT INTO m_south_high (id, region, note) VALUES (301, 'south', 'by the partition');
COPY m (id, region, note) FROM STDIN;
4	north	copied
5	south	copied
302	south	\N
\.
SELECT * FROM differences;
UPDATE m SET note = note || '!', amount = amount + 1 WHERE id IN (1, 2, 301);
UPDATE m_south SET amount = -id;
-- Rows move: from partition to partition, within the table between and beyond.
UPDATE m SET region = 'north' WHERE id = 2;
UPDATE m_south SET id = id + 100 WHERE id = 5;
UPDATE m SET id = id - 90, region = 'south', note = 'moved' WHERE id IN (105, 300);
UPDATE m SET id = 50, region = 'south' WHERE id = 1;
SELECT tableoid::regclass, * FROM m ORDER BY id;
DELETE FROM m WHERE id IN (200, 2);
DELETE FROM m_south_high WHERE id = 301;
SELECT * FROM differences;
SELECT id, region, note, amount, twice FROM seen ORDER BY n;

-- A column with a default that no row has on disk; partitions have another one
-- than the table, and old rows that are logged are shorter than the new ones.
ALTER TABLE m_south_high REPLICA IDENTITY FULL;
ALTER TABLE m ADD later text DEFAULT 'later';
ALTER TABLE m_south_high ALTER later SET DEFAULT 'of the partition';
ALTER TABLE m ADD even_later int NOT NULL DEFAULT 7;
UPDATE m SET note = 'short' WHERE id IN (302, 4);
DELETE FROM m WHERE id = 302;
ALTER TABLE m DROP COLUMN later;
INSERT INTO m (id, region) VALUES (6, 'south'), (303, 'south');
SELECT * FROM differences;

-- A partition is attached and detached in the middle of transactions: what is
-- written into it before and after is no event of the table.
CREATE TABLE m_late (id int NOT NULL, even_later int NOT NULL DEFAULT 8, region text NOT NULL, amount numeric(10,2),
	twice int GENERATED ALWAYS AS (id * 2) STORED, note text DEFAULT 'late');
INSERT INTO m_late (id, region, note) VALUES (400, 'late', 'before');
BEGIN;
INSERT INTO m_late (id, region, note) VALUES (401, 'late', 'before, in its transaction');
ALTER TABLE m ATTACH PARTITION m_late FOR VALUES IN ('late');
INSERT INTO m (id, region, note) VALUES (402, 'late', 'attached');
SAVEPOINT s;
ALTER TABLE m DETACH PARTITION m_late;
INSERT INTO m_late (id, region, note) VALUES (403, 'late', 'undone');
ROLLBACK TO s;
UPDATE m SET note = 'changed' WHERE id IN (400, 402);
COMMIT;
INSERT INTO m_late (id, region) VALUES (404, 'late');
BEGIN;
DELETE FROM m WHERE id = 401;
ALTER TABLE m DETACH PARTITION m_late;
DELETE FROM m_late WHERE id = 402;
COMMIT;
INSERT INTO m_late (id, region) VALUES (405, 'late');
ALTER TABLE m ATTACH PARTITION m_late FOR VALUES IN ('late');
UPDATE m SET note = 'once more' WHERE id = 405;
ALTER TABLE m DETACH PARTITION m_late CONCURRENTLY;
INSERT INTO m_late (id, region) VALUES (406, 'late');
SELECT * FROM differences;
-- The same with a partitioned table, whose partition capture has seen before.
CREATE TABLE m_west (LIKE m INCLUDING ALL) PARTITION BY RANGE (id);
CREATE TABLE m_west_1 PARTITION OF m_west FOR VALUES FROM (0) TO (1000);
INSERT INTO m_west (id, region, note) VALUES (500, 'west', 'before');
SELECT * FROM differences;
ALTER TABLE m ATTACH PARTITION m_west FOR VALUES IN ('west');
INSERT INTO m_west_1 (id, region, note) VALUES (501, 'west', 'attached');
INSERT INTO m (id, region, note) VALUES (502, 'west', 'attached');
BEGIN;
UPDATE m SET note = 'attached' WHERE id = 500;
ALTER TABLE m DETACH PARTITION m_west;
UPDATE m_west SET note = 'detached' WHERE id = 500;
COMMIT;
CREATE TABLE m_east PARTITION OF m DEFAULT;
INSERT INTO m (id, region) VALUES (600, 'east');
DROP TABLE m_east;
SELECT * FROM differences;
SELECT id, region, note, amount, twice FROM seen WHERE id >= 400 ORDER BY n;

-- One TRUNCATE is one event, of the table and of each source below it.
TRUNCATE m;
INSERT INTO m (id, region) VALUES (1, 'north'), (2, 'south'), (102, 'south');
TRUNCATE m_south;
TRUNCATE m_north, m_south_low;
TRUNCATE m_south_high;
SELECT pipeline, filtered - deletes AS truncates, differ FROM differences;

-- A dead letter has the row as one of the table, and is run again as such.
ALTER TABLE seen ADD CONSTRAINT good CHECK (note <> 'bad');
INSERT INTO m (id, region, note, amount) VALUES (110, 'south', 'bad', 1), (111, 'south', 'good', 2);
SELECT pipeline.wait_for('root');
SELECT kind, event, source, sqlstate FROM pipeline.dead_letters WHERE pipeline = 'root';
ALTER TABLE seen DROP CONSTRAINT good;
SELECT pipeline.redrive('root');
SELECT pipeline.wait_for('root');
SELECT id, region, note, amount, twice FROM seen WHERE id IN (110, 111) ORDER BY n;

-- A partition on its own is what it was when its table is gone.
ALTER TABLE m DETACH PARTITION m_south;
DROP TABLE m;
INSERT INTO m_south (id, region, note) VALUES (700, 'south', 'alone');
SELECT pipeline.wait_for('south'), pipeline.wait_for('high');
SELECT id, region, note, twice FROM seen_south WHERE id = 700;
SELECT id, region, note, twice FROM seen_high WHERE id = 700;
SELECT pipeline, kind, reason FROM pipeline.dead_letters WHERE pipeline IN ('root', 'south', 'high');
SELECT pipeline.drop_pipeline('root'), pipeline.drop_pipeline('south'), pipeline.drop_pipeline('high');

RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA partitions CASCADE;
DROP OWNED BY partitions_owner;
DROP ROLE partitions_owner;
