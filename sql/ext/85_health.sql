-- health(): what is wrong now, a view a kind of problem.  The views are as
-- private as their schema; _pipeline.problems alone is granted, because
-- health() reads it as its caller, who sees through pipeline.status only what
-- it may see.
--
-- Hints are executable as they stand: what is to be said beside the command is
-- a comment.  A comment can hold what a user chose, so it must not be able to
-- end itself.

CREATE FUNCTION _pipeline.remark(remark text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.regexp_replace(pg_catalog.regexp_replace(remark, '[\r\n]+', ' ', 'g'), '/(?=\*)|\*(?=/)', '\& ', 'g');
COMMENT ON FUNCTION _pipeline.remark(text) IS 'a text that can stand in a comment of SQL and not end it';

-- The message of the server has the object without its schema and does not say
-- what for: the owner misses it, and that finds it.
CREATE FUNCTION _pipeline.missing_grant(message text, owner oid)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE m.part[1]
		WHEN 'schema' THEN pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I;', m.part[2], pg_catalog.pg_get_userbyid(owner))
		WHEN 'function' THEN (
			SELECT CASE WHEN count(*) = 1 THEN pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I;', min(f.oid::regprocedure::text), pg_catalog.pg_get_userbyid(owner)) END
			FROM pg_catalog.pg_proc f
			WHERE f.proname = m.part[2] AND NOT pg_catalog.has_function_privilege(owner, f.oid, 'EXECUTE'))
		WHEN 'sequence' THEN (
			SELECT CASE WHEN count(*) = 1 THEN pg_catalog.format('GRANT USAGE ON SEQUENCE %s TO %I;', min(c.oid::regclass::text), pg_catalog.pg_get_userbyid(owner)) END
			FROM pg_catalog.pg_class c
			WHERE c.relname = m.part[2] AND c.relkind = 'S' AND NOT pg_catalog.has_sequence_privilege(owner, c.oid, 'USAGE'))
		ELSE (
			SELECT CASE WHEN count(*) = 1 THEN pg_catalog.format('GRANT %s ON %s TO %I;', min(r.lacks), min(c.oid::regclass::text), pg_catalog.pg_get_userbyid(owner)) END
			FROM pg_catalog.pg_class c
				CROSS JOIN LATERAL (
					SELECT string_agg(privilege, ', ' ORDER BY n) FILTER (WHERE n = first) AS lacks
					FROM (
						SELECT privilege, n, min(n) OVER () AS first
						FROM pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) WITH ORDINALITY AS u(privilege, n)
						WHERE NOT pg_catalog.has_table_privilege(owner, c.oid, privilege)
					) l
				) r
			WHERE c.relname = m.part[2] AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND r.lacks IS NOT NULL)
		END
	FROM pg_catalog.regexp_match(message, '^permission denied for (schema|function|sequence|table|view|materialized view|foreign table) (.*)$') AS m(part)
	WHERE EXISTS (SELECT FROM pg_catalog.pg_roles a WHERE a.oid = owner);
END;
COMMENT ON FUNCTION _pipeline.missing_grant(text, oid) IS 'the GRANT that an owner needs after an error 42501 of the server; null if it cannot be told';

