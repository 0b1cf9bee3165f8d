-- mirror.sql - every table of a database has a pipeline, from its creation on.
--
-- Loaded by a superuser into a database that has the extension.  Event triggers
-- note each table that is created or altered; a deferred trigger declares its
-- pipeline when the transaction commits, and copies what the transaction itself
-- put into the table, which is no event.
--
--   upsert  a table with a primary key: a twin of it, without stages
--   log     another one, with REPLICA IDENTITY FULL (which is set here): each
--           event in mirror.log, from which the rows are counted
--
-- Before a table is dropped or altered, and in mirror.check_all(), mirror and
-- source are compared; what came of it is in mirror.results.  Old pipelines are
-- only marked, and dropped by mirror.sweep(): dropping one waits for its batch,
-- which may wait for the transaction that alters the table.
--
-- Settings, by ALTER DATABASE:
--   mirror.types    text: columns of types that are not built in are text in the
--                   twin, so that nothing hinders DROP TYPE; same: as they are
--   mirror.follow   on: the twin is altered as its source is, and the pipeline
--                   goes on; off: a new pipeline, with a copy of the table
--   mirror.leaves   on: partitions have pipelines of their own
--   mirror.logs     on: a table with a primary key and FULL identity has both; never: no logs
--   mirror.line     all: lines of mirror.log have all columns; stable: those that stay,
--                   as wal2json writes them
--   mirror.identity on: tables get a full identity where that is needed
--   mirror.compare_before  on: tables are compared before each ALTER and DROP
--   mirror.timeout  how long to wait for a pipeline before it is compared (30 s), and
--   mirror.patience how long for one that is failed or paused (1 s)

CREATE SCHEMA mirror;
GRANT USAGE ON SCHEMA mirror TO PUBLIC;

CREATE TABLE mirror.tables (
	id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	relid oid NOT NULL,
	name text NOT NULL,
	kind text NOT NULL CHECK (kind IN ('upsert', 'log', 'none')),
	signature text NOT NULL,
	attnums int2[] NOT NULL,		-- columns of the twin, as they are in the source
	columns text[] NOT NULL,
	leaves oid[] NOT NULL,
	pipeline text,
	twin regclass,
	reason text,
	dead text						-- why the pipeline is not needed any more
);
CREATE INDEX ON mirror.tables (relid) WHERE dead IS NULL;

CREATE TABLE mirror.pending (relid oid NOT NULL, rewritten bool NOT NULL);

-- Tables that a serializable transaction created, altered or dropped.  Such a one reads
-- nothing of ours, which could make it fail; mirror.sweep() sees to them.
CREATE TABLE mirror.changed (relid oid NOT NULL);

CREATE TABLE mirror.results (
	id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	table_id bigint NOT NULL,
	name text NOT NULL,
	kind text NOT NULL,
	verdict text NOT NULL,			-- equal, differs, stands, paused, not captured
	rows bigint,
	detail text,
	script text,
	made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A table without a key: what happened to it.
CREATE TYPE mirror.image AS (mirror bigint, line text, image jsonb);
CREATE TABLE mirror.log (
	mirror bigint,
	operation text,
	commit_lsn pg_lsn,
	seq int,
	xid xid,
	line text,
	image jsonb,
	old jsonb
);
CREATE INDEX ON mirror.log (mirror, commit_lsn, seq);

-- The one handler of all logs; it exists where pipeline.event does.
DO $$
BEGIN
	IF to_regtype('pipeline.event') IS NULL THEN
		RETURN;
	END IF;
	CREATE FUNCTION mirror.log_event(i mirror.image, e pipeline.event) RETURNS SETOF mirror.log
	LANGUAGE sql STABLE AS $f$
		SELECT (i).mirror, (e).operation, (e).commit_lsn, (e).seq, (e).xid, (i).line, (i).image, (e).old
	$f$;
END $$;

-- ---- what a table is ----------------------------------------------------------

CREATE FUNCTION mirror.setting(name text, otherwise text) RETURNS text
LANGUAGE sql STABLE AS
$$ SELECT coalesce(nullif(current_setting('mirror.' || name, true), ''), otherwise) $$;

-- May an event trigger do something now?
CREATE FUNCTION mirror.idle() RETURNS bool LANGUAGE sql STABLE AS
$$ SELECT mirror.setting('busy', 'off') = 'off' $$;

CREATE FUNCTION mirror.wanted(c pg_class) RETURNS bool LANGUAGE sql STABLE AS $$
	SELECT c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text NOT IN
		('mirror', 'pipeline', '_pipeline', 'pg_catalog', 'pg_toast', 'information_schema')
		AND (NOT c.relispartition OR mirror.setting('leaves', 'off') = 'on')
$$;

-- A table without those that inherit from it.
CREATE FUNCTION mirror.only(relid oid) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || oid::regclass FROM pg_class WHERE oid = relid
$$;

-- Columns of the immediate primary key, null if there is none.
CREATE FUNCTION mirror.key_of(relid oid) RETURNS text[] LANGUAGE sql STABLE AS $$
	SELECT array_agg(a.attname::text ORDER BY k.n)
	  FROM pg_index i, unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, n), pg_attribute a
	 WHERE i.indrelid = relid AND i.indisprimary AND i.indimmediate AND i.indisvalid
	   AND a.attrelid = i.indrelid AND a.attnum = k.attnum
