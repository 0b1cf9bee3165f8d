-- report.sql - the figures as tables in Markdown, medians with their range.
\pset tuples_only on
\pset format unaligned
CREATE FUNCTION pg_temp.a_second(what text) RETURNS text LANGUAGE sql AS $$
	SELECT round(current_setting('bench.orders')::int / median(what))::text
$$;
SELECT set_config('bench.orders', :'orders', false) \g /dev/null

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
