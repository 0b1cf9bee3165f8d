-- freshness.sql - figures of one round: the probes', the WAL, and what lineage
-- and status say of all orders.
\if :look
	SELECT pipeline.wait_for('orders') \g /dev/null
\endif
INSERT INTO figures
SELECT :round, 'wal_' || :'mode', (pg_current_wal_insert_lsn() - :'lsn') / (SELECT count(*) FROM orders);
INSERT INTO figures
SELECT :round, x.what || '_p' || q.percent, x.values[q.at]
FROM (
	SELECT 'probe_commit_' || :'mode', percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY commit_ms)
	FROM probes WHERE round = :round AND with_pipeline = :look
	UNION ALL
	SELECT 'visible_since_begun', percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY since_commit_begun_ms)
	FROM probes WHERE round = :round AND with_pipeline AND :look
	UNION ALL
	SELECT 'visible_since_returned', percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY since_commit_returned_ms)
	FROM probes WHERE round = :round AND with_pipeline AND :look) x (what, values)
	CROSS JOIN (VALUES (50, 1), (99, 2)) q (percent, at)
WHERE x.values IS NOT NULL;
\if :look
	INSERT INTO figures
	SELECT :round, 'lineage_p' || q.percent, x.values[q.at]
	FROM (SELECT percentile_cont(ARRAY[0.5, 0.99])
			WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM processed_at - committed_at))
		FROM pipeline.lineage WHERE pipeline = 'orders') x (values)
		CROSS JOIN (VALUES (50, 1), (99, 2)) q (percent, at);
	INSERT INTO figures
	SELECT :round, q.what, 1000 * extract(epoch FROM q.value)
	FROM pipeline.status s
		CROSS JOIN LATERAL (VALUES ('status_p50', s.latency_p50), ('status_p99', s.latency_p99)) q (what, value)
	WHERE s.pipeline = 'orders';
\endif