$$;

CREATE FUNCTION mirror.leaves_of(relid oid) RETURNS oid[] LANGUAGE sql STABLE AS $$
	SELECT coalesce(array_agg(t.relid::oid ORDER BY t.relid::oid), '{}')
	  FROM pg_partition_tree(leaves_of.relid) t WHERE t.isleaf AND t.relid <> leaves_of.relid
$$;

-- Tables that inherit from it, or from which it does; null for partitions.
CREATE FUNCTION mirror.kin_of(c pg_class) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT string_agg(format('%s<%s', inhrelid, inhparent), ',' ORDER BY inhrelid, inhparent)
	  FROM pg_inherits WHERE c.relkind = 'r' AND NOT c.relispartition AND c.oid IN (inhrelid, inhparent)
$$;

CREATE FUNCTION mirror.signature(c pg_class) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT concat_ws(' ', c.relkind, c.relreplident, mirror.key_of(c.oid)::text, mirror.kin_of(c),
		(SELECT string_agg(format('%s:%s:%s', attnum, attname, format_type(atttypid, atttypmod)), ',' ORDER BY attnum)
		   FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
$$;

-- Type of a column of the twin.
CREATE FUNCTION mirror.type_of(a pg_attribute) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN a.atttypid < 16384 OR mirror.setting('types', 'text') = 'same'
		THEN format_type(a.atttypid, a.atttypmod)
			|| coalesce((SELECT format(' COLLATE %I.%I', collnamespace::regnamespace, collname)
						   FROM pg_collation c WHERE c.oid = a.attcollation AND a.attcollation <> 100
							AND (c.oid < 16384 OR mirror.setting('types', 'text') = 'same')), '')
		ELSE 'text' END
$$;

-- Columns that stay as they are (Dml.pm), as wal2json writes them: it has no NaN and
-- no infinity.
CREATE FUNCTION mirror.stable_columns(relid oid) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT string_agg(format(CASE
			WHEN atttypid IN ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype)
			THEN 'CASE WHEN row_.%1$I::text !~ ''N|I'' THEN row_.%1$I END'
			WHEN atttypid = 'bool'::regtype THEN 'row_.%1$I::text'
			WHEN atttypid = 'bytea'::regtype THEN 'encode(row_.%1$I, ''hex'')'
			ELSE 'row_.%1$I' END, attname), ', ' ORDER BY attnum)
	  FROM pg_attribute WHERE attrelid = relid AND attnum > 0 AND NOT attisdropped AND attname !~ '^x_'
$$;

-- A row that was logged is as it was then: without the columns that came or went since.
CREATE FUNCTION mirror.stable(image jsonb) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE mirror.setting('line', 'all') WHEN 'stable' THEN image - '{x_0,x_1,x_2}'::text[] ELSE image END::text
$$;

-- What mirror.log keeps of a row.
CREATE FUNCTION mirror.line_of(relid oid) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE mirror.setting('line', 'all') WHEN 'stable' THEN format('ROW(%s)::text', mirror.stable_columns(relid))
		ELSE 'row_::text' END
$$;

-- ---- declaring ----------------------------------------------------------------

CREATE FUNCTION mirror.make_twin(t mirror.tables, key text[]) RETURNS regclass
LANGUAGE plpgsql AS $$
DECLARE
	twin text := 'mirror.' || left(format('twin_%s_%s', t.id, regexp_replace(lower(t.name), '[^a-z0-9]+', '_', 'g')), 60);
	source text := mirror.only(t.relid);
BEGIN
	EXECUTE format('CREATE TABLE %s (%s, PRIMARY KEY (%s))', twin,
		(SELECT string_agg(format('%I %s', a.attname, mirror.type_of(a)), ', ' ORDER BY a.attnum)
		   FROM pg_attribute a WHERE a.attrelid = t.relid AND a.attnum = ANY (t.attnums)),
		(SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY k(k, n)));
	EXECUTE format('INSERT INTO %s SELECT %s FROM %s', twin,
		(SELECT string_agg(quote_ident(c) || CASE WHEN a.atttypid < 16384 OR mirror.setting('types', 'text') = 'same'
												  THEN '' ELSE '::text' END, ', ' ORDER BY n)
		   FROM unnest(t.columns) WITH ORDINALITY u(c, n) JOIN pg_attribute a ON a.attrelid = t.relid AND a.attname = c),
		source);
	RETURN twin;
END $$;

CREATE FUNCTION mirror.make_pipeline(t mirror.tables) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline.create_pipeline(t.pipeline, source => t.relid::regclass,
		operations => '{insert,update,delete,truncate}');
	IF t.kind = 'upsert' THEN
		PERFORM pipeline.add_output(t.pipeline, t.twin, name => 'twin');
	ELSE
		PERFORM pipeline.add_stage(t.pipeline, 'image', 'transform',
			query => format('SELECT %s::bigint AS mirror, %s AS line, to_jsonb(row_) AS image FROM event row_', t.id, mirror.line_of(t.relid)));
		PERFORM pipeline.add_output(t.pipeline, 'mirror.log', name => 'log',
			transform => 'mirror.log_event(mirror.image, pipeline.event)', mode => 'append');
		-- what is there already, as if it were inserted now
		EXECUTE format('INSERT INTO mirror.log SELECT %s, %L, %L, 0, null, null, to_jsonb(row_) FROM %s row_',
			t.id, 'copy', pg_current_wal_insert_lsn(), mirror.only(t.relid));
	END IF;
	PERFORM pipeline.start(t.pipeline);
END $$;

-- One pipeline of a table, or the reason why there is none.
CREATE FUNCTION mirror.declare(rel pg_class, kind text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	t mirror.tables;
	message text;
	hint text;
BEGIN
	INSERT INTO mirror.tables (relid, name, kind, signature, attnums, columns, leaves)
		SELECT rel.oid, format('%s.%s', rel.relnamespace::regnamespace, quote_ident(rel.relname)), kind, mirror.signature(rel),
			coalesce(array_agg(attnum ORDER BY attnum), '{}'), coalesce(array_agg(attname::text ORDER BY attnum), '{}'),
			mirror.leaves_of(rel.oid)
		  FROM pg_attribute WHERE attrelid = rel.oid AND attnum > 0 AND NOT attisdropped
		RETURNING * INTO t;
	t.pipeline := format('%s_%s', kind, t.id);
	BEGIN
		IF kind = 'upsert' THEN
			t.twin := mirror.make_twin(t, mirror.key_of(rel.oid));
		END IF;
		PERFORM mirror.make_pipeline(t);
		UPDATE mirror.tables SET pipeline = t.pipeline, twin = t.twin WHERE id = t.id;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
		UPDATE mirror.tables SET kind = 'none', reason = concat_ws('; hint: ', message, nullif(hint, ''))
		 WHERE id = t.id;
		RAISE LOG 'mirror: % is not captured: % (%)', t.name, message, hint;
	END;
END $$;

-- All pipelines that a table is to have.
CREATE FUNCTION mirror.declare_table(relid oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
	rel pg_class := (SELECT k FROM pg_class k WHERE k.oid = relid);
	keyed bool := mirror.key_of(relid) IS NOT NULL;
BEGIN
	IF keyed THEN
		PERFORM mirror.declare(rel, 'upsert');
	END IF;
	IF mirror.setting('logs', 'off') <> 'never' AND NOT keyed
		OR mirror.setting('logs', 'off') = 'on' AND rel.relreplident = 'f' THEN
		PERFORM mirror.declare(rel, 'log');
	END IF;
END $$;

-- ---- a table was altered --------------------------------------------------------

-- Alter the twin as its source was; the pipeline goes on.
CREATE FUNCTION mirror.follow(t mirror.tables) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	a pg_attribute;
	n int;
	twin_name text;
BEGIN
	FOREACH n IN ARRAY t.attnums LOOP
		twin_name := t.columns[array_position(t.attnums, n::int2)];
		SELECT * INTO a FROM pg_attribute WHERE attrelid = t.relid AND attnum = n;
		IF a.attisdropped THEN
			EXECUTE format('ALTER TABLE %s DROP COLUMN %I', t.twin, twin_name);
			CONTINUE;
		END IF;
		IF a.attname <> twin_name THEN
			EXECUTE format('ALTER TABLE %s RENAME %I TO %I', t.twin, twin_name, a.attname);
		END IF;
		IF mirror.type_of(a) <> (SELECT mirror.type_of(b) FROM pg_attribute b
								  WHERE b.attrelid = t.twin AND b.attname = a.attname) THEN
			EXECUTE format('ALTER TABLE %s ALTER %I TYPE %s USING %2$I::%3$s', t.twin, a.attname, mirror.type_of(a));
		END IF;
	END LOOP;
	FOR a IN SELECT * FROM pg_attribute WHERE attrelid = t.relid AND attnum > 0 AND NOT attisdropped
				AND attnum <> ALL (t.attnums) ORDER BY attnum LOOP
		EXECUTE format('ALTER TABLE %s ADD %I %s', t.twin, a.attname, mirror.type_of(a));
		IF a.atthasmissing THEN
			EXECUTE format('UPDATE %s SET %I = (SELECT (attmissingval::text::%s[])[1] FROM pg_attribute WHERE attrelid = %s AND attnum = %s)',
				t.twin, a.attname, mirror.type_of(a), t.relid, a.attnum);
		END IF;
	END LOOP;
	UPDATE mirror.tables u SET (attnums, columns) =
		(SELECT array_agg(attnum ORDER BY attnum), array_agg(attname::text ORDER BY attnum)
		   FROM pg_attribute WHERE attrelid = t.relid AND attnum > 0 AND NOT attisdropped)
	 WHERE u.id = t.id;
	UPDATE mirror.tables u SET signature = mirror.signature(k) FROM pg_class k WHERE k.oid = t.relid AND u.id = t.id;
END $$;

CREATE FUNCTION mirror.settle(relid oid, rewritten bool) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
	rel pg_class := (SELECT k FROM pg_class k WHERE k.oid = relid);
	t mirror.tables;
	changed bool := rewritten;
BEGIN
	IF rel.oid IS NULL OR NOT mirror.wanted(rel) THEN
		UPDATE mirror.tables u SET dead = 'not wanted' WHERE u.relid = settle.relid AND dead IS NULL;
		RETURN;
	END IF;
	FOR t IN SELECT * FROM mirror.tables u WHERE u.relid = settle.relid AND dead IS NULL LOOP
		IF mirror.setting('follow', 'off') = 'on' AND NOT rewritten AND t.kind <> 'none' THEN
			IF t.kind = 'upsert' AND t.signature <> mirror.signature(rel) THEN
				PERFORM mirror.follow(t);
			END IF;
		ELSIF t.signature <> mirror.signature(rel) THEN
			changed := true;
		END IF;
	END LOOP;
	UPDATE mirror.tables u SET leaves = mirror.leaves_of(settle.relid) WHERE u.relid = settle.relid AND dead IS NULL;
	IF changed THEN
		UPDATE mirror.tables u SET dead = 'altered' WHERE u.relid = settle.relid AND dead IS NULL;
	END IF;
	IF NOT EXISTS (SELECT FROM mirror.tables u WHERE u.relid = settle.relid AND dead IS NULL) THEN
		PERFORM mirror.declare_table(relid);
	END IF;
END $$;

-- At the commit of a transaction that created or altered tables.
CREATE FUNCTION mirror.at_commit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET track_counts = off
SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET timezone = 'UTC'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET xmlbinary = 'base64' AS $$
DECLARE
	rewritten bool;
	mine bool := mirror.idle();
BEGIN
	WITH gone AS (DELETE FROM mirror.pending p WHERE p.relid = NEW.relid RETURNING p.rewritten)
	SELECT bool_or(g.rewritten) INTO rewritten FROM gone g;
	IF rewritten IS NOT NULL THEN
		PERFORM set_config('mirror.busy', 'on', true);
		PERFORM mirror.settle(NEW.relid, rewritten);
		IF mine THEN
			PERFORM set_config('mirror.busy', 'off', true);
		END IF;
	END IF;
	RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON mirror.pending
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mirror.at_commit();

-- ---- comparing ------------------------------------------------------------------

-- Two queries that must give the same rows: of the mirror, and of the source.
CREATE FUNCTION mirror.mirror_query(t mirror.tables) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE t.kind
	WHEN 'upsert' THEN format('SELECT %s FROM %s',
		(SELECT string_agg(format('%I::text COLLATE "C" AS c%s', c, n), ', ' ORDER BY n)
		   FROM unnest(t.columns) WITH ORDINALITY u(c, n)), t.twin)
	ELSE format($f$
		WITH e AS (
			SELECT operation, image, old FROM mirror.log WHERE mirror = %s
			   AND (commit_lsn, seq) > (SELECT commit_lsn, seq FROM
					(SELECT commit_lsn, seq FROM pipeline.lineage WHERE pipeline = %L AND operation = 'truncate'
					 UNION ALL SELECT '0/0', -1) x ORDER BY 1 DESC, 2 DESC LIMIT 1)),
		n AS (
			SELECT mirror.stable(image) AS line, 1 AS n FROM e WHERE operation IN ('copy', 'insert', 'update')
			UNION ALL SELECT mirror.stable(old), -1 FROM e WHERE operation = 'update'
			UNION ALL SELECT mirror.stable(image), -1 FROM e WHERE operation = 'delete'),
		s AS (SELECT line, sum(n) AS n FROM n GROUP BY line HAVING sum(n) <> 0)
		SELECT CASE WHEN n < 0 THEN 'too few: ' || line ELSE line END AS c1 FROM s, generate_series(1, abs(n))$f$,
		t.id, t.pipeline) END
$$;

CREATE FUNCTION mirror.source_query(t mirror.tables) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT CASE t.kind
	WHEN 'upsert' THEN format('SELECT %s FROM %s',
		(SELECT string_agg(format('%I::text COLLATE "C" AS c%s', c, n), ', ' ORDER BY n)
		   FROM unnest(t.columns) WITH ORDINALITY u(c, n)), mirror.only(t.relid))
	ELSE format('SELECT mirror.stable(to_jsonb(row_)) AS c1 FROM %s row_', mirror.only(t.relid)) END
$$;

-- The first rows that differ, null if none do; in one snapshot.
CREATE FUNCTION mirror.difference(t mirror.tables) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	difference text;
BEGIN
	EXECUTE format($f$
		WITH m AS (%s), s AS (%s)
		SELECT string_agg(line, E'\n') FROM (
			(SELECT 'only mirror: ' || left(x::text, 500) AS line FROM (TABLE m EXCEPT ALL TABLE s) x LIMIT 3)
			UNION ALL
			(SELECT 'only source: ' || left(x::text, 500) FROM (TABLE s EXCEPT ALL TABLE m) x LIMIT 3)) y$f$,
		mirror.mirror_query(t), mirror.source_query(t)) INTO difference;
	RETURN difference;
END $$;

-- What hinders a pipeline, null if nothing does.
CREATE FUNCTION mirror.obstacle(name text) RETURNS text LANGUAGE sql AS $$
	SELECT nullif(concat_ws('; ',
		(SELECT format('%s: %s', state, last_error) FROM pipeline.status
		  WHERE pipeline = name AND state NOT IN ('running', 'starting', 'waiting', 'catching up')),
		(SELECT format('dead letter: %s: %s', min(kind), min(reason)) FROM pipeline.dead_letters
		  WHERE pipeline = name AND state = 'open' HAVING count(*) > 0)), '')
$$;

-- Null once a pipeline has caught up; else why it has not.
CREATE FUNCTION mirror.wait(name text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + mirror.setting('timeout', '30 s')::interval;
	failed_at timestamptz;
BEGIN
	LOOP
		IF pipeline.wait_for(name, timeout => '300 ms') THEN
			RETURN NULL;
		END IF;
		IF NOT EXISTS (SELECT FROM pipeline.status WHERE pipeline = name AND state IN ('failed', 'paused', 'lost')) THEN
			failed_at := NULL;
		ELSE
			failed_at := coalesce(failed_at, clock_timestamp());
		END IF;
		IF clock_timestamp() > least(until, failed_at + mirror.setting('patience', '1 s')::interval) THEN
			RETURN coalesce(mirror.obstacle(name), 'not caught up');
		END IF;
	END LOOP;
END $$;

CREATE FUNCTION mirror.check_table(t mirror.tables, tries int DEFAULT 20) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET timezone = 'UTC'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET xmlbinary = 'base64' SET row_security = off
SET track_counts = off SET client_min_messages = error
AS $$
DECLARE
	found text;
	verdict text := 'not captured';
	number bigint;
BEGIN
	IF t.kind = 'none' THEN
		found := t.reason;
	END IF;
	WHILE t.kind <> 'none' AND tries > 0 LOOP
		tries := tries - 1;
		found := mirror.wait(t.pipeline);
		IF found IS NOT NULL AND EXISTS (SELECT FROM pipeline.schema_events e WHERE e.pipeline = t.pipeline AND e.state = 'waiting') THEN
			-- As it should be; a new pipeline takes over.
			verdict := 'paused';
			INSERT INTO mirror.changed VALUES (t.relid);
			EXIT;
		ELSIF found IS NOT NULL THEN
			verdict := 'stands';
			EXIT;
		END IF;
		found := mirror.difference(t);
		verdict := CASE WHEN found IS NULL THEN 'equal' ELSE 'differs' END;
		EXIT WHEN found IS NULL;
		found := concat_ws(E'\n', mirror.obstacle(t.pipeline), found);
	END LOOP;
	IF verdict = 'differs' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = t.relid AND inhdetachpending) THEN
		-- DETACH ... CONCURRENTLY that was cancelled half-way: no trigger tells of it.
		verdict := 'paused';
		found := 'a partition is half detached; ' || found;
	END IF;
	IF t.kind <> 'none' THEN
		EXECUTE format('SELECT count(*) FROM %s', mirror.only(t.relid)) INTO number;
	END IF;
	IF verdict IN ('differs', 'stands') THEN
		RAISE LOG 'mirror: % (%) %: %', t.name, t.pipeline, verdict, found;
	END IF;
	INSERT INTO mirror.results (table_id, name, kind, verdict, rows, detail)
		VALUES (t.id, t.name, t.kind, verdict, number, found);
	RETURN verdict;
END $$;

-- Compare all tables, or those that were declared later than some, each in a
-- transaction of its own.
CREATE PROCEDURE mirror.check_all(later_than bigint DEFAULT 0)
LANGUAGE plpgsql AS $$
DECLARE
	t mirror.tables;
	message text;
BEGIN
	FOR t IN SELECT * FROM mirror.tables WHERE dead IS NULL AND id > later_than ORDER BY id LOOP
		CONTINUE WHEN NOT EXISTS (SELECT FROM pg_class WHERE oid = t.relid);
		BEGIN
			PERFORM mirror.check_table(t);
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
			INSERT INTO mirror.results (table_id, name, kind, verdict, detail)
				VALUES (t.id, t.name, t.kind, 'differs', 'could not be compared: ' || message);
		END;
		COMMIT;
	END LOOP;
END $$;

-- Drop the pipelines that are not needed any more, and declare anew what serializable
-- transactions changed.
CREATE PROCEDURE mirror.sweep()
LANGUAGE plpgsql AS $$
DECLARE
	t mirror.tables;
	relids oid[];
	r oid;
BEGIN
	WITH gone AS (DELETE FROM mirror.changed RETURNING relid) SELECT array_agg(DISTINCT relid) INTO relids FROM gone;
	FOREACH r IN ARRAY coalesce(relids, '{}') LOOP
		PERFORM set_config('mirror.busy', 'on', true);
		IF EXISTS (SELECT FROM pg_class WHERE oid = r) THEN
			-- Nobody may write between the copy and the commit.
			EXECUTE format('LOCK TABLE %s IN SHARE MODE', r::regclass);
		END IF;
		PERFORM mirror.settle(r, true);
		COMMIT;
	END LOOP;
	FOR t IN SELECT * FROM mirror.tables WHERE dead IS NOT NULL AND pipeline IS NOT NULL LOOP
		PERFORM pipeline.drop_pipeline(t.pipeline);
		IF t.twin IS NOT NULL THEN
			EXECUTE format('DROP TABLE %s', t.twin);
		ELSE
			DELETE FROM mirror.log WHERE mirror = t.id;
		END IF;
		UPDATE mirror.tables SET pipeline = NULL, twin = NULL WHERE id = t.id;
		COMMIT;
	END LOOP;
END $$;

-- ---- event triggers ---------------------------------------------------------------

-- Tables that the statement names are compared while they still are as they were;
-- only where the transaction has done nothing yet.
CREATE FUNCTION mirror.before_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
	t mirror.tables;
	statement text := current_query();
BEGIN
	IF pg_current_xact_id_if_assigned() IS NOT NULL OR NOT mirror.idle()
		OR mirror.setting('compare_before', 'on') = 'off'
		OR current_setting('transaction_isolation') <> 'read committed' THEN
		RETURN;
	END IF;
	FOR t IN SELECT u.* FROM mirror.tables u JOIN pg_class c ON c.oid = u.relid
			  WHERE u.dead IS NULL AND u.kind <> 'none'
				AND (position(c.relname IN statement) > 0
					 OR (tg_tag <> 'ALTER TABLE' AND position(c.relnamespace::regnamespace::text IN statement) > 0)) LOOP
		BEGIN
			PERFORM mirror.check_table(t, 5);
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'mirror: % could not be compared: %', t.name, SQLERRM;
		END;
	END LOOP;
END $$;

CREATE FUNCTION mirror.after_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
	item record;
	rel pg_class;
	full_wanted bool;
BEGIN
	IF NOT mirror.idle() THEN
		RETURN;
	END IF;
	IF current_setting('transaction_isolation') = 'serializable' THEN
		INSERT INTO mirror.changed SELECT d.objid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
			 WHERE d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p';
		RETURN;
	END IF;
	PERFORM set_config('mirror.busy', 'on', true);
	FOR item IN SELECT c AS rel, d.command_tag FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
			  WHERE d.classid = 'pg_class'::regclass AND NOT d.in_extension AND c.relkind IN ('r', 'p') LOOP
		rel := item.rel;
		-- One that inherits makes a source of its parent that cannot be captured.
		INSERT INTO mirror.pending SELECT inhparent, false FROM pg_inherits WHERE inhrelid = rel.oid AND NOT rel.relispartition;
		CONTINUE WHEN rel.relpersistence = 't' OR rel.relnamespace::regnamespace::text IN ('mirror', 'pipeline', '_pipeline');
		-- A changed value that is kept out of line is in the WAL only with FULL.
		SELECT rel.relreplident = 'd' AND (mirror.key_of(rel.oid) IS NULL OR EXISTS (
				SELECT FROM pg_attribute a WHERE a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
					AND a.attstorage <> 'p')) INTO full_wanted;
		IF full_wanted AND mirror.setting('identity', 'on') = 'on' THEN
			BEGIN
				EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', rel.oid::regclass);
			EXCEPTION WHEN OTHERS THEN
				RAISE LOG 'mirror: no full identity for %: %', rel.oid::regclass, SQLERRM;
			END;
		END IF;
		IF mirror.wanted(rel) THEN
			INSERT INTO mirror.pending VALUES (rel.oid, false);
		END IF;
		-- A new partition is empty; one that comes or goes by ALTER TABLE may not be.
		IF rel.relispartition OR rel.relkind = 'p' THEN
			INSERT INTO mirror.pending
				SELECT t.relid, item.command_tag = 'ALTER TABLE' AND t.leaves <> mirror.leaves_of(t.relid)
				  FROM pg_partition_ancestors(rel.oid) a JOIN mirror.tables t ON t.relid = a.relid
				 WHERE t.dead IS NULL;
		END IF;
	END LOOP;
	-- The text of values that are there may have changed: labels of an enum, attributes.
	INSERT INTO mirror.pending
		SELECT DISTINCT t.relid, true FROM pg_event_trigger_ddl_commands() d
		  JOIN pg_type y ON (d.classid, d.objid) IN (('pg_type'::regclass, y.oid), ('pg_class'::regclass, y.typrelid))
		  JOIN pg_attribute a ON a.atttypid = y.oid JOIN mirror.tables t ON t.relid = a.attrelid
		 WHERE d.command_tag = 'ALTER TYPE' AND t.dead IS NULL;
	PERFORM set_config('mirror.busy', 'off', true);
END $$;

-- Rows that are written anew by ALTER TABLE are no events.
CREATE FUNCTION mirror.on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
	IF mirror.idle() AND mirror.setting('follow', 'off') = 'off'
		AND current_setting('transaction_isolation') <> 'serializable' THEN
		INSERT INTO mirror.pending
			SELECT t.relid, true FROM mirror.tables t WHERE t.dead IS NULL
			   AND (t.relid = pg_event_trigger_table_rewrite_oid() OR pg_event_trigger_table_rewrite_oid() = ANY (t.leaves));
	END IF;
END $$;

CREATE FUNCTION mirror.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
	IF NOT mirror.idle() THEN
		RETURN;
	END IF;
	IF current_setting('transaction_isolation') = 'serializable' THEN
		INSERT INTO mirror.changed SELECT objid FROM pg_event_trigger_dropped_objects()
			 WHERE classid = 'pg_class'::regclass AND object_type = 'table' AND NOT is_temporary;
		RETURN;
	END IF;
	UPDATE mirror.tables SET dead = 'dropped' WHERE dead IS NULL
		AND relid IN (SELECT objid FROM pg_event_trigger_dropped_objects()
					   WHERE classid = 'pg_class'::regclass AND objsubid = 0);
	INSERT INTO mirror.pending
		SELECT DISTINCT t.relid, true FROM mirror.tables t JOIN pg_event_trigger_dropped_objects() d
			ON d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.objid = ANY (t.leaves)
		 WHERE t.dead IS NULL;
	INSERT INTO mirror.pending
		SELECT DISTINCT t.relid, false FROM mirror.tables t JOIN pg_event_trigger_dropped_objects() d
			ON d.classid = 'pg_class'::regclass AND d.objsubid > 0 AND d.objid = t.relid
		 WHERE t.dead IS NULL;
END $$;

-- Begin to mirror, and stop it for a while.
CREATE PROCEDURE mirror.attach() LANGUAGE plpgsql AS $$
BEGIN
	CREATE EVENT TRIGGER zz_mirror_before ON ddl_command_start
		WHEN TAG IN ('DROP TABLE', 'ALTER TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP TYPE', 'DROP DOMAIN')
		EXECUTE FUNCTION mirror.before_ddl();
	CREATE EVENT TRIGGER zz_mirror_after ON ddl_command_end EXECUTE FUNCTION mirror.after_ddl();
	CREATE EVENT TRIGGER zz_mirror_rewrite ON table_rewrite EXECUTE FUNCTION mirror.on_rewrite();
	CREATE EVENT TRIGGER zz_mirror_drop ON sql_drop EXECUTE FUNCTION mirror.on_drop();
END $$;

CREATE PROCEDURE mirror.detach() LANGUAGE plpgsql AS $$
BEGIN
	DROP EVENT TRIGGER zz_mirror_before;
	DROP EVENT TRIGGER zz_mirror_after;
	DROP EVENT TRIGGER zz_mirror_rewrite;
	DROP EVENT TRIGGER zz_mirror_drop;
	UPDATE mirror.tables SET dead = 'detached' WHERE dead IS NULL;
END $$;

CALL mirror.attach();
