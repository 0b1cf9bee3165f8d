-- The row type between two stages, the handlers on both sides and what they call are
-- changed and dropped while rows are on their way: the pipeline stands while they do
-- not fit each other, blames no event, makes no wrong row, and goes on when they do.
CREATE SCHEMA repair_types;
SET search_path = repair_types;
SET client_min_messages = warning;
CREATE TABLE src (id int PRIMARY KEY, n int);
CREATE TABLE dst (id int PRIMARY KEY, line text);
CREATE TYPE mid AS (id int, n int, t text);
CREATE FUNCTION tax(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * 2';
CREATE FUNCTION first_sql(s src) RETURNS SETOF mid LANGUAGE sql STABLE AS $$ SELECT s.id, tax(s.n), 'x' $$;
CREATE FUNCTION second_sql(m mid) RETURNS SETOF dst LANGUAGE sql STABLE AS $$ SELECT m.id, concat_ws('/', m.n, m.t) $$;
CREATE FUNCTION first_plpgsql(s src) RETURNS SETOF mid LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT s.id, tax(s.n), 'x'; END $$;
CREATE FUNCTION second_plpgsql(m mid) RETURNS SETOF dst LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT m.id, concat_ws('/', m.n, m.t); END $$;
CREATE TABLE step (no int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, breaks text, mends text, sql text, plpgsql text);

-- A row before and after the change, and in its transaction; then what mends it.
CREATE PROCEDURE try(no int, breaks text, mends text, INOUT result text) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + interval '1 min';
	base int := (SELECT coalesce(max(id), 0) FROM src);
	failed text;
BEGIN
	INSERT INTO src VALUES (base + 1, 1);
	COMMIT;
	PERFORM pipeline.wait_for('c');
	INSERT INTO src VALUES (base + 2, 2);
	EXECUTE breaks;
	INSERT INTO src VALUES (base + 3, 3);
	COMMIT;
	INSERT INTO src VALUES (base + 4, 4);
	COMMIT;
	LOOP
		EXIT WHEN pipeline.wait_for('c', timeout => '20 ms') OR clock_timestamp() > until;
		SELECT 'failed: ' || last_error || '; ' INTO failed FROM pipeline.status WHERE pipeline = 'c' AND state = 'failed';
		EXIT WHEN failed IS NOT NULL;
	END LOOP;
	result := coalesce(failed, '');
	COMMIT;
	EXECUTE mends;
	COMMIT;
	IF NOT pipeline.wait_for('c') THEN
		result := result || 'still ' || (SELECT state || ': ' || last_error FROM pipeline.status WHERE pipeline = 'c') || '; ';
	END IF;
	result := result || (SELECT string_agg(line, ' ' ORDER BY id) FROM dst WHERE id > base)
		|| coalesce((SELECT '; dead: ' || string_agg(reason, ', ') FROM pipeline.dead_letters WHERE pipeline = 'c'), '');
	COMMIT;
END $$;
CREATE PROCEDURE try_all(language text) LANGUAGE plpgsql AS $$
DECLARE
	s record;
	one text;
BEGIN
	FOR s IN SELECT * FROM step ORDER BY no LOOP
		CALL try(s.no, replace(s.breaks, '@', language), replace(s.mends, '@', language), one);
		EXECUTE format('UPDATE step SET %I = $1 WHERE no = $2', language) USING one, s.no;
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE make(name text, sql_body text, plpgsql_body text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION repair_types.%s_sql(%s) RETURNS SETOF repair_types.%s LANGUAGE sql STABLE AS %L',
		name, CASE name WHEN 'first' THEN 's repair_types.src' ELSE 'm repair_types.mid' END, CASE name WHEN 'first' THEN 'mid' ELSE 'dst' END, sql_body);
	EXECUTE format('CREATE OR REPLACE FUNCTION repair_types.%s_plpgsql(%s) RETURNS SETOF repair_types.%s LANGUAGE plpgsql STABLE AS %L',
		name, CASE name WHEN 'first' THEN 's repair_types.src' ELSE 'm repair_types.mid' END, CASE name WHEN 'first' THEN 'mid' ELSE 'dst' END, plpgsql_body);
END $$;
INSERT INTO step (breaks, mends) VALUES
	-- bodies
	($$CREATE OR REPLACE FUNCTION tax(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * 3'$$, $$SELECT 1$$),
	($$CALL make('second', 'SELECT m.id, m.t || m.n', 'BEGIN RETURN QUERY SELECT m.id, m.t || m.n; END')$$, $$SELECT 1$$),
	-- attributes
	($$ALTER TYPE mid ADD ATTRIBUTE more int$$, $$CALL make('first', 'SELECT s.id, s.n, ''y'', 7', 'BEGIN RETURN QUERY SELECT s.id, s.n, ''y'', 7; END')$$),
	($$ALTER TYPE mid RENAME ATTRIBUTE t TO tt$$, $$CALL make('second', 'SELECT m.id, m.tt || m.n || m.more', 'BEGIN RETURN QUERY SELECT m.id, m.tt || m.n || m.more; END')$$),
	($$ALTER TYPE mid DROP ATTRIBUTE more$$, $$CALL make('first', 'SELECT s.id, s.n, ''z''', 'BEGIN RETURN QUERY SELECT s.id, s.n, ''z''; END'); CALL make('second', 'SELECT m.id, m.tt || m.n', 'BEGIN RETURN QUERY SELECT m.id, m.tt || m.n; END')$$),
	($$ALTER TYPE mid ALTER ATTRIBUTE n TYPE text$$, $$CALL make('first', 'SELECT s.id, repeat(''n'', s.n), ''z''', 'BEGIN RETURN QUERY SELECT s.id, repeat(''n'', s.n), ''z''; END')$$),
	($$ALTER TYPE mid ALTER ATTRIBUTE n TYPE int$$, $$CALL make('first', 'SELECT s.id, s.n, ''z''', 'BEGIN RETURN QUERY SELECT s.id, s.n, ''z''; END')$$),
	-- dropped
	($$DROP FUNCTION second_@(mid)$$, $$CALL make('second', 'SELECT m.id, ''again '' || m.n', 'BEGIN RETURN QUERY SELECT m.id, ''again '' || m.n; END')$$),
	($$CALL make('first', 'SELECT s.id, tax(s.n), ''z''', 'BEGIN RETURN QUERY SELECT s.id, tax(s.n), ''z''; END'); DROP FUNCTION tax(int)$$, $$CREATE FUNCTION tax(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT -n'$$),
	($$DROP TYPE mid CASCADE$$, $$CREATE TYPE mid AS (id int, a int, b int); CALL make('first', 'SELECT s.id, s.n, 1', 'BEGIN RETURN QUERY SELECT s.id, s.n, 1; END'); CALL make('second', 'SELECT m.id, concat_ws(''+'', m.a, m.b)', 'BEGIN RETURN QUERY SELECT m.id, concat_ws(''+'', m.a, m.b); END')$$);
SELECT pipeline.create_pipeline('c', 'src');
SELECT pipeline.add_stage('c', 'first', 'transform', 'first_sql(src)'), pipeline.add_stage('c', 'second', 'transform', 'second_sql(mid)'),
	pipeline.add_output('c', 'dst'), pipeline.start('c');
CALL try_all('sql');
SELECT pipeline.drop_pipeline('c');
TRUNCATE src, dst;
-- all as it was, for the other language
DROP TYPE mid CASCADE;
CREATE TYPE mid AS (id int, n int, t text);
CREATE OR REPLACE FUNCTION tax(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * 2';
CALL make('first', 'SELECT s.id, tax(s.n), ''x''', 'BEGIN RETURN QUERY SELECT s.id, tax(s.n), ''x''; END');
CALL make('second', 'SELECT m.id, concat_ws(''/'', m.n, m.t)', 'BEGIN RETURN QUERY SELECT m.id, concat_ws(''/'', m.n, m.t); END');
SELECT pipeline.create_pipeline('c', 'src');
SELECT pipeline.add_stage('c', 'first', 'transform', 'first_plpgsql(src)'), pipeline.add_stage('c', 'second', 'transform', 'second_plpgsql(mid)'),
	pipeline.add_output('c', 'dst'), pipeline.start('c');
CALL try_all('plpgsql');
\x on
SELECT breaks, sql, plpgsql FROM step ORDER BY no;
\x off

-- The source: there is nothing to go on with.
DROP TABLE src CASCADE;
CREATE TABLE src (id int PRIMARY KEY, n int);
INSERT INTO src VALUES (1, 1);
SELECT pipeline.wait_for('c');
SELECT pipeline.stop('c');
SELECT pipeline.start('c');
SELECT severity, pipeline, what, hint FROM pipeline.health();
SELECT pipeline.drop_pipeline('c');
DROP SCHEMA repair_types CASCADE;
