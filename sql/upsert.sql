-- Outputs of mode upsert equal their source at rest.
CREATE SCHEMA upsert;
SET search_path = upsert;
CREATE TABLE src (id int PRIMARY KEY, region varchar(5), amount numeric(10,2), u int UNIQUE);

-- A mirror: what a row produced is told from its old row.
CREATE TABLE mirror (LIKE src INCLUDING ALL);
SELECT pipeline.create_pipeline('mirror', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_output('mirror', 'mirror');
SELECT output, mode, key FROM pipeline.outputs WHERE pipeline = 'mirror';

-- Another key, rows that are made by functions, several a row: it is kept.
CREATE TABLE lines (region varchar(5), id int, part int, amount numeric, PRIMARY KEY (region, id, part));
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'negative' WHERE s.amount < 0 $$;
CREATE FUNCTION parts(s src) RETURNS TABLE (region varchar(5), id int, part int, amount numeric) LANGUAGE sql STABLE AS
$$ SELECT s.region, s.id, g, s.amount / 2 FROM generate_series(1, 2) g WHERE s.region <> 'no' $$;
SELECT pipeline.create_pipeline('lines', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_stage('lines', 'valid', 'validate', 'valid(src)'),
	pipeline.add_output('lines', 'lines', transform => 'parts(src)');
-- Many rows of the source for one key: the last one stays.
CREATE TABLE latest (region varchar(5) NOT NULL, id int, amount numeric);
CREATE UNIQUE INDEX ON latest (region);
SELECT pipeline.create_pipeline('latest', 'src', operations => '{insert,update,delete}'),
	pipeline.add_stage('latest', 'shape', 'transform', query => 'SELECT region, id, amount FROM event'),
	pipeline.add_output('latest', 'latest', key => '{region}');
SELECT output, mode, key FROM pipeline.outputs WHERE pipeline = 'latest';
SELECT pipeline.start('mirror'), pipeline.start('lines'), pipeline.start('latest');

CREATE PROCEDURE reached(name text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = name) = wanted THEN RETURN; END IF;
		PERFORM pipeline.wait_for(name, timeout => '10 ms');
		COMMIT;
	END LOOP;
	RAISE 'pipeline "%" is not %', name, wanted;
END $$;
CREATE FUNCTION check_all() RETURNS TABLE (what text, differences bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline.wait_for('mirror'), pipeline.wait_for('lines'), pipeline.wait_for('latest');
	RETURN QUERY
	WITH expected AS (SELECT p.* FROM src s, parts(s) p WHERE valid(s) IS NULL)
	SELECT 'mirror', count(*) FROM ((TABLE src EXCEPT TABLE mirror) UNION ALL (TABLE mirror EXCEPT TABLE src)) d
	UNION ALL
	SELECT 'lines', count(*) FROM ((TABLE expected EXCEPT TABLE lines) UNION ALL (TABLE lines EXCEPT TABLE expected)) d;
END $$;

INSERT INTO src SELECT i, 'r' || i % 3, i, i FROM generate_series(1, 9) i;
SELECT * FROM check_all();
TABLE latest ORDER BY region;
UPDATE src SET amount = amount + 0.5 WHERE id < 4;
UPDATE src SET region = 'r9' WHERE id = 4;
DELETE FROM src WHERE id = 5;
SELECT * FROM check_all();
TABLE latest ORDER BY region;
-- keys change, shift and are swapped
UPDATE src SET id = id + 100 WHERE id IN (1, 2);
UPDATE src SET id = id - 1 WHERE id IN (6, 7, 8, 9);
BEGIN;
UPDATE src SET u = -1 WHERE id = 3;
UPDATE src SET u = 3 WHERE id = 4;
UPDATE src SET u = 4 WHERE id = 3;
UPDATE src SET id = 0 WHERE id = 3;
UPDATE src SET id = 3 WHERE id = 4;
UPDATE src SET id = 4 WHERE id = 0;
COMMIT;
SELECT * FROM check_all();
-- one row several times in a transaction, and gone in the end, or there again
BEGIN;
INSERT INTO src VALUES (20, 'a', 1, 20);
UPDATE src SET amount = 2 WHERE id = 20;
DELETE FROM src WHERE id = 20;
INSERT INTO src VALUES (20, 'b', 3, 20);
INSERT INTO src VALUES (21, 'b', 3, 21);
DELETE FROM src WHERE id = 21;
COMMIT;
SELECT * FROM check_all();
SELECT operation, source_key, outcome, reason, output_key FROM pipeline.lineage
WHERE pipeline = 'mirror' AND source_key->>'id' IN ('20', '21') ORDER BY commit_lsn, seq;
-- rows that become invalid, or are filtered, take away what they had; and come back
UPDATE src SET amount = -amount WHERE id = 20;
UPDATE src SET region = 'no' WHERE id = 101;
SELECT * FROM check_all();
UPDATE src SET amount = -amount WHERE id = 20;
UPDATE src SET region = 'some' WHERE id = 101;
SELECT * FROM check_all();
SELECT kind, stage, reason, operation, event FROM pipeline.dead_letters WHERE pipeline = 'lines';
-- what another row wrote since is not taken away
INSERT INTO src VALUES (30, 'last', 1, 30);
INSERT INTO src VALUES (31, 'last', 2, 31);
DELETE FROM src WHERE id = 30;
SELECT * FROM check_all();
SELECT * FROM latest WHERE region = 'last';
DELETE FROM src WHERE id = 31;
SELECT * FROM check_all();
SELECT * FROM latest WHERE region = 'last';

-- all at once
TRUNCATE src;
SELECT * FROM check_all();
SELECT count(*) FROM _pipeline.kept k JOIN _pipeline.outputs USING (output_id) WHERE name = 'lines';
SELECT operation, outcome, reason, output_key FROM pipeline.lineage WHERE pipeline = 'mirror' ORDER BY commit_lsn DESC, seq DESC LIMIT 1;
BEGIN;
INSERT INTO src VALUES (1, 'a', 1, 1);
TRUNCATE src;
INSERT INTO src VALUES (2, 'a', 1, 2);
COMMIT;
SELECT * FROM check_all();
TABLE mirror;
SELECT output, produced + filtered + rejected + failed = events AS sums, balanced FROM pipeline.ledger('mirror');
SELECT output, balanced FROM pipeline.ledger('lines');

-- keys that are never the same again: what a row has now is what its last change made
CREATE TABLE tickets (ticket uuid PRIMARY KEY, id int, amount numeric);
CREATE FUNCTION ticket(s src) RETURNS SETOF tickets LANGUAGE sql VOLATILE AS $$ SELECT gen_random_uuid(), s.id, s.amount FROM generate_series(1, 2) $$;
SET client_min_messages = warning;
SELECT pipeline.create_pipeline('tickets', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_output('tickets', 'tickets', transform => 'ticket(src)'), pipeline.start('tickets');
RESET client_min_messages;
INSERT INTO src SELECT i, 't', i, i FROM generate_series(200, 204) i;
SELECT pipeline.wait_for('tickets');
UPDATE src SET amount = amount + 1 WHERE id > 201;
UPDATE src SET id = id + 1000 WHERE id IN (200, 204);
DELETE FROM src WHERE id = 203;
SELECT pipeline.wait_for('tickets');
SELECT id, amount, count(*) FROM tickets GROUP BY id, amount ORDER BY id;
DELETE FROM src WHERE region = 't';
SELECT pipeline.wait_for('tickets');
TABLE tickets;
SELECT pipeline.drop_pipeline('tickets');

-- an output that others write cannot be emptied
CREATE TABLE other (LIKE src INCLUDING ALL);
SELECT pipeline.create_pipeline('other', 'other'), pipeline.add_output('other', 'mirror', mode => 'upsert');
TRUNCATE src;
INSERT INTO src VALUES (3, 'a', 1, 3);
CALL reached('mirror', 'failed');
SELECT pipeline.wait_for('lines');
SELECT state, last_error FROM pipeline.status WHERE pipeline = 'mirror' \gset
\echo :last_error
SELECT pipeline.drop_output('other', 'mirror');
SELECT pipeline.restart('mirror');
SELECT * FROM check_all();

SELECT pipeline.drop_pipeline('mirror'), pipeline.drop_pipeline('lines'), pipeline.drop_pipeline('latest'), pipeline.drop_pipeline('other');
SELECT count(*) FROM _pipeline.kept;

-- What is refused.
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
CREATE TABLE no_key (id int, v int);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, v int);
CREATE TABLE partial (id int NOT NULL, v int);
CREATE UNIQUE INDEX ON partial (id) WHERE v > 0;
CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY, v int PRIMARY KEY);
CREATE TABLE ruled (id int PRIMARY KEY, v int);
CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE TABLE good (id int PRIMARY KEY, v int);
SELECT pipeline.create_pipeline('u', 'good');
SELECT pipeline.add_output('u', 'no_key', mode => 'upsert');
:state
SELECT pipeline.add_output('u', 'deferred', mode => 'upsert');
:state
SELECT pipeline.add_output('u', 'partial', mode => 'upsert', key => '{id}');
:state
SELECT pipeline.add_output('u', 'mirror', mode => 'upsert', key => '{region}');
:state
SELECT pipeline.add_output('u', 'ruled', mode => 'upsert');
:state
SELECT pipeline.add_output('u', 'always', mode => 'upsert');
:state
SELECT pipeline.add_output('u', 'good', mode => 'upsert', key => '{}');
:state
SELECT pipeline.add_output('u', 'no_key', mode => 'append', key => '{id}');
:state
SELECT pipeline.create_pipeline('n', 'no_key');
SELECT pipeline.add_output('n', 'good', mode => 'upsert');
:state
SELECT pipeline.drop_pipeline('u'), pipeline.drop_pipeline('n');

-- What is run, as it is shown.
CREATE TABLE shown (LIKE good INCLUDING ALL);
SELECT pipeline.create_pipeline('e', 'good', operations => '{insert,update,delete}'), pipeline.add_output('e', 'shown');
SELECT * FROM pipeline.explain('e') WITH ORDINALITY AS l (line, n)
WHERE n < (SELECT min(x.n) FROM pipeline.explain('e') WITH ORDINALITY AS x (line, n) WHERE x.line LIKE 'plan for%');
-- _put takes what the statement makes, and nothing else.
SELECT pipeline._put(1, 0, NULL);
CREATE FUNCTION bogus(g good) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN pipeline._put(1, 0, ROW(g.id)); END $$;
SELECT pipeline.add_stage('e', 'bogus', 'validate', 'bogus(good)'), pipeline.start('e');
INSERT INTO good VALUES (1, 1);
CALL reached('e', 'failed');
SELECT last_error FROM pipeline.status WHERE pipeline = 'e';
SELECT pipeline.drop_pipeline('e');
SET client_min_messages = warning;
DROP SCHEMA upsert CASCADE;
