/*
 * run.c
 *		Run events of a batch through the statement, and take them back if need be.
 *
 * Runs in the batch's transaction, as the owner.  Throws nothing of the events
 * from a subtransaction: their errors are returned.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/mark.h"
#include "worker/hand.h"
#include "worker/judge.h"
#include "worker/outcome.h"
#include "worker/run.h"
#include "worker/upsert.h"

/*
 * An event that made several rows, some of which a validation rejected while
 * others were inserted, is rejected as a whole: run again without it.
 */
static void
check_atomicity(int first, int last)
{
	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		PplEventOutcome *outcome = ppl_outcome_of(ordinal);

		if (outcome->fate != PPL_FATE_REJECTED || outcome->rows == NULL)
			continue;
		outcome->excluded = true;
		ppl_outcome_set_current(ordinal);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("some rows of an event were rejected")));
	}
}

/* Run events among which no truncate is that matters. */
static void
run_stretch(PplWorker *worker, const PplBatch *batch, int first, int last)
{
	if (first > last)
		return;
	ppl_upsert_begin(worker->program);
	ppl_program_run(worker->program, batch, first, last,
					ppl_outcome_excluded);
	ppl_outcome_clear_current();
	check_atomicity(first, last);
	ppl_upsert_apply(worker, batch, first, last);
	ppl_hand_note(worker, batch, first, last);
	ppl_outcome_clear_current();
}

/*
 * Run the statement over some events, but for those that are excluded.  What
 * is checked at the end of a transaction only is left for
 * ppl_run_check_constraints.
 */
void
ppl_run_events(PplWorker *worker, const PplBatch *batch, int first, int last)
{
	int			begin = first;

	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		if (!worker->program->statement->has_upserts ||
			!PPL_EVENT_CLEARS(&batch->events[ordinal - 1]))
			continue;
		run_stretch(worker, batch, begin, ordinal - 1);
		if (!ppl_outcome_excluded(ordinal))
			ppl_upsert_truncate(worker, ordinal);
		begin = ordinal + 1;
	}
	run_stretch(worker, batch, begin, last);
}

static void
set_constraints(bool deferred)
{
	ConstraintsSetStmt *all = makeNode(ConstraintsSetStmt);

	all->deferred = deferred;
	AfterTriggerSetState(all);
}

/*
 * Have deferred constraints and triggers run now, as SET CONSTRAINTS ALL
 * IMMEDIATE does, and from now on at the end of each statement.  No event is
 * the current one for their errors.
 */
void
ppl_run_check_constraints(void)
{
	ppl_outcome_clear_current();
	set_constraints(false);
}

/*
 * Defer them again.  Also constraints that are checked at the end of a statement
 * by default: a transaction of the source is taken in several statements when
 * one of its events fails, and must not fail because of that.
 */
void
ppl_run_defer_constraints(void)
{
	set_constraints(true);
}

/*
 * Do some work in a subtransaction, which is taken back if that fails, or in any
 * case unless it is kept.  NULL if it went through, else the error, in context.
 */
ErrorData *
ppl_run_subtransaction(MemoryContext context, bool keep, PplRunWork work,
					   void *arg)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		work(arg);
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ppl_mark_clear();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return error;
}

/*
 * The same with some work on the events first to last; the error is in the
 * batch's memory.  What was noted of the events before it is forgotten, and of
 * the failed run only the tallies.
 */
ErrorData *
ppl_run_in_subtransaction(const PplBatch *batch, int first, int last, bool keep,
						  PplRunWork work, void *arg)
{
	PplStageTally *tallies = ppl_outcome_save_tallies();
	ErrorData  *error;

	ppl_outcome_reset(first, last);
	error = ppl_run_subtransaction(batch->scratch, keep, work, arg);
	if (error != NULL || !keep)
		ppl_outcome_restore_tallies(tallies);
	pfree(tallies);
	return error;
}

/* Some events of a batch. */
typedef struct Part
{
	PplWorker  *worker;
	const PplBatch *batch;
	int			first;
	int			last;
} Part;

static void
run_part(void *arg)
{
	Part	   *part = arg;

	ppl_run_events(part->worker, part->batch, part->first, part->last);
}

static void
run_and_check_part(void *arg)
{
	ppl_run_defer_constraints();
	run_part(arg);
	ppl_run_check_constraints();
}

/*
 * Run some events, with the checks of the end or without.  NULL if they went
 * through; otherwise nothing of them is left but the error, in the batch's
 * memory.
 */
ErrorData *
ppl_run_try(PplWorker *worker, const PplBatch *batch, int first, int last,
			bool check)
{
	Part		part = {worker, batch, first, last};
	ErrorData  *error;

	error = ppl_run_in_subtransaction(batch, first, last, true,
									  check ? run_and_check_part : run_part,
									  &part);
	if (error != NULL)
		ppl_program_trim_error(worker->program, error);
	return error;
}

/*
 * Would this event go through, with the checks of the end or without?  NULL or
 * the error, in the batch's memory.  Nothing of it is left but what was noted of
 * how far it came, until the next ppl_outcome_reset.
 */
ErrorData *
ppl_run_probe(PplWorker *worker, const PplBatch *batch, int ordinal, bool check)
{
	Part		part = {worker, batch, ordinal, ordinal};
	ErrorData  *error =
	ppl_run_in_subtransaction(batch, ordinal, ordinal, false,
							  check ? run_and_check_part : run_part, &part);

	/* a deadlock, or a cancel, says nothing about the event */
	if (error != NULL && ppl_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT)
		ReThrowError(error);
	return error;
}
