-- What handlers see of an event beside its row.

CREATE TYPE pipeline.event AS (
	operation text,
	commit_lsn pg_lsn,
	seq int,
	xid xid,
	committed_at timestamptz,
	source regclass,
	old jsonb
);
COMMENT ON TYPE pipeline.event IS 'one change of a source, the second argument of a handler that takes it';
COMMENT ON COLUMN pipeline.event.operation IS 'insert, update or delete';
COMMENT ON COLUMN pipeline.event.commit_lsn IS 'where the transaction was committed; with seq the id of the event';
COMMENT ON COLUMN pipeline.event.seq IS 'place in its transaction';
COMMENT ON COLUMN pipeline.event.xid IS 'transaction that made the change';
COMMENT ON COLUMN pipeline.event.committed_at IS 'time in the commit record of that transaction';
COMMENT ON COLUMN pipeline.event.source IS 'table that was changed';
COMMENT ON COLUMN pipeline.event.old IS 'the row before an update or delete, the columns that the replica identity has; null for an insert';
