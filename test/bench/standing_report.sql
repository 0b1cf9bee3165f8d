-- standing_report.sql - what a pipeline that stands keeps of the WAL.
\qecho '### WAL kept while a pipeline stands, in MB'
\qecho
\qecho 'Two pipelines read the orders; one of them is stopped.  `pipeline.max_retained_wal` is an eighth of the orders'' WAL.  After'
\qecho 'each checkpoint:'
\qecho
\qecho '| WAL written | pg_wal | retained_wal_bytes | backlog_bytes | |'
\qecho '| --- | --- | --- | --- | --- |'
SELECT format('| %s | %s |', string_agg(round(value::numeric / 1048576)::text, ' | ' ORDER BY n),
	CASE round WHEN 0 THEN 'it is stopped' WHEN 9 THEN 'the other one is through'
		WHEN 10 THEN 'it was started, and is through' END)
FROM figures JOIN (VALUES (1, 'kept_written'), (2, 'kept_pg_wal'), (3, 'kept_retained'), (4, 'kept_backlog')) v (n, what)
	USING (what)
GROUP BY round ORDER BY round;
\qecho
SELECT format('%s orders came from the backlog and the spool in %s s.', round(median('kept_rows')), figure('kept_again'));
\qecho
