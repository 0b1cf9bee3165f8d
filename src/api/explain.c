/*-------------------------------------------------------------------------
 *
 * explain.c
 *		pipeline.explain(): the statement of a pipeline, and its plans.
 *
 * Runs in the backend that asks.  The statement is compiled and planned with
 * the rights of the pipeline's owner and the pipeline's search_path, so that
 * it is what the pipeline's worker runs.  Nothing is executed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "api/access.h"
#include "api/args.h"
#include "catalog/owner.h"
#include "worker/compile.h"
#include "worker/explain.h"

/* The two sizes of batches that workers have plans for. */
#define SMALL_BATCH 10
#define LARGE_BATCH 10000

static void put_segment(ReturnSetInfo *result, const PplPipeline *segment);
static void refuse_segment(const PplPipeline *pipeline, int segment,
						   const List *segments) pg_attribute_noreturn();
static void put_statement(ReturnSetInfo *result, const char *sql);
static void put_plan(ReturnSetInfo *result, const char *headline,
					 const PplStatement *statement, double events);
static void put_line(ReturnSetInfo *result, const char *text);

PPL_FUNCTION(pipeline_explain);

/*
 * pipeline.explain(name text, segment int) returns setof text
 *
 * For whoever may see the pipeline.
 */
Datum
pipeline_explain(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PplPipeline *pipeline;
	PplElevation saved;
	List	   *segments;
	ListCell   *lc;
	bool		found = false;

	pipeline = ppl_access_open(ppl_args_text(fcinfo, 0, "name"),
							   PPL_RIGHT_SEE, NoLock);
	segments = ppl_definition_segments(pipeline);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	ppl_owner_begin(&saved, pipeline->owner, pipeline->search_path);
	foreach(lc, segments)
	{
		const PplPipeline *segment = lfirst(lc);

		if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) != segment->segment)
			continue;
		if (found)
			put_line(result, "");
		if (list_length(segments) > 1)
			put_line(result, psprintf("segment %d", segment->segment));
		put_segment(result, segment);
		found = true;
	}
	ppl_owner_end(&saved);
	if (!found)
		refuse_segment(pipeline, PG_ARGISNULL(1) ? 1 : PG_GETARG_INT32(1), segments);
	return (Datum) 0;
}

static void
put_segment(ReturnSetInfo *result, const PplPipeline *segment)
{
	PplStatement *statement;

	if (!OidIsValid(segment->source))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segments of pipeline \"%s\" are not prepared in this database",
						segment->name),
				 errdetail("It was restored, and not started since."),
				 errhint("SELECT pipeline.start(%s);",
						 quote_literal_cstr(segment->name))));
	statement = ppl_compile(segment, segment->version, false);
	put_statement(result, statement->sql);
	for (int i = 0; i < statement->noutputs; i++)
	{
		const PplUpsert *upsert = statement->upserts[i];

		if (upsert == NULL)
			continue;
		put_line(result, "");
		put_line(result, psprintf("then, for output \"%s\"", upsert->output->name));
		put_statement(result, upsert->remove_sql);
		put_statement(result, upsert->insert_sql);
	}
	put_plan(result, "plan for small batches", statement, SMALL_BATCH);
	put_plan(result, "plan for large batches", statement, LARGE_BATCH);
}

static void
refuse_segment(const PplPipeline *pipeline, int segment, const List *segments)
{
	StringInfoData numbers;
	ListCell   *lc;

	initStringInfo(&numbers);
	foreach(lc, segments)
		appendStringInfo(&numbers, "%s%d", numbers.len > 0 ? ", " : "",
						 ((PplPipeline *) lfirst(lc))->segment);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("pipeline \"%s\" has no segment %d", pipeline->name, segment),
			 list_length(segments) == 1 ?
			 errdetail("Its only segment is %s.", numbers.data) :
			 errdetail("Its segments are %s.", numbers.data)));
}

static void
put_statement(ReturnSetInfo *result, const char *sql)
{
	char	   *copy = pstrdup(sql);
	char	   *end;

	while ((end = strchr(copy, '\n')) != NULL)
	{
		*end = '\0';
		put_line(result, copy);
		copy = end + 1;
	}
	if (copy[0] != '\0')
		put_line(result, copy);
}

static void
put_plan(ReturnSetInfo *result, const char *headline,
		 const PplStatement *statement, double events)
{
	List	   *lines = ppl_explain_plan(statement, events);
	ListCell   *lc;

	put_line(result, "");
	put_line(result, psprintf("%s (%.0f events)", headline, events));
	foreach(lc, lines)
		put_line(result, lfirst(lc));
}

static void
put_line(ReturnSetInfo *result, const char *text)
{
	Datum		value = CStringGetTextDatum(text);
	bool		isnull = false;

	tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
}
