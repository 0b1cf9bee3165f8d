/*
 * outcome.c
 *		What became of each event of a batch.
 *
 * Runs in a worker, called by the executor for every row that comes by a fence
 * of the compiled statement: a few loads and stores each, no allocation but
 * for keys and reasons.  Everything lives in the batch's memory context, which
 * outlives the transaction that is rolled back; ppl_outcome_reset takes back
 * what a rolled back run noted.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/supportnodes.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/mark.h"
#include "worker/outcome.h"

PPL_FUNCTION(pipeline_accept);
PPL_FUNCTION(pipeline_pass_bool);
PPL_FUNCTION(pipeline_pass_text);
PPL_FUNCTION(pipeline_reach);
PPL_FUNCTION(pipeline_mark);
PPL_FUNCTION(pipeline_write);
PPL_FUNCTION(pipeline_produced);
PPL_FUNCTION(pipeline_removed);
PPL_FUNCTION(pipeline_note_support);

/* State of the batch under way. */
static struct
{
	MemoryContext context;		/* NULL = no batch */
	int			nevents;
	int			nstages;
	bool		want_keys;
	PplEventOutcome *events;	/* by ordinal, from 1 */
	PplStageTally *tallies;		/* by stage, from 1 */
	int			current;		/* ordinal, 0 = none */
	bool		unpacking;		/* its row is made, for the first stage */
	int			current_stage;	/* stage that works on it, nstages + 1 =
								 * output */
	int			current_output; /* number of the output of the last _mark */
	uint32		moves;			/* counts each change of the two, for
								 * timeout.c */
	instr_time	since;			/* when current_stage began */
	instr_time *spent;			/* by stage, if this batch is timed; else NULL */
}			self;

/*
 * The event that a fence names; an error outside a worker's statement.  Whatever runs
 * next may write, so that must not be marked.
 */
static inline PplEventOutcome *
event_at(int32 ordinal)
{
	if (unlikely(self.context == NULL || ordinal < 1 || ordinal > self.nevents))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this function belongs to the statement of a pipeline"),
				 errhint("It can be called by the worker of a pipeline only.")));
	ppl_mark_clear();
	return &self.events[ordinal];
}

/*
 * A batch of nevents begins; all it notes goes to context.  Keys of produced
 * rows are kept if want_keys; the time that each stage takes is measured if
 * timed.
 */