-- What keeps all pipelines of this database from working: the first obstacle.
-- A standby has neither processes nor a slot, and needs none.
CREATE VIEW _pipeline.server_problem AS
WITH here AS (
	SELECT d.*
	FROM _pipeline.databases() d
		JOIN pg_catalog.pg_database b ON b.oid = d.database
	WHERE b.datname = pg_catalog.current_database() AND NOT pg_catalog.pg_is_in_recovery()
), launcher AS (
	SELECT _pipeline.launcher_pid() AS pid
), blockers AS (
	-- whoever has an xid while the slot is being made
	SELECT pg_catalog.age(a.backend_xid) AS age,
		pg_catalog.format('process %s', a.pid) AS who,
		pg_catalog.format('SELECT pg_terminate_backend(%s);', a.pid) AS hint
	FROM pg_catalog.pg_stat_activity a
	WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
	UNION ALL
	SELECT pg_catalog.age(x.transaction),
		pg_catalog.format('prepared transaction %L', x.gid),
		pg_catalog.format('ROLLBACK PREPARED %L; -- or COMMIT PREPARED, in its database', x.gid)
	FROM pg_catalog.pg_prepared_xacts x
), obstacles(rank, severity, what, since, hint) AS (
	SELECT 1, 'error', 'pipeline is not loaded at server start', pg_catalog.pg_postmaster_start_time(),
		pg_catalog.format('ALTER SYSTEM SET shared_preload_libraries = %s; -- then restart the server',
			coalesce((
				SELECT string_agg(pg_catalog.quote_literal(pg_catalog.btrim(u.library, ' "')), ', ' ORDER BY u.n) || ', '
				FROM pg_catalog.pg_settings s,
					pg_catalog.unnest(pg_catalog.string_to_array(nullif(s.setting, ''), ',')) WITH ORDINALITY AS u(library, n)
				WHERE s.name = 'shared_preload_libraries'), '') || pg_catalog.quote_literal('pipeline'))
	WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name = 'pipeline.max_databases')
	UNION ALL
	SELECT 2, 'error', pg_catalog.format('wal_level is %s, needed is logical', pg_catalog.current_setting('wal_level')), pg_catalog.pg_postmaster_start_time(),
		'ALTER SYSTEM SET wal_level = logical; -- then restart the server'
	WHERE pg_catalog.current_setting('wal_level') <> 'logical'
	UNION ALL
	SELECT 3, 'error', 'the pipeline launcher is not running', NULL,
		pg_catalog.format('ALTER SYSTEM SET max_worker_processes = %s; -- then restart the server', pg_catalog.current_setting('max_worker_processes')::int + 8)
	FROM launcher l
	WHERE l.pid IS NULL AND NOT pg_catalog.pg_is_in_recovery()
	UNION ALL
	SELECT 4, 'error', 'too many databases with pipelines', NULL,
		pg_catalog.format('ALTER SYSTEM SET pipeline.max_databases = %s; -- then restart the server', 2 * s.setting::int)
	FROM pg_catalog.pg_settings s
	WHERE s.name = 'pipeline.max_databases'
		AND NOT EXISTS (SELECT FROM here)
		AND s.setting::int <= (SELECT count(*) FROM _pipeline.databases())
	UNION ALL
	SELECT 5, 'error', h.message, h.since,
		coalesce(pg_catalog.regexp_replace(h.hint, '; then restart the server\.$', '; -- then restart the server'), '-- ' || coalesce(_pipeline.remark(h.detail), 'capture tries again by itself; see the log of the server'))
	FROM here h
	WHERE h.state = 'failed'
	UNION ALL
	SELECT 6, 'warning',
		pg_catalog.format('the slot of this database waits for transactions that began before it: %s',
			pg_catalog.array_to_string((array_agg(b.who ORDER BY b.age DESC))[:5], ', ')),
		h.since,
		(array_agg(b.hint ORDER BY b.age DESC))[1]
	FROM here h
		CROSS JOIN blockers b
	WHERE h.state = 'slot'
	GROUP BY h.since
	UNION ALL
	SELECT 7, 'error', 'the capture process of this database is not running', h.since,
		'-- it is started again by itself; if not, see the log of the server'
	FROM here h
	WHERE h.pid IS NULL AND h.state IN ('check', 'slot', 'ready')
		AND (h.state = 'ready' OR h.since < pg_catalog.clock_timestamp() - interval '10 s')
)
SELECT o.severity, o.what, o.since, o.hint
FROM obstacles o
ORDER BY o.rank
LIMIT 1;
COMMENT ON VIEW _pipeline.server_problem IS 'health: what keeps all pipelines of the database from working';

