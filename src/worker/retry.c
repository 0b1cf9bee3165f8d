/*
 * retry.c
 *		Whose fault is an error, and how to go on.
 *
 * Runs in a worker.  A batch that failed as a whole is run again in parts, each
 * in a subtransaction, until every event has either gone through or been
 * blamed.  The event that the statement worked on when the error was raised is
 * tried alone first; if it is innocent, or none was, parts are halved.  Parts
 * are always taken in event order.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/process.h"
#include "worker/outcome.h"
#include "worker/retry.h"
#include "worker/run.h"

#define PPL_MOMENT_FIRST_MS			10
#define PPL_MOMENT_MAX_MS			10000
#define PPL_ENVIRONMENT_FIRST_MS	1000
#define PPL_ENVIRONMENT_MAX_MS		60000
#define PPL_REPAIR_MS				100
#define PPL_LOG_INTERVAL_MS			60000

/* Judgement of a batch under way. */
typedef struct Trial
{
	PplWorker  *worker;
	const PplBatch *batch;
	int			passed;			/* events that went through, or would */
} Trial;

/*
 * What kind of error is this?  By class; docs/reference.md has the table.
 */
PplVerdict
ppl_retry_judge(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
			return PPL_VERDICT_MOMENT;
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):
			/* most of it is wrong use, such as writing a view, and stays so */
			return sqlstate == ERRCODE_OBJECT_IN_USE ||
				sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ?
				PPL_VERDICT_MOMENT : PPL_VERDICT_ENVIRONMENT;
		case MAKE_SQLSTATE('0', 'A', '0', '0', '0'):
		case MAKE_SQLSTATE('2', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('3', 'D', '0', '0', '0'):
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'):
		case MAKE_SQLSTATE('F', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			return PPL_VERDICT_ENVIRONMENT;
		default:
			return PPL_VERDICT_EVENT;
	}
}

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
	if (ppl_retry_judge(error->sqlerrcode) == PPL_VERDICT_ENVIRONMENT &&
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
	else if (ppl_retry_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT)
		ReThrowError(error);
	return error;
}

/*
 * Run a batch in parts.  Afterwards every event is either run or excluded.
 * Throws the error if it is one of the environment or of the moment.
 */
void
ppl_retry_run(PplWorker *worker, const PplBatch *batch)
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
			blame(&trial, suspect, error);
		first = suspect + 1;
		size = Max(size * 2, 2);
	}
}

/* One line a minute, or when the error is another one. */
static void
log_error(PplWorker *worker, bool moment, const ErrorData *error)
{
	static int	last_sqlstate = 0;
	static TimestampTz last_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (error->sqlerrcode == last_sqlstate &&
		!TimestampDifferenceExceeds(last_at, now, PPL_LOG_INTERVAL_MS))
		return;
	last_sqlstate = error->sqlerrcode;
	last_at = now;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("pipeline \"%s\" %s after %X/%X: %s",
					worker->name,
					moment ? "tries again" : "cannot go on",
					LSN_FORMAT_ARGS(worker->checkpoint.position.commit_lsn),
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
}

/*
 * Sleep until the next attempt is due.  New events do not shorten the wait, but
 * a change of any definition or object may be the repair: then it is over soon.
 */
static void
wait_for_attempt(PplWorker *worker, int64 delay)
{
	TimestampTz begin = GetCurrentTimestamp();

	for (;;)
	{
		int64		passed = (GetCurrentTimestamp() - begin) / 1000;

		AcceptInvalidationMessages();
		if (ppl_program_objects_changed())
			delay = Min(delay, PPL_REPAIR_MS);
		if (passed >= delay || ppl_worker_disturbed(worker))
			return;
		ppl_process_wait((long) (delay - passed));
	}
}

/*
 * A batch could not be processed: say so, and wait before the next attempt, the
 * longer the more attempts failed in a row.
 */
void
ppl_retry_wait(PplWorker *worker, PplVerdict verdict, const ErrorData *error)
{
	bool		moment = (verdict == PPL_VERDICT_MOMENT);
	int64		delay = moment ? PPL_MOMENT_FIRST_MS : PPL_ENVIRONMENT_FIRST_MS;

	delay <<= Min(worker->failures, 20);
	delay = Min(delay, moment ? PPL_MOMENT_MAX_MS : PPL_ENVIRONMENT_MAX_MS);
	delay = delay / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * delay / 2);
	worker->failures++;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	worker->consumer->state = moment ? PPL_WORKER_RETRYING : PPL_WORKER_FAILED;
	ppl_error_set(&worker->consumer->error, error->sqlerrcode, error->message,
				  error->detail, error->hint);
	LWLockRelease(ppl_shared->lock);
	pg_atomic_fetch_add_u64(&worker->consumer->retries, 1);
	log_error(worker, moment, error);
	ConditionVariableBroadcast(&worker->db->changed);
	(void) ppl_program_objects_changed();
	wait_for_attempt(worker, delay);
}

/*
 * It works again.
 */
void
ppl_retry_over(PplWorker *worker)
{
	worker->failures = 0;
	if (worker->consumer->state == PPL_WORKER_RUNNING)
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	worker->consumer->state = PPL_WORKER_RUNNING;
	LWLockRelease(ppl_shared->lock);
}
