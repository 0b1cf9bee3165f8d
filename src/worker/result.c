/*
 * result.c
 *		From the outcomes of a batch to its counts, lineage and dead letters.
 *
 * Runs in the batch's transaction, after the last user code of a chunk, but for
 * the rendering of dead letters and keys, which is the owner's and done first;
 * what is stored then is ours, elevated (deadletter.c, checkpoint.c).
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "utils/lsyscache.h"

#include "worker/deadletter.h"
#include "worker/lineage.h"
#include "worker/old.h"
#include "worker/outcome.h"
#include "worker/policy.h"
#include "worker/result.h"
#include "worker/run.h"
#include "worker/supersede.h"

/* What is made of one batch. */
typedef struct BatchResult
{
	PplWorker  *worker;
	const PplBatch *batch;
	bool		redrive;
	int			noutputs;
	PplBatchRecord record;
	PplLineage *lineage;		/* NULL if none is kept */
	XLogRecPtr	txn_lsn;		/* transaction that the lineage is in */
	PplLineageValue *key;		/* of the source, scratch */
	FmgrInfo   *key_output;
	PplRendered *rendered;		/* of new dead letters, by ordinal */
} BatchResult;

static void settle_fate(const BatchResult *result, int ordinal);
static void begin_record(BatchResult *result, PplPosition before,
						 TimestampTz started_at, int attempts);
static void begin_lineage(BatchResult *result);
static PplLineageChange change_of(const PplProducedRow *row);
static void note_version(PplWorker *worker, const PplBatch *batch,
						 PplPosition before);
static void add_event(BatchResult *result, int ordinal);

/*
 * Store what became of a batch: dead letters, counts, lineage, checkpoint.
 * With redrive the events are dead letters, and the checkpoint stays.
 */
