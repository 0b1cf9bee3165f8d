/*
 * witness.c
 *		Does what failed for one event work for others?
 *
 * Runs in a worker, in the batch's transaction.  An error such as "relation does
 * not exist" is most likely one of the environment, for which no event is to be
 * blamed; but code may raise it for one event only.  That is so if others get
 * through the same stage, or into the same output.
 */
#include "postgres.h"
#include "base/compat.h"

#include "miscadmin.h"

#include "worker/judge.h"
#include "worker/outcome.h"
#include "worker/run.h"
#include "worker/witness.h"

#define PPL_EVIDENCE_PROBES 8	/* so many failures are evidence enough */

/* A search for a witness. */
typedef struct Search
{
	PplWorker  *worker;
	const PplBatch *batch;
	int			ordinal;		/* of the event that failed */
	PplEventOutcome failed;		/* and where */
	bool		check;			/* when deferred constraints were checked */
	int			failures;		/* of those asked so far */
} Search;

/* Did an event get through what failed for another one? */
static bool
got_through(const PplEventOutcome *outcome, const PplEventOutcome *failed)
{
	if (failed->stage > 0)
		return outcome->reached >= failed->stage;
	for (PplProducedRow *row = outcome->rows; row != NULL; row = row->next)
	{
		if (failed->output < 0 || row->output == failed->output)
			return true;
	}
	return false;
}

/*
 * Try an event and take it back: does it get through what failed?  If it does
 * not, it is counted among the failures, unless it was stopped before without an
 * error.
 * An event whose rows are there already gets in its own way in the outputs,
 * where an error of its own shows as well that they work.
 */
static bool
is_witness(Search *search, int ordinal, bool is_there)
{
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	PplEventOutcome saved = *outcome;
	ErrorData  *error = ppl_run_probe(search->worker, search->batch, ordinal,
									  search->check);
	bool		passed = got_through(outcome, &search->failed);
	bool		own;			/* did it fail by itself? */

	*outcome = saved;
	CHECK_FOR_INTERRUPTS();
	if (error == NULL)
		return passed;
	own = ppl_judge(error->sqlerrcode) == PPL_VERDICT_EVENT;
	FreeErrorData(error);
	if (search->failed.stage > 0 ? passed : is_there && own)
		return true;
	search->failures++;
	return false;
}

/*
 * Is there a witness among the events after this one?  They are asked in rounds,
 * spread evenly, until enough have failed themselves; earlier stages may stop
 * nearly all of them.
 */
static bool
later_witness(Search *search)
{
	int			ordinal = search->ordinal;
	int			later = search->batch->nevents - ordinal;

	for (int64 round = PPL_EVIDENCE_PROBES;; round *= PPL_EVIDENCE_PROBES)
	{
		int			probes = Min(later, round);

		for (int i = 1; i <= probes; i++)
		{
			int			witness = ordinal + (int) ((int64) later * i / probes);

			if (ppl_outcome_excluded(witness))
				continue;
			if (is_witness(search, witness, false))
				return true;
			if (search->failures >= PPL_EVIDENCE_PROBES)
				return false;
		}
		if (probes == later)
			return false;
	}
}

/*
 * Is there one among those before it that are known to have got through?  They
 * are asked again, the last ones first.
 */
static bool
earlier_witness(Search *search)
{
	search->failures = 0;
	for (int i = search->ordinal - 1;
		 i > 0 && search->failures < PPL_EVIDENCE_PROBES; i--)
	{
		if (!ppl_outcome_excluded(i) &&
			got_through(ppl_outcome_of(i), &search->failed) &&
			is_witness(search, i, true))
			return true;
	}
	return false;
}

/*
 * Do other events get through the stage or the output in which this one failed?
 * They are asked now, since the environment may have changed a moment ago; an
 * event that was stopped by an earlier stage is no witness.  In outputs those
 * before it get in their own way, and are asked only if few others can be.
 * check: the error came when deferred constraints were checked.
 */
bool
ppl_witness_found(PplWorker *worker, const PplBatch *batch, int ordinal,
				  bool check)
{
	Search		search = {worker, batch, ordinal, *ppl_outcome_of(ordinal), check};

	if (search.failed.stage > 0)
		return earlier_witness(&search) ||
			(search.failures = 0, later_witness(&search));
	return later_witness(&search) ||
		(search.failures < PPL_EVIDENCE_PROBES && earlier_witness(&search));
}
