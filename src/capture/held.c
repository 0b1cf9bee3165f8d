/*
 * held.c
 *		What consumers hold back of the WAL.
 *
 * Capture alone runs this.  Blocks on nothing but the lock of shared memory.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"

#include "base/guc.h"
#include "capture/held.h"
#include "capture/partitions.h"

/*
 * Up to where the slot may be confirmed: the minimum over these consumers of
 * what they have committed durably, or have durably in the backlog; those that
 * are lost need nothing.  *progress_expected tells whether that
 * will move by itself, so that it is worth another look soon.
 */
XLogRecPtr
ppl_held_confirmable(const List *consumers, XLogRecPtr decoded,
					 bool *progress_expected)
{
	XLogRecPtr	result = decoded;
	XLogRecPtr	flushed = GetFlushRecPtr(NULL);
	ListCell   *lc;

	*progress_expected = false;
	foreach(lc, consumers)
	{
		PplConsumer *shared = ((FilterConsumer *) lfirst(lc))->shared;
		XLogRecPtr	old = pg_atomic_read_u64(&shared->confirm_lsn);
		XLogRecPtr	done = Max(pg_atomic_read_u64(&shared->processed_lsn),
							   pg_atomic_read_u64(&shared->moved_lsn));
		bool		spool_done = ppl_consumer_spool_done(shared);

		if (shared->lost || shared->dropped || shared->retired)
		{
			pg_atomic_write_u64(&shared->confirm_lsn, decoded);
			continue;
		}
		pg_read_barrier();
		if (pg_atomic_read_u64(&shared->commit_end) > flushed)
		{
			done = old;
			spool_done = false;
			*progress_expected = true;
		}
		else if (spool_done)
			done = decoded;
		else if (shared->running)
			*progress_expected = true;
		if (done > old)
			pg_atomic_write_u64(&shared->confirm_lsn, done);
		result = Min(result, Max(done, old));
	}
	return result;
}

/*
 * Ask the mover for the events of consumers that hold back too much WAL.  False
 * if there are none.
 */
bool
ppl_held_request_moves(const List *consumers, PplDatabase *db,
					   XLogRecPtr decoded)
{
	uint64		limit = (uint64) ppl_guc_max_retained_wal * 1024 * 1024;
	bool		any = false;
	ListCell   *lc;

	foreach(lc, consumers)
	{
		PplConsumer *shared = ((FilterConsumer *) lfirst(lc))->shared;

		if (shared->lost || shared->dropped || shared->retired ||
			pg_atomic_read_u64(&shared->confirm_lsn) + limit >= decoded ||
			ppl_consumer_spool_done(shared))
			continue;
		pg_atomic_write_u32(&shared->move_wanted, 1);
		any = true;
	}
	if (any)
	{
		pg_write_barrier();
		pg_atomic_write_u32(&db->mover_wanted, 1);
		pg_memory_barrier();
		ppl_wake(&ppl_shared->mover.procno);
	}
	return any;
}
