/*
 * breaker.h
 *		Circuit breaker: how many of the last events failed.
 */
#ifndef PPL_BREAKER_H
#define PPL_BREAKER_H

#include "base/shm.h"

extern void ppl_breaker_begin(void);
extern void ppl_breaker_again(void);
extern bool ppl_breaker_failed(int ordinal);
extern void ppl_breaker_passed(int nevents);
extern void ppl_breaker_commit(void);
extern bool ppl_breaker_open(void);
extern void ppl_breaker_close(void);
extern int	ppl_breaker_failures(void);
extern bool ppl_breaker_calm(void);
extern void ppl_breaker_hand_over(PplTurn *turn);
extern void ppl_breaker_take_over(const PplTurn *turn);

#endif							/* PPL_BREAKER_H */
