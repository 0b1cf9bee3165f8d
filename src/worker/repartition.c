/*
 * repartition.c
 *		A segment gets another number of workers.
 *
 * The change has a place in the order of events, that of its control record.  Every
 * worker processes what is before it under the old number; there it commits its
 * checkpoint with the new one, or deletes it and leaves, if its partition is not
 * among the new ones.  The first to come there makes the checkpoints of partitions
 * that are new.  Nobody goes on before all have come: a checkpoint of the segment
 * with an older version says that one has not.  So what is before is done by
 * everybody before anything behind it is begun.
 *
 * Who has to wait does so without polling, and the last to come wakes it (barrier in
 * shared memory); while there is a lack of processes, it gives its own back.  A
 * worker that starts looks for itself, so it matters little who ends where.
 *
 * Runs in a worker, outside batches, in transactions of its own.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backlog/store.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/guc.h"
#include "base/process.h"
#include "catalog/definition.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/pause.h"
#include "worker/repartition.h"
#include "worker/supersede.h"
#include "worker/turn.h"

/* State of this worker. */
static struct
{
	PplWorker  *worker;			/* when it watches its end */
	bool		retiring;		/* it is retired, unless the commit fails */
	bool		arrived;		/* at a change, and others may wait for its
								 * word */
	int			open;			/* all have come to the change of this version */
}			self;

/* What became of a worker at a change. */
typedef enum Passage
{
	PASSED,						/* it is behind it, or has nothing to do with
								 * it */
	AGAIN,						/* its position is another one: look anew */
	EARLY,						/* the segment itself is not born yet */
	LEFT						/* it is not among the new ones, or nobody is */
} Passage;

static void set_barrier(PplWorker *worker, bool barrier);
static void wait_for_others(PplWorker *worker);
static bool open_barrier(PplWorker *worker, int version);

/*
 * The process ends, maybe not because it wants to: what it said before a commit that
 * did not come is not true, and those that wait for its word look for themselves.
 */
static void
at_end(int code, Datum arg)
{
	PplConsumer *consumer = self.worker->consumer;

	if (self.retiring)
	{
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		consumer->retired = false;
		LWLockRelease(ppl_shared->lock);
	}
	if (self.arrived)
		ppl_consumer_open_barrier(MyDatabaseId, self.worker->place);
}

static void
watch_end(PplWorker *worker)
{
	if (self.worker == NULL)
		before_shmem_exit(at_end, (Datum) 0);
	self.worker = worker;
}

/*
 * This place has nothing to do any more, once the transaction commits.  It is said
 * before that, under the definition's lock: who has the segment get more workers
 * again comes after it.  Capture drops the place when the process has ended.
 */
static void
retire(PplWorker *worker)
{
	self.retiring = true;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	worker->consumer->retired = true;
	pg_atomic_write_u32(&worker->db->retired, 1);
	LWLockRelease(ppl_shared->lock);
}

/* The worker's part of the definition, NULL if it is gone. */
static PplPipeline *
load_segment(const PplWorker *worker)
{
	PplPipeline *pipeline = ppl_definition_load(worker->pipeline_id);

	return pipeline == NULL ? NULL :
		ppl_definition_segment(pipeline, worker->place.segment);
}

/* Does another worker of the segment stand before the change of this version? */
static bool
anyone_before(const PplWorker *worker, int version)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->place.pipeline_id),
		ppl_sql_arg_int(worker->place.segment),
		ppl_sql_arg_int(version),
	};

	return ppl_sql_bool(ppl_sql_read("SELECT EXISTS (SELECT FROM " PPL_CHECKPOINTS
									 " WHERE pipeline_id = $1 AND segment = $2"
									 " AND version < $3)",
									 lengthof(args), args), 0, 0);
}

/*
 * Make what checkpoints of the segment there are not: of all of its partitions, or of
 * this one alone.  Those that are there are not even tried: that would wait for a worker
 * which is changing its own, and may be waiting here for ours.
 */
static void
make_checkpoints(PplWorker *worker, const PplBatch *batch, bool all)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->place.pipeline_id),
		ppl_sql_arg_int(worker->place.segment),
		ppl_sql_arg_int(all ? 1 : worker->place.partition),
		ppl_sql_arg_int(all ? batch->control.workers : worker->place.partition),
		ppl_sql_arg(LSNOID, LSNGetDatum(batch->control_position.commit_lsn)),
		ppl_sql_arg_int(batch->control_position.seq),
		ppl_sql_arg_int(batch->control.version),
		ppl_sql_arg_int(batch->control.workers),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg(LSNOID, LSNGetDatum(worker->slot_lsn)),
	};

	(void) ppl_sql_run("INSERT INTO " PPL_CHECKPOINTS
					   " (pipeline_id, segment, partition, commit_lsn, seq, version,"
					   "  workers, since, system_identifier, database, slot_lsn,"
					   "  updated_at)"
					   " SELECT $1, $2, p, $5, $6, $7, $8, $7, $9, $10, $11,"
					   "  pg_catalog.clock_timestamp()"
					   " FROM pg_catalog.generate_series($3, $4) p"
					   " WHERE NOT EXISTS (SELECT FROM " PPL_CHECKPOINTS " c"
					   "  WHERE c.pipeline_id = $1 AND c.segment = $2"
					   "  AND c.partition = p)"
					   " ON CONFLICT (pipeline_id, segment, partition) DO NOTHING",
					   lengthof(args), args);
}

