-- Segments: isolated stages and outputs.  What they are declared as, what goes
-- through them, what of an event fails in which of them, and what is refused.
\set SHOW_CONTEXT errors
\set state '\\echo SQLSTATE :SQLSTATE'
CREATE SCHEMA segments;
SET search_path = segments;
CREATE TABLE src (id int PRIMARY KEY, ref int, n int, parts int NOT NULL DEFAULT 1);
CREATE TABLE look (ref int PRIMARY KEY, name text);
CREATE TABLE dst (id int, part int, name text NOT NULL, n int, PRIMARY KEY (id, part));
CREATE TABLE plain (id int PRIMARY KEY, n int);
CREATE TABLE seen (id int, part int, event_seq int, xid xid);
CREATE TYPE piece AS (id int, part int, ref int, n int);
CREATE TYPE named AS (id int, part int, name text, n int);
CREATE TYPE sighting AS (id int, part int, event_seq int, xid xid);
INSERT INTO look SELECT g, 'name ' || g FROM generate_series(1, 5) g;
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN s.n < 0 THEN 'negative' END $$;
CREATE FUNCTION pieces(s src) RETURNS SETOF piece LANGUAGE sql IMMUTABLE AS
$$ SELECT s.id, g, s.ref, s.n / g FROM generate_series(1, s.parts) g $$;
CREATE FUNCTION with_name(p piece) RETURNS SETOF named LANGUAGE sql STABLE AS
$$ SELECT p.id, p.part, l.name, p.n FROM look l WHERE l.ref = p.ref $$;
CREATE FUNCTION fragile(r named) RETURNS SETOF named LANGUAGE plpgsql STABLE AS
$$ BEGIN IF r.n = 13 THEN RAISE 'thirteen'; END IF; RETURN NEXT r; END $$;
CREATE FUNCTION twice(r named) RETURNS SETOF named LANGUAGE sql IMMUTABLE AS
$$ SELECT r.id, r.part * 10 + g, r.name, r.n FROM generate_series(1, 2) g $$;
CREATE FUNCTION to_seen(p piece, e pipeline.event) RETURNS SETOF sighting LANGUAGE sql IMMUTABLE AS
$$ SELECT p.id, p.part, (e).seq, (e).xid $$;
CREATE VIEW letters AS SELECT (event->>'id')::int AS event, (event->>'part')::int AS piece, segment, part, stage, output, kind, reason, attempts, state
FROM pipeline.dead_letters WHERE pipeline = 'seg';
-- the key of the source is in segment 1 only: found by the id of the event
CREATE VIEW outcomes AS SELECT s.event, l.segment, l.output, l.part, l.outcome, l.reason, l.attempts, l.output_key
FROM pipeline.lineage l JOIN (SELECT DISTINCT commit_lsn, seq, (source_key->>'id')::int AS event FROM pipeline.lineage
	WHERE pipeline = 'seg' AND source_key IS NOT NULL) s USING (commit_lsn, seq) WHERE pipeline = 'seg';
