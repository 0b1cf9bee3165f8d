/*
 * batch.c
 *		One batch = one database transaction.
 *
 * The outputs, the dead letters, the counts, the lineage and the checkpoint of
 * a batch commit together or not at all.  First the whole batch is run at once;
 * if that fails, again in parts (blame.c), to find out whose fault it is.  A
 * transaction of the source that exceeds the limits of a batch is taken in
 * several chunks, one after the other, in the same database transaction.
 *
 * Runs in a worker as the owner.  May block on locks of the outputs, on the
 * commit of a source transaction (settle.c) and on the definition's lock, which
 * a change of the definition holds.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backlog/store.h"
#include "base/clock.h"
#include "base/control.h"
#include "base/failpoint.h"
#include "base/guc.h"
#include "base/mark.h"
#include "base/process.h"
#include "catalog/version.h"
#include "worker/batch.h"
#include "worker/blame.h"
#include "worker/deadletter.h"
#include "worker/event.h"
#include "worker/hand.h"
#include "worker/judge.h"
#include "worker/outcome.h"
#include "worker/policy.h"
#include "worker/result.h"
#include "worker/retry.h"
#include "worker/run.h"
#include "worker/schema.h"
#include "worker/session.h"
#include "worker/settle.h"
#include "worker/share.h"
#include "worker/timeout.h"
#include "worker/upsert.h"

#define PPL_REDRIVE_ROWS 1000	/* dead letters in one transaction */
#define PPL_REST_MS 10000		/* for the next piece of a transaction */
#define PPL_TIMED_ROWS 64		/* stages of smaller batches are always timed */
#define PPL_TIMED_SHARE 16		/* of larger ones, every so many */

/* One attempt at a batch. */
typedef struct Attempt
{
	PplWorker  *worker;
	bool		redrive;		/* dead letters instead of the log */
	bool		careful;		/* in parts */
	bool		whole;			/* a transaction of several chunks at once */
	bool		chunked;		/* the batch is the first chunk of several */
	bool		ending;			/* all rows are made, and are checked */
	int			number;			/* from 1 */
	TimestampTz started_at;
	PplPosition position;		/* reached in this transaction */
	PplSpoolPos further;		/* where it ended, if in several chunks */
	XLogRecPtr	further_lsn;	/* end of its transaction, if that is done */
	bool		nothing_left;	/* redrive: no dead letter is queued */
	bool		abandoned;		/* the position was given up meanwhile */
	PplBusy		busy;			/* to be waited for, first of all */
	bool		replaced;		/* a function: to be noted, first of all */
	bool		torn;			/* one was replaced while it ran */
	bool		committed;
	bool		cut;			/* only the first transactions may be done */
	int			keep;			/* so many */
	ErrorData  *halt;			/* and why none of the rest, if not for the
								 * breaker; in the worker's memory */
	int			max_attempts;	/* of the stage that failed */
	bool		probing;		/* only try some events, and take them back */
	int			probes;
	int			probes_failed;
} Attempt;

static ErrorData *attempt_once(Attempt *attempt, PplBatch *batch);
static bool comes_again(const Attempt *attempt);
static PplBatchEnd run_attempts(PplWorker *worker, PplBatch *batch);
static PplBatchEnd halt(Attempt *attempt);
static void run_transaction(Attempt *attempt, PplBatch *batch);
static void run_work(Attempt *attempt, PplBatch *batch);
static bool begin_work(Attempt *attempt, const PplBatch *batch);
static void run_chunk(Attempt *attempt, const PplBatch *batch, bool last);
static void run_events(Attempt *attempt, const PplBatch *batch, bool last);
static void run_probes(Attempt *attempt, const PplBatch *batch);
static void check_constraints(Attempt *attempt);
static void run_further_chunks(Attempt *attempt, const PplBatch *batch);
static void run_whole(Attempt *attempt, const PplBatch *batch);

/*
 * Process one batch, however often it takes.  If it is not done in the end,
 * nothing of it was.
 */
PplBatchEnd
ppl_batch_process(PplWorker *worker, PplBatch *batch)
{
	return run_attempts(worker, batch);
}

