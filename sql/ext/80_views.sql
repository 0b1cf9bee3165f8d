-- What users read.  Each view shows its reader the pipelines it may see;
-- security_barrier keeps functions in a reader's WHERE behind that filter.

CREATE VIEW pipeline.pipelines WITH (security_barrier) AS
SELECT p.name AS pipeline,
	p.owner,
	p.source,
	p.operations,
	p.consistency,
	-- as the columns are called now
	CASE
		WHEN p.partition_key IS NULL THEN p.partition_by
		ELSE (
			SELECT array_agg(coalesce(a.attname::text, c.name) ORDER BY c.n)
			FROM ROWS FROM (unnest(p.partition_by), unnest(p.partition_key)) WITH ORDINALITY AS c(name, word, n)
				LEFT JOIN pg_catalog.pg_attribute a
					ON a.attrelid = p.source AND a.attnum = split_part(c.word, ' ', 1)::int AND NOT a.attisdropped)
	END AS partition_by,
	p.workers,
	p.lineage,
	p.on_schema_change,
	p.search_path,
	p.settings,
	p.running AND _pipeline.is_here(p.system_identifier, p.database) AS running,
	p.version,
	p.created_at
FROM _pipeline.pipelines p
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.pipelines IS 'definitions of pipelines';

CREATE VIEW pipeline.stages WITH (security_barrier) AS
SELECT p.name AS pipeline,
	s.position,
	s.name AS stage,
	s.kind,
	s.handler,
	s.query,
	s.isolate,
	s.segment,
	s.workers,
	s.partition_by,
	s.on_error,
	s.max_attempts,
	s.timeout,
	s.settings,
	s.version
FROM _pipeline.stages s
	JOIN _pipeline.pipelines p ON p.pipeline_id = s.pipeline_id
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.stages IS 'stages of pipelines, with the version in force';

CREATE VIEW pipeline.stage_versions WITH (security_barrier) AS
SELECT p.name AS pipeline,
	v.stage,
	v.version,
	CASE WHEN v.until IS NULL THEN 'live' ELSE 'retired' END AS state,
	v.handler,
	v.query,
	v.body_md5,
	v.deployed_by,
	v.deployed_at,
	v.first_lsn,
	CASE WHEN v.first_lsn IS NOT NULL THEN coalesce(v.last_lsn, (
		SELECT max(k.commit_lsn)
		FROM _pipeline.stages s
			JOIN _pipeline.checkpoints k ON k.pipeline_id = s.pipeline_id AND k.segment = s.segment
		WHERE s.stage_id = v.stage_id)) END AS last_lsn,
	v.since,
	v.until,
	v.definition
FROM _pipeline.stage_versions v
	JOIN _pipeline.pipelines p ON p.pipeline_id = v.pipeline_id
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.stage_versions IS 'each time that a version of a stage came into force; since and until are versions of the definition, which lineage names';

CREATE VIEW pipeline.outputs WITH (security_barrier) AS
SELECT p.name AS pipeline,
	o.name AS output,
	o.target,
	o.transform,
	o.mode,
	o.key,
	o.isolate,
	coalesce(o.segment, (
		SELECT s.segment
		FROM _pipeline.stages s
		WHERE s.pipeline_id = o.pipeline_id
		ORDER BY s.position DESC
		LIMIT 1
	), 1) AS segment,
	o.since
FROM _pipeline.outputs o
	JOIN _pipeline.pipelines p ON p.pipeline_id = o.pipeline_id
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.outputs IS 'outputs of pipelines; since is the version of the definition that added it';

-- A worker is "catching up" when it has a backlog, or when the last event it did
-- is older than 5 s and there are more; "repartitioning" when it waits for the others at
-- a change of the number of workers; one that ended for want of events is "running" all the same.
CREATE VIEW _pipeline.worker_states AS
SELECT c.*,
	CASE
		WHEN c.state IN ('waiting', 'retrying', 'paused', 'failed', 'lost') THEN c.state
		WHEN c.barrier THEN 'repartitioning'
		WHEN c.state = 'starting' THEN c.state
		WHEN c.state = 'idle' AND NOT c.caught_up THEN 'starting'
		WHEN c.backlog THEN 'catching up'
		WHEN NOT c.caught_up AND c.last_event_at < pg_catalog.clock_timestamp() - interval '5 s' THEN 'catching up'
		ELSE 'running'
	END AS worker_state
