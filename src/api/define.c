/*
 * define.c
 *		Declare pipelines, their stages and outputs, and drop them.
 *
 * Runs in the caller's backend.  Every call checks its arguments, opens the
 * definition under its exclusive lock, writes, and then has the whole chain
 * checked as it stands: what does not fit is an error that takes everything
 * back.  Definitions hold from the commit of the caller's transaction on.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "api/access.h"
#include "api/args.h"
#include "api/change.h"
#include "api/check.h"
#include "api/deploy.h"
#include "api/preflight.h"
#include "api/segments.h"
#include "api/upserts.h"
#include "api/workers.h"
#include "base/event.h"
#include "base/control.h"
#include "catalog/log.h"
#include "catalog/names.h"
#include "catalog/source.h"
#include "catalog/sql.h"
#include "catalog/version.h"

PPL_FUNCTION(pipeline_create_pipeline);
PPL_FUNCTION(pipeline_add_stage);
PPL_FUNCTION(pipeline_add_output);
PPL_FUNCTION(pipeline_drop_stage);
PPL_FUNCTION(pipeline_drop_output);
PPL_FUNCTION(pipeline_drop_pipeline);

static void add_first_version(const PplPipeline *pipeline, int stage_id,
							  char *name, char *handler, char *query);
static void check_stage_options(FunctionCallInfo fcinfo);
static char *output_mode(FunctionCallInfo fcinfo, const PplPipeline *pipeline);
static void check_unread(const PplPipeline *pipeline);

/*
 * pipeline.create_pipeline(name text, source regclass, operations text[],
 *		consistency text, partition_by text[], workers int, lineage text,
 *		on_schema_change text)
 */
Datum
pipeline_create_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	Oid			source = ppl_args_oid(fcinfo, 1, "source");
	char	   *consistency = ppl_args_text(fcinfo, 3, "consistency");
	int			workers = ppl_args_int(fcinfo, 5, "workers");
	char	   *lineage = ppl_args_text(fcinfo, 6, "lineage");
	char	   *policy = ppl_args_text(fcinfo, 7, "on_schema_change");
	PplPipeline pipeline = {0};
	PplSqlResult *rows;

	(void) ppl_preflight("pipeline.create_pipeline");

	ppl_change_check_name("pipeline", name);
	ppl_args_require(fcinfo, 2, "operations");
	pipeline.operations = ppl_change_operations(fcinfo, 2);
	ppl_change_check_consistency(consistency);
	ppl_change_check_lineage(lineage);
	ppl_change_check_policy(policy);
	ppl_change_check_positive("workers", workers);
	ppl_check_source(source, GetUserId());
	ppl_source_check(source, pipeline.operations, false, true);
	pipeline.source = source;
	pipeline.consistency = consistency;
	pipeline.partitioning.ordered = strcmp(consistency, "strong") == 0;
	pipeline.partitioning.workers = workers;
	pipeline.partitioning.columns = ppl_change_partition_by(fcinfo, 4);
	pipeline.partitioning.key = ppl_workers_declare(&pipeline);
	ppl_workers_check(&pipeline);

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_text(name),
			ppl_sql_arg(OIDOID, ObjectIdGetDatum(GetUserId())),
			ppl_sql_arg(OIDOID, ObjectIdGetDatum(source)),
			ppl_change_operations_arg(pipeline.operations),
			ppl_sql_arg_text(consistency),
			ppl_change_text_array(fcinfo, 4),
			ppl_sql_arg_int(workers),
			ppl_sql_arg_text(lineage),
			ppl_sql_arg_text(ppl_check_current_path()),
			ppl_sql_arg_text(policy),
			ppl_sql_arg_words(pipeline.partitioning.key),
		};

		rows = ppl_sql_run("INSERT INTO " PPL_PIPELINES
						   " (name, owner, source, operations, consistency,"
						   " partition_by, workers, lineage, search_path, on_schema_change,"
						   " partition_key)"
						   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
						   " ON CONFLICT (name) DO NOTHING"
						   " RETURNING pipeline_id",
						   lengthof(args), args);
	}
	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("pipeline \"%s\" already exists", name),
				 errhint("Choose another name, or SELECT pipeline.drop_pipeline(%s);",
						 quote_literal_cstr(name))));

	pipeline.pipeline_id = ppl_sql_int(rows, 0, 0);
	pipeline.name = name;
	ppl_access_audit(&pipeline, "create_pipeline", NULL);
	PG_RETURN_VOID();
}

