/*
 * batch.h
 *		One batch = one database transaction.
 */
#ifndef PPL_BATCH_H
#define PPL_BATCH_H

#include "worker/worker.h"

extern bool ppl_batch_process(PplWorker *worker, PplBatch *batch);
extern bool ppl_batch_redrive(PplWorker *worker);
extern ErrorData *ppl_batch_try(PplWorker *worker, const PplBatch *batch,
								int first, int last);

#endif							/* PPL_BATCH_H */
