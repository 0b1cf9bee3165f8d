/*
 * hand.h
 *		What a segment hands over to those behind it.
 */
#ifndef PPL_HAND_H
#define PPL_HAND_H

#include "worker/worker.h"

extern void ppl_hand_load(PplProgram *program);
extern void ppl_hand_begin(const PplProgram *program, const PplBatch *batch);
extern void ppl_hand_note(PplWorker *worker, const PplBatch *batch,
						  int first, int last);
extern void ppl_hand_write(PplWorker *worker, const PplBatch *batch);

#endif							/* PPL_HAND_H */