FROM _pipeline.consumers() c;
COMMENT ON VIEW _pipeline.worker_states IS 'workers of this database with their state as users see it';

-- A pipeline stands as the worst of its workers.
CREATE VIEW pipeline.status WITH (security_barrier) AS
SELECT p.name AS pipeline,
	CASE
		WHEN NOT p.born OR NOT _pipeline.is_here(p.system_identifier, p.database) THEN 'stopped'
		WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'
		WHEN p.running AND d.state = 'failed' THEN 'failed'
		WHEN x.lost OR x.behind IS NOT NULL THEN 'lost'
		WHEN NOT p.running THEN 'stopped'
		WHEN d.state IS DISTINCT FROM 'ready' OR w.state IS NULL THEN 'starting'
		WHEN x.pause IS NOT NULL THEN 'paused'
		ELSE w.state
	END AS state,
	coalesce(w.workers, 0)::int AS workers,
	coalesce(n.events, 0) AS events,
	coalesce(n.produced, 0) AS produced,
	coalesce(n.filtered, 0) AS filtered,
	coalesce(n.rejected, 0) AS rejected,
	coalesce(n.failed, 0) AS failed,
	x.processed_lsn,
	CASE
		WHEN d.wanted_lsn <= x.processed_lsn THEN 0
		ELSE (d.wanted_lsn - x.processed_lsn)::bigint
	END AS lag_bytes,
	CASE
		WHEN d.wanted_lsn <= x.processed_lsn THEN interval '0'
		ELSE pg_catalog.clock_timestamp() - coalesce(w.last_event_at, k.updated_at)
	END AS lag,
	w.latency_p50,
	w.latency_p99,
	w.retained_wal_bytes,
	CASE
		WHEN d.state = 'failed' THEN d.last_error
		WHEN x.lost AND w.state IS DISTINCT FROM 'lost' THEN pg_catalog.format(
			'the replication slot that held the position of the pipeline is gone (hint: SELECT pipeline.start(%L, skip_to_now => true); goes on from now and leaves out what was committed in between.)',
			p.name)
		WHEN x.behind IS NOT NULL AND w.state IS DISTINCT FROM 'lost' THEN pg_catalog.format(
			'the backlog of segment %s was larger than pipeline.max_backlog (hint: SELECT pipeline.start(%L, skip_to_now => true); goes on from now and leaves out what was committed in between.)',
			x.behind, p.name)
		WHEN x.pause IS NOT NULL THEN pg_catalog.format('%s (hint: SELECT pipeline.accept_schema(%L);)', x.pause, p.name)
		ELSE w.last_error
	END AS last_error,
	CASE
		WHEN d.state = 'failed' THEN d.last_error_at
		WHEN (x.lost OR x.behind IS NOT NULL) AND w.state IS DISTINCT FROM 'lost' THEN NULL
		WHEN x.pause IS NOT NULL THEN z.since
		ELSE w.last_error_at
	END AS last_error_at,
	b.bytes AS backlog_bytes