/*
 * Process the dead letters that are queued, chunk by chunk.
 */
PplBatchEnd
ppl_batch_redrive(PplWorker *worker)
{
	return run_attempts(worker, NULL);
}

/*
 * Try some events alone, spread over the batch, and take them back: *nprobes at
 * most; returns how many there were, and how many of them failed.  None if the
 * statement cannot be run at all.
 */
PplBatchEnd
ppl_batch_probe(PplWorker *worker, PplBatch *batch, int *nprobes, int *failed)
{
	Attempt		attempt;
	ErrorData  *error;

	memset(&attempt, 0, sizeof(attempt));
	attempt.worker = worker;
	attempt.probing = true;
	attempt.probes = Min(*nprobes, batch->nevents);
	do
	{
		error = attempt_once(&attempt, batch);
	} while (error == NULL && comes_again(&attempt));
	*failed = attempt.probes_failed;
	*nprobes = error == NULL ? attempt.probes : 0;
	if (error != NULL)
		FreeErrorData(error);
	if (worker->stopped)
		return PPL_BATCH_STOPPED;
	return attempt.abandoned ? PPL_BATCH_ABANDONED : PPL_BATCH_DONE;
}

/*
 * Was the spool replaced, or the rest moved to the backlog, before all of a
 * large transaction was read?
 */
static bool
spool_replaced(PplWorker *worker, const PplBatch *batch)
{
	return batch != NULL && !batch->complete && !batch->backlog &&
		(pg_atomic_read_u64(&worker->db->spool_start) > batch->end_pos ||
		 pg_atomic_read_u64(&worker->consumer->read_pos) > batch->end_pos);
}

/* Take the transaction back, and forget what it noted. */
static void
abort_work(PplWorker *worker)
{
	HOLD_INTERRUPTS();
	AbortCurrentTransaction();
	if (worker->program != NULL && worker->program->adopted)
	{
		ppl_program_free(worker->program);
		worker->program = NULL;
	}
	ppl_timeout_stop();
	ppl_outcome_end();
	ppl_session_clean();
	RESUME_INTERRUPTS();
}

/* How often is a batch to be tried again because of the stage that failed? */
static int
max_attempts(const PplWorker *worker)
{
	int			stage = ppl_outcome_current_stage();

	if (worker->program == NULL || ppl_outcome_current() == 0 || stage == 0)
		return PPL_MAX_ATTEMPTS;
	return ((PplStage *) list_nth(worker->program->pipeline->stages,
								  stage - 1))->max_attempts;
}

/*
 * One attempt: NULL if it went through, else the error, after the transaction
 * was aborted.
 */
