/*
 * repartition.h
 *		A segment gets another number of workers.
 */
#ifndef PPL_REPARTITION_H
#define PPL_REPARTITION_H

#include "worker/batch.h"
#include "worker/worker.h"

extern bool ppl_repartition_act(PplWorker *worker, const PplBatch *batch);
extern bool ppl_repartition_holds(PplWorker *worker);
extern bool ppl_repartition_unwanted(PplWorker *worker);
extern bool ppl_repartition_over(PplWorker *worker, const PplPipeline *pipeline);

#endif							/* PPL_REPARTITION_H */