/* This worker comes to the change from before it. */
static Passage
pass(PplWorker *worker, const PplBatch *batch, const PplPipeline *pipeline)
{
	const PplControl *control = &batch->control;
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->place.pipeline_id),
		ppl_sql_arg_int(worker->place.segment),
		ppl_sql_arg_int(worker->place.partition),
		ppl_sql_arg(LSNOID, LSNGetDatum(batch->control_position.commit_lsn)),
		ppl_sql_arg_int(batch->control_position.seq),
		ppl_sql_arg_int(control->version),
		ppl_sql_arg_int(control->workers),
	};

	if (!ppl_checkpoint_confirm(worker->place, &worker->checkpoint))
		return AGAIN;

	/* if it is wanted again by a later change, it goes there, without events */
	if (worker->place.partition > control->workers &&
		control->version == pipeline->partitioning.since)
	{
		(void) ppl_sql_run("DELETE FROM " PPL_CHECKPOINTS
						   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
						   3, args);
		ppl_backlog_forget(worker->place);
		retire(worker);
		return LEFT;
	}
	(void) ppl_sql_run("UPDATE " PPL_CHECKPOINTS
					   " SET commit_lsn = $4, seq = $5, version = $6, workers = $7,"
					   "  since = $6, updated_at = pg_catalog.clock_timestamp()"
					   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
					   lengthof(args), args);
	PPL_FAILPOINT("worker-at-change");
	make_checkpoints(worker, batch, true);
	worker->checkpoint.position = batch->control_position;
	worker->checkpoint.version = control->version;
	worker->checkpoint.workers = control->workers;
	worker->checkpoint.since = control->version;
	return PASSED;
}

/*
 * This worker has not begun.  If others are before the change, it is for this one
 * that it begins here; if not, the change is long past.  But if there is no
 * checkpoint at all, those that were born with the segment have not even begun, and
 * come here later.
 */
static Passage
join(PplWorker *worker, const PplBatch *batch, const PplPipeline *pipeline)
{
	PplCheckpoint now;

	ppl_checkpoint_load(worker->place, &now);
	if (now.exists && !now.foreign)
	{
		worker->checkpoint = now;
		return AGAIN;
	}
	if (pipeline->slot_lsn == worker->slot_lsn &&
		!anyone_before(worker, PG_INT32_MAX))
		return EARLY;
	if (worker->place.partition <= batch->control.workers &&
		pipeline->slot_lsn == worker->slot_lsn &&
		anyone_before(worker, batch->control.version))
	{
		make_checkpoints(worker, batch, false);
		ppl_checkpoint_load(worker->place, &worker->checkpoint);
		return AGAIN;
	}
	return PASSED;
}

/*
 * Where its last commit ends is told by the others from now on: wait_for must not miss
 * what it has handed over.
 */
static void
bequeath_end(void)
{
	PplPlace	place = self.worker->place;

	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid == MyDatabaseId &&
			consumer->place.pipeline_id == place.pipeline_id &&
			consumer->place.segment == place.segment)
			ppl_atomic_max(&consumer->commit_end, XactLastCommitEnd);
	}
	LWLockRelease(ppl_shared->lock);
}

/*
 * Act on a control record that changes the number of workers.  False if the worker is
 * to stop, or to look for its place anew.
 */
