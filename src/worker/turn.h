/*
 * turn.h
 *		Workers take turns when there are fewer processes than they need.
 */
#ifndef PPL_TURN_H
#define PPL_TURN_H

#include "worker/worker.h"

extern bool ppl_turn_begin(PplWorker *worker);
extern void ppl_turn_worked(int nevents, int64 begun_us);
extern int	ppl_turn_rows(void);
extern void ppl_turn_check(PplWorker *worker);
extern void ppl_turn_spare(PplWorker *worker, int64 delay, uint32 repairs);
extern void ppl_turn_leave(PplWorker *worker, PplWorkerState state) pg_attribute_noreturn();

#endif							/* PPL_TURN_H */
