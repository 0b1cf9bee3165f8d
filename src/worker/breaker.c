/*
 * breaker.c
 *		Circuit breaker: how many of the last events failed.
 *
 * Runs in a worker.  Events are numbered as they are processed; kept are the
 * numbers of those that failed among the last pipeline.breaker_window ones.
 * What a batch adds counts for its own decisions at once, and is forgotten
 * unless the batch commits.  A batch without a failure costs an addition.
 *
 * Memory: one array in TopMemoryContext, as long as the window at most.
 */
#include "postgres.h"
#include "base/compat.h"

#include "utils/memutils.h"

#include "base/guc.h"
#include "worker/breaker.h"

/* State of this worker. */
static struct
{
	uint64		done;			/* events of committed batches */
	uint64		base;			/* the same and the chunks of this batch */
	uint64	   *numbers;		/* of failed events, ascending */
	int			capacity;
	int			count;
	int			committed;		/* so many are of committed batches */
	int			chunk;			/* so many are of what was before this chunk */
	int			oldest;			/* the first one that counts */
	uint64		closed_at;		/* events done when it was closed last */
}			self;

/*
 * A batch begins; what one that was rolled back had added is forgotten.
 */
void
ppl_breaker_begin(void)
{
	self.base = self.done;
	self.count = self.chunk = self.committed;
	self.oldest = 0;
}

/*
 * The failures of this chunk are told once more, from the first.
 */
void
ppl_breaker_again(void)
{
	self.count = self.chunk;
	self.oldest = 0;
}

static void
add(uint64 number)
{
	if (self.count == self.capacity)
	{
		self.capacity = Max(self.capacity * 2, 64);
		if (self.numbers == NULL)
			self.numbers = MemoryContextAlloc(TopMemoryContext,
											  self.capacity * sizeof(uint64));
		else
			self.numbers = repalloc(self.numbers, self.capacity * sizeof(uint64));
	}
	self.numbers[self.count++] = number;
}

/*
 * This event of the chunk failed.  Is the breaker open now?
 */
bool
ppl_breaker_failed(int ordinal)
{
	uint64		number = self.base + ordinal;

	if (ppl_guc_breaker_failures >= 1.0)
		return false;
	add(number);
	while (self.oldest < self.count &&
		   self.numbers[self.oldest] + ppl_guc_breaker_window <= number)
		self.oldest++;
	return ppl_breaker_open();
}

/*
 * A chunk of so many events was run; those that failed were told before.
 */
void
ppl_breaker_passed(int nevents)
{
	self.base += nevents;
	self.chunk = self.count;
}

/*
 * The batch is committed.
 */
void
ppl_breaker_commit(void)
{
	int			gone = 0;

	self.done = self.base;
	while (gone < self.count &&
		   self.numbers[gone] + ppl_guc_breaker_window <= self.done)
		gone++;
	if (gone > 0)
		memmove(self.numbers, self.numbers + gone,
				(self.count - gone) * sizeof(uint64));
	self.count -= gone;
	self.committed = self.count;
	self.oldest = 0;
}

/*
 * Did more events fail than is to be borne?
 */
bool
ppl_breaker_open(void)
{
	return ppl_guc_breaker_failures < 1.0 &&
		self.count - self.oldest >
		ppl_guc_breaker_failures * ppl_guc_breaker_window;
}

/*
 * Begin to count anew.
 */
void
ppl_breaker_close(void)
{
	self.count = self.committed = self.chunk = self.oldest = 0;
	self.closed_at = self.done;
}

/*
 * How many of the last events failed.
 */
int
ppl_breaker_failures(void)
{
	return self.count - self.oldest;
}

/*
 * Did a whole window go by since the breaker was closed?
 */
bool
ppl_breaker_calm(void)
{
	return self.done - self.closed_at >= (uint64) ppl_guc_breaker_window;
}

/*
 * What committed batches have shown, in short: how many failed, and how long ago
 * the first of them.
 */
void
ppl_breaker_hand_over(PplTurn *turn)
{
	uint64		calm = self.done - self.closed_at;

	turn->breaker_failed = self.committed;
	turn->breaker_span = self.committed == 0 ? 0 :
		(int) (self.done - self.numbers[0]);
	turn->breaker_calm = (int) Min(calm, PG_INT32_MAX);
}

/*
 * Begin where a predecessor ended, as if those that failed had been evenly spread.
 */
void
ppl_breaker_take_over(const PplTurn *turn)
{
	uint64		first = PG_INT32_MAX - turn->breaker_span;

	self.done = self.base = PG_INT32_MAX;
	self.closed_at = self.done - turn->breaker_calm;
	for (int i = 0; i < turn->breaker_failed; i++)
		add(first + (uint64) turn->breaker_span * i / turn->breaker_failed);
	self.committed = self.chunk = self.count;
}
