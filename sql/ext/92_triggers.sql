-- Changes of sources tell the pipelines, in the transaction that makes them.

CREATE FUNCTION _pipeline.schema_changed()
RETURNS event_trigger
AS 'MODULE_PATHNAME', 'pipeline_schema_changed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION _pipeline.schema_changed() IS 'note which sources of pipelines this command has changed; never fails';
REVOKE ALL ON FUNCTION _pipeline.schema_changed() FROM PUBLIC;

CREATE EVENT TRIGGER pipeline_schema_changed ON ddl_command_end
	WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'ALTER TYPE', 'ALTER INDEX', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'ALTER SEQUENCE', 'CREATE SCHEMA', 'CREATE FOREIGN TABLE')
	EXECUTE FUNCTION _pipeline.schema_changed();
COMMENT ON EVENT TRIGGER pipeline_schema_changed IS 'pipelines hear of changes of their sources';
ALTER EVENT TRIGGER pipeline_schema_changed ENABLE ALWAYS;

CREATE EVENT TRIGGER pipeline_schema_dropped ON sql_drop
	EXECUTE FUNCTION _pipeline.schema_changed();
COMMENT ON EVENT TRIGGER pipeline_schema_dropped IS 'pipelines hear of what is dropped of their sources';
ALTER EVENT TRIGGER pipeline_schema_dropped ENABLE ALWAYS;