CREATE VIEW _pipeline.slot_problems AS
SELECT CASE WHEN s.wal_status IN ('unreserved', 'lost') THEN 'error' ELSE 'warning' END AS severity,
	CASE
		WHEN s.wal_status = 'lost' THEN pg_catalog.format('replication slot %s was invalidated', s.slot_name)
		ELSE pg_catalog.format('replication slot %s is invalidated after %s more of WAL', s.slot_name, pg_catalog.pg_size_pretty(greatest(s.safe_wal_size, 0)))
	END AS what,
	NULL::timestamptz AS since,
	CASE
		WHEN s.wal_status = 'lost' THEN '-- capture makes a new one; then start the pipelines that are lost'
		ELSE pg_catalog.format('ALTER SYSTEM SET max_slot_wal_keep_size = %L; -- then SELECT pg_reload_conf();', pg_catalog.pg_size_pretty(2 * k.size))
	END AS hint
FROM pg_catalog.pg_replication_slots s
	CROSS JOIN LATERAL (SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size')) AS size) k
WHERE s.database = pg_catalog.current_database()
	AND s.slot_name = (SELECT 'pipeline_' || b.oid FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database())
	AND (s.wal_status IN ('unreserved', 'lost') OR s.safe_wal_size < k.size / 5);
COMMENT ON VIEW _pipeline.slot_problems IS 'health: the slot will be gone soon, or is';

-- The pipelines that the reader may see, each with the worker it stands for.
CREATE VIEW _pipeline.patients AS
SELECT p.pipeline_id,
	p.name,
	p.owner::oid AS owner,
	p.source::oid AS source,
	p.running AND _pipeline.is_here(p.system_identifier, p.database) AS running,
	s.state,
	w.state IS NOT NULL AS by_worker,
	w.since,
	w.sqlstate,
	w.message,
	w.hint,
	s.retained_wal_bytes,
	p.lost_segments
FROM pipeline.status s
	JOIN _pipeline.pipelines p ON p.name = s.pipeline
	LEFT JOIN (
		SELECT DISTINCT ON (c.pipeline_id, c.worker_state) c.*
		FROM _pipeline.worker_states c
		ORDER BY c.pipeline_id, c.worker_state, c.since
	) w ON w.pipeline_id = p.pipeline_id AND w.worker_state = s.state
WHERE NOT pg_catalog.pg_is_in_recovery()
	AND EXISTS (SELECT FROM pg_catalog.pg_settings g WHERE g.name = 'pipeline.max_databases')
	AND pg_catalog.current_setting('wal_level') = 'logical';
COMMENT ON VIEW _pipeline.patients IS 'health: pipelines that the reader may see, and their state';

-- What a started pipeline needs and has not, also while it has nothing to do.
CREATE VIEW _pipeline.needs AS
SELECT h.pipeline_id, h.name AS pipeline, '28000' AS sqlstate, n.what, n.hint
FROM _pipeline.patients h
	LEFT JOIN pg_catalog.pg_roles r ON r.oid = h.owner
	CROSS JOIN LATERAL (
		SELECT 'its owner does not exist any more' AS what,
			pg_catalog.format('SELECT pipeline.drop_pipeline(%L);', h.name) AS hint
		WHERE r.oid IS NULL
		UNION ALL
		SELECT pg_catalog.format('its owner %I may not log in', r.rolname),
			pg_catalog.format('ALTER ROLE %I LOGIN;', r.rolname)
		WHERE NOT r.rolcanlogin
		UNION ALL
		SELECT pg_catalog.format('its owner %I may not connect to this database', r.rolname),
			pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I;', pg_catalog.current_database(), r.rolname)
		WHERE NOT pg_catalog.has_database_privilege(r.oid, (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database()), 'CONNECT')
	) n
WHERE h.running
UNION ALL
SELECT h.pipeline_id, h.name, '42P01', 'its source does not exist any more',
	pg_catalog.format('SELECT pipeline.drop_pipeline(%L);', h.name)
FROM _pipeline.patients h
WHERE h.running AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = h.source)
UNION ALL
SELECT h.pipeline_id, h.name, '42P01', pg_catalog.format('target %s of output %s does not exist any more', o.target_name, o.name),
	pg_catalog.format('/* create table %s again, or */ SELECT pipeline.%s;', _pipeline.remark(o.target_name),
		CASE WHEN a.outputs = 1 THEN pg_catalog.format('drop_pipeline(%L)', h.name)
			ELSE pg_catalog.format('drop_output(%L, %L)', h.name, o.name) END)