void
ppl_outcome_begin(MemoryContext context, int nevents, int nstages,
				  bool want_keys, bool timed)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);

	self.context = context;
	self.nevents = nevents;
	self.nstages = nstages;
	self.want_keys = want_keys;
	self.events = MemoryContextAllocExtended(context,
											 mul_size(nevents + 1, sizeof(PplEventOutcome)),
											 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	self.tallies = palloc0((nstages + 2) * sizeof(PplStageTally));
	self.spent = NULL;
	if (timed)
	{
		self.spent = palloc0((nstages + 2) * sizeof(instr_time));
		INSTR_TIME_SET_CURRENT(self.since);
	}
	self.current = 0;
	self.unpacking = false;
	self.current_stage = 0;
	self.current_output = -1;
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Add the time that was measured to the tallies, scaled up by scale.
 */
void
ppl_outcome_add_times(int scale)
{
	if (self.spent == NULL)
		return;
	for (int stage = 1; stage <= self.nstages; stage++)
		self.tallies[stage].microseconds +=
			scale * INSTR_TIME_GET_MICROSEC(self.spent[stage]);
}

/*
 * Forget what was noted of the events first to last, because the run that
 * noted it was rolled back; but not the fate of those that are excluded.
 */
void
ppl_outcome_reset(int first, int last)
{
	for (int i = first; i <= last; i++)
	{
		PplEventOutcome *event = &self.events[i];

		event->rows = event->last_row = event->removed = NULL;
		if (event->excluded)
			continue;
		event->reached = 0;
		event->fate = PPL_FATE_OPEN;
		event->reason = NULL;
	}
	self.current = 0;
	self.unpacking = false;
	self.current_stage = 0;
}

/*
 * Must this event be left out of the next run?
 */
bool
ppl_outcome_excluded(int ordinal)
{
	return self.events[ordinal].excluded;
}

PplEventOutcome *
ppl_outcome_of(int ordinal)
{
	return &self.events[ordinal];
}

/*
 * Error 55000 unless there is a batch under way with an event of this ordinal.
 */
void
ppl_outcome_require(int ordinal)
{
	(void) event_at(ordinal);
}

PplStageTally *
ppl_outcome_tally(int stage)
{
	return &self.tallies[stage];
}

/*
 * Ordinal of the event that was worked on last; 0 if unknown.
 */
int
ppl_outcome_current(void)
{
	return self.current;
}

/*
 * The stage that worked on it; 0 = an output.
 */
int
ppl_outcome_current_stage(void)
{
	return self.current_stage > self.nstages ? 0 : self.current_stage;
}

/*
 * Changes whenever a stage goes to work on an event.
 */
uint32
ppl_outcome_moves(void)
{
	return self.moves;
}

/*
 * This event is to be blamed for the error that comes now.
 */
void
ppl_outcome_set_current(int ordinal)
{
	self.current = ordinal;
}

/*
 * The row of this event is made, before any stage sees it; 0 = of none any more.
 */
void
ppl_outcome_unpack(int ordinal)
{
	self.current = ordinal;
	self.unpacking = ordinal != 0;
}

/*
 * Did the last error come while the row of the current event was made?
 */
bool
ppl_outcome_unpacking(void)
{
	return self.unpacking;
}

/*
 * From here on no event is to be blamed for an error, which would be one of
 * the outputs.
 */
void
ppl_outcome_clear_current(void)
{
	ppl_mark_clear();
	self.current = 0;
	self.unpacking = false;
	self.current_stage = self.nstages + 1;
	self.moves++;
}

/*
 * The output whose rows are made, from the transform on; -1 if the event was in
 * a stage, or if none is known.
 */
int
ppl_outcome_current_output(void)
{
	return self.current != 0 && self.current_stage > self.nstages ?
		self.current_output : -1;
}

/*
 * The tallies before a run that may be rolled back, to be freed by the caller.
 */
PplStageTally *
ppl_outcome_save_tallies(void)
{
	Size		size = (self.nstages + 2) * sizeof(PplStageTally);
	PplStageTally *saved = palloc(size);

	memcpy(saved, self.tallies, size);
	return saved;
}

/*
 * Take the tallies back to what they were.
 */
void
ppl_outcome_restore_tallies(const PplStageTally *saved)
{
	memcpy(self.tallies, saved, (self.nstages + 2) * sizeof(PplStageTally));
}

/*
 * The batch is over; its memory is about to go.
 */
void
ppl_outcome_end(void)
{
	self.context = NULL;
	self.events = NULL;
	self.current = 0;
}

/* A stage goes to work on an event; the time until now was its predecessor's. */
static inline void
switch_to(int32 ordinal, int stage)
{
	if (self.spent)
	{
		instr_time	now;

		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_ACCUM_DIFF(self.spent[self.current_stage], now, self.since);
		self.since = now;
	}
	self.current = ordinal;
	self.current_stage = stage;
	self.moves++;
}

/* The stage after this fence goes to work on an event. */
static inline void
enter(int32 ordinal, int stage)
{
	switch_to(ordinal, stage);
	self.tallies[stage].events++;
}

/*
 * pipeline._accept(ordinal): an event enters the first stage.
 */
Datum
pipeline_accept(PG_FUNCTION_ARGS)
{
	int32		ordinal = PG_GETARG_INT32(0);

	(void) event_at(ordinal);
	enter(ordinal, 1);
	PG_RETURN_BOOL(true);
}

static bool
pass(int32 ordinal, int32 stage, bool valid, const char *reason)
{
	PplEventOutcome *event = event_at(ordinal);

	if (stage < 1 || stage > self.nstages)
		elog(ERROR, "stage %d is out of range", stage);
	if (valid)
	{
		event->reached = Max(event->reached, stage);
		self.tallies[stage].rows++;
		enter(ordinal, stage + 1);
		return true;
	}
	if (event->fate == PPL_FATE_OPEN)
	{
		event->fate = PPL_FATE_REJECTED;
		event->stage = stage;
		event->reason = reason ? MemoryContextStrdup(self.context, reason) : NULL;
	}
	return false;
}

/*
 * pipeline._pass(ordinal, stage, valid boolean): NULL counts as not valid.
 */
Datum
pipeline_pass_bool(PG_FUNCTION_ARGS)
{
	bool		valid = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);

	PG_RETURN_BOOL(pass(PG_GETARG_INT32(0), PG_GETARG_INT32(1), valid,
						PG_ARGISNULL(2) ? "validation returned null" :
						"validation returned false"));
}

