/*-------------------------------------------------------------------------
 *
 * compile.c
 *		The stages and outputs of a segment as one SQL statement.
 *
 * The statement reads the relation of the batch, whose first column is the
 * ordinal of an event in the batch, and ends in an INSERT for each output.
 * Every stage is a subquery over the one before, and the ordinal travels
 * through all of them.  OFFSET 0 makes each a fence for the planner: a stage
 * never runs on a row that an earlier one rejects, while inside a stage the
 * planner may join as it likes.  Functions whose names begin with an
 * underscore stand at the fences and note how far each event came:
 *
 *	_accept(ordinal)				the event enters the statement
 *	_pass(ordinal, stage, verdict)	a validation judged it
 *	_reach(ordinal, stage)			an enrichment or transform made a row of it
 *	_wants(ordinal, output)			is it of a delete that this output leaves out?
 *	_mark(ordinal, output)			the row goes to this output, at the last one
 *									straight into its target
 *	_write(ordinal, output, key)	the same at the last one, and the row that is
 *									written is marked (base/mark.h)
 *	_produced(output, key...)		it is there
 *	_put(ordinal, output, row)		the row is for this output of mode upsert
 *	_hand(ordinal, row)				the row is for the segments behind this one
 *
 * What is written by upserts is only collected here; upsert.c does the rest.
 *
 * Nothing may stand between _mark and the INSERT, because RETURNING, where
 * _produced runs, cannot see the ordinal.
 *
 * The search_path in force is the pipeline's.  All that is generated here is
 * therefore qualified or independent of it; only the text of query stages is
 * not, by intent.  Runs in workers and in backends that explain a pipeline,
 * inside a transaction; takes share locks on the relations it looks at.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/event.h"
#include "catalog/handler.h"
#include "catalog/own.h"
#include "catalog/query.h"
#include "catalog/shape.h"
#include "catalog/source.h"
#include "catalog/target.h"
#include "worker/compile.h"
#include "worker/compile_text.h"
#include "worker/compile_upsert.h"

#define ORDINAL_NAME "_ord"
#define CHAIN_NAME "_chain"

/* A stage, or the transform of an output, with the rows around it. */
typedef struct Step
{
	const PplStage *stage;		/* NULL of a transform */
	PplHandler *handler;		/* NULL of a query */
	PplShape   *input;
	PplShape   *result;
	Oid			verdict;		/* type of what a validating query returns */
} Step;

/* An output with what becomes of the last stage's rows on the way there. */
typedef struct Sink
{
	PplOutput  *output;			/* NULL = it is handed over */
	Step	   *transform;		/* or NULL */
	PplShape   *row;
	PplTarget  *target;
	bool		takes_deletes;	/* old rows of deletes go there, too */
} Sink;

typedef struct Compiler
{
	PplShape   *source;
	PplShape   *last;			/* rows that leave the last stage */
	int			nsteps;
	Step	  **steps;			/* number k of the statement is steps[k - 1] */
	int			nsinks;			/* outputs, and at last what is handed over */
	int			noutputs;
	Sink	  **sinks;
	char	   *ordinal;		/* quoted */
	int			sink;			/* whose transform is written now, or -1 */
	bool		shared;			/* do several outputs read the chain as a CTE? */
	bool		takes_deletes;	/* does any output take rows of deletes? */
	bool		marks;			/* are the rows of outputs marked? */
	StringInfoData sql;
} Compiler;

static void collect(Compiler *compiler, const PplPipeline *pipeline,
					int version);
static bool takes_deletes(const Compiler *compiler,
						  const PplPipeline *pipeline, const Sink *sink);
static void refuse_deletes(const Compiler *compiler,
						   const PplPipeline *pipeline);
static bool is_marked(const Compiler *compiler);
static Step *make_step(const PplPipeline *pipeline, const PplStage *stage,
					   const char *signature);
static char *choose_ordinal(const Compiler *compiler);
static bool has_column(const Compiler *compiler, const char *name);
static void describe(const Compiler *compiler, PplStatement *statement,
					 const char *ordinal);
