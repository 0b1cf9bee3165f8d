-- streams.sql - a stream, a table with the same columns, and a pipeline over each.
CREATE TABLE stream_rival (LIKE orders) WITH (autovacuum_enabled = false);
CREATE TABLE stream_output (LIKE orders);
CREATE FOREIGN TABLE order_stream (
	order_id bigint NOT NULL,
	customer_id int NOT NULL,
	product_id int NOT NULL,
	quantity int NOT NULL,
	price numeric(10,2) NOT NULL,
	currency text NOT NULL,
	channel text NOT NULL,
	country text NOT NULL,
	ordered_at timestamptz NOT NULL,
	note text
) SERVER pipeline;
SELECT pipeline.create_pipeline('of_table', 'stream_rival');
SELECT pipeline.add_output('of_table', 'stream_output');
SELECT pipeline.start('of_table');
SELECT pipeline.create_pipeline('of_stream', 'order_stream');
SELECT pipeline.add_output('of_stream', 'stream_output');
SELECT pipeline.start('of_stream');
SELECT pipeline.wait_for('of_table'), pipeline.wait_for('of_stream');
SELECT pipeline.stop('of_table'), pipeline.stop('of_stream');
