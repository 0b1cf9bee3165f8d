/*
 * deploy.c
 *		pipeline.deploy_stage(): another version of a stage.
 *
 * Runs in the caller's backend, under the exclusive lock of the definition, which
 * waits for the batch under way; from the caller's commit on batches run the new
 * version, also over events that were committed before.
 */
#include "postgres.h"
#include "base/compat.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/access.h"
#include "api/args.h"
#include "api/change.h"
#include "api/check.h"
#include "api/deploy.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "catalog/version.h"

PPL_FUNCTION(pipeline_deploy_stage);

static void check_choice(FunctionCallInfo fcinfo);
static bool go_back(const PplPipeline *pipeline, PplStage *stage, int version);
static void refuse_version(const PplPipeline *pipeline, const PplStage *stage,
						   int version) pg_attribute_noreturn();
static void check_body(const PplPipeline *pipeline, const PplStage *stage,
					   int version, const PplSqlResult *row);
static void gone_callback(void *arg);

/* What is said of a version whose function is not what it was. */
typedef struct Lost
{
	const char *stage;
	int			version;
	const char *definition;
}			Lost;

/*
 * pipeline.deploy_stage(pipeline text, stage text, handler regprocedure,
 *		query text, version int)
 */
Datum
pipeline_deploy_stage(PG_FUNCTION_ARGS)
{
	char	   *pipeline_name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *name = ppl_args_text(fcinfo, 1, "stage");
	char	   *handler;
	PplPipeline *pipeline;
	PplStage   *stage;

	PreventCommandIfReadOnly("pipeline.deploy_stage");
	check_choice(fcinfo);
	handler = ppl_change_handler(fcinfo, 2);
	pipeline = ppl_access_open(pipeline_name, PPL_RIGHT_ALTER,
							   AccessExclusiveLock);
	stage = ppl_change_find_stage(pipeline, name);
	if (!PG_ARGISNULL(4))
	{
		if (!go_back(pipeline, stage, PG_GETARG_INT32(4)))
			PG_RETURN_INT32(stage->version);
	}
	else
	{
		ppl_check_same_path(pipeline);
		stage->handler = handler;
		stage->query = ppl_args_text_or_null(fcinfo, 3);
		stage->version = ppl_version_next(pipeline, stage->stage_id);
	}
	ppl_access_bump_version(pipeline);
	ppl_deploy_version(pipeline, stage);
	ppl_access_audit(pipeline, "deploy_stage", "stage", name,
					 "version", psprintf("%d", stage->version),
					 "handler", stage->handler, "query", stage->query, NULL);
	ppl_change_finish(pipeline, true);
	if (handler != NULL)
		ppl_check_inlining(pipeline, handler);
	PG_RETURN_INT32(stage->version);
}

/*
 * Put a stage in force as it is given, by the current user.  The definition has a
 * new version already.
 */
void
ppl_deploy_version(const PplPipeline *pipeline, const PplStage *stage)
{
	ppl_version_add(pipeline, stage,
					ppl_version_body(pipeline, stage->handler, stage->query),
					GetUserNameFromId(GetUserId(), false));
}

/* Just one of handler, query and version must be given. */
static void
check_choice(FunctionCallInfo fcinfo)
{
	int			given = !PG_ARGISNULL(2) + !PG_ARGISNULL(3) + !PG_ARGISNULL(4);

	if (given != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a deployment needs a handler, a query or a version"),
				 errdetail(given == 0 ? "None of them is given." :
						   "More than one of them is given."),
				 errhint("Give handler => 'function(row type)', query => 'SELECT ... FROM event', or version => 1 to go back to that one.")));
}

/*
 * Make of *stage what it was in an earlier version.  False if that is in force.
 */
static bool
go_back(const PplPipeline *pipeline, PplStage *stage, int version)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(stage->stage_id),
		ppl_sql_arg_int(version),
	};
	PplSqlResult *row = ppl_sql_run("SELECT handler, query, body_md5, definition"
									" FROM " PPL_STAGE_VERSIONS
									" WHERE pipeline_id = $1 AND stage_id = $2"
									" AND version = $3 ORDER BY since DESC LIMIT 1",
									lengthof(args), args);

	if (row->nrows == 0)
		refuse_version(pipeline, stage, version);
	check_body(pipeline, stage, version, row);
	if (version == stage->version)
	{
		ereport(NOTICE,
				(errmsg("version %d of stage \"%s\" is in force already",
						version, stage->name)));
		return false;
	}
	stage->handler = ppl_sql_text(row, 0, 0);
	stage->query = ppl_sql_text(row, 0, 1);
	stage->version = version;
	return true;
}

static void
refuse_version(const PplPipeline *pipeline, const PplStage *stage, int version)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(stage->stage_id),
	};
	PplSqlResult *rows = ppl_sql_run("SELECT string_agg(DISTINCT version::text, ', '"
									 " ORDER BY version::text)"
									 " FROM " PPL_STAGE_VERSIONS
									 " WHERE pipeline_id = $1 AND stage_id = $2",
									 lengthof(args), args);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("version %d of stage \"%s\" of pipeline \"%s\" does not exist",
					version, stage->name, pipeline->name),
			 errdetail("There are versions %s.", ppl_sql_text(rows, 0, 0)),
			 errhint("SELECT * FROM pipeline.stage_versions WHERE pipeline = %s AND stage = %s;",
					 quote_literal_cstr(pipeline->name),
					 quote_literal_cstr(stage->name))));
}

static void
refuse_body(const Lost * lost)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("version %d of stage \"%s\" cannot be put in force again, as its function was replaced since",
					lost->version, lost->stage),
			 errdetail("It was: %s", lost->definition),
			 errhint("Create that function again, under its own or another name, and deploy it as a new version.")));
}

/*
 * Error 55000 if the function of a version is not what it was.
 */
static void
check_body(const PplPipeline *pipeline, const PplStage *stage, int version,
		   const PplSqlResult *row)
{
	char	   *handler = ppl_sql_text(row, 0, 0);
	ErrorContextCallback callback;
	PplBody    *body;
	Lost		lost;

	if (handler == NULL)
		return;
	lost.stage = stage->name;
	lost.version = version;
	lost.definition = ppl_sql_text(row, 0, 3);
	callback.callback = gone_callback;
	callback.arg = &lost;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	body = ppl_version_body(pipeline, handler, NULL);
	error_context_stack = callback.previous;
	if (strcmp(body->md5, ppl_sql_text(row, 0, 2)) != 0)
		refuse_body(&lost);
}

/* There is no such function any more. */
static void
gone_callback(void *arg)
{
	const		Lost *lost = arg;

	if (geterrcode() != ERRCODE_UNDEFINED_FUNCTION)
		return;
	errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	errdetail("Version %d of stage \"%s\" was: %s", lost->version, lost->stage,
			  lost->definition);
	errhint("Create that function again, under its own or another name, and deploy it as a new version.");
}
