-- neighbours.sql - beside the pipeline "orders" a second one on the same table,
-- with a trouble of the kind :kind.
TRUNCATE neighbour;
SELECT pipeline.create_pipeline('neighbour', source => 'orders');
SELECT pipeline.add_stage('neighbour', 'stage', 'transform', (:'kind' || '_neighbour(orders)')::regprocedure, timeout => CASE WHEN :'kind' <> 'sleeping' THEN interval '500 ms' END);
SELECT pipeline.add_output('neighbour', 'neighbour');
SELECT pipeline.start('neighbour');
SELECT :'kind' = 'stopped' AS stopped \gset
\if :stopped
SELECT pipeline.stop('neighbour');
\endif
