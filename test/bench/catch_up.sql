-- catch_up.sql - what the pipeline :name needed, and whether its books balance.
INSERT INTO figures
SELECT :round, f.what, f.value
FROM (SELECT count(*) AS batches, avg(events) AS events,
		sum(octet_length(b.lineage)) / sum(b.events)::float8 AS lineage,
		sum(pg_column_size(b.lineage)) / sum(b.events)::float8 AS stored
	FROM _pipeline.batches b JOIN _pipeline.pipelines p USING (pipeline_id) WHERE p.name = :'name') x
	CROSS JOIN LATERAL (VALUES ('catch_up_batches', x.batches), ('catch_up_events', x.events),
		('lineage_bytes', x.lineage), ('lineage_stored', x.stored)) f (what, value);
SELECT 1 / bool_and(balanced AND rejected * 100 = events AND events = (SELECT count(*) FROM orders))::int
	AS "0 if the ledger is wrong" FROM pipeline.ledger(:'name') \g /dev/null
