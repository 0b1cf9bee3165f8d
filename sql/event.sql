-- pipeline.event: what a handler sees of an event beside its row, in stages and
-- transforms of every kind and language.
CREATE SCHEMA event;
SET search_path = event;
CREATE TABLE src (id int PRIMARY KEY, n int, d date);
CREATE TYPE step AS (id int, n int, said text);
CREATE TABLE dst (id int, n int, said text, old jsonb);

-- The type, and who may use what makes it.
SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) FROM pg_attribute
WHERE attrelid = 'pipeline.event'::regclass AND attnum > 0 ORDER BY attnum;
SELECT pipeline._event(1);
SELECT pipeline._event(NULL::int);

-- A validation, an enrichment, a transform and the transform of an output, in
-- language sql, inlined or not, and plpgsql; each sees the same event.
CREATE FUNCTION check_it(s src, e pipeline.event) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF e.operation = 'update' AND (e.old->>'id')::int <> s.id THEN
		RETURN format('%s has become %s', e.old->>'id', s.id);
	END IF;
	RETURN NULL;
END $$;
CREATE FUNCTION check_too(s src, e pipeline.event) RETURNS bool LANGUAGE sql STABLE AS
$$ SELECT e.source = 'event.src'::regclass AND e.committed_at <= statement_timestamp() $$;
CREATE FUNCTION say(s src, e pipeline.event) RETURNS step LANGUAGE sql VOLATILE AS
$$ SELECT (s.id, s.n, e.operation)::event.step $$;
CREATE FUNCTION say_more(s step, e pipeline.event) RETURNS SETOF step LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT (s.id, s.n, s.said || ' ' || e.seq)::event.step; END $$;
CREATE FUNCTION shape(s step, e pipeline.event) RETURNS SETOF dst LANGUAGE sql STABLE AS
$$ SELECT s.id, s.n, s.said || ' ' || e.operation, e.old $$;
CREATE FUNCTION ids(s step, e pipeline.event) RETURNS TABLE (operation text, commit_lsn pg_lsn, seq int, xid xid, committed_at timestamptz, source regclass)
LANGUAGE sql STABLE AS
$$ SELECT e.operation, e.commit_lsn, e.seq, e.xid, e.committed_at, e.source $$;
CREATE TABLE ids (LIKE pipeline.event);
ALTER TABLE ids DROP old;
SELECT pipeline.create_pipeline('ev', 'src', operations => '{insert,update}');
SELECT pipeline.add_stage('ev', 'check', 'validate', 'check_it(src, pipeline.event)'),
	pipeline.add_stage('ev', 'check too', 'validate', 'check_too(src, pipeline.event)');
SELECT pipeline.add_stage('ev', 'say', 'enrich', 'say(src, pipeline.event)');
SELECT pipeline.add_stage('ev', 'query', 'transform', query => 'SELECT id, n, said FROM event'),
	pipeline.add_stage('ev', 'say more', 'transform', 'say_more(step, pipeline.event)'),
	pipeline.add_output('ev', 'dst', transform => 'shape(step, pipeline.event)', mode => 'append'),
	pipeline.add_output('ev', 'ids', transform => 'ids(step, pipeline.event)', mode => 'append');
SELECT handler FROM pipeline.stages WHERE pipeline = 'ev' ORDER BY position;
-- what is inlined stands in the plan as its body
SELECT substring(explain FROM 'committed_at <= statement_timestamp|Function Scan on \w+') AS part FROM pipeline.explain('ev')
WHERE explain ~ 'Filter.*committed_at <= statement|Function Scan';
SELECT pipeline.start('ev');
BEGIN;
INSERT INTO src VALUES (1, 1), (2, 2), (3, NULL);
UPDATE src SET n = n + 10;
COMMIT;
UPDATE src SET id = 4 WHERE id = 3;
UPDATE src SET n = 0 WHERE id = 4;
SELECT pipeline.wait_for('ev');
SELECT * FROM dst ORDER BY said, id;
SELECT reason, operation, event FROM pipeline.dead_letters WHERE pipeline = 'ev';
-- the same as the lineage says
SELECT count(*), bool_and(ROW(operation, commit_lsn, seq, xid, committed_at, source)::text IN (SELECT ids::text FROM ids)) AS same FROM pipeline.lineage
WHERE pipeline = 'ev' AND output = 'ids' AND outcome = 'produced';
SELECT xmin = (SELECT xid FROM ids ORDER BY commit_lsn DESC LIMIT 1) FROM src WHERE id = 4;
SELECT * FROM pipeline.ledger('ev');
SELECT pipeline.drop_pipeline('ev');

