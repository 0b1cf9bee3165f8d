/*
 * deadletter.h
 *		Events that were rejected or failed.
 */
#ifndef PPL_DEADLETTER_H
#define PPL_DEADLETTER_H

#include "worker/outcome.h"
#include "worker/render.h"
#include "worker/supersede.h"
#include "worker/worker.h"

extern void ppl_deadletter_store(PplWorker *worker, const PplBatch *batch,
								 const PplRendered *rendered,
								 const PplLetterKeys *keys);
extern bool ppl_deadletter_load_queued(PplWorker *worker, PplBatch *batch,
									   int limit, Size max_bytes, bool careful);
extern void ppl_deadletter_redriven(PplWorker *worker, const PplBatch *batch,
									int64 batch_id);

#endif							/* PPL_DEADLETTER_H */
