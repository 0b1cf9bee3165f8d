-- Dead letters: run again all, some, or those of a stage; again in vain; given
-- up on.  Lineage shows the latest, and the ledger stays balanced throughout.
CREATE SCHEMA deadletters;
SET search_path = deadletters;
CREATE TABLE src (id int PRIMARY KEY, a text, ref int);
CREATE TABLE look (ref int PRIMARY KEY, b text);
CREATE TABLE dst (id int PRIMARY KEY, a text, b text NOT NULL);
CREATE TABLE log (id int, b text);
CREATE TYPE looked_up AS (id int, a text, b text);
CREATE TYPE log_row AS (id int, b text);
INSERT INTO look VALUES (1, 'one'), (2, NULL);
CREATE FUNCTION check_a(s src) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE WHEN s.a = 'bad' THEN 'a is bad' END $$;
CREATE FUNCTION with_b(s src) RETURNS SETOF looked_up LANGUAGE sql STABLE AS
$$ SELECT s.id, s.a, l.b FROM look l WHERE l.ref = s.ref $$;
CREATE FUNCTION fragile(l looked_up) RETURNS SETOF looked_up LANGUAGE plpgsql STABLE AS
$$ BEGIN IF l.a = 'fragile' THEN RAISE 'it broke'; END IF; RETURN NEXT l; END $$;
CREATE FUNCTION for_log(l looked_up) RETURNS SETOF log_row LANGUAGE sql STABLE AS
$$ SELECT l.id, l.b WHERE l.a <> 'quiet' $$;
CREATE VIEW letters AS SELECT id, (event->>'id')::int AS event, stage, kind, reason, attempts, state, queued
FROM pipeline.dead_letters WHERE pipeline = 'dl';
CREATE VIEW outcomes AS SELECT (source_key->>'id')::int AS event, output, outcome, reason, l.attempts,
	b.redrive FROM pipeline.lineage l JOIN pipeline.batches b USING (pipeline, batch_id) WHERE pipeline = 'dl';

SELECT pipeline.create_pipeline('dl', 'src'),
	pipeline.add_stage('dl', 'check', 'validate', 'check_a(src)'),
	pipeline.add_stage('dl', 'look up', 'enrich', 'with_b(src)'),
	pipeline.add_stage('dl', 'fragile', 'transform', 'fragile(looked_up)'),
	pipeline.add_output('dl', 'dst'),
	pipeline.add_output('dl', 'log', transform => 'for_log(looked_up)'),
	pipeline.start('dl');
INSERT INTO src VALUES (1, 'good', 1), (2, 'bad', 1), (3, 'no match', 3), (4, 'fragile', 1),
	(5, 'not null', 2), (6, 'quiet', 3), (7, 'quiet', 1), (8, 'bad', 1);
SELECT pipeline.wait_for('dl');
SELECT event, stage, kind, reason, attempts, state, queued FROM letters ORDER BY event;
SELECT event, output, outcome, reason, attempts FROM outcomes ORDER BY 1, 2;
SELECT * FROM pipeline.ledger('dl');

-- All of them again, in vain: as before, with one attempt more.
SELECT pipeline.redrive('dl');
SELECT pipeline.wait_for('dl');
SELECT event, stage, kind, reason, attempts, state, queued FROM letters ORDER BY event;
SELECT event, output, outcome, attempts, redrive FROM outcomes ORDER BY 1, 2;
SELECT * FROM pipeline.ledger('dl');

-- Those of a stage, after the repair; an event may also be filtered now, and
-- one may come to grief in a later stage than before.
INSERT INTO look VALUES (3, NULL);
SELECT pipeline.redrive('dl', stage => 'look up');
SELECT pipeline.wait_for('dl');
SELECT event, stage, kind, reason, attempts, state FROM letters WHERE event IN (3, 6) ORDER BY event;
UPDATE look SET b = 'three' WHERE ref = 3;
SELECT pipeline.redrive('dl', stage => 'look up');
SELECT pipeline.redrive('dl', ids => array_agg(id)) FROM letters WHERE event IN (3, 6);
SELECT pipeline.wait_for('dl');
SELECT event, stage, attempts, state FROM letters WHERE event IN (3, 6) ORDER BY event;
SELECT event, output, outcome, reason, attempts FROM outcomes WHERE event IN (3, 6) ORDER BY 1, 2;
SELECT * FROM pipeline.ledger('dl');

