/*
 * schema.h
 *		A worker comes to a change of its source.
 */
#ifndef PPL_WORKER_SCHEMA_H
#define PPL_WORKER_SCHEMA_H

#include "worker/worker.h"

extern void ppl_schema_reached(PplWorker *worker, const PplBatch *batch);
extern void ppl_schema_passed(PplWorker *worker, const PplBatch *batch);
extern void ppl_schema_reloaded(void);
extern bool ppl_schema_missed(PplWorker *worker, const PplBatch *batch);
extern char *ppl_schema_waits(PplWorker *worker);
extern void ppl_schema_look_again(void);

#endif							/* PPL_WORKER_SCHEMA_H */
