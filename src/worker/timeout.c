/*
 * timeout.c
 *		The longest time that a stage may work on one event.
 *
 * Runs in a worker.  The fences of the statement count their moves (outcome.c),
 * which is all that a stage with a timeout costs.  A timer looks at the count
 * now and then: if a stage has been on the same event since a look that is its
 * timeout ago, the statement is cancelled.  So a timeout may come late by the
 * time between two looks, a tenth of the shortest one.
 */
#include "postgres.h"
#include "base/compat.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "worker/outcome.h"
#include "worker/timeout.h"

#define PPL_LOOKS			10	/* in the shortest timeout */
#define PPL_LOOK_MAX_MS		1000

/* State of this worker; the handler of the timer reads and writes it, too. */
static struct
{
	bool		registered;
	TimeoutId	id;
	const PplPipeline *volatile pipeline;	/* NULL = not looking */
	uint32		seen_moves;		/* at the look when this event was new */
	int64		seen_at;
	bool		expired;
	uint32		expired_moves;	/* when the statement was cancelled */
}			self;

static void look(void);

/* The stage that works on an event now, or NULL. */
static const PplStage *
current_stage(const PplPipeline *pipeline)
{
	int			stage = ppl_outcome_current_stage();

	if (ppl_outcome_current() == 0 || stage < 1 ||
		stage > list_length(pipeline->stages))
		return NULL;
	return list_nth(pipeline->stages, stage - 1);
}

/*
 * Stages are about to run: enforce their timeouts until ppl_timeout_stop.  The
 * pipeline must live until then.
 */
void
ppl_timeout_start(const PplPipeline *pipeline)
{
	int			shortest = 0;
	ListCell   *lc;

	self.expired = false;
	foreach(lc, pipeline->stages)
	{
		PplStage   *stage = lfirst(lc);

		if (stage->timeout > 0 && (shortest == 0 || stage->timeout < shortest))
			shortest = stage->timeout;
	}
	if (shortest == 0)
		return;
	if (!self.registered)
	{
		self.id = RegisterTimeout(USER_TIMEOUT, look);
		self.registered = true;
	}
	self.seen_moves = ppl_outcome_moves();
	self.seen_at = ppl_clock_ms();
	self.pipeline = pipeline;
	shortest = Min(Max(shortest / PPL_LOOKS, 1), PPL_LOOK_MAX_MS);
	enable_timeout_every(self.id,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), shortest),
						 shortest);
}

/*
 * No stage runs any more, in whatever way the batch ended.
 */
void
ppl_timeout_stop(void)
{
	if (self.pipeline == NULL)
		return;
	disable_timeout(self.id, false);
	self.pipeline = NULL;
}

/* Runs in the handler of a signal: no locks, no memory, no errors. */
static void
look(void)
{
	const PplPipeline *pipeline = self.pipeline;
	const PplStage *stage;
	int64		now = ppl_clock_ms();

	if (pipeline == NULL)
		return;
	if (ppl_outcome_moves() != self.seen_moves)
	{
		self.seen_moves = ppl_outcome_moves();
		self.seen_at = now;
		return;
	}
	stage = current_stage(pipeline);
	if (stage == NULL || stage->timeout == 0 ||
		now - self.seen_at < stage->timeout)
		return;
	self.seen_at = now;			/* again, should the handler catch it */
	self.expired_moves = self.seen_moves;
	self.expired = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/*
 * Was the statement cancelled because of the event that is worked on now, or
 * was last?
 */
bool
ppl_timeout_expired(void)
{
	return self.expired && self.expired_moves == ppl_outcome_moves();
}

/*
 * Error context callback, to be in force between start and stop: an error that
 * is a timeout of a stage says so.
 */
void
ppl_timeout_explain(void *arg)
{
	const PplPipeline *pipeline = self.pipeline;
	const PplStage *stage;

	if (geterrcode() != ERRCODE_QUERY_CANCELED || pipeline == NULL ||
		!ppl_timeout_expired())
		return;
	stage = current_stage(pipeline);
	if (stage == NULL)
		return;
	errmsg("stage \"%s\" exceeded its timeout", stage->name);
	errdetail("It worked on one event for more than %d ms.", stage->timeout);
}
