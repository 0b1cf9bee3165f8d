/*
 * worker.c
 *		What every part of a worker asks of its place in shared memory.
 */
#include "postgres.h"
#include "base/compat.h"

#include "base/guc.h"
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
	request->max_rows = ppl_guc_batch_rows;
	request->enough_rows = ppl_turn_rows();
	request->max_bytes = (Size) ppl_guc_batch_bytes * 1024;
}
