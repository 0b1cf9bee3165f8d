-- Streams: rows inserted into them are events and are stored nowhere else.  What
-- INSERT and COPY may do, what becomes of the rows, and what is refused.
\set state '\\echo SQLSTATE :SQLSTATE'
CREATE SCHEMA streams;
SET search_path = streams;
-- waits until the slot is ready, which streams need, too
CREATE TABLE any_table (a int);
SELECT pipeline.create_pipeline('wait', 'any_table');
SELECT pipeline.drop_pipeline('wait');

CREATE FOREIGN TABLE clicks (
	user_id int NOT NULL,
	url text DEFAULT '/' CHECK (url LIKE '/%'),
	at timestamptz DEFAULT '2020-01-01 00:00:00+00',
	shout text GENERATED ALWAYS AS (upper(url)) STORED
) SERVER pipeline;
\d clicks
INSERT INTO clicks VALUES (0, '/before');

-- Two pipelines over one stream.
CREATE TABLE all_clicks (n serial, user_id int, url text, at timestamptz, shout text);
CREATE TABLE even_clicks (user_id int PRIMARY KEY, url text);
CREATE FUNCTION is_even(c clicks) RETURNS bool LANGUAGE sql IMMUTABLE RETURN c.user_id % 2 = 0;
SELECT pipeline.create_pipeline('everything', 'clicks');
SELECT pipeline.add_output('everything', 'all_clicks');
SELECT pipeline.start('everything');
SELECT pipeline.create_pipeline('even', 'clicks');
SELECT pipeline.add_stage('even', 'even', 'transform', query => 'SELECT user_id, url FROM event WHERE is_even(event)');
SELECT pipeline.add_output('even', 'even_clicks');
SELECT pipeline.start('even');
CREATE FUNCTION seen(OUT user_id int, OUT url text, OUT at timestamptz, OUT shout text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT a.user_id, a.url, a.at, a.shout FROM streams.all_clicks a ORDER BY a.n;
	TRUNCATE streams.all_clicks;
END $$;

INSERT INTO clicks VALUES (1, '/a', '2020-01-02 00:00:00+00'), (2, NULL, NULL) RETURNING *, tableoid::regclass;
INSERT INTO clicks (user_id) VALUES (3);
INSERT INTO clicks DEFAULT VALUES;
:state
INSERT INTO clicks SELECT i, '/' || i FROM generate_series(4, 6) i;
PREPARE click AS INSERT INTO clicks (user_id, url) VALUES ($1, $2);
EXECUTE click (7, '/seven');
EXECUTE click (8, 'eight');
:state
COPY clicks (user_id, url) FROM stdin;
9	/nine
10	\N
\.
COPY clicks (user_id, url) FROM stdin WHERE user_id > 11;
11	/eleven
12	/twelve
\.
COPY clicks (user_id, url) FROM stdin;
13	/thirteen
14	fourteen
\.
:state
WITH x AS (INSERT INTO clicks (user_id) VALUES (15) RETURNING user_id) SELECT * FROM x;
INSERT INTO clicks (user_id) VALUES (16) ON CONFLICT DO NOTHING;
INSERT INTO clicks (user_id) VALUES (16) ON CONFLICT (user_id) DO NOTHING;
:state
EXPLAIN (costs off) INSERT INTO clicks (user_id) VALUES (17);
EXPLAIN (costs off, analyze, timing off, summary off) INSERT INTO clicks (user_id) VALUES (18);
INSERT INTO clicks (user_id, shout) VALUES (19, 'no');
:state
CREATE VIEW short_clicks AS SELECT user_id FROM clicks WHERE user_id < 100 WITH CHECK OPTION;
INSERT INTO short_clicks VALUES (20);
INSERT INTO short_clicks VALUES (100);
:state
SELECT pipeline.wait_for('everything');
SELECT * FROM seen();
SELECT pipeline.wait_for('even');
SELECT * FROM even_clicks ORDER BY user_id;
SELECT pipeline, output, operation, source, source_key, output_key, outcome, count(*) FROM pipeline.lineage
WHERE source = 'clicks'::regclass GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 7, 6;
SELECT output, events, produced, filtered, balanced FROM pipeline.ledger('even');

-- In the inserter's transaction.
BEGIN;
INSERT INTO clicks (user_id) VALUES (21);
ROLLBACK;
BEGIN;
INSERT INTO clicks (user_id) VALUES (22);
SAVEPOINT a;
INSERT INTO clicks (user_id) VALUES (23);
SAVEPOINT b;
INSERT INTO clicks (user_id) VALUES (24);
RELEASE b;
INSERT INTO clicks (user_id) VALUES (25);
ROLLBACK TO a;
INSERT INTO clicks (user_id) VALUES (26);
SAVEPOINT c;
INSERT INTO clicks (user_id) VALUES (27);
RELEASE c;
COMMIT;
-- also of a statement that failed half way
BEGIN;
INSERT INTO clicks (user_id) VALUES (32);
SAVEPOINT a;
INSERT INTO clicks (user_id) SELECT 33 / (4 - i) FROM generate_series(1, 5) i;
ROLLBACK TO a;
INSERT INTO clicks (user_id) VALUES (34);
COMMIT;
DO $$
BEGIN
	INSERT INTO streams.clicks (user_id) VALUES (28);
	BEGIN
		INSERT INTO streams.clicks (user_id) VALUES (29);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		INSERT INTO streams.clicks (user_id) VALUES (30);
	END;
	BEGIN
		INSERT INTO streams.clicks (user_id) VALUES (31);
	EXCEPTION WHEN division_by_zero THEN
	END;
END $$;
SELECT pipeline.wait_for('everything');
SELECT user_id FROM seen();

-- Within a statement: functions that insert into the same stream, in subtransactions
-- too, of which some are rolled back.  Rows come in the order of their insertion.
CREATE FUNCTION click(i int, fails bool) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO streams.clicks (user_id) VALUES (i + 100);
	BEGIN
		INSERT INTO streams.clicks (user_id) VALUES (i + 200), (i + 300);
		IF fails THEN RAISE division_by_zero; END IF;
	EXCEPTION WHEN division_by_zero THEN
		INSERT INTO streams.clicks (user_id) VALUES (i + 400);
	END;
	RETURN i;
END $$;
INSERT INTO clicks (user_id) SELECT click(i, i = 2) FROM generate_series(1, 3) i;
SELECT pipeline.wait_for('everything');
SELECT user_id FROM seen();
-- and of statements on several streams
CREATE FOREIGN TABLE other (user_id int) SERVER pipeline;
CREATE TABLE all_other (n serial, user_id int);
SELECT pipeline.create_pipeline('other', 'other');
SELECT pipeline.add_output('other', 'all_other');
SELECT pipeline.start('other');
WITH a AS (INSERT INTO clicks (user_id) SELECT click(i, i = 1) FROM generate_series(1, 2) i RETURNING user_id),
	b AS (INSERT INTO other SELECT user_id FROM a RETURNING user_id)
SELECT * FROM b;
SELECT pipeline.wait_for('everything'), pipeline.wait_for('other');
SELECT user_id FROM seen();
SELECT user_id FROM all_other ORDER BY n;

-- Triggers: those before a row change it or leave it out; those after it come later.
CREATE FUNCTION before_click() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.user_id = 0 THEN RETURN NULL; END IF;
	NEW.url = coalesce(NEW.url, '') || '?';
	RETURN NEW;
END $$;
CREATE FUNCTION after_click() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		INSERT INTO streams.clicks (user_id, url) SELECT NEW.user_id + 1, '/' WHERE NEW.user_id % 10 < 2;
	EXCEPTION WHEN division_by_zero THEN
	END;
	RETURN NULL;
END $$;
CREATE TRIGGER a BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION before_click();
CREATE TRIGGER b AFTER INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION after_click();
INSERT INTO clicks (user_id, url) VALUES (0, '/'), (40, '/x'), (50, NULL);
:state
INSERT INTO clicks (user_id, url) VALUES (0, '/'), (40, '/x'), (50, '/y');
SELECT pipeline.emit('clicks', ROW(60, '/z'::text, '2021-01-01 00:00:00+00'::timestamptz));
SELECT pipeline.wait_for('everything');
SELECT * FROM seen();
DROP TRIGGER a ON clicks;
DROP TRIGGER b ON clicks;
CREATE TRIGGER c AFTER INSERT ON clicks REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION after_click();
:state

-- pipeline.emit: by position, or by name if the row has a named type.
SELECT pipeline.emit('clicks', ROW(70, '/p'::text, NULL::timestamptz));
CREATE TYPE click_type AS (url text, more int, user_id int, at timestamptz);
SELECT pipeline.emit('clicks', ROW('/n', 1, 71, NULL)::click_type);
SELECT pipeline.emit('clicks', ROW(72, '/self', NULL, 'what')::clicks);
SELECT pipeline.emit('clicks', NULL);
:state
SELECT pipeline.emit(NULL, ROW(1));
:state
SELECT pipeline.emit('clicks', ROW(70, '/p'::text));
:state
SELECT pipeline.emit('clicks', ROW(70::bigint, '/p'::text, NULL::timestamptz));
:state
SELECT pipeline.emit('clicks', ROW(70, '/p'::text, NULL::timestamptz, 1));
:state
SELECT pipeline.emit('clicks', ROW(NULL::int, '/p'::text, NULL::timestamptz));
:state
SELECT pipeline.emit('clicks', ROW(1, 'p'::text, NULL::timestamptz));
:state
SELECT pipeline.emit('any_table', ROW(1));
:state
SELECT pipeline.emit('clicks', c) FROM (VALUES ('/v', 1, 73, NULL::timestamptz)) c (url, more, user_id, at);
:state
SELECT pipeline.wait_for('everything');
SELECT user_id, url, at, shout FROM seen();

-- Privileges are those of INSERT.
CREATE ROLE streams_writer;
GRANT USAGE ON SCHEMA streams, pipeline TO streams_writer;
SET ROLE streams_writer;
CREATE FOREIGN TABLE pg_temp.mine (a int) SERVER pipeline;
:state
INSERT INTO clicks (user_id) VALUES (80);
:state
SELECT pipeline.emit('clicks', ROW(80, '/p'::text, NULL::timestamptz));
:state
RESET ROLE;
GRANT INSERT (user_id) ON clicks TO streams_writer;
GRANT USAGE ON FOREIGN SERVER pipeline TO streams_writer;
GRANT CREATE ON SCHEMA streams TO streams_writer;
SET ROLE streams_writer;
INSERT INTO clicks (user_id) VALUES (81);
INSERT INTO clicks (user_id, url) VALUES (82, '/');
:state
SELECT pipeline.emit('clicks', ROW(80, '/p'::text, NULL::timestamptz));
:state
CREATE FOREIGN TABLE mine (a int) SERVER pipeline;
INSERT INTO mine VALUES (1);
DROP FOREIGN TABLE mine;
RESET ROLE;
ALTER FOREIGN TABLE clicks ENABLE ROW LEVEL SECURITY;
:state
SELECT pipeline.wait_for('everything');
SELECT user_id FROM seen();

-- There is nothing to read, change or lock.
SELECT * FROM clicks;
:state
SELECT count(*) FROM any_table JOIN clicks ON user_id = a;
:state
UPDATE clicks SET url = '/';
:state
DELETE FROM clicks;
:state
TRUNCATE clicks;
:state
MERGE INTO clicks USING any_table ON a = user_id WHEN NOT MATCHED THEN INSERT (user_id) VALUES (a);
:state
SELECT * FROM clicks FOR UPDATE;
:state
COPY clicks TO stdout;
:state
ANALYZE clicks;
BEGIN;
LOCK TABLE clicks;
:state
ROLLBACK;
EXPLAIN SELECT * FROM clicks;
:state
CREATE INDEX ON clicks (user_id);
:state
SELECT * FROM clicks WHERE false;
CREATE TABLE same (LIKE clicks);

-- No options anywhere.
CREATE FOREIGN TABLE wrong (a int) SERVER pipeline OPTIONS (topic 'x');
:state
CREATE FOREIGN TABLE wrong (a int OPTIONS (name 'x')) SERVER pipeline;
:state
ALTER SERVER pipeline OPTIONS (host 'x');
:state
ALTER FOREIGN DATA WRAPPER pipeline OPTIONS (a 'x');
:state
CREATE USER MAPPING FOR CURRENT_USER SERVER pipeline OPTIONS (password 'x');
:state
IMPORT FOREIGN SCHEMA x FROM SERVER pipeline INTO streams;
:state

-- As a source: inserts only, and of our server.
SELECT pipeline.create_pipeline('wrong', 'clicks', operations => '{insert,update}');
:state
SELECT pipeline.create_pipeline('wrong', 'clicks', operations => '{truncate}');
:state
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE far (a int) SERVER elsewhere;
SELECT pipeline.create_pipeline('wrong', 'far');
:state
ALTER TABLE any_table ADD PRIMARY KEY (a);
SELECT pipeline.create_pipeline('into', 'any_table', operations => '{insert,update}');
SELECT pipeline.add_output('into', 'far', mode => 'append');
:state

-- As a target: what is inserted there is an event of the next pipeline.
CREATE FUNCTION to_other(t any_table) RETURNS SETOF other LANGUAGE sql IMMUTABLE AS 'SELECT t.a';
SELECT pipeline.add_output('into', 'other', transform => 'to_other(any_table)');
:state
SELECT pipeline.add_output('into', 'other', mode => 'append');
:state
SELECT pipeline.add_output('into', 'other', mode => 'append', transform => 'to_other(any_table)');
SELECT pipeline.start('into');
INSERT INTO any_table SELECT 1000 + i FROM generate_series(1, 3) i;
UPDATE any_table SET a = a + 1000 WHERE a = 1002;
SELECT pipeline.wait_for('into');
SELECT pipeline.wait_for('other');
SELECT user_id FROM all_other WHERE user_id > 1000 ORDER BY n;
SELECT pipeline, output, operation, output_key, outcome, count(*) FROM pipeline.lineage
WHERE pipeline IN ('into', 'other') GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3;
-- not in a circle
SELECT pipeline.create_pipeline('circle', 'other');
CREATE FUNCTION to_any(o other) RETURNS SETOF any_table LANGUAGE sql IMMUTABLE AS 'SELECT o.user_id';
SELECT pipeline.add_output('circle', 'any_table', transform => 'to_any(other)');
:state
SELECT pipeline.drop_pipeline('circle');

-- Partitions that are streams.  Rows are routed to them, and checked if they are not.
CREATE TABLE measures (place text, n int, note text) PARTITION BY LIST (place);
CREATE TABLE kept PARTITION OF measures FOR VALUES IN ('kept');
CREATE FOREIGN TABLE passed PARTITION OF measures FOR VALUES IN ('passed') SERVER pipeline;
CREATE FOREIGN TABLE turned (note text, gone int, n int, place text) SERVER pipeline;
ALTER FOREIGN TABLE turned DROP gone;
ALTER TABLE measures ATTACH PARTITION turned FOR VALUES IN ('turned');
CREATE FOREIGN TABLE others PARTITION OF measures DEFAULT SERVER elsewhere;
SELECT pipeline.create_pipeline('measures', 'measures');
:state
DROP FOREIGN TABLE others;
CREATE TABLE all_measures (i serial, place text, n int, note text);
CREATE TABLE all_passed (i serial, place text, n int, note text);
SELECT pipeline.create_pipeline('measures', 'measures');
SELECT pipeline.add_output('measures', 'all_measures');
SELECT pipeline.start('measures');
SELECT pipeline.create_pipeline('passed', 'passed');
SELECT pipeline.add_output('passed', 'all_passed');
SELECT pipeline.start('passed');
INSERT INTO measures SELECT (ARRAY['kept', 'passed', 'turned'])[i % 3 + 1], i, 'note ' || i FROM generate_series(1, 7) i;
COPY measures FROM stdin;
kept	8	note
passed	9	\N
turned	10	note
passed	11	\N
\.
INSERT INTO passed VALUES ('passed', 12, NULL);
INSERT INTO passed VALUES ('kept', 13, NULL);
:state
SELECT pipeline.emit('turned', ROW('note'::text, 14, 'kept'::text));
:state
UPDATE measures SET place = 'passed' WHERE place = 'kept' AND n = 8;
UPDATE measures SET n = 0;
:state
SELECT * FROM measures;
:state
SELECT * FROM measures WHERE place = 'kept' ORDER BY n;
SELECT pipeline.wait_for('measures'), pipeline.wait_for('passed');
SELECT place, n, note FROM all_measures ORDER BY i;
SELECT place, n, note FROM all_passed ORDER BY i;
SELECT DISTINCT source FROM pipeline.lineage WHERE pipeline = 'measures';
-- one that comes later
CREATE FOREIGN TABLE later PARTITION OF measures FOR VALUES IN ('later') SERVER pipeline;
INSERT INTO measures VALUES ('later', 20, NULL);
ALTER TABLE measures DETACH PARTITION turned;
INSERT INTO turned VALUES (NULL, 21, 'turned');
INSERT INTO later VALUES ('later', 22, NULL);
SELECT pipeline.wait_for('measures');
SELECT place, n, note FROM all_measures WHERE n >= 20 ORDER BY i;
SELECT change, old_type, new_type, state FROM pipeline.schema_events WHERE pipeline = 'measures' ORDER BY id;

-- Changes of a stream, in the transaction of its rows and with events on their way.
CREATE FOREIGN TABLE changing (a int, b text, c int) SERVER pipeline;
CREATE TABLE all_changing (i serial, a text, b text, d text);
SELECT pipeline.create_pipeline('changing', 'changing');
SELECT pipeline.add_stage('changing', 'words', 'transform',
	query => 'SELECT a::text AS a, coalesce(to_jsonb(event)->>''b'', to_jsonb(event)->>''word'') AS b, to_jsonb(event)->>''d'' AS d FROM event');
SELECT pipeline.add_output('changing', 'all_changing');
SELECT pipeline.start('changing');
INSERT INTO changing VALUES (1, 'one', 1);
SELECT pipeline.wait_for('changing');
SELECT pipeline.stop('changing');
BEGIN;
INSERT INTO changing VALUES (2, 'two', 2);
ALTER FOREIGN TABLE changing DROP c;
INSERT INTO changing VALUES (3, 'three');
ALTER FOREIGN TABLE changing ADD d text DEFAULT 'new';
INSERT INTO changing VALUES (4, 'four');
COMMIT;
ALTER FOREIGN TABLE changing ALTER a TYPE bigint;
INSERT INTO changing VALUES (5000000000, 'five', 'd');
ALTER FOREIGN TABLE changing RENAME b TO word;
ALTER FOREIGN TABLE changing RENAME TO changed;
INSERT INTO changed VALUES (6, 'six', NULL);
SELECT pipeline.start('changing');
SELECT pipeline.wait_for('changing');
SELECT a, b, d FROM all_changing ORDER BY i;
SELECT change, column_name, old_type, new_type, state FROM pipeline.schema_events WHERE pipeline = 'changing' ORDER BY id;
-- a stream that is dropped with its events unread, in the transaction of the last
SELECT pipeline.stop('changing');
BEGIN;
INSERT INTO changed VALUES (7, 'seven', NULL);
DROP FOREIGN TABLE changed;
COMMIT;
SELECT change, column_name, old_type, new_type, state FROM pipeline.schema_events WHERE pipeline = 'changing' AND change = 'drop_table';
SELECT pipeline.start('changing');
:state
SELECT pipeline.drop_pipeline('changing');

-- Values of all kinds: large ones, from tables and made up, compressed, arrays, composites, and none.
CREATE FOREIGN TABLE kinds (id int, t text, a int[], c click_type, j jsonb, n numeric, b bytea, f float8, e text, nm name) SERVER pipeline;
CREATE TABLE all_kinds (LIKE kinds);
CREATE TABLE kinds_before (LIKE kinds);
ALTER TABLE kinds_before ALTER t SET STORAGE EXTERNAL;
INSERT INTO kinds_before VALUES
	(1, repeat('t', 100000), ARRAY[1, 2], ROW('u', 1, 2, NULL), '{"a": [1]}', 1.5, '\x00ff', 1.25, '', 'n'),
	(2, repeat('compressed ', 10000), array_fill(7, ARRAY[5000]), ROW(repeat('u', 9000), 1, 2, NULL), jsonb_build_object('k', repeat('j', 50000)), 1e200, '', 'NaN', repeat('x', 126), 'm'),
	(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT pipeline.create_pipeline('kinds', 'kinds');
SELECT pipeline.add_output('kinds', 'all_kinds');
SELECT pipeline.start('kinds');
INSERT INTO kinds SELECT * FROM kinds_before;
DO $$
DECLARE
	r streams.kinds_before;
BEGIN
	FOR r IN SELECT * FROM streams.kinds_before LOOP
		r.id = r.id + 10;
		r.a[3] = 3;
		INSERT INTO streams.kinds SELECT r.*;
		r.id = r.id + 10;
		PERFORM pipeline.emit('streams.kinds', r);
	END LOOP;
END $$;
SELECT pipeline.wait_for('kinds');
SELECT count(*), count(DISTINCT id) FROM all_kinds;
SELECT o.id, k.id AS other, to_jsonb(o) - '{id,a}'::text[] = to_jsonb(k) - '{id,a}'::text[] AS same, o.a = k.a AS same_a, k.a[3]
FROM kinds_before o JOIN all_kinds k ON k.id % 10 = o.id ORDER BY k.id;

-- Events that fail, and are run again; no outputs of mode upsert.
CREATE FOREIGN TABLE orders (id int, n int, note text) SERVER pipeline;
CREATE TABLE latest (i serial PRIMARY KEY, id int, n int CHECK (n < 1000), note text);
CREATE FUNCTION positive(o orders) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN o.n < 0 THEN 'negative' END $$;
SELECT pipeline.create_pipeline('orders', 'orders');
SELECT pipeline.add_stage('orders', 'positive', 'validate', 'positive(orders)');
CREATE TABLE by_id (id int PRIMARY KEY, n int, note text);
SELECT pipeline.add_output('orders', 'by_id', mode => 'upsert');
:state
SELECT pipeline.add_output('orders', 'latest');
SELECT pipeline.start('orders');
INSERT INTO orders VALUES (1, 1, 'one'), (2, -2, 'negative'), (3, 3000, 'large'), (1, 10, 'one again');
INSERT INTO orders VALUES (1, 11, 'and again');
SELECT pipeline.wait_for('orders');
SELECT id, n, note FROM latest ORDER BY i;
SELECT stage, kind, reason, sqlstate, source, operation, event, old_event, seq FROM pipeline.dead_letters WHERE pipeline = 'orders' ORDER BY id;
CREATE OR REPLACE FUNCTION positive(o orders) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::text $$;
ALTER TABLE latest DROP CONSTRAINT latest_n_check;
SELECT pipeline.redrive('orders');
SELECT pipeline.wait_for('orders');
SELECT id, n, note FROM latest ORDER BY i;
SELECT severity, what, hint FROM pipeline.health() WHERE pipeline IN ('orders', 'measures', 'everything', 'even', 'other', 'into', 'passed');

-- What a batch inserts into a stream: nothing of events that fail, and no event of
-- the pipeline itself, if a trigger inserts into its source; but one of others.
CREATE FOREIGN TABLE fan (id int, n int, note text) SERVER pipeline;
CREATE TABLE fan_checked (id int, n int CHECK (n < 1000), note text);
CREATE TABLE fan_out (i serial, id int, n int, note text);
CREATE TABLE back_out (i serial, id int, n int, note text);
CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO streams.orders VALUES (NEW.id + 100, NEW.n, 'back');
	RETURN NULL;
END $$;
CREATE TRIGGER back AFTER INSERT ON fan_checked FOR EACH ROW EXECUTE FUNCTION back();
SELECT pipeline.create_pipeline('checked', 'orders');
SELECT pipeline.add_output('checked', 'fan');
SELECT pipeline.add_output('checked', 'fan_checked');
SELECT pipeline.start('checked');
SELECT pipeline.create_pipeline('fan', 'fan');
SELECT pipeline.add_output('fan', 'fan_out');
SELECT pipeline.start('fan');
SELECT pipeline.create_pipeline('back', 'orders');
SELECT pipeline.add_output('back', 'back_out');
SELECT pipeline.start('back');
INSERT INTO orders SELECT i, CASE WHEN i % 5 = 0 THEN 1000 ELSE i END, 'fan' FROM generate_series(1, 12) i;
SELECT pipeline.wait_for('checked');
SELECT pipeline.wait_for('fan'), pipeline.wait_for('back');
SELECT id, n FROM fan_out ORDER BY i;
SELECT id, n, note FROM fan_checked ORDER BY id;
SELECT note, count(*), min(id), max(id) FROM back_out GROUP BY note ORDER BY note;
SELECT output, events, produced, failed, balanced FROM pipeline.ledger('checked') ORDER BY output;
SELECT (event->'id')::int AS id, sqlstate FROM pipeline.dead_letters WHERE pipeline = 'checked' ORDER BY 1;

-- A stream cannot be altered under a statement that inserts into it.
CREATE FUNCTION alters(i int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	ALTER FOREIGN TABLE streams.fan ADD more int;
	RETURN i;
END $$;
INSERT INTO fan (id) VALUES (1), (alters(2));
:state

-- Many rows in one statement, and rows larger than a message.
CREATE FOREIGN TABLE many (i int, t text) SERVER pipeline;
CREATE TABLE all_many (n bigserial, i int, t text);
SELECT pipeline.create_pipeline('many', 'many');
SELECT pipeline.add_output('many', 'all_many');
SELECT pipeline.start('many');
INSERT INTO many SELECT i, repeat('x', CASE WHEN i % 1000 = 0 THEN 100000 ELSE i % 50 END) FROM generate_series(1, 5000) i;
SELECT pipeline.wait_for('many');
SELECT count(*), sum(length(t)), count(DISTINCT i), bool_and(in_order)
FROM (SELECT *, i > lag(i, 1, 0) OVER (ORDER BY n) AS in_order FROM all_many) x;
SELECT min(seq), max(seq), count(DISTINCT seq), count(DISTINCT commit_lsn) FROM pipeline.lineage WHERE pipeline = 'many';

-- Nobody but the extension writes rows: what others emit under the same prefix is
-- no event, but has its place in the transaction, as everything has.
BEGIN;
INSERT INTO many VALUES (-1, 'before');
SELECT pg_logical_emit_message(true, 'pipeline.rows', m) IS NOT NULL FROM unnest(ARRAY['', 'short', 'a text that is long enough to be a header',
	encode(decode('0100000001000000' || repeat('00', 56), 'hex'), 'escape')]) m;
SELECT pg_logical_emit_message(true, 'pipeline.rows', decode('0100000001000000' || repeat('00', 56), 'hex')) IS NOT NULL;
SELECT pg_logical_emit_message(false, 'pipeline.rows', decode('0100000001000000' || repeat('00', 56), 'hex')) IS NOT NULL;
INSERT INTO many VALUES (-2, 'after');
COMMIT;
SELECT pipeline.wait_for('many');
SELECT i, t FROM all_many WHERE i < 0 ORDER BY n;
SELECT seq FROM pipeline.lineage WHERE pipeline = 'many' AND seq < 10 AND commit_lsn = (SELECT max(commit_lsn) FROM pipeline.lineage WHERE pipeline = 'many') ORDER BY seq;

-- Identity columns, serial, domains.
CREATE DOMAIN positive_int AS int CHECK (VALUE > 0);
CREATE FOREIGN TABLE numbered (id int GENERATED ALWAYS AS IDENTITY, n serial, p positive_int) SERVER pipeline;
INSERT INTO numbered (p) VALUES (10), (20) RETURNING *;
INSERT INTO numbered (p) VALUES (0);
:state
INSERT INTO numbered (id, p) VALUES (7, 1);
:state
SELECT pipeline.emit('numbered', ROW(7, 7, 7)::numbered);

-- The extension cannot go while there are streams.
DROP EXTENSION pipeline;
:state
SELECT pipeline.drop_pipeline(p.pipeline, cascade => true) FROM (SELECT pipeline FROM pipeline.pipelines ORDER BY pipeline) p;
SET client_min_messages = warning;
DROP SCHEMA streams CASCADE;
DROP FOREIGN DATA WRAPPER elsewhere CASCADE;
REVOKE ALL ON SCHEMA pipeline FROM streams_writer;
REVOKE ALL ON FOREIGN SERVER pipeline FROM streams_writer;
DROP ROLE streams_writer;