-- What is redriven is not open any more; ids that are not there are ignored.
SELECT pipeline.redrive('dl', ids => array_agg(id)) FROM letters WHERE event IN (3, 6);
SELECT pipeline.redrive('dl', ids => '{}');
SELECT pipeline.redrive('dl', ids => '{-1, NULL}');
SELECT pipeline.discard('dl', array_agg(id), 'too late') FROM letters WHERE event IN (3, 6);

-- Given up on: neither redriven nor discarded again.  A second redrive of the
-- same letters finds them queued.
SELECT pipeline.discard('dl', array_agg(id), 'not worth it') FROM letters WHERE event = 8;
SELECT pipeline.discard('dl', array_agg(id), 'again') FROM letters WHERE event = 8;
SELECT pipeline.redrive('dl', ids => array_agg(id)) FROM letters WHERE event = 8;
SELECT event, attempts, state, queued FROM letters WHERE event = 8;
SELECT action, (detail->>'why') AS why FROM pipeline.audit_log WHERE pipeline = 'dl' AND action = 'discard' ORDER BY id DESC LIMIT 1;
SELECT event, output, outcome, reason FROM outcomes WHERE event = 8 ORDER BY 2;
SELECT pipeline.stop('dl');
SELECT pipeline.redrive('dl', stage => 'fragile');
SELECT pipeline.redrive('dl', stage => 'fragile');
SELECT event, state, queued FROM letters WHERE event = 4;

-- Rolled back means not queued.  What is queued while the pipeline is stopped
-- is run when it starts, with today's code, and a discard takes it back.
BEGIN;
SELECT pipeline.redrive('dl', ids => array_agg(id)) FROM letters WHERE event = 2;
ROLLBACK;
SELECT pipeline.redrive('dl', ids => array_agg(id)) FROM letters WHERE event = 5;
SELECT pipeline.discard('dl', array_agg(id), 'thought better of it') FROM letters WHERE event = 5;
SELECT event, state, queued FROM letters WHERE event IN (2, 5) ORDER BY event;
CREATE OR REPLACE FUNCTION fragile(l looked_up) RETURNS SETOF looked_up LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT l; END $$;
SELECT pipeline.start('dl');
SELECT pipeline.wait_for('dl');
SELECT event, attempts, state FROM letters WHERE event IN (2, 4, 5) ORDER BY event;
SELECT event, output, outcome, attempts FROM outcomes WHERE event IN (2, 4, 5) ORDER BY 1, 2;

-- A letter is run with the stages and outputs of today: one that was added
-- since gets the event too.
CREATE TABLE later (id int, a text, b text);
SELECT pipeline.add_output('dl', 'later'), pipeline.drop_stage('dl', 'check');
SELECT pipeline.redrive('dl');
INSERT INTO src VALUES (9, 'bad', 1);
SELECT pipeline.wait_for('dl');
SELECT * FROM later ORDER BY id;
SELECT event, stage, attempts, state FROM letters ORDER BY event;
SELECT event, output, outcome, attempts FROM outcomes WHERE event IN (2, 9) ORDER BY 1, 2;
SELECT * FROM pipeline.ledger('dl');
SELECT events, produced, filtered, rejected, failed FROM pipeline.status WHERE pipeline = 'dl';
SELECT * FROM dst ORDER BY id;
SELECT * FROM log ORDER BY id;

-- Redriven and started in one transaction; a letter that waits when a
-- pipeline that lost its position skips to now is run all the same.
SELECT pipeline.add_stage('dl', 'never', 'validate', query => 'SELECT id < 10 FROM event');
INSERT INTO src VALUES (10, 'ten', 1), (11, 'eleven', 1);
SELECT pipeline.wait_for('dl');
SELECT pipeline.stop('dl'), pipeline.drop_stage('dl', 'never');
BEGIN;
SELECT pipeline.redrive('dl', ids => array_agg(id)) FROM letters WHERE event = 10;
SELECT pipeline.start('dl');
COMMIT;
SELECT pipeline.wait_for('dl');
SELECT event, stage, attempts, state FROM letters WHERE event >= 10 ORDER BY event;
SELECT pipeline.stop('dl');
SELECT pipeline.redrive('dl');
UPDATE _pipeline.checkpoints SET slot_lsn = '0/1'
WHERE pipeline_id = (SELECT pipeline_id FROM _pipeline.pipelines WHERE name = 'dl');
SELECT pipeline.start('dl', skip_to_now => true);
INSERT INTO src VALUES (12, 'after the gap', 1);
SELECT pipeline.wait_for('dl');
SELECT event, stage, attempts, state, queued FROM letters WHERE event >= 10 ORDER BY event;
SELECT id FROM dst WHERE id >= 10 ORDER BY id;
SELECT * FROM pipeline.ledger('dl');

