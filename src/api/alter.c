/*
 * alter.c
 *		Change what was said of pipelines and stages when they were declared.
 *
 * Runs in the caller's backend, under the exclusive lock of the definition.  An
 * argument that is null changes nothing.  What is changed holds from the next batch
 * on, also for events that were committed before; but operations, and who has which
 * events, from the commit on.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "api/access.h"
#include "api/args.h"
#include "api/change.h"
#include "api/check.h"
#include "api/workers.h"
#include "catalog/names.h"
#include "catalog/source.h"
#include "catalog/sql.h"

PPL_FUNCTION(pipeline_alter_stage);
PPL_FUNCTION(pipeline_alter_pipeline);

static void require_change(FunctionCallInfo fcinfo, int first);
static void check_stage_changes(FunctionCallInfo fcinfo);
static void alter_declared_stage(FunctionCallInfo fcinfo, PplPipeline *pipeline,
								 char *name);
static bool is_no_timeout(FunctionCallInfo fcinfo, int argno);
static void rename_stage(const PplPipeline *pipeline, const char *name,
						 char *new_name);
static char *settings_text(FunctionCallInfo fcinfo, int argno);
static void alter_owner(PplPipeline *pipeline, Oid owner);
static void alter_operations(PplPipeline *pipeline, uint16 operations);
static void refuse_stale_upserts(const PplPipeline *pipeline,
								 uint16 operations);
static void alter_sharing(FunctionCallInfo fcinfo, PplPipeline *pipeline);
static void alter_declared(FunctionCallInfo fcinfo, PplPipeline *pipeline);
static char *path_arg(FunctionCallInfo fcinfo, int argno);
static void rename_pipeline(const PplPipeline *pipeline, char *new_name);

/*
 * pipeline.alter_stage(pipeline text, stage text, on_error text,
 *		max_attempts int, timeout interval, settings jsonb, new_name text,
 *		workers int)
 */
Datum
pipeline_alter_stage(PG_FUNCTION_ARGS)
{
	char	   *pipeline_name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *name = ppl_args_text(fcinfo, 1, "stage");
	PplPipeline *pipeline;
	bool		others = false;

	PreventCommandIfReadOnly("pipeline.alter_stage");
	require_change(fcinfo, 2);
	check_stage_changes(fcinfo);
	for (int i = 2; i < 7; i++)
		others |= !PG_ARGISNULL(i);
	pipeline = ppl_access_open(pipeline_name, PPL_RIGHT_ALTER,
							   AccessExclusiveLock);
	(void) ppl_change_find_stage(pipeline, name);
	if (!PG_ARGISNULL(7))
		ppl_repartition_stage(pipeline, name, PG_GETARG_INT32(7));
	if (others)
		alter_declared_stage(fcinfo, pipeline, name);
	PG_RETURN_VOID();
}

/* All but the number of workers. */
static void
alter_declared_stage(FunctionCallInfo fcinfo, PplPipeline *pipeline, char *name)
{
	char	   *on_error = ppl_args_text_or_null(fcinfo, 2);
	char	   *new_name = ppl_args_text_or_null(fcinfo, 6);
	PplSqlArg	settings = ppl_change_settings(fcinfo, 5);

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(name),
			ppl_sql_arg_text(on_error),
			PG_ARGISNULL(3) ? ppl_sql_arg_null(INT4OID) :
			ppl_sql_arg_int(PG_GETARG_INT32(3)),
			PG_ARGISNULL(4) ? ppl_sql_arg_null(INTERVALOID) :
			ppl_sql_arg(INTERVALOID, PG_GETARG_DATUM(4)),
			settings,
		};

		(void) ppl_sql_run("UPDATE " PPL_STAGES " SET"
						   " on_error = coalesce($3, on_error),"
						   " max_attempts = coalesce($4, max_attempts),"
						   " timeout = nullif(coalesce($5, timeout), interval '0'),"
						   " settings = nullif(coalesce($6, settings), '{}')"
						   " WHERE pipeline_id = $1 AND name = $2",
						   lengthof(args), args);
	}
	if (new_name != NULL)
		rename_stage(pipeline, name, new_name);
	ppl_access_bump_version(pipeline);
	ppl_access_audit(pipeline, "alter_stage", "stage", name,
					 "on_error", on_error,
					 "max_attempts", PG_ARGISNULL(3) ? NULL :
					 psprintf("%d", PG_GETARG_INT32(3)),
					 "timeout", PG_ARGISNULL(4) ? NULL :
					 DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(4))),
					 "settings", settings_text(fcinfo, 5),
					 "new_name", new_name, NULL);
	ppl_change_finish(pipeline, false);
}

