-- witness.sql - what another output plugin read of the same WAL, beside mirror.log.
--
-- Differences between mirror.log and the slot "witness" of wal2json: a row where the
-- n-th change of all tables that have a log is not the same in both.

-- An update that leaves a large value as it is has it in the old row only; what comes
-- last in an object is what ->> finds.
CREATE TABLE mirror.witness AS
	SELECT n, change->>'table' AS name, change->>'action' AS action, (change->>'xid')::bigint AS xid,
		(SELECT json_object_agg(c->>'name', c->'value' ORDER BY prefer) FROM (
			SELECT 1 AS prefer, c FROM json_array_elements(change->'identity') c
			UNION ALL SELECT 2, c FROM json_array_elements(change->'columns') c) x) AS image
	  FROM (SELECT n, data::json AS change FROM pg_logical_slot_get_changes('witness', NULL, NULL, 'format-version', '2',
				'include-xids', 'true', 'include-transaction', 'false', 'include-types', 'false', 'add-tables', 'dml.*')
			WITH ORDINALITY w(lsn, xid, data, n)) y;
CREATE INDEX ON mirror.witness (name);

-- Leaves count as their root.
CREATE TABLE mirror.witness_of AS
	SELECT t.id AS mirror, t.relid AS source, l.relname
	  FROM mirror.tables t JOIN pg_class c ON c.oid = t.relid AND NOT c.relispartition
	  JOIN pg_class l ON l.oid = c.oid OR l.oid = ANY (t.leaves)
	 WHERE t.kind = 'log' AND t.dead IS NULL;

CREATE TABLE mirror.witness_log (n bigint, source oid, operation text, xid bigint, line text);

DO $$
DECLARE
	source oid;
BEGIN
	FOR source IN SELECT DISTINCT w.source FROM mirror.witness_of w LOOP
		EXECUTE format($f$
			INSERT INTO mirror.witness_log
			SELECT n, %s, CASE action WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' ELSE 'delete' END, xid, ROW(%s)::text
			  FROM mirror.witness
			 WHERE action IN ('I', 'U', 'D') AND name IN (SELECT relname FROM mirror.witness_of WHERE source = %s)$f$,
			source, (SELECT string_agg(format('image->>%L', attname), ', ' ORDER BY attnum) FROM pg_attribute
					  WHERE attrelid = source AND attnum > 0 AND NOT attisdropped AND attname !~ '^x_'), source);
	END LOOP;
END $$;

CREATE VIEW mirror.witness_differences AS
	WITH ours AS (
		SELECT row_number() OVER (ORDER BY commit_lsn, seq) AS n, t.relid AS source, operation, xid::text::bigint AS xid, line
		  FROM mirror.log l JOIN mirror.tables t ON t.id = l.mirror
		 WHERE operation <> 'copy' AND t.id IN (SELECT mirror FROM mirror.witness_of)),
	theirs AS (
		SELECT row_number() OVER (ORDER BY n) AS n, source, operation, xid, line FROM mirror.witness_log)
	SELECT n, o.source::regclass AS our_table, o.operation AS our_operation, o.xid AS our_xid, o.line AS our_line,
		t.source::regclass AS their_table, t.operation AS their_operation, t.xid AS their_xid, t.line AS their_line
	  FROM ours o FULL JOIN theirs t USING (n)
	 WHERE (o.source, o.operation, o.xid, o.line) IS DISTINCT FROM (t.source, t.operation, t.xid, t.line);
