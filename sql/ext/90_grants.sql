-- USAGE on schema pipeline is the gate: who has it may declare pipelines of
-- its own.  The functions check the caller, the views filter their rows.

REVOKE ALL ON SCHEMA pipeline FROM PUBLIC;
REVOKE ALL ON SCHEMA _pipeline FROM PUBLIC;
GRANT USAGE ON SCHEMA pipeline TO pipeline_reader, pipeline_operator, pipeline_admin;

-- Streams are made by those who get the right, and written by those who may INSERT.
GRANT USAGE ON FOREIGN SERVER pipeline TO pipeline_admin;

GRANT SELECT ON pipeline.pipelines TO PUBLIC;
GRANT SELECT ON pipeline.stages TO PUBLIC;
GRANT SELECT ON pipeline.stage_versions TO PUBLIC;
GRANT SELECT ON pipeline.outputs TO PUBLIC;
GRANT SELECT ON pipeline.status TO PUBLIC;
GRANT SELECT ON pipeline.workers TO PUBLIC;
GRANT SELECT ON pipeline.partitions TO PUBLIC;
GRANT SELECT ON pipeline.stage_stats TO PUBLIC;
GRANT SELECT ON pipeline.lineage TO PUBLIC;
GRANT SELECT ON pipeline.batches TO PUBLIC;
GRANT SELECT ON pipeline.dead_letters TO PUBLIC;
GRANT SELECT ON pipeline.schema_events TO PUBLIC;
GRANT SELECT ON pipeline.audit_log TO PUBLIC;

REVOKE ALL ON FUNCTION _pipeline.installed() FROM PUBLIC;

-- health() reads it as its caller, who cannot name it.
GRANT SELECT ON _pipeline.problems TO PUBLIC;