/*
 * pipeline.add_stage(pipeline text, name text, kind text,
 *		handler regprocedure, query text, isolate bool, workers int,
 *		partition_by text[], on_error text, max_attempts int,
 *		timeout interval, settings jsonb)
 */
Datum
pipeline_add_stage(PG_FUNCTION_ARGS)
{
	char	   *pipeline_name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *name = ppl_args_text(fcinfo, 1, "name");
	char	   *kind = ppl_args_text(fcinfo, 2, "kind");
	char	   *handler;
	char	   *query = ppl_args_text_or_null(fcinfo, 4);
	bool		isolate = ppl_args_bool(fcinfo, 5, "isolate");
	int			segment;
	PplPipeline *pipeline;
	PplSqlResult *rows;

	PreventCommandIfReadOnly("pipeline.add_stage");
	ppl_change_check_name("stage", name);
	check_stage_options(fcinfo);
	handler = ppl_change_handler(fcinfo, 3);
	pipeline = ppl_access_open(pipeline_name, PPL_RIGHT_ALTER,
							   AccessExclusiveLock);
	ppl_check_same_path(pipeline);
	if (ppl_args_int(fcinfo, 6, "workers") > 1 || !PG_ARGISNULL(7))
		ppl_workers_check_stage(pipeline, name, isolate && pipeline->stages != NIL,
								pipeline->stages == NIL);
	segment = ppl_segments_of_stage(pipeline, isolate);
	ppl_access_bump_version(pipeline);

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(name),
			ppl_sql_arg_text(kind),
			ppl_sql_arg_text(handler),
			ppl_sql_arg_text(query),
			ppl_sql_arg_text(ppl_args_text(fcinfo, 8, "on_error")),
			ppl_sql_arg_int(ppl_args_int(fcinfo, 9, "max_attempts")),
			PG_ARGISNULL(10) ? ppl_sql_arg_null(INTERVALOID) :
			ppl_sql_arg(INTERVALOID, PG_GETARG_DATUM(10)),
			ppl_sql_arg_bool(isolate),
			ppl_sql_arg_int(segment),
			ppl_change_settings(fcinfo, 11),
			ppl_sql_arg_int(ppl_args_int(fcinfo, 6, "workers")),
			ppl_change_text_array(fcinfo, 7),
		};

		rows = ppl_sql_run("INSERT INTO " PPL_STAGES
						   " (pipeline_id, position, name, kind, handler, query,"
						   " isolate, segment, workers, on_error, max_attempts, timeout,"
						   " settings, partition_by)"
						   " SELECT $1, coalesce(max(position), 0) + 1, $2, $3, $4,"
						   " $5, $9, $10, $12, $6, $7, $8, nullif($11, '{}'), $13"
						   " FROM " PPL_STAGES " WHERE pipeline_id = $1"
						   " ON CONFLICT (pipeline_id, name) DO NOTHING"
						   " RETURNING stage_id",
						   lengthof(args), args);
	}
	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("stage \"%s\" of pipeline \"%s\" already exists", name,
						pipeline_name),
				 errhint("Choose another name, or SELECT pipeline.drop_stage(%s, %s);",
						 quote_literal_cstr(pipeline_name),
						 quote_literal_cstr(name))));
	add_first_version(pipeline, ppl_sql_int(rows, 0, 0), name, handler, query);
	ppl_access_audit(pipeline, "add_stage", "stage", name, "kind", kind,
					 "handler", handler, "query", query, NULL);
	ppl_change_finish(pipeline, true);
	if (handler != NULL)
		ppl_check_inlining(pipeline, handler);
	PG_RETURN_VOID();
}

