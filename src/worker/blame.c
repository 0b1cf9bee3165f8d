/*
 * blame.c
 *		Whose fault is an error: run a batch in parts.
 *
 * Runs in a worker, in the batch's transaction.  A batch that failed as a whole
 * is run again in parts, each in a subtransaction, until every event has either
 * gone through or been blamed.  The event that the statement worked on when the
 * error was raised is tried alone first; if it is innocent, or none was, parts
 * are halved.  Parts are always taken in event order.
 */
#include "postgres.h"
#include "base/compat.h"

#include "miscadmin.h"

#include "worker/blame.h"
#include "worker/judge.h"
#include "worker/outcome.h"
#include "worker/policy.h"
#include "worker/run.h"

/* Judgement of a batch under way. */
typedef struct Trial
{
	PplWorker  *worker;
	const PplBatch *batch;
	int			passed;			/* events that went through, or would */
} Trial;

/*
 * An event whose run was rolled back did enter the stages up to the one that
 * failed, or that rejected it.
 */
static void
tally_passage(const Trial *trial, int stage)
{
	int			nstages = list_length(trial->worker->program->pipeline->stages);

	for (int i = 1; i <= (stage > 0 ? stage : nstages); i++)
	{
		ppl_outcome_tally(i)->events++;
		if (i != stage)
			ppl_outcome_tally(i)->rows++;
	}
}

/*
 * Does any event go through?  Asked when the first ones fail with an error that
 * looks like one of the environment: two later ones are tried, and taken back.
 */
static bool
others_pass(Trial *trial, int ordinal)
{
	int			last = trial->batch->nevents;
	int			probes[] = {last, ordinal + (last - ordinal) / 2};

	for (int i = 0; i < lengthof(probes) && trial->passed == 0; i++)
	{
		if (probes[i] > ordinal &&
			ppl_run_probe(trial->worker, trial->batch, probes[i]))
			trial->passed++;
	}
	return trial->passed > 0;
}

/*
 * Blame one event, which was tried alone.  An error of the environment is put
 * on an event only if others go through, and thrown otherwise.
 */
static void
blame(Trial *trial, int ordinal, ErrorData *error)
{
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);

	/* some of its rows were rejected: that is decided already */
	if (outcome->excluded)
	{
		tally_passage(trial, outcome->stage);
		return;
	}
	outcome->stage = ppl_outcome_current_stage();
	if (ppl_judge(error->sqlerrcode) == PPL_VERDICT_ENVIRONMENT &&
		!others_pass(trial, ordinal))
		ReThrowError(error);
	outcome->fate = PPL_FATE_FAILED;
	outcome->excluded = true;
	outcome->error = error;
	tally_passage(trial, outcome->stage);
	ppl_outcome_tally(outcome->stage)->errors++;	/* 0 is nobody's */
}

/* Try some events; errors that are nobody's fault are thrown. */
static ErrorData *
try(Trial *trial, int first, int last)
{
	ErrorData  *error = ppl_run_try(trial->worker, trial->batch, first, last);

	CHECK_FOR_INTERRUPTS();
	if (error == NULL)
		trial->passed += last - first + 1;
	else if (ppl_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT)
		ReThrowError(error);
	return error;
}

/*
 * Run a batch in parts.  Afterwards every event is either run or excluded, up to
 * one for which the batch is to be cut (policy.c).
 * Throws the error if it is one of the environment or of the moment.
 */
void
ppl_blame_run(PplWorker *worker, const PplBatch *batch)
{
	Trial		trial = {worker, batch, 0};
	int			first = 1;
	int			size = batch->nevents;

	while (first <= batch->nevents)
	{
		int			last = Min(first + size - 1, batch->nevents);
		ErrorData  *error = try(&trial, first, last);
		int			suspect = ppl_outcome_current();

		if (error == NULL)
		{
			first = last + 1;
			size = Min(size * 2, batch->nevents);
			continue;
		}
		if (first == last)
		{
			blame(&trial, first, error);
			if (ppl_policy_stops(worker, batch, first))
				return;
			first++;
			continue;
		}
		if (suspect < first || suspect > last)
		{
			size = (last - first + 1) / 2;
			continue;
		}

		/* Those before it, then itself, then the rest in parts as long. */
		size = Max(suspect - first, 1);
		if (suspect > first && try(&trial, first, suspect - 1) != NULL)
		{
			size = Max(size / 2, 1);
			continue;
		}
		if (ppl_outcome_excluded(suspect) ||
			(error = try(&trial, suspect, suspect)) != NULL)
		{
			blame(&trial, suspect, error);
			if (ppl_policy_stops(worker, batch, suspect))
				return;
		}
		first = suspect + 1;
		size = Max(size * 2, 2);
	}
}
