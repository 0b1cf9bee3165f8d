-- Several workers for one pipeline: what can be declared, which worker has which
-- event, and that the outputs are the same as with one.
SET client_min_messages = warning;
CREATE TABLE pw_src (id int PRIMARY KEY, customer int NOT NULL, v int);
CREATE TABLE pw_pt (pt point);
ALTER TABLE pw_src REPLICA IDENTITY FULL;
CREATE TABLE pw_out (id int, customer int, v int);
CREATE TABLE pw_ups (customer int, id int, v int, PRIMARY KEY (customer, id));
CREATE TABLE pw_other (id int PRIMARY KEY, customer int, v int);
CREATE TABLE pw_wide (customer numeric, id int, v int, PRIMARY KEY (customer, id));

-- what is refused
SELECT pipeline.create_pipeline('pw', source => 'pw_src', workers => 4);
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 4);
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 4, partition_by => '{}');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 4, partition_by => '{nobody}');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 4, partition_by => '{customer,customer}');
SELECT pipeline.create_pipeline('pw', source => 'pw_pt', consistency => 'causal', workers => 4, partition_by => '{pt}');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 0, partition_by => '{id}');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 4, partition_by => '{id}', operations => '{insert,truncate}');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'lucky');
DO $$
BEGIN
	PERFORM pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 100000, partition_by => '{id}');
EXCEPTION WHEN insufficient_resources THEN
	RAISE WARNING '% %', SQLSTATE, SQLERRM;
END $$;

-- the old row must say where the row was
CREATE TABLE pw_key (id int PRIMARY KEY, customer int NOT NULL);
SELECT pipeline.create_pipeline('pw', source => 'pw_key', consistency => 'causal', workers => 2, partition_by => '{customer}', operations => '{insert,update}');
SELECT pipeline.create_pipeline('pw', source => 'pw_key', consistency => 'causal', workers => 2, partition_by => '{id}', operations => '{insert,update,delete}');
SELECT pipeline.drop_pipeline('pw');

-- causal and eventual with one worker, and partition_by that does not matter
SELECT pipeline.create_pipeline('pw', source => 'pw_src', partition_by => '{customer}');
SELECT pipeline.partition_of('pw', '1');
SELECT pipeline.drop_pipeline('pw');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', partition_by => '{customer}');
SELECT pipeline.partition_of('pw', '17');
SELECT pipeline.drop_pipeline('pw');
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'eventual');
SELECT pipeline.partition_of('pw', '17');
SELECT pipeline.drop_pipeline('pw');

-- an upsert has the columns in its key, by name and hashed alike
SELECT pipeline.create_pipeline('pw', source => 'pw_src', consistency => 'causal', workers => 3, partition_by => '{customer}', operations => '{insert,update,delete}');
SELECT pipeline.add_output('pw', 'pw_other');
SELECT pipeline.add_output('pw', 'pw_wide');
SELECT pipeline.add_output('pw', 'pw_ups');
SELECT pipeline.add_output('pw', 'pw_out', mode => 'append');
SELECT pipeline, consistency, partition_by, workers FROM pipeline.pipelines WHERE pipeline = 'pw';
SELECT * FROM pipeline.partitions WHERE pipeline = 'pw';
SELECT pipeline.start('pw');
INSERT INTO pw_src SELECT i, i % 10, i FROM generate_series(1, 100) i;
UPDATE pw_src SET customer = customer + 1, v = v + 1000 WHERE id % 3 = 0;
UPDATE pw_src SET v = -v WHERE id % 4 = 0;
DELETE FROM pw_src WHERE id % 5 = 0;
SELECT pipeline.wait_for('pw');
SELECT count(*) FROM pw_src;
SELECT count(*) FROM ((TABLE pw_ups EXCEPT ALL SELECT customer, id, v FROM pw_src) UNION ALL (SELECT customer, id, v FROM pw_src EXCEPT ALL TABLE pw_ups)) d;
SELECT count(*) FROM pw_out;
SELECT * FROM pipeline.ledger('pw');
SELECT events, produced, filtered, rejected, failed FROM pipeline.status WHERE pipeline = 'pw';
SELECT partition, workers, checkpoint IS NOT NULL AS checkpoint, state, rows_per_second >= 0 AS rate FROM pipeline.partitions WHERE pipeline = 'pw' ORDER BY partition;
SELECT sum(events), count(*) FILTER (WHERE events > 0) FROM pipeline.partitions WHERE pipeline = 'pw';

