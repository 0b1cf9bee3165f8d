-- Handlers and queries of every kind, what they return, and what becomes of
-- an event that they reject, filter, multiply or fail on.
CREATE SCHEMA handlers;
SET search_path = handlers;
CREATE TABLE src (id int PRIMARY KEY, a text, n int);
CREATE TABLE dst (id int, a text, n int);
CREATE TABLE look (n int PRIMARY KEY, a text);
INSERT INTO look VALUES (1, 'one'), (2, 'two'), (3, NULL);
-- What became of the events of a pipeline since the last look.
CREATE FUNCTION outcomes(OUT id int, OUT output text, OUT outcome text, OUT reason text, OUT parts bigint)
RETURNS SETOF record LANGUAGE sql AS $$
	SELECT (source_key->>'id')::int, output, outcome, reason, count(part) FROM pipeline.lineage
	WHERE pipeline = 'h' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2 $$;
CREATE FUNCTION letters(OUT id int, OUT stage text, OUT kind text, OUT reason text, OUT sqlstate text, OUT detail text)
RETURNS SETOF record LANGUAGE sql AS $$
	SELECT (event->>'id')::int, stage, kind, reason, sqlstate, detail FROM pipeline.dead_letters
	WHERE pipeline = 'h' ORDER BY 1 $$;

