/*
 * pause.c
 *		A pipeline that fails too much stands still, instead of going on.
 *
 * Runs in a worker, before a batch, outside transactions.  Two things pause a
 * segment: the circuit breaker (breaker.c), and more or older open dead letters
 * than the settings allow.  A paused worker keeps its place and its window; it
 * runs dead letters that are queued, tries single events now and then if the
 * breaker is open, and goes on by itself when there is no reason left.  With several
 * workers each counts for itself: one partition that fails stops no other.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/breaker.h"
#include "worker/pause.h"
#include "worker/policy.h"
#include "worker/schema.h"
#include "worker/settle.h"
#include "worker/wait.h"

#define PPL_PROBES			10
#define PPL_PROBE_FIRST_MS	1000
#define PPL_PAUSE_MAX_MS	60000

/* State of this worker. */
static struct
{
	bool		paused;			/* and said so */
	bool		schema;			/* because of a change of the source */
	int			reason;			/* SQLSTATE of what was said */
	bool		look;			/* a pause was long enough */
	int			probings;		/* in a row, or nearly */
	int			probed;			/* events that were probed last */
	int			probes_failed;
	bool		counted;		/* the open dead letters */
	int64		open;
	TimestampTz oldest;			/* when the oldest of them failed */
}			self;

static PplBatchEnd redrive(PplWorker *worker);
static PplBatchEnd look(PplWorker *worker, PplBatch *batch);
static bool breaker_holds(PplWorker *worker);
static bool letters_hold(PplWorker *worker);
static void pause_for(PplWorker *worker, int sqlstate, const char *message,
					  const char *hint);
static void resume(PplWorker *worker);

/*
 * Stand still for as long as there is a reason.  DONE: process the batch now;
 * ABANDONED: gather it anew, newer events may tell that all is well again.
 */
PplBatchEnd
ppl_pause_before(PplWorker *worker, PplBatch *batch)
{
	if (worker->letters_waiting && redrive(worker) != PPL_BATCH_DONE)
		return PPL_BATCH_STOPPED;
	if (self.look)
	{
		PplBatchEnd end = look(worker, batch);

		if (end != PPL_BATCH_DONE)
			return end;
	}

	for (;;)
	{
		int64		delay = PPL_PAUSE_MAX_MS;

		if (breaker_holds(worker))
			delay = Min((int64) PPL_PROBE_FIRST_MS << Min(self.probings, 16),
						PPL_PAUSE_MAX_MS);
		else if (!letters_hold(worker))
		{
			resume(worker);
			return PPL_BATCH_DONE;
		}

		switch (ppl_wait(worker, delay))
		{
			case PPL_WAIT_DISTURBED:
				worker->stopped = true;
				return PPL_BATCH_STOPPED;
			case PPL_WAIT_LETTERS:
				if (redrive(worker) != PPL_BATCH_DONE)
					return PPL_BATCH_STOPPED;
				break;
			case PPL_WAIT_OVER:
				self.look = true;
				return PPL_BATCH_ABANDONED;
		}
	}
}

/*
 * Stand still if the source was changed and somebody has to say that this is well,
 * also if there are no events.  ABANDONED: time has passed, look at all else anew.
 */
PplBatchEnd
ppl_pause_for_schema(PplWorker *worker)
{
	char	   *what;

	while ((what = ppl_schema_waits(worker)) != NULL)
	{
		self.schema = true;
		pause_for(worker, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, what,
				  psprintf("SELECT pipeline.accept_schema(%s);",
						   quote_literal_cstr(worker->name)));
		pfree(what);
		switch (ppl_wait(worker, PPL_PAUSE_MAX_MS))
		{
			case PPL_WAIT_DISTURBED:
				worker->stopped = true;
				return PPL_BATCH_STOPPED;
			case PPL_WAIT_LETTERS:
				if (redrive(worker) != PPL_BATCH_DONE)
					return PPL_BATCH_STOPPED;
				ppl_schema_look_again();
				break;
			case PPL_WAIT_OVER:
				ppl_schema_look_again();
				return PPL_BATCH_ABANDONED;
		}
	}
	if (!self.schema)
		return PPL_BATCH_DONE;
	self.schema = false;
	resume(worker);
	return PPL_BATCH_ABANDONED;
}

