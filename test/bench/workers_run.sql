-- workers_run.sql - :n workers work off :count events by the handler :kind; checked.
-- The time, and the processor time of all workers, go into the figures of :round.
TRUNCATE work, worked;
SELECT pipeline.create_pipeline('work', source => 'work', consistency => 'causal', partition_by => '{k}', workers => :n) \g /dev/null
SELECT pipeline.add_stage('work', 'work', 'validate', ('work_' || :'kind' || '(work)')::regprocedure) \g /dev/null
SELECT pipeline.add_output('work', 'worked') \g /dev/null
SELECT pipeline.start('work') \g /dev/null
SELECT 1 / pipeline.wait_for('work')::int \g /dev/null
SELECT pipeline.stop('work') \g /dev/null
INSERT INTO work SELECT i % 1000, i FROM generate_series(1, :count) i;
CALL wait_for_capture();
CHECKPOINT;
SELECT clock_timestamp() AS begun, used FROM processor('pipeline') \gset
SELECT pipeline.start('work') \g /dev/null
SELECT 1 / pipeline.wait_for('work', timeout => '10 min')::int AS done \gset
INSERT INTO figures
SELECT :round, 'work_' || :'kind' || '_' || :n, extract(epoch FROM clock_timestamp() - :'begun')
UNION ALL SELECT :round, 'work_' || :'kind' || '_' || :n || '_cpu', used - :used FROM processor('pipeline');
SELECT 1 / (count(*) = :count)::int AS right FROM worked \gset
SELECT pipeline.drop_pipeline('work') \g /dev/null
