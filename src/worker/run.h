/*
 * run.h
 *		Run events of a batch through the statement.
 */
#ifndef PPL_RUN_H
#define PPL_RUN_H

#include "worker/worker.h"

extern void ppl_run_events(PplWorker *worker, const PplBatch *batch, int first,
						   int last);
extern ErrorData *ppl_run_try(PplWorker *worker, const PplBatch *batch,
							  int first, int last);
extern bool ppl_run_probe(PplWorker *worker, const PplBatch *batch,
						  int ordinal);

#endif							/* PPL_RUN_H */