FROM _pipeline.pipelines p
	LEFT JOIN LATERAL (
		SELECT max(s.events) FILTER (WHERE s.first) AS events,
			max(s.produced) FILTER (WHERE s.first) AS produced,
			max(s.filtered) FILTER (WHERE s.first) AS filtered,
			sum(s.rejected)::bigint AS rejected,
			sum(s.failed)::bigint AS failed
		FROM (
			SELECT coalesce(c.segment = (
					SELECT t.segment
					FROM _pipeline.stages t
					WHERE t.pipeline_id = p.pipeline_id
					ORDER BY t.position
					LIMIT 1
				), true) AS first,
				sum(c.events)::bigint AS events,
				sum(c.produced)::bigint AS produced,
				sum(c.filtered)::bigint AS filtered,
				sum(c.rejected)::bigint AS rejected,
				sum(c.failed)::bigint AS failed
			FROM _pipeline.counts c
			WHERE c.pipeline_id = p.pipeline_id AND c.output_id = 0
			GROUP BY c.segment
		) s
	) n ON true
	LEFT JOIN _pipeline.databases() d ON _pipeline.is_here(p.system_identifier, d.database)
	LEFT JOIN (
		SELECT c.pipeline_id,
			CASE
				WHEN bool_or(c.worker_state = 'lost') THEN 'lost'
				WHEN bool_or(c.worker_state = 'failed') THEN 'failed'
				WHEN bool_or(c.worker_state = 'paused') THEN 'paused'
				WHEN bool_or(c.worker_state = 'retrying') THEN 'retrying'
				WHEN bool_or(c.worker_state IN ('waiting', 'repartitioning')) THEN 'waiting'
				WHEN bool_or(c.worker_state = 'starting') THEN 'starting'
				WHEN bool_or(c.worker_state = 'catching up') THEN 'catching up'
				ELSE 'running'
			END AS state,
			count(c.pid) AS workers,
			bool_and(c.caught_up) AS caught_up,
			min(CASE WHEN c.backlog THEN c.processed_lsn ELSE coalesce(c.processed_lsn, c.confirm_lsn) END) AS processed_lsn,
			min(c.last_event_at) AS last_event_at,
			max(c.latency_p50) AS latency_p50,
			max(c.latency_p99) AS latency_p99,
			max(c.retained_wal_bytes) AS retained_wal_bytes,
			(array_agg(c.last_error ORDER BY c.worker_state = 'lost' DESC, c.last_error_at DESC NULLS LAST))[1] AS last_error,
			(array_agg(c.last_error_at ORDER BY c.worker_state = 'lost' DESC, c.last_error_at DESC NULLS LAST))[1] AS last_error_at
		FROM _pipeline.worker_states c
		GROUP BY c.pipeline_id
	) w ON w.pipeline_id = p.pipeline_id
	LEFT JOIN LATERAL (
		SELECT min(k.commit_lsn) AS commit_lsn, min(k.updated_at) AS updated_at
		FROM _pipeline.checkpoints k
		WHERE k.pipeline_id = p.pipeline_id
	) k ON true
	CROSS JOIN LATERAL (
		SELECT coalesce(sum(q.bytes), 0)::bigint AS bytes
		FROM _pipeline.backlog q
		WHERE q.pipeline_id = p.pipeline_id
	) b
	LEFT JOIN _pipeline.schema_pauses z ON z.pipeline_id = p.pipeline_id
	CROSS JOIN LATERAL (
		SELECT CASE
			WHEN w.caught_up THEN greatest(w.processed_lsn, d.decoded_lsn)
			ELSE coalesce(w.processed_lsn, k.commit_lsn)
		END AS processed_lsn,
		-- 0/0: capture has said so; it may not have seen yet what pg_restore brought
		p.born AND _pipeline.is_here(p.system_identifier, p.database) AND (p.slot_lsn = '0/0' OR p.slot_lsn <> d.slot_lsn) IS TRUE AS lost,
		CASE WHEN _pipeline.is_here(p.system_identifier, p.database) THEN nullif(pg_catalog.array_to_string(p.lost_segments, ', '), '') END AS behind,
		-- also without a process, as after a restart when nothing came since
		CASE WHEN p.running AND w.state IN ('running', 'catching up', 'starting', 'waiting') THEN z.what END AS pause
	) x
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.status IS 'how each pipeline stands';

CREATE VIEW pipeline.workers WITH (security_barrier) AS
SELECT p.name AS pipeline,
	c.segment,
	c.partition,
	c.pid,
	c.worker_state AS state,
	c.started_at,
	c.processed_lsn,
	c.batches,
	c.retries,
	c.last_event_at,
	c.latency_p50,
	c.latency_p99,
	c.last_error,
	c.last_error_at