-- old has the columns that the replica identity has: of the primary key, of
-- another index, all.  A column that is dropped or added is as in the table.
CREATE TABLE three (gone int, id int PRIMARY KEY, code int NOT NULL UNIQUE, n int);
ALTER TABLE three DROP gone;
CREATE TABLE seen (id int, old jsonb);
CREATE FUNCTION see(t three, e pipeline.event) RETURNS SETOF seen LANGUAGE sql STABLE AS
$$ SELECT t.id, e.old $$;
SELECT pipeline.create_pipeline('ev', 'three', operations => '{insert,update}'),
	pipeline.add_output('ev', 'seen', transform => 'see(three, pipeline.event)', mode => 'append'),
	pipeline.start('ev');
INSERT INTO three VALUES (1, 11, 111), (2, 12, NULL);
UPDATE three SET n = n + 1;
UPDATE three SET id = 3 WHERE id = 2;
UPDATE three SET code = 13 WHERE id = 3;
SELECT pipeline.wait_for('ev');
SELECT * FROM seen ORDER BY id, old->>'id';
TRUNCATE seen;
ALTER TABLE three REPLICA IDENTITY USING INDEX three_code_key;
UPDATE three SET n = n + 1, code = code + 10;
UPDATE three SET n = n + 1 WHERE id = 1;
SELECT pipeline.wait_for('ev');
SELECT * FROM seen ORDER BY id, old->>'code';
TRUNCATE seen;
ALTER TABLE three REPLICA IDENTITY FULL;
UPDATE three SET n = n + 1;
SELECT pipeline.wait_for('ev');
ALTER TABLE three ADD added int DEFAULT 7;
UPDATE three SET n = n + 1 WHERE id = 1;
SELECT pipeline.wait_for('ev');
SELECT * FROM seen ORDER BY id, old->>'n';
-- what counts is the replica identity at the time of the change
TRUNCATE seen;
SELECT pipeline.stop('ev');
UPDATE three SET n = n + 1 WHERE id = 1;
BEGIN;
UPDATE three SET n = n + 1 WHERE id = 1;
ALTER TABLE three REPLICA IDENTITY DEFAULT;
UPDATE three SET n = n + 1 WHERE id = 1;
COMMIT;
ALTER TABLE three REPLICA IDENTITY USING INDEX three_code_key;
UPDATE three SET n = n + 1 WHERE id = 1;
ALTER TABLE three REPLICA IDENTITY DEFAULT;
SELECT pipeline.start('ev');
SELECT pipeline.wait_for('ev');
SELECT * FROM seen ORDER BY old->>'n', old;
SELECT pipeline.drop_pipeline('ev');

-- An old row that has no jsonb is an error of its event.
CREATE TABLE docs (id int PRIMARY KEY, doc json);
ALTER TABLE docs REPLICA IDENTITY FULL;
CREATE FUNCTION see(t docs, e pipeline.event) RETURNS SETOF seen LANGUAGE sql STABLE AS
$$ SELECT t.id, e.old $$;
TRUNCATE seen;
SELECT pipeline.create_pipeline('ev', 'docs', operations => '{insert,update}'),
	pipeline.add_output('ev', 'seen', transform => 'see(docs, pipeline.event)', mode => 'append'),
	pipeline.start('ev');
INSERT INTO docs VALUES (1, '{"a": "\u0000"}'), (2, '{"a": 1}'), (3, NULL);
UPDATE docs SET doc = '{"b": 2}';
SELECT pipeline.wait_for('ev');
SELECT * FROM seen ORDER BY id, old IS NOT NULL;
SELECT stage, output, sqlstate, reason, detail, operation, event FROM pipeline.dead_letters WHERE pipeline = 'ev';
SELECT * FROM pipeline.ledger('ev');
SELECT pipeline.drop_pipeline('ev');