static List *dependencies(const Compiler *compiler,
						  const PplPipeline *pipeline);
static List *add_step_dependencies(List *relids, const Step *step);
static void emit_statement(Compiler *compiler);
static void emit_sink(Compiler *compiler, int number, int depth);
static void emit_hand(Compiler *compiler, int number, int depth);
static void emit_sink_input(Compiler *compiler, int number, int depth);
static char *wanted(const Compiler *compiler, const char *alias, int number);
static void emit_chain(Compiler *compiler, int nsteps, int depth);
static void emit_batch(Compiler *compiler, int depth);
static void emit_validate(Compiler *compiler, int number, int depth);
static void emit_reach(Compiler *compiler, int number, int depth);
static void emit_rows(Compiler *compiler, const Step *step, int nsteps,
					  int depth);
static void emit_rows_of_scalar(Compiler *compiler, const Step *step,
								int nsteps, int depth);
static void emit_input(Compiler *compiler, int nsteps, const char *alias,
					   int depth);
static void line(Compiler *compiler, int depth, const char *format,...)
			pg_attribute_printf(3, 4);

PplStatement *
ppl_compile(const PplPipeline *pipeline, int version, bool mark)
{
	PplStatement *statement = palloc0(sizeof(*statement));
	Compiler	compiler = {0};
	char	   *ordinal;

	collect(&compiler, pipeline, version);
	if (pipeline->upstream == 0)
		ppl_source_check(pipeline->source, pipeline->operations,
						 compiler.takes_deletes, false);
	ordinal = choose_ordinal(&compiler);
	compiler.ordinal = unconstify(char *, quote_identifier(ordinal));
	compiler.shared = compiler.nsinks > 1;
	compiler.sink = -1;
	compiler.marks = mark && is_marked(&compiler);
	statement->marks = compiler.marks;
	initStringInfo(&compiler.sql);

	emit_statement(&compiler);
	statement->sql = compiler.sql.data;
	statement->nstages = compiler.nsteps;
	statement->stages_sql = palloc((compiler.nsteps + 1) * sizeof(char *));
	compiler.shared = false;
	for (int i = 1; i <= compiler.nsteps; i++)
	{
		initStringInfo(&compiler.sql);
		line(&compiler, 0, "SELECT * FROM (");
		emit_chain(&compiler, i, 1);
		line(&compiler, 0, ") x");
		statement->stages_sql[i] = compiler.sql.data;
	}
	describe(&compiler, statement, ordinal);
	statement->relids = dependencies(&compiler, pipeline);
	statement->keyed = pipeline->hands_keys;
	statement->upserts = palloc0((compiler.nsinks + 1) * sizeof(PplUpsert *));
	for (int i = 0; i < compiler.noutputs; i++)
	{
		const Sink *sink = compiler.sinks[i];

		if (!sink->output->upsert)
		{
			statement->has_appends = true;
			continue;
		}
		statement->has_upserts = statement->keyed = true;
		statement->upserts[i] = ppl_compile_upsert(pipeline, sink->output,
												   sink->target, sink->row,
												   i, ordinal, compiler.marks);
	}
	return statement;
}

/*
 * Check that a definition could be compiled, but for what outputs of mode upsert
 * need to know of old rows.
 */
void
ppl_compile_check(const PplPipeline *pipeline)
{
	Compiler	compiler = {0};

	collect(&compiler, pipeline, pipeline->version);
	if (pipeline->upstream == 0)
		ppl_source_check(pipeline->source, pipeline->operations,
						 compiler.takes_deletes, true);
}

/*
 * Check the definition against its objects, and keep what was found.
 */
