/*
 * partitions.c
 *		Consumers of segments whose number of workers changes.
 *
 * Capture alone runs this, for filter.c, which keeps the consumers.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/transam.h"
#include "storage/procarray.h"

#include "capture/partitions.h"

/*
 * A segment begins anew with so many workers: if it had more, the others have nothing
 * to do any more.
 */
void
ppl_partitions_retire(const List *consumers, const PplControl *control,
					  PplDatabase *db)
{
	ListCell   *lc;

	if (control->workers == 0)
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	foreach(lc, consumers)
	{
		PplConsumer *shared = ((FilterConsumer *) lfirst(lc))->shared;

		if (shared->place.pipeline_id != control->pipeline_id ||
			shared->place.segment != control->segment ||
			shared->place.partition <= control->workers)
			continue;
		shared->retired = true;
		pg_atomic_write_u32(&db->retired, 1);
		ppl_wake(&shared->process.procno);
	}
	LWLockRelease(ppl_shared->lock);
}

/*
 * A birth is decoded once more, and its place is not among those of the definitions.
 * Has none of its segment come to it?  Then what follows waits for this place,
 * too.  If one has, all of them had a checkpoint since, and this one has left; and if
 * there is none at all, the segment is gone.
 */
bool
ppl_partitions_unborn(const List *consumers, const PplControl *control)
{
	bool		any = false;
	ListCell   *lc;

	foreach(lc, consumers)
	{
		FilterConsumer *consumer = lfirst(lc);

		if (consumer->shared->place.pipeline_id != control->pipeline_id ||
			consumer->shared->place.segment != control->segment)
			continue;
		if (consumer->version >= control->version)
			return false;
		any = true;
	}
	return any;
}

static FilterConsumer *
find_consumer(const List *consumers, PplPlace place)
{
	ListCell   *lc;

	foreach(lc, consumers)
	{
		if (ppl_place_equal(((FilterConsumer *) lfirst(lc))->shared->place, place))
			return lfirst(lc);
	}
	return NULL;
}

/*
 * From this record on a segment has so many workers: which places begin here?  One
 * that was there before, and has not come to the change that took it out, is there
 * still.  After a restart there may be changes that all workers are beyond: what came
 * of them was read from the tables.
 */
void
ppl_partitions_join(const List *consumers, const PplControl *control,
					PplJoining *joining)
{
	FilterConsumer *sibling = NULL;
	bool		due = false;
	ListCell   *lc;

	memset(joining, 0, sizeof(*joining));
	foreach(lc, consumers)
	{
		FilterConsumer *consumer = lfirst(lc);

		if (consumer->shared->place.pipeline_id != control->pipeline_id ||
			consumer->shared->place.segment != control->segment)
			continue;
		if (sibling == NULL || sibling->shared->retired)
			sibling = consumer;
		due |= consumer->version < control->version;
	}
	if (!due)
		return;
	joining->running = sibling->shared->running;
	joining->lost = sibling->shared->lost;
	for (int i = 1; i <= control->workers; i++)
	{
		PplPlace	place = {control->pipeline_id, control->segment, i};
		FilterConsumer *consumer = find_consumer(consumers, place);
		PplShare   *share;

		if (consumer != NULL && !consumer->shared->retired)
			continue;
		share = palloc0(sizeof(*share));
		share->place = place;
		share->source = sibling->source;
		share->operations = sibling->operations;
		joining->shares = lappend(joining->shares, share);
	}
}

/*
 * The consumers whose workers have left for good, FilterConsumer *; they are dropped
 * in shared memory.
 */
List *
ppl_partitions_gone(const List *consumers, PplDatabase *db)
{
	List	   *gone = NIL;
	ListCell   *lc;

	if (pg_atomic_exchange_u32(&db->retired, 0) == 0)
		return NIL;
	foreach(lc, consumers)
	{
		FilterConsumer *consumer = lfirst(lc);
		PplConsumer *shared = consumer->shared;
		TransactionId xid = shared->reserved_by;

		if (!shared->retired)
			continue;
		/* until it is dropped, or wanted again */
		pg_atomic_write_u32(&db->retired, 1);
		if (TransactionIdIsValid(xid) &&
			(TransactionIdIsInProgress(xid) || TransactionIdDidCommit(xid)))
			continue;
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (shared->retired && shared->process.pid == 0 &&
			!shared->process.ordered && shared->reserved_by == xid)
		{
			shared->reserved_by = InvalidTransactionId;
			shared->running = false;
			shared->dropped = true;
			gone = lappend(gone, consumer);
		}
		LWLockRelease(ppl_shared->lock);
	}
	return gone;
}