static void
add_first_version(const PplPipeline *pipeline, int stage_id, char *name,
				  char *handler, char *query)
{
	PplStage	stage = {.stage_id = stage_id,.name = name,.handler = handler,
	.query = query,.version = 1};

	ppl_deploy_version(pipeline, &stage);
}

/* Check kind, isolate, workers, partition_by, on_error and the rest. */
static void
check_stage_options(FunctionCallInfo fcinfo)
{
	static const char *const kinds[] = {"validate", "enrich", "transform", "aggregate"};
	char	   *kind = ppl_args_text(fcinfo, 2, "kind");
	int			workers = ppl_args_int(fcinfo, 6, "workers");
	char	   *on_error = ppl_args_text(fcinfo, 8, "on_error");
	int			max_attempts = ppl_args_int(fcinfo, 9, "max_attempts");

	ppl_change_check_word("kind of stage", kind, lengthof(kinds), kinds);
	if (strcmp(kind, "aggregate") == 0)
		ppl_change_refuse_yet("kind", kind, "validate, enrich or transform");
	if (PG_ARGISNULL(3) == PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stage needs a handler or a query"),
				 errdetail(PG_ARGISNULL(3) ? "Neither is given." : "Both are given."),
				 errhint("Give handler => 'function(row type)' or query => 'SELECT ... FROM event'.")));
	ppl_change_check_positive("workers", workers);
	if (!PG_ARGISNULL(7) && ppl_args_text_array(fcinfo, 7, "partition_by") == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition_by must not be empty"),
				 errhint("Name columns of what the stage before returns, or leave partition_by out.")));
	ppl_change_check_on_error(on_error);
	ppl_change_check_positive("max_attempts", max_attempts);
	if (!PG_ARGISNULL(10))
		ppl_change_check_timeout(PG_GETARG_INTERVAL_P(10));
}

/*
 * pipeline.add_output(pipeline text, target regclass, name text,
 *		transform regprocedure, mode text, key text[], isolate bool)
 */
Datum
pipeline_add_output(PG_FUNCTION_ARGS)
{
	char	   *pipeline_name = ppl_args_text(fcinfo, 0, "pipeline");
	Oid			target = ppl_args_oid(fcinfo, 1, "target");
	char	   *target_name;
	char	   *name = ppl_args_text_or_null(fcinfo, 2);
	char	   *transform;
	char	   *mode;
	bool		isolate = ppl_args_bool(fcinfo, 6, "isolate");
	PplPipeline *pipeline;
	PplSqlResult *rows;

	PreventCommandIfReadOnly("pipeline.add_output");
	transform = ppl_change_handler(fcinfo, 3);
	pipeline = ppl_access_open(pipeline_name, PPL_RIGHT_ALTER,
							   AccessExclusiveLock);
	mode = output_mode(fcinfo, pipeline);
	if (transform != NULL)
		ppl_check_same_path(pipeline);
	ppl_definition_lock(0, ExclusiveLock);
	ppl_check_target(target, pipeline->owner, name);
	ppl_check_circle(pipeline, target);
	if (name == NULL)
		name = get_rel_name(target);
	ppl_change_check_name("output", name);
	target_name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(target)),
											 get_rel_name(target));
	ppl_access_bump_version(pipeline);

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(name),
			ppl_sql_arg(OIDOID, ObjectIdGetDatum(target)),
			ppl_sql_arg_text(transform),
			ppl_sql_arg_int(pipeline->version),
			ppl_sql_arg_text(target_name),
			ppl_sql_arg_text(mode),
			ppl_change_text_array(fcinfo, 5),
			ppl_sql_arg_bool(isolate),
			isolate ? ppl_sql_arg_int(ppl_segments_take_number(pipeline)) :
			ppl_sql_arg_null(INT4OID),
		};

		rows = ppl_sql_run("INSERT INTO " PPL_OUTPUTS
						   " (pipeline_id, name, target, transform, mode,"
						   " isolate, since, target_name, key, segment)"
						   " VALUES ($1, $2, $3, $4, $7, $9, $5, $6, $8, $10)"
						   " ON CONFLICT (pipeline_id, name) DO NOTHING"
						   " RETURNING output_id",
						   lengthof(args), args);
	}
	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("output \"%s\" of pipeline \"%s\" already exists", name,
						pipeline_name),
				 errhint("Give it another name with name => ..., or SELECT pipeline.drop_output(%s, %s);",
						 quote_literal_cstr(pipeline_name),
						 quote_literal_cstr(name))));
	ppl_access_audit(pipeline, "add_output", "output", name,
					 "target", target_name, "mode", mode,
					 "transform", transform, NULL);
	ppl_change_finish(pipeline, true);
	if (transform != NULL)
		ppl_check_inlining(pipeline, transform);
	PG_RETURN_VOID();
}