-- each event was processed by the partition that partition_of names
SELECT l.outcome, count(*), count(*) FILTER (WHERE b.partition <> pipeline.partition_of('pw', l.output_key->>'customer')) AS elsewhere
FROM pipeline.lineage l JOIN pipeline.batches b USING (batch_id)
WHERE l.pipeline = 'pw' AND l.output = 'pw_ups' AND l.operation = 'insert' GROUP BY 1;

-- as a hash partition over the same column would have it
CREATE TABLE pw_hash (customer int) PARTITION BY HASH (customer);
SELECT count(*) FROM generate_series(0, 99) c WHERE NOT satisfies_hash_partition('pw_hash'::regclass, 3, pipeline.partition_of('pw', c::text) - 1, c);
SELECT pipeline.partition_of('pw', NULL);
SELECT pipeline.partition_of('pw', 'x');
SELECT pipeline.partition_of('nobody', '1');

-- a column that is renamed is followed
ALTER TABLE pw_src RENAME customer TO client;
SELECT partition_by FROM pipeline.pipelines WHERE pipeline = 'pw';
ALTER TABLE pw_src RENAME client TO customer;
INSERT INTO pw_src VALUES (1000, 7, 7);
SELECT pipeline.wait_for('pw');
SELECT * FROM pw_ups WHERE id = 1000;
SELECT pipeline.drop_pipeline('pw');

-- several columns, one of them null
CREATE TABLE pw_two (a text, b numeric, n int);
CREATE TABLE pw_two_out (a text, b numeric, n int);
SELECT pipeline.create_pipeline('pw2', source => 'pw_two', consistency => 'causal', workers => 4, partition_by => '{a,b}');
SELECT pipeline.add_output('pw2', 'pw_two_out');
SELECT pipeline.start('pw2');
INSERT INTO pw_two SELECT nullif('k' || i % 7, 'k0'), (i % 3)::numeric, i FROM generate_series(1, 50) i;
SELECT pipeline.wait_for('pw2');
SELECT count(*), sum(n) FROM pw_two_out;
SELECT pipeline.partition_of('pw2', '(k1,1.0)') = pipeline.partition_of('pw2', '(k1,1.00)') AS same,
	pipeline.partition_of('pw2', '(,2)') BETWEEN 1 AND 4 AS null_is_a_value,
	pipeline.partition_of('pw2', '("a, ""b\\",2)') BETWEEN 1 AND 4 AS quoted;
SELECT pipeline.partition_of('pw2', 'k1');
SELECT pipeline.partition_of('pw2', '(k1)');
SELECT pipeline.partition_of('pw2', '(k1,1,2)');
SELECT pipeline.drop_pipeline('pw2');

-- eventual without partition_by: any worker, unless an upsert has a key to go by
CREATE TABLE pw_evt_out (LIKE pw_out);
SELECT pipeline.create_pipeline('pw3', source => 'pw_src', consistency => 'eventual', workers => 4);
SELECT pipeline.add_output('pw3', 'pw_evt_out', mode => 'append');
SELECT pipeline.start('pw3');
INSERT INTO pw_src SELECT i, 1, i FROM generate_series(2001, 2040) i;
SELECT pipeline.wait_for('pw3');
SELECT count(*), count(DISTINCT id) FROM pw_evt_out;
SELECT count(*) > 1 AS several FROM pipeline.partitions WHERE pipeline = 'pw3' AND events > 0;
SELECT pipeline.partition_of('pw3', '1');
TRUNCATE pw_ups;
SELECT pipeline.add_output('pw3', 'pw_ups', mode => 'upsert');
SELECT pipeline.drop_pipeline('pw3');

SELECT pipeline.create_pipeline('pw4', source => 'pw_src', consistency => 'eventual', workers => 4, operations => '{insert,update,delete}');
SELECT pipeline.add_output('pw4', 'pw_ups');
SELECT partition_by FROM pipeline.pipelines WHERE pipeline = 'pw4';
SELECT pipeline.add_output('pw4', 'pw_other');
SELECT partition_by FROM pipeline.pipelines WHERE pipeline = 'pw4';
CREATE TABLE pw_none (total int PRIMARY KEY, v int);
CREATE FUNCTION pw_total(pw_src) RETURNS SETOF pw_none LANGUAGE sql IMMUTABLE AS 'SELECT $1.v, $1.v';
SELECT pipeline.add_output('pw4', 'pw_none', transform => 'pw_total(pw_src)');
SELECT pipeline.drop_pipeline('pw4');