static void
collect(Compiler *compiler, const PplPipeline *pipeline, int version)
{
	ListCell   *lc;

	compiler->source = ppl_shape_of_source(pipeline);
	compiler->last = compiler->source;

	compiler->steps = palloc(mul_size(list_length(pipeline->stages) + 1,
									  sizeof(Step *)));
	foreach(lc, pipeline->stages)
	{
		const PplStage *stage = lfirst(lc);
		PplShape   *rows = ppl_shape_after_stage(pipeline, compiler->last,
												 stage);
		Step	   *step = make_step(pipeline, stage, stage->handler);

		step->input = compiler->last;
		step->result = rows;
		if (stage->kind == PPL_STAGE_VALIDATE && step->handler == NULL)
			step->verdict =
				ppl_query_shape(pipeline, step->input, stage)->columns[0].type;
		compiler->last = step->result;
		compiler->steps[compiler->nsteps++] = step;
	}

	compiler->sinks = palloc(mul_size(list_length(pipeline->outputs) + 2,
									  sizeof(Sink *)));
	foreach(lc, pipeline->outputs)
	{
		PplOutput  *output = lfirst(lc);
		PplShape   *row;
		Sink	   *sink;

		if (output->since > version)
			continue;
		sink = palloc0(sizeof(*sink));
		sink->output = output;
		row = ppl_shape_after_transform(pipeline, compiler->last, output);
		if (output->transform != NULL)
		{
			sink->transform = make_step(pipeline, NULL, output->transform);
			sink->transform->input = compiler->last;
			sink->transform->result = row;
		}
		sink->row = row;
		sink->target = ppl_target_resolve(pipeline, row, output);
		sink->takes_deletes = takes_deletes(compiler, pipeline, sink);
		compiler->takes_deletes |= sink->takes_deletes;
		compiler->sinks[compiler->nsinks++] = sink;
	}
	compiler->noutputs = compiler->nsinks;
	if (pipeline->hand != NULL)
	{
		Sink	   *sink = palloc0(sizeof(*sink));

		sink->row = compiler->last;
		compiler->sinks[compiler->nsinks++] = sink;
	}
	if (pipeline->hand != NULL || pipeline->upstream != 0)
		refuse_deletes(compiler, pipeline);
}

/*
 * Rows of deletes are not handed over, only that they are gone: a handler that could
 * tell them from others would miss them.
 */
static void
refuse_deletes(const Compiler *compiler, const PplPipeline *pipeline)
{
	const PplHandler *handler = NULL;

	if ((pipeline->operations & PPL_OP_DELETE) == 0)
		return;
	for (int i = 0; i < compiler->nsteps && handler == NULL; i++)
	{
		if (compiler->steps[i]->handler != NULL &&
			compiler->steps[i]->handler->takes_event)
			handler = compiler->steps[i]->handler;
	}
	for (int i = 0; i < compiler->noutputs && handler == NULL; i++)
	{
		if (compiler->sinks[i]->takes_deletes && pipeline->upstream != 0)
			handler = compiler->sinks[i]->transform->handler;
	}
	if (handler != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("handler %s takes pipeline.event in a pipeline with deletes and isolated stages",
						handler->signature),
				 errdetail("A row that is deleted does not come over a hand-over, so the handler would not be called for it everywhere."),
				 errhint("Let it take the row alone, or leave isolate out.")));
}

/*
 * Do old rows of deletes go to an output?  To one that appends, if a handler on
 * the way there can tell them from others, since it takes the event.
 */
static bool
takes_deletes(const Compiler *compiler, const PplPipeline *pipeline,
			  const Sink *sink)
{
	if (((pipeline->operations | pipeline->reached) & PPL_OP_DELETE) == 0 ||
		sink->output->upsert)
		return false;
	for (int i = 0; i < compiler->nsteps; i++)
	{
		const PplHandler *handler = compiler->steps[i]->handler;

		if (handler != NULL && handler->takes_event)
			return true;
	}
	return sink->transform != NULL && sink->transform->handler->takes_event;
}

/*
 * Can rows of the outputs be marked?  Those of all, or of none.
 */
