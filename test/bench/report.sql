-- report.sql - the figures as tables in Markdown, medians with their range.
\pset tuples_only on
\pset format unaligned
CREATE FUNCTION pg_temp.a_second(what text) RETURNS text LANGUAGE sql AS $$
	SELECT round(current_setting('bench.orders')::int / median(what))::text
$$;
SELECT set_config('bench.orders', :'orders', false) \g /dev/null

\qecho '### Freshness: single rows at' :pace 'a second'
\qecho
\qecho '| milliseconds | p50 without | p99 without | p50 with the pipeline | p99 with the pipeline |'
\qecho '| --- | --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s | %s |', label, figure(without || '_p50'), figure(without || '_p99'),
	figure(with_it || '_p50'), figure(with_it || '_p99'))
FROM (VALUES
	(1, 'a writer''s transaction (one INSERT and its commit, pgbench)', 'writer_without', 'writer_with'),
	(2, 'the probe''s COMMIT alone', 'probe_commit_without', 'probe_commit_with'),
	(3, 'COMMIT sent, until the row is visible in the output', '', 'visible_since_begun'),
	(4, 'COMMIT returned, until the row is visible in the output', '', 'visible_since_returned'),
	(5, 'lineage: time in the commit record, until just before the worker''s commit', '', 'lineage'),
	(6, '`pipeline.status`: time in the commit record, until visible, in buckets of a factor of 1.4', '', 'status'))
	v (n, label, without, with_it) ORDER BY n;
\qecho
\qecho '| ratio | p50 | p99 |'
\qecho '| --- | --- | --- |'
SELECT format('| %s | %s | %s |', label, ratio(a || '_p50', b || '_p50'), ratio(a || '_p99', b || '_p99'))
FROM (VALUES
	(1, 'COMMIT sent until visible / a writer''s transaction with the pipeline', 'visible_since_begun', 'writer_with'),
	(2, 'COMMIT returned until visible / a writer''s transaction with the pipeline', 'visible_since_returned', 'writer_with'),
	(3, 'COMMIT sent until visible / the probe''s COMMIT alone', 'visible_since_begun', 'probe_commit_with'),
	(4, 'a writer''s transaction with the pipeline / without', 'writer_with', 'writer_without'))
	v (n, label, a, b) ORDER BY n;
\qecho
SELECT format('WAL: %s bytes an order without the pipeline, %s with it, since nearly each order is a batch of its own.',
	round(median('wal_without')), round(median('wal_with')));
\qecho

\qecho '### Writers at full speed,' :clients 'clients'
\qecho
\qecho '| transactions a second | without | with the pipeline | ratio | done after the last commit, ms |'
\qecho '| --- | --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s | %s |', label, figure(what || '_without', 0), figure(what || '_with', 0),
	ratio(what || '_with', what || '_without'), figure(what || '_behind', 0))
FROM (VALUES
	(1, 'single orders, each an event', 'inserts'),
	(2, 'TPC-B (pgbench), one row in its history an event', 'tpcb')) v (n, label, what) ORDER BY n;
\qecho

\qecho '### Catching up with' :orders 'orders'
\qecho
\qecho '| method | seconds | orders a second | rate / that of batches by hand | processor seconds | WAL, bytes an order |'
\qecho '| --- | --- | --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s | %s | %s |', label, figure(what), pg_temp.a_second(what), ratio('batches', what),
	figure(what || '_cpu'), round(median(what || '_wal') / current_setting('bench.orders')::int))
FROM (VALUES
	(1, 'pipeline, from `start` until `wait_for` returns', 'pipeline'),
	(2, 'by hand: INSERT ... SELECT in batches of 10 000 with a position', 'batches'),
	(3, 'by hand: INSERT ... SELECT in one statement', 'statement')) v (n, label, what) ORDER BY n;
\qecho
SELECT format('Processor time of the pipeline (worker and capture) / of batches by hand: %s.  Of the seconds above, the processes '
	'waited %s, %s and %s s for a processor that others had.', ratio('pipeline_cpu', 'batches_cpu'), figure('pipeline_waited'),
	figure('batches_waited'), figure('statement_waited'));
SELECT format('The pipeline took %s batches of %s orders in the mean; its lineage is %s bytes an order, %s as stored (compressed; '
	'the ids here are consecutive).  In each repetition the outputs of all three had the same rows (EXCEPT ALL, both ways), '
	'and the ledger balanced.  Writing the orders, 100 a transaction, took %s s.',
	round(median('catch_up_batches')), round(median('catch_up_events')), round(median('lineage_bytes'), 1),
	round(median('lineage_stored'), 1), figure('write', 1));
\qecho

\qecho '### Decoding the WAL of' :orders 'orders'
\qecho
\qecho '| reader | seconds | orders a second | seconds / the peek | processor seconds |'
\qecho '| --- | --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s | %s |', label, figure(what), pg_temp.a_second(what), ratio(what, 'peek'), figure(what || '_cpu'))
FROM (VALUES
	(1, 'capture: from the start of its process until the spool has all', 'capture'),
	(2, '`pg_logical_slot_peek_binary_changes` with pgoutput', 'peek')) v (n, label, what) ORDER BY n;
\qecho
SELECT format('One transaction that writes as many rows into a table that no pipeline wants keeps capture for %s s after its commit.',
	figure('unwanted'));
\qecho

\qecho '### Memory'
\qecho
\qecho '| MB, resident / private | at the start | after half of' :orders 'orders | after all | after catching up with all |'
\qecho '| --- | --- | --- | --- | --- |'
SELECT format('| %s | %s |', kind, string_agg(
	coalesce(round(median(kind || '_rss_' || at), 1) || ' / ' || round(median(kind || '_private_' || at), 1), '-'),
	' | ' ORDER BY k, n))
FROM unnest(ARRAY['launcher', 'capture', 'worker']) WITH ORDINALITY kinds (kind, k)
	CROSS JOIN unnest(ARRAY['none', 'half', 'all', 'catch_up']) WITH ORDINALITY points (at, n)
GROUP BY kind, k ORDER BY k;
\qecho
