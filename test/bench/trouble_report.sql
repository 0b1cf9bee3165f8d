-- trouble_report.sql - the figures of the parts about failures.
\qecho '### Bad events:' :readings 'events, 1 000 a transaction'
\qecho
\qecho '| seconds (ratio to none) | none | 1 in 10 000 | 1 in 1 000 | 1 % | 10 % | all |'
\qecho '| --- | --- | --- | --- | --- | --- | --- |'
SELECT format('| %s | %s |', label, string_agg(
	CASE WHEN median(name) IS NULL THEN '-' WHEN every = 0 THEN figure(name)
		ELSE format('%s (%s)', round(median(name), 2), ratio(name, 'bad_' || kind || '_0')) END,
	' | ' ORDER BY n))
FROM (VALUES
	(1, 'sql', 'division by zero in a handler in SQL'),
	(2, 'plpgsql', 'the same in PL/pgSQL'),
	(3, 'deferred', 'a deferred foreign key of the output')) kinds (k, kind, label)
	CROSS JOIN unnest(ARRAY[0, 10000, 1000, 100, 10, 1]) WITH ORDINALITY rates (every, n)
	CROSS JOIN LATERAL (SELECT format('bad_%s_%s', kind, every)) x (name)
GROUP BY k, label ORDER BY k;
\qecho
\qecho 'From `start` until `wait_for` returns, with `pipeline.breaker_failures = 1` (off); every bad event is a dead letter then.'
\qecho
\qecho '### Beside a pipeline in trouble: single rows at' :pace 'a second'
\qecho
\qecho 'Two pipelines read the same table; from COMMIT returned until the row is visible in the output of the healthy one.'
\qecho
\qecho '| the other pipeline | p50, ms | p99, ms | p99 / beside a healthy one |'
\qecho '| --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s |', label, figure(what || '_fresh_p50'), figure(what || '_fresh_p99'),
	ratio(what || '_fresh_p99', 'beside_healthy_fresh_p99'))
FROM (VALUES
	(1, 'is healthy', 'beside_healthy'),
	(2, 'is stopped', 'beside_stopped'),
	(3, 'cannot go on: a table is missing', 'beside_broken'),
	(4, 'has an error in one event of a hundred', 'beside_poisoned'),
	(5, 'hangs for 0.5 s in one event of a thousand', 'beside_hanging'),
	(6, 'takes a second for each event', 'beside_sleeping')) v (n, label, what) ORDER BY n;
\qecho