static bool
is_marked(const Compiler *compiler)
{
	for (int i = 0; i < compiler->noutputs; i++)
	{
		const Sink *sink = compiler->sinks[i];

		if (!sink->target->plain || ppl_own_is_source(sink->output->target))
			return false;
	}
	return compiler->noutputs > 0;
}

static Step *
make_step(const PplPipeline *pipeline, const PplStage *stage,
		  const char *signature)
{
	Step	   *step = palloc0(sizeof(*step));

	step->stage = stage;
	if (signature != NULL)
		step->handler = ppl_handler_resolve(pipeline, signature);
	return step;
}

/*
 * A name for the ordinal that no column has anywhere on the way.
 */
static char *
choose_ordinal(const Compiler *compiler)
{
	char	   *name = pstrdup(ORDINAL_NAME);

	while (has_column(compiler, name))
		name = psprintf("%s_", name);
	return name;
}

static bool
has_column(const Compiler *compiler, const char *name)
{
	if (ppl_shape_column(compiler->source, name) != NULL)
		return true;
	for (int i = 0; i < compiler->nsteps; i++)
	{
		if (ppl_shape_column(compiler->steps[i]->result, name) != NULL)
			return true;
	}
	for (int i = 0; i < compiler->nsinks; i++)
	{
		Step	   *transform = compiler->sinks[i]->transform;

		if (transform != NULL &&
			ppl_shape_column(transform->result, name) != NULL)
			return true;
	}
	return false;
}

/*
 * What a worker must know about the statement to run it.
 */
static void
describe(const Compiler *compiler, PplStatement *statement,
		 const char *ordinal)
{
	const PplShape *source = compiler->source;
	int			n = compiler->noutputs;

	statement->batch_desc = CreateTemplateTupleDesc(source->ncolumns + 1);
	TupleDescInitEntry(statement->batch_desc, 1, ordinal, INT4OID, -1, 0);
	for (int i = 0; i < source->ncolumns; i++)
	{
		const PplColumn *column = &source->columns[i];

		TupleDescInitEntry(statement->batch_desc, i + 2, column->name,
						   column->type, column->typmod, 0);
		TupleDescInitEntryCollation(statement->batch_desc, i + 2,
									column->collation);
	}

	statement->noutputs = n;
	statement->outputs = palloc(mul_size(n + 1, sizeof(PplOutput *)));
	statement->takes_deletes = compiler->takes_deletes;
	statement->output_takes_deletes = palloc(mul_size(n + 1, sizeof(bool)));
	statement->output_nkeys = palloc(mul_size(n + 1, sizeof(int)));
	statement->output_keys = palloc(mul_size(n + 1, sizeof(char **)));
	statement->output_key_types = palloc(mul_size(n + 1, sizeof(Oid *)));
	for (int i = 0; i < n; i++)
	{
		const Sink *sink = compiler->sinks[i];

		statement->outputs[i] = sink->output;
		statement->output_takes_deletes[i] = sink->takes_deletes;
		statement->output_nkeys[i] = sink->target->nkeys;
		statement->output_keys[i] = sink->target->keys;
		statement->output_key_types[i] = sink->target->key_types;
	}
	if (compiler->nsinks > n)
		statement->hand = compiler->last;
}

/*
 * The source, the targets, and the relations behind the types of handlers.
 * What query stages read is not among them: the statement names the columns
 * that it takes of it, so the planner sees to that.
 */
static List *
dependencies(const Compiler *compiler, const PplPipeline *pipeline)
{
	List	   *relids = list_make1_oid(pipeline->source);

	if (OidIsValid(pipeline->log))
		relids = list_append_unique_oid(relids, pipeline->log);
	for (int i = 0; i < compiler->nsteps; i++)
		relids = add_step_dependencies(relids, compiler->steps[i]);
	for (int i = 0; i < compiler->nsinks; i++)
	{
		const Sink *sink = compiler->sinks[i];

		if (sink->output == NULL)
			continue;
		relids = list_append_unique_oid(relids, sink->output->target);
		if (sink->transform != NULL)
			relids = add_step_dependencies(relids, sink->transform);
	}
	return relids;
}

