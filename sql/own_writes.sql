-- What pipelines write are changes like anybody's: other pipelines take them for
-- events, publications publish them; the pipeline itself never takes its own.
CREATE SCHEMA own_writes;
SET search_path = own_writes;
SET client_min_messages = warning;
CREATE FUNCTION log_of(name text) RETURNS TABLE (operation text, key jsonb, outcome text) LANGUAGE sql AS $$
	SELECT operation, source_key, outcome FROM pipeline.lineage l WHERE l.pipeline = name ORDER BY commit_lsn, seq $$;

--
-- A trigger of a target writes a source.
--
CREATE TABLE a (id int PRIMARY KEY, t text);
CREATE TABLE b (id int PRIMARY KEY, t text);
CREATE TABLE noted (id int PRIMARY KEY, t text);
CREATE TABLE noted_out (id int PRIMARY KEY, t text);
ALTER TABLE a REPLICA IDENTITY FULL;
ALTER TABLE noted REPLICA IDENTITY FULL;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		DELETE FROM noted WHERE id = OLD.id;
	ELSE
		INSERT INTO noted VALUES (NEW.id, TG_OP || ' ' || NEW.t) ON CONFLICT (id) DO UPDATE SET t = excluded.t;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON b FOR EACH ROW EXECUTE FUNCTION note();
SELECT pipeline.create_pipeline('a', 'a', operations => '{insert,update,delete}'), pipeline.add_output('a', 'b'), pipeline.start('a');
SELECT pipeline.create_pipeline('noted', 'noted', operations => '{insert,update,delete}'), pipeline.add_output('noted', 'noted_out'), pipeline.start('noted');
INSERT INTO a VALUES (1, 'one'), (2, 'two');
SELECT pipeline.wait_for('a');
UPDATE a SET t = 'uno' WHERE id = 1;
DELETE FROM a WHERE id = 2;
SELECT pipeline.wait_for('a');
SELECT pipeline.wait_for('noted');
TABLE b;
TABLE noted_out;
SELECT * FROM log_of('noted') WHERE key->>'id' = '2';
SELECT pipeline.drop_pipeline('noted'), pipeline.drop_pipeline('a', cascade => true);
DROP TABLE noted_out, noted, b, a CASCADE;