/*
 * pipeline._pass(ordinal, stage, reason text): NULL is valid.
 */
Datum
pipeline_pass_text(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(2))
		PG_RETURN_BOOL(pass(PG_GETARG_INT32(0), PG_GETARG_INT32(1), true, NULL));
	PG_RETURN_BOOL(pass(PG_GETARG_INT32(0), PG_GETARG_INT32(1), false,
						text_to_cstring(PG_GETARG_TEXT_PP(2))));
}

/*
 * pipeline._reach(ordinal, stage): the stage made a row of this event.
 */
Datum
pipeline_reach(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pass(PG_GETARG_INT32(0), PG_GETARG_INT32(1), true, NULL));
}

/*
 * A row of this event goes to this output.
 */
void
ppl_outcome_to_output(int ordinal, int output)
{
	(void) event_at(ordinal);
	switch_to(ordinal, self.nstages + 1);
	self.current_output = output;
}

/*
 * pipeline._mark(ordinal, output): the row goes to this output; the one that is
 * written or removed next is for this event.  A third argument is there for the
 * planner only.
 */
Datum
pipeline_mark(PG_FUNCTION_ARGS)
{
	ppl_outcome_to_output(PG_GETARG_INT32(0), PG_GETARG_INT32(1));
	PG_RETURN_BOOL(true);
}

/*
 * pipeline._write(ordinal, output, key): the same, and the row is marked if the key
 * is right.  A fourth argument is there for the planner only.
 */
Datum
pipeline_write(PG_FUNCTION_ARGS)
{
	ppl_outcome_to_output(PG_GETARG_INT32(0), PG_GETARG_INT32(1));
	if (!PG_ARGISNULL(2))
		ppl_mark_set(PG_GETARG_INT64(2));
	PG_RETURN_BOOL(true);
}

/* Output functions of a _produced() call's key columns. */
typedef struct KeyOutput
{
	int			nkeys;
	FmgrInfo   *functions;
} KeyOutput;

static KeyOutput *
key_output(FunctionCallInfo fcinfo)
{
	KeyOutput  *output = fcinfo->flinfo->fn_extra;

	if (output == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		output = palloc0(sizeof(*output));
		output->nkeys = PG_NARGS() - 1;
		output->functions = palloc0(output->nkeys * sizeof(FmgrInfo));
		for (int i = 0; i < output->nkeys; i++)
		{
			Oid			function;
			bool		is_varlena;

			getTypeOutputInfo(get_fn_expr_argtype(fcinfo->flinfo, i + 1),
							  &function, &is_varlena);
			fmgr_info(function, &output->functions[i]);
		}
		fcinfo->flinfo->fn_extra = output;
		MemoryContextSwitchTo(oldcontext);
	}
	return output;
}

static void
add_row(PplEventOutcome *event, PplProducedRow *row)
{
	if (event->last_row)
		event->last_row->next = row;
	else
		event->rows = row;
	event->last_row = row;
}

