/*
 * upsert.c
 *		Write the outputs of mode upsert.
 *
 * The statement of the chain hands rows for them to pipeline._put(), which collects
 * them.  When it is done, fold.c says what changes.  Rows go in the reverse order
 * of outputs and come in their order, so that one that refers to another is not in
 * its way; in event order within each.
 *
 * Runs in a worker, in the batch's transaction: the statements as the owner, what
 * is kept of source rows elevated (kept.c).  Memory: "pipeline upsert", below the
 * transaction or subtransaction that a run is in.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/fold.h"
#include "worker/outcome.h"
#include "worker/upsert.h"

#define PPL_UPSERT_ROWS 10		/* plans are made for few rows: index probes */

PPL_FUNCTION(pipeline_put);

/* Rows for one output. */
typedef struct Puts
{
	int			count;
	int			max;
	PplPut	   *puts;
} Puts;

/* State of the run under way. */
static struct
{
	MemoryContext context;		/* NULL = nothing is collected */
	const PplStatement *statement;
	int			noutputs;
	Puts	   *outputs;
}			self;

/* The context is gone, with the transaction or because the run is over. */
static void
forget(void *arg)
{
	self.context = NULL;
}

/*
 * The statement of the chain is about to run: collect rows.  What was collected
 * and not applied is forgotten.
 */
void
ppl_upsert_begin(const PplProgram *program)
{
	MemoryContextCallback *callback;

	if (!program->statement->has_upserts)
		return;
	if (self.context != NULL)
		MemoryContextDelete(self.context);
	self.context = AllocSetContextCreate(CurTransactionContext, "pipeline upsert",
										 ALLOCSET_DEFAULT_SIZES);
	callback = MemoryContextAllocZero(self.context, sizeof(*callback));
	callback->func = forget;
	MemoryContextRegisterResetCallback(self.context, callback);
	self.statement = program->statement;
	self.noutputs = program->statement->noutputs;
	self.outputs = MemoryContextAllocZero(self.context,
										  self.noutputs * sizeof(Puts));
}

/*
 * Is this the type of the rows that the statement makes for an output?  Whoever
 * calls _put in a handler could hand over anything.
 */
static bool
is_put_row(const PplUpsert *upsert, TupleDesc desc)
{
	int			ncolumns = upsert->row_desc->natts - 1;

	if (desc->natts != ncolumns + upsert->gone_desc->natts - 1)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute expected = i < ncolumns ?
		TupleDescAttr(upsert->row_desc, i + 1) :
		TupleDescAttr(upsert->gone_desc, i - ncolumns + 1);

		if (TupleDescAttr(desc, i)->atttypid != expected->atttypid)
			return false;
	}
	return true;
}

/*
 * pipeline._put(ordinal, output, row record): a row for an output of mode upsert.
 * Always false: the statement has nothing more to do with it.
 */
Datum
pipeline_put(PG_FUNCTION_ARGS)
{
	int			ordinal = PG_GETARG_INT32(0);
	int			output = PG_GETARG_INT32(1);
	HeapTupleHeader row;
	MemoryContext oldcontext;
	HeapTupleData tuple;
	HeapTuple	copy;
	TupleDesc	desc;
	Puts	   *puts;
	PplPut	   *put;

	ppl_outcome_to_output(ordinal, output);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a row for an output of mode upsert is null"),
				 errhint("Only the statement of a pipeline calls this function.")));
	row = PG_GETARG_HEAPTUPLEHEADER(2);
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
								  HeapTupleHeaderGetTypMod(row));
	if (self.context == NULL || output < 0 || output >= self.noutputs ||
		self.statement->upserts[output] == NULL ||
		!is_put_row(self.statement->upserts[output], desc))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this function belongs to the statement of a pipeline")));
	puts = &self.outputs[output];
	oldcontext = MemoryContextSwitchTo(self.context);
	if (puts->count == puts->max)
	{
		puts->max = Max(2 * puts->max, 64);
		puts->puts = puts->puts ?
			repalloc_huge(puts->puts, mul_size(puts->max, sizeof(PplPut))) :
			palloc(puts->max * sizeof(PplPut));
	}
	put = &puts->puts[puts->count];
	put->ordinal = ordinal;
	put->number = puts->count++;

	memset(&tuple, 0, sizeof(tuple));
	tuple.t_data = row;
	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	copy = heap_copytuple(&tuple);
	put->values = palloc(desc->natts * sizeof(Datum));
	put->nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(copy, desc, put->values, put->nulls);
	ReleaseTupleDesc(desc);
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_BOOL(false);
}

/* Remove the rows that are not produced any more. */
static void
remove_rows(PplProgram *program, int output, const PplChange *change)
{
	PplUpsert  *upsert = program->statement->upserts[output];
	TupleDesc	desc = upsert->gone_desc;
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc0(desc->natts * sizeof(bool));
	Tuplestorestate *store;

	if (change->ngone == 0)
		return;
	store = ppl_program_store();
	for (int i = 0; i < change->ngone; i++)
	{
		const PplGone *gone = &change->gone[i];

		values[0] = Int32GetDatum(gone->ordinal);
		memcpy(values + 1, gone->key, (desc->natts - 1) * sizeof(Datum));
		memcpy(nulls + 1, gone->nulls, (desc->natts - 1) * sizeof(bool));
		tuplestore_putvalues(store, desc, values, nulls);
	}
	ppl_program_execute(program, &program->upserts[output].remove_plan,
						upsert->remove_sql, PPL_GONE_RELATION, desc, store,
						PPL_UPSERT_ROWS);
}

