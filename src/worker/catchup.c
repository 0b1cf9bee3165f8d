/*
 * catchup.c
 *		What a worker does first: the events that were moved to the backlog.
 *
 * Chunks of the backlog are read by a spool reader, which takes their numbers
 * for those of segments, so everything that works on the spool works on them.
 * When the mover has added some (moves), the worker looks into the table before
 * it goes on in the spool, until it finds nothing behind its checkpoint; then
 * it has also deleted what was done already, in the spool.
 *
 * Memory: one chunk at a time, in the reader's context.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "backlog/store.h"
#include "worker/catchup.h"

static char *load_chunk(void *arg, MemoryContext context, uint32 *segno,
						Size *len);

/*
 * A reader of this worker's backlog, for the worker's life.
 */
PplSpoolReader *
ppl_catchup_reader(PplWorker *worker)
{
	return ppl_spool_reader_create_loaded(load_chunk, worker);
}

/* A reader comes by here outside transactions and, in a large one, inside. */
static char *
load_chunk(void *arg, MemoryContext context, uint32 *segno, Size *len)
{
	PplWorker  *worker = arg;
	MemoryContext oldcontext = CurrentMemoryContext;
	bool		outside = !IsTransactionState();
	char	   *bytes;

	if (outside)
	{
		HOLD_CANCEL_INTERRUPTS();
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	bytes = ppl_backlog_fetch(worker->place, context, segno, len);
	PopActiveSnapshot();
	if (outside)
	{
		CommitTransactionCommand();
		RESUME_CANCEL_INTERRUPTS();
	}
	MemoryContextSwitchTo(oldcontext);
	return bytes;
}

/*
 * Is there something that must be done before what is in the spool?  Ask after
 * read_pos was read: who moves it has counted the move before.
 */
bool
ppl_catchup_due(const PplWorker *worker)
{
	uint64		done = pg_atomic_read_u64(&worker->consumer->moves_done);

	pg_read_barrier();
	return pg_atomic_read_u64(&worker->consumer->moves) != done;
}

/*
 * Bring the reader of the backlog to the first chunk that is not done; false
 * if there is none.  What was moved before this is done then.
 */
bool
ppl_catchup_seek(PplWorker *worker)
{
	PplConsumer *consumer = worker->consumer;
	uint64		moves = pg_atomic_read_u64(&consumer->moves);
	XLogRecPtr	moved_lsn;
	uint32		chunk_id;
	bool		found = false;

	pg_read_barrier();
	moved_lsn = pg_atomic_read_u64(&consumer->moved_lsn);

	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (worker->checkpoint.exists && !worker->checkpoint.foreign)
	{
		found = ppl_backlog_first(worker->place,
								  worker->checkpoint.position, &chunk_id);
		if (!found)
			ppl_backlog_delete(worker->place,
							   worker->checkpoint.position);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);

	if (found)
	{
		if (PPL_SPOOL_SEGNO(ppl_spool_reader_position(worker->backlog)) != chunk_id)
			ppl_spool_reader_seek(worker->backlog, PPL_SPOOL_POS(chunk_id, 0));
		return true;
	}

	/* done with it: keep no chunk in memory, nor a number that may come again */
	ppl_spool_reader_close(worker->backlog);
	ppl_spool_reader_seek(worker->backlog, 0);
	if (worker->checkpoint.exists && !worker->checkpoint.foreign)
		ppl_atomic_max(&consumer->processed_lsn, moved_lsn);
	pg_write_barrier();
	ppl_atomic_max(&consumer->moves_done, moves);
	ConditionVariableBroadcast(&worker->db->changed);
	return false;
}
