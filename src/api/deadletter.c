/*
 * deadletter.c
 *		Run dead letters again, or give up on them.
 *
 * Runs in the caller's backend.  A letter is queued here and run by the
 * pipeline's worker between two batches, from the first stage on, with the
 * code of that time.  Takes the definition's lock in share mode, as a batch
 * does.  Letters are locked one by one in event order, as the worker locks them,
 * and looked at again then: what somebody else ran again or gave up meanwhile
 * is not taken, and nobody waits for another in a circle.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "api/access.h"
#include "api/args.h"
#include "base/control.h"
#include "catalog/names.h"
#include "catalog/sql.h"

PPL_FUNCTION(pipeline_redrive);
PPL_FUNCTION(pipeline_discard);

static void check_stage(const PplPipeline *pipeline, const char *stage);

/*
 * pipeline.redrive(pipeline text, ids bigint[], stage text)
 */
Datum
pipeline_redrive(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *stage = ppl_args_text_or_null(fcinfo, 2);
	PplPipeline *pipeline;
	PplSqlResult *rows;

	PreventCommandIfReadOnly("pipeline.redrive");
	pipeline = ppl_access_open(name, PPL_RIGHT_OPERATE, AccessShareLock);
	if (stage != NULL)
		check_stage(pipeline, stage);

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			PG_ARGISNULL(1) ? ppl_sql_arg_null(INT8ARRAYOID) :
			ppl_sql_arg(INT8ARRAYOID, PG_GETARG_DATUM(1)),
			ppl_sql_arg_text(stage),
		};

		rows = ppl_sql_run("WITH chosen AS ("
						   " SELECT id FROM " PPL_DEAD_LETTERS
						   " WHERE pipeline_id = $1 AND state = 'open'"
						   " AND NOT queued"
						   " AND ($2 IS NULL OR id = ANY ($2))"
						   " AND ($3 IS NULL OR stage = $3)"
						   " ORDER BY commit_lsn, seq FOR UPDATE)"
						   " UPDATE " PPL_DEAD_LETTERS " d SET queued = true"
						   " FROM chosen WHERE d.id = chosen.id",
						   lengthof(args), args);
	}
	if (rows->nrows > 0)
	{
		ppl_access_audit(pipeline, "redrive", "stage", stage,
						 "ids", PG_ARGISNULL(1) ? NULL :
						 OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(1)),
						 "rows", psprintf(INT64_FORMAT, rows->nrows), NULL);
		ppl_access_tell(pipeline, PPL_CONTROL_REDRIVE);
	}
	PG_RETURN_INT64(rows->nrows);
}

/* A stage that the pipeline has, or that some dead letter failed in. */
static void
check_stage(const PplPipeline *pipeline, const char *stage)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_text(stage),
	};
	PplSqlResult *rows =
	ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_STAGES
				" WHERE pipeline_id = $1 AND name = $2)"
				" OR EXISTS (SELECT FROM " PPL_DEAD_LETTERS
				" WHERE pipeline_id = $1 AND stage = $2)",
				lengthof(args), args);

	if (!ppl_sql_bool(rows, 0, 0))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stage \"%s\" of pipeline \"%s\" does not exist", stage,
						pipeline->name),
				 errhint("SELECT stage FROM pipeline.stages WHERE pipeline = %s; lists them.",
						 quote_literal_cstr(pipeline->name))));
}

/*
 * pipeline.discard(pipeline text, ids bigint[], why text)
 */
Datum
pipeline_discard(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *why = ppl_args_text(fcinfo, 2, "why");
	PplPipeline *pipeline;
	PplSqlResult *rows;

	PreventCommandIfReadOnly("pipeline.discard");
	ppl_args_require(fcinfo, 1, "ids");
	if (why[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("discarding needs a reason"),
				 errhint("Say why in the third argument.")));
	pipeline = ppl_access_open(name, PPL_RIGHT_OPERATE, AccessShareLock);

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg(INT8ARRAYOID, PG_GETARG_DATUM(1)),
		};

		rows = ppl_sql_run("WITH chosen AS ("
						   " SELECT id FROM " PPL_DEAD_LETTERS
						   " WHERE pipeline_id = $1 AND state = 'open'"
						   " AND id = ANY ($2)"
						   " ORDER BY commit_lsn, seq FOR UPDATE),"
						   " given_up AS ("
						   " UPDATE " PPL_DEAD_LETTERS " d"
						   " SET state = 'discarded', queued = false"
						   " FROM chosen WHERE d.id = chosen.id RETURNING d.id)"
						   " SELECT count(*), array_agg(id ORDER BY id)::text"
						   " FROM given_up",
						   lengthof(args), args);
	}
	if (DatumGetInt64(ppl_sql_value(rows, 0, 0)) > 0)
	{
		ppl_access_audit(pipeline, "discard", "ids", ppl_sql_text(rows, 0, 1),
						 "why", why, NULL);
		ppl_access_tell(pipeline, PPL_CONTROL_DISCARD);
	}
	PG_RETURN_DATUM(ppl_sql_value(rows, 0, 0));
}
