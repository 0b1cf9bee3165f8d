/*
 * upsert.h
 *		Write the outputs of mode upsert.
 */
#ifndef PPL_UPSERT_H
#define PPL_UPSERT_H

#include "worker/worker.h"

extern void ppl_upsert_begin(const PplProgram *program);
extern void ppl_upsert_apply(PplWorker *worker, const PplBatch *batch,
							 int first, int last);
extern void ppl_upsert_truncate(PplWorker *worker, int ordinal);
extern ErrorData *ppl_upsert_refuse_truncate(PplWorker *worker);

#endif							/* PPL_UPSERT_H */
