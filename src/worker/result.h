/*
 * result.h
 *		From the outcomes of a batch to its counts, lineage and dead letters.
 */
#ifndef PPL_RESULT_H
#define PPL_RESULT_H

#include "worker/worker.h"

extern void ppl_result_store(PplWorker *worker, const PplBatch *batch,
							 bool redrive, PplPosition before,
							 TimestampTz started_at, int attempts);

#endif							/* PPL_RESULT_H */
