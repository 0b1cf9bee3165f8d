-- workers_report.sql - what several workers do.
\qecho '### Several workers'
\qecho
\qecho 'The same events through 1, 2 and 4 workers, by a handler that waits 1 ms for each, by one that computes, and by one that does nothing. What n workers'
\qecho 'spend more on the last one is for starting, committing and skipping events of others.'
\qecho
\qecho '| handler | events | workers | events a second | times one worker | processor seconds |'
\qecho '| --- | --- | --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s | %s | %s |', CASE n WHEN 1 THEN kind ELSE '' END, CASE n WHEN 1 THEN count::text ELSE '' END, n,
	coalesce(round(count / median(what))::text, '-'), ratio(format('work_%s_1', kind), what), figure(what || '_cpu'))
FROM (VALUES (1, 'waits', :orders / 1000), (2, 'computes', :orders / 100), (3, 'passes', :orders)) v (i, kind, count)
	CROSS JOIN unnest('{1,2,4}'::int[]) n
	CROSS JOIN LATERAL (SELECT format('work_%s_%s', kind, n)) x (what)
ORDER BY i, n;
\qecho
