/*
 * retry.h
 *		Whose fault is an error, and how to go on.
 */
#ifndef PPL_RETRY_H
#define PPL_RETRY_H

#include "worker/worker.h"

typedef enum PplVerdict
{
	PPL_VERDICT_EVENT,			/* one event's */
	PPL_VERDICT_ENVIRONMENT,	/* an object's, a right's, the code's */
	PPL_VERDICT_MOMENT			/* nobody's: try again */
} PplVerdict;

extern PplVerdict ppl_retry_judge(int sqlstate);
extern void ppl_retry_run(PplWorker *worker, const PplBatch *batch);
extern void ppl_retry_wait(PplWorker *worker, PplVerdict verdict,
						   const ErrorData *error);
extern void ppl_retry_over(PplWorker *worker);

#endif							/* PPL_RETRY_H */
