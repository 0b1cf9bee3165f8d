-- Columns of every kind of type come through unchanged, whatever became of the
-- table's columns, and a dead letter keeps them too.
CREATE SCHEMA types;
SET search_path = types;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN tags AS text[];
CREATE TYPE point3 AS (x float8, y float8, "z z" numeric(6,2));
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE src (
	id int PRIMARY KEY,
	dropped1 text DEFAULT 'gone',
	c_bool bool, c_int2 int2, c_int8 int8, c_float4 float4, c_float8 float8,
	c_numeric numeric, c_numeric_mod numeric(20,5), c_money money,
	c_text text, c_varchar varchar(20), c_char char(10), c_name name, c_internal "char", c_bytea bytea,
	dropped2 int,
	c_date date, c_time time, c_timetz timetz, c_timestamp timestamp, c_timestamptz timestamptz(3), c_interval interval,
	c_uuid uuid, c_inet inet, c_cidr cidr, c_macaddr macaddr, c_bit bit(5), c_varbit varbit,
	c_json json, c_jsonb jsonb, c_tsvector tsvector, c_tsquery tsquery,
	c_point point, c_box box, c_polygon polygon, c_circle circle,
	c_ints int[], c_texts text[], c_matrix numeric[][], c_moods mood[], c_points point3[],
	c_int4range int4range, c_tstzrange tstzrange, c_multirange nummultirange, c_span span,
	c_mood mood, c_positive positive, c_tags tags, c_point3 point3,
	c_oid oid, c_regclass regclass, c_lsn pg_lsn, c_xid8 xid8,
	c_generated text GENERATED ALWAYS AS (upper(c_text)) STORED,
	c_identity int GENERATED ALWAYS AS IDENTITY,
	c_default int DEFAULT 42);
