/*
 * blame.c
 *		Whose fault is an error: run a batch in parts.
 *
 * Runs in a worker, in the batch's transaction.  A batch that failed as a whole
 * is run again in parts, always in event order, until every event has either
 * gone through or been blamed.  There are two kinds of errors, and two levels
 * of subtransactions:
 *
 * Errors that come while rows are made belong to the event that is current.  A
 * part of some events, in a subtransaction, fails with it; then those before it
 * are run, and it is tried alone.  Where none is current, parts are halved.
 *
 * Errors that show only when deferred constraints and triggers run, belong to
 * nobody at first.  They are looked for at the ends of transactions of the
 * source, around all their parts, since a row may need another one that comes
 * later in its transaction.  Groups of whole transactions are halved.  In a
 * single one, events are added one after the other, those that fail are left
 * out until all others are there, and those that still fail then are blamed.
 */
#include "postgres.h"
#include "base/compat.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "worker/blame.h"
#include "worker/judge.h"
#include "worker/outcome.h"
#include "worker/policy.h"
#include "worker/run.h"
#include "worker/witness.h"

#define PPL_CIRCLE_WORK		100000	/* events that are tried to find circles */
#define PPL_FIRST_TRIAL		2	/* at least so many after a bad one */

/* Judgement of a batch under way. */
typedef struct Trial
{
	PplWorker  *worker;
	const PplBatch *batch;
	int			part;			/* events to be tried at once, as a guess */
	int			first;			/* the group's events */
	int			last;
	bool		checking;		/* all their rows are made */
	bool		searching;		/* only to find out, and taken back */
	bool		checked;		/* each part is checked at its end */
	bool		stopped;		/* the batch is to be cut */
} Trial;

/* A search in order for what fails, among numbered events or transactions. */
typedef struct Search
{
	int			size;			/* to be tried at once */
	int			bad_end;		/* one up to here fails; before first: unknown */
} Search;

static ErrorData *run_group(Trial *trial, int first_txn, int last_txn);
static void run_rows(Trial *trial, int first, int last);
static void remove_before(Trial *trial, int ordinal);
static ErrorData *try(Trial *trial, int first, int last);
static bool fails(Trial *trial, int first, int last);
static void blame(Trial *trial, int ordinal, ErrorData *error);
static int	find_stage(const Trial *trial, int ordinal, int noted,
					   const ErrorData *error);
static int	find_output(const Trial *trial, const ErrorData *error);
static void set_suspected(int ordinal, ErrorData *error);
static void blame_in_transaction(Trial *trial, ErrorData *error);
static int	find_in_transaction(Trial *trial, const ErrorData *error);
static ErrorData *try_without(Trial *trial, int last, int without);
static bool same_error(const ErrorData *a, const ErrorData *b);
static void tally_excluded(const Trial *trial);

/* How far the next trial goes. */
static int
search_end(const Search *search, int first, int last)
{
	if (search->bad_end >= first)
		return first + (search->bad_end - first) / 2;
	return Min(first + search->size - 1, last);
}

/* How many to try after a bad one that came after so many good ones. */
static int
next_size(const Search *search, int distance)
{
	return Max((search->size + 3 * distance) / 4, PPL_FIRST_TRIAL);
}

/*
 * Run a batch in parts.  Afterwards every event is either run or excluded, up to
 * one for which the batch is to be cut (policy.c).  Throws the error if it is one
 * of the environment or of the moment.  Unless check, what shows only when
 * deferred constraints and triggers run is left to the caller.
 */