/*
 * Other dead letters are this worker's from now on.
 */
void
ppl_pause_recount(void)
{
	self.counted = false;
}

/*
 * A pause was long enough, or something changed: count the dead letters anew,
 * look at the definition, and if the breaker is open, try some events.
 */
static PplBatchEnd
look(PplWorker *worker, PplBatch *batch)
{
	bool		open = ppl_breaker_open();
	PplBatchEnd end;

	self.look = false;
	self.counted = false;
	self.probed = open ? PPL_PROBES : 0;
	self.probings += open;
	end = ppl_batch_probe(worker, batch, &self.probed, &self.probes_failed);
	if (end == PPL_BATCH_ABANDONED)
	{
		/* the position was given up: what failed is behind us */
		ppl_breaker_close();
		resume(worker);
	}
	return end;
}

/*
 * Run the dead letters that are queued.  Also after a discard: it may have been
 * queued ones, and the rest is to be counted anew.
 */
static PplBatchEnd
redrive(PplWorker *worker)
{
	PplBatchEnd end;

	worker->letters_waiting = false;
	self.counted = false;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	HOLD_CANCEL_INTERRUPTS();
	ppl_settle_xid(worker->letters_seen);
	RESUME_CANCEL_INTERRUPTS();
	CommitTransactionCommand();
	MemoryContextSwitchTo(worker->context);
	end = ppl_batch_redrive(worker);
	return end;
}

/*
 * Is the breaker open?  The probes of the last pause decide whether it stays so.
 */
static bool
breaker_holds(PplWorker *worker)
{
	int			probed = self.probed;

	self.probed = 0;
	if (!ppl_breaker_open())
		return false;
	if (probed > 0 && self.probes_failed <= ppl_guc_breaker_failures * probed)
	{
		ppl_breaker_close();
		return false;
	}
	if (!self.paused && ppl_breaker_calm())
		self.probings = 0;
	pause_for(worker, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
			  psprintf("%d of the last %d events failed, the last one with \"%s\"",
					   ppl_breaker_failures(), ppl_guc_breaker_window,
					   ppl_policy_last_failure()),
			  psprintf("Mend what fails: single events are tried now and then, and all go on when they pass. SELECT pipeline.redrive(%s); runs the dead letters again.",
					   quote_literal_cstr(worker->name)));
	return true;
}

/* Read how many dead letters of this partition are open, and since when. */
static void
count_letters(PplWorker *worker)
{
	PplPortion	portion = ppl_worker_portion(worker);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->pipeline_id),
		ppl_sql_arg_int(portion.workers),
		ppl_sql_arg_int(portion.partition),
		ppl_sql_arg_int(worker->place.segment),
	};
	PplSqlResult *rows;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	HOLD_CANCEL_INTERRUPTS();
	PushActiveSnapshot(GetTransactionSnapshot());
	rows = ppl_sql_read("SELECT count(*), min(failed_at) FROM " PPL_DEAD_LETTERS
						" WHERE pipeline_id = $1 AND segment = $4 AND state = 'open'"
						" AND " PPL_PARTITION_NUMBER "(partition_hash, $2) = $3",
						lengthof(args), args);
	self.open = DatumGetInt64(ppl_sql_value(rows, 0, 0));
	self.oldest = ppl_sql_isnull(rows, 0, 1) ? DT_NOEND :
		DatumGetTimestampTz(ppl_sql_value(rows, 0, 1));
	self.counted = true;
	PopActiveSnapshot();
	RESUME_CANCEL_INTERRUPTS();
	CommitTransactionCommand();
	MemoryContextSwitchTo(worker->context);
}

static bool
too_many(void)
{
	return ppl_guc_dead_letter_limit > 0 &&
		self.open > ppl_guc_dead_letter_limit;
}