/* Error 22023 if all arguments from this one on are null. */
static void
require_change(FunctionCallInfo fcinfo, int first)
{
	for (int i = first; i < PG_NARGS(); i++)
	{
		if (!PG_ARGISNULL(i))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("nothing is to be changed"),
			 errhint("Name what shall be changed, as in settings => '{\"batch_rows\": 1000}'.")));
}

static void
check_stage_changes(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(2))
		ppl_change_check_on_error(ppl_args_text(fcinfo, 2, "on_error"));
	if (!PG_ARGISNULL(3))
		ppl_change_check_positive("max_attempts", PG_GETARG_INT32(3));
	if (!PG_ARGISNULL(4) && !is_no_timeout(fcinfo, 4))
		ppl_change_check_timeout(PG_GETARG_INTERVAL_P(4));
	if (!PG_ARGISNULL(6))
		ppl_change_check_name("stage", ppl_args_text(fcinfo, 6, "new_name"));
}

/* Interval '0' takes a timeout away. */
static bool
is_no_timeout(FunctionCallInfo fcinfo, int argno)
{
	const Interval *timeout = PG_GETARG_INTERVAL_P(argno);

	return timeout->time == 0 && timeout->day == 0 && timeout->month == 0;
}

/* Dead letters and versions of a stage go by its name of today. */
static void
rename_stage(const PplPipeline *pipeline, const char *name, char *new_name)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(ppl_change_find_stage(pipeline, name)->stage_id),
		ppl_sql_arg_text(new_name),
	};
	PplSqlResult *rows = ppl_sql_run("UPDATE " PPL_STAGES " s SET name = $3"
									 " WHERE stage_id = $2 AND NOT EXISTS ("
									 "  SELECT FROM " PPL_STAGES " o WHERE o.pipeline_id = $1"
									 "  AND o.name = $3 AND o.stage_id <> $2)",
									 lengthof(args), args);

	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("stage \"%s\" of pipeline \"%s\" already exists", new_name,
						pipeline->name),
				 errhint("Choose another name.")));
	(void) ppl_sql_run("WITH letters AS (UPDATE " PPL_DEAD_LETTERS " SET stage = $3"
					   "  WHERE pipeline_id = $1 AND stage_id = $2)"
					   " UPDATE " PPL_STAGE_VERSIONS " SET stage = $3"
					   " WHERE pipeline_id = $1 AND stage_id = $2",
					   lengthof(args), args);
}

static char *
settings_text(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return DatumGetCString(DirectFunctionCall1(jsonb_out, PG_GETARG_DATUM(argno)));
}

/*
 * pipeline.alter_pipeline(name text, lineage text, on_schema_change text,
 *		search_path text, settings jsonb, new_name text, workers int,
 *		owner regrole, operations text[], consistency text, partition_by text[])
 */
