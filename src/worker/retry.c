/*
 * retry.c
 *		A batch that could not be processed: say so, wait, try again.
 *
 * Runs in a worker, outside transactions.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "worker/retry.h"
#include "worker/wait.h"

#define PPL_MOMENT_FIRST_MS			10
#define PPL_MOMENT_MAX_MS			10000
#define PPL_ENVIRONMENT_FIRST_MS	1000
#define PPL_ENVIRONMENT_MAX_MS		60000
#define PPL_LOG_INTERVAL_MS			60000
#define PPL_LOG_CHANGE_MS			5000

/* State of this worker. */
static struct
{
	int			logged_sqlstate;
	int64		logged_at;		/* by ppl_clock_ms(), 0 = never */
}			self;

/* One line a minute, or when the error is another one, but not all the time. */
static void
log_error(PplWorker *worker, bool moment, const ErrorData *error)
{
	int64		now = ppl_clock_ms();

	if (self.logged_at != 0 &&
		now - self.logged_at < (error->sqlerrcode == self.logged_sqlstate ?
								PPL_LOG_INTERVAL_MS : PPL_LOG_CHANGE_MS))
		return;
	self.logged_sqlstate = error->sqlerrcode;
	self.logged_at = now;
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
 * A batch could not be processed: say so, and wait before the next attempt, the
 * longer the more attempts failed in a row.  An error of the moment is bound to
 * pass soon; after max_attempts it counts as one of the environment.
 */
void
ppl_retry_wait(PplWorker *worker, PplVerdict verdict, const ErrorData *error,
			   int max_attempts)
{
	bool		moment = (verdict == PPL_VERDICT_MOMENT);
	int			before = worker->failures++;
	int64		delay;

	if (moment && before >= max_attempts)
	{
		moment = false;
		before -= max_attempts;
	}
	delay = (int64) (moment ? PPL_MOMENT_FIRST_MS : PPL_ENVIRONMENT_FIRST_MS) <<
		Min(before, 20);
	delay = Min(delay, moment ? PPL_MOMENT_MAX_MS : PPL_ENVIRONMENT_MAX_MS);
	delay = delay / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * delay / 2);

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_consumer_set_state(worker->consumer,
						   moment ? PPL_WORKER_RETRYING : PPL_WORKER_FAILED);
	ppl_error_set(&worker->consumer->error, error->sqlerrcode, error->message,
				  error->detail, error->hint);
	LWLockRelease(ppl_shared->lock);
	pg_atomic_fetch_add_u64(&worker->consumer->retries, 1);
	log_error(worker, moment, error);
	ConditionVariableBroadcast(&worker->db->changed);
	if (ppl_wait(worker, delay) == PPL_WAIT_LETTERS)
		worker->letters_waiting = true;
}

/*
 * It works again.  What paused the worker is for pause.c to judge.
 */
void
ppl_retry_over(PplWorker *worker)
{
	worker->failures = 0;
	worker->shortcuts = 0;
	if (worker->consumer->state == PPL_WORKER_RUNNING ||
		worker->consumer->state == PPL_WORKER_PAUSED)
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_consumer_set_state(worker->consumer, PPL_WORKER_RUNNING);
	LWLockRelease(ppl_shared->lock);
}

/*
 * What the next worker has to know to keep the log short.
 */
void
ppl_retry_hand_over(PplTurn *turn)
{
	turn->logged_sqlstate = self.logged_sqlstate;
	turn->logged_at = self.logged_at;
}

/*
 * Go on where a predecessor left.
 */
void
ppl_retry_take_over(const PplTurn *turn)
{
	self.logged_sqlstate = turn->logged_sqlstate;
	self.logged_at = turn->logged_at;
}