/* Insert or replace those that are. */
static void
write_rows(PplProgram *program, int output, const PplChange *change)
{
	PplUpsert  *upsert = program->statement->upserts[output];
	TupleDesc	desc = upsert->row_desc;
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc0(desc->natts * sizeof(bool));
	Tuplestorestate *store;

	if (change->nstay == 0)
		return;
	store = ppl_program_store();
	for (int i = 0; i < change->nstay; i++)
	{
		const PplPut *put = change->stay[i];

		values[0] = Int32GetDatum(put->ordinal);
		memcpy(values + 1, put->values, (desc->natts - 1) * sizeof(Datum));
		memcpy(nulls + 1, put->nulls, (desc->natts - 1) * sizeof(bool));
		tuplestore_putvalues(store, desc, values, nulls);
	}
	ppl_program_execute(program, &program->upserts[output].insert_plan,
						upsert->insert_sql, PPL_ROWS_RELATION, desc, store,
						PPL_UPSERT_ROWS);
}

/*
 * The events first to last made the rows that were collected: write what changes.
 * Needs an active snapshot that sees what the transaction did before.
 */
void
ppl_upsert_apply(PplWorker *worker, const PplBatch *batch, int first, int last)
{
	PplProgram *program = worker->program;
	MemoryContext oldcontext;
	PplChange **changes;

	if (!program->statement->has_upserts)
		return;
	oldcontext = MemoryContextSwitchTo(self.context);
	changes = palloc0(self.noutputs * sizeof(PplChange *));
	for (int i = 0; i < self.noutputs; i++)
	{
		if (program->statement->upserts[i] != NULL)
			changes[i] = ppl_fold(worker, batch, first, last, i,
								  self.outputs[i].puts, self.outputs[i].count);
	}
	for (int i = self.noutputs - 1; i >= 0; i--)
	{
		if (changes[i] != NULL)
			remove_rows(program, i, changes[i]);
	}
	for (int i = 0; i < self.noutputs; i++)
	{
		if (changes[i] != NULL)
			write_rows(program, i, changes[i]);
	}
	for (int i = 0; i < self.noutputs; i++)
	{
		if (changes[i] != NULL)
		{
			int			output_id = program->statement->upserts[i]->output->output_id;

			ppl_kept_remove(output_id, ppl_worker_portion(worker),
							changes[i]->sources, changes[i]->nsources);
			ppl_kept_add(output_id, changes[i]->kept, changes[i]->nkept);
		}
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(self.context);
}

/*
 * Why the outputs cannot be emptied when the source is truncated, in
 * CurrentMemoryContext: somebody else writes one of them, too.  NULL if they can.
 */
ErrorData *
ppl_upsert_refuse_truncate(PplWorker *worker)
{
	const PplStatement *statement = worker->program->statement;
	PplSqlArg  *ids = palloc((statement->noutputs + 1) * sizeof(PplSqlArg));
	PplSqlArg	args[1];
	PplSqlResult *rows;
	ErrorData  *error;

	if (!statement->has_upserts)
		return NULL;
	for (int i = 0; i < statement->noutputs; i++)
		ids[i] = ppl_sql_arg_int(statement->outputs[i]->output_id);
	args[0] = ppl_sql_arg_array(ids, statement->noutputs);
	rows = ppl_sql_run("SELECT mine.name, p.name, other.name, other.target_name"
					   " FROM " PPL_OUTPUTS " mine"
					   " JOIN " PPL_OUTPUTS " other"
					   "  ON other.output_id <> mine.output_id AND ("
					   "   other.target = mine.target"
					   "   OR other.target IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(mine.target) t)"
					   "   OR mine.target IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(other.target) t))"
					   " JOIN " PPL_PIPELINES " p ON p.pipeline_id = other.pipeline_id"
					   " WHERE mine.output_id = ANY ($1) AND mine.mode = 'upsert'"
					   " ORDER BY mine.output_id, other.output_id LIMIT 1",
					   lengthof(args), args);
	if (rows->nrows == 0)
		return NULL;
	error = palloc0(sizeof(*error));
	error->elevel = ERROR;
	error->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	error->message = psprintf("output \"%s\" cannot be emptied, though the source was truncated",
							  ppl_sql_text(rows, 0, 0));
	error->detail = psprintf("Output \"%s\" of pipeline \"%s\" writes table %s, too.",
							 ppl_sql_text(rows, 0, 2), ppl_sql_text(rows, 0, 1),
							 ppl_sql_text(rows, 0, 3));
	error->hint = psprintf("Let only one output write it, for example by SELECT pipeline.drop_output(%s, %s);",
						   quote_literal_cstr(ppl_sql_text(rows, 0, 1)),
						   quote_literal_cstr(ppl_sql_text(rows, 0, 2)));
	return error;
}

/*
 * The source was truncated: so are the outputs.  Nobody else writes them
 * (ppl_upsert_refuse_truncate).
 */
void
ppl_upsert_truncate(PplWorker *worker, int ordinal)
{
	PplProgram *program = worker->program;
	PplStatement *statement = program->statement;
	MemoryContext oldcontext = MemoryContextSwitchTo(AllocSetContextCreate(CurTransactionContext,
																		   "pipeline truncate",
																		   ALLOCSET_DEFAULT_SIZES));

	for (int i = statement->noutputs - 1; i >= 0; i--)
	{
		PplUpsert  *upsert = statement->upserts[i];

		if (upsert == NULL)
			continue;
		ppl_outcome_to_output(ordinal, i);
		ppl_program_execute(program, &program->upserts[i].clear_plan,
							upsert->clear_sql, PPL_GONE_RELATION,
							upsert->gone_desc, ppl_program_store(), 1);
		if (upsert->output->keeps)
			ppl_kept_clear(upsert->output->output_id);
		ppl_outcome_cleared(ordinal, i);
	}
	MemoryContextDelete(MemoryContextSwitchTo(oldcontext));
}
