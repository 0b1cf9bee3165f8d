/*
 * blame.h
 *		Whose fault is an error: run a batch in parts.
 */
#ifndef PPL_BLAME_H
#define PPL_BLAME_H

#include "worker/worker.h"

extern void ppl_blame_run(PplWorker *worker, const PplBatch *batch,
						  bool check);

#endif							/* PPL_BLAME_H */
