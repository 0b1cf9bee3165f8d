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
	PPL_BATCH_ABANDONED			/* gather it anew: the spool was replaced, the
								 * position given up, or more events may have
								 * come that tell whose fault an error is */
} PplBatchEnd;

extern PplBatchEnd ppl_batch_process(PplWorker *worker, PplBatch *batch);
extern PplBatchEnd ppl_batch_redrive(PplWorker *worker);
extern PplBatchEnd ppl_batch_probe(PplWorker *worker, PplBatch *batch,
								   int *nprobes, int *failed);

#endif							/* PPL_BATCH_H */