SELECT pipeline.drop_pipeline('dl');
SELECT count(*) FROM letters;

-- A letter that does not fit the source of today is run in vain, alone.
CREATE TABLE retyped (id int PRIMARY KEY, a text);
CREATE TABLE ids (id int PRIMARY KEY);
SELECT pipeline.create_pipeline('dl', 'retyped'),
	pipeline.add_stage('dl', 'no', 'validate', query => 'SELECT false FROM event'),
	pipeline.add_stage('dl', 'id', 'transform', query => 'SELECT id FROM event'),
	pipeline.add_output('dl', 'ids'),
	pipeline.start('dl');
INSERT INTO retyped VALUES (1, '1'), (2, 'two'), (3, '3');
SELECT pipeline.wait_for('dl');
SELECT pipeline.drop_stage('dl', 'no');
ALTER TABLE retyped ALTER a TYPE int USING 0;
SELECT pipeline.redrive('dl');
SELECT pipeline.wait_for('dl');
SELECT * FROM ids ORDER BY id;
SELECT event, stage, kind, reason, attempts, state, queued FROM letters ORDER BY event;
SELECT * FROM pipeline.ledger('dl');
SELECT pipeline.drop_pipeline('dl');

-- A row that has no jsonb: the letter has its columns as text, says why, and is
-- not run again; all others are, and it can be given up on.  A column that has no
-- text either is null.
CREATE TYPE mute;
CREATE FUNCTION mute_in(cstring) RETURNS mute LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION mute_out(mute) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'trigger_out';
CREATE TYPE mute (INPUT = mute_in, OUTPUT = mute_out, LIKE = int);
CREATE TABLE docs (id int PRIMARY KEY, doc json, gone int, note text, tags text[], m mute);
ALTER TABLE docs DROP gone;
CREATE TABLE doc_copy (id int PRIMARY KEY, note text);
CREATE TYPE doc_row AS (id int, note text);
CREATE FUNCTION read_doc(d docs) RETURNS doc_row LANGUAGE plpgsql STABLE AS
$$ BEGIN IF d.note = 'bad' THEN RAISE 'it broke'; END IF; RETURN (d.id, d.note)::doc_row; END $$;
SELECT pipeline.create_pipeline('dl', 'docs'),
	pipeline.add_stage('dl', 'read', 'transform', 'read_doc(docs)'),
	pipeline.add_output('dl', 'doc_copy'),
	pipeline.start('dl');
INSERT INTO docs VALUES (1, '{"a": "\u0000"}', 'good', NULL, '1'), (2, '{"a": "\u0000"}', 'bad', '{x,"y z"}', NULL),
	(3, '{"a": "b"}', 'bad', NULL, NULL), (4, NULL, 'good', NULL, NULL), (5, '{}', 'bad', NULL, '1');
SELECT pipeline.wait_for('dl');
SELECT * FROM doc_copy ORDER BY id;
SELECT event, reason, (regexp_split_to_array(context, E'\n'))[2:] AS note, attempts, state FROM pipeline.dead_letters ORDER BY seq;
CREATE OR REPLACE FUNCTION read_doc(d docs) RETURNS doc_row LANGUAGE sql STABLE AS
$$ SELECT (d.id, d.note)::doc_row $$;
SELECT pipeline.redrive('dl');
INSERT INTO docs VALUES (6, '{}', 'later');
SELECT pipeline.wait_for('dl');
SELECT * FROM doc_copy ORDER BY id;
SELECT event, reason, sqlstate, detail, context, attempts, state, queued FROM pipeline.dead_letters ORDER BY seq;
SELECT pipeline.redrive('dl');
SELECT pipeline.wait_for('dl');
SELECT pipeline.discard('dl', array_agg(id), 'no text') FROM letters WHERE state = 'open';
SELECT event, kind, attempts, state, queued FROM letters ORDER BY event;
SELECT * FROM pipeline.ledger('dl');
SELECT pipeline.drop_pipeline('dl');

