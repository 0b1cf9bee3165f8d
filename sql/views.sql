-- What users read: the columns of the views and functions, and what stands in
-- them for one small pipeline.
\t\a
SELECT table_name || ': ' || string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position)
FROM information_schema.columns WHERE table_schema = 'pipeline' GROUP BY table_name ORDER BY table_name;
SELECT format('%s(%s) returns %s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid))
FROM pg_proc WHERE pronamespace = 'pipeline'::regnamespace AND proname NOT LIKE '\_%' ORDER BY proname;
\t\a

CREATE SCHEMA views;
SET search_path = views;
CREATE TABLE src (id int, part text, a text, n numeric, PRIMARY KEY (part, id));
CREATE TABLE look (n numeric PRIMARY KEY, b text);
CREATE TABLE dst (id int PRIMARY KEY, b text);
CREATE TABLE every_one (part text, id int, way bool, n numeric, PRIMARY KEY (id, part));
CREATE TABLE keyless (a text);
INSERT INTO look VALUES (1, 'one'), (2.50, 'two and a half');
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE WHEN s.n < 0 THEN s.n || ' is negative' END $$;
CREATE TYPE row_in AS (id int, part text, a text, n numeric, b text);
CREATE FUNCTION enrich(s src) RETURNS SETOF row_in LANGUAGE sql STABLE AS $$ SELECT s.id, s.part, s.a, s.n, l.b FROM look l WHERE l.n = s.n $$;
CREATE FUNCTION for_dst(r row_in) RETURNS SETOF dst LANGUAGE sql STABLE AS $$ SELECT r.id, r.b WHERE r.part = 'x' $$;
CREATE FUNCTION for_every_one(r row_in) RETURNS SETOF every_one LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT r.part, r.id * i, i = 1, r.n FROM generate_series(1, 2) i; END $$;
CREATE TYPE just_a AS (a text);
CREATE FUNCTION for_keyless(r row_in) RETURNS SETOF just_a LANGUAGE sql STABLE AS $$ SELECT r.a $$;
SELECT pipeline.create_pipeline('v', 'src', partition_by => '{part}'),
	pipeline.add_stage('v', 'valid', 'validate', 'valid(src)'),
	pipeline.add_stage('v', 'enrich', 'enrich', 'enrich(src)'),
	pipeline.add_output('v', 'dst', transform => 'for_dst(row_in)'),
	pipeline.add_output('v', 'every_one', transform => 'for_every_one(row_in)'),
	pipeline.add_output('v', 'keyless', transform => 'for_keyless(row_in)');
SELECT * FROM pipeline.stage_stats WHERE pipeline = 'v' ORDER BY position;
SELECT pipeline.start('v');
INSERT INTO src VALUES (1, 'x', 'a', 1), (2, 'y', 'b', 2.5), (3, 'x', 'c', -1), (4, 'x', 'd', 4);
SELECT pipeline.wait_for('v');
BEGIN;
INSERT INTO src VALUES (5, 'x', 'e', 1);
SAVEPOINT s;
INSERT INTO src VALUES (6, E'"y"\t', NULL, 2.500);
RELEASE s;
COMMIT;
SELECT pipeline.wait_for('v');

SELECT * FROM pipeline.ledger('v');
SELECT pipeline, state, workers, events, produced, filtered, rejected, failed,
	processed_lsn IS NOT NULL AS processed_lsn, lag_bytes >= 0 AS lag_bytes, lag >= '0' AS lag, latency_p50 >= '0' AS p50, latency_p99 >= latency_p50 AS p99,
	retained_wal_bytes >= 0 AS retained, last_error, last_error_at
FROM pipeline.status WHERE pipeline = 'v';
SELECT pipeline, segment, partition, pid IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'pipeline worker') AS pid,
	state, started_at <= now() AS started, processed_lsn IS NOT NULL AS processed_lsn, batches, retries,
	last_event_at <= now() AS last_event, latency_p50 IS NOT NULL AS p50, last_error
FROM pipeline.workers WHERE pipeline = 'v';
SELECT position, stage, kind, events, rows, time >= '0' AS time, errors FROM pipeline.stage_stats WHERE pipeline = 'v' ORDER BY position;
SELECT pipeline, segment, partition, version, redrive, first_lsn <= last_lsn AS lsns, first_seq, last_seq >= first_seq AS last_seq,
	transactions, events, produced, filtered, rejected, failed, attempts, started_at <= processed_at AS times
FROM pipeline.batches WHERE pipeline = 'v' ORDER BY batch_id;

-- A row an event and output, more where an event produced several; keys in
-- the order of the table's columns, as text, number or boolean.
SELECT source, operation, source_key, outcome, reason, output, output_key, part, attempts
FROM pipeline.lineage WHERE pipeline = 'v' ORDER BY (source_key->>'id')::int, output, part;
SELECT count(DISTINCT (commit_lsn, seq)) AS events, count(DISTINCT xid::text) AS transactions, count(DISTINCT batch_id) AS batches,
	bool_and(committed_at <= processed_at) AS times, min(version) AS version
FROM pipeline.lineage WHERE pipeline = 'v';
-- the xid is that of the whole transaction
SELECT l.seq, l.xid = s.xmin AS xid, source_key->'id' AS id FROM pipeline.lineage l
JOIN src s ON s.id = (source_key->>'id')::int WHERE pipeline = 'v' AND output = 'dst' ORDER BY s.id;
-- its sums are the ledger's
SELECT output, count(DISTINCT (commit_lsn, seq)) AS events, count(DISTINCT (commit_lsn, seq)) FILTER (WHERE outcome = 'produced') AS produced
FROM pipeline.lineage WHERE pipeline = 'v' GROUP BY output ORDER BY output;

-- No lineage when none is wanted; all the rest is there.
SELECT pipeline.drop_pipeline('v');
SELECT pipeline.create_pipeline('v', 'src', lineage => 'none'), pipeline.add_stage('v', 'valid', 'validate', 'valid(src)'),
	pipeline.add_stage('v', 'shape', 'transform', query => 'SELECT id, part AS b FROM event'), pipeline.add_output('v', 'dst');
SELECT pipeline.start('v');
INSERT INTO src VALUES (11, 'x', 'a', 1), (12, 'y', 'b', -1), (1, 'double', NULL, 1);
SELECT pipeline.wait_for('v');
SELECT count(*) FROM pipeline.lineage WHERE pipeline = 'v';
SELECT transactions, events, produced, filtered, rejected, failed FROM pipeline.batches WHERE pipeline = 'v';
SELECT stage, kind, sqlstate, event FROM pipeline.dead_letters WHERE pipeline = 'v' ORDER BY event->'id';
SELECT * FROM pipeline.ledger('v');

-- explain: the statement, and a plan for few and one for many events.
CREATE FUNCTION explained(name text) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT regexp_replace(line, '\s*\(cost=.*\)', '') FROM pipeline.explain(name) WITH ORDINALITY AS e(line, n) ORDER BY n $$;
\t\a
SELECT * FROM explained('v');
\t\a
SELECT count(*) = (SELECT count(*) FROM pipeline.explain('v', 1)) AS same FROM pipeline.explain('v');
-- a pipeline that is only being declared can be explained too
SELECT pipeline.create_pipeline('v2', 'src');
SELECT * FROM explained('v2') LIMIT 1;
SELECT pipeline.drop_pipeline('v'), pipeline.drop_pipeline('v2');
SET client_min_messages = warning;
DROP SCHEMA views CASCADE;