static ErrorData *
attempt_once(Attempt *attempt, PplBatch *batch)
{
	MemoryContext context = MemoryContextSwitchTo(attempt->worker->context);
	ErrorData  *volatile error = NULL;

	attempt->number++;
	if (batch != NULL)
		MemoryContextReset(batch->scratch);
	attempt->further = 0;
	attempt->committed = false;
	attempt->cut = false;
	attempt->chunked = false;
	attempt->ending = false;
	attempt->torn = false;
	if (attempt->halt != NULL)
		FreeErrorData(attempt->halt);
	attempt->halt = NULL;
	ppl_policy_begin();
	PG_TRY();
	{
		run_transaction(attempt, batch);
	}
	PG_CATCH();
	{
		ppl_mark_clear();
		/* What is done must not be tried again: a successor finds it done. */
		if (attempt->committed)
			PG_RE_THROW();
		MemoryContextSwitchTo(attempt->worker->context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	if (error != NULL)
	{
		attempt->max_attempts = max_attempts(attempt->worker);
		abort_work(attempt->worker);
	}
	MemoryContextSwitchTo(context);
	return error;
}

/* Was nothing done, and has to be tried again, without being an error? */
static bool
comes_again(const Attempt *attempt)
{
	return OidIsValid(attempt->busy.relid) || attempt->replaced || attempt->torn;
}

static PplBatchEnd
run_attempts(PplWorker *worker, PplBatch *batch)
{
	Attempt		attempt;

	memset(&attempt, 0, sizeof(attempt));
	attempt.worker = worker;
	attempt.redrive = (batch == NULL);
	for (;;)
	{
		ErrorData  *error = attempt_once(&attempt, batch);
		PplVerdict	verdict;

		if (error == NULL)
		{
			if (worker->stopped)
				return PPL_BATCH_STOPPED;
			if (attempt.abandoned)
				return PPL_BATCH_ABANDONED;
			if (comes_again(&attempt))
			{
				attempt.number--;
				continue;
			}
			if (attempt.cut && attempt.keep == 0)
				return halt(&attempt);
			if (attempt.cut)
			{
				ppl_batch_cut(batch, attempt.keep);
				continue;
			}
			ppl_retry_over(worker);
			worker->checkpoint.position = attempt.position;
			if (attempt.further != 0)
			{
				batch->end_pos = attempt.further;
				batch->end_lsn = attempt.further_lsn;
			}
			if (!attempt.redrive || attempt.nothing_left)
				return PPL_BATCH_DONE;
			attempt.careful = false;
			continue;
		}

		verdict = ppl_judge(error->sqlerrcode);
		if (spool_replaced(worker, batch))
		{
			FreeErrorData(error);
			return PPL_BATCH_ABANDONED;
		}
		if (verdict == PPL_VERDICT_MOMENT ||
			(attempt.careful && (attempt.whole || !attempt.chunked)))
		{
			if (verdict == PPL_VERDICT_EVENT)
				verdict = PPL_VERDICT_ENVIRONMENT;
			ppl_retry_wait(worker, verdict, error, attempt.max_attempts);
			attempt.careful = attempt.whole = false;
		}
		else
		{
			/* witnesses may be in other chunks, too */
			attempt.whole = attempt.careful || attempt.ending;
			attempt.careful = true;
		}
		FreeErrorData(error);
		if (ppl_worker_disturbed(worker))
		{
			worker->stopped = true;
			return PPL_BATCH_STOPPED;
		}
		if (!attempt.careful && !attempt.redrive &&
			(verdict == PPL_VERDICT_ENVIRONMENT || worker->letters_waiting))
			return PPL_BATCH_ABANDONED;
	}
}

/*
 * A stage does not let the first transaction pass: stand before it as with an
 * error of the environment.
 */
static PplBatchEnd
halt(Attempt *attempt)
{
	PplWorker  *worker = attempt->worker;

	ppl_retry_wait(worker, PPL_VERDICT_ENVIRONMENT, attempt->halt, 0);
	if (!ppl_worker_disturbed(worker))
		return PPL_BATCH_ABANDONED;
	worker->stopped = true;
	return PPL_BATCH_STOPPED;
}

/* Wait until a lock can be had, without any other. */
static void
wait_for_lock(PplBusy *busy)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	LockRelationOid(busy->relid, busy->lockmode);
	CommitTransactionCommand();
	busy->relid = InvalidOid;
}

/* Note the functions that were replaced, before anything of them runs. */
static void
notice_versions(Attempt *attempt)
{
	PplWorker  *worker = attempt->worker;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ppl_definition_lock(worker->pipeline_id, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) ppl_version_notice(worker->pipeline_id);
	PopActiveSnapshot();
	PPL_FAILPOINT("worker-before-notice");
	CommitTransactionCommand();
	attempt->replaced = false;
}

/*
 * The whole transaction, from start to commit.
 */
static void
run_transaction(Attempt *attempt, PplBatch *batch)
{
	PplWorker  *worker = attempt->worker;
	bool		begun;

	if (OidIsValid(attempt->busy.relid))
		wait_for_lock(&attempt->busy);
	if (attempt->replaced)
		notice_versions(attempt);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	attempt->started_at = GetCurrentTimestamp();
	attempt->position = worker->checkpoint.position;
	begun = begin_work(attempt, batch);
	if (begun)
		run_work(attempt, batch);
	attempt->torn = begun && !attempt->cut && !attempt->probing &&
		!ppl_program_holds(worker->program);
	if (attempt->cut || attempt->probing || attempt->torn)
	{
		abort_work(worker);
		return;
	}
	if (begun && batch && batch->backlog)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		ppl_backlog_delete(worker->place, attempt->position);
		PopActiveSnapshot();
	}
	ppl_session_discard();
	PPL_FAILPOINT("worker-before-commit");
	CommitTransactionCommand();
	attempt->committed = true;
	PPL_FAILPOINT("worker-after-commit");

	if (worker->program != NULL)
		worker->program->adopted = false;
	if (begun && !attempt->redrive)
		worker->code_version = worker->program->pipeline->version;
	ppl_policy_commit();
	ppl_outcome_end();
	ppl_session_clean();
	pgstat_report_stat(false);
}

