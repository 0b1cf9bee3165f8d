-- w1_report.sql - the work W1 by every method, and which goals were reached.
SELECT count(*) > 0 AS done FROM figures WHERE what = 'pipeline_whole' \gset
\if :done
CREATE FUNCTION pg_temp.n(name text, digits int) RETURNS text LANGUAGE sql
RETURN coalesce(round(median(name), digits)::text, '-');
CREATE FUNCTION pg_temp.pair(name text, digits int) RETURNS text LANGUAGE sql
RETURN coalesce(round(median(name || '_p50'), digits) || ' / ' || round(median(name || '_p99'), digits), '-');

\qecho '### W1:' :orders 'orders by every method'
\qecho
\qecho '| method | whole run / L1 | writer''s load / L1 | freshness p50 / p99 under that load, ms | CPU / L1''s | WAL, bytes an order |'
\qecho '| --- | --- | --- | --- | --- | --- |'
SELECT format('| %s | %s (%s s) | %s (%s s) | %s | %s (%s s) | %s |', label,
	ratio(m || '_whole', 'alone_whole'), figure(m || '_whole'),
	ratio(m || '_load', 'alone_load'), pg_temp.n(m || '_load', 2),
	pg_temp.pair(m || '_fresh', 1),
	ratio(m || '_cpu', 'alone_cpu'), pg_temp.n(m || '_cpu', 2), pg_temp.n(m || '_wal', 0))
FROM w1_methods
WHERE median(m || '_whole') IS NOT NULL ORDER BY n;
\qecho
\qecho 'Every output was the batch query''s result (EXCEPT ALL, both ways).  Skipped, since there is no Debian package at hand:'
SELECT coalesce((SELECT 'PgQ' WHERE median('pgq_whole') IS NULL), 'none') || '.';
\qecho
\qecho '![W1 by every method](w1.svg)'
\qecho
\qecho '### W1: single orders at a rate, milliseconds'
\qecho
\qecho '| rate, method | a writer''s transaction p50 / p99 | COMMIT returned until visible p50 / p99 | COMMIT sent until visible p50 / p99 | visible / the writer''s, p50 | p99 | WAL, bytes an order |'
\qecho '| --- | --- | --- | --- | --- | --- | --- |'
SELECT format('| %s a second, %s | %s | %s | %s | %s | %s | %s |', rate, label, pg_temp.pair(m || '_writer', 2),
	pg_temp.pair(m || '_fresh', 2), pg_temp.pair(m || '_begun', 2),
	ratio(m || '_fresh_p50', m || '_writer_p50'), ratio(m || '_fresh_p99', m || '_writer_p99'), pg_temp.n(m || '_wal', 0))
FROM unnest(ARRAY[300, 2000]) rate
	CROSS JOIN (VALUES (1, 'alone_on', 'no method'), (2, 'pipeline_on', '**pipeline**'),
		(3, 'replica_trigger_on', 'replication with a replica trigger'),
		(4, 'pipeline_off', '**pipeline**, synchronous_commit off')) v (n, kind, label)
	CROSS JOIN LATERAL (SELECT format('single_%s_%s', rate, kind)) x (m)
ORDER BY rate, n;
\qecho
\qecho '### W1: catching up'
\qecho
\qecho '| written while the pipeline is stopped | seconds | orders a second | rate / that of L2 in batches of 10 000 |'
\qecho '| --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s |', label, figure(what), round(:orders / median(what)), ratio('batches_10000_rest', what))
FROM (VALUES (1, 'catch_up_row', '100 a transaction; lineage row'), (2, 'catch_up_none', '100 a transaction; lineage none'),
	(3, 'catch_up_one', 'all in one transaction; lineage row'), (4, 'batches_10000_rest', 'L2 in batches of 10 000')) v (n, what, label)
ORDER BY n;
\qecho

