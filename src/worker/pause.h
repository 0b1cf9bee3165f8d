/*
 * pause.h
 *		A pipeline that fails too much stands still, instead of going on.
 */
#ifndef PPL_PAUSE_H
#define PPL_PAUSE_H

#include "worker/batch.h"

extern PplBatchEnd ppl_pause_for_schema(PplWorker *worker);
extern PplBatchEnd ppl_pause_before(PplWorker *worker, PplBatch *batch);
extern void ppl_pause_hand_over(PplTurn *turn);
extern void ppl_pause_take_over(const PplTurn *turn, int reason);

extern void ppl_pause_recount(void);

#endif							/* PPL_PAUSE_H */