void
ppl_blame_run(PplWorker *worker, const PplBatch *batch, bool check)
{
	Trial		trial = {worker, batch, batch->nevents};
	Search		search = {batch->ntxns, -1};
	int			first = 0;
	int			after_bad = 0;	/* where the search began anew */

	if (!check)
	{
		ppl_run_defer_constraints();
		run_rows(&trial, 1, batch->nevents);
	}
	while (check && first < batch->ntxns && !trial.stopped)
	{
		int			last = search_end(&search, first, batch->ntxns - 1);
		ErrorData  *error = run_group(&trial, first, last);

		if (error == NULL)
		{
			first = last + 1;
			search.size = Min(search.size * 2, batch->ntxns);
		}
		else if (last > first)
		{
			FreeErrorData(error);
			search.bad_end = last;
		}
		else
		{
			/* it is run again without the one that is blamed now */
			blame_in_transaction(&trial, error);
			search.size = next_size(&search, first - after_bad + 1);
			search.bad_end = -1;
			after_bad = first;
		}
	}
	tally_excluded(&trial);
}

static void
group_work(void *arg)
{
	Trial	   *trial = arg;

	ppl_run_defer_constraints();
	run_rows(trial, trial->first, trial->last);
	if (trial->stopped)
		return;
	trial->checking = true;
	ppl_run_check_constraints();
}

/*
 * Run some transactions of the source.  NULL if they went through but for the
 * events that are excluded; otherwise nothing of them is left but the error,
 * which showed after the last row.  Throws all other errors.
 */
static ErrorData *
run_group(Trial *trial, int first_txn, int last_txn)
{
	const PplBatchTxn *txns = trial->batch->txns;
	ErrorData  *error;

	trial->first = txns[first_txn].first;
	trial->last = txns[last_txn].first + txns[last_txn].nevents - 1;
	trial->checking = false;
	error = ppl_run_in_subtransaction(trial->batch, trial->first, trial->last,
									  true, group_work, trial);
	if (error != NULL && (!trial->checking ||
						  ppl_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT))
		ReThrowError(error);
	return error;
}

/*
 * This event was just blamed: is the batch to be cut because of it?  Events may
 * have been blamed in another order, so that is left to be decided by those
 * that count what is known of all.
 */
static bool
must_stop(const Trial *trial, int ordinal)
{
	ErrorData  *halt = NULL;

	return ppl_policy_stops(trial->worker, trial->batch, ordinal) &&
		ppl_policy_keep(trial->worker, trial->batch, &halt) < trial->batch->ntxns;
}

/*
 * Make the rows of some events, in parts.  The parts after a bad event are as
 * long as those between bad ones were, so that with many of them little is done
 * twice.
 */
static void
run_rows(Trial *trial, int first, int last)
{
	Search		search = {trial->part, -1};

	while (first <= last)
	{
		int			end = search_end(&search, first, last);
		ErrorData  *error = try(trial, first, end);
		int			suspect = ppl_outcome_current();

		if (error == NULL)
		{
			first = end + 1;
			search.size = Min(search.size * 2, trial->batch->nevents);
			continue;
		}
		if (first < end && (suspect < first || suspect > end))
		{
			FreeErrorData(error);
			search.bad_end = end;
			continue;
		}
		if (first < end && suspect > first &&
			fails(trial, first, suspect - 1))
		{
			FreeErrorData(error);
			search.bad_end = suspect - 1;
			continue;
		}
		if (first == end)
			suspect = first;
		else if (!ppl_outcome_excluded(suspect))
		{
			FreeErrorData(error);
			error = try(trial, suspect, suspect);
		}
		if (error != NULL && trial->checked && ppl_outcome_current() == 0)
			set_suspected(suspect, error);
		else if (error != NULL)
		{
			blame(trial, suspect, error);
			remove_before(trial, suspect);
			if (!trial->searching && must_stop(trial, suspect))
			{
				trial->stopped = true;
				return;
			}
		}
		search.size = next_size(&search, suspect - first + 1);
		search.bad_end = -1;
		first = suspect + 1;
	}
	trial->part = search.size;
}

/*
 * An event that fails makes no rows, but those that its source row had are
 * removed all the same, unless that is what fails.
 */
static void
remove_before(Trial *trial, int ordinal)
{
	const PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	ErrorData  *error;

	if (!trial->worker->program->statement->keyed || outcome->inert)
		return;
	error = try(trial, ordinal, ordinal);
	if (error != NULL)
		blame(trial, ordinal, error);
}

