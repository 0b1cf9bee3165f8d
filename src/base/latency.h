/*
 * latency.h
 *		Buckets of a latency histogram: two to a doubling of the time.
 *
 * Bucket i covers [32 * 2^(i/2), 32 * 2^((i+1)/2)) microseconds; the first
 * one takes all that is shorter, the last one (from 19 hours) all that is
 * longer.
 */
#ifndef PPL_LATENCY_H
#define PPL_LATENCY_H

#include <math.h>

#include "port/pg_bitutils.h"

#include "base/shm.h"

#define PPL_LATENCY_UNIT 32		/* microseconds */

/* The bucket of a time. */
static inline int
ppl_latency_bucket(int64 microseconds)
{
	uint64		units;
	int			doublings;
	int			bucket;

	if (microseconds < PPL_LATENCY_UNIT)
		return 0;
	units = (uint64) microseconds / PPL_LATENCY_UNIT;
	doublings = pg_leftmost_one_pos64(units);
	bucket = 2 * doublings;
	if ((double) microseconds >=
		ldexp(PPL_LATENCY_UNIT, doublings) * M_SQRT2)
		bucket++;
	return Min(bucket, PPL_LATENCY_BUCKETS - 1);
}

/* The time in the middle of a bucket, in microseconds. */
static inline int64
ppl_latency_value(int bucket)
{
	return (int64) (PPL_LATENCY_UNIT * pow(2.0, (bucket + 0.5) / 2.0));
}

#endif							/* PPL_LATENCY_H */