/* Run the events that this attempt is about. */
static void
run_work(Attempt *attempt, PplBatch *batch)
{
	PplBatch   *letters;

	if (attempt->probing)
		run_probes(attempt, batch);
	else if (attempt->whole && batch && !batch->complete)
		run_whole(attempt, batch);
	else if (!attempt->redrive)
	{
		attempt->chunked = !batch->complete;
		run_chunk(attempt, batch, batch->complete);
		if (!batch->complete && !attempt->cut)
			run_further_chunks(attempt, batch);
	}
	else
	{
		letters = ppl_batch_create(CurTransactionContext);
		PushActiveSnapshot(GetTransactionSnapshot());
		attempt->nothing_left =
			!ppl_deadletter_load_queued(attempt->worker, letters, PPL_REDRIVE_ROWS,
										(Size) ppl_guc_batch_bytes * 1024,
										attempt->careful);
		PopActiveSnapshot();
		if (letters->nevents > 0)
			run_chunk(attempt, letters, true);
	}
}

/*
 * Load the program anew.  False if this worker's position is not that of the
 * definition any more.
 */
static bool
load_program(Attempt *attempt)
{
	PplWorker  *worker = attempt->worker;
	PplCheckpoint checkpoint;

	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_program_free(worker->program);
	worker->program = NULL;
	worker->program = ppl_program_load(worker->context, worker->place,
									   worker->checkpoint.version);
	if (worker->program != NULL)
	{
		worker->program->workers = worker->checkpoint.workers;
		ppl_share_prepare(worker, worker->program->pipeline);
	}
	ppl_checkpoint_load(worker->place, &checkpoint);
	PopActiveSnapshot();
	ppl_schema_reloaded();
	checkpoint.foreign |= worker->program != NULL &&
		worker->program->pipeline->slot_lsn != worker->db->slot_lsn;
	if (checkpoint.exists && !checkpoint.foreign &&
		!ppl_position_after(checkpoint.position, worker->checkpoint.position) &&
		!ppl_position_after(worker->checkpoint.position, checkpoint.position))
	{
		attempt->replaced = worker->program != NULL && worker->program->replaced;
		return !attempt->replaced;
	}
	worker->checkpoint = checkpoint;
	attempt->abandoned = true;
	return false;
}

/*
 * Everything between the start of the transaction and the first event.  False
 * if there is nothing to be done because the definition is stopped, gone or another owner's, or
 * was started anew from a later position, or is lost; and if another transaction
 * changes what is needed.
 */
static bool
begin_work(Attempt *attempt, const PplBatch *batch)
{
	PplWorker  *worker = attempt->worker;

	if (batch && !batch->backlog)
		ppl_settle(batch);
	ppl_definition_lock(worker->pipeline_id, AccessShareLock);
	for (;;)
	{
		if (!ppl_program_lock(worker->program, worker->consumer->source,
							  &attempt->busy))
			return false;
		/* others may have noticed it, and we not have been told of that yet */
		if (worker->program != NULL && !ppl_program_is_stale() &&
			!worker->program->replaced &&
			worker->program->version == worker->checkpoint.version)
			break;
		if (!load_program(attempt))
			return false;
		if (worker->program == NULL)
			break;
	}
	worker->stopped = worker->program == NULL || !worker->program->pipeline->running ||
		!ppl_worker_is_owner(worker, worker->program->pipeline);
	if (!worker->stopped)
	{
		ppl_session_search_path(worker->program->pipeline->search_path);
		ppl_control_batch(worker->pipeline_id);
		/* what is to be accepted first is noted with this transaction */
		attempt->abandoned = batch != NULL && !attempt->probing &&
			ppl_schema_missed(worker, batch);
		ppl_program_begin(worker->program);
	}
	return !worker->stopped && !attempt->abandoned;
}

