-- catch_up.sql - how many milliseconds until all that is committed is processed;
-- with start = true the pipeline is started first, within that time.
\o /dev/null
SELECT clock_timestamp() AS begun \gset
\if :start
SELECT pipeline.start('fraud');
\endif
SELECT pipeline.wait_for('fraud', timeout => '60 s') AS done \gset
\o
SELECT CASE WHEN :'done' THEN round(1000 * extract(epoch FROM clock_timestamp() - :'begun'))::text
	ELSE 'more than 60000' END;
