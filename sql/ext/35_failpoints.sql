-- Test stops; they do something only in builds with FAILPOINTS=1.

CREATE FUNCTION _pipeline.failpoint_set(name text, action text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_failpoint_set'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION _pipeline.failpoint_set(text, text) IS 'for tests: have processes that come by a failpoint do one of off, wait, error, exit, crash, fail';
REVOKE ALL ON FUNCTION _pipeline.failpoint_set(text, text) FROM PUBLIC;

CREATE FUNCTION _pipeline.failpoint_wait(name text)
RETURNS void
AS 'MODULE_PATHNAME', 'pipeline_failpoint_wait'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION _pipeline.failpoint_wait(text) IS 'for tests: wait until a process stands at a failpoint';
REVOKE ALL ON FUNCTION _pipeline.failpoint_wait(text) FROM PUBLIC;
