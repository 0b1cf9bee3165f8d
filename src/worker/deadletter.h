/*
 * deadletter.h
 *		Events that were rejected or failed.
 */
#ifndef PPL_DEADLETTER_H
#define PPL_DEADLETTER_H

#include "utils/jsonb.h"

#include "worker/outcome.h"
#include "worker/worker.h"

extern Datum ppl_deadletter_render(PplProgram *program, const PplEvent *event);
extern void ppl_deadletter_store(PplWorker *worker, const PplBatch *batch,
								 const Datum *payloads);
extern int64 ppl_deadletter_load_queued(PplWorker *worker, PplBatch *batch,
										int limit, bool careful);
extern void ppl_deadletter_redriven(PplWorker *worker, const PplBatch *batch,
									int64 batch_id);

#endif							/* PPL_DEADLETTER_H */
