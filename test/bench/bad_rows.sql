-- bad_rows.sql - what bad events cost: the pipeline "bad" works off :events rows
-- of which one in :every is bad (0: none), of the kind :kind; 1 000 rows a
-- transaction.  The time goes into the figures of :round.
TRUNCATE readings, good_readings, places_read;
SELECT pipeline.create_pipeline('bad', source => 'readings') \g /dev/null
SELECT pipeline.add_stage('bad', 'convert', 'transform', (:'kind' || '_reading(readings)')::regprocedure) \g /dev/null
SELECT pipeline.add_output('bad', (CASE :'kind' WHEN 'deferred' THEN 'places_read' ELSE 'good_readings' END)::regclass) \g /dev/null
SELECT pipeline.start('bad') \g /dev/null
SELECT pipeline.wait_for('bad') \g /dev/null
SELECT pipeline.stop('bad') \g /dev/null
CALL write_readings(:events, :every);
CHECKPOINT;
SELECT clock_timestamp() AS begun \gset
SELECT pipeline.start('bad') \g /dev/null
SELECT 1 / pipeline.wait_for('bad', timeout => '10 min')::int AS done \gset
INSERT INTO figures
SELECT :round, 'bad_' || :'kind' || '_' || :every, extract(epoch FROM clock_timestamp() - :'begun');
-- every bad event is a dead letter, and every other one is there
SELECT 1 / (failed = CASE WHEN :every = 0 THEN 0 ELSE :events / :every END AND produced = :events - failed)::int AS right
FROM pipeline.status WHERE pipeline = 'bad' \gset
SELECT pipeline.stop('bad') \g /dev/null
SELECT pipeline.drop_pipeline('bad') \g /dev/null
