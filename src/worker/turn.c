/*
 * turn.c
 *		Workers take turns when there are fewer processes than they need.
 *
 * Runs in a worker, outside transactions.  The launcher says in
 * shared->waiting how many consumers need a process and find none free.  Who
 * can do without its own takes one off that number and leaves: a worker that
 * has nothing to do or has to wait after an error at once, a busy one after a
 * batch, once it has worked for a turn.  The launcher then starts the one that
 * has waited longest (launcher/main.c).
 *
 * What a worker knows and its successor needs stays in the consumer's PplTurn.
 * A worker that is ended from outside leaves nothing: its successor begins
 * anew, as it does after a restart of the pipeline.
 *
 * Locks: shared->lock.
 */
#include "postgres.h"
#include "base/compat.h"

#include "miscadmin.h"
#include "postmaster/interrupt.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/process.h"
#include "worker/breaker.h"
#include "worker/pause.h"
#include "worker/retry.h"
#include "worker/turn.h"

/*
 * Work that is worth the start of a process, which takes some 10 to 20 ms of
 * it: connection, caches, compilation.
 */
#define PPL_TURN_MS		500

#define PPL_TRIAL_ROWS	100

/* State of this worker. */
static struct
{
	int64		began_at;		/* to work, by ppl_clock_ms(); 0 = not yet */
	int			row_us;			/* an event takes, 0 = not known */
}			self;

static void save(PplWorker *worker, bool stuck);
static void leave(PplWorker *worker) pg_attribute_noreturn();

/*
 * Take over what the predecessor left.  True if it could not go on, and this one
 * shall try: the state stays what it is until it is known to be another.
 */
bool
ppl_turn_begin(PplWorker *worker)
{
	PplConsumer *consumer = worker->consumer;
	PplTurn		turn;
	PplWorkerState state;
	int			reason;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	turn = consumer->turn;
	consumer->turn.valid = false;
	consumer->ticket = 0;
	state = consumer->state;
	reason = consumer->error.sqlstate;
	LWLockRelease(ppl_shared->lock);
	if (!turn.valid || turn.stops != worker->stops)
		return false;

	self.row_us = turn.row_us;
	worker->failures = turn.failures;
	worker->shortcuts = turn.shortcuts;
	worker->letters_seen = turn.letters_seen;
	if (turn.stuck)
	{
		/* its control record may be behind the events that it stands before */
		worker->letters_seen = pg_atomic_read_u32(&consumer->letters_xid);
		worker->letters_waiting = worker->letters_seen != turn.letters_seen;
	}
	ppl_breaker_take_over(&turn);
	ppl_pause_take_over(&turn, turn.stuck && state == PPL_WORKER_PAUSED ? reason : 0);
	ppl_retry_take_over(&turn);
	return turn.stuck;
}

/*
 * Note what the successor needs.  Caller holds shared->lock exclusively.
 */
static void
save(PplWorker *worker, bool stuck)
{
	PplTurn    *turn = &worker->consumer->turn;

	turn->stuck = stuck;
	turn->stops = worker->stops;
	turn->failures = worker->failures;
	turn->shortcuts = worker->shortcuts;
	turn->row_us = self.row_us;
	turn->letters_seen = worker->letters_waiting ? InvalidTransactionId :
		worker->letters_seen;
	ppl_breaker_hand_over(turn);
	ppl_pause_hand_over(turn);
	ppl_retry_hand_over(turn);
	turn->valid = true;
}

/*
 * A batch of so many events is done, which began at that time: the turn has
 * begun, too, and it is known how long an event takes.
 */
void
ppl_turn_worked(int nevents, int64 begun_us)
{
	int64		passed = ppl_clock_us() - begun_us;

	if (self.began_at == 0)
		self.began_at = begun_us / 1000;
	if (nevents > 0)
		self.row_us = (int) Min(Max(passed / nevents, 1), PG_INT32_MAX);
}

/*
 * How many events fit into a turn, as far as that is known: a batch ends with the
 * transaction that reaches them, so that events which take long do not make the
 * turn endless.  While others wait, a new worker begins with few.
 */
int
ppl_turn_rows(void)
{
	if (self.row_us > 0)
		return Max(PPL_TURN_MS * 1000 / self.row_us, 1);
	return pg_atomic_read_u32(&ppl_shared->waiting) == 0 ? PG_INT32_MAX :
		PPL_TRIAL_ROWS;
}

/*
 * Take one off those that wait, for a process that goes; if something has come
 * in between for which it must stay, it looks at that first.  If it could not go
 * on, its state stays, which says why, and nobody comes for delay milliseconds, or
 * until somebody changes not_before.
 */
static bool
give_way(PplWorker *worker, int64 delay, uint32 repairs, bool stuck)
{
	PplWorkerState state = PPL_WORKER_IDLE;
	PplConsumer *consumer = worker->consumer;
	PplProcess *process = &consumer->process;
	bool		leaves;

	if (pg_atomic_read_u32(&ppl_shared->waiting) == 0)
		return false;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	leaves = pg_atomic_read_u32(&ppl_shared->waiting) > 0 &&
		!ppl_worker_disturbed(worker) && !ConfigReloadPending &&
		pg_atomic_read_u32(&consumer->repairs) == repairs &&
		(!stuck || pg_atomic_read_u32(&consumer->letters_xid) == worker->letters_seen);
	if (leaves)
	{
		pg_atomic_fetch_sub_u32(&ppl_shared->waiting, 1);
		ppl_shared->leaving++;
		process->leaving = true;
		process->not_before = delay > 0 ? ppl_clock_ms() + delay : 0;
		save(worker, stuck);
		if (worker->checkpoint.foreign)
			state = PPL_WORKER_LOST;
		else if (!ppl_consumer_all_done(consumer))
			state = PPL_WORKER_WAITING;
		if (!stuck)
			ppl_consumer_set_state(consumer, state);
	}
	LWLockRelease(ppl_shared->lock);
	return leaves;
}

/* How the consumer stands without a process is said: end this one. */
static void
leave(PplWorker *worker)
{
	ConditionVariableBroadcast(&worker->db->changed);
	PPL_FAILPOINT("worker-leaves");
	ppl_process_exit();
}

/*
 * Between two batches: is the turn over, and does somebody wait?  Then this does
 * not return.  Who is about to pause does that first.
 */
void
ppl_turn_check(PplWorker *worker)
{
	PplConsumer *consumer = worker->consumer;

	if (self.began_at != 0 && !worker->stopped &&
		ppl_clock_ms() - self.began_at >= PPL_TURN_MS &&
		!ppl_breaker_open() && !worker->letters_waiting &&
		give_way(worker, 0, pg_atomic_read_u32(&consumer->repairs), false))
		leave(worker);
}

/*
 * For one that has nothing to do, or nothing for delay milliseconds because it
 * could not go on (repairs is the count of the consumer before it looked whether
 * it can): does somebody wait for a process?  Then this does not return, unless
 * something came in between.
 */
void
ppl_turn_spare(PplWorker *worker, int64 delay, uint32 repairs)
{
	if (give_way(worker, delay, repairs, delay > 0 || worker->stuck))
		leave(worker);
}

/*
 * End this process, because there was nothing to do for long.
 */
void
ppl_turn_leave(PplWorker *worker, PplWorkerState state)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	save(worker, false);
	ppl_consumer_set_state(worker->consumer, state);
	LWLockRelease(ppl_shared->lock);
	leave(worker);
}
