/*
 * clock.h
 *		A clock for intervals: it never goes back, whatever is done to the
 *		time of day, and is the same for all processes of the machine.
 */
#ifndef PPL_CLOCK_H
#define PPL_CLOCK_H

#include "portability/instr_time.h"

/* Microseconds since some moment. */
static inline int64
ppl_clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/* Milliseconds since some moment; never 0. */
static inline int64
ppl_clock_ms(void)
{
	return ppl_clock_us() / 1000 + 1;
}

#endif							/* PPL_CLOCK_H */
