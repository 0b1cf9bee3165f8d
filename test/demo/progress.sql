-- progress.sql - one line, short of 80 columns, while the demo runs.
SELECT format('written %s, decided %s, rejected %s, alerts %s, behind %s ms',
	(SELECT last_value FROM pgbench_history_id_seq), events, rejected,
	(SELECT produced FROM pipeline.ledger('fraud') WHERE output = 'alerts'),
	round(1000 * extract(epoch FROM lag)))
FROM pipeline.status WHERE pipeline = 'fraud';