static List *
add_step_dependencies(List *relids, const Step *step)
{
	const PplHandler *handler = step->handler;

	if (handler == NULL)
		return relids;
	relids = list_append_unique_oid(relids,
									get_typ_typrelid(handler->argtype));
	if (handler->result != NULL && OidIsValid(handler->result->rowtype))
		relids = list_append_unique_oid(relids,
										get_typ_typrelid(handler->result->rowtype));
	return relids;
}

/*
 * One output is an INSERT over the chain.  Several read the chain from a CTE,
 * so that it runs once, and are read to their end: what the executor would do
 * after the last row of a query, it would do among the triggers of the
 * statement, whose errors are no event's.  None is possible while a pipeline's outputs change:
 * its stages run all the same, for what they say about the events.
 */
static void
emit_statement(Compiler *compiler)
{
	if (compiler->nsinks == 0)
	{
		line(compiler, 0, "SELECT pg_catalog.count(*)");
		emit_input(compiler, compiler->nsteps, "x", 0);
		return;
	}
	if (!compiler->shared)
	{
		emit_sink(compiler, 0, 0);
		return;
	}

	line(compiler, 0, "WITH " CHAIN_NAME " AS MATERIALIZED (");
	emit_chain(compiler, compiler->nsteps, 1);
	for (int i = 0; i < compiler->nsinks; i++)
	{
		line(compiler, 0, "),");
		line(compiler, 0, "_o%d AS (", i);
		emit_sink(compiler, i, 1);
	}
	line(compiler, 0, ")");
	for (int i = 0; i < compiler->nsinks; i++)
		line(compiler, 0, "%sSELECT FROM _o%d", i > 0 ? "UNION ALL " : "", i);
}

/*
 * The INSERT of one output, or what collects the rows of an upsert.
 */
static void
emit_sink(Compiler *compiler, int number, int depth)
{
	const Sink *sink = compiler->sinks[number];
	const PplTarget *target = sink->target;
	StringInfoData names;
	StringInfoData values;

	if (sink->output == NULL)
	{
		emit_hand(compiler, number, depth);
		return;
	}
	if (target->upsert != NULL)
	{
		line(compiler, depth, "SELECT");
		emit_sink_input(compiler, number, depth);
		line(compiler, depth, "WHERE %spipeline._put(x.%s, %d, %s)",
			 sink->transform == NULL ? wanted(compiler, "x", number) : "",
			 compiler->ordinal, number, ppl_compile_put_row(target, "x"));
		return;
	}

	initStringInfo(&names);
	initStringInfo(&values);
	for (int i = 0; i < target->ncolumns; i++)
	{
		const char *column = quote_identifier(target->columns[i]);

		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", column);
		appendStringInfo(&values, "%s x.%s", i > 0 ? "," : "", column);
	}

	if (target->ncolumns > 0)
		line(compiler, depth, "INSERT INTO %s AS _t (%s)",
			 target->qualified_name, names.data);
	else
		line(compiler, depth, "INSERT INTO %s AS _t", target->qualified_name);
	if (target->overriding)
		line(compiler, depth, "OVERRIDING SYSTEM VALUE");
	line(compiler, depth, "SELECT%s", values.data);
	emit_sink_input(compiler, number, depth);
	line(compiler, depth, "WHERE %spipeline.%s(x.%s, %d%s)",
		 sink->transform == NULL ? wanted(compiler, "x", number) : "",
		 compiler->marks ? "_write" : "_mark", compiler->ordinal, number,
		 compiler->marks ? ", $1" : "");
	line(compiler, depth, "RETURNING pipeline._produced(%d%s)", number,
		 ppl_text_key(target));
}

/* What collects the rows that are handed over. */
static void
emit_hand(Compiler *compiler, int number, int depth)
{
	char	   *columns = ppl_text_columns("x", compiler->last);

	line(compiler, depth, "SELECT");
	emit_sink_input(compiler, number, depth);
	line(compiler, depth, "WHERE %spipeline._hand(x.%s, ROW(%s))",
		 wanted(compiler, "x", number), compiler->ordinal,
		 columns[0] == ',' ? columns + 2 : columns);
}