ALTER TABLE src DROP COLUMN dropped1, DROP COLUMN dropped2;
CREATE TABLE dst (LIKE src);
ALTER TABLE dst ADD PRIMARY KEY (id);
CREATE FUNCTION same(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
CREATE FUNCTION same_plpgsql(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN NEXT s; END $$;
CREATE FUNCTION twice(s src) RETURNS src LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN s; END $$;
-- How many rows differ, either way.
CREATE FUNCTION differences(OUT missing bigint, OUT foreign_rows bigint) LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM (SELECT s::text FROM src s EXCEPT ALL SELECT d::text FROM dst d) x),
		(SELECT count(*) FROM (SELECT d::text FROM dst d EXCEPT ALL SELECT s::text FROM src s) x) $$;

SELECT pipeline.create_pipeline('types', 'src'),
	pipeline.add_stage('types', 'sql', 'transform', 'same(src)'),
	pipeline.add_stage('types', 'plpgsql', 'transform', 'same_plpgsql(src)'),
	pipeline.add_stage('types', 'single', 'transform', 'twice(src)'),
	pipeline.add_stage('types', 'query', 'transform', query => 'SELECT * FROM event'),
	pipeline.add_output('types', 'dst'),
	pipeline.start('types');
INSERT INTO src VALUES (1);
INSERT INTO src VALUES (2, true, -32768, 9223372036854775807, 'NaN', '-Infinity', 'NaN', 1.5, 12.34,
	'text with ''quotes'' "double" \backslash	tab', 'varchar', 'char', 'name', 'c', '\x00ff10',
	'infinity', '24:00:00', '23:59:59.999999+05:30', '-infinity', 'infinity', '-1 year 2 days 03:04:05.678',
	'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', B'10101', B'1',
	'{"a":  1, "a": 2}', '{"b": [1, null, {"c": "d"}], "n": 1.10}', 'a fat cat', 'fat & !cat',
	'(1,2)', '(1,2),(3,4)', '((0,0),(1,1),(1,0))', '<(1,2),3>',
	'{1,NULL,3}', '{"a,b",NULL,"NULL",""}', '{{1.0,2},{3,NaN}}', '{happy,NULL}', ARRAY[(1, 2, 3.456)::point3, NULL],
	'[1,10)', '[-infinity,infinity]', '{[1,2),[3,)}', '(,1.5]',
	'happy', 7, '{x,y}', (1, NULL, 2.5), 4294967295, 'pg_class', '1/ABC', '18446744073709551615');
INSERT INTO src (id, c_numeric, c_float8, c_numeric_mod, c_text, c_int4range, c_ints, c_matrix, c_tstzrange)
VALUES (3, 'Infinity', 'Infinity', 'NaN', '', 'empty', '{}', '[0:1][-1:0]={{1,2},{3,4}}', '(,)'),
	(4, '-Infinity', 4.9e-324, 99999.99999, 'ünï ☃ 𝄞', '(,)', '[5:6]={1,2}', NULL, '["0044-03-15 BC",)'),
	(5, 1e-1000 * 1e300 + repeat('9', 100)::numeric, 0.1, -0.00001, E'line\nbreak\r', '[2147483646,)', ARRAY[1, 2, 3], '{}', NULL);
-- larger than a page, compressed or not, inline or not
INSERT INTO src (id, c_text, c_bytea, c_jsonb)
SELECT 6, string_agg(md5(i::text), ''), decode(string_agg(md5((-i)::text), ''), 'hex'), jsonb_agg(md5(i::text))
FROM generate_series(1, 40000) i;
INSERT INTO src (id, c_text) SELECT 7, repeat('compressible ', 100000);
ALTER TABLE src ALTER COLUMN c_text SET STORAGE EXTERNAL;
INSERT INTO src (id, c_text) SELECT 8, repeat('stored as it is ', 100000);
SELECT pipeline.wait_for('types');
SELECT count(*), max(length(c_text)) AS longest FROM dst;
SELECT * FROM differences();

-- A column that is added reaches the output when the output has it, its
-- default for rows before; one that is dropped is gone.
ALTER TABLE dst ADD COLUMN added text DEFAULT 'was', ADD COLUMN added2 int;
BEGIN;
INSERT INTO src (id) VALUES (9);
ALTER TABLE src ADD COLUMN added text DEFAULT 'was', ADD COLUMN added2 int;
INSERT INTO src (id, added, added2) VALUES (10, 'new', 1);
COMMIT;
SELECT pipeline.wait_for('types');
SELECT id, added, added2 FROM dst WHERE id >= 9 ORDER BY id;
SELECT * FROM differences();
BEGIN;
INSERT INTO src (id, c_int2, added) VALUES (11, 1, 'before the drop');
ALTER TABLE src DROP COLUMN c_int2;
ALTER TABLE dst DROP COLUMN c_int2;
INSERT INTO src (id, added) VALUES (12, 'after it');
COMMIT;
SELECT pipeline.wait_for('types');
SELECT id, added FROM dst WHERE id >= 11 ORDER BY id;
SELECT * FROM differences();

-- A name may change: the rows find their columns by the new one.
ALTER TABLE src RENAME COLUMN c_int8 TO c_long;
ALTER TABLE dst RENAME COLUMN c_int8 TO c_long;
INSERT INTO src (id, c_long) VALUES (13, 13);
SELECT pipeline.wait_for('types');
SELECT id, c_long FROM dst WHERE id = 13;

-- Dead letters have the row as jsonb, and run it again as it was.
SELECT pipeline.add_stage('types', 'stop', 'validate', query => 'SELECT ''not today''::text FROM event');
INSERT INTO src (id, c_float4, c_float8, c_numeric, c_text, c_bytea, c_timestamptz, c_interval, c_inet, c_varbit, c_jsonb,
	c_texts, c_matrix, c_points, c_multirange, c_mood, c_positive, c_tags, c_point3, c_lsn, c_tsvector)
SELECT 14, 0.1, 'NaN', '-Infinity', E'q"\\\n☃', '\xdeadbeef', 'infinity', '1 mon -2 days 00:00:00.000001', '10.1.2.3/8', B'101', '[1.10, null]',
	'{a,NULL,"b c"}', '{{1,2},{3,4}}', ARRAY[(1, 2, 3.4)::point3, NULL], '{[1,2),[3,)}', 'sad', 3, '{t}', ROW(1, NULL, 2.50)::point3, '1/ABC', 'fat cat';
SELECT pipeline.wait_for('types');
SELECT jsonb_strip_nulls(event - 'c_identity') AS event FROM pipeline.dead_letters WHERE pipeline = 'types';
SELECT pipeline.drop_stage('types', 'stop');
SELECT pipeline.redrive('types');
SELECT pipeline.wait_for('types');
SELECT * FROM differences();

SELECT pipeline.drop_pipeline('types');

-- A table without columns, and one without a key.
CREATE TABLE nothing ();
CREATE TABLE nothing_out (at timestamptz DEFAULT now(), n int DEFAULT 7);
SELECT pipeline.create_pipeline('nothing', 'nothing'), pipeline.add_output('nothing', 'nothing_out'), pipeline.start('nothing');
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
SELECT pipeline.wait_for('nothing');
SELECT n FROM nothing_out;
SELECT source_key, output_key, outcome FROM pipeline.lineage WHERE pipeline = 'nothing';
SELECT pipeline.drop_pipeline('nothing');
SET client_min_messages = warning;
DROP SCHEMA types CASCADE;