CREATE VIEW types AS SELECT c.relname ~ '^log_\d+_\d+$' AS named, regexp_replace(c.relname, '.*_', '') AS segment,
	(SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
	FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
	d.deptype
FROM pg_class c LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = c.reltype AND d.refclassid = 'pg_extension'::regclass
WHERE c.relnamespace = '_pipeline'::regnamespace AND c.relkind = 'c';

-- A first stage is in segment 1 whatever is said; others join the one before.
SELECT pipeline.create_pipeline('seg', 'src'),
	pipeline.add_stage('seg', 'check', 'validate', 'valid(src)', isolate => true),
	pipeline.add_stage('seg', 'cut', 'transform', 'pieces(src)'),
	pipeline.add_output('seg', 'seen', transform => 'to_seen(piece,pipeline.event)', isolate => true);
SELECT stage, isolate, segment FROM pipeline.stages WHERE pipeline = 'seg' ORDER BY position;
SELECT output, isolate, segment FROM pipeline.outputs WHERE pipeline = 'seg' ORDER BY output;
SELECT * FROM types ORDER BY segment;

-- Behind stages, whose numbers are lower; an output that is not isolated goes with
-- the last stage.
SELECT pipeline.drop_output('seg', 'seen'),
	pipeline.add_stage('seg', 'look up', 'enrich', 'with_name(piece)', isolate => true),
	pipeline.add_output('seg', 'dst');
SELECT pipeline.add_stage('seg', 'fragile', 'transform', 'fragile(named)');
SELECT stage, isolate, segment FROM pipeline.stages WHERE pipeline = 'seg' ORDER BY position;
SELECT output, isolate, segment FROM pipeline.outputs WHERE pipeline = 'seg' ORDER BY output;
SELECT * FROM types ORDER BY segment;
SELECT * FROM pipeline.explain('seg', 3) LIMIT 24;
SELECT * FROM pipeline.explain('seg', 2);
:state
SELECT array_agg(line) FROM pipeline.explain('seg') line WHERE line LIKE 'segment%';

-- What each segment makes of the events, and fails to.
SELECT pipeline.start('seg');
INSERT INTO src VALUES (1, 1, 100, 1), (2, 1, -1, 1), (3, 9, 5, 1), (4, 2, 13, 1), (5, 3, 26, 2), (6, 4, 6, 0), (7, 5, 30, 3), (8, NULL, 1, 2);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst ORDER BY id, part;
SELECT * FROM letters ORDER BY event, piece;
SELECT event, segment, output, part, outcome, reason, output_key FROM outcomes ORDER BY event, segment, output, part;
SELECT * FROM pipeline.ledger('seg');
SELECT events, produced, filtered, rejected, failed FROM pipeline.status WHERE pipeline = 'seg';
SELECT segment, position, stage, events, rows, errors FROM pipeline.stage_stats WHERE pipeline = 'seg' ORDER BY position;

-- Run again what failed, in whichever segment.
INSERT INTO look VALUES (9, 'nine');
UPDATE src SET n = 0 WHERE false;
SELECT pipeline.redrive('seg', stage => 'look up');
SELECT pipeline.wait_for('seg');
SELECT event, piece, segment, part, stage, attempts, state FROM letters ORDER BY event, piece;
CREATE OR REPLACE FUNCTION valid(s src) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::text $$;
CREATE OR REPLACE FUNCTION fragile(r named) RETURNS SETOF named LANGUAGE sql IMMUTABLE AS $$ SELECT r.* $$;
SELECT pipeline.redrive('seg');
SELECT pipeline.wait_for('seg');
SELECT event, piece, segment, part, stage, attempts, state FROM letters ORDER BY event, piece;
SELECT pipeline.discard('seg', array_agg(id), 'nobody knows its name') FROM pipeline.dead_letters WHERE pipeline = 'seg' AND state = 'open';
SELECT * FROM dst ORDER BY id, part;
SELECT event, segment, output, part, outcome, attempts FROM outcomes WHERE attempts > 1 ORDER BY event, segment, output, part;
SELECT * FROM pipeline.ledger('seg');
SELECT rejected, failed FROM pipeline.status WHERE pipeline = 'seg';

-- Outputs that are added while it runs begin with what comes then.
CREATE TYPE plain_row AS (id int, n int);
CREATE FUNCTION to_plain(r named) RETURNS SETOF plain_row LANGUAGE sql IMMUTABLE AS $$ SELECT r.id * 10 + r.part, r.n $$;
SELECT pipeline.add_output('seg', 'plain', name => 'counted', transform => 'to_plain(named)', isolate => true);
SELECT output, isolate, segment FROM pipeline.outputs WHERE pipeline = 'seg' ORDER BY output;
SELECT * FROM types ORDER BY segment;
INSERT INTO src VALUES (20, 1, 7, 1), (21, 2, 9, 2);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst WHERE id >= 20 ORDER BY id, part;
SELECT * FROM plain ORDER BY id;
SELECT * FROM pipeline.ledger('seg');

-- A stage would change what is on its way to it.
SELECT pipeline.add_stage('seg', 'late', 'transform', 'twice(named)');
:state
SELECT pipeline.drop_stage('seg', 'look up');
:state
SELECT pipeline.drop_stage('seg', 'check'), pipeline.drop_stage('seg', 'cut');
:state

-- One that goes leaves nothing behind.
SELECT pipeline.drop_output('seg', 'counted');
SELECT * FROM types ORDER BY segment;
SELECT c.segment, count(*) FROM _pipeline.checkpoints c JOIN _pipeline.pipelines p USING (pipeline_id) WHERE name = 'seg' GROUP BY 1 ORDER BY 1;
SELECT DISTINCT c.segment FROM _pipeline.counts c JOIN _pipeline.pipelines p USING (pipeline_id) WHERE name = 'seg' ORDER BY 1;
INSERT INTO src VALUES (30, 1, 7);
SELECT pipeline.wait_for('seg');
SELECT count(*) FROM plain;
SELECT output, events, balanced FROM pipeline.ledger('seg');

-- A segment more while it runs: the outputs move behind it.
SELECT pipeline.add_stage('seg', 'twice', 'transform', 'twice(named)', isolate => true);
SELECT output, segment FROM pipeline.outputs WHERE pipeline = 'seg' ORDER BY output;
SELECT * FROM types ORDER BY segment;
INSERT INTO src VALUES (40, 1, 7, 2);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst WHERE id >= 40 ORDER BY id, part;
SELECT event, segment, output, part, outcome, output_key FROM outcomes WHERE event = 40 ORDER BY segment, output, part, output_key;
SELECT * FROM pipeline.ledger('seg');

-- It goes again: all that was handed over to it is done.
SELECT pipeline.drop_stage('seg', 'twice');
SELECT output, segment FROM pipeline.outputs WHERE pipeline = 'seg' ORDER BY output;
INSERT INTO src VALUES (50, 1, 7, 2);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst WHERE id >= 50 ORDER BY id, part;
SELECT * FROM types ORDER BY segment;

-- What a stage returns may change, while rows are on their way.
ALTER TYPE piece ADD ATTRIBUTE more text;
CREATE OR REPLACE FUNCTION pieces(s src) RETURNS SETOF piece LANGUAGE sql IMMUTABLE AS
$$ SELECT s.id, g, s.ref, s.n / g, 'more' FROM generate_series(1, s.parts) g $$;
CREATE OR REPLACE FUNCTION with_name(p piece) RETURNS SETOF named LANGUAGE sql STABLE AS
$$ SELECT p.id, p.part, l.name || ' ' || p.more, p.n FROM look l WHERE l.ref = p.ref $$;
INSERT INTO src VALUES (60, 1, 7);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst WHERE id >= 60 ORDER BY id, part;
SELECT * FROM types ORDER BY segment;
ALTER TYPE piece DROP ATTRIBUTE more;
CREATE OR REPLACE FUNCTION pieces(s src) RETURNS SETOF piece LANGUAGE sql IMMUTABLE AS
$$ SELECT s.id, g, s.ref, s.n / g FROM generate_series(1, s.parts) g $$;
CREATE OR REPLACE FUNCTION with_name(p piece) RETURNS SETOF named LANGUAGE sql STABLE AS
$$ SELECT p.id, p.part, l.name, p.n FROM look l WHERE l.ref = p.ref $$;
INSERT INTO src VALUES (61, 1, 7);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst WHERE id >= 61 ORDER BY id, part;
SELECT * FROM types ORDER BY segment;

-- Another version that the next segment cannot take changes nothing; one that it can,
-- the row type.
SELECT pipeline.deploy_stage('seg', 'cut', query => 'SELECT id, 1::bigint AS part, ref, n FROM event');
:state
SELECT * FROM types ORDER BY segment;
SELECT pipeline.deploy_stage('seg', 'look up', query => 'SELECT e.id, e.part::int, l.name, e.n FROM event e JOIN look l USING (ref)') > 1 AS deployed;
SELECT pipeline.deploy_stage('seg', 'cut', query => 'SELECT id, 7::bigint AS part, ref, n FROM event') > 1 AS deployed;
SELECT * FROM types ORDER BY segment;
INSERT INTO src VALUES (70, 1, 7);
SELECT pipeline.wait_for('seg');
SELECT * FROM dst WHERE id >= 70 ORDER BY id, part;
SELECT pipeline.drop_pipeline('seg');
SELECT * FROM types ORDER BY segment;

-- Without a stage isolated outputs read the source itself, whatever happens to it.
CREATE TABLE copy1 (id int PRIMARY KEY, n int);
CREATE TABLE copy2 (id int PRIMARY KEY, ref int, n int, parts int);
CREATE FUNCTION to_copy(s src) RETURNS SETOF plain_row LANGUAGE sql IMMUTABLE AS $$ SELECT s.id, s.n $$;
TRUNCATE src;
SELECT pipeline.create_pipeline('direct', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_output('direct', 'copy1', transform => 'to_copy(src)', isolate => true),
	pipeline.add_output('direct', 'copy2', isolate => true),
	pipeline.start('direct');
SELECT output, isolate, segment FROM pipeline.outputs WHERE pipeline = 'direct' ORDER BY output;
INSERT INTO src SELECT g, 1, g FROM generate_series(1, 5) g;
UPDATE src SET n = 20 WHERE id = 2;
UPDATE src SET id = 33 WHERE id = 3;
DELETE FROM src WHERE id = 4;
SELECT pipeline.wait_for('direct');
SELECT * FROM copy1 ORDER BY id;
SELECT * FROM copy2 ORDER BY id;
SELECT * FROM pipeline.ledger('direct');
SELECT events, produced FROM pipeline.status WHERE pipeline = 'direct';
TRUNCATE src;
INSERT INTO src VALUES (7, 7, 7, 7);
SELECT pipeline.wait_for('direct');
SELECT * FROM copy1 ORDER BY id;
SELECT * FROM copy2 ORDER BY id;
SELECT pipeline.add_output('direct', 'copy2', name => 'third');
:state
SELECT pipeline.drop_output('direct', 'copy2');
INSERT INTO src VALUES (8, 8, 8, 8);
SELECT pipeline.wait_for('direct');
SELECT * FROM copy1 ORDER BY id;
SELECT * FROM pipeline.ledger('direct');
SELECT pipeline.drop_pipeline('direct');

-- Changes and removals of source rows, over a hand-over: what a source row made
-- before goes, also if it makes nothing now, whatever the reason.
TRUNCATE src;
CREATE TABLE keyed (key text PRIMARY KEY, name text, n int CHECK (n <> 77));
CREATE TABLE keyed2 (key text PRIMARY KEY, n int);
CREATE TABLE history (key text, n int);
CREATE TYPE key_piece AS (key text, ref int, n int);
CREATE TYPE key_named AS (key text, name text, n int);
CREATE TYPE key_pair AS (key text, n int);
CREATE OR REPLACE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE WHEN s.n < 0 THEN 'negative' END $$;
CREATE FUNCTION key_pieces(s src) RETURNS SETOF key_piece LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF s.n = 13 THEN
		RAISE 'thirteen';
	END IF;
	RETURN QUERY SELECT s.id || '.' || g, s.ref, s.n FROM generate_series(1, s.parts) g;
END $$;
CREATE FUNCTION key_with_name(p key_piece) RETURNS SETOF key_named LANGUAGE sql STABLE AS
$$ SELECT p.key, l.name, p.n FROM look l WHERE l.ref = p.ref $$;
CREATE FUNCTION to_key_pair(r key_named) RETURNS SETOF key_pair LANGUAGE sql STABLE AS $$ SELECT r.key, r.n $$;
CREATE VIEW good AS SELECT s.id || '.' || g AS key, l.name, s.n FROM src s CROSS JOIN generate_series(1, s.parts) g JOIN look l USING (ref)
WHERE n >= 0 AND n NOT IN (13, 77);
CREATE VIEW differences AS SELECT 'keyed' AS output, * FROM (
	(SELECT key, n FROM keyed EXCEPT ALL SELECT key, n FROM good) UNION ALL (SELECT key, n FROM good EXCEPT ALL SELECT key, n FROM keyed)) x
UNION ALL SELECT 'keyed2', * FROM (
	(SELECT key, n FROM keyed2 EXCEPT ALL SELECT key, n FROM good) UNION ALL (SELECT key, n FROM good EXCEPT ALL SELECT key, n FROM keyed2)) x;
SELECT pipeline.create_pipeline('ops', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_stage('ops', 'check', 'validate', 'valid(src)'),
	pipeline.add_stage('ops', 'cut', 'transform', 'key_pieces(src)'),
	pipeline.add_stage('ops', 'name', 'enrich', 'key_with_name(key_piece)', isolate => true),
	pipeline.add_output('ops', 'keyed'),
	pipeline.add_output('ops', 'keyed2', transform => 'to_key_pair(key_named)', isolate => true),
	pipeline.add_output('ops', 'history', transform => 'to_key_pair(key_named)', mode => 'append', isolate => true),
	pipeline.start('ops');
SELECT name, keeps FROM _pipeline.outputs ORDER BY output_id;
INSERT INTO src SELECT g, g % 6, g + 100, g % 4 FROM generate_series(1, 40) g;
SELECT pipeline.wait_for('ops');
SELECT * FROM differences;
UPDATE src SET n = n + 1, parts = (parts + 1) % 4 WHERE id < 20;
UPDATE src SET n = -1 WHERE id = 25;
UPDATE src SET n = 13 WHERE id = 26;
UPDATE src SET n = 77 WHERE id = 27;
UPDATE src SET ref = 100 WHERE id = 28;
UPDATE src SET id = 1000 + id WHERE id IN (29, 30, 31);
DELETE FROM src WHERE id % 7 = 0;
BEGIN; UPDATE src SET n = 300 WHERE id = 33; UPDATE src SET n = 301, parts = 2 WHERE id = 33; DELETE FROM src WHERE id = 34; INSERT INTO src VALUES (34, 1, 302, 1); COMMIT;
SELECT pipeline.wait_for('ops');
SELECT * FROM differences;
SELECT count(*) FROM history;
SELECT segment, kind, operation, count(*) FROM pipeline.dead_letters WHERE pipeline = 'ops' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT output, events, rejected, failed, balanced FROM pipeline.ledger('ops');
-- Later events of their source rows supersede dead letters, of whichever segment.
UPDATE src SET n = 500 WHERE id IN (25, 27);
SELECT pipeline.wait_for('ops');
INSERT INTO look VALUES (100, 'hundred'), (0, 'zero');
ALTER TABLE keyed DROP CONSTRAINT keyed_n_check;
CREATE OR REPLACE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS $$ SELECT NULL::text $$;
CREATE OR REPLACE FUNCTION key_pieces(s src) RETURNS SETOF key_piece LANGUAGE sql STABLE AS
$$ SELECT s.id || '.' || g, s.ref, s.n FROM generate_series(1, s.parts) g $$;
CREATE OR REPLACE VIEW good AS SELECT s.id || '.' || g AS key, l.name, s.n FROM src s CROSS JOIN generate_series(1, s.parts) g JOIN look l USING (ref);
SELECT pipeline.redrive('ops') > 0 AS redriven;
SELECT pipeline.wait_for('ops');
SELECT * FROM differences;
SELECT segment, stage, operation, superseded, state, count(*) FROM pipeline.dead_letters WHERE pipeline = 'ops' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5;
SELECT output, events, rejected, failed, balanced FROM pipeline.ledger('ops');
BEGIN; TRUNCATE src; INSERT INTO src VALUES (1, 1, 1, 3); COMMIT;
SELECT pipeline.wait_for('ops');
SELECT * FROM keyed ORDER BY key;
SELECT * FROM keyed2 ORDER BY key;
SELECT pipeline.drop_pipeline('ops');
SELECT count(*) FROM _pipeline.kept;

-- A row that is deleted does not come over a hand-over, so nobody may wait for it.
CREATE FUNCTION audit(s src, e pipeline.event) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
SELECT pipeline.create_pipeline('ops', 'src', operations => '{insert,delete}'),
	pipeline.add_stage('ops', 'check', 'validate', 'valid(src)'),
	pipeline.add_stage('ops', 'audit', 'transform', 'audit(src,pipeline.event)', isolate => true);
:state

SET client_min_messages = warning;
DROP SCHEMA segments CASCADE;