/* Try some events; errors that are nobody's fault are thrown. */
static ErrorData *
try(Trial *trial, int first, int last)
{
	ErrorData  *error = ppl_run_try(trial->worker, trial->batch, first, last,
									trial->checked);

	CHECK_FOR_INTERRUPTS();
	if (error != NULL && ppl_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT)
		ReThrowError(error);
	return error;
}

static bool
fails(Trial *trial, int first, int last)
{
	ErrorData  *error = try(trial, first, last);

	if (error == NULL)
		return false;
	FreeErrorData(error);
	return true;
}

/*
 * Blame one event, which was tried last, alone.  An error of the environment is
 * put on an event only if others get through the same stage, and thrown
 * otherwise; but on a dead letter always: it was blamed before, and may be alone,
 * and nothing has to wait for it.
 */
static void
blame(Trial *trial, int ordinal, ErrorData *error)
{
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);

	/* what others did since would go when it is run again: nothing passes it */
	if (trial->batch->events[ordinal - 1].kind == PPL_REC_TRUNCATE)
		ReThrowError(error);
	/* it makes no rows, and what it had before cannot be removed */
	if (outcome->fate == PPL_FATE_FAILED)
	{
		outcome->inert = true;
		outcome->excluded = true;
		return;
	}
	/* some of its rows were rejected: that is decided already */
	if (outcome->excluded)
		return;
	outcome->output = -1;
	outcome->stage = 0;
	if (!ppl_outcome_unpacking())
	{
		int			output = find_output(trial, error);

		outcome->stage = find_stage(trial, ordinal,
									ppl_outcome_current_stage(), error);
		if (outcome->stage == 0)
			outcome->output = output;
	}
	if (ppl_judge(error->sqlerrcode) == PPL_VERDICT_ENVIRONMENT &&
		trial->batch->events[ordinal - 1].dead_letter_id == 0 &&
		!ppl_witness_found(trial->worker, trial->batch, ordinal, trial->checking))
		ReThrowError(error);
	ppl_outcome_reset(ordinal, ordinal);
	outcome->fate = PPL_FATE_FAILED;
	outcome->excluded = true;
	outcome->error = error;
}

/*
 * The output that an error is about, by its table or by the row that was made
 * last; -1 if it is not known.
 */
static int
find_output(const Trial *trial, const ErrorData *error)
{
	const PplStatement *statement = trial->worker->program->statement;

	if (error->table_name != NULL && error->schema_name != NULL)
	{
		for (int i = 0; i < statement->noutputs; i++)
		{
			Oid			target = statement->outputs[i]->target;
			char	   *name = get_rel_name(target);
			char	   *schema = get_namespace_name(get_rel_namespace(target));

			if (name && schema && strcmp(name, error->table_name) == 0 &&
				strcmp(schema, error->schema_name) == 0)
				return i;
		}
	}
	return statement->noutputs == 1 && statement->hand == NULL ? 0 :
		ppl_outcome_current_output();
}

/* The first stages of a program over one event. */
typedef struct StageRun
{
	const Trial *trial;
	int			ordinal;
	int			nstages;
} StageRun;

static void
run_stages(void *arg)
{
	StageRun   *run = arg;

	ppl_program_run_stages(run->trial->worker->program, run->trial->batch,
						   run->ordinal, run->nstages);
}

/*
 * Does the error of an event come from the first stages?  They also make what no
 * later stage reads, which the statement does not, so another error is none.
 */
static bool
stages_fail(const Trial *trial, int ordinal, int nstages,
			const ErrorData *error)
{
	StageRun	run = {trial, ordinal, nstages};
	ErrorData  *found = ppl_run_in_subtransaction(trial->batch, ordinal, ordinal,
												  false, run_stages, &run);
	bool		same = same_error(found, error);

	if (found != NULL && ppl_judge(found->sqlerrcode) == PPL_VERDICT_MOMENT)
		ReThrowError(found);
	if (found != NULL)
		FreeErrorData(found);
	return same;
}