/* FROM the rows for one output. */
static void
emit_sink_input(Compiler *compiler, int number, int depth)
{
	const Sink *sink = compiler->sinks[number];

	if (sink->transform == NULL)
	{
		emit_input(compiler, compiler->nsteps, "x", depth);
		return;
	}
	line(compiler, depth, "FROM (");
	compiler->sink = number;
	emit_rows(compiler, sink->transform, compiler->nsteps, depth + 1);
	compiler->sink = -1;
	line(compiler, depth, ") x");
}

/*
 * The rows for an output, but for those of deletes that it does not take.  Asked
 * at the first fence that is the output's own.
 */
static char *
wanted(const Compiler *compiler, const char *alias, int number)
{
	if (!compiler->takes_deletes || compiler->sinks[number]->takes_deletes)
		return "";
	return psprintf("pipeline._wants(%s.%s, %d) AND ", alias,
					compiler->ordinal, number);
}

/*
 * The rows that leave the first nsteps stages.
 */
static void
emit_chain(Compiler *compiler, int nsteps, int depth)
{
	if (nsteps == 0)
		emit_batch(compiler, depth);
	else if (compiler->steps[nsteps - 1]->stage->kind == PPL_STAGE_VALIDATE)
		emit_validate(compiler, nsteps, depth);
	else
		emit_reach(compiler, nsteps, depth);
}

static void
emit_batch(Compiler *compiler, int depth)
{
	line(compiler, depth, "SELECT b.%s%s", compiler->ordinal,
		 ppl_text_columns("b", compiler->source));
	line(compiler, depth, "FROM " PPL_BATCH_RELATION " b");
	line(compiler, depth, "WHERE pipeline._accept(b.%s)", compiler->ordinal);
	line(compiler, depth, "OFFSET 0");
}

/*
 * The rows that a validation lets pass.  A query is a scalar subquery, so
 * that more than one row of it is an error; that it returned none is told
 * from a null by the array around its value.
 */
static void
emit_validate(Compiler *compiler, int number, int depth)
{
	const Step *step = compiler->steps[number - 1];
	const char *alias = "p";
	const char *value = "s.v";

	if (step->handler == NULL)
		alias = ppl_text_query_alias(step->stage->query);

	line(compiler, depth, "SELECT %s.%s%s", alias, compiler->ordinal,
		 ppl_text_columns(alias, step->input));
	emit_input(compiler, number - 1, alias, depth);
	if (step->handler != NULL)
		line(compiler, depth, "WHERE pipeline._pass(%s.%s, %d, %s)", alias,
			 compiler->ordinal, number, ppl_text_call(step->handler, alias, compiler->ordinal));
	else
	{
		if (step->verdict == BOOLOID)
			value = "CASE WHEN s.v THEN NULL"
				" WHEN NOT s.v THEN '" PPL_REASON_FALSE "'"
				" ELSE '" PPL_REASON_NULL "' END";
		line(compiler, depth, "WHERE pipeline._pass(%s.%s, %d, (COALESCE((",
			 alias, compiler->ordinal, number);
		line(compiler, depth + 1, "SELECT ARRAY[%s::pg_catalog.text] FROM (",
			 value);
		appendStringInfo(&compiler->sql, "%s\n", ppl_text_query(step->stage->query, step->input, alias));
		line(compiler, depth + 1, ") s(v)");
		line(compiler, depth, "), ARRAY['" PPL_REASON_NO_ROW "'::pg_catalog.text]))[1])");
	}
	line(compiler, depth, "OFFSET 0");
}

/*
 * The rows that an enrichment or a transform makes, noted.
 */
