-- report.sql - what the demo shows after the traffic.
\pset null '-'
\set ECHO none
\echo
\echo 'This is the pipeline with its stages and outputs, as the views of schema pipeline show them (- is null).'
SELECT pipeline, owner, source, operations, consistency, running, version FROM pipeline.pipelines;
SELECT position, stage, kind, handler FROM pipeline.stages WHERE pipeline = 'fraud' ORDER BY position;
SELECT output, target, transform, mode FROM pipeline.outputs WHERE pipeline = 'fraud' ORDER BY output DESC;

\echo 'This is how it stands: one event is one transaction of pgbench; the server keeps retained_wal_bytes of WAL for it.'
SELECT pipeline, state, workers, events, produced, filtered, rejected, failed, lag_bytes,
	retained_wal_bytes, last_error
FROM pipeline.status WHERE pipeline = 'fraud';

\echo 'Ten rows of the output that has every decision.'
SELECT * FROM decisions ORDER BY id DESC LIMIT 10;

\echo 'Ten rows of the output that has the suspicious ones.'
SELECT * FROM alerts ORDER BY id DESC LIMIT 10;

\echo 'Where does a decision come from?  Take one of part 2 that was blocked ...'
SELECT id AS chosen FROM decisions
WHERE decision = 'block' AND id <= (SELECT count(*) - :missed FROM pgbench_history)
ORDER BY balance = amount, id DESC LIMIT 1 \gset
SELECT * FROM decisions d WHERE id = :chosen;
\echo '... lineage tells what became of its event (commit_lsn, seq) in both outputs, by which version, in which batch ...'
SELECT output, outcome, output_key, source, source_key, operation, commit_lsn, seq, xid, version, batch_id
FROM pipeline.lineage
WHERE pipeline = 'fraud' AND source_key = jsonb_build_object('id', :chosen) ORDER BY output DESC;
\echo '... and its xid is the xmin of the row of the source: this is the transaction, and when it was decided.'
SELECT h.id, h.tid, h.bid, h.aid, h.delta, h.xmin, l.committed_at::time AS committed_at,
	l.processed_at::time AS processed_at
FROM pgbench_history h
	JOIN pipeline.lineage l ON l.source_key = jsonb_build_object('id', h.id) AND l.xid = h.xmin
WHERE h.id = :chosen AND l.output = 'decisions';

\echo 'What the validation rejected is kept as dead letters, which could be run again (redrive) or given up (discard).'
SELECT count(*) AS open FROM pipeline.dead_letters WHERE pipeline = 'fraud' AND state = 'open';
SELECT id, stage, kind, reason, event->>'id' AS history_id, event->>'delta' AS delta, state
FROM pipeline.dead_letters WHERE pipeline = 'fraud' ORDER BY id DESC LIMIT 5;

\echo 'How fast?  Parts 1 and 2 are as fast as the writers; part 3 tells what one worker can do when it has much to do.'
CREATE TEMP TABLE timing AS
SELECT CASE WHEN committed_at BETWEEN :'from1' AND :'to1' THEN 1
	WHEN committed_at BETWEEN :'from2' AND :'to2' THEN 2 ELSE 3 END AS part,
	committed_at, 1000 * extract(epoch FROM processed_at - committed_at) AS ms
FROM pipeline.lineage WHERE pipeline = 'fraud' AND output = 'decisions';
SELECT CASE part WHEN 1 THEN '1: ' || :pace || ' a second' WHEN 2 THEN '2: full speed' ELSE '3: working off' END AS part,
	count(*) AS events,
	round(count(*) / CASE part WHEN 3 THEN :drained / 1000.0
		ELSE extract(epoch FROM max(committed_at) - min(committed_at)) END) AS events_a_second
FROM timing GROUP BY timing.part ORDER BY timing.part;

\echo 'How fresh?  The time from a commit to its decision (lineage: processed_at - committed_at), next to what the'
\echo 'writers themselves wait for: their whole transaction of seven statements, and of that the COMMIT.  All in ms.'
SELECT v.part, round(t.p[1]::numeric, 2) AS fresh_p50, round(t.p[2]::numeric, 2) AS fresh_p99,
	v.transaction_p50, v.transaction_p99, v.commit_average
FROM (VALUES
	(1, '1: ' || :pace || ' a second', :w50_1, :w99_1, :c1),
	(2, '2: full speed', :w50_2, :w99_2, :c2))
	v (number, part, transaction_p50, transaction_p99, commit_average)
	CROSS JOIN LATERAL (
		SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY ms) AS p
		FROM timing WHERE timing.part = v.number) t
ORDER BY v.number;
\echo 'committed_at is the time in the commit record, so freshness includes the writer''s own flush to disk.  The'
\echo 'commit of the decisions comes right after processed_at; pipeline.status, which measures until they are visible,'
\echo 'in steps of a factor of 1.4, says for parts 1 and 2:' :visible
\echo 'After the last commit of part 2 everything was decided within' :behind 'ms.'

\echo
\echo 'Is it right?  One query over pgbench_history gives the same rows as the outputs: no row differs either way.'
CREATE TEMP TABLE expected AS
SELECT (j).*
FROM (SELECT h, sum(delta) OVER (PARTITION BY aid ORDER BY id) AS balance FROM pgbench_history h) b
	JOIN pgbench_accounts a ON a.aid = (h).aid
	CROSS JOIN LATERAL decide(ROW((h).id, (h).bid, (h).tid, a.bid, (h).aid, (h).delta, balance)::payment) j
WHERE check_amount(h) IS NULL;
CREATE TEMP TABLE checks AS
SELECT 'decisions' AS output, (SELECT count(*) FROM decisions) AS rows,
	(SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE decisions) x) AS missing,
	(SELECT count(*) FROM (TABLE decisions EXCEPT ALL TABLE expected) x) AS too_many
UNION ALL
SELECT 'alerts', (SELECT count(*) FROM alerts),
	(SELECT count(*) FROM (SELECT id, account, amount, balance, rule FROM expected WHERE rule IS NOT NULL
		EXCEPT ALL TABLE alerts) x),
	(SELECT count(*) FROM (TABLE alerts
		EXCEPT ALL SELECT id, account, amount, balance, rule FROM expected WHERE rule IS NOT NULL) x);
TABLE checks;

\echo 'And complete?  In the ledger every event of every output ended as exactly one of four things; what is not'
\echo 'suspicious is filtered in alerts.'
SELECT l.*, (SELECT count(*) FROM pgbench_history) AS rows_in_source FROM pipeline.ledger('fraud') l;

SELECT bool_and(missing = 0 AND too_many = 0) AND
	(SELECT bool_and(balanced AND events = (SELECT count(*) FROM pgbench_history))
	 FROM pipeline.ledger('fraud')) AS right FROM checks \gset
\if :right
	\echo 'All checks passed.'
\else
	\warn 'A check failed.'
	SELECT 1 / 0 AS "a check failed";
\endif