Datum
pipeline_alter_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	PplPipeline *pipeline;
	bool		others = false;

	PreventCommandIfReadOnly("pipeline.alter_pipeline");
	require_change(fcinfo, 1);
	for (int i = 1; i < 6; i++)
		others |= !PG_ARGISNULL(i);
	pipeline = ppl_access_open(name, PPL_RIGHT_ALTER, AccessExclusiveLock);
	if (!PG_ARGISNULL(7))
		alter_owner(pipeline, PG_GETARG_OID(7));
	if (!PG_ARGISNULL(8))
		alter_operations(pipeline, ppl_change_operations(fcinfo, 8));
	if (!PG_ARGISNULL(9) || !PG_ARGISNULL(10))
		alter_sharing(fcinfo, pipeline);
	else if (!PG_ARGISNULL(6))
		ppl_repartition(pipeline, PG_GETARG_INT32(6));
	if (others)
		alter_declared(fcinfo, pipeline);
	PG_RETURN_VOID();
}

/*
 * Another owner, as in ALTER ... OWNER: the current user has his rights, and he has all
 * that the pipeline needs.
 */
static void
alter_owner(PplPipeline *pipeline, Oid owner)
{
	char	   *name = GetUserNameFromId(owner, false);
	char	   *before = GetUserNameFromId(pipeline->owner, true);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(owner)),
	};
	ListCell   *lc;

	if (!is_member_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be member of role \"%s\"", name),
				 errdetail("Who gives a pipeline to a role has its code run with the rights of that."),
				 errhint("GRANT %s TO %s;", quote_identifier(name),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	if (owner == pipeline->owner)
		return;
	ppl_check_owner(owner);
	ppl_check_source(pipeline->source, owner);
	foreach(lc, pipeline->outputs)
	{
		const PplOutput *output = lfirst(lc);

		ppl_check_target(output->target, owner, output->name);
	}
	(void) ppl_sql_run("UPDATE " PPL_PIPELINES " SET owner = $2"
					   " WHERE pipeline_id = $1",
					   lengthof(args), args);
	ppl_access_bump_version(pipeline);
	ppl_access_audit(pipeline, "alter_pipeline", "owner", name,
					 "before", before, NULL);
	ppl_change_finish(pipeline, true);
}

/*
 * Other operations, of what is committed after this transaction.  Workers that have not
 * come there find in former_operations what held before.
 */
static void
alter_operations(PplPipeline *pipeline, uint16 operations)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_change_operations_arg(operations),
		ppl_sql_arg_int(pipeline->operations),
		ppl_sql_arg_bool(pipeline->born),
	};
	PplSqlResult *rows;

	if (operations == pipeline->operations)
		return;
	refuse_stale_upserts(pipeline, operations);
	ppl_source_check(pipeline->source, operations, false, true);
	ppl_access_bump_version(pipeline);
	rows = ppl_sql_run("UPDATE " PPL_PIPELINES " p SET operations = $2,"
					   " former_operations = CASE WHEN $4"
					   "  THEN p.former_operations || ARRAY[p.version, $3]"
					   "  ELSE p.former_operations END"
					   " FROM " PPL_PIPELINES " b"
					   " WHERE p.pipeline_id = $1 AND b.pipeline_id = $1"
					   " RETURNING p.operations::text, b.operations::text",
					   lengthof(args), args);
	ppl_access_audit(pipeline, "alter_pipeline",
					 "operations", ppl_sql_text(rows, 0, 0),
					 "before", ppl_sql_text(rows, 0, 1), NULL);
	ppl_change_finish(pipeline, true);
}

/*
 * An upsert output equals what the stages make of the rows of the source, as far as the
 * pipeline hears of them.  What it does not hear of any more would stay in the output
 * as it is.
 */
static void
refuse_stale_upserts(const PplPipeline *pipeline, uint16 operations)
{
	ListCell   *lc;

	if (!pipeline->born || (pipeline->operations & ~operations) == 0)
		return;
	foreach(lc, pipeline->outputs)
	{
		const PplOutput *output = lfirst(lc);

		if (output->upsert)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("output \"%s\" of mode upsert would not follow its source any more",
							output->name),
					 errdetail("The pipeline was started, and with fewer operations rows in the output would stay that the source has no more, or has with other values."),
					 errhint("SELECT pipeline.drop_output(%s, %s); first.",
							 quote_literal_cstr(pipeline->name),
							 quote_literal_cstr(output->name))));
	}
}

