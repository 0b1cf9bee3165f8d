-- replication.sql - built-in logical replication of the raw rows, to the second server
-- (conninfo :second).  Nothing is made of them there.
CREATE PUBLICATION w1 FOR TABLE orders;
SELECT pg_create_logical_replication_slot('w1', 'pgoutput');
SELECT format('host=%s port=%s dbname=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database())
	AS first \gset
-- Until all that is committed has been replayed.
CREATE PROCEDURE rival.finish() LANGUAGE plpgsql AS $$
DECLARE
	goal pg_lsn := pg_current_wal_insert_lsn();
BEGIN
	PERFORM pg_logical_emit_message(true, 'bench', 'wake up');
	COMMIT;
	WHILE NOT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'w1' AND replay_lsn >= goal) LOOP
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
\connect :second
CREATE SUBSCRIPTION w1 CONNECTION :'first' PUBLICATION w1 WITH (create_slot = false, slot_name = 'w1', copy_data = false);
