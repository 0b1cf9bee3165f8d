/*
 * wait.h
 *		A worker that has events and cannot go on waits.
 */
#ifndef PPL_WAIT_H
#define PPL_WAIT_H

#include "worker/worker.h"

typedef enum PplWaitEnd
{
	PPL_WAIT_OVER,				/* time is up, or something changed */
	PPL_WAIT_LETTERS,			/* dead letters were redriven or discarded */
	PPL_WAIT_DISTURBED			/* this worker is to leave */
} PplWaitEnd;

extern PplWaitEnd ppl_wait(PplWorker *worker, int64 delay);

#endif							/* PPL_WAIT_H */