FROM _pipeline.patients h
	JOIN _pipeline.outputs o ON o.pipeline_id = h.pipeline_id
	CROSS JOIN LATERAL (
		SELECT count(*) AS outputs
		FROM _pipeline.outputs a
		WHERE a.pipeline_id = h.pipeline_id
	) a
WHERE h.running
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.target)
	AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) = o.target_name)
UNION ALL
SELECT h.pipeline_id, h.name, '42883', pg_catalog.format('function %s of %s %s does not exist any more', u.handler, u.kind, u.name),
	pg_catalog.format('/* create function %s again, or */ SELECT pipeline.drop_%s(%L, %L);', _pipeline.remark(u.handler), u.kind, h.name, u.name)
FROM _pipeline.patients h
	JOIN (
		SELECT s.pipeline_id, 'stage' AS kind, s.name, s.handler FROM _pipeline.stages s
		UNION ALL
		SELECT o.pipeline_id, 'output', o.name, o.transform FROM _pipeline.outputs o
	) u ON u.pipeline_id = h.pipeline_id
WHERE h.running AND u.handler NOT LIKE 'pg\_catalog.%'
	AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_proc f
		WHERE f.pronargs IN (1, 2) AND f.pronamespace <> 'pg_catalog'::regnamespace
			AND f.oid::regprocedure::text = u.handler);
COMMENT ON VIEW _pipeline.needs IS 'health: what a started pipeline needs and has not';

-- A pipeline that does not go on.  What _pipeline.needs explains is not said twice.
-- To wait for a turn is no problem, unless it takes long.
CREATE VIEW _pipeline.standstills AS
SELECT CASE
		WHEN h.state = 'waiting' OR h.state = 'retrying' AND h.sqlstate <> '53100' THEN 'warning'
		ELSE 'error'
	END AS severity,
	h.name AS pipeline,
	CASE h.state
		WHEN 'waiting' THEN 'no free worker process'
		WHEN 'lost' THEN CASE
			WHEN h.lost_segments = '{}' OR h.message = 'the replication slot that held the position of the pipeline is gone' THEN
				'its replication slot is gone, and with it what was committed since its position'
			ELSE pg_catalog.format('the backlog of segment %s was larger than pipeline.max_backlog, and what was committed since its position is gone',
				pg_catalog.array_to_string(h.lost_segments, ' and of segment '))
		END
		ELSE h.message
	END AS what,
	h.since,
	CASE
		WHEN h.state = 'waiting' THEN
			pg_catalog.format('ALTER SYSTEM SET max_worker_processes = %s; -- then restart the server', pg_catalog.current_setting('max_worker_processes')::int + 8)
		WHEN h.state = 'lost' THEN pg_catalog.format('SELECT pipeline.start(%L, skip_to_now => true);', h.name)
		WHEN h.state = 'paused' AND h.sqlstate = '55000' THEN h.hint
		WHEN h.state = 'paused' AND h.sqlstate = '53400' THEN
			pg_catalog.format('SELECT pipeline.redrive(%1$L); -- when it is mended, or SELECT pipeline.discard(%2$s, ids, why);', h.name, _pipeline.remark(pg_catalog.quote_literal(h.name)))
		WHEN h.hint ~ '^(GRANT (SELECT|INSERT|USAGE|EXECUTE) ON|ALTER TABLE \S+ (ADD COLUMN|REPLICA IDENTITY)) [^;\r\n]+;' THEN
			pg_catalog.regexp_replace(_pipeline.remark(h.hint), '; (?=\S)', '; -- ')
		ELSE coalesce(
			CASE WHEN h.sqlstate = '42501' THEN _pipeline.missing_grant(h.message, h.owner) END,
			pg_catalog.format('/* %s */ SELECT pipeline.restart(%L);',
				CASE
					WHEN h.state = 'paused' THEN 'mend what fails; until then single events are tried'
					WHEN h.sqlstate = '53100' THEN 'make room on the disk'
					WHEN h.hint IS NULL AND h.sqlstate IN ('42P01', '42703', '42883') THEN 'create what is missing, or mend what asks for it'
					WHEN h.hint IS NOT NULL THEN pg_catalog.regexp_replace(_pipeline.remark(h.hint), '; SELECT pipeline\.restart\(.*$', '')
					WHEN h.state = 'retrying' THEN 'it goes on by itself when that is over'
					ELSE 'mend what the message says'
				END, h.name))
	END AS hint
