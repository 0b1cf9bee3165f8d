-- catch_up.sql - how many milliseconds until all that is committed is processed.
\o /dev/null
SELECT clock_timestamp() AS begun \gset
SELECT pipeline.wait_for('fraud', timeout => '60 s') AS done \gset
\o
SELECT CASE WHEN :'done' THEN round(1000 * extract(epoch FROM clock_timestamp() - :'begun'))::text
	ELSE 'more than 60000' END;