-- An update that becomes a dead letter keeps its old row, as far as it is known,
-- and is run again as what it was.
CREATE DOMAIN required AS int NOT NULL;
CREATE TABLE items (id int PRIMARY KEY, n required, d date);
CREATE TABLE changes (id int, was int, n int, op text);
CREATE FUNCTION change(i items, e pipeline.event) RETURNS changes LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF i.n < 0 THEN RAISE 'negative'; END IF;
	RETURN (i.id, (e.old->>'id')::int, i.n::int, e.operation);
END $$;
SELECT pipeline.create_pipeline('ev', 'items', operations => '{insert,update}'),
	pipeline.add_stage('ev', 'change', 'transform', 'change(items, pipeline.event)'),
	pipeline.add_output('ev', 'changes', mode => 'append'),
	pipeline.start('ev');
INSERT INTO items VALUES (1, 1), (2, -2), (3, 3);
UPDATE items SET n = -1 WHERE id = 1;
UPDATE items SET n = -30, id = 30 WHERE id = 3;
SELECT pipeline.wait_for('ev');
ALTER TABLE items REPLICA IDENTITY FULL;
UPDATE items SET n = n - 1 WHERE id < 3;
SELECT pipeline.wait_for('ev');
SELECT operation, event, old_event, reason FROM pipeline.dead_letters WHERE pipeline = 'ev' ORDER BY commit_lsn, seq;
CREATE OR REPLACE FUNCTION change(i items, e pipeline.event) RETURNS changes LANGUAGE sql STABLE AS
$$ SELECT i.id, (e.old->>'id')::int, i.n, e.operation || coalesce(' ' || e.old::text, '') $$;
SELECT pipeline.redrive('ev');
SELECT pipeline.wait_for('ev');
SELECT id, was, n, op FROM changes ORDER BY n DESC;
SELECT event->'n' AS n, operation, old_event, attempts, state FROM pipeline.dead_letters WHERE pipeline = 'ev' ORDER BY commit_lsn, seq;
SELECT operation, source_key, outcome, attempts FROM pipeline.lineage WHERE pipeline = 'ev' ORDER BY commit_lsn, seq;
SELECT * FROM pipeline.ledger('ev');
SELECT pipeline.drop_pipeline('ev');

-- An old row that does not fit today's columns: what is kept of it are the columns
-- that are known, as they were.
SELECT pipeline.create_pipeline('ev', 'items', operations => '{insert,update}'),
	pipeline.add_stage('ev', 'change', 'transform', 'change(items, pipeline.event)'),
	pipeline.add_output('ev', 'changes', mode => 'append'),
	pipeline.start('ev');
SELECT pipeline.stop('ev');
ALTER TABLE items ALTER n SET NOT NULL, ADD CONSTRAINT items_n_key UNIQUE (n);
ALTER TABLE items REPLICA IDENTITY USING INDEX items_n_key;
UPDATE items SET n = 100, d = '2000-01-01' WHERE id = 1;
UPDATE items SET n = 1 WHERE id = 1;
CREATE DOMAIN small AS int CHECK (VALUE < 50);
ALTER TABLE items ALTER n TYPE small, REPLICA IDENTITY FULL;
SELECT pipeline.start('ev');
SELECT pipeline.wait_for('ev');
SELECT operation, reason, (regexp_split_to_array(context, E'\n'))[2:] AS note, event, old_event
FROM pipeline.dead_letters WHERE pipeline = 'ev' ORDER BY commit_lsn, seq \gx
SELECT pipeline.drop_pipeline('ev');

-- A second argument of any other type is none, nor is a third.
CREATE FUNCTION f_record(s src, e record) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
CREATE FUNCTION f_three(s src, e pipeline.event, i int) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
CREATE FUNCTION f_event(e pipeline.event) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
CREATE FUNCTION f_twice(s src, variadic e pipeline.event[]) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
SELECT pipeline.create_pipeline('ev', 'src');
SELECT pipeline.add_stage('ev', 's', 'validate', 'f_record(src, record)');
SELECT pipeline.add_stage('ev', 's', 'validate', 'f_three(src, pipeline.event, int)');
SELECT pipeline.add_stage('ev', 's', 'validate', 'f_event(pipeline.event)');
SELECT pipeline.add_stage('ev', 's', 'validate', 'f_twice(src, pipeline.event[])');
SELECT pipeline.drop_pipeline('ev');
SET client_min_messages = warning;
DROP SCHEMA event CASCADE;