\qecho '### Goals'
\qecho
\qecho '| goal | wanted | measured | |'
\qecho '| --- | --- | --- | --- |'
WITH goals AS (
	SELECT 10 AS n, 'whole run / L1' AS goal, '<=' AS op, 1.15 AS wanted, median('pipeline_whole') / median('alone_whole') AS measured
	UNION ALL SELECT 11, 'freshness under full load, p50, ms', '<=', 20, median('pipeline_fresh_p50')
	UNION ALL SELECT 12, 'freshness under full load, p99, ms', '<=', 100, median('pipeline_fresh_p99')
	UNION ALL SELECT 13, 'writer at half its rate: a transaction with the pipeline / without, mean', '<=', 1.10,
		median('pipeline_half_writer_mean') / median('alone_half_writer_mean')
	UNION ALL SELECT 14, 'the same / a transaction of L1 at full speed, mean', '<=', 1.10,
		median('pipeline_half_writer_mean') / median('alone_writer_mean')
	UNION ALL SELECT 15, 'freshness at half the rate, p50, ms', '<=', 5, median('pipeline_half_fresh_p50')
	UNION ALL SELECT 16, 'freshness at half the rate, p99, ms', '<=', 50, median('pipeline_half_fresh_p99')
	UNION ALL SELECT 17, 'CPU / (L1 + decoding by capture + L2 in batches of 10 000)', '<=', 1.15, median('pipeline_cpu')
		/ (median('alone_cpu') + median('catch_up_row_capture_cpu') + median('batches_10000_rest_cpu'))
	UNION ALL SELECT 18, 'CPU / (L1 + decoding by pgoutput + L2 in batches of 10 000)', '<=', 1.15, median('pipeline_cpu')
		/ (median('alone_cpu') + median('pgoutput_cpu') + median('batches_10000_rest_cpu'))
	UNION ALL SELECT 19, 'WAL with lineage, bytes an order', '<=', 370, median('pipeline_wal')
	UNION ALL SELECT 20, 'catching up, rate / L2 in batches of 10 000, lineage row', '>=', 0.9,
		median('batches_10000_rest') / median('catch_up_row')
	UNION ALL SELECT 21, 'the same, lineage none', '>=', 1.0, median('batches_10000_rest') / median('catch_up_none')
	UNION ALL SELECT 22, 'one transaction of all / transactions of 100, time', '<=', 1.2,
		median('catch_up_one') / median('catch_up_row')
	UNION ALL SELECT x.* FROM unnest(ARRAY[300, 2000]) rate
		CROSS JOIN LATERAL (SELECT format('single_%s_pipeline_on', rate) AS m, format('single_%s_replica_trigger_on', rate) AS r) y
		CROSS JOIN LATERAL (VALUES
			(30 + rate, format('%s single orders a second: visible / the writer''s transaction, p50', rate), '<=', 1.5,
				median(m || '_fresh_p50') / median(m || '_writer_p50')),
			(31 + rate, 'the same, p99', '<=', 3, median(m || '_fresh_p99') / median(m || '_writer_p99')),
			(32 + rate, 'visible / built-in replication with a replica trigger, p50', '<=', 1,
				median(m || '_fresh_p50') / median(r || '_fresh_p50')),
			(33 + rate, 'the same, p99', '<=', 1, median(m || '_fresh_p99') / median(r || '_fresh_p99')),
			(34 + rate, 'synchronous_commit off, p99, ms', '<=', 20,
				median(format('single_%s_pipeline_off_fresh_p99', rate)))) x)
SELECT format('| %s | %s %s | %s | %s |', goal, op, wanted, coalesce(round(measured, 2)::text, '-'),
	CASE WHEN measured IS NULL THEN '-' WHEN (op = '<=') = (measured <= wanted) OR measured = wanted THEN 'reached' ELSE '**missed**' END)
FROM goals ORDER BY n;
\qecho
SELECT format('`processed_at` - `committed_at` in lineage, under full load: %s ms; at half the rate: %s ms.',
	pg_temp.pair('pipeline_lineage', 1), pg_temp.pair('pipeline_half_lineage', 1));
\qecho
\endif