/*
 * The stage that failed is the first one that does not get to its end.  What the
 * fences noted is often later: a stage that made a row which was passed on is
 * asked for the next one, and the planner looks at all of them beforehand.
 */
static int
find_stage(const Trial *trial, int ordinal, int noted, const ErrorData *error)
{
	int			nstages = trial->worker->program->statement->nstages;
	int			last = noted > 0 ? noted - 1 : nstages;
	int			stage = 1;

	if (last == 0 || !stages_fail(trial, ordinal, last, error))
		return noted;
	while (stage < last && !stages_fail(trial, ordinal, stage, error))
		stage++;
	return stage;
}

/* Leave an event out for the time being. */
static void
set_suspected(int ordinal, ErrorData *error)
{
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);

	outcome->suspected = true;
	outcome->excluded = true;
	outcome->error = error;
}

static void
clear_suspected(int ordinal)
{
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);

	outcome->suspected = false;
	outcome->excluded = false;
}

/*
 * Try all suspects at once but for those that are known to fail; NULL if they go
 * through together.
 */
static ErrorData *
try_together(Trial *trial, const bool *failed)
{
	int			first = trial->first;
	int			n = trial->last - first + 1;
	bool	   *excluded = palloc(n * sizeof(bool));
	ErrorData  *error;

	for (int i = 0; i < n; i++)
	{
		PplEventOutcome *outcome = ppl_outcome_of(first + i);

		excluded[i] = outcome->excluded;
		outcome->excluded = !outcome->suspected || failed[i];
	}
	error = try(trial, first, trial->last);
	for (int i = 0; i < n; i++)
		ppl_outcome_of(first + i)->excluded = excluded[i];
	pfree(excluded);
	return error;
}

/*
 * Events that need each other, as rows in a circle do, only go through together.
 * So all suspects are tried, without those whose own error is the one that comes,
 * until none comes.  Where there are very many, it is not worth the time.
 */
static void
clear_circles(Trial *trial)
{
	int			first = trial->first;
	int			n = trial->last - first + 1;
	bool	   *failed = palloc0(n * sizeof(bool));

	for (int64 work = 0; work < PPL_CIRCLE_WORK; work += n)
	{
		ErrorData  *error = try_together(trial, failed);
		bool		found = false;

		for (int i = 0; i < n; i++)
		{
			PplEventOutcome *outcome = ppl_outcome_of(first + i);

			if (!outcome->suspected || failed[i])
				continue;
			if (error == NULL)
				clear_suspected(first + i);
			else if (same_error(outcome->error, error))
				failed[i] = found = true;
		}
		if (error == NULL || !found)
			break;
		FreeErrorData(error);
	}
	pfree(failed);
}

/* Try one suspect; true if it goes through now. */
static bool
clear_if_innocent(Trial *trial, int ordinal)
{
	ErrorData  *error;

	if (!ppl_outcome_of(ordinal)->suspected)
		return false;
	clear_suspected(ordinal);
	error = try(trial, ordinal, ordinal);
	if (error != NULL)
		set_suspected(ordinal, error);
	return error == NULL;
}

/*
 * Add one event after the other, without those that fail; then add those, too,
 * first together, and then as long as any of them goes through.  Most of what
 * has to wait needs a row that comes soon after it: so each pass begins with the
 * last one, and a chain of them needs no more than one.
 */
static void
find_suspects(void *arg)
{
	Trial	   *trial = arg;
	bool		progress = true;

	run_rows(trial, trial->first, trial->last);
	clear_circles(trial);
	while (progress)
	{
		progress = false;
		for (int i = trial->last; i >= trial->first; i--)
			progress |= clear_if_innocent(trial, i);
		if (progress)
			clear_circles(trial);
	}
}

/*
 * A transaction, the group that was run last, failed after its last row: blame
 * those of its events that fail when all others are there.  If there is none,
 * the error depends on more than which rows there are, and one is searched for
 * another way.
 */
