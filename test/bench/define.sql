-- define.sql - declare the pipeline :name from orders to the table :output.
SELECT pipeline.create_pipeline(:'name', source => 'orders');
SELECT pipeline.add_stage(:'name', 'check', 'validate', 'check_order(orders)');
SELECT pipeline.add_stage(:'name', 'customer', 'enrich', 'with_customer(orders)');
SELECT pipeline.add_output(:'name', :'output');
