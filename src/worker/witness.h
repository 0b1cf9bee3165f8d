/*
 * witness.h
 *		Does what failed for one event work for others?
 */
#ifndef PPL_WITNESS_H
#define PPL_WITNESS_H

#include "worker/worker.h"

extern bool ppl_witness_found(PplWorker *worker, const PplBatch *batch,
							  int ordinal, bool check);

#endif							/* PPL_WITNESS_H */
