-- Functions for users, and those that the compiled statements call.

CREATE FUNCTION _pipeline.installed()
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_installed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION _pipeline.installed() IS 'tell the launcher at commit that this database has the extension';

CREATE FUNCTION pipeline.create_pipeline(
	name text,
	source regclass,
	operations text[] DEFAULT '{insert}',
	consistency text DEFAULT 'strong',
	partition_by text[] DEFAULT NULL,
	workers int DEFAULT 1,
	lineage text DEFAULT 'row',
	on_schema_change text DEFAULT 'adapt')
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_create_pipeline'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.create_pipeline(text, regclass, text[], text, text[], int, text, text) IS 'declare a pipeline; it is stopped';

CREATE FUNCTION pipeline.add_stage(
	pipeline text,
	name text,
	kind text,
	handler regprocedure DEFAULT NULL,
	query text DEFAULT NULL,
	isolate bool DEFAULT false,
	workers int DEFAULT 1,
	partition_by text[] DEFAULT NULL,
	on_error text DEFAULT 'dead_letter',
	max_attempts int DEFAULT 5,
	timeout interval DEFAULT NULL,
	settings jsonb DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_add_stage'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.add_stage(text, text, text, regprocedure, text, bool, int, text[], text, int, interval, jsonb) IS 'append a stage to a pipeline';

CREATE FUNCTION pipeline.deploy_stage(
	pipeline text,
	stage text,
	handler regprocedure DEFAULT NULL,
	query text DEFAULT NULL,
	version int DEFAULT NULL)
RETURNS int
AS 'MODULE_PATHNAME', 'pipeline_deploy_stage'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.deploy_stage(text, text, regprocedure, text, int) IS 'have a stage run another handler or query, or an earlier version, from the next batch on; returns the version';

CREATE FUNCTION pipeline.alter_stage(
	pipeline text,
	stage text,
	on_error text DEFAULT NULL,
	max_attempts int DEFAULT NULL,
	timeout interval DEFAULT NULL,
	settings jsonb DEFAULT NULL,
	new_name text DEFAULT NULL,
	workers int DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_alter_stage'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.alter_stage(text, text, text, int, interval, jsonb, text, int) IS 'change what was declared of a stage but its code; null changes nothing';

CREATE FUNCTION pipeline.alter_pipeline(
	name text,
	lineage text DEFAULT NULL,
	on_schema_change text DEFAULT NULL,
	search_path text DEFAULT NULL,
	settings jsonb DEFAULT NULL,
	new_name text DEFAULT NULL,
	workers int DEFAULT NULL,
	owner regrole DEFAULT NULL,
	operations text[] DEFAULT NULL,
	consistency text DEFAULT NULL,
	partition_by text[] DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_alter_pipeline'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.alter_pipeline(text, text, text, text, jsonb, text, int, regrole, text[], text, text[]) IS 'change what was declared of a pipeline; null changes nothing';

CREATE FUNCTION pipeline.add_output(
	pipeline text,
	target regclass,
	name text DEFAULT NULL,
	transform regprocedure DEFAULT NULL,
	mode text DEFAULT NULL,
	key text[] DEFAULT NULL,
	isolate bool DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_add_output'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.add_output(text, regclass, text, regprocedure, text, text[], bool) IS 'add an output to a pipeline';

CREATE FUNCTION pipeline.drop_stage(pipeline text, stage text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_drop_stage'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.drop_stage(text, text) IS 'remove a stage from a pipeline';

CREATE FUNCTION pipeline.drop_output(pipeline text, output text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_drop_output'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.drop_output(text, text) IS 'remove an output from a pipeline; its target stays as it is';

CREATE FUNCTION pipeline.drop_pipeline(name text, cascade bool DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_drop_pipeline'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.drop_pipeline(text, bool) IS 'remove a pipeline, its position, lineage and dead letters; its targets stay as they are';

CREATE FUNCTION pipeline.start(name text, skip_to_now bool DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_start'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.start(text, bool) IS 'have a pipeline run from its position on, the first time from now on';

CREATE FUNCTION pipeline.stop(name text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_stop'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.stop(text) IS 'end a pipeline after the batch under way; it keeps its position';

CREATE FUNCTION pipeline.restart(name text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_restart'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.restart(text) IS 'stop a pipeline and start it again at its position';

CREATE FUNCTION pipeline.wait_for(
	name text,
	lsn pg_lsn DEFAULT NULL,
	timeout interval DEFAULT '30 s')
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_wait_for'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.wait_for(text, pg_lsn, interval) IS 'wait until a pipeline has processed all that is committed up to a position, by default up to now';

CREATE FUNCTION pipeline.redrive(
	pipeline text,
	ids bigint[] DEFAULT NULL,
	stage text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'pipeline_redrive'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.redrive(text, bigint[], text) IS 'queue open dead letters to be run again; returns how many';

CREATE FUNCTION pipeline.discard(pipeline text, ids bigint[], why text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'pipeline_discard'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.discard(text, bigint[], text) IS 'give up on open dead letters; returns how many';

CREATE FUNCTION pipeline.accept_schema(pipeline text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_accept_schema'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.accept_schema(text) IS 'have a pipeline go on that is paused because its source was changed';

CREATE FUNCTION pipeline.explain(name text, segment int DEFAULT NULL)
RETURNS SETOF text
AS 'MODULE_PATHNAME', 'pipeline_explain'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION pipeline.explain(text, int) IS 'the statement that a pipeline compiles to, and its plan';

CREATE FUNCTION pipeline.ledger(
	name text,
	OUT output text,
	OUT events bigint,
	OUT produced bigint,
	OUT filtered bigint,
	OUT rejected bigint,
	OUT failed bigint,
	OUT balanced bool)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pipeline_ledger'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION pipeline.ledger(text) IS 'proof, an output a row, that every event ended as produced, filtered, rejected or failed';

CREATE FUNCTION pipeline.partition_of(pipeline text, key text)
RETURNS int
AS 'MODULE_PATHNAME', 'pipeline_partition_of'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.partition_of(text, text) IS 'the partition of events with these values in the columns of partition_by; several as a row, (a,b)';

CREATE FUNCTION _pipeline.partition_number(hash bigint, workers int)
RETURNS int
AS 'MODULE_PATHNAME', 'pipeline_partition_number'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION _pipeline.partition_number(bigint, int) IS 'the partition of a hash among so many';

CREATE FUNCTION pipeline.graph(name text DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'pipeline_graph'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.graph(text) IS 'a pipeline, or all that the caller may see, as a Mermaid flowchart';

-- Shared memory as rows, for the views.

CREATE FUNCTION _pipeline.consumers(
	OUT pipeline_id int,
	OUT segment int,
	OUT partition int,
	OUT state text,
	OUT pid int,
	OUT started_at timestamptz,
	OUT caught_up bool,
	OUT processed_lsn pg_lsn,
	OUT confirm_lsn pg_lsn,
	OUT retained_wal_bytes bigint,
	OUT batches bigint,
	OUT retries bigint,
	OUT last_event_at timestamptz,
	OUT latency_p50 interval,
	OUT latency_p99 interval,
	OUT last_error text,
	OUT last_error_at timestamptz,
	OUT since timestamptz,
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text,
	OUT backlog bool,
	OUT events_per_second float8,
	OUT barrier bool)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pipeline_consumers'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION _pipeline.consumers() IS 'workers and their positions in this database, from shared memory';

CREATE FUNCTION _pipeline.databases(
	OUT database oid,
	OUT state text,
	OUT pid int,
	OUT slot_lsn pg_lsn,
	OUT decoded_lsn pg_lsn,
	OUT confirmed_lsn pg_lsn,
	OUT wanted_lsn pg_lsn,
	OUT transactions bigint,
	OUT last_error text,
	OUT last_error_at timestamptz,
	OUT since timestamptz,
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'pipeline_databases'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION _pipeline.databases() IS 'databases and their capture processes, from shared memory';

CREATE FUNCTION _pipeline.launcher_pid()
RETURNS int
AS 'MODULE_PATHNAME', 'pipeline_launcher_pid'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION _pipeline.launcher_pid() IS 'the launcher of this server; null if there is none';

CREATE FUNCTION _pipeline.is_here(system_identifier bigint, database oid)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_is_here'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION _pipeline.is_here(bigint, oid) IS 'are these the identity of this cluster and of this database?';

-- Who may see what, called by the views as the reader.

CREATE FUNCTION _pipeline.may_see(owner oid)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_may_see'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION _pipeline.may_see(oid) IS 'may the current user see definitions and statistics of the pipelines of this owner?';

CREATE FUNCTION _pipeline.may_see_payload(owner oid)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_may_see_payload'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION _pipeline.may_see_payload(oid) IS 'may the current user see data that went through the pipelines of this owner?';

-- Notes that the compiled statement of a segment takes of each event.  They
-- stand in schema pipeline because the statement runs as the pipeline's owner.

CREATE FUNCTION pipeline._note_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'pipeline_note_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pipeline._note_support(internal) IS 'planner support: a note lets every row through';

CREATE FUNCTION pipeline._accept(ordinal int)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_accept'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._accept(int) IS 'used by compiled statements: this event is the current one';

CREATE FUNCTION pipeline._pass(ordinal int, stage int, valid bool)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_pass_bool'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._pass(int, int, bool) IS 'used by compiled statements: verdict of a validation';

CREATE FUNCTION pipeline._pass(ordinal int, stage int, reason text)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_pass_text'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._pass(int, int, text) IS 'used by compiled statements: verdict of a validation, null is valid';

CREATE FUNCTION pipeline._reach(ordinal int, stage int)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_reach'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._reach(int, int) IS 'used by compiled statements: a row came out of a stage';

CREATE FUNCTION pipeline._mark(ordinal int, output int)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_mark'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._mark(int, int) IS 'used by compiled statements: the next row inserted into this output comes from this event';

CREATE FUNCTION pipeline._mark(ordinal int, output int, key "any")
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_mark'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._mark(int, int, "any") IS 'used by compiled statements: the next row removed from this output goes because of this event';

CREATE FUNCTION pipeline._write(ordinal int, output int, key bigint)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_write'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._write(int, int, bigint) IS 'used by compiled statements: as _mark, and nobody takes that row for an event';

CREATE FUNCTION pipeline._write(ordinal int, output int, key bigint, target_key "any")
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_write'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._write(int, int, bigint, "any") IS 'used by compiled statements: as _mark, and nobody takes the removal for an event';

CREATE FUNCTION pipeline._put(ordinal int, output int, "row" record)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_put'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1;
COMMENT ON FUNCTION pipeline._put(int, int, record) IS 'used by compiled statements: this row of an event is for an output of mode upsert';

CREATE FUNCTION pipeline._hand(ordinal int, "row" record)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_hand'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1;
COMMENT ON FUNCTION pipeline._hand(int, record) IS 'used by compiled statements: this row of an event is for the segments behind this one';

CREATE FUNCTION pipeline._removed(output int, VARIADIC key "any")
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_removed'
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1;
COMMENT ON FUNCTION pipeline._removed(int, "any") IS 'used by compiled statements: a row with this key was removed from an output';

CREATE FUNCTION pipeline._wants(ordinal int, output int)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_wants'
LANGUAGE C STABLE PARALLEL UNSAFE COST 0.0001 SUPPORT pipeline._note_support;
COMMENT ON FUNCTION pipeline._wants(int, int) IS 'used by compiled statements: does this output take this event?';

CREATE FUNCTION pipeline._produced(output int)
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_produced'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline._produced(int) IS 'used by compiled statements: a row was inserted into an output without a key';

CREATE FUNCTION pipeline._produced(output int, VARIADIC key "any")
RETURNS bool
AS 'MODULE_PATHNAME', 'pipeline_produced'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline._produced(int, "any") IS 'used by compiled statements: a row with this key was inserted into an output';

CREATE FUNCTION pipeline._event(ordinal int)
RETURNS pipeline.event
AS 'MODULE_PATHNAME', 'pipeline_event'
LANGUAGE C STABLE PARALLEL UNSAFE COST 1;
COMMENT ON FUNCTION pipeline._event(int) IS 'used by compiled statements: what a handler sees of an event beside its row';
