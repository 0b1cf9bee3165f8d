-- progress.sql - one line while the demo runs.
SELECT format('written %s   decided %s   rejected %s   alerts %s   behind %s ms   (%s)',
	(SELECT last_value FROM pgbench_history_id_seq), events, rejected,
	(SELECT produced FROM pipeline.ledger('fraud') WHERE output = 'alerts'),
	round(1000 * extract(epoch FROM lag)), state)
FROM pipeline.status WHERE pipeline = 'fraud';