--
-- Cascades from a target into a source.
--
CREATE TABLE a (id int PRIMARY KEY, t text);
CREATE TABLE b (id int PRIMARY KEY, t text);
CREATE TABLE child (id int PRIMARY KEY, b int DEFAULT NULL REFERENCES b ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE other (id int PRIMARY KEY, b int REFERENCES b ON DELETE SET NULL);
ALTER TABLE a REPLICA IDENTITY FULL;
CREATE TABLE child_out (id int PRIMARY KEY, b int);
CREATE TABLE other_out (id int PRIMARY KEY, b int);
SELECT pipeline.create_pipeline('a', 'a', operations => '{insert,update,delete}'), pipeline.add_output('a', 'b'), pipeline.start('a');
SELECT pipeline.create_pipeline('child', 'child', operations => '{insert,update,delete}'), pipeline.add_output('child', 'child_out'), pipeline.start('child');
SELECT pipeline.create_pipeline('other', 'other', operations => '{insert,update,delete}'), pipeline.add_output('other', 'other_out'), pipeline.start('other');
INSERT INTO a VALUES (1, 'one'), (2, 'two');
SELECT pipeline.wait_for('a');
INSERT INTO child VALUES (10, 1), (20, 2);
INSERT INTO other VALUES (10, 1), (20, 2);
DELETE FROM a WHERE id = 1;
SELECT pipeline.wait_for('a');
SELECT pipeline.wait_for('child'), pipeline.wait_for('other');
TABLE child_out;
SELECT * FROM other_out ORDER BY id;
SELECT 'child' AS pipeline, * FROM log_of('child') UNION ALL SELECT 'other', * FROM log_of('other');
SELECT pipeline.drop_pipeline('child'), pipeline.drop_pipeline('other'), pipeline.drop_pipeline('a');
DROP TABLE child_out, other_out, child, other, b, a CASCADE;

--
-- Handlers that write, as they may (volatile) or may not say (stable): what goes into
-- the source of another pipeline is its event, into the pipeline's own it is none.
--
CREATE TABLE a (id int PRIMARY KEY, t text);
CREATE TABLE b (id int PRIMARY KEY, t text);
CREATE TABLE b2 (id int PRIMARY KEY, t text);
CREATE TABLE audit (id serial PRIMARY KEY, t text);
CREATE TABLE audit_out (id int PRIMARY KEY, t text);
CREATE FUNCTION tell(t text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	INSERT INTO audit (t) VALUES (t);
	RETURN t;
END $$;
CREATE FUNCTION liar(t text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT tell(t) $$;
CREATE FUNCTION loud(r a) RETURNS SETOF a LANGUAGE sql VOLATILE AS $$ SELECT r.id, tell('volatile ' || r.t) $$;
CREATE FUNCTION falsely(r a) RETURNS SETOF a LANGUAGE sql STABLE AS $$ SELECT r.id, liar('stable ' || r.t) $$;
CREATE FUNCTION itself(r a) RETURNS SETOF a LANGUAGE plpgsql AS $$
BEGIN
	IF r.id < 100 THEN
		INSERT INTO a VALUES (r.id + 100, 'by the handler');
	END IF;
	RETURN NEXT r;
END $$;
CREATE FUNCTION for_output(r a) RETURNS SETOF b LANGUAGE sql STABLE AS $$ SELECT r.id, liar('transform of an output ' || r.t) $$;
SELECT pipeline.create_pipeline('audit', 'audit'), pipeline.add_output('audit', 'audit_out'), pipeline.start('audit');
SELECT pipeline.create_pipeline('a', 'a'),
	pipeline.add_stage('a', 'loud', 'transform', 'loud(a)'),
	pipeline.add_stage('a', 'falsely', 'enrich', 'falsely(a)'),
	pipeline.add_stage('a', 'query', 'validate', query => 'SELECT liar(''query '' || id) IS NOT NULL FROM event'),
	pipeline.add_stage('a', 'itself', 'transform', 'itself(a)'),
	pipeline.add_output('a', 'b', name => 'one', transform => 'for_output(a)'),
	pipeline.add_output('a', 'b2', name => 'two', transform => 'for_output(a)'), pipeline.start('a');
INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, 'z');
SELECT pipeline.wait_for('a');
SELECT pipeline.wait_for('audit');
SELECT * FROM a ORDER BY id;
SELECT count(*) FROM b;
SELECT t, count(*) FROM audit_out GROUP BY t ORDER BY t;
SELECT count(*) FROM ((TABLE audit EXCEPT TABLE audit_out) UNION ALL (TABLE audit_out EXCEPT TABLE audit)) d;
SELECT 'a' AS pipeline, * FROM pipeline.ledger('a') UNION ALL SELECT 'audit', * FROM pipeline.ledger('audit') ORDER BY 1;
-- a handler that fails takes what it wrote with it
CREATE OR REPLACE FUNCTION for_output(r a) RETURNS SETOF b LANGUAGE plpgsql STABLE AS $$
BEGIN
	PERFORM liar('of a row that fails');
	RETURN QUERY SELECT r.id, (1 / (r.id - 11))::text;
END $$;
INSERT INTO a VALUES (11, 'fails'), (12, 'goes');
SELECT pipeline.wait_for('a');
SELECT pipeline.wait_for('audit');
SELECT event->'id' AS id, sqlstate FROM pipeline.dead_letters WHERE pipeline = 'a';
SELECT t, count(*) FROM audit_out WHERE t = 'of a row that fails' GROUP BY t;
SELECT count(*) FROM ((TABLE audit EXCEPT TABLE audit_out) UNION ALL (TABLE audit_out EXCEPT TABLE audit)) d;
SELECT pipeline.drop_pipeline('a'), pipeline.drop_pipeline('audit');
DROP TABLE audit_out, audit, b2, b, a CASCADE;

--
-- Outputs that are sources: inserts, updates and deletes travel on, through upserts
-- to upserts and to what appends.
--
CREATE TABLE a (id int PRIMARY KEY, t text);
CREATE TABLE b (id int PRIMARY KEY, t text);
CREATE TABLE c (id int PRIMARY KEY, t text);
CREATE TABLE d (no int GENERATED ALWAYS AS IDENTITY, operation text, id int, t text);
ALTER TABLE a REPLICA IDENTITY FULL;
ALTER TABLE b REPLICA IDENTITY FULL;
ALTER TABLE c REPLICA IDENTITY FULL;
CREATE FUNCTION say(r c, e pipeline.event) RETURNS TABLE (operation text, id int, t text) LANGUAGE sql STABLE AS $$ SELECT e.operation, r.id, r.t $$;
SELECT pipeline.create_pipeline('a to b', 'a', operations => '{insert,update,delete,truncate}'), pipeline.add_output('a to b', 'b');
SELECT pipeline.create_pipeline('b to c', 'b', operations => '{insert,update,delete}'),
	pipeline.add_stage('b to c', 's', 'transform', query => 'SELECT id, upper(t) AS t FROM event'), pipeline.add_output('b to c', 'c');
SELECT pipeline.create_pipeline('c to d', 'c', operations => '{insert,update,delete}'), pipeline.add_stage('c to d', 'say', 'transform', 'say(c, pipeline.event)'),
	pipeline.add_output('c to d', 'd', mode => 'append');
SELECT pipeline.start('a to b'), pipeline.start('b to c'), pipeline.start('c to d');
CREATE FUNCTION travel() RETURNS void LANGUAGE sql AS $$
	SELECT pipeline.wait_for('a to b');
	SELECT pipeline.wait_for('b to c');
	SELECT pipeline.wait_for('c to d') $$;
INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three');
SELECT travel();
UPDATE a SET t = 'uno' WHERE id = 1;
SELECT travel();
UPDATE a SET id = 4 WHERE id = 2;
SELECT travel();
DELETE FROM a WHERE id = 3;
SELECT travel();
SELECT * FROM c ORDER BY id;
SELECT operation, id, t FROM d ORDER BY no;
-- a truncate arrives as deletes, which is how an upsert output follows it
TRUNCATE a;
SELECT travel();
SELECT count(*) FROM c;
SELECT operation, id, t FROM d ORDER BY no OFFSET 7;
SELECT pipeline.drop_pipeline('c to d'), pipeline.drop_pipeline('b to c', cascade => true), pipeline.drop_pipeline('a to b', cascade => true);

--
-- A publication on outputs publishes what batches write, to any other slot.
--
TRUNCATE a, b, c, d;
CREATE FUNCTION new_only(r a, e pipeline.event) RETURNS SETOF c LANGUAGE sql STABLE AS $$ SELECT r.id, r.t WHERE e.operation = 'insert' $$;
CREATE PUBLICATION regress_pipeline_publication FOR TABLE b, c;
SELECT slot_name FROM pg_create_logical_replication_slot('regress_pipeline_publication', 'pgoutput');
SELECT slot_name FROM pg_create_logical_replication_slot('regress_pipeline_text', 'test_decoding');
SELECT pipeline.create_pipeline('a', 'a', operations => '{insert,update,delete}'), pipeline.add_output('a', 'b'),
	pipeline.add_output('a', 'c', mode => 'append', transform => 'new_only(a, pipeline.event)'), pipeline.start('a');
INSERT INTO a VALUES (1, 'one'), (2, 'two');
SELECT pipeline.wait_for('a');
UPDATE a SET t = 'zwei' WHERE id = 2;
SELECT pipeline.wait_for('a');
DELETE FROM a WHERE id = 1;
SELECT pipeline.wait_for('a');
-- batches commit asynchronously: this flushes what they wrote
SET synchronous_commit = on;
SELECT FROM pg_logical_emit_message(true, 'own_writes', '');
-- inserts, updates and deletes, by table
SELECT chr(get_byte(data, 0)) AS kind, count(*)
FROM pg_logical_slot_get_binary_changes('regress_pipeline_publication', NULL, NULL, 'proto_version', '1', 'publication_names', 'regress_pipeline_publication')
WHERE chr(get_byte(data, 0)) IN ('I', 'U', 'D') GROUP BY 1 ORDER BY 1;
SELECT data FROM pg_logical_slot_get_changes('regress_pipeline_text', NULL, NULL, 'include-xids', '0')
WHERE data ~ '^table own_writes\.[bc]:' ORDER BY lsn;
SELECT pg_drop_replication_slot('regress_pipeline_publication'), pg_drop_replication_slot('regress_pipeline_text');
DROP PUBLICATION regress_pipeline_publication;
SELECT pipeline.drop_pipeline('a');

DROP SCHEMA own_writes CASCADE;