FROM _pipeline.worker_states c
	JOIN _pipeline.pipelines p ON p.pipeline_id = c.pipeline_id
WHERE (c.pid IS NOT NULL OR c.worker_state = 'lost') AND _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.workers IS 'worker processes of this database, and places that have none because they are lost';

-- A pipeline that was never started has no partition.
CREATE VIEW pipeline.partitions WITH (security_barrier) AS
SELECT p.name AS pipeline,
	c.segment,
	c.partition,
	coalesce(k.workers, (
		SELECT s.workers
		FROM _pipeline.stages s
		WHERE s.pipeline_id = c.pipeline_id AND s.segment = c.segment AND c.segment > 1
		ORDER BY s.position
		LIMIT 1
	), CASE WHEN c.segment > 1 THEN 1 ELSE p.workers END) AS workers,
	c.pid,
	k.commit_lsn AS checkpoint,
	CASE
		WHEN NOT p.running AND c.worker_state <> 'lost' THEN 'stopped'
		ELSE c.worker_state
	END AS state,
	coalesce(n.events, 0) AS events,
	c.events_per_second AS rows_per_second
FROM _pipeline.worker_states c
	JOIN _pipeline.pipelines p ON p.pipeline_id = c.pipeline_id
	LEFT JOIN _pipeline.checkpoints k
		ON k.pipeline_id = c.pipeline_id AND k.segment = c.segment AND k.partition = c.partition
	LEFT JOIN _pipeline.counts n
		ON n.pipeline_id = c.pipeline_id AND n.segment = c.segment AND n.partition = c.partition AND n.output_id = 0
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.partitions IS 'the workers'' shares of pipelines, with a process or without';

-- Rates are since the former sample, which is one to two minutes old while a stage works.
CREATE VIEW pipeline.stage_stats WITH (security_barrier) AS
SELECT p.name AS pipeline,
	s.position,
	s.name AS stage,
	s.kind,
	s.segment,
	coalesce(n.events, 0) AS events,
	coalesce(n.rows, 0) AS rows,
	coalesce(n.microseconds, 0) * interval '1 microsecond' AS time,
	coalesce(n.errors, 0) AS errors,
	n.events_per_second,
	n.rows_per_second,
	n.time_per_second / 1000000 AS time_per_second,
	n.errors_per_second,
	n.measured
FROM _pipeline.stages s
	JOIN _pipeline.pipelines p ON p.pipeline_id = s.pipeline_id
	LEFT JOIN LATERAL (
		SELECT sum(c.events)::bigint AS events,
			sum(c.rows)::bigint AS rows,
			sum(c.microseconds)::bigint AS microseconds,
			sum(c.errors)::bigint AS errors,
			sum((c.events - c.former[1]) / w.seconds) AS events_per_second,
			sum((c.rows - c.former[2]) / w.seconds) AS rows_per_second,
			sum((c.microseconds - c.former[3]) / w.seconds) AS time_per_second,
			sum((c.errors - c.former[4]) / w.seconds) AS errors_per_second,
			max(pg_catalog.clock_timestamp() - c.former_at) AS measured
		FROM _pipeline.stage_counts c
			CROSS JOIN LATERAL (
				SELECT greatest(extract(epoch FROM pg_catalog.clock_timestamp() - c.former_at), 0.001)::float8 AS seconds
			) w
		WHERE c.pipeline_id = s.pipeline_id AND c.stage_id = s.stage_id
	) n ON true
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.stage_stats IS 'events into and rows out of each stage, its time and errors, in all and a second';

