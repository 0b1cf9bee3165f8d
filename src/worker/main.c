/*
 * main.c
 *		A worker: the events of one pipeline from backlog and spool to its outputs.
 *
 * Life: connect as the pipeline's owner, read the checkpoint, then take what the
 * backlog has (catchup.c) and then the spool, batch by batch; sleep on the
 * latch when there is nothing, and end after pipeline.worker_idle_timeout
 * without events (the launcher starts a new one when capture finds something).
 * A worker whose pipeline was not born yet looks for the birth record and begins
 * there.
 *
 * Memory: "pipeline worker" for its life; below it "pipeline definition", "pipeline program" (one
 * definition), "pipeline batch" (one batch), "pipeline spool reader"; below the
 * transaction "pipeline run" (one run of the statement).
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backlog/lost.h"
#include "backlog/store.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/guc.h"
#include "base/latency.h"
#include "base/process.h"
#include "base/rate.h"
#include "base/wake.h"
#include "catalog/definition.h"
#include "worker/batch.h"
#include "worker/catchup.h"
#include "worker/main.h"
#include "worker/pause.h"
#include "worker/repartition.h"
#include "worker/schema.h"
#include "worker/session.h"
#include "worker/settle.h"
#include "worker/share.h"
#include "worker/turn.h"
#include "worker/worker.h"

#define PPL_SPOOL_OPENS_MS	10	/* capture does it at once */
#define PPL_REST_MS			1000

/* The worker of this process. */
static PplWorker self;

static void adopt_slot(void);
static void tell_refusal(int code, Datum arg);
static bool load_checkpoint(void);
static bool find_position(XLogRecPtr *decoded, PplSpoolPos *end);
static bool gather(PplBatch *batch, PplSpoolPos end);
static bool work_backlog(void);
static bool work_once(XLogRecPtr decoded, PplSpoolPos end);
static bool pass_over(const PplBatch *batch);
static bool act_on_control(const PplBatch *batch);
static PplBatchEnd redrive(const PplBatch *batch);
static void published(const PplBatch *batch);
static void caught_up(XLogRecPtr decoded, PplSpoolPos end);
static void wait_for_spool(void);
static void sleep_or_leave(void);
static void set_state(PplWorkerState state);