-- A letter whose error is one of the environment is run in vain, alone, even
-- without another event: the pipeline goes on.
CREATE TABLE names (id int PRIMARY KEY, t text);
CREATE FUNCTION look_into(n names) RETURNS names LANGUAGE plpgsql AS
$$ BEGIN EXECUTE 'SELECT 1 FROM deadletters.' || n.t; RETURN n; END $$;
CREATE TABLE seen (id int PRIMARY KEY, t text);
SELECT pipeline.create_pipeline('dl', 'names'),
	pipeline.add_stage('dl', 'look', 'transform', 'look_into(names)'),
	pipeline.add_output('dl', 'seen'),
	pipeline.start('dl');
INSERT INTO names VALUES (1, 'look'), (2, 'missing'), (3, 'look');
SELECT pipeline.wait_for('dl');
SELECT event, reason, attempts, state, queued FROM letters ORDER BY event;
SELECT pipeline.redrive('dl');
INSERT INTO names VALUES (4, 'look');
SELECT pipeline.wait_for('dl');
SELECT * FROM seen ORDER BY id;
SELECT event, stage, reason, attempts, state, queued FROM letters ORDER BY event;
CREATE TABLE missing ();
SELECT pipeline.redrive('dl');
SELECT pipeline.wait_for('dl');
SELECT * FROM seen ORDER BY id;
SELECT event, attempts, state, queued FROM letters ORDER BY event;
SELECT * FROM pipeline.ledger('dl');
SELECT pipeline.drop_pipeline('dl');

-- Also when the row cannot be restored for such a reason.
CREATE DOMAIN known AS text CHECK (true);
CREATE TABLE guarded (id int PRIMARY KEY, t known);
CREATE TABLE ids2 (id int PRIMARY KEY);
SELECT pipeline.create_pipeline('dl', 'guarded'),
	pipeline.add_stage('dl', 'no', 'validate', query => 'SELECT false FROM event'),
	pipeline.add_stage('dl', 'id', 'transform', query => 'SELECT id FROM event'),
	pipeline.add_output('dl', 'ids2'),
	pipeline.start('dl');
INSERT INTO guarded VALUES (1, 'look'), (2, 'missing2');
SELECT pipeline.wait_for('dl');
SELECT pipeline.drop_stage('dl', 'no');
CREATE FUNCTION exists_as_table(t text) RETURNS bool LANGUAGE plpgsql AS
$$ BEGIN EXECUTE 'SELECT 1 FROM deadletters.' || t; RETURN true; END $$;
ALTER DOMAIN known ADD CONSTRAINT known_table CHECK (exists_as_table(VALUE)) NOT VALID;
SELECT pipeline.redrive('dl');
INSERT INTO guarded VALUES (3, 'look');
SELECT pipeline.wait_for('dl');
SELECT * FROM ids2 ORDER BY id;
SELECT event, reason, attempts, state, queued FROM letters ORDER BY event;
SELECT pipeline.drop_pipeline('dl');

-- Large letters are run in several transactions.
CREATE TABLE large (id int PRIMARY KEY, t text);
CREATE TABLE ids3 (id int PRIMARY KEY);
SELECT pipeline.create_pipeline('dl', 'large'),
	pipeline.add_stage('dl', 'no', 'validate', query => 'SELECT false FROM event'),
	pipeline.add_stage('dl', 'id', 'transform', query => 'SELECT id FROM event'),
	pipeline.add_output('dl', 'ids3'),
	pipeline.start('dl');
INSERT INTO large SELECT i, repeat('x', 6 * 1024 * 1024) FROM generate_series(1, 7) i;
SELECT pipeline.wait_for('dl');
SELECT pipeline.drop_stage('dl', 'no');
SELECT pipeline.redrive('dl');
SELECT pipeline.wait_for('dl');
SELECT count(*) FROM ids3;
SELECT produced FROM pipeline.batches WHERE pipeline = 'dl' AND redrive ORDER BY batch_id;
SELECT pipeline.drop_pipeline('dl');
SET client_min_messages = warning;
DROP SCHEMA deadletters CASCADE;
