-- Rows of outputs are marked, so that capture need not decode them, where nobody can
-- take them for events; and they are not where anybody might.
CREATE SCHEMA own_writes;
SET search_path = own_writes;
SET client_min_messages = warning;
SET synchronous_commit = on;
CREATE TABLE src (id int PRIMARY KEY, t varchar(5), n int);
CREATE TABLE audit (id serial PRIMARY KEY, t text);
CREATE TABLE audit_out (id int PRIMARY KEY, t text);
CREATE FUNCTION tell(t text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO audit (t) VALUES (t);
	RETURN t;
END $$;
SELECT pipeline.create_pipeline('audit', 'audit'), pipeline.add_output('audit', 'audit_out'), pipeline.start('audit');
SELECT slot_name FROM pg_create_logical_replication_slot('regress_pipeline_marks', 'test_decoding');

-- All changes of the target since the last call, and those without a mark: any
-- other slot gets them all, unless it asks for the latter.
CREATE FUNCTION seen() RETURNS TABLE (change text, rows bigint, unmarked bigint) LANGUAGE plpgsql AS $$
DECLARE
	local text[] := ARRAY(SELECT substring(data FROM '^table own_writes\.target: ([A-Z]+):') FROM pg_logical_slot_peek_changes('regress_pipeline_marks', NULL, NULL, 'only-local', 'true'));
BEGIN
	RETURN QUERY
	SELECT c.change, count(*), (SELECT count(*) FROM unnest(local) l WHERE l = c.change)
	FROM (SELECT substring(data FROM '^table own_writes\.target: ([A-Z]+):') FROM pg_logical_slot_get_changes('regress_pipeline_marks', NULL, NULL)) c(change)
	WHERE c.change IS NOT NULL GROUP BY 1 ORDER BY 1;
END $$;
-- Batches commit asynchronously, and only what is flushed is decoded.
\set seen 'DO $$ BEGIN PERFORM pg_logical_emit_message(true, \'own_writes\', \'\'); END $$; SELECT * FROM seen();'
CREATE FUNCTION declare_it(mode text, stage text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline.create_pipeline('p', 'src', operations => CASE mode WHEN 'upsert' THEN '{insert,update,delete}' ELSE '{insert}' END::text[]);
	IF stage IS NOT NULL THEN
		PERFORM pipeline.add_stage('p', 's', 'transform', handler => stage::regprocedure);
	END IF;
	PERFORM pipeline.add_output('p', 'target'::regclass, mode => mode);
	PERFORM pipeline.start('p');
END $$;
CREATE FUNCTION again() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline.drop_pipeline('p', cascade => true);
	DROP TABLE target CASCADE;
	TRUNCATE src;
END $$;

--
-- What is marked: all columns and constraints of the system's own making.
--
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent SELECT generate_series(1, 50);
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE target (id bigint PRIMARY KEY, t text CHECK (t <> 'no' AND upper(t) IN ('A', 'B', 'C')), n int UNIQUE REFERENCES parent,
	no serial, key int GENERATED ALWAYS AS IDENTITY, made timestamptz DEFAULT now(), who name DEFAULT current_user,
	twice int GENERATED ALWAYS AS (n * 2) STORED, feeling mood DEFAULT 'good', during tstzrange, tags text[] DEFAULT '{}', more jsonb DEFAULT '{"a": 1}',
	uid uuid DEFAULT gen_random_uuid(), big text DEFAULT repeat('0123456789', 10000),
	EXCLUDE USING gist (int4range(n, n, '[]') WITH &&), UNIQUE (no) DEFERRABLE);
CREATE INDEX ON target (lower(t)) WHERE n > 0;
CREATE INDEX ON target USING hash (feeling);
CREATE INDEX ON target USING gin (more);
CREATE INDEX ON target USING brin (made);
ALTER TABLE target ALTER big SET STORAGE EXTERNAL;
SELECT declare_it('upsert');
INSERT INTO src VALUES (1, 'a', 1), (2, 'b', 2), (3, 'no', 3), (4, 'a', 99), (5, 'c', 5);
SELECT pipeline.wait_for('p');
UPDATE src SET n = n + 10 WHERE id < 3;
SELECT pipeline.wait_for('p');
DELETE FROM src WHERE id = 5;
SELECT pipeline.wait_for('p');
SELECT id, t, n, twice, feeling, length(big) FROM target ORDER BY id;
SELECT event->'id' AS id, sqlstate FROM pipeline.dead_letters WHERE pipeline = 'p' ORDER BY 1;
:seen
-- a trigger comes while it runs, and goes; and so with all the rest
CREATE FUNCTION tell_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM tell('trigger ' || TG_OP || ' ' || coalesce(NEW.id, OLD.id));
	RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON target FOR EACH ROW EXECUTE FUNCTION tell_row();
INSERT INTO src VALUES (6, 'a', 6);
SELECT pipeline.wait_for('p');
DELETE FROM src WHERE id = 1;
SELECT pipeline.wait_for('p');
:seen
DROP TRIGGER tell ON target;
INSERT INTO src VALUES (7, 'a', 7);
SELECT pipeline.wait_for('p');
:seen
CREATE TABLE refers (id int PRIMARY KEY, target bigint REFERENCES target ON DELETE CASCADE);
INSERT INTO src VALUES (8, 'a', 8);
SELECT pipeline.wait_for('p');
:seen
DROP TABLE refers;
ALTER TABLE target ENABLE ROW LEVEL SECURITY;
INSERT INTO src VALUES (9, 'a', 9);
SELECT pipeline.wait_for('p');
:seen
ALTER TABLE target DISABLE ROW LEVEL SECURITY;
INSERT INTO src VALUES (10, 'a', 10);
SELECT pipeline.wait_for('p');
:seen
-- it becomes a source, and is none any more
CREATE TABLE further (LIKE target);
SELECT pipeline.create_pipeline('q', 'target');
INSERT INTO src VALUES (20, 'a', 20);
SELECT pipeline.wait_for('p');
:seen
SELECT pipeline.add_output('q', 'further'), pipeline.start('q');
INSERT INTO src VALUES (21, 'a', 21);
SELECT pipeline.wait_for('p');
SELECT pipeline.wait_for('q');
SELECT id FROM further;
SELECT pipeline.drop_pipeline('q');
INSERT INTO src VALUES (22, 'a', 22);
SELECT pipeline.wait_for('p');
:seen
SELECT again();
-- it becomes a partition of what is a source, and is none any more
DROP TABLE further;
CREATE TABLE target (id int PRIMARY KEY, t varchar(5), n int);
CREATE TABLE further (id int PRIMARY KEY, t varchar(5), n int);
CREATE TABLE root (id int PRIMARY KEY, t varchar(5), n int) PARTITION BY RANGE (id);
SELECT declare_it('upsert');
SELECT pipeline.create_pipeline('q', 'root'), pipeline.add_output('q', 'further'), pipeline.start('q');
INSERT INTO src VALUES (1, 'a', 1);
SELECT pipeline.wait_for('p');
:seen
ALTER TABLE root ATTACH PARTITION target DEFAULT;
INSERT INTO src VALUES (2, 'b', 2);
SELECT pipeline.wait_for('p');
:seen
SELECT pipeline.wait_for('q');
SELECT id FROM further;
ALTER TABLE root DETACH PARTITION target;
INSERT INTO src VALUES (3, 'c', 3);
SELECT pipeline.wait_for('p');
:seen
-- what is below it by inheritance is not written, nor deleted
CREATE TABLE child () INHERITS (target);
INSERT INTO child VALUES (1, 'of c', 1);
DELETE FROM src WHERE id = 1;
SELECT pipeline.wait_for('p');
:seen
SELECT tableoid::regclass, id FROM target ORDER BY id;
SELECT pipeline.drop_pipeline('q'), again();
DROP TABLE root;

-- Capture does not even see marked rows: events of the same batch, which its handler
-- makes in another source, follow each other in its count.
TRUNCATE audit, audit_out;
CREATE TABLE target (id int PRIMARY KEY, t varchar(5), n int);
CREATE FUNCTION telling(r src) RETURNS SETOF src LANGUAGE plpgsql AS $$
BEGIN
	PERFORM tell(r.t);
	RETURN NEXT r;
END $$;
SELECT declare_it('append', 'telling(src)');
INSERT INTO src SELECT i, 'x' || i, i FROM generate_series(1, 5) i;
SELECT pipeline.wait_for('p');
SELECT pipeline.wait_for('audit');
:seen
SELECT count(*), max(seq) - min(seq) AS seqs FROM pipeline.lineage WHERE pipeline = 'audit';
SELECT count(*) FROM ((TABLE audit EXCEPT TABLE audit_out) UNION ALL (TABLE audit_out EXCEPT TABLE audit)) d;
-- and none of these is lost among rows that fail, in batches that are taken apart
ALTER TABLE target ADD CHECK (n % 7 <> 0), ALTER n SET NOT NULL;
INSERT INTO src SELECT i, 'y' || i, CASE WHEN i % 3 = 0 THEN NULL ELSE i END FROM generate_series(6, 20) i;
INSERT INTO src SELECT i, 'z' || i, CASE WHEN i % 3 = 0 THEN NULL ELSE i END FROM generate_series(21, 40) i;
SELECT pipeline.wait_for('p');
SELECT pipeline.wait_for('audit');
SELECT count(*) FROM target WHERE id > 5;
:seen
SELECT count(*) > 20 FROM audit;
SELECT count(*) FROM ((TABLE audit EXCEPT TABLE audit_out) UNION ALL (TABLE audit_out EXCEPT TABLE audit)) d;
SELECT again();

-- Nor where a handler calls what only the statement may.
TRUNCATE audit, audit_out;
CREATE TABLE target (id int PRIMARY KEY, t varchar(5), n int);
CREATE FUNCTION rogue(r src) RETURNS SETOF src LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline._write(1, 0, 1), pipeline._write(1, 0, NULL), pipeline._write(1, 0, 0, r.id), pipeline._mark(1, 0);
	PERFORM tell(r.t);
	INSERT INTO audit (t) SELECT 'marked? ' || r.t WHERE pipeline._write(1, 0, 0);
	RETURN NEXT r;
END $$;
SELECT declare_it('append', 'rogue(src)');
INSERT INTO src VALUES (1, 'a', 1), (2, 'b', 2);
SELECT pipeline.wait_for('p');
SELECT pipeline.wait_for('audit');
:seen
SELECT t FROM audit_out ORDER BY t;
SELECT count(*) FROM ((TABLE audit EXCEPT TABLE audit_out) UNION ALL (TABLE audit_out EXCEPT TABLE audit)) d;
SELECT again();

--
-- What is not marked, as something of somebody's might run: each of these writes
-- a source, and none is lost.
--
CREATE FUNCTION told(t text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN tell(t) IS NOT NULL; END $$;
CREATE FUNCTION told_int(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM tell('generated'); RETURN n; END $$;
CREATE TYPE pair AS (a int, b int);
CREATE FUNCTION told_cast(t varchar) RETURNS pair LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM tell('cast'); RETURN (1, 2); END $$;
CREATE CAST (varchar AS pair) WITH FUNCTION told_cast(varchar) AS ASSIGNMENT;
CREATE DOMAIN telling_domain AS int CHECK (told('domain'));
CREATE FUNCTION cmp(a int, b int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM tell('opclass'); RETURN btint4cmp(a, b); END $$;
CREATE OPERATOR CLASS telling_ops FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 cmp(int, int);
CREATE FUNCTION try(definition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE audit, audit_out, src;
	EXECUTE definition;
	PERFORM declare_it('append');
END $$;
CREATE FUNCTION told_of() RETURNS TABLE (what text, written boolean, events boolean) LANGUAGE sql AS $$
	SELECT a.t, count(*) > 0, count(*) = count(o.id) FROM audit a LEFT JOIN audit_out o USING (id, t) GROUP BY a.t ORDER BY a.t $$;
\set go 'INSERT INTO src VALUES (1, \'a\', 1), (2, \'b\', 2); SELECT pipeline.wait_for(\'p\'); SELECT pipeline.wait_for(\'audit\'); SELECT * FROM told_of(); :seen SELECT again();'
SELECT try('CREATE TABLE target (id int, t text, n int, d text DEFAULT tell(''default''))');
:go
SELECT try('CREATE TABLE target (id int, t text, n int CHECK (told(''check'')))');
:go
SELECT try('CREATE TABLE target (id int, t text, n int, g int GENERATED ALWAYS AS (told_int(n)) STORED)');
:go
SELECT try('CREATE TABLE target (id int, t text, n telling_domain)');
:go
SELECT try('CREATE TABLE target (id int, t text, n int, o telling_domain)');
:go
SELECT try('CREATE TABLE target (id int, t pair, n int)');
:go
SELECT try('CREATE TABLE target (id int, t text, n int); CREATE INDEX ON target (told_int(n))');
:go
SELECT try('CREATE TABLE target (id int, t text, n int); CREATE INDEX ON target (n) WHERE told(''predicate'')');
:go
SELECT try('CREATE TABLE target (id int, t text, n int); CREATE INDEX ON target (n telling_ops)');
:go
SELECT try('CREATE TABLE target (id int, t text, n int) PARTITION BY LIST (told_int(n)); CREATE TABLE target1 PARTITION OF target DEFAULT');
:go
SELECT try('CREATE TABLE target (id int, t text, n int, d text DEFAULT to_json(1)::text)');
:go

SELECT pipeline.drop_pipeline('audit');
SELECT pg_drop_replication_slot('regress_pipeline_marks');
DROP SCHEMA own_writes CASCADE;
