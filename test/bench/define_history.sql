-- define_history.sql - a pipeline on what pgbench's TPC-B script inserts.
SELECT pipeline.create_pipeline('history', source => 'pgbench_history');
SELECT pipeline.add_stage('history', 'check', 'validate', 'check_movement(pgbench_history)');
SELECT pipeline.add_stage('history', 'account', 'enrich', 'with_account(pgbench_history)');
SELECT pipeline.add_output('history', 'movements');