/*
 * The mode of a new output: upsert where rows of the source may change or go.
 */
static char *
output_mode(FunctionCallInfo fcinfo, const PplPipeline *pipeline)
{
	static const char *const modes[] = {"append", "upsert"};
	char	   *mode = ppl_args_text_or_null(fcinfo, 4);

	if (mode != NULL)
		ppl_change_check_word("mode", mode, lengthof(modes), modes);
	else if (pipeline->operations & (PPL_OP_UPDATE | PPL_OP_DELETE))
		mode = "upsert";
	else
		mode = "append";
	if (!PG_ARGISNULL(5) && strcmp(mode, "append") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an output of mode append has no key"),
				 errhint("Leave key out, or use mode => 'upsert'.")));
	if (!PG_ARGISNULL(5) && ppl_args_text_array(fcinfo, 5, "key") == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must not be empty"),
				 errhint("Leave key out to use the primary key of the target.")));
	return mode;
}

/*
 * pipeline.drop_stage(pipeline text, stage text)
 */
Datum
pipeline_drop_stage(PG_FUNCTION_ARGS)
{
	char	   *pipeline_name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *name = ppl_args_text(fcinfo, 1, "stage");
	PplPipeline *pipeline;
	PplSqlResult *rows;

	PreventCommandIfReadOnly("pipeline.drop_stage");
	pipeline = ppl_access_open(pipeline_name, PPL_RIGHT_ALTER,
							   AccessExclusiveLock);
	ppl_segments_join(pipeline, name);
	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(name),
		};

		rows =
			ppl_sql_run("WITH gone AS ("
						" DELETE FROM " PPL_STAGES
						" WHERE pipeline_id = $1 AND name = $2"
						" RETURNING stage_id),"
						" counts AS ("
						" DELETE FROM " PPL_STAGE_COUNTS
						" WHERE pipeline_id = $1"
						" AND stage_id IN (SELECT stage_id FROM gone))"
						" SELECT stage_id FROM gone",
						lengthof(args), args);

		if (rows->nrows == 0)
			ppl_change_refuse_unknown("stage", name, pipeline, "stages");
	}
	ppl_access_bump_version(pipeline);
	ppl_version_end(pipeline, ppl_sql_int(rows, 0, 0));
	ppl_access_audit(pipeline, "drop_stage", "stage", name, NULL);

	/* start checks; until then what is broken must be possible to take apart */
	ppl_change_finish(pipeline, pipeline->running);
	PG_RETURN_VOID();
}

/*
 * pipeline.drop_output(pipeline text, output text)
 */
