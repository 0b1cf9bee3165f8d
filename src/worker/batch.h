/*
 * batch.h
 *		One batch = one database transaction.
 */
#ifndef PPL_BATCH_H
#define PPL_BATCH_H

#include "worker/worker.h"

typedef enum PplBatchEnd
{
	PPL_BATCH_DONE,
	PPL_BATCH_STOPPED,			/* the pipeline is stopped or gone */
	PPL_BATCH_ABANDONED			/* its spool is gone: gather it anew */
} PplBatchEnd;

extern PplBatchEnd ppl_batch_process(PplWorker *worker, PplBatch *batch);
extern PplBatchEnd ppl_batch_redrive(PplWorker *worker);
extern ErrorData *ppl_batch_try(PplWorker *worker, const PplBatch *batch,
								int first, int last);

#endif							/* PPL_BATCH_H */