-- a row whose key has another value than its event could be written by two workers
CREATE FUNCTION pw_shift(r pw_src) RETURNS SETOF pw_ups LANGUAGE sql IMMUTABLE AS 'SELECT r.customer + (r.id % 2), r.id, r.v';
SELECT pipeline.create_pipeline('pw5', source => 'pw_src', consistency => 'causal', workers => 2, partition_by => '{customer}', operations => '{insert,update,delete}');
SELECT pipeline.add_output('pw5', 'pw_ups', transform => 'pw_shift(pw_src)');
SELECT pipeline.start('pw5');
INSERT INTO pw_src VALUES (3000, 1, 1), (3001, 1, 1);
SELECT pipeline.wait_for('pw5');
SELECT * FROM pw_ups;
SELECT kind, sqlstate, reason, detail, event->>'id' AS id FROM pipeline.dead_letters WHERE pipeline = 'pw5';
SELECT pipeline.drop_pipeline('pw5');
-- behind a segment with several workers one takes what they hand over, for mode append
CREATE FUNCTION pw_same(r pw_src) RETURNS SETOF pw_src LANGUAGE sql IMMUTABLE AS 'SELECT r.*';
TRUNCATE pw_src, pw_out, pw_ups;
SELECT pipeline.create_pipeline('pw6', source => 'pw_src', consistency => 'causal', workers => 2, partition_by => '{customer}', operations => '{insert,update,delete}');
SELECT pipeline.add_stage('pw6', 'first', 'transform', 'pw_same(pw_src)');
SELECT pipeline.add_stage('pw6', 'second', 'transform', 'pw_same(pw_src)', isolate => true);
SELECT pipeline.add_output('pw6', 'pw_ups');
SELECT pipeline.add_output('pw6', 'pw_out', mode => 'append');
SELECT pipeline.start('pw6');
INSERT INTO pw_src SELECT i, i % 10, i FROM generate_series(1, 50) i;
UPDATE pw_src SET customer = customer + 1 WHERE id <= 10;
SELECT pipeline.wait_for('pw6');
SELECT count(*), count(DISTINCT id) FROM pw_out;
SELECT segment, partition, workers FROM pipeline.partitions WHERE pipeline = 'pw6' ORDER BY 1, 2;

-- another number of workers, under a running pipeline and a stopped one
SELECT pipeline.alter_pipeline('pw6', workers => 0);
SELECT pipeline.alter_pipeline('pw6', workers => 3);
INSERT INTO pw_src SELECT i, i % 10, i FROM generate_series(51, 100) i;
SELECT pipeline.wait_for('pw6');
SELECT segment, partition, workers FROM pipeline.partitions WHERE pipeline = 'pw6' ORDER BY 1, 2;
SELECT pipeline.stop('pw6');
SELECT pipeline.alter_pipeline('pw6', workers => 1);
INSERT INTO pw_src SELECT i, i % 10, i FROM generate_series(101, 150) i;
SELECT pipeline.start('pw6');
SELECT pipeline.wait_for('pw6');
SELECT count(*), count(DISTINCT id) FROM pw_out;
SELECT action, detail FROM pipeline.audit_log WHERE pipeline = 'pw6' AND action = 'alter_pipeline' ORDER BY id;
SELECT pipeline.drop_pipeline('pw6');