static bool
same_key(const PplProducedRow *a, const PplProducedRow *b)
{
	if (a->output != b->output || a->nkeys != b->nkeys)
		return false;
	for (int i = 0; i < a->nkeys; i++)
	{
		if ((a->key[i] == NULL) != (b->key[i] == NULL) ||
			(a->key[i] != NULL && strcmp(a->key[i], b->key[i]) != 0))
			return false;
	}
	return true;
}

/* A row that is removed is noted once, however it was found. */
static void
add_removed(PplEventOutcome *event, PplProducedRow *row)
{
	for (PplProducedRow *other = event->removed; other != NULL; other = other->next)
	{
		if (same_key(other, row))
			return;
	}
	row->next = event->removed;
	event->removed = row;
}

/* A row, with the key that the call of _produced or _removed has. */
static PplProducedRow *
row_of_call(FunctionCallInfo fcinfo, PplRowChange change)
{
	PplProducedRow *row = MemoryContextAllocZero(self.context, sizeof(*row));

	row->change = change;
	row->output = PG_GETARG_INT32(0);
	if (self.want_keys && PG_NARGS() > 1)
	{
		KeyOutput  *output = key_output(fcinfo);
		MemoryContext oldcontext = MemoryContextSwitchTo(self.context);

		row->nkeys = output->nkeys;
		row->key = palloc0(output->nkeys * sizeof(char *));
		for (int i = 0; i < output->nkeys; i++)
		{
			if (!PG_ARGISNULL(i + 1))
				row->key[i] = OutputFunctionCall(&output->functions[i],
												 PG_GETARG_DATUM(i + 1));
		}
		MemoryContextSwitchTo(oldcontext);
	}
	return row;
}

/*
 * pipeline._produced(output, VARIADIC key "any"): a row was written.
 */
Datum
pipeline_produced(PG_FUNCTION_ARGS)
{
	PplEventOutcome *event = event_at(self.current);

	add_row(event, row_of_call(fcinfo, PPL_ROW_WRITTEN));
	PG_RETURN_BOOL(true);
}

/*
 * pipeline._removed(output, VARIADIC key "any"): a row was removed.
 */
Datum
pipeline_removed(PG_FUNCTION_ARGS)
{
	PplEventOutcome *event = event_at(self.current);

	add_removed(event, row_of_call(fcinfo, PPL_ROW_REMOVED));
	PG_RETURN_BOOL(true);
}

/*
 * Are keys of rows to be kept?
 */
bool
ppl_outcome_wants_keys(void)
{
	return self.want_keys;
}

/*
 * An event removed all rows of an output.
 */
void
ppl_outcome_cleared(int ordinal, int output)
{
	PplProducedRow *row = MemoryContextAllocZero(self.context, sizeof(*row));

	row->change = PPL_ROW_CLEARED;
	row->output = output;
	add_row(event_at(ordinal), row);
}

/*
 * What an event did to the row of a key, which nobody sees as another event of the
 * batch did more to it.  key is not copied.
 */
void
ppl_outcome_unseen(int ordinal, int output, PplRowChange change, int nkeys,
				   char **key)
{
	PplProducedRow *row = MemoryContextAllocZero(self.context, sizeof(*row));

	row->change = change;
	row->output = output;
	row->nkeys = nkeys;
	row->key = key;
	if (change == PPL_ROW_REMOVED)
		add_removed(event_at(ordinal), row);
	else
		add_row(event_at(ordinal), row);
}

/*
 * A row of an event is handed over.  tuple is not copied.
 */
void
ppl_outcome_handed(int ordinal, int output, HeapTuple tuple)
{
	PplEventOutcome *event = event_at(ordinal);
	PplProducedRow *row = MemoryContextAllocZero(self.context, sizeof(*row));

	row->change = PPL_ROW_WRITTEN;
	row->output = output;
	row->handed = tuple;
	add_row(event, row);
}

/*
 * pipeline._note_support(internal): the fences let nearly everything through;
 * the default guess would have later joins planned for a third of the rows.
 */
Datum
pipeline_note_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}
