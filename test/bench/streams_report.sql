-- streams_report.sql - rows into streams.
\qecho '### Streams:' :orders 'rows in one statement'
\qecho
\qecho 'The same rows into an ordinary logged table without an index and into a stream.  Capture decodes them for a pipeline that stands.'
\qecho
\qecho '| | rows a second | stream / table | processor seconds | table / stream | bytes of WAL a row | capture, processor seconds |'
\qecho '| --- | --- | --- | --- | --- | --- | --- |'
SELECT format('| %s | %s | %s | %s | %s | %s | %s |', label,
	coalesce(round(:orders / median(what))::text, '-'),
	CASE kind WHEN 'stream' THEN ratio('into_table_' || how, what) ELSE '' END,
	figure(what || '_cpu'),
	CASE kind WHEN 'stream' THEN ratio('into_table_' || how || '_cpu', what || '_cpu') ELSE '' END,
	coalesce(round(median(what || '_wal') / :orders)::text, '-'),
	figure(what || '_capture'))
FROM (VALUES
	(1, 'table', 'insert', '`INSERT ... SELECT` into the table'),
	(2, 'stream', 'insert', '`INSERT ... SELECT` into the stream'),
	(3, 'table', 'copy', '`COPY` into the table'),
	(4, 'stream', 'copy', '`COPY` into the stream')) v (n, kind, how, label)
	CROSS JOIN LATERAL (SELECT format('into_%s_%s', kind, how)) x (what)
ORDER BY n;
\qecho
