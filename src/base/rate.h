/*
 * rate.h
 *		Events a second of a worker, over the last ten seconds or so.
 *
 * Counted by windows of ten seconds: what the last whole one had, as far as it is
 * within ten seconds, and what the one under way has.  Only the worker writes.
 */
#ifndef PPL_RATE_H
#define PPL_RATE_H

#include "base/shm.h"

#define PPL_RATE_WINDOW (10 * USECS_PER_SEC)

/* So many events were done at this moment. */
static inline void
ppl_rate_add(PplConsumer *consumer, TimestampTz now, uint64 events)
{
	uint64		window = (uint64) now / PPL_RATE_WINDOW;
	uint64		last = pg_atomic_read_u64(&consumer->rate_window);

	if (window != last)
	{
		pg_atomic_write_u64(&consumer->rate_before, window == last + 1 ?
							pg_atomic_read_u64(&consumer->rate_events) : 0);
		pg_atomic_write_u64(&consumer->rate_events, 0);
		pg_atomic_write_u64(&consumer->rate_window, window);
	}
	pg_atomic_fetch_add_u64(&consumer->rate_events, events);
}

/* How many a second up to this moment? */
static inline double
ppl_rate_read(PplConsumer *consumer, TimestampTz now)
{
	uint64		window = (uint64) now / PPL_RATE_WINDOW;
	double		passed = (double) ((uint64) now % PPL_RATE_WINDOW) / PPL_RATE_WINDOW;
	uint64		last = pg_atomic_read_u64(&consumer->rate_window);
	double		events = (double) pg_atomic_read_u64(&consumer->rate_events);
	double		before = (double) pg_atomic_read_u64(&consumer->rate_before);

	if (window == last)
		events += before * (1.0 - passed);
	else if (window == last + 1)
		events *= 1.0 - passed;
	else
		events = 0;
	return events * USECS_PER_SEC / PPL_RATE_WINDOW;
}

#endif							/* PPL_RATE_H */
