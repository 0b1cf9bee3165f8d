/*
 * policy.h
 *		What follows from the failures of a batch.
 */
#ifndef PPL_POLICY_H
#define PPL_POLICY_H

#include "worker/worker.h"

extern bool ppl_policy_leaves_letter(const PplWorker *worker,
									 const PplBatch *batch, int ordinal);
extern void ppl_policy_begin(void);
extern bool ppl_policy_stops(const PplWorker *worker, const PplBatch *batch,
							 int ordinal);
extern int	ppl_policy_keep(const PplWorker *worker, const PplBatch *batch,
							ErrorData **halt);
extern void ppl_policy_count(const PplWorker *worker, const PplBatch *batch,
							 bool redrive);
extern void ppl_policy_commit(void);
extern int64 ppl_policy_letters(void);
extern const char *ppl_policy_last_failure(void);

#endif							/* PPL_POLICY_H */
