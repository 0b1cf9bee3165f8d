-- many_report.sql - the figures of many pipelines.
\qecho '### Many pipelines:' :many 'on' :sources 'tables, max_worker_processes = 16'
\qecho
\qecho '| | | beside | ratio |'
\qecho '| --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s |', label, figure(a, digits) || unit, coalesce(figure(b, digits) || unit, '-'), ratio(a, b))
FROM (VALUES
	(1, 'declare and start one: the last tenth, beside the first', 'many_define_last', 'many_define_first', 1, ' ms'),
	(2, 'start of the server until `ready`, beside one without pipelines', 'many_start_all', 'many_start_none', 0, ' ms'),
	(3, '`SELECT * FROM pipeline.status`, beside `SELECT 1`', 'many_status', 'many_ping', 1, ' ms'),
	(4, '`SELECT * FROM pipeline.health()`, beside `SELECT 1`', 'many_health', 'many_ping', 1, ' ms'),
	(5, 'all busy at once: seconds, beside as many events of 12 pipelines', 'many_burst', 'few_burst', 1, ' s'),
	(6, 'capture, processor time to decode rows of a table that 20 pipelines read, all stopped, beside 1: 200 a transaction', 'fan_twenty_decode', 'fan_one_decode', 0, ' ms'),
	(7, 'the same while they run: capture wakes each, and reads past what each writes', 'fan_twenty_bulk', 'fan_one_bulk', 0, ' ms'),
	(8, 'the same, a row a transaction', 'fan_twenty', 'fan_one', 0, ' ms'))
	v (n, label, a, b, digits, unit) ORDER BY n;
\qecho
SELECT format('Shared memory: %s kB for pipeline.max_segments = %s, %s bytes a segment.  While all are idle: %s processes beside the launcher, woken %s times in 5 s.  One row for a table that five pipelines read: %s of %s pipelines did anything, the row was through in %s s.',
	round(median('many_shared') / 1024), round(median('many_segments')), round(median('many_shared') / median('many_segments')),
	round(median('many_processes')), round(median('many_wakeups')), round(median('many_woken')), :'many', figure('many_one'));
\qecho
SELECT format('All busy at once: %s events of %s pipelines, %s a second; of 12 pipelines, which need no turns, %s a second. A pipeline had done half of its events after %s s (the first percent), %s s (the median), %s s (the last percent); all 12 after %s to %s s.',
	round(median('many_events')), :'many', round(median('many_events') / median('many_burst')),
	round(median('few_events') / median('few_burst')),
	figure('many_half_p1'), figure('many_half_p50'), figure('many_half_p99'), figure('few_half_p1'), figure('few_half_latest'));
\qecho