--
-- Is a handler inlined?  If not, the NOTICE has the command that changes it.
--
CREATE FUNCTION v_stable(s src) RETURNS bool LANGUAGE sql STABLE AS $$ SELECT s.n > 0 $$;
CREATE FUNCTION v_volatile(s src) RETURNS bool LANGUAGE sql AS $$ SELECT s.n > 0 $$;
CREATE FUNCTION t_stable(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, s.a, s.n $$;
CREATE FUNCTION t_volatile(s src) RETURNS SETOF src LANGUAGE sql AS $$ SELECT s.id, s.a, s.n $$;
CREATE FUNCTION t_strict(s src) RETURNS SETOF src LANGUAGE sql STABLE STRICT AS $$ SELECT s.id, s.a, s.n $$;
CREATE FUNCTION t_definer(s src) RETURNS SETOF src LANGUAGE sql STABLE SECURITY DEFINER SET search_path = handlers AS $$ SELECT s.id, s.a, s.n $$;
CREATE FUNCTION t_worst(s src) RETURNS SETOF src LANGUAGE sql STRICT SECURITY DEFINER SET work_mem = '1MB' AS $$ SELECT s.id, s.a, s.n $$;
CREATE FUNCTION t_from(s src) RETURNS src LANGUAGE sql STABLE AS $$ SELECT l.n, l.a, s.n FROM look l WHERE l.n = s.n $$;
CREATE FUNCTION t_two(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT 1; SELECT s.id, s.a, s.n $$;
CREATE FUNCTION t_plpgsql(s src) RETURNS SETOF src LANGUAGE plpgsql AS $$ BEGIN RETURN NEXT s; END $$;
CREATE FUNCTION t_atomic(s src) RETURNS SETOF src LANGUAGE sql STABLE RETURN s;
SELECT pipeline.create_pipeline('h', 'src');
SELECT pipeline.add_stage('h', 'v_stable', 'validate', 'v_stable(src)');
SELECT pipeline.add_stage('h', 'v_volatile', 'validate', 'v_volatile(src)');
SELECT pipeline.add_stage('h', 't_stable', 'transform', 't_stable(src)');
SELECT pipeline.add_stage('h', 't_volatile', 'transform', 't_volatile(src)');
SELECT pipeline.add_stage('h', 't_strict', 'transform', 't_strict(src)');
SELECT pipeline.add_stage('h', 't_definer', 'transform', 't_definer(src)');
SELECT pipeline.add_stage('h', 't_worst', 'transform', 't_worst(src)');
SELECT pipeline.add_stage('h', 't_from', 'enrich', 't_from(src)');
SELECT pipeline.add_stage('h', 't_two', 'transform', 't_two(src)');
SELECT pipeline.add_stage('h', 't_plpgsql', 'transform', 't_plpgsql(src)');
SELECT pipeline.add_stage('h', 't_atomic', 'transform', 't_atomic(src)');
SELECT pipeline.add_output('h', 'dst', transform => 't_volatile(src)');
-- After the command it is inlined.
ALTER FUNCTION handlers.t_worst(handlers.src) STABLE CALLED ON NULL INPUT SECURITY INVOKER RESET ALL;
SELECT pipeline.drop_stage('h', 't_worst');
SELECT pipeline.add_stage('h', 't_worst', 'transform', 't_worst(src)');
-- All of them together run.
SELECT pipeline.start('h');
INSERT INTO src VALUES (1, 'x', 1), (2, 'y', -1), (3, 'z', 9), (4, 'null', NULL);
SELECT pipeline.wait_for('h');
SELECT * FROM dst ORDER BY id;
SELECT * FROM outcomes();
SELECT pipeline.drop_pipeline('h');
TRUNCATE src, dst;

--
-- Verdicts: boolean or text, by function or query.
--
CREATE FUNCTION v_text(s src) RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN IF s.a = 'bad' THEN RETURN 'it says bad'; ELSIF s.a = 'empty' THEN RETURN ''; END IF; RETURN NULL; END $$;
SELECT pipeline.create_pipeline('h', 'src'),
	pipeline.add_stage('h', 'bool', 'validate', 'v_stable(src)'),
	pipeline.add_stage('h', 'text', 'validate', 'v_text(src)'),
	pipeline.add_stage('h', 'query bool', 'validate', query => 'SELECT a <> ''q'' FROM event'),
	pipeline.add_stage('h', 'query text', 'validate', query => 'SELECT CASE WHEN l.a IS NULL THEN ''looked up '' || event.n END FROM event JOIN look l USING (n)'),
	pipeline.add_output('h', 'dst'),
	pipeline.start('h');
INSERT INTO src VALUES (1, 'good', 1), (2, 'false', 0), (3, 'null', NULL), (4, 'bad', 1), (5, 'empty', 1),
	(6, 'q', 1), (7, NULL, 1), (8, 'no row', 4), (9, 'reason', 3), (10, 'good', 2);
SELECT pipeline.wait_for('h');
SELECT * FROM dst ORDER BY id;
SELECT * FROM letters();
SELECT stage, kind, events, rows, errors FROM pipeline.stage_stats WHERE pipeline = 'h' ORDER BY position;
SELECT * FROM pipeline.ledger('h');
SELECT pipeline.drop_pipeline('h');
TRUNCATE src, dst;

--
-- Enrich and transform: no row, one, several; SETOF and not; NULL; functions
-- in SQL and plpgsql; queries with joins, aggregates and sets.
--
CREATE FUNCTION e_setof(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, l.a, s.n FROM look l WHERE l.n = s.n $$;
CREATE FUNCTION e_single(s src) RETURNS src LANGUAGE plpgsql STABLE AS
$$ BEGIN IF s.n = 2 THEN RETURN NULL; ELSIF s.n = 3 THEN RETURN ROW(NULL::int, NULL::text, NULL::int); END IF; RETURN s; END $$;
CREATE FUNCTION t_fan(s src) RETURNS SETOF src LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, s.a || i, i FROM generate_series(1, s.n) i; END $$;
SELECT pipeline.create_pipeline('h', 'src'),
	pipeline.add_stage('h', 'setof', 'enrich', 'e_setof(src)'),
	pipeline.add_output('h', 'dst'), pipeline.start('h');
INSERT INTO src VALUES (1, 'x', 1), (2, 'x', 3), (3, 'x', 4), (4, 'x', NULL);
SELECT pipeline.wait_for('h');
SELECT * FROM dst ORDER BY id;
SELECT * FROM letters();
-- a row of nulls is a row, NULL is none
SELECT pipeline.drop_stage('h', 'setof'), pipeline.add_stage('h', 'single', 'enrich', 'e_single(src)');
INSERT INTO src VALUES (5, 'x', 1), (6, 'null', 2), (7, 'row of nulls', 3);
SELECT pipeline.wait_for('h');
SELECT * FROM outcomes() WHERE id >= 5;
SELECT count(*) FROM dst WHERE id IS NULL;
-- as a transform it filters what returns NULL
SELECT pipeline.drop_stage('h', 'single'), pipeline.add_stage('h', 'single', 'transform', 'e_single(src)');
INSERT INTO src VALUES (8, 'x', 1), (9, 'null', 2);
SELECT pipeline.wait_for('h');
SELECT * FROM outcomes() WHERE id >= 8;
-- fan-out, and none
SELECT pipeline.drop_stage('h', 'single'), pipeline.add_stage('h', 'fan', 'transform', 't_fan(src)');
INSERT INTO src VALUES (10, 'fan', 3), (11, 'none', 0), (12, 'one', 1);
SELECT pipeline.wait_for('h');
SELECT * FROM dst WHERE id >= 10 ORDER BY id, n;
SELECT * FROM outcomes() WHERE id >= 10;
SELECT part, output_key FROM pipeline.lineage WHERE pipeline = 'h' AND source_key->>'id' = '10' ORDER BY part;
-- an event with one rejected row is rejected whole, those beside it are not
SELECT pipeline.add_stage('h', 'below 3', 'validate', query => 'SELECT CASE WHEN n >= 3 THEN a || '' is too much'' END FROM event');
INSERT INTO src VALUES (13, 'two', 2), (14, 'four', 4), (15, 'one', 1);
INSERT INTO src VALUES (16, 'alone', 4);
SELECT pipeline.wait_for('h');
SELECT * FROM dst WHERE id >= 13 ORDER BY id, n;
SELECT * FROM outcomes() WHERE id >= 13;
SELECT * FROM letters() WHERE id >= 13;
-- an enrichment that has no match for one of the rows: what is left goes on
SELECT pipeline.drop_stage('h', 'below 3'), pipeline.add_stage('h', 'setof', 'enrich', 'e_setof(src)');
INSERT INTO src VALUES (17, 'five', 5), (18, 'zero', 0);
SELECT pipeline.wait_for('h');
SELECT * FROM dst WHERE id >= 17 ORDER BY id, n;
SELECT * FROM outcomes() WHERE id >= 17;
SELECT * FROM pipeline.ledger('h');
SELECT stage, kind, events, rows, errors FROM pipeline.stage_stats WHERE pipeline = 'h' ORDER BY position;
SELECT pipeline.drop_pipeline('h');
TRUNCATE src, dst;

-- Queries
SELECT pipeline.create_pipeline('h', 'src'),
	pipeline.add_stage('h', 'join', 'enrich', query => 'SELECT e.id, l.a AS b, e.n FROM event e LEFT JOIN look l ON l.n = e.n;'),
	pipeline.add_stage('h', 'aggregate', 'transform', query =>
		'SELECT id, coalesce(b, ''?'') || (SELECT count(*) FROM look WHERE look.n < event.n) AS a, n FROM event -- rank'),
	pipeline.add_stage('h', 'cte', 'transform', query =>
		'WITH twice AS (SELECT * FROM event UNION ALL SELECT id, a, -n FROM event) SELECT id, max(a) AS a, n FROM twice GROUP BY id, n'),
	pipeline.add_stage('h', 'filter', 'transform', query => 'SELECT * FROM event WHERE n < 3 OR n IS NULL'),
	pipeline.add_output('h', 'dst'), pipeline.start('h');
INSERT INTO src VALUES (1, 'x', 1), (2, 'x', 2), (3, 'x', 3), (4, 'x', 100), (5, 'x', NULL);
SELECT pipeline.wait_for('h');
SELECT * FROM dst ORDER BY id, n;
SELECT * FROM outcomes();
SELECT pipeline.drop_pipeline('h');
TRUNCATE src, dst;

--
-- Functions in C: to_json judges with the row as the reason, int8up hands on
-- whatever it is given.
--
CREATE FUNCTION c_reason(s src) RETURNS text LANGUAGE internal IMMUTABLE AS 'to_json';
CREATE FUNCTION c_same(s src) RETURNS src LANGUAGE internal IMMUTABLE AS 'int8up';
SELECT pipeline.create_pipeline('h', 'src'),
	pipeline.add_stage('h', 'same', 'transform', 'c_same(src)'),
	pipeline.add_output('h', 'dst'), pipeline.start('h');
INSERT INTO src VALUES (1, 'through C', 1);
SELECT pipeline.wait_for('h');
SELECT * FROM dst;
SELECT pipeline.add_stage('h', 'reason', 'validate', 'c_reason(src)');
INSERT INTO src VALUES (2, 'through C', 2);
SELECT pipeline.wait_for('h');
SELECT * FROM letters();
SELECT pipeline.drop_pipeline('h');
TRUNCATE src, dst;

--
-- A handler that raises, and targets that refuse: each bad event is a dead
-- letter with all that was said, several in one transaction too, and the rest
-- goes on.
--
CREATE FUNCTION raiser(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS $$
BEGIN
	CASE s.a
		WHEN 'raise' THEN RAISE EXCEPTION 'event % is bad', s.id USING DETAIL = 'said the handler', HINT = 'mend it', ERRCODE = 'PX001';
		WHEN 'zero' THEN PERFORM 1 / (s.n - s.n);
		WHEN 'cast' THEN PERFORM s.a::int;
		ELSE NULL;
	END CASE;
	RETURN NEXT s;
END $$;
CREATE FUNCTION second_raiser(s src) RETURNS bool LANGUAGE plpgsql STABLE AS
$$ BEGIN IF s.a = 'second' THEN RAISE EXCEPTION 'in the second'; END IF; RETURN true; END $$;
CREATE FUNCTION out_raiser(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN IF s.a = 'output' THEN RAISE EXCEPTION 'in the transform of the output'; END IF; RETURN NEXT s; END $$;
CREATE TABLE strict_dst (id int PRIMARY KEY, a text NOT NULL, n int CHECK (n < 100) REFERENCES look, UNIQUE (a, n));
CREATE TABLE late_dst (id int PRIMARY KEY, a varchar(10), n int REFERENCES look DEFERRABLE INITIALLY DEFERRED);
SELECT pipeline.create_pipeline('h', 'src'),
	pipeline.add_stage('h', 'first', 'transform', 'raiser(src)'),
	pipeline.add_stage('h', 'second', 'validate', 'second_raiser(src)'),
	pipeline.add_output('h', 'strict_dst', transform => 'out_raiser(src)'),
	pipeline.add_output('h', 'late_dst'),
	pipeline.start('h');
INSERT INTO src VALUES (1, 'good', 1), (2, 'raise', 1), (3, 'zero', 1), (4, 'cast', 1), (5, 'second', 1),
	(6, 'output', 1), (7, NULL, 1), (8, 'check', 100), (9, 'good', 1), (10, 'no parent', 7),
	(11, 'much too long for the second output', 1), (12, 'fine', 2);
INSERT INTO src VALUES (13, 'raise', 3);
INSERT INTO src VALUES (14, 'good', 3);
SELECT pipeline.wait_for('h');
SELECT * FROM strict_dst ORDER BY id;
SELECT * FROM late_dst ORDER BY id;
SELECT * FROM letters();
SELECT event->>'id' AS id, context FROM pipeline.dead_letters WHERE pipeline = 'h' AND stage = 'first' ORDER BY id;
SELECT * FROM outcomes() WHERE id IN (1, 2, 6, 7);
SELECT stage, events, rows, errors FROM pipeline.stage_stats WHERE pipeline = 'h' ORDER BY position;
SELECT * FROM pipeline.ledger('h');
SELECT events, produced, filtered, rejected, failed FROM pipeline.status WHERE pipeline = 'h';

-- The dead letter has the event as it was, and what is known of it.
SELECT source, operation, event, old_event, version, attempts, state, queued,
	d.xid = s.xmin AS xid, d.seq, d.committed_at <= d.failed_at AS committed_before
FROM pipeline.dead_letters d JOIN src s ON s.id = (event->>'id')::int
WHERE pipeline = 'h' AND s.id IN (2, 13) ORDER BY s.id;
SELECT pipeline.drop_pipeline('h');

--
-- What happens to a handler while the pipeline runs: another body counts from
-- the next batch on; one that is gone, or broken for every event, stops the
-- pipeline until it is back, and no event is blamed.
--
TRUNCATE src, dst;
CREATE FUNCTION live(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, 'first', s.n $$;
SELECT pipeline.create_pipeline('h', 'src'), pipeline.add_stage('h', 'live', 'transform', 'live(src)'),
	pipeline.add_output('h', 'dst'), pipeline.start('h');
INSERT INTO src VALUES (1, 'x', 1);
SELECT pipeline.wait_for('h');
CREATE OR REPLACE FUNCTION live(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.id, 'second', s.n $$;
INSERT INTO src VALUES (2, 'x', 1);
SELECT pipeline.wait_for('h');
DROP FUNCTION live(src);
INSERT INTO src VALUES (3, 'x', 1);
SELECT pipeline.wait_for('h', timeout => '1 s');
SELECT state, last_error FROM pipeline.status WHERE pipeline = 'h';
SELECT state, last_error FROM pipeline.workers WHERE pipeline = 'h';
CREATE FUNCTION live(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT s.id, 'third', look.m FROM look; END $$;
-- it has an error in itself now
SELECT pipeline.restart('h');
SELECT pipeline.wait_for('h', timeout => '1 s');
SELECT state, last_error FROM pipeline.status WHERE pipeline = 'h';
CREATE OR REPLACE FUNCTION live(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT s.id, 'fourth', s.n; END $$;
SELECT pipeline.wait_for('h');
SELECT * FROM dst ORDER BY id;
SELECT state, last_error FROM pipeline.status WHERE pipeline = 'h';
SELECT * FROM pipeline.ledger('h');
SELECT count(*) FROM letters();
SELECT pipeline.drop_pipeline('h');
SET client_min_messages = warning;
DROP SCHEMA handlers CASCADE;
