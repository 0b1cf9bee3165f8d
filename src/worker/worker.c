/*
 * worker.c
 *		What every part of a worker asks of its place in shared memory.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
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
 * Read what a batch has to know of the definition before there is a program, if it
 * may have changed: the limits of the batch, and the pipeline's name.  Outside
 * transactions.
 */
void
ppl_worker_refresh(PplWorker *worker)
{
	PplPipeline *pipeline;

	if (!ppl_program_redefined())
		return;
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_program_watch_definitions();
	pipeline = ppl_definition_load(worker->pipeline_id);
	if (pipeline != NULL)
		pipeline = ppl_definition_segment(pipeline, worker->place.segment);
	if (pipeline != NULL)
	{
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
 * What this worker takes from the spool.
 */
void
ppl_worker_request(PplWorker *worker, PplGatherRequest *request)
{
	memset(request, 0, sizeof(*request));
	request->place = worker->place;
	request->source = worker->consumer->source;
	request->operations = worker->consumer->operations;
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