static bool
too_old(void)
{
	return ppl_guc_dead_letter_max_age > 0 && self.open > 0 &&
		GetCurrentTimestamp() / USECS_PER_SEC - self.oldest / USECS_PER_SEC >
		ppl_guc_dead_letter_max_age;
}

/*
 * Are there more open dead letters than is allowed, or older ones?  What is
 * known of them is kept up to date with what batches leave; before a pause they
 * are counted anew.
 */
static bool
letters_hold(PplWorker *worker)
{
	char	   *name = quote_literal_cstr(worker->name);
	int64		added = ppl_policy_letters();

	if (ppl_guc_dead_letter_limit == 0 && ppl_guc_dead_letter_max_age == 0)
	{
		self.counted = false;
		return false;
	}
	if (!self.counted)
		count_letters(worker);
	else if (added > 0)
	{
		if (self.open == 0)
			self.oldest = GetCurrentTimestamp();
		self.open += added;
	}
	if (!too_many() && !too_old())
		return false;
	count_letters(worker);
	if (too_many())
		pause_for(worker, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
				  psprintf(INT64_FORMAT " dead letters are open, pipeline.dead_letter_limit is %d",
						   self.open, ppl_guc_dead_letter_limit),
				  psprintf("SELECT pipeline.redrive(%s); after the repair, or SELECT pipeline.discard(%s, ids, why); or ALTER SYSTEM SET pipeline.dead_letter_limit = ...;",
						   name, name));
	else if (too_old())
		pause_for(worker, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
				  psprintf("a dead letter is open since %s, pipeline.dead_letter_max_age is %d s",
						   timestamptz_to_str(self.oldest),
						   ppl_guc_dead_letter_max_age),
				  psprintf("SELECT pipeline.redrive(%s); after the repair, or SELECT pipeline.discard(%s, ids, why); or ALTER SYSTEM SET pipeline.dead_letter_max_age = ...;",
						   name, name));
	else
		return false;
	return true;
}

/* Say that the pipeline stands still, and why: each reason once in the log. */
static void
pause_for(PplWorker *worker, int sqlstate, const char *message,
		  const char *hint)
{
	PplConsumer *consumer = worker->consumer;

	bool		said = self.paused && self.reason == sqlstate;

	if (said && consumer->state == PPL_WORKER_PAUSED)
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_consumer_set_state(consumer, PPL_WORKER_PAUSED);
	ppl_error_set(&consumer->error, sqlstate, message, NULL, hint);
	LWLockRelease(ppl_shared->lock);
	ConditionVariableBroadcast(&worker->db->changed);
	if (said)
		return;
	self.paused = true;
	self.reason = sqlstate;
	ereport(LOG,
			(errcode(sqlstate),
			 errmsg("pipeline \"%s\" pauses: %s", worker->name, message),
			 errhint("%s", hint)));
}

static void
resume(PplWorker *worker)
{
	if (!self.paused)
		return;
	self.paused = false;
	worker->shortcuts = 0;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_consumer_set_state(worker->consumer, PPL_WORKER_RUNNING);
	LWLockRelease(ppl_shared->lock);
	ConditionVariableBroadcast(&worker->db->changed);
	ereport(LOG, (errmsg("pipeline \"%s\" goes on", worker->name)));
}

/*
 * What the next worker has to know of a pause, and of the dead letters.
 */
void
ppl_pause_hand_over(PplTurn *turn)
{
	int64		added = ppl_policy_letters();

	turn->probings = self.probings;
	turn->letters_open = self.counted ? self.open + added : -1;
	turn->letters_oldest = self.open == 0 ? GetCurrentTimestamp() : self.oldest;
}

/*
 * Go on where a predecessor left; it had paused if there is a reason, and the time
 * until the next look is over.
 */
void
ppl_pause_take_over(const PplTurn *turn, int reason)
{
	self.paused = self.look = reason != 0;
	self.reason = reason;
	self.schema = reason == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	self.probings = turn->probings;
	self.counted = turn->letters_open >= 0;
	self.open = Max(turn->letters_open, 0);
	self.oldest = turn->letters_oldest;
}
