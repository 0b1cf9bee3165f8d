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

#include "worker/outcome.h"
#include "worker/run.h"

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

/*
 * Run the statement over some events, with all that can still fail because of
 * them before the commit.
 */
void
ppl_run_events(PplWorker *worker, const PplBatch *batch, int first, int last)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);

	ppl_program_run(worker->program, batch, first, last,
					ppl_outcome_excluded);
	ppl_outcome_clear_current();
	AfterTriggerSetState(immediate);
	check_atomicity(first, last);
}

/*
 * Run some events in a subtransaction, which is taken back if they fail, or in
 * any case unless they are kept.  NULL if they went through, else the error, in
 * the batch's memory.
 */
static ErrorData *
run_in_subtransaction(PplWorker *worker, const PplBatch *batch, int first,
					  int last, bool keep)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	ppl_outcome_reset(first, last);
	ppl_outcome_save_tallies();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		ppl_run_events(worker, batch, first, last);
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(batch->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	if (error != NULL || !keep)
		ppl_outcome_restore_tallies();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return error;
}

/*
 * Run some events.  NULL if they went through; otherwise nothing of them is
 * left but the error, in the batch's memory.
 */
ErrorData *
ppl_run_try(PplWorker *worker, const PplBatch *batch, int first, int last)
{
	return run_in_subtransaction(worker, batch, first, last, true);
}

/*
 * Would this event go through?  Nothing of it is left.
 */
bool
ppl_run_probe(PplWorker *worker, const PplBatch *batch, int ordinal)
{
	ErrorData  *error = run_in_subtransaction(worker, batch, ordinal, ordinal,
											  false);

	ppl_outcome_reset(ordinal, ordinal);
	return error == NULL;
}