Datum
pipeline_drop_output(PG_FUNCTION_ARGS)
{
	char	   *pipeline_name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *name = ppl_args_text(fcinfo, 1, "output");
	PplPipeline *pipeline;

	PreventCommandIfReadOnly("pipeline.drop_output");
	pipeline = ppl_access_open(pipeline_name, PPL_RIGHT_ALTER,
							   AccessExclusiveLock);
	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(name),
		};
		PplSqlResult *rows =
		ppl_sql_run("WITH gone AS ("
					" DELETE FROM " PPL_OUTPUTS
					" WHERE pipeline_id = $1 AND name = $2"
					" RETURNING output_id),"
					" counts AS ("
					" DELETE FROM " PPL_COUNTS
					" WHERE pipeline_id = $1"
					" AND output_id IN (SELECT output_id FROM gone)),"
					" kept AS ("
					" DELETE FROM " PPL_KEPT
					" WHERE output_id IN (SELECT output_id FROM gone))"
					" SELECT output_id FROM gone",
					lengthof(args), args);

		if (rows->nrows == 0)
			ppl_change_refuse_unknown("output", name, pipeline, "outputs");
	}
	if (pipeline->running && list_length(pipeline->outputs) == 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("output \"%s\" is the last one of pipeline \"%s\", which is started",
						name, pipeline_name),
				 errhint("SELECT pipeline.stop(%s); first, or add another output.",
						 quote_literal_cstr(pipeline_name))));
	ppl_access_bump_version(pipeline);
	ppl_access_audit(pipeline, "drop_output", "output", name, NULL);
	ppl_change_finish(pipeline, false);
	PG_RETURN_VOID();
}

/*
 * pipeline.drop_pipeline(name text, cascade bool)
 */
Datum
pipeline_drop_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	bool		cascade = ppl_args_bool(fcinfo, 1, "cascade");
	PplPipeline *pipeline;

	PreventCommandIfReadOnly("pipeline.drop_pipeline");
	pipeline = ppl_access_open(name, PPL_RIGHT_ALTER, AccessExclusiveLock);
	if (!cascade)
		check_unread(pipeline);
	{
		PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};

		(void) ppl_sql_run("WITH kept AS ("
						   " DELETE FROM " PPL_KEPT
						   " WHERE output_id IN (SELECT output_id FROM " PPL_OUTPUTS
						   "  WHERE pipeline_id = $1)),"
						   " schema AS ("
						   " DELETE FROM " PPL_SCHEMA_EVENTS
						   " WHERE pipeline_id = $1)"
						   " DELETE FROM " PPL_PIPELINES
						   " WHERE pipeline_id = $1",
						   lengthof(args), args);
	}
	ppl_logs_drop(pipeline, true);
	ppl_access_audit(pipeline, "drop_pipeline", NULL);
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
	ppl_access_tell(pipeline, PPL_CONTROL_DROP);
	PG_RETURN_VOID();
}

/* Error 2BP01 if another pipeline lives on what this one writes. */
static void
check_unread(const PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};
	PplSqlResult *rows =
	ppl_sql_run("SELECT string_agg(DISTINCT format('pipeline %I reads %s',"
				" p.name, o.target), '; ')"
				" FROM " PPL_OUTPUTS " o"
				" JOIN " PPL_PIPELINES " p ON p.pipeline_id <> $1"
				" AND (p.source = o.target OR p.source IN"
				"  (SELECT t.relid FROM pg_partition_tree(o.target) t) OR p.source IN"
				"  (SELECT a.relid FROM pg_partition_ancestors(o.target) a))"
				" WHERE o.pipeline_id = $1",
				lengthof(args), args);
	char	   *readers = ppl_sql_text(rows, 0, 0);

	if (readers != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop pipeline \"%s\" because others read its targets",
						pipeline->name),
				 errdetail("%s", readers),
				 errhint("SELECT pipeline.drop_pipeline(%s, cascade => true); the others stay, without these events.",
						 quote_literal_cstr(pipeline->name))));
}
