/*
 * worker.c
 *		What every part of a worker asks of its place in shared memory.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/guc.h"
#include "base/process.h"
#include "worker/turn.h"
#include "worker/worker.h"

/*
 * Is this worker to leave?  Read without a lock: whoever wants it gone sets its
 * latch afterwards.  A stop counts also if a start came before it was seen.
 */
bool
ppl_worker_disturbed(const PplWorker *worker)
{
	return !worker->consumer->running || worker->consumer->dropped ||
		worker->consumer->retired ||
		pg_atomic_read_u32(&worker->consumer->stops) != worker->stops ||
		worker->consumer->lost ||
		worker->db->state == PPL_DB_CLOSING;
}

/*
 * How far it may read where it reads now.
 */
PplSpoolPos
ppl_worker_end(const PplWorker *worker)
{
	return worker->reader == worker->backlog ? PPL_SPOOL_ALL :
		pg_atomic_read_u64(&worker->db->spool_end);
}

/*
 * Which events of the segment it takes, at its position.
 */
PplPortion
ppl_worker_portion(const PplWorker *worker)
{
	PplPortion	portion = {Max(worker->checkpoint.workers, 1), worker->place.partition};

	return portion;
}

/*
 * Is this process connected as the owner of the pipeline?  If that is another one now,
 * it has to end, and its successor, which is told here, will be.
 */
bool
ppl_worker_is_owner(PplWorker *worker, const PplPipeline *pipeline)
{
	if (pipeline->owner == GetSessionUserId())
		return true;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	worker->consumer->owner = pipeline->owner;
	LWLockRelease(ppl_shared->lock);
	return false;
}

/* This definition holds, in place of the one that was read before it. */
static void
keep_definition(PplWorker *worker, const PplPipeline *pipeline,
				MemoryContext context)
{
	MemoryContextSetParent(context, worker->context);
	if (worker->definition_context != NULL)
		MemoryContextDelete(worker->definition_context);
	worker->definition_context = context;
	worker->definition = pipeline;
}

/*
 * Read what a batch has to know of the definition before there is a program, if it
 * may have changed: the limits of the batch, the operations, and the pipeline's name.
 * Another owner ends the worker.  Outside
 * transactions.
 */
void
ppl_worker_refresh(PplWorker *worker)
{
	PplPipeline *pipeline;
	MemoryContext context;
	MemoryContext oldcontext;

	if (!ppl_program_redefined())
		return;
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_program_watch_definitions();
	context = AllocSetContextCreate(CurrentMemoryContext, "pipeline definition",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	pipeline = ppl_definition_load(worker->pipeline_id);
	if (pipeline != NULL)
		pipeline = ppl_definition_segment(pipeline, worker->place.segment);
	MemoryContextSwitchTo(oldcontext);
	if (pipeline != NULL)
	{
		keep_definition(worker, pipeline, context);
		worker->stopped |= !ppl_worker_is_owner(worker, pipeline);
		for (int i = 0; i < PPL_NSETTINGS; i++)
			worker->settings.values[i] = ppl_definition_setting(pipeline, i);
		if (strcmp(pipeline->name, worker->name) != 0)
			worker->name = MemoryContextStrdup(worker->context, pipeline->name);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);
}

/* What holds for this worker, of its own or the server's. */
static int
own_setting(const PplWorker *worker, PplSetting setting, int general)
{
	int			own = worker->settings.values[setting];

	return own != 0 ? own : general;
}

/*
 * Which operations it takes: those in force at its position, of what is handed over all.
 */
static uint16
own_operations(const PplWorker *worker)
{
	const PplPipeline *definition = worker->definition;

	if (definition == NULL || definition->upstream != 0)
		return worker->consumer->operations;
	return ppl_definition_operations_at(definition, worker->checkpoint.version);
}

/*
 * What this worker takes from the spool.
 */
void
ppl_worker_request(PplWorker *worker, PplGatherRequest *request)
{
	memset(request, 0, sizeof(*request));
	request->place = worker->place;
	request->source = worker->consumer->source;
	request->operations = own_operations(worker);
	request->portion = ppl_worker_portion(worker);
	request->partitioner = worker->partitioner;
	request->born = worker->checkpoint.exists && !worker->checkpoint.foreign;
	if (request->born)
		request->done = worker->checkpoint.position;
	request->max_rows = own_setting(worker, PPL_SETTING_BATCH_ROWS,
									ppl_guc_batch_rows);
	request->max_bytes = (Size) own_setting(worker, PPL_SETTING_BATCH_BYTES,
											ppl_guc_batch_bytes) * 1024;
	request->enough_rows = ppl_turn_rows();
}
