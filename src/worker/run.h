/*
 * run.h
 *		Run events of a batch through the statement.
 */
#ifndef PPL_RUN_H
#define PPL_RUN_H

#include "worker/worker.h"

/* What a subtransaction is made for. */
typedef void (*PplRunWork) (void *arg);

extern void ppl_run_events(PplWorker *worker, const PplBatch *batch, int first,
						   int last);
extern void ppl_run_check_constraints(void);
extern void ppl_run_defer_constraints(void);
extern ErrorData *ppl_run_subtransaction(MemoryContext context, bool keep,
										 PplRunWork work, void *arg);
extern ErrorData *ppl_run_in_subtransaction(const PplBatch *batch, int first,
											int last, bool keep,
											PplRunWork work, void *arg);
extern ErrorData *ppl_run_try(PplWorker *worker, const PplBatch *batch,
							  int first, int last, bool check);
extern ErrorData *ppl_run_probe(PplWorker *worker, const PplBatch *batch,
								int ordinal, bool check);

#endif							/* PPL_RUN_H */
