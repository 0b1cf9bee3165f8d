/*
 * retry.h
 *		A batch that could not be processed: say so, wait, try again.
 */
#ifndef PPL_RETRY_H
#define PPL_RETRY_H

#include "worker/judge.h"
#include "worker/worker.h"

#define PPL_MAX_ATTEMPTS	5	/* of a batch, if no stage says otherwise */

extern void ppl_retry_wait(PplWorker *worker, PplVerdict verdict,
						   const ErrorData *error, int max_attempts);
extern void ppl_retry_over(PplWorker *worker);
extern void ppl_retry_hand_over(PplTurn *turn);
extern void ppl_retry_take_over(const PplTurn *turn);

#endif							/* PPL_RETRY_H */