FROM _pipeline.patients h
WHERE (h.state = 'lost'
		OR h.by_worker AND (h.state IN ('failed', 'paused')
			OR h.state = 'retrying' AND h.sqlstate = '53100'
			OR h.state IN ('retrying', 'waiting') AND h.since < pg_catalog.clock_timestamp() - interval '10 s'))
	AND NOT EXISTS (
		SELECT FROM _pipeline.needs n
		WHERE n.pipeline_id = h.pipeline_id AND n.sqlstate = h.sqlstate AND h.state = 'failed');
COMMENT ON VIEW _pipeline.standstills IS 'health: pipelines that do not go on';

-- Not wrong yet, but bound to be.
CREATE VIEW _pipeline.warnings AS
SELECT h.name AS pipeline,
	pg_catalog.format('%s dead letters are open, pipeline.dead_letter_limit is %s', l.open, g.most) AS what,
	l.since,
	pg_catalog.format('SELECT pipeline.redrive(%1$L); -- when it is mended, or SELECT pipeline.discard(%2$s, ids, why);', h.name, _pipeline.remark(pg_catalog.quote_literal(h.name))) AS hint
FROM _pipeline.patients h
	CROSS JOIN LATERAL (SELECT pg_catalog.current_setting('pipeline.dead_letter_limit', true)::int AS most) g
	CROSS JOIN LATERAL (
		SELECT count(*) AS open, min(d.failed_at) AS since
		FROM _pipeline.dead_letters d
		WHERE d.pipeline_id = h.pipeline_id AND d.state = 'open'
	) l
WHERE g.most > 0 AND l.open > 0.8 * g.most AND h.state <> 'paused'
UNION ALL
SELECT h.name,
	pg_catalog.format('dead letters wait to be run again (%s), and the pipeline is stopped', q.queued),
	(SELECT max(a.at) FROM _pipeline.audit_log a WHERE a.pipeline_id = h.pipeline_id AND a.action = 'redrive'),
	pg_catalog.format('SELECT pipeline.start(%L);', h.name)
FROM _pipeline.patients h
	CROSS JOIN LATERAL (
		SELECT count(*) AS queued
		FROM _pipeline.dead_letters d
		WHERE d.pipeline_id = h.pipeline_id AND d.queued
	) q
WHERE NOT h.running AND q.queued > 0
UNION ALL
-- all workers stand at one place until the last has come there
SELECT h.name,
	pg_catalog.format('its change to %s workers waits for partition %s, which is %s', n.workers, n.partition, n.worker_state),
	n.since,
	pg_catalog.format('SELECT partition, state, checkpoint FROM pipeline.partitions WHERE pipeline = %L; -- all go on when it has come there', h.name)
FROM _pipeline.patients h
	CROSS JOIN LATERAL (
		SELECT b.workers, k.partition, c.worker_state, w.since
		FROM _pipeline.worker_states w
			JOIN _pipeline.checkpoints b
				ON b.pipeline_id = w.pipeline_id AND b.segment = w.segment AND b.partition = w.partition
			JOIN _pipeline.checkpoints k
				ON k.pipeline_id = b.pipeline_id AND k.segment = b.segment AND k.version < b.since
			JOIN _pipeline.worker_states c
				ON c.pipeline_id = k.pipeline_id AND c.segment = k.segment AND c.partition = k.partition
		WHERE w.pipeline_id = h.pipeline_id AND w.barrier
			AND c.worker_state IN ('failed', 'paused', 'retrying', 'waiting')
		ORDER BY w.since, k.partition
		LIMIT 1
	) n
