/*
 * mark.c
 *		The mark of rows that nobody takes for events.
 *
 * Runs in workers, but for ppl_mark_is, which capture asks.  The mark hides
 * whatever is written while it is set, by whatever code.  So it is set only
 * directly before one row of an output is written, and only where no code of users
 * can run until it is cleared (catalog/own.c).  Setting it takes a key, since
 * users may call all functions of the statement that does: it is drawn once a
 * process, and reaches only the statements of the program.
 *
 * Blocks on nothing, takes no lock, allocates nothing.
 */
#include "postgres.h"
#include "base/compat.h"

#include "replication/origin.h"
#include "storage/ipc.h"

#include "base/mark.h"

/* State of this process. */
static struct
{
	int64		key;			/* 0 = none yet */
	bool		set;			/* the origin is ours */
}			self;

static void
clear_at_exit(int code, Datum arg)
{
	ppl_mark_clear();
}

/*
 * What ppl_mark_set wants to be told.  Never 0.
 */
int64
ppl_mark_key(void)
{
	if (self.key == 0)
	{
		/* before the transaction is aborted, whose record must not have it */
		before_shmem_exit(clear_at_exit, (Datum) 0);
		do
		{
			if (!pg_strong_random(&self.key, sizeof(self.key)))
				ereport(ERROR,
						(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("could not generate a random number")));
		} while (self.key == 0);
	}
	return self.key;
}

/*
 * What is written from here on is no event of anybody, if the key is right.  Not
 * in a session whose writes have an origin of their own.
 */
void
ppl_mark_set(int64 key)
{
	if (key == 0 || key != self.key ||
		replorigin_session_origin != InvalidRepOriginId)
		return;
	self.set = true;
	replorigin_session_origin = DoNotReplicateId;
}

/*
 * What is written from here on may be an event.
 */
void
ppl_mark_clear(void)
{
	if (!self.set)
		return;
	replorigin_session_origin = InvalidRepOriginId;
	self.set = false;
}

/*
 * Does the origin of a record in the WAL say that it is no event?
 */
bool
ppl_mark_is(uint16 origin)
{
	return origin == DoNotReplicateId;
}