void
pipeline_worker_main(Datum arg)
{
	PplOrder	order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	self.consumer = &ppl_shared->consumers[DatumGetInt32(arg)];
	ppl_process_signals(true);
	if (self.consumer->dboid != order.dboid ||
		!ppl_place_equal(self.consumer->place, order.place) ||
		!ppl_process_attach(&self.consumer->process, order.generation))
		proc_exit(0);
	self.stops = pg_atomic_read_u32(&self.consumer->stops);
	self.stuck = ppl_turn_begin(&self);
	set_state(PPL_WORKER_STARTING);
	before_shmem_exit(tell_refusal, (Datum) 0);

	self.place = order.place;
	self.pipeline_id = order.place.pipeline_id;
	BackgroundWorkerInitializeConnectionByOid(order.dboid, self.consumer->owner, 0);
	self.connected = true;
	self.db = ppl_database_find(order.dboid);
	if (self.db == NULL)
		ppl_process_exit();
	self.context = AllocSetContextCreate(TopMemoryContext, "pipeline worker",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(self.context);
	ppl_session_setup();
	ppl_program_watch();
	self.spool = ppl_spool_reader_create(MyDatabaseId, ppl_shared->epoch);
	self.backlog = ppl_catchup_reader(&self);
	self.reader = self.spool;
	adopt_slot();

	for (;;)
	{
		XLogRecPtr	decoded;
		PplSpoolPos end;
		bool		readable;

		(void) ppl_process_interrupts();
		if (self.stopped || ppl_worker_disturbed(&self))
		{
			set_state(self.consumer->lost ? PPL_WORKER_LOST : PPL_WORKER_IDLE);
			ppl_process_exit();
		}

		if (self.slot_lsn != self.db->slot_lsn)
			adopt_slot();
		readable = find_position(&decoded, &end);
		pg_read_barrier();
		if (ppl_catchup_due(&self) && work_backlog())
			ppl_process_steady();
		else if (ppl_catchup_due(&self))
			continue;
		else if (!readable)
			wait_for_spool();
		else if (work_once(decoded, end))
			ppl_process_steady();
		else
			sleep_or_leave();
		ppl_turn_check(&self);
	}
}

/*
 * Where does this pipeline stand in the slot that is there now?
 */
static void
adopt_slot(void)
{
	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	self.slot_lsn = self.db->slot_lsn;
	LWLockRelease(ppl_shared->lock);
	if (!load_checkpoint())
		ppl_process_exit_early();
	set_state(self.checkpoint.foreign ? PPL_WORKER_LOST : PPL_WORKER_RUNNING);
}

/*
 * The connection was refused, which no handler can catch: the log has the
 * reason, and the status shall not stay at "starting".
 */
static void
tell_refusal(int code, Datum arg)
{
	if (self.connected || code == 0)
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_consumer_set_state(self.consumer, PPL_WORKER_FAILED);
	ppl_error_set(&self.consumer->error,
				  ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
				  "the worker could not connect as the owner of the pipeline",
				  "The server's log has the reason.",
				  "The owner needs ALTER ROLE ... LOGIN; and GRANT CONNECT ON DATABASE ... TO ...; and the database must allow connections.");
	LWLockRelease(ppl_shared->lock);
}

/*
 * Who comes back to what it could not do stays what it was until it can: then
 * retry.c or pause.c say so.
 */
static void
set_state(PplWorkerState state)
{
	if (self.stuck && (state == PPL_WORKER_STARTING || state == PPL_WORKER_RUNNING))
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_consumer_set_state(self.consumer, state);
	LWLockRelease(ppl_shared->lock);
	if (self.db)
		ConditionVariableBroadcast(&self.db->changed);
}

/*
 * Read where this pipeline stands.  False if it is gone, stopped or lost, or has another
 * owner.
 */
static bool
load_checkpoint(void)
{
	PplPipeline *pipeline;
	bool		running;
	XLogRecPtr	end;

	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ppl_definition_lock(self.pipeline_id, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	pipeline = ppl_definition_load(self.pipeline_id);
	if (pipeline != NULL)
		pipeline = ppl_definition_segment(pipeline, self.place.segment);
	running = pipeline != NULL && pipeline->running;
	if (running && !ppl_worker_is_owner(&self, pipeline))
		running = false;
	if (running && list_member_int(pipeline->lost, self.place.segment))
	{
		/* nobody knows it yet: who found it out has ended */
		ppl_backlog_tell_lost(self.place, pipeline->name, true);
		running = false;
	}
	if (running)
	{
		self.name = MemoryContextStrdup(self.context, pipeline->name);
		self.reads_source = pipeline->upstream == 0;
		ppl_checkpoint_load(self.place, &self.checkpoint);
		self.checkpoint.foreign |= pipeline->slot_lsn != self.slot_lsn;
		ppl_share_prepare(&self, pipeline);
		running = !ppl_repartition_over(&self, pipeline);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(self.context);

	/*
	 * A predecessor may have ended before it told the end of its commit:
	 * nothing counts as done on the word of a checkpoint that can be lost.
	 * Nor may anybody miss what it handed over.
	 */
	end = ppl_wake_record_end(GetXLogInsertRecPtr());
	XLogFlush(end);
	ppl_atomic_max(&self.consumer->commit_end, end);

	return running;
}

/*
 * Bring the reader to the next record: where it is, or further on if capture
 * moved us past records of others, or to the start of a new spool.  Also say
 * how far the spool goes: all commits up to *decoded are before *end.  Both
 * must be of one spool, or its emptiness would be taken for having done what
 * the former one held.  False while capture replaces it, and if the slot is
 * another one now: there is a gap before what this spool holds.
 */
static bool
find_position(XLogRecPtr *decoded, PplSpoolPos *end)
{
	PplSpoolPos start = pg_atomic_read_u64(&self.db->spool_start);
	PplSpoolPos pos = ppl_spool_reader_position(self.spool);
	PplSpoolPos target;

	pg_read_barrier();
	*decoded = pg_atomic_read_u64(&self.db->decoded_lsn);
	pg_read_barrier();
	*end = pg_atomic_read_u64(&self.db->spool_end);
	pg_read_barrier();
	if (start == 0 || pg_atomic_read_u64(&self.db->spool_start) != start ||
		self.db->slot_lsn != self.slot_lsn)
		return false;

	target = Max(pos, pg_atomic_read_u64(&self.consumer->read_pos));
	target = Max(target, start);
	if (target != pos)
		ppl_spool_reader_seek(self.spool, target);
	return true;
}

/*
 * Fill the batch.  False if the records here are gone because none of them is
 * for us: capture moves a consumer that is caught up without asking it, and
 * removes the files.
 */
static bool
gather(PplBatch *batch, PplSpoolPos end)
{
	MemoryContext context = CurrentMemoryContext;
	PplGatherRequest request;
	volatile bool gone = false;

	ppl_worker_request(&self, &request);
	PG_TRY();
	{
		ppl_gather(batch, self.reader, end, &request);
	}
	PG_CATCH();
	{
		PplSpoolPos pos = ppl_spool_reader_position(self.reader);
		PplSpoolPos start = pg_atomic_read_u64(&self.db->spool_start);

		if (geterrcode() != ERRCODE_UNDEFINED_FILE ||
			(pg_atomic_read_u64(&self.consumer->read_pos) <= pos &&
			 start <= pos && start != 0))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		if (IsTransactionState())
			AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		gone = true;
	}
	PG_END_TRY();
	return !gone;
}

/*
 * One batch, or one control record, of the backlog.  False if there is none:
 * go on in the spool, from where the mover has left it.
 */
static bool
work_backlog(void)
{
	/* the mover may have been at the birth before us */
	if (!self.checkpoint.exists || self.checkpoint.foreign)
	{
		bool		foreign = self.checkpoint.foreign;

		self.stopped = !load_checkpoint();
		if (self.stopped)
			return true;
		if (foreign != self.checkpoint.foreign)
			set_state(self.checkpoint.foreign ? PPL_WORKER_LOST : PPL_WORKER_RUNNING);
	}
	if (!ppl_catchup_seek(&self))
		return false;
	self.reader = self.backlog;
	if (!work_once(InvalidXLogRecPtr, PPL_SPOOL_ALL) &&
		ppl_catchup_seek(&self))
		elog(ERROR, "the backlog of pipeline %d has a chunk with nothing for it",
			 self.pipeline_id);
	self.reader = self.spool;
	return true;
}

/*
 * One batch, or one control record.  False if there was nothing.
 */
static bool
work_once(XLogRecPtr decoded, PplSpoolPos end)
{
	PplBatch   *batch;
	PplBatchEnd end_of_batch = PPL_BATCH_DONE;
	bool		any;
	int64		begun;

	ppl_worker_refresh(&self);
	if (self.stopped || ppl_repartition_holds(&self) ||
		(self.reads_source && ppl_pause_for_schema(&self) != PPL_BATCH_DONE))
		return true;
	begun = ppl_clock_us();
	batch = ppl_batch_create(self.context);
	batch->backlog = (self.reader == self.backlog);
	if (!gather(batch, end))
	{
		MemoryContextDelete(batch->context);
		return true;
	}
	any = batch->nevents > 0 || batch->has_control;
	if (!any && batch->backlog)
		any = pass_over(batch);
	if (any)
		self.stuck = false;

	if (batch->nevents > 0)
	{
		pgstat_report_activity(STATE_RUNNING, "processing a batch");
		end_of_batch = ppl_pause_before(&self, batch);
		if (end_of_batch == PPL_BATCH_DONE)
			end_of_batch = ppl_batch_process(&self, batch);
		if (end_of_batch == PPL_BATCH_DONE)
		{
			ppl_spool_reader_seek(self.reader, batch->end_pos);
			published(batch);
			ppl_turn_worked(batch->nevents, begun);
		}
		else
			ppl_spool_reader_seek(self.reader, batch->begin_pos);
	}
	if (batch->has_control && end_of_batch == PPL_BATCH_DONE &&
		act_on_control(batch))
	{
		ppl_spool_reader_seek(self.reader, batch->control_end);
		ppl_atomic_max(&self.consumer->commit_end, XactLastCommitEnd);
		pg_write_barrier();
		if (!batch->backlog)
			ppl_atomic_max(&self.consumer->read_pos, batch->control_end);
		ConditionVariableBroadcast(&self.db->changed);
	}
	if (!any && !batch->backlog)
		caught_up(decoded, batch->end_pos);
	MemoryContextDelete(batch->context);
	return any;
}

/*
 * What is left of the backlog are events of other partitions, if there is anything.
 */
static bool
pass_over(const PplBatch *batch)
{
	if (!ppl_position_after(batch->passed, self.checkpoint.position))
		return false;
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ppl_definition_lock(self.pipeline_id, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (ppl_checkpoint_confirm(self.place, &self.checkpoint))
	{
		ppl_checkpoint_version(self.place, batch->passed, self.checkpoint.version);
		ppl_backlog_delete(self.place, batch->passed);
		self.checkpoint.position = batch->passed;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(self.context);
	ppl_atomic_max(&self.consumer->commit_end, XactLastCommitEnd);
	return true;
}

/*
 * Act on a control record at its place in the order.  False if the worker is
 * to stop and to come back to it later.
 */
static bool
act_on_control(const PplBatch *batch)
{
	const PplControl *control = &batch->control;
	int			version = control->version;
	PplPipeline *pipeline;
	bool		gone;

	if (control->action == PPL_CONTROL_CHANGE && control->workers != 0)
		return ppl_repartition_act(&self, batch);
	if (control->action == PPL_CONTROL_REDRIVE &&
		redrive(batch) != PPL_BATCH_DONE)
		return false;

	HOLD_CANCEL_INTERRUPTS();	/* there is no batch to try again */
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (control->action == PPL_CONTROL_SCHEMA)
	{
		/* it is not a change of the definition, and does not hold that */
		version = self.checkpoint.version;
		if (!batch->backlog)
			ppl_settle_xid(batch->control_xid);
	}
	ppl_definition_lock(self.pipeline_id, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	pipeline = ppl_definition_load(self.pipeline_id);
	gone = pipeline == NULL ||
		ppl_definition_segment(pipeline, self.place.segment) == NULL;
	if (!gone && control->action == PPL_CONTROL_SCHEMA)
		ppl_schema_reached(&self, batch);
	if (!gone && control->action == PPL_CONTROL_BIRTH)
		ppl_checkpoint_birth(self.place, batch->control_position,
							 control->version, control->workers);
	else if (!gone)
		ppl_checkpoint_version(self.place, batch->control_position,
							   version);
	PopActiveSnapshot();
	PPL_FAILPOINT("worker-before-control");
	CommitTransactionCommand();
	PPL_FAILPOINT("worker-after-control");
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(self.context);
	if (gone)
	{
		self.stopped = true;
		return false;
	}

	if (control->action == PPL_CONTROL_BIRTH && self.checkpoint.foreign)
		set_state(PPL_WORKER_RUNNING);
	if (control->action == PPL_CONTROL_BIRTH)
	{
		self.checkpoint.workers = control->workers;
		self.checkpoint.since = version;
	}
	self.checkpoint.exists = true;
	self.checkpoint.foreign = false;
	self.checkpoint.position = batch->control_position;
	self.checkpoint.version = version;
	return true;
}

/*
 * Run the dead letters that are queued by a control record.  Other actions
 * hold the definition's lock until they are visible, this one does not.
 */
static PplBatchEnd
redrive(const PplBatch *batch)
{
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!batch->backlog)
		ppl_settle_xid(batch->control_xid);
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(self.context);
	return ppl_batch_redrive(&self);
}

/*
 * A batch is committed and visible: count how long its events took, and publish
 * it, in the order that capture and wait_for rely on.
 */
static void
published(const PplBatch *batch)
{
	PplConsumer *consumer = self.consumer;
	TimestampTz now = GetCurrentTimestamp();

	/* what was handed over is as old as the source's event */
	for (int i = 0; self.reads_source && i < batch->ntxns; i++)
	{
		const PplBatchTxn *txn = &batch->txns[i];
		int			bucket = ppl_latency_bucket(Max(now - txn->committed_at, 0));

		pg_atomic_fetch_add_u64(&consumer->latency[bucket], txn->nevents);
	}
	for (int i = 0; !self.reads_source && i < batch->nevents; i++)
	{
		TimestampTz committed_at = batch->events[i].origin.committed_at;
		int			bucket = ppl_latency_bucket(Max(now - committed_at, 0));

		pg_atomic_fetch_add_u64(&consumer->latency[bucket], 1);
	}
	pg_atomic_write_u64(&consumer->last_commit_time,
						batch->nevents > 0 ?
						batch->events[batch->nevents - 1].origin.committed_at :
						batch->txns[batch->ntxns - 1].committed_at);
	ppl_rate_add(consumer, now, batch->nevents);
	pg_atomic_fetch_add_u64(&consumer->batches, 1);

	ppl_atomic_max(&consumer->commit_end, XactLastCommitEnd);
	pg_write_barrier();
	ppl_atomic_max(&consumer->processed_lsn, batch->end_lsn);
	if (!batch->backlog)
		ppl_atomic_max(&consumer->read_pos, batch->end_pos);
	ConditionVariableBroadcast(&self.db->changed);
}

/*
 * Everything that was published is read, and nothing of it is ours.
 */
static void
caught_up(XLogRecPtr decoded, PplSpoolPos end)
{
	ppl_atomic_max(&self.consumer->read_pos, end);
	if (ppl_consumer_all_done(self.consumer))
		ppl_atomic_max(&self.consumer->processed_lsn, decoded);
	ConditionVariableBroadcast(&self.db->changed);
}

/*
 * Capture replaces the spool, for which it may need a process itself.
 */
static void
wait_for_spool(void)
{
	ppl_turn_spare(&self, 0, pg_atomic_read_u32(&self.consumer->repairs));
	ppl_process_wait_spare(PPL_SPOOL_OPENS_MS);
}

/*
 * Wait for capture to wake us; leave if nothing comes for long, or somebody else
 * needs the process.
 */
static void
sleep_or_leave(void)
{
	int64		begin = ppl_clock_ms();
	bool		done = ppl_consumer_all_done(self.consumer);

	if (done && ppl_repartition_unwanted(&self))
	{
		self.stopped = true;
		return;
	}

	/* what it could not do is not to be done any more */
	self.stuck = false;
	if (done && (self.consumer->state == PPL_WORKER_FAILED ||
				 self.consumer->state == PPL_WORKER_RETRYING))
		set_state(PPL_WORKER_RUNNING);

	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(true);
	if (!done)
	{
		/* the rest of a transaction is to come, or capture begins anew */
		ppl_process_wait(PPL_REST_MS);
		return;
	}
	ppl_turn_spare(&self, 0, pg_atomic_read_u32(&self.consumer->repairs));
	if (ppl_guc_worker_idle_timeout == 0)
	{
		ppl_process_wait_spare(-1);
		return;
	}
	ppl_process_wait_spare(ppl_guc_worker_idle_timeout);
	if (ppl_clock_ms() - begin >= ppl_guc_worker_idle_timeout &&
		ppl_consumer_all_done(self.consumer))
		ppl_turn_leave(&self, self.checkpoint.foreign ? PPL_WORKER_LOST :
					   PPL_WORKER_IDLE);
}