/*
 * Run the events of one chunk and store what became of them.  Deferred
 * constraints are checked after the last one.
 */
static void
run_chunk(Attempt *attempt, const PplBatch *batch, bool last)
{
	PplWorker  *worker = attempt->worker;
	int			guc_level = NewGUCNestLevel();
	bool		small = batch->nevents < PPL_TIMED_ROWS;

	ppl_session_settings(worker->program->pipeline);
	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_share_resolve(worker, batch);
	ppl_outcome_begin(batch->scratch, batch->nevents,
					  list_length(worker->program->pipeline->stages),
					  worker->program->pipeline->lineage,
					  small || worker->chunks++ % PPL_TIMED_SHARE == 0);
	ppl_event_begin(worker->program, batch);
	ppl_hand_begin(worker->program, batch);
	run_events(attempt, batch, last);
	if (attempt->cut)
		return;
	ppl_hand_write(worker, batch);
	ppl_outcome_add_times(small ? 1 : PPL_TIMED_SHARE);
	AtEOXact_GUC(false, guc_level);
	PopActiveSnapshot();

	/* Rendering what is stored may run user code, too. */
	guc_level = NewGUCNestLevel();
	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_result_store(worker, batch, attempt->redrive, attempt->position,
					 attempt->started_at, attempt->number);
	PopActiveSnapshot();
	AtEOXact_GUC(false, guc_level);
	ppl_policy_count(worker, batch, attempt->redrive);
	if (attempt->redrive)
		return;
	ppl_schema_passed(worker, batch);
	attempt->position = batch->last;
}

/*
 * A truncate that an output cannot follow: nothing from its transaction on is to
 * be done.
 */
static bool
stands_before_truncate(Attempt *attempt, const PplBatch *batch)
{
	MemoryContext oldcontext;
	ErrorData  *refusal;

	if (attempt->probing)
		return false;
	for (int i = 0; i < batch->nevents; i++)
	{
		if (!PPL_EVENT_CLEARS(&batch->events[i]))
			continue;
		oldcontext = MemoryContextSwitchTo(attempt->worker->context);
		refusal = ppl_upsert_refuse_truncate(attempt->worker);
		MemoryContextSwitchTo(oldcontext);
		if (refusal == NULL)
			return false;
		attempt->keep = batch->events[i].txn;
		attempt->cut = true;
		attempt->halt = refusal;
		return true;
	}
	return false;
}

/*
 * Run the events of one chunk, within the timeouts of their stages, and decide
 * how many of its transactions may be done.
 */
static void
run_events(Attempt *attempt, const PplBatch *batch, bool last)
{
	PplWorker  *worker = attempt->worker;
	MemoryContext oldcontext;
	ErrorContextCallback callback;

	if (stands_before_truncate(attempt, batch))
		return;
	callback.callback = ppl_timeout_explain;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	ppl_timeout_start(worker->program->pipeline);
	if (attempt->probing)
	{
		for (int i = 0; i < attempt->probes; i++)
		{
			int			ordinal = 1 + i * (batch->nevents - 1) /
			Max(attempt->probes - 1, 1);

			if (ppl_run_probe(worker, batch, ordinal, true) != NULL)
				attempt->probes_failed++;
		}
	}
	else if (attempt->careful)
		ppl_blame_run(worker, batch, !attempt->chunked);
	else
		ppl_run_events(worker, batch, 1, batch->nevents);
	if (last && !attempt->probing && (!attempt->careful || attempt->chunked))
		check_constraints(attempt);
	ppl_timeout_stop();
	error_context_stack = callback.previous;

	if (attempt->careful && !attempt->redrive)
	{
		oldcontext = MemoryContextSwitchTo(worker->context);
		attempt->keep = ppl_policy_keep(worker, batch, &attempt->halt);
		attempt->cut = attempt->keep < batch->ntxns;
		MemoryContextSwitchTo(oldcontext);
	}
}

