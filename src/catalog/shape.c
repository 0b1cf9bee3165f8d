/*-------------------------------------------------------------------------
 *
 * shape.c
 *		The type of the rows between two stages, and the checks of a chain.
 *
 * A pipeline is a typed chain: the source's row type, then what each stage
 * makes of it.  A chain is checked when a stage or an output is added, and
 * again whenever a worker compiles it, because what it names may have
 * changed since.  Runs in any backend and in workers, inside a transaction;
 * takes share locks on the relations it looks at and allocates in
 * CurrentMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "catalog/handler.h"
#include "catalog/query.h"
#include "catalog/shape.h"

/* What an error in a check is about. */
typedef struct Place
{
	const char *what;			/* "stage" or "output" */
	const char *name;
	const char *pipeline;
} Place;

static void place_callback(void *arg);
static void place_enter(ErrorContextCallback *callback, Place *place);
static PplShape *shape_copy(const PplShape *shape);
static PplShape *check_stage(const PplPipeline *pipeline,
							 const PplShape *input, const PplStage *stage);

/*
 * The columns of a composite type, or of a domain over one.
 */
PplShape *
ppl_shape_of_type(Oid rowtype)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_domain(rowtype, -1, false);
	PplShape   *shape = ppl_shape_of_desc(desc, getBaseType(rowtype));

	ReleaseTupleDesc(desc);
	return shape;
}

/*
 * The columns of a row descriptor that are not dropped.  rowtype is the
 * composite type it belongs to, or InvalidOid.
 */
PplShape *
ppl_shape_of_desc(TupleDesc desc, Oid rowtype)
{
	PplShape   *shape = palloc0(sizeof(*shape));

	shape->rowtype = rowtype;
	shape->columns = palloc0(mul_size(Max(desc->natts, 1), sizeof(PplColumn)));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		PplColumn  *column = &shape->columns[shape->ncolumns];

		if (att->attisdropped)
			continue;
		column->name = pstrdup(NameStr(att->attname));
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->collation = att->attcollation;
		shape->ncolumns++;
	}
	return shape;
}

/*
 * The columns of a table.  Error 42P01 if it is gone.
 */
PplShape *
ppl_shape_of_relation(Oid relid)
{
	Oid			rowtype = get_rel_type_id(relid);

	if (!OidIsValid(rowtype))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the source of the pipeline does not exist any more"),
				 errhint("Drop the pipeline, or create it again over another source.")));
	return ppl_shape_of_type(rowtype);
}

/*
 * The rows that come to the first stage of a segment.  The row type of what was
 * handed over to it is not for users, so none is named.
 */
PplShape *
ppl_shape_of_source(const PplPipeline *pipeline)
{
	PplShape   *shape = ppl_shape_of_relation(pipeline->source);

	if (pipeline->upstream != 0)
		shape->rowtype = InvalidOid;
	return shape;
}

/*
 * The column of this name, or NULL.
 */
const PplColumn *
ppl_shape_column(const PplShape *shape, const char *name)
{
	for (int i = 0; i < shape->ncolumns; i++)
	{
		if (strcmp(shape->columns[i].name, name) == 0)
			return &shape->columns[i];
	}
	return NULL;
}

/*
 * A shape for a message: its type, or "(a integer, b text)".
 */
char *
ppl_shape_describe(const PplShape *shape)
{
	StringInfoData buf;

	if (OidIsValid(shape->rowtype))
		return format_type_be_qualified(shape->rowtype);

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '(');
	for (int i = 0; i < shape->ncolumns; i++)
	{
		const PplColumn *column = &shape->columns[i];

		appendStringInfo(&buf, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(column->name),
						 format_type_with_typemod(column->type, column->typmod));
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * Check a stage against the rows that reach it; returns the rows that leave
 * it.  Errors: 42883 and 42501 for its handler, 42804 for types that do not
 * fit, what parse analysis throws for its query.
 */
PplShape *
ppl_shape_after_stage(const PplPipeline *pipeline, const PplShape *input,
					  const PplStage *stage)
{
	Place		place = {"stage", stage->name, pipeline->name};
	ErrorContextCallback callback;
	PplShape   *result;

	place_enter(&callback, &place);
	result = check_stage(pipeline, input, stage);
	error_context_stack = callback.previous;
	return result;
}

/*
 * Check all stages of a pipeline; returns the rows that leave the last one.
 */
PplShape *
ppl_shape_after_stages(const PplPipeline *pipeline)
{
	PplShape   *shape = ppl_shape_of_source(pipeline);
	ListCell   *lc;

	foreach(lc, pipeline->stages)
		shape = ppl_shape_after_stage(pipeline, shape, lfirst(lc));
	return shape;
}

/*
 * Check an output's transform against the rows that reach it; returns the
 * rows for its target, which are the same without a transform.
 */
PplShape *
ppl_shape_after_transform(const PplPipeline *pipeline, const PplShape *input,
						  const PplOutput *output)
{
	Place		place = {"output", output->name, pipeline->name};
	ErrorContextCallback callback;
	PplHandler *handler;

	if (output->transform == NULL)
		return shape_copy(input);

	place_enter(&callback, &place);
	handler = ppl_handler_resolve(pipeline, output->transform);
	ppl_handler_check_input(handler, input);
	ppl_handler_check_result(handler, PPL_STAGE_TRANSFORM);
	error_context_stack = callback.previous;
	return handler->result;
}

static void
place_callback(void *arg)
{
	Place	   *place = arg;

	errcontext("%s \"%s\" of pipeline \"%s\"", place->what, place->name,
			   place->pipeline);
}

static void
place_enter(ErrorContextCallback *callback, Place *place)
{
	callback->callback = place_callback;
	callback->arg = place;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

static PplShape *
shape_copy(const PplShape *shape)
{
	PplShape   *copy = palloc(sizeof(*copy));

	*copy = *shape;
	return copy;
}

static PplShape *
check_stage(const PplPipeline *pipeline, const PplShape *input,
			const PplStage *stage)
{
	PplShape   *result;

	if (stage->handler != NULL)
	{
		PplHandler *handler = ppl_handler_resolve(pipeline, stage->handler);

		ppl_handler_check_input(handler, input);
		ppl_handler_check_result(handler, stage->kind);
		result = handler->result;
	}
	else
		result = ppl_query_shape(pipeline, input, stage);
	return stage->kind == PPL_STAGE_VALIDATE ? shape_copy(input) : result;
}