-- a column that is dropped or has another type stops the pipeline, with the way out
SELECT pipeline.create_pipeline('pw7', source => 'pw_src', consistency => 'causal', workers => 2, partition_by => '{customer}');
SELECT pipeline.add_output('pw7', 'pw_out', mode => 'append');
SELECT pipeline.start('pw7');
TRUNCATE pw_out;
ALTER TABLE pw_src ALTER customer TYPE bigint;
ALTER TABLE pw_out ALTER customer TYPE bigint;
INSERT INTO pw_src VALUES (4001, 1, 1), (4002, 2, 2), (4003, 3, 3);
CREATE PROCEDURE pw_wait(what text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		EXIT WHEN (SELECT state FROM pipeline.status WHERE pipeline = 'pw7') = what;
		PERFORM pipeline.wait_for('pw7', timeout => '50 ms');
		ROLLBACK;
	END LOOP;
END $$;
CALL pw_wait('failed');
SELECT DISTINCT last_error FROM pipeline.workers WHERE pipeline = 'pw7' AND state = 'failed';
ALTER TABLE pw_src ALTER customer TYPE int;
ALTER TABLE pw_out ALTER customer TYPE int;
SELECT pipeline.restart('pw7');
SELECT pipeline.wait_for('pw7');
SELECT * FROM pw_out ORDER BY id;
ALTER TABLE pw_src DROP customer;
INSERT INTO pw_src VALUES (4004, 1);
CALL pw_wait('failed');
SELECT DISTINCT last_error FROM pipeline.workers WHERE pipeline = 'pw7' AND state = 'failed';
SELECT pipeline.drop_pipeline('pw7');

-- workers of a stage: of one that begins a segment behind another one
CREATE TABLE pw_late (id int PRIMARY KEY, customer int, amount int);
CREATE TABLE pw_late_out (id int, customer int, amount int, place int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE pw_late_ups (id int PRIMARY KEY, customer int, amount int);
CREATE FUNCTION pw_keep(r pw_late) RETURNS SETOF pw_late LANGUAGE sql IMMUTABLE AS 'SELECT r.*';
CREATE FUNCTION pw_even(r pw_late) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF r.amount = 13 THEN
		RAISE 'thirteen';
	END IF;
	RETURN NULL;
END $$;
SELECT pipeline.create_pipeline('pw8', source => 'pw_late');
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)', isolate => true, workers => 2);
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)', partition_by => '{customer}');
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)');
SELECT pipeline.add_stage('pw8', 'second', 'transform', 'pw_keep(pw_late)', workers => 2);
SELECT pipeline.add_stage('pw8', 'second', 'transform', 'pw_keep(pw_late)', isolate => true, partition_by => '{}');
-- strong has one
SELECT pipeline.add_stage('pw8', 'second', 'transform', 'pw_keep(pw_late)', isolate => true, workers => 2);
SELECT pipeline.drop_pipeline('pw8');
SELECT pipeline.create_pipeline('pw8', source => 'pw_late', consistency => 'causal', workers => 2, partition_by => '{customer}');
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)');
SELECT pipeline.add_stage('pw8', 'second', 'validate', 'pw_even(pw_late)', isolate => true, workers => 2);
SELECT pipeline.add_stage('pw8', 'second', 'validate', 'pw_even(pw_late)', isolate => true, workers => 2, partition_by => '{nobody}');
SELECT pipeline.add_stage('pw8', 'second', 'validate', 'pw_even(pw_late)', isolate => true, workers => 2, partition_by => '{customer,customer}');
-- the events of one amount come from two workers
SELECT pipeline.add_stage('pw8', 'second', 'validate', 'pw_even(pw_late)', isolate => true, workers => 2, partition_by => '{amount}');
SELECT pipeline.add_stage('pw8', 'second', 'validate', 'pw_even(pw_late)', isolate => true, workers => 3, partition_by => '{amount,customer}');
SELECT pipeline.add_output('pw8', 'pw_late_ups', mode => 'upsert');
SELECT pipeline.add_output('pw8', 'pw_late_out');
SELECT stage, segment, workers, partition_by FROM pipeline.stages WHERE pipeline = 'pw8' ORDER BY position;
SELECT pipeline.start('pw8');
INSERT INTO pw_late SELECT i, i % 7, i FROM generate_series(1, 60) i;
SELECT pipeline.wait_for('pw8');
SELECT count(*), count(DISTINCT id) FROM pw_late_out;
SELECT segment, partition, workers FROM pipeline.partitions WHERE pipeline = 'pw8' ORDER BY 1, 2;
SELECT segment, sum(events) FROM pipeline.partitions WHERE pipeline = 'pw8' GROUP BY 1 ORDER BY 1;
SELECT pipeline.alter_stage('pw8', 'first', workers => 2);
SELECT pipeline.alter_stage('pw8', 'second', workers => 0);
SELECT pipeline.alter_stage('pw8', 'second', workers => 2);
INSERT INTO pw_late SELECT i, i % 7, i FROM generate_series(61, 100) i;
SELECT pipeline.wait_for('pw8');
SELECT segment, partition, workers FROM pipeline.partitions WHERE pipeline = 'pw8' ORDER BY 1, 2;
SELECT pipeline.alter_stage('pw8', 'second', workers => 4, on_error => 'dead_letter', new_name => 'check');
INSERT INTO pw_late SELECT i, i % 7, i FROM generate_series(101, 150) i;
SELECT pipeline.wait_for('pw8');
SELECT count(*), count(DISTINCT id) FROM pw_late_out;
SELECT stage, segment, workers, partition_by FROM pipeline.stages WHERE pipeline = 'pw8' ORDER BY position;
SELECT action, detail - 'timeout' FROM pipeline.audit_log WHERE pipeline = 'pw8' AND action = 'alter_stage' ORDER BY id;
-- a letter is run again by the partition that has it then
SELECT stage, segment, reason, event->>'id' AS id FROM pipeline.dead_letters WHERE pipeline = 'pw8';
CREATE OR REPLACE FUNCTION pw_even(r pw_late) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN NULL; END';
SELECT pipeline.redrive('pw8');
SELECT pipeline.wait_for('pw8');
SELECT count(*), count(DISTINCT id) FROM pw_late_out;
SELECT pipeline.drop_pipeline('pw8');
-- without partition_by
SELECT pipeline.create_pipeline('pw8', source => 'pw_late', consistency => 'eventual');
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)');
SELECT pipeline.add_stage('pw8', 'second', 'transform', 'pw_keep(pw_late)', isolate => true, workers => 2);
SELECT pipeline.add_output('pw8', 'pw_late_out');
SELECT pipeline.start('pw8');
TRUNCATE pw_late, pw_late_out;
INSERT INTO pw_late SELECT i, i % 7, i FROM generate_series(1, 60) i;
SELECT pipeline.wait_for('pw8');
SELECT count(*), count(DISTINCT id) FROM pw_late_out;
SELECT segment, partition, events BETWEEN 1 AND 59 AS some FROM pipeline.partitions WHERE pipeline = 'pw8' AND segment = 2 ORDER BY 1, 2;
SELECT pipeline.drop_pipeline('pw8');
-- what is shared out by a column keeps it
SELECT pipeline.create_pipeline('pw8', source => 'pw_late', consistency => 'causal');
SELECT pipeline.add_stage('pw8', 'first', 'transform', query => 'SELECT id, customer, amount FROM event');
SELECT pipeline.add_stage('pw8', 'second', 'transform', query => 'SELECT * FROM event', isolate => true, workers => 2, partition_by => '{customer}');
SELECT pipeline.add_output('pw8', 'pw_late_out');
SELECT pipeline.deploy_stage('pw8', 'first', query => 'SELECT id, customer::int2, amount FROM event');
SELECT pipeline.start('pw8');
SELECT pipeline.deploy_stage('pw8', 'first', query => 'SELECT id, customer, amount FROM event');
SELECT pipeline.deploy_stage('pw8', 'first', query => 'SELECT id, amount FROM event');
SELECT pipeline.drop_pipeline('pw8');
-- upserts behind several workers: who made a row must hear of what becomes of it
ALTER TABLE pw_late REPLICA IDENTITY FULL;
SELECT pipeline.create_pipeline('pw8', source => 'pw_late', consistency => 'eventual', workers => 2, operations => '{insert,update}', partition_by => '{customer}');
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)');
SELECT pipeline.add_stage('pw8', 'second', 'transform', 'pw_keep(pw_late)', isolate => true);
SELECT pipeline.add_output('pw8', 'pw_late_ups', mode => 'upsert');
SELECT pipeline.drop_pipeline('pw8');
SELECT pipeline.create_pipeline('pw8', source => 'pw_late', consistency => 'eventual', operations => '{insert,update,delete}');
SELECT pipeline.add_stage('pw8', 'first', 'transform', 'pw_keep(pw_late)');
SELECT pipeline.add_stage('pw8', 'second', 'transform', 'pw_keep(pw_late)', isolate => true, workers => 2);
SELECT pipeline.add_output('pw8', 'pw_late_ups', mode => 'upsert');
SELECT pipeline.add_output('pw8', 'pw_late_ups', mode => 'upsert', isolate => true);
SELECT pipeline.drop_pipeline('pw8');
DROP FUNCTION pw_keep, pw_even;
DROP TABLE pw_late, pw_late_out, pw_late_ups;
DROP PROCEDURE pw_wait;
DROP FUNCTION pw_shift, pw_total, pw_same;
DROP TABLE pw_src, pw_pt, pw_out, pw_ups, pw_other, pw_wide, pw_key, pw_two, pw_two_out, pw_evt_out, pw_none, pw_hash;