/* Run some events of the batch alone. */
static void
run_probes(Attempt *attempt, const PplBatch *batch)
{
	ppl_session_settings(attempt->worker->program->pipeline);
	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_share_resolve(attempt->worker, batch);
	ppl_outcome_begin(batch->scratch, batch->nevents,
					  list_length(attempt->worker->program->pipeline->stages),
					  false, false);
	ppl_event_begin(attempt->worker->program, batch);
	ppl_hand_begin(attempt->worker->program, batch);
	run_events(attempt, batch, true);
	PopActiveSnapshot();
}

/*
 * Wait until capture has published more of a transaction, but not for long with
 * all the locks: capture itself may be waiting, for room on its disk.
 */
static void
wait_for_rest(PplWorker *worker, const PplBatch *batch)
{
	int64		begin = ppl_clock_ms();

	if (batch->backlog)
		elog(ERROR, "the backlog ends within a transaction");
	if (spool_replaced(worker, batch))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the spool was replaced within a transaction")));
	ppl_process_wait(PPL_REST_MS);
	if (ppl_clock_ms() - begin >= PPL_REST_MS)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the rest of a large transaction has not come yet"),
				 errdetail("Capture has published nothing for %d s.",
						   PPL_REST_MS / 1000),
				 errhint("SELECT * FROM pipeline.health(); says whether capture waits for room on its disk.")));
}

/* Everything that was deferred; its errors may be those of any chunk. */
static void
check_constraints(Attempt *attempt)
{
	attempt->ending = true;
	ppl_run_check_constraints();
}

/*
 * The rest of a transaction whose first chunk is batch, and nothing of the
 * next one, which is not settled.  It is committed, so all of it will come;
 * capture wakes us for each piece.  A control record within it ends the batch.
 */
static void
run_further_chunks(Attempt *attempt, const PplBatch *batch)
{
	PplWorker  *worker = attempt->worker;
	PplGatherRequest request;
	bool		complete = false;

	ppl_spool_reader_seek(worker->reader, batch->end_pos);
	while (!complete)
	{
		PplBatch   *chunk = ppl_batch_create(CurTransactionContext);

		ppl_worker_request(worker, &request);
		request.done = attempt->position;
		request.only = batch->txns[0].commit_lsn;
		ppl_gather(chunk, worker->reader,
				   ppl_worker_end(worker), &request);
		complete = chunk->has_control ||
			chunk->end_lsn >= batch->txns[0].end_lsn;
		if (chunk->nevents > 0)
			run_chunk(attempt, chunk, complete);
		else if (complete)
			check_constraints(attempt); /* the last event was in the chunk
										 * before */
		else
			wait_for_rest(worker, batch);
		if (chunk->nevents == 0)
			ppl_schema_passed(worker, chunk);
		if (attempt->cut)
			return;
		if (complete)
		{
			attempt->further = chunk->end_pos;
			attempt->further_lsn = chunk->end_lsn;
		}
		ppl_outcome_end();
		MemoryContextDelete(chunk->context);
	}
}

/*
 * All of the transaction whose first chunk is batch, in one, whatever its size:
 * what is wrong at its end can be of any event in it.
 */
static void
run_whole(Attempt *attempt, const PplBatch *batch)
{
	PplWorker  *worker = attempt->worker;
	PplGatherRequest request;
	PplBatch   *whole;

	ppl_worker_request(worker, &request);
	request.done = attempt->position;
	request.only = batch->txns[0].commit_lsn;
	request.max_rows = PG_INT32_MAX;
	request.max_bytes = SIZE_MAX;
	for (;;)
	{
		whole = ppl_batch_create(CurTransactionContext);
		ppl_spool_reader_seek(worker->reader, batch->begin_pos);
		ppl_gather(whole, worker->reader, ppl_worker_end(worker), &request);
		if (whole->nevents > 0)
			break;
		MemoryContextDelete(whole->context);
		wait_for_rest(worker, batch);
	}
	run_chunk(attempt, whole, true);
	attempt->further = whole->end_pos;
	attempt->further_lsn = whole->end_lsn;
}