WHERE h.running
UNION ALL
SELECT h.name,
	pg_catalog.format('it is %s, and holds %s', h.state, m.held),
	CASE WHEN h.running THEN h.since
		ELSE (SELECT max(a.at) FROM _pipeline.audit_log a WHERE a.pipeline_id = h.pipeline_id AND a.action = 'stop') END,
	CASE
		WHEN h.state = 'lost' THEN pg_catalog.format('SELECT pipeline.start(%L, skip_to_now => true);', h.name)
		WHEN NOT h.running THEN pg_catalog.format('SELECT pipeline.start(%1$L); -- or SELECT pipeline.drop_pipeline(%2$s);', h.name, _pipeline.remark(pg_catalog.quote_literal(h.name)))
		ELSE pg_catalog.format('SELECT * FROM pipeline.explain(%1$L); -- make it faster, or SELECT pipeline.start(%2$s, skip_to_now => true);', h.name, _pipeline.remark(pg_catalog.quote_literal(h.name)))
	END
FROM _pipeline.patients h
	CROSS JOIN LATERAL (
		SELECT pg_catalog.format('%s of WAL', pg_catalog.pg_size_pretty(h.retained_wal_bytes)) AS held
		WHERE h.retained_wal_bytes > 0.5 * pg_catalog.pg_size_bytes(pg_catalog.current_setting('pipeline.max_retained_wal', true))
		UNION ALL
		SELECT pg_catalog.format('a backlog of %s, pipeline.max_backlog is %s', pg_catalog.pg_size_pretty(b.bytes), pg_catalog.current_setting('pipeline.max_backlog', true))
		FROM (
			SELECT sum(q.bytes) AS bytes
			FROM _pipeline.backlog q
			WHERE q.pipeline_id = h.pipeline_id
			GROUP BY q.segment
			ORDER BY bytes DESC
			LIMIT 1
		) b
		WHERE b.bytes > 0.5 * pg_catalog.pg_size_bytes(pg_catalog.current_setting('pipeline.max_backlog', true))
	) m
WHERE h.state NOT IN ('starting', 'running');
COMMENT ON VIEW _pipeline.warnings IS 'health: what will be a problem if nobody acts';

CREATE VIEW _pipeline.problems WITH (security_barrier) AS
SELECT severity, NULL::text AS pipeline, what, since, hint FROM _pipeline.server_problem
UNION ALL
SELECT severity, NULL, what, since, hint FROM _pipeline.slot_problems
UNION ALL
SELECT severity, pipeline, what, since, hint FROM _pipeline.standstills
UNION ALL
SELECT 'error', n.pipeline, n.what, CASE WHEN h.state = 'failed' AND h.sqlstate = n.sqlstate THEN h.since END, n.hint
FROM _pipeline.needs n
	JOIN _pipeline.patients h ON h.pipeline_id = n.pipeline_id
UNION ALL
SELECT 'error', h.name, z.what, z.since, pg_catalog.format('SELECT pipeline.accept_schema(%L);', h.name)
FROM _pipeline.schema_pauses z
	JOIN _pipeline.patients h ON h.pipeline_id = z.pipeline_id
WHERE h.state = 'paused' AND NOT h.by_worker
UNION ALL
SELECT 'warning', pipeline, what, since, hint FROM _pipeline.warnings;
COMMENT ON VIEW _pipeline.problems IS 'health: all of them, for each reader those of the pipelines it may see';

-- As its caller: the views behind it ask who reads them.  To compile them would take
-- longer than to run them, for a thousand pipelines, too.
CREATE FUNCTION pipeline.health()
RETURNS TABLE (severity text, pipeline text, what text, since timestamptz, hint text)
LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off
BEGIN ATOMIC
	SELECT p.severity, p.pipeline, p.what, p.since, p.hint
	FROM _pipeline.problems p
	ORDER BY p.severity, p.pipeline NULLS FIRST, p.since, p.what;
END;
COMMENT ON FUNCTION pipeline.health() IS 'what is wrong now, a row a problem, with the command that mends it; empty when all is well';
