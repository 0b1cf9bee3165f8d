/*
 * event.c
 *		What handlers see of an event beside its row: pipeline.event.
 *
 * Runs in a worker, called by the compiled statement for each handler that
 * takes the event.  Which batch is under way, outcome.c knows; between its
 * begin and end the pointers here are valid.  The last event is kept, since
 * several handlers may take it, and an inlined one may ask for it more than
 * once.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "worker/event.h"
#include "worker/outcome.h"
#include "worker/render.h"

PPL_FUNCTION(pipeline_event);
PPL_FUNCTION(pipeline_wants);

#define EVENT_COLUMNS 7

/* From PPL_REC_INSERT on. */
static const char *const operations[] = {"insert", "update", "delete", "truncate"};

/* State of the batch under way. */
static struct
{
	PplProgram *program;
	const PplBatch *batch;
	MemoryContext context;		/* of the last event, below the batch's */
	int			ordinal;		/* whose it is, 0 = none */
	Datum		value;
}			self;

/*
 * The events of this batch are about to be run.  Memory is that of the batch's
 * attempt, which ends with the outcomes.
 */
void
ppl_event_begin(PplProgram *program, const PplBatch *batch)
{
	self.program = program;
	self.batch = batch;
	self.context = AllocSetContextCreate(batch->scratch, "pipeline event",
										 ALLOCSET_SMALL_SIZES);
	self.ordinal = 0;
}

/*
 * The word for what an event did.
 */
const char *
ppl_event_operation(PplRecordKind kind)
{
	if (kind < PPL_REC_INSERT || kind > PPL_REC_TRUNCATE)
		elog(ERROR, "record kind %d is no event", kind);
	return operations[kind - PPL_REC_INSERT];
}

/*
 * The kind that such a word stands for.
 */
PplRecordKind
ppl_event_kind(const char *operation)
{
	for (int i = 0; i < lengthof(operations); i++)
	{
		if (strcmp(operation, operations[i]) == 0)
			return PPL_REC_INSERT + i;
	}
	elog(ERROR, "unexpected operation \"%s\"", operation);
	pg_unreachable();
}

/* The old row as jsonb; what goes wrong in it belongs to the event. */
static Datum
render_old(int ordinal)
{
	int			current = ppl_outcome_current();
	Datum		old;

	ppl_outcome_set_current(ordinal);
	old = ppl_render_old(self.program, &self.batch->events[ordinal - 1]);
	ppl_outcome_set_current(current);
	return old;
}

static Datum
make_event(int ordinal, TupleDesc desc)
{
	const PplEvent *event = &self.batch->events[ordinal - 1];
	Datum		values[EVENT_COLUMNS];
	bool		nulls[EVENT_COLUMNS] = {0};

	if (desc->natts != EVENT_COLUMNS)
		elog(ERROR, "type pipeline.event has %d columns", desc->natts);
	values[0] = CStringGetTextDatum(ppl_event_operation(event->kind));
	values[1] = LSNGetDatum(event->origin.commit_lsn);
	values[2] = Int32GetDatum((int32) event->origin.seq);
	values[3] = TransactionIdGetDatum(event->origin.xid);
	values[4] = TimestampTzGetDatum(event->origin.committed_at);
	values[5] = ObjectIdGetDatum(self.program->pipeline->origin);
	values[6] = render_old(ordinal);
	nulls[6] = values[6] == (Datum) 0;
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/* The type of the result, looked up once a call site. */
static TupleDesc
result_desc(FunctionCallInfo fcinfo)
{
	if (fcinfo->flinfo->fn_extra == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		TupleDesc	desc;

		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		fcinfo->flinfo->fn_extra = BlessTupleDesc(desc);
		MemoryContextSwitchTo(oldcontext);
	}
	return fcinfo->flinfo->fn_extra;
}

/*
 * pipeline._event(ordinal): an event of the batch under way.
 */
Datum
pipeline_event(PG_FUNCTION_ARGS)
{
	int32		ordinal = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);

	ppl_outcome_require(ordinal);
	if (ordinal != self.ordinal)
	{
		/* casts of the old row's columns may come here, too */
		Datum		value = make_event(ordinal, result_desc(fcinfo));
		MemoryContext oldcontext;

		self.ordinal = 0;
		MemoryContextReset(self.context);
		oldcontext = MemoryContextSwitchTo(self.context);
		self.value = datumCopy(value, false, -1);
		self.ordinal = ordinal;
		MemoryContextSwitchTo(oldcontext);
	}
	PG_RETURN_DATUM(datumCopy(self.value, false, -1));
}

/*
 * pipeline._wants(ordinal, output): not if it is a delete, and no handler on the
 * way to this output can tell.
 */
Datum
pipeline_wants(PG_FUNCTION_ARGS)
{
	int32		ordinal = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);
	int32		output = PG_ARGISNULL(1) ? -1 : PG_GETARG_INT32(1);
	const PplStatement *statement;

	ppl_outcome_require(ordinal);
	statement = self.program->statement;
	if (output < 0 || output >= statement->noutputs)
		elog(ERROR, "output %d is out of range", output);
	PG_RETURN_BOOL(self.batch->events[ordinal - 1].kind != PPL_REC_DELETE ||
				   statement->output_takes_deletes[output]);
}
