-- The row that a pipeline sees is whole, also where an update leaves large values
-- as they are and the server does not log them: with REPLICA IDENTITY FULL they
-- are those of the old row.
CREATE SCHEMA identity;
SET search_path = identity;
CREATE TABLE docs (
	id int PRIMARY KEY,
	n int,
	dropped text DEFAULT 'gone',
	plain text,			-- out of line, not compressed
	packed text,		-- out of line, compressed
	inline text,		-- compressed, in the row
	j jsonb);
ALTER TABLE docs ALTER plain SET STORAGE EXTERNAL, ALTER packed SET STORAGE EXTENDED, ALTER inline SET STORAGE MAIN;
ALTER TABLE docs DROP COLUMN dropped;
ALTER TABLE docs REPLICA IDENTITY FULL;
CREATE TABLE docs_seen (step int GENERATED ALWAYS AS IDENTITY, id int, n int, plain text, packed text, inline text, j jsonb, added text);
CREATE TABLE docs_oracle (LIKE docs_seen INCLUDING ALL);
-- Values that differ by a word; incompressible ones that need the toast table.
CREATE FUNCTION large(word text, kb int) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT string_agg(md5(word || i), '') FROM generate_series(1, kb * 32) i $$;
CREATE FUNCTION repeated(word text, kb int) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT repeat(word || ' ', kb * 1024 / (length(word) + 1)) $$;

SELECT pipeline.create_pipeline('docs', 'docs', operations => '{insert,update}'),
	pipeline.add_output('docs', 'docs_seen', mode => 'append'),
	pipeline.start('docs');
-- It sees them all when the table has none of them any more.
SELECT pipeline.stop('docs');
-- What the table has at each step is what the pipeline saw.
CREATE PROCEDURE step(sql text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	EXECUTE format('INSERT INTO docs_oracle (id, n, plain, packed, inline, j%s)
		SELECT id, n, plain, packed, inline, j%1$s FROM docs WHERE xmin = pg_current_xact_id()::xid ORDER BY id',
		(SELECT ', added' FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'added'));
	COMMIT;
END $$;
CALL step($$INSERT INTO docs SELECT i, 0, large('plain' || i, 20), repeated('packed' || i, 900), repeated('inline' || i, 20),
	jsonb_build_object('k', large('json' || i, 10)) FROM generate_series(1, 3) i$$);
SELECT id, pg_column_size(plain) > 8192 AS plain, pg_column_size(packed) BETWEEN 8192 AND 20000 AS packed,
	pg_column_size(inline) < 2000 AS inline, pg_column_size(j) > 8192 AS j FROM docs ORDER BY id;
CALL step($$UPDATE docs SET n = n + 1$$);
CALL step($$UPDATE docs SET plain = large('other', 9) WHERE id = 1$$);
CALL step($$UPDATE docs SET packed = repeated('other', 1000), n = 7 WHERE id = 2$$);
CALL step($$UPDATE docs SET inline = 'short', j = j || '{"a": 1}' WHERE id = 3$$);
CALL step($$UPDATE docs SET plain = packed, packed = plain WHERE id = 1$$);
CALL step($$UPDATE docs SET plain = NULL WHERE id = 2$$);
CALL step($$UPDATE docs SET n = -1 WHERE id = 2$$);
CALL step($$UPDATE docs SET id = 10 WHERE id = 1$$);
CALL step($$ALTER TABLE docs ADD added text DEFAULT repeated('added', 12)$$);
CALL step($$UPDATE docs SET n = 100 WHERE id = 3$$);
CALL step($$UPDATE docs SET n = 101 WHERE id = 3$$);
-- changed twice in one transaction, and made and changed in one
BEGIN;
INSERT INTO docs (id, n, plain) VALUES (20, 0, large('x', 9));
INSERT INTO docs_oracle (id, n, plain, added) SELECT id, n, plain, added FROM docs WHERE id = 20;
UPDATE docs SET n = 1 WHERE id = 20;
INSERT INTO docs_oracle (id, n, plain, added) SELECT id, n, plain, added FROM docs WHERE id = 20;
SAVEPOINT s;
UPDATE docs SET plain = large('undone', 9) WHERE id = 20;
ROLLBACK TO s;
UPDATE docs SET n = 2 WHERE id = 20;
INSERT INTO docs_oracle (id, n, plain, added) SELECT id, n, plain, added FROM docs WHERE id = 20;
COMMIT;
TRUNCATE docs;
SELECT pipeline.start('docs');
SELECT pipeline.wait_for('docs');
-- a column that was added later has its default in older rows
UPDATE docs_oracle SET added = repeated('added', 12) WHERE added IS NULL;
SELECT count(*), count(*) FILTER (WHERE s IS DISTINCT FROM o) AS differ
FROM docs_seen s FULL JOIN docs_oracle o USING (step);
SELECT id, n, length(plain) AS plain, length(packed) AS packed, length(inline) AS inline,
	length(j::text) AS j, length(added) AS added
FROM docs_seen ORDER BY step;
SELECT kind, event->>'id' AS id, reason FROM pipeline.dead_letters WHERE pipeline = 'docs';

-- A large value is written, then the table gets other columns, and then the
-- pipeline comes to it.
SELECT pipeline.stop('docs');
ALTER TABLE docs ADD extra int DEFAULT 1, ADD passing text DEFAULT 'gone';
INSERT INTO docs (id, plain, packed) VALUES (30, large('late', 9), repeated('late', 900));
UPDATE docs SET n = 1 WHERE id = 30;
ALTER TABLE docs DROP COLUMN passing;
ALTER TABLE docs DROP COLUMN extra;
SELECT pipeline.start('docs');
SELECT pipeline.wait_for('docs', timeout => '30s');
SELECT id, n, plain = large('late', 9) AS plain, packed = repeated('late', 900) AS packed
FROM docs_seen WHERE id = 30 ORDER BY step;
SELECT pipeline.drop_pipeline('docs', cascade => true);

RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA identity CASCADE;
