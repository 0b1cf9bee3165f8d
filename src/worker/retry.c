/*
 * retry.c
 *		A batch that could not be processed: say so, wait, try again.
 *
 * Runs in a worker, outside transactions.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "base/process.h"
#include "worker/retry.h"

#define PPL_MOMENT_FIRST_MS			10
#define PPL_MOMENT_MAX_MS			10000
#define PPL_ENVIRONMENT_FIRST_MS	1000
#define PPL_ENVIRONMENT_MAX_MS		60000
#define PPL_REPAIR_MS				100
#define PPL_LOG_INTERVAL_MS			60000

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
	ppl_consumer_set_state(worker->consumer,
						   moment ? PPL_WORKER_RETRYING : PPL_WORKER_FAILED);
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
	ppl_consumer_set_state(worker->consumer, PPL_WORKER_RUNNING);
	LWLockRelease(ppl_shared->lock);
}