static void
blame_in_transaction(Trial *trial, ErrorData *error)
{
	Trial		part = *trial;
	bool		found = false;
	ErrorData  *failed;

	part.searching = true;
	part.checked = true;
	part.checking = false;
	failed = ppl_run_in_subtransaction(trial->batch, trial->first, trial->last,
									   false, find_suspects, &part);
	if (failed != NULL)
		ReThrowError(failed);
	for (int i = trial->first; i <= trial->last; i++)
	{
		if (!ppl_outcome_of(i)->suspected)
			continue;
		clear_suspected(i);
		ppl_outcome_clear_current();
		blame(trial, i, ppl_outcome_of(i)->error);
		found = true;
	}
	if (!found)
	{
		int			ordinal = find_in_transaction(trial, error);

		/* nobody is left who could be blamed */
		if (ordinal == 0)
			ReThrowError(error);
		ppl_outcome_clear_current();
		blame(trial, ordinal, error);
	}
}

/*
 * The event whose rows an error is about: the first one with which the error is
 * there, so that neither those it needs nor those that need it are taken for
 * it.  Where the error differs from run to run, the one without which there is
 * none, or in the end the last one without which the rest of its transaction
 * does not fail yet; 0 if that is none.
 */
static int
find_in_transaction(Trial *trial, const ErrorData *error)
{
	int			first = trial->first;
	int			last = trial->last;
	int			low = first;
	int			high = last;
	bool		seen = false;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		ErrorData  *found = try_without(trial, middle, 0);

		if (found != NULL && same_error(found, error))
		{
			seen = true;
			high = middle;
		}
		else
			low = middle + 1;
	}
	if (!ppl_outcome_excluded(high) &&
		(seen || first == last ||
		 !same_error(try_without(trial, last, high), error)))
		return high;

	for (int i = first; i <= last; i++)
	{
		if (!ppl_outcome_excluded(i) && try_without(trial, last, i) == NULL)
			return i;
	}
	for (int i = first; i < last; i++)
	{
		if (!ppl_outcome_excluded(i) && try_without(trial, i, 0) != NULL)
			return i;
	}
	return ppl_outcome_excluded(last) ? 0 : last;
}

/*
 * Run the group's events up to last, without one of them, and take them back.
 */
static ErrorData *
try_without(Trial *trial, int last, int without)
{
	Trial		part = *trial;
	bool		excluded = false;
	ErrorData  *error;

	part.last = last;
	part.checking = false;
	part.searching = true;
	if (without > 0)
	{
		excluded = ppl_outcome_excluded(without);
		ppl_outcome_of(without)->excluded = true;
	}
	error = ppl_run_in_subtransaction(trial->batch, trial->first, last, false,
									  group_work, &part);
	if (without > 0)
		ppl_outcome_of(without)->excluded = excluded;
	if (error != NULL && (!part.checking ||
						  ppl_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT))
		ReThrowError(error);
	return error;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool
same_error(const ErrorData *a, const ErrorData *b)
{
	return a != NULL && b != NULL && a->sqlerrcode == b->sqlerrcode &&
		same_text(a->message, b->message) &&
		same_text(a->detail, b->detail) &&
		same_text(a->constraint_name, b->constraint_name);
}

/*
 * Events whose runs were rolled back did enter the stages up to the one that
 * failed, or that rejected them.
 */
static void
tally_excluded(const Trial *trial)
{
	int			nstages = list_length(trial->worker->program->pipeline->stages);

	for (int ordinal = 1; ordinal <= trial->batch->nevents; ordinal++)
	{
		PplEventOutcome *outcome = ppl_outcome_of(ordinal);

		if (!outcome->excluded)
			continue;
		for (int i = 1; i <= (outcome->stage > 0 ? outcome->stage : nstages); i++)
		{
			ppl_outcome_tally(i)->events++;
			if (i != outcome->stage)
				ppl_outcome_tally(i)->rows++;
		}
		if (outcome->fate == PPL_FATE_FAILED)
			ppl_outcome_tally(outcome->stage)->errors++;	/* 0 is nobody's */
	}
}