bool
ppl_repartition_act(PplWorker *worker, const PplBatch *batch)
{
	bool		born = worker->checkpoint.exists && !worker->checkpoint.foreign;
	bool		gone;
	PplPipeline *pipeline;
	Passage		passage = LEFT;

	watch_end(worker);
	if (!born)
		set_barrier(worker, true);
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ppl_definition_lock(worker->pipeline_id, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	pipeline = load_segment(worker);
	gone = pipeline == NULL;
	if (!gone && born)
		passage = pass(worker, batch, pipeline);
	else if (!gone)
		passage = join(worker, batch, pipeline);
	PopActiveSnapshot();
	PPL_FAILPOINT("worker-before-control");
	self.arrived = true;
	CommitTransactionCommand();
	self.retiring = false;
	PPL_FAILPOINT("worker-after-control");
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);
	if (passage == EARLY)
	{
		ppl_spool_reader_seek(worker->reader, batch->end_pos);
		wait_for_others(worker);
		return false;
	}
	if (!born)
		set_barrier(worker, false);

	switch (passage)
	{
		case PASSED:
			/* other dead letters are its own now */
			ppl_supersede_forget();
			ppl_pause_recount();
			return true;
		case AGAIN:
			ppl_spool_reader_seek(worker->reader, batch->end_pos);
			return false;
		case EARLY:
			break;
		case LEFT:
			worker->stopped = true;
			bequeath_end();
			if (!gone)
				(void) open_barrier(worker, batch->control.version);
			return false;
	}
	pg_unreachable();
}

/*
 * If nobody is before the change of this version any more, have those go on that
 * wait; else false.
 */
static bool
open_barrier(PplWorker *worker, int version)
{
	bool		open;

	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	open = !anyone_before(worker, version);
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);
	PPL_FAILPOINT("worker-before-barrier");
	if (open)
	{
		ppl_consumer_open_barrier(MyDatabaseId, worker->place);
		self.arrived = false;
	}
	return open;
}

/*
 * Has this worker to wait for others at the last change that it passed?  Then it does,
 * for a while; true: look at everything anew.  Others take the process of one
 * that has to wait if they need it, and nobody needs it if nothing comes for long.
 */
bool
ppl_repartition_holds(PplWorker *worker)
{
	int			version = worker->checkpoint.since;

	if (!worker->checkpoint.exists || worker->checkpoint.foreign ||
		version == self.open)
		return false;

	/* first the word that it waits: who comes last looks for that */
	watch_end(worker);
	self.arrived = true;
	set_barrier(worker, true);
	if (open_barrier(worker, version))
	{
		self.open = version;
		return false;
	}
	wait_for_others(worker);
	return true;
}

/* Say that this worker waits for others, and only for them, or not any more. */
static void
set_barrier(PplWorker *worker, bool barrier)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	worker->consumer->barrier = barrier;
	LWLockRelease(ppl_shared->lock);
}

/* Wait until one of them says something, or for a while. */
static void
wait_for_others(PplWorker *worker)
{
	int64		begin = ppl_clock_ms();

	pgstat_report_activity(STATE_IDLE, NULL);
	ConditionVariableBroadcast(&worker->db->changed);
	self.arrived = false;		/* who leaves by itself waits all the same */
	ppl_turn_spare(worker, 0, pg_atomic_read_u32(&worker->consumer->repairs));
	self.arrived = true;
	ppl_process_wait_spare(ppl_guc_worker_idle_timeout == 0 ? -1 :
						   ppl_guc_worker_idle_timeout);
	if (ppl_guc_worker_idle_timeout > 0 &&
		ppl_clock_ms() - begin >= ppl_guc_worker_idle_timeout)
	{
		self.arrived = false;
		ppl_turn_leave(worker, PPL_WORKER_IDLE);
	}
}

/*
 * A worker starts whose place has no checkpoint: is it one that the segment has no
 * more, and no change that was not reached by all wants it?  Then it is retired.  As
 * long as the segment is not born, all changes are ahead.  In a transaction, under the
 * definition's lock.
 */
bool
ppl_repartition_over(PplWorker *worker, const PplPipeline *pipeline)
{
	if (worker->checkpoint.exists ||
		worker->place.partition <= pipeline->partitioning.workers ||
		anyone_before(worker, pipeline->partitioning.since) ||
		!anyone_before(worker, PG_INT32_MAX))
		return false;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	worker->consumer->retired = true;
	pg_atomic_write_u32(&worker->db->retired, 1);
	LWLockRelease(ppl_shared->lock);
	return true;
}

/*
 * A worker that has not begun has read all there is.  Is its place one that nobody
 * wants any more?  It may have been made for a change that is long past, when capture
 * decoded that anew.  If others are still before the last change, whoever comes to
 * that last wakes it.
 */
bool
ppl_repartition_unwanted(PplWorker *worker)
{
	PplPipeline *pipeline;
	bool		unwanted;
	bool		beyond;

	if (worker->checkpoint.exists)
		return false;
	set_barrier(worker, true);
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	ppl_definition_lock(worker->pipeline_id, AccessShareLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	pipeline = load_segment(worker);
	unwanted = pipeline != NULL && ppl_repartition_over(worker, pipeline);
	beyond = pipeline != NULL &&
		worker->place.partition > pipeline->partitioning.workers;
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);

	if (!beyond)
		set_barrier(worker, false);
	return unwanted;
}