static void
emit_reach(Compiler *compiler, int number, int depth)
{
	const Step *step = compiler->steps[number - 1];

	line(compiler, depth, "SELECT q.%s%s", compiler->ordinal,
		 ppl_text_columns("q", step->result));
	line(compiler, depth, "FROM (");
	emit_rows(compiler, step, number - 1, depth + 1);
	line(compiler, depth, ") q");
	line(compiler, depth, "WHERE pipeline._reach(q.%s, %d)",
		 compiler->ordinal, number);
	line(compiler, depth, "OFFSET 0");
}

/*
 * The rows that a step makes of those that leave the first nsteps stages.
 */
static void
emit_rows(Compiler *compiler, const Step *step, int nsteps, int depth)
{
	const char *alias = "p";

	if (step->handler != NULL && !step->handler->retset)
	{
		emit_rows_of_scalar(compiler, step, nsteps, depth);
		return;
	}
	if (step->handler == NULL)
		alias = ppl_text_query_alias(step->stage->query);

	line(compiler, depth, "SELECT %s.%s%s", alias, compiler->ordinal,
		 ppl_text_columns("s", step->result));
	emit_input(compiler, nsteps, alias, depth);
	if (step->handler != NULL)
		line(compiler, depth, "CROSS JOIN LATERAL %s s", ppl_text_call(step->handler, alias, compiler->ordinal));
	else
	{
		line(compiler, depth, "CROSS JOIN LATERAL (");
		appendStringInfo(&compiler->sql, "%s\n", ppl_text_query(step->stage->query, step->input, alias));
		line(compiler, depth, ") s");
	}
	line(compiler, depth, "OFFSET 0");
}

/*
 * The same for a function that returns one composite: called once a row, and
 * taken apart above a fence.  In FROM it could return a row of nulls where it
 * returns null, which means no row.
 */
static void
emit_rows_of_scalar(Compiler *compiler, const Step *step, int nsteps,
					int depth)
{
	line(compiler, depth, "SELECT r.%s%s", compiler->ordinal,
		 ppl_text_columns("(r.s)", step->result));
	line(compiler, depth, "FROM (");
	line(compiler, depth + 1, "SELECT p.%s, %s AS s", compiler->ordinal,
		 ppl_text_call(step->handler, "p", compiler->ordinal));
	emit_input(compiler, nsteps, "p", depth + 1);
	line(compiler, depth + 1, "OFFSET 0");
	line(compiler, depth, ") r");
	line(compiler, depth, "WHERE r.s IS DISTINCT FROM NULL");
	line(compiler, depth, "OFFSET 0");
}

/*
 * FROM the rows that leave the first nsteps stages.  Those that a transform of
 * one of several outputs takes are marked as rows for this output.
 */
static void
emit_input(Compiler *compiler, int nsteps, const char *alias, int depth)
{
	int			sink = compiler->sink;

	if (sink >= 0 && compiler->nsinks > 1)
	{
		compiler->sink = -1;
		line(compiler, depth, "FROM (");
		line(compiler, depth + 1, "SELECT i.%s%s", compiler->ordinal,
			 ppl_text_columns("i", compiler->last));
		emit_input(compiler, nsteps, "i", depth + 1);
		line(compiler, depth + 1, "WHERE %spipeline._mark(i.%s, %d)",
			 wanted(compiler, "i", sink), compiler->ordinal, sink);
		line(compiler, depth + 1, "OFFSET 0");
		line(compiler, depth, ") %s", alias);
		return;
	}
	if (compiler->shared && nsteps == compiler->nsteps)
	{
		line(compiler, depth, "FROM " CHAIN_NAME " %s", alias);
		return;
	}
	line(compiler, depth, "FROM (");
	emit_chain(compiler, nsteps, depth + 1);
	line(compiler, depth, ") %s", alias);
}

/*
 * Append one line to the statement.
 */
static void
line(Compiler *compiler, int depth, const char *format,...)
{
	appendStringInfoSpaces(&compiler->sql, depth * 2);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&compiler->sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&compiler->sql, needed);
	}
	appendStringInfoChar(&compiler->sql, '\n');
}
