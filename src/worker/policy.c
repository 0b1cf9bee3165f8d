/*
 * policy.c
 *		What follows from the failures of a batch.
 *
 * Runs in a worker, after the events of a chunk were run and blamed: which
 * events become dead letters, and how much of the batch may be committed before
 * the pipeline has to stop, because a stage halts it or the breaker opens.
 */
#include "postgres.h"
#include "base/compat.h"

#include "utils/builtins.h"

#include "worker/breaker.h"
#include "worker/outcome.h"
#include "worker/policy.h"

#define PPL_FAILURE_LEN 200

/* State of this worker. */
static struct
{
	int64		letters;		/* that committed batches left */
	int64		pending;		/* that this one leaves */
	char		last_failure[PPL_FAILURE_LEN];
}			self;

/* The stage that an event failed or was rejected in; NULL = an output. */
static const PplStage *
stage_of(const PplWorker *worker, const PplEventOutcome *outcome)
{
	if (outcome->stage == 0)
		return NULL;
	return list_nth(worker->program->pipeline->stages, outcome->stage - 1);
}

/*
 * Does this event become, or stay, a dead letter?  One that a stage skips does
 * not; but a dead letter that is run again in vain is left for another time.
 */
bool
ppl_policy_leaves_letter(const PplWorker *worker, const PplBatch *batch,
						 int ordinal)
{
	const PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	const PplStage *stage;

	if (batch->events[ordinal - 1].concern != PPL_CONCERN_ALL)
		return false;
	if (outcome->fate != PPL_FATE_FAILED)
		return outcome->fate == PPL_FATE_REJECTED;
	stage = stage_of(worker, outcome);
	return stage == NULL || stage->on_error != PPL_ON_ERROR_SKIP ||
		batch->events[ordinal - 1].dead_letter_id != 0;
}

/*
 * A batch begins; what one that was rolled back had added is forgotten.
 */
void
ppl_policy_begin(void)
{
	self.pending = 0;
	ppl_breaker_begin();
}

/*
 * Does an event fail to remove what its source row made before, where no dead letter may
 * owe that?  That of an event of another partition would be nobody's; and in a segment
 * behind, what it owes may be another worker's when their number has changed.
 */
static bool
owes_removal(const PplWorker *worker, const PplBatch *batch, int ordinal)
{
	return batch->events[ordinal - 1].concern == PPL_CONCERN_OLD_ROW ||
		(ppl_outcome_of(ordinal)->inert && !worker->reads_source &&
		 ppl_worker_portion(worker).workers > 1);
}

/* What a pipeline says that stands before an event. */
static ErrorData *
halt_error(const PplWorker *worker, const PplBatch *batch, int ordinal)
{
	const PplEvent *event = &batch->events[ordinal - 1];
	const PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	ErrorData  *error = palloc0(sizeof(*error));

	error->elevel = ERROR;
	error->sqlerrcode = outcome->error->sqlerrcode;
	if (owes_removal(worker, batch, ordinal))
		error->message = psprintf("what the source row of event (%X/%X, %u) made before cannot be removed: %s",
								  LSN_FORMAT_ARGS(event->origin.commit_lsn),
								  event->origin.seq, outcome->error->message);
	else
		error->message = psprintf("stage \"%s\" halts the pipeline at event (%X/%X, %u): %s",
								  stage_of(worker, outcome)->name,
								  LSN_FORMAT_ARGS(event->origin.commit_lsn),
								  event->origin.seq, outcome->error->message);
	error->detail = outcome->error->detail ?
		pstrdup(outcome->error->detail) : NULL;
	error->hint = psprintf(owes_removal(worker, batch, ordinal) ?
						   "Mend what is in the way in the output; SELECT pipeline.restart(%s); tries again at once." :
						   "Mend the stage; SELECT pipeline.restart(%s); tries again at once.",
						   quote_literal_cstr(worker->name));
	return error;
}

/*
 * Does the stage that this event failed in halt the pipeline?  So does a removal that no
 * dead letter may owe.
 */
static bool
halts(const PplWorker *worker, const PplBatch *batch, int ordinal)
{
	const PplStage *stage = stage_of(worker, ppl_outcome_of(ordinal));

	if (owes_removal(worker, batch, ordinal))
		return true;
	return stage != NULL && stage->on_error == PPL_ON_ERROR_HALT &&
		batch->events[ordinal - 1].dead_letter_id == 0;
}

/*
 * This event was just blamed, and all before it are settled.  Is the batch to be
 * cut because of it, so that there is no need to run the rest?
 */
bool
ppl_policy_stops(const PplWorker *worker, const PplBatch *batch, int ordinal)
{
	const PplEvent *event = &batch->events[ordinal - 1];

	if (ppl_outcome_of(ordinal)->fate != PPL_FATE_FAILED ||
		event->dead_letter_id != 0)
		return false;
	if (halts(worker, batch, ordinal))
		return true;
	return ppl_breaker_failed(ordinal) && event->txn + 1 < batch->ntxns;
}

/*
 * How many transactions of the batch may be committed: all, unless a stage
 * halts the pipeline before one (then *halt says so, in CurrentMemoryContext),
 * or the breaker opens with an event of one.
 */
int
ppl_policy_keep(const PplWorker *worker, const PplBatch *batch, ErrorData **halt)
{
	int			keep = batch->ntxns;

	ppl_breaker_again();
	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
	{
		const PplEventOutcome *outcome = ppl_outcome_of(ordinal);
		int			txn = batch->events[ordinal - 1].txn;
		const PplStage *stage;

		if (txn >= keep)
			break;
		if (outcome->fate != PPL_FATE_FAILED)
			continue;
		stage = stage_of(worker, outcome);
		if (halts(worker, batch, ordinal))
		{
			*halt = halt_error(worker, batch, ordinal);
			return txn;
		}
		snprintf(self.last_failure, sizeof(self.last_failure), "%s%s%s",
				 stage ? stage->name : "", stage ? ": " : "",
				 outcome->error->message);
		if (ppl_breaker_failed(ordinal))
			keep = txn + 1;
	}
	return keep;
}

/*
 * A chunk was run and stored.  Dead letters that were run again are none of the
 * stream of events, and are counted anew when it matters.
 */
void
ppl_policy_count(const PplWorker *worker, const PplBatch *batch, bool redrive)
{
	if (redrive)
		return;
	ppl_breaker_passed(batch->nevents);
	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
		self.pending += ppl_policy_leaves_letter(worker, batch, ordinal);
}

/*
 * The batch is committed.
 */
void
ppl_policy_commit(void)
{
	self.letters += self.pending;
	ppl_breaker_commit();
}

/*
 * How many dead letters batches have left since this was asked last.
 */
int64
ppl_policy_letters(void)
{
	int64		letters = self.letters;

	self.letters = 0;
	return letters;
}

/*
 * Stage and message of the last event that failed.
 */
const char *
ppl_policy_last_failure(void)
{
	return self.last_failure;
}