/* consistency, partition_by and maybe the number of workers, which go together. */
static void
alter_sharing(FunctionCallInfo fcinfo, PplPipeline *pipeline)
{
	char	   *consistency = ppl_args_text_or_null(fcinfo, 9);
	int			workers = PG_ARGISNULL(6) ? pipeline->partitioning.workers :
	PG_GETARG_INT32(6);

	if (consistency != NULL)
		ppl_change_check_consistency(consistency);
	ppl_change_check_positive("workers", workers);
	ppl_repartition_anew(pipeline, consistency, ppl_change_partition_by(fcinfo, 10),
						 workers);
	ppl_repartition(pipeline, workers);
}

/* All but the owner, the operations, and who has which events. */
static void
alter_declared(FunctionCallInfo fcinfo, PplPipeline *pipeline)
{
	char	   *lineage = ppl_args_text_or_null(fcinfo, 1);
	char	   *policy = ppl_args_text_or_null(fcinfo, 2);
	char	   *path = path_arg(fcinfo, 3);
	PplSqlArg	settings = ppl_change_settings(fcinfo, 4);
	char	   *new_name = ppl_args_text_or_null(fcinfo, 5);

	if (lineage != NULL)
		ppl_change_check_lineage(lineage);
	if (policy != NULL)
		ppl_change_check_policy(policy);
	if (new_name != NULL)
		ppl_change_check_name("pipeline", new_name);
	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(lineage),
			ppl_sql_arg_text(policy),
			ppl_sql_arg_text(path),
			settings,
		};

		(void) ppl_sql_run("UPDATE " PPL_PIPELINES " SET"
						   " lineage = coalesce($2, lineage),"
						   " on_schema_change = coalesce($3, on_schema_change),"
						   " search_path = coalesce($4, search_path),"
						   " settings = nullif(coalesce($5, settings), '{}')"
						   " WHERE pipeline_id = $1",
						   lengthof(args), args);
	}
	if (new_name != NULL)
		rename_pipeline(pipeline, new_name);
	ppl_access_bump_version(pipeline);
	ppl_access_audit(pipeline, "alter_pipeline", "lineage", lineage,
					 "on_schema_change", policy, "search_path", path,
					 "settings", settings_text(fcinfo, 4),
					 "new_name", new_name, NULL);
	ppl_change_finish(pipeline, path != NULL);
}

/*
 * A list of schemas as it is stored: all of them exist, none is temporary.  Errors:
 * 22023 if it is no list, 3F000 if there is no such schema.
 */
static char *
path_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *text = ppl_args_text_or_null(fcinfo, argno);
	List	   *names;
	ListCell   *lc;
	StringInfoData path;

	if (text == NULL)
		return NULL;
	if (!SplitIdentifierString(pstrdup(text), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid search_path \"%s\"", text),
				 errhint("Give the names of schemas as in SET search_path, separated by commas.")));
	initStringInfo(&path);
	foreach(lc, names)
	{
		if (isAnyTempNamespace(get_namespace_oid(lfirst(lc), false)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("search_path of a pipeline cannot have temporary schemas")));
		appendStringInfo(&path, "%s%s", path.len > 0 ? ", " : "",
						 quote_identifier(lfirst(lc)));
	}
	return path.data;
}

static void
rename_pipeline(const PplPipeline *pipeline, char *new_name)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_text(new_name),
	};
	PplSqlResult *rows = ppl_sql_run("UPDATE " PPL_PIPELINES " SET name = $2"
									 " WHERE pipeline_id = $1 AND NOT EXISTS ("
									 "  SELECT FROM " PPL_PIPELINES " o"
									 "  WHERE o.name = $2 AND o.pipeline_id <> $1)",
									 lengthof(args), args);

	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("pipeline \"%s\" already exists", new_name),
				 errhint("Choose another name.")));
}