void
ppl_result_store(PplWorker *worker, const PplBatch *batch, bool redrive,
				 PplPosition before, TimestampTz started_at, int attempts)
{
	PplPipeline *pipeline = worker->program->pipeline;
	PplStatement *statement = worker->program->statement;
	MemoryContext oldcontext = MemoryContextSwitchTo(batch->scratch);
	BatchResult result;
	PplLetterKeys *keys;
	int64		batch_id;

	memset(&result, 0, sizeof(result));
	result.worker = worker;
	result.batch = batch;
	result.redrive = redrive;
	result.noutputs = statement->noutputs + (statement->hand != NULL);
	begin_record(&result, before, started_at, attempts);
	if (pipeline->lineage)
		begin_lineage(&result);

	/* User code may still run here: output functions, casts to json. */
	result.rendered =
		MemoryContextAllocExtended(batch->scratch,
								   mul_size(batch->nevents + 1, sizeof(PplRendered)),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
	{
		settle_fate(&result, ordinal);
		if (!redrive && ppl_policy_leaves_letter(worker, batch, ordinal))
			result.rendered[ordinal] =
				ppl_render_event(worker->program, &batch->events[ordinal - 1]);
		add_event(&result, ordinal);
	}

	keys = ppl_supersede_letters(worker, batch, redrive);

	/* From here on everything is ours. */
	ppl_deadletter_store(worker, batch, result.rendered, keys);
	if (result.lineage && result.txn_lsn != InvalidXLogRecPtr)
		result.record.lineage = ppl_lineage_finish(result.lineage);
	if (!redrive)
		note_version(worker, batch, before);
	batch_id = ppl_checkpoint_record(&result.record);
	if (redrive)
		ppl_deadletter_redriven(worker, batch, batch_id);
	MemoryContextSwitchTo(oldcontext);
}

/* Where the versions of the stages that run now begin, as far as this worker goes. */
static void
note_version(PplWorker *worker, const PplBatch *batch, PplPosition before)
{
	const PplPipeline *pipeline = worker->program->pipeline;

	if (worker->code_version != pipeline->version)
		ppl_version_reached(pipeline, worker->code_version, before.commit_lsn,
							batch->txns[0].commit_lsn);
}

/*
 * An event without a row: the stage after the last one that passed it on lost
 * it.  For an enrichment that is a rejection.
 */
static void
settle_fate(const BatchResult *result, int ordinal)
{
	const PplProgram *program = result->worker->program;
	const PplPipeline *pipeline = program->pipeline;
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	PplStage   *stage;

	if (outcome->fate != PPL_FATE_OPEN || outcome->rows != NULL ||
		!ppl_program_takes(program, &result->batch->events[ordinal - 1]) ||
		outcome->reached >= list_length(pipeline->stages))
		return;
	stage = list_nth(pipeline->stages, outcome->reached);
	if (stage->kind != PPL_STAGE_ENRICH)
		return;
	outcome->fate = PPL_FATE_REJECTED;
	outcome->stage = outcome->reached + 1;
	outcome->reason = "no match";
}

static void
begin_record(BatchResult *result, PplPosition before, TimestampTz started_at,
			 int attempts)
{
	PplPipeline *pipeline = result->worker->program->pipeline;
	PplStatement *statement = result->worker->program->statement;
	const PplBatch *batch = result->batch;
	PplBatchRecord *record = &result->record;
	int			nstages = list_length(pipeline->stages);

	record->place = result->worker->place;
	record->version = result->worker->program->version;
	record->code_version = pipeline->version;
	record->redrive = result->redrive;
	record->before = before;
	record->position = batch->last;
	record->first.commit_lsn = batch->txns[0].commit_lsn;
	record->first.seq = batch->events[0].seq;
	record->transactions = batch->ntxns;
	record->attempts = attempts;
	record->started_at = started_at;
	record->noutputs = result->noutputs + 1;
	record->output_ids = palloc0(record->noutputs * sizeof(int));
	record->counts = palloc0(record->noutputs * sizeof(PplCounts));
	for (int i = 0; i < result->noutputs; i++)
		record->output_ids[i + 1] = i < statement->noutputs ?
			statement->outputs[i]->output_id : PPL_HAND_ID;
	record->nstages = nstages;
	record->stage_ids = palloc0(Max(nstages, 1) * sizeof(int));
	for (int i = 0; i < nstages; i++)
		record->stage_ids[i] = ((PplStage *) list_nth(pipeline->stages, i))->stage_id;
	record->tallies = ppl_outcome_tally(1);
}

static PplLineageColumn
key_column(const char *name, Oid type)
{
	PplLineageColumn column;

	column.name = name;
	column.kind = ppl_lineage_kind_of_type(getBaseType(type));
	return column;
}

static void
begin_lineage(BatchResult *result)
{
	PplProgram *program = result->worker->program;
	PplStatement *statement = program->statement;
	PplLineageHeader *header = palloc0(sizeof(*header));

	header->parts = program->pipeline->upstream != 0;
	header->source = program->pipeline->origin;
	header->nkeys = program->nkeys;
	header->keys = palloc0(Max(program->nkeys, 1) * sizeof(PplLineageColumn));
	result->key = palloc0(Max(program->nkeys, 1) * sizeof(PplLineageValue));
	result->key_output = palloc0(Max(program->nkeys, 1) * sizeof(FmgrInfo));
	for (int i = 0; i < program->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(program->source_desc,
											  program->key_attnums[i] - 1);
		Oid			function;
		bool		is_varlena;

		header->keys[i] = key_column(NameStr(att->attname), att->atttypid);
		getTypeOutputInfo(att->atttypid, &function, &is_varlena);
		fmgr_info(function, &result->key_output[i]);
	}

	header->noutputs = result->noutputs;
	header->outputs = palloc0(result->noutputs * sizeof(PplLineageOutput));
	if (statement->hand != NULL)
		header->outputs[statement->noutputs].name = program->pipeline->hand;
	for (int i = 0; i < statement->noutputs; i++)
	{
		PplLineageOutput *output = &header->outputs[i];

		output->name = statement->outputs[i]->name;
		output->nkeys = statement->output_nkeys[i];
		output->keys = palloc0(Max(output->nkeys, 1) * sizeof(PplLineageColumn));
		for (int j = 0; j < output->nkeys; j++)
			output->keys[j] = key_column(statement->output_keys[i][j],
										 statement->output_key_types[i][j]);
	}
	result->lineage = ppl_lineage_begin(result->batch->scratch, header);
}

/* A row, of which only the source's key is wanted. */
typedef struct KeyRow
{
	PplProgram *program;
	const PplEvent *event;
	const PplRow *row;
} KeyRow;

static void
read_key(void *arg)
{
	KeyRow	   *key = arg;

	key->row = ppl_row_today(key->program->rows, key->event->desc,
							 key->event->tuple, key->program->primary_key);
}

/* Did a column of the key have another type when the event was written? */
static bool
key_changed(const PplProgram *program, TupleDesc then)
{
	for (int i = 0; i < program->nkeys; i++)
	{
		int			column = program->key_attnums[i] - 1;

		if (column >= then->natts ||
			TupleDescAttr(then, column)->atttypid !=
			TupleDescAttr(program->source_desc, column)->atttypid)
			return true;
	}
	return false;
}

/*
 * Could it be that the key cannot be had?  It may not fit today's columns, or have
 * a value that was not logged.
 */
static bool
key_may_fail(const PplProgram *program, const PplEvent *event)
{
	return key_changed(program, event->desc) ||
		HeapTupleHasExternal(event->tuple);
}

/* Was the key of a row that was deleted logged? */
static bool
key_is_known(const PplProgram *program, const PplEvent *event)
{
	for (int i = 0; i < program->nkeys; i++)
	{
		if (!ppl_old_is_known(program, event, program->key_attnums[i] - 1))
			return false;
	}
	return true;
}

/*
 * Text of the source's key of an event; NULL without a key, or if it does not fit
 * today's columns, or was not logged.
 */
static PplLineageValue *
source_key(BatchResult *result, const PplEvent *event)
{
	PplProgram *program = result->worker->program;
	KeyRow		key = {program, event, NULL};
	const PplRow *row;

	if (program->nkeys == 0 || event->tuple == NULL)
		return NULL;
	if (event->kind == PPL_REC_DELETE && !key_is_known(program, event))
		return NULL;
	if (key_may_fail(program, event))
		(void) ppl_run_subtransaction(CurrentMemoryContext, true, read_key, &key);
	else
		read_key(&key);
	row = key.row;
	if (row == NULL)
		return NULL;
	for (int i = 0; i < program->nkeys; i++)
	{
		int			column = program->key_attnums[i] - 1;

		if (event->kind == PPL_REC_DELETE &&
			!ppl_old_is_known(program, event, column))
			return NULL;
		result->key[i].text = NULL;
		result->key[i].len = 0;
		if (row->nulls[column])
			continue;
		result->key[i].text = OutputFunctionCall(&result->key_output[i],
												 row->values[column]);
		result->key[i].len = strlen(result->key[i].text);
	}
	return result->key;
}

static void
count(PplCounts *counts, PplFate fate, bool produced)
{
	counts->events++;
	if (fate == PPL_FATE_REJECTED)
		counts->rejected++;
	else if (fate == PPL_FATE_FAILED)
		counts->failed++;
	else if (produced)
		counts->produced++;
	else
		counts->filtered++;
}

/*
 * A redriven event was counted when it became a dead letter: take that back in
 * the pipeline's own row and in the outputs that there were at the time.
 */
static void
uncount(BatchResult *result, const PplEvent *event)
{
	PplStatement *statement = result->worker->program->statement;

	for (int i = 0; i <= result->noutputs; i++)
	{
		PplCounts  *counts = &result->record.counts[i];

		if (i > statement->noutputs ? !event->was_handing :
			i > 0 && statement->outputs[i - 1]->since > event->dead_letter_version)
			continue;
		counts->events--;
		if (event->was_rejected)
			counts->rejected--;
		else
			counts->failed--;
	}
}

/* Rows of an event in an output: true if there are any. */
static bool
add_rows(BatchResult *result, int output, const PplProducedRow *rows)
{
	PplStatement *statement = result->worker->program->statement;
	bool		any = false;

	for (const PplProducedRow *row = rows; row != NULL; row = row->next)
	{
		PplLineageValue values[INDEX_MAX_KEYS];

		if (row->output != output)
			continue;
		any = true;
		if (result->lineage == NULL)
			break;
		if (row->change == PPL_ROW_CLEARED)
		{
			ppl_lineage_output(result->lineage, output, PPL_LINEAGE_PRODUCED);
			continue;
		}
		for (int j = 0; output < statement->noutputs &&
			 j < statement->output_nkeys[output]; j++)
		{
			/* a handler may have called _produced with another key */
			values[j].text = j < row->nkeys ? row->key[j] : NULL;
			values[j].len = values[j].text ? strlen(values[j].text) : 0;
		}
		ppl_lineage_row(result->lineage, output, change_of(row), values);
	}
	return any;
}

static PplLineageChange
change_of(const PplProducedRow *row)
{
	switch (row->change)
	{
		case PPL_ROW_WRITTEN:
		case PPL_ROW_CLEARED:
			return PPL_LINEAGE_WRITTEN;
		case PPL_ROW_SUPERSEDED:
			return PPL_LINEAGE_SUPERSEDED;
		case PPL_ROW_REMOVED:
			return PPL_LINEAGE_REMOVED;
	}
	pg_unreachable();
}

/* Count an event and add it to the lineage. */
static void
add_event(BatchResult *result, int ordinal)
{
	const PplBatch *batch = result->batch;
	const PplEvent *event = &batch->events[ordinal - 1];
	const PplOriginId *origin = &event->origin;
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	PplProducedRow *rows = outcome->fate == PPL_FATE_OPEN ? outcome->rows : NULL;
	PplProducedRow *removed = outcome->fate == PPL_FATE_OPEN ? outcome->removed : NULL;
	int			attempts = event->attempts + 1;

	/* it is an event of another partition */
	if (event->concern != PPL_CONCERN_ALL)
		return;
	if (result->redrive)
		uncount(result, event);
	count(&result->record.counts[0], outcome->fate,
		  rows != NULL || removed != NULL);
	if (result->lineage)
	{
		if (result->txn_lsn != origin->commit_lsn)
			ppl_lineage_transaction(result->lineage, origin->xid,
									origin->commit_lsn, origin->committed_at);
		result->txn_lsn = origin->commit_lsn;
		ppl_lineage_event(result->lineage, origin->seq, origin->part,
						  event->kind, attempts,
						  source_key(result, event),
						  outcome->fate == PPL_FATE_FAILED ?
						  outcome->error->message : event->superseded ?
						  "superseded" : outcome->reason);
	}

	for (int i = 0; i < result->noutputs; i++)
	{
		bool		produced = false;

		produced |= add_rows(result, i, rows);
		produced |= add_rows(result, i, removed);
		count(&result->record.counts[i + 1], outcome->fate, produced);
		if (result->lineage && outcome->fate != PPL_FATE_OPEN)
			ppl_lineage_output(result->lineage, i,
							   outcome->fate == PPL_FATE_REJECTED ?
							   PPL_LINEAGE_REJECTED : PPL_LINEAGE_FAILED);
	}
}