-- Keys and reasons are payload: readers see them as null.
CREATE VIEW pipeline.lineage WITH (security_barrier) AS
SELECT p.name AS pipeline,
	b.version,
	u.commit_lsn,
	u.seq,
	u.xid,
	u.committed_at,
	u.source,
	u.operation,
	CASE WHEN p.payload THEN u.source_key END AS source_key,
	u.outcome,
	CASE WHEN p.payload THEN u.reason END AS reason,
	u.output,
	CASE WHEN p.payload THEN u.output_key END AS output_key,
	u.part,
	u.attempts,
	b.batch_id,
	b.processed_at,
	b.segment
FROM (
		SELECT q.pipeline_id, q.name, _pipeline.may_see_payload(q.owner) AS payload
		FROM _pipeline.pipelines q
		WHERE _pipeline.may_see(q.owner)
	) p
	JOIN _pipeline.batches b ON b.pipeline_id = p.pipeline_id
	CROSS JOIN LATERAL _pipeline.lineage_unfold(b.lineage) u
WHERE NOT EXISTS (
		SELECT FROM _pipeline.reruns r
		WHERE r.pipeline_id = b.pipeline_id
			AND r.segment = b.segment
			AND r.commit_lsn = u.commit_lsn
			AND r.seq = u.seq
			AND r.part = u.event_part
			AND r.batch_id > b.batch_id);
COMMENT ON VIEW pipeline.lineage IS 'what became of each event in each output, by which version, in which batch';

CREATE VIEW pipeline.batches WITH (security_barrier) AS
SELECT p.name AS pipeline,
	b.batch_id,
	b.segment,
	b.partition,
	b.version,
	b.redrive,
	b.first_lsn,
	b.first_seq,
	b.last_lsn,
	b.last_seq,
	b.transactions,
	b.events,
	b.produced,
	b.filtered,
	b.rejected,
	b.failed,
	b.attempts,
	b.started_at,
	b.processed_at
FROM _pipeline.batches b
	JOIN _pipeline.pipelines p ON p.pipeline_id = b.pipeline_id
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.batches IS 'what each worker processed in one transaction';

CREATE VIEW pipeline.dead_letters WITH (security_barrier) AS
SELECT d.id,
	p.name AS pipeline,
	d.code_version AS version,
	d.stage,
	d.kind,
	d.reason,
	d.sqlstate,
	d.detail,
	d.context,
	d.source,
	d.operation,
	d.event,
	d.old_event,
	d.commit_lsn,
	d.seq,
	d.xid,
	d.committed_at,
	d.failed_at,
	d.attempts,
	d.state,
	d.queued,
	d.output,
	d.superseded,
	d.segment,
	d.part
FROM _pipeline.dead_letters d
	JOIN _pipeline.pipelines p ON p.pipeline_id = d.pipeline_id
WHERE _pipeline.may_see_payload(p.owner);
COMMENT ON VIEW pipeline.dead_letters IS 'events that were rejected or failed, with all that is needed to run them again';

CREATE VIEW pipeline.schema_events WITH (security_barrier) AS
SELECT e.id,
	p.name AS pipeline,
	e.source,
	e.commit_lsn,
	e.xid,
	e.committed_at,
	e.change,
	e.column_name,
	e.old_type,
	e.new_type,
	CASE WHEN e.pauses THEN 'pause' ELSE 'adapt' END AS action,
	e.state
FROM _pipeline.schema_events e
	JOIN _pipeline.pipelines p ON p.pipeline_id = e.pipeline_id
WHERE _pipeline.may_see(p.owner);
COMMENT ON VIEW pipeline.schema_events IS 'changes of sources, and what became of the pipelines because of them';

-- Of a pipeline that is gone only operators and admins see the past.
CREATE VIEW pipeline.audit_log WITH (security_barrier) AS
SELECT a.id,
	a.at,
	a.who,
	a.action,
	a.pipeline,
	a.detail
FROM _pipeline.audit_log a
	LEFT JOIN _pipeline.pipelines p ON p.pipeline_id = a.pipeline_id
WHERE _pipeline.may_see_payload(coalesce(p.owner::oid, 10));
COMMENT ON VIEW pipeline.audit_log IS 'who did what to which pipeline, when; rows are only added';
