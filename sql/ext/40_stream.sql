-- Streams: foreign tables whose rows are events and are stored nowhere.

CREATE FUNCTION _pipeline.stream_handler()
RETURNS fdw_handler
AS 'MODULE_PATHNAME', 'pipeline_stream_handler'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION _pipeline.stream_handler() IS 'how the server works with streams';

CREATE FUNCTION _pipeline.stream_validator(options text[], catalog oid)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_stream_validator'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION _pipeline.stream_validator(text[], oid) IS 'refuse options: streams have none';

CREATE FOREIGN DATA WRAPPER pipeline
	HANDLER _pipeline.stream_handler
	VALIDATOR _pipeline.stream_validator;
COMMENT ON FOREIGN DATA WRAPPER pipeline IS 'streams of pipelines';

CREATE SERVER pipeline FOREIGN DATA WRAPPER pipeline;
COMMENT ON SERVER pipeline IS 'CREATE FOREIGN TABLE ... SERVER pipeline makes a stream';

CREATE FUNCTION pipeline.emit(stream regclass, "row" record)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_emit'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pipeline.emit(regclass, record) IS 'insert one row into a stream';
