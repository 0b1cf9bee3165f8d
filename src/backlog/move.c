/*
 * move.c
 *		Move events of one pipeline from the spool to the backlog.
 *
 * Runs in the mover, one database transaction for some megabytes of whole
 * source transactions.  What such a step does: lock the definition in share
 * mode, as batches do, so that no start, stop or drop is half done meanwhile;
 * see from the checkpoint and the last chunk what is done or kept already;
 * read the spool from the consumer's read_pos on; add chunks; commit durably;
 * publish.  It waits for nobody: a definition that is locked, or a source
 * transaction that is not visible yet, is left for the next step.
 *
 * A worker may be in a batch of the same events, and knows nothing of it.
 * Both go by positions: the worker skips in a chunk what its checkpoint has, and
 * deletes a chunk that has nothing else.  The checkpoint itself is the worker's;
 * the mover makes one only if there is none, because no worker ever came to the
 * record of the birth.
 *
 * Order of publication, and why an end at any point harms nothing:
 *	1. commit_end, moved_lsn: capture may confirm the slot up to moved_lsn, as
 *	   all up to there is durable, done or in the table.
 *	2. moves: from here on the worker looks into the table before it goes on
 *	   in the spool, and wait_for knows that not all is done.
 *	3. read_pos: the spool's files may go.
 * Before the commit, nothing has happened.  Between the commit and 1, the spool
 * still has it all: the worker takes it from there, or another step finds the
 * position of the last chunk, adds nothing and publishes.  So each step counts
 * a move: that it added nothing does not mean that the worker knows all.
 *
 * A segment whose backlog would be too large is lost: one step commits that, the
 * next one finds it in the definition and tells (lost.c).
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "backlog/lost.h"
#include "backlog/move.h"
#include "backlog/store.h"
#include "base/failpoint.h"
#include "base/guc.h"
#include "catalog/definition.h"
#include "spool/record.h"

#define PPL_STEP_BYTES	(16 * 1024 * 1024)	/* of records, one transaction */
#define PPL_CHUNK_BYTES (1024 * 1024)

/* One step. */
typedef struct Step
{
	PplConsumer *consumer;
	PplSpoolReader *reader;
	XLogRecPtr	slot_lsn;
	PplPlace	place;
	Oid			source;
	uint16		operations;
	PplBacklogState state;
	PplSpoolPos start;			/* in the spool */
	PplSpoolPos limit;			/* after the last transaction of the step */
	XLogRecPtr	end_lsn;		/* and its end in the WAL */
	MemoryContext context;		/* of the chunk */
	PplChunk	chunk;
	bool		unknown;		/* where the place begins: nothing is moved */
	bool		lost;			/* the segment is, by this step */
	bool		told;			/* it is by an earlier one, which is known now */
} Step;

static bool find_start(Step *step, PplDatabase *db, PplSpoolPos *end);
static bool load(Step *step);
static void find_limit(Step *step, PplSpoolPos end);
static bool is_settled(TransactionId xid);
static void copy_records(Step *step);
static bool copy_control(Step *step, const PplSpoolRaw *raw,
						 PplPosition position);
static void add_record(Step *step, const PplSpoolRaw *raw);
static void add_chunk(Step *step);
static void publish(Step *step, PplDatabase *db);

/*
 * One step for one consumer; the reader is of its spool.  False if it brought
 * nothing further, maybe because it must wait for somebody.  Throws what the
 * database says, and 58P01 if capture replaced the spool meanwhile; then the
 * caller takes the transaction back.
 */
bool
ppl_backlog_move(PplDatabase *db, PplConsumer *consumer, PplSpoolReader *reader)
{
	Step		step;
	PplSpoolPos end;

	memset(&step, 0, sizeof(step));
	step.consumer = consumer;
	step.reader = reader;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	step.context = AllocSetContextCreate(CurTransactionContext,
										 "pipeline chunk",
										 ALLOCSET_DEFAULT_SIZES);
	if (find_start(&step, db, &end))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		if (load(&step))
		{
			find_limit(&step, end);
			copy_records(&step);
		}
		if (step.lost)
			ppl_backlog_lose(step.place, step.state.bytes);
		PopActiveSnapshot();
	}
	PPL_FAILPOINT("mover-before-commit");
	CommitTransactionCommand();
	PPL_FAILPOINT("mover-after-commit");
	MemoryContextSwitchTo(TopMemoryContext);

	if (step.lost)
		return true;			/* the next step tells that */
	if (step.limit > step.start)
		publish(&step, db);
	else if (!step.told)
		return false;
	ppl_wake(&db->capture.procno);
	ppl_wake(&consumer->process.procno);
	ppl_wake_launcher();
	ConditionVariableBroadcast(&db->changed);
	return !step.told;
}

/*
 * Whose events, and from where to where in the spool.  False while capture
 * replaces it, and if the consumer is gone.
 */
static bool
find_start(Step *step, PplDatabase *db, PplSpoolPos *end)
{
	PplConsumer *consumer = step->consumer;
	PplSpoolPos start;
	bool		known;

	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	known = consumer->dboid == MyDatabaseId && !consumer->dropped &&
		!consumer->lost && !consumer->retired && db->dboid == MyDatabaseId;
	step->place = consumer->place;
	step->source = consumer->source;
	step->operations = consumer->operations;
	step->slot_lsn = db->slot_lsn;
	LWLockRelease(ppl_shared->lock);
	if (!known || !ppl_definition_try_lock(step->place.pipeline_id))
		return false;

	start = pg_atomic_read_u64(&db->spool_start);
	pg_read_barrier();
	*end = pg_atomic_read_u64(&db->spool_end);
	pg_read_barrier();
	step->start = Max(start, pg_atomic_read_u64(&consumer->read_pos));
	step->limit = step->start;
	return start != 0 && pg_atomic_read_u64(&db->spool_start) == start;
}

/*
 * How far is it?  False if the definition is gone or of another slot, or if the
 * segment is lost.
 */
static bool
load(Step *step)
{
	PplPipeline *pipeline = ppl_definition_load(step->place.pipeline_id);

	if (pipeline == NULL || !pipeline->born ||
		pipeline->slot_lsn != step->slot_lsn)
		return false;
	if (list_member_int(pipeline->lost, step->place.segment))
	{
		ppl_backlog_tell_lost(step->place, pipeline->name, true);
		step->told = true;
		return false;
	}
	ppl_backlog_load(step->place, step->slot_lsn, &step->state);
	return true;
}

/*
 * Where does this step end?  After a transaction that is complete and, if
 * something of it is to be moved, settled: then whoever reads the chunk need
 * not ask, when its number may long be another transaction's.
 */
static void
find_limit(Step *step, PplSpoolPos end)
{
	PplRecordHeader header;
	Size		bytes = 0;
	bool		concerned = false;

	ppl_spool_reader_seek(step->reader, step->start);
	while (ppl_spool_reader_peek(step->reader, end, &header))
	{
		CHECK_FOR_INTERRUPTS();
		ppl_spool_reader_skip(step->reader);
		if (header.kind == PPL_REC_CONTROL ||
			ppl_record_wanted(&header, step->place.pipeline_id, step->source,
							  step->operations))
		{
			concerned = true;
			bytes += header.len;
		}
		if (header.kind != PPL_REC_COMMIT)
			continue;
		if (concerned && !is_settled(header.xid))
			return;
		concerned = false;
		step->limit = ppl_spool_reader_position(step->reader);
		step->end_lsn = header.end_lsn;
		if (bytes >= PPL_STEP_BYTES)
			return;
	}
}

/*
 * Is a transaction visible, with all that it told others?  See worker/settle.c,
 * which waits for it.
 */
static bool
is_settled(TransactionId xid)
{
	return !TransactionIdIsValid(xid) || ConditionalXactLockTableWait(xid);
}

/* Add what lies before the limit to the backlog. */
static void
copy_records(Step *step)
{
	PplRecordHeader header;
	PplSpoolRaw raw;
	bool		open = false;	/* something of this transaction was added */

	ppl_spool_reader_seek(step->reader, step->start);
	while (!step->lost && !step->unknown &&
		   ppl_spool_reader_peek(step->reader, step->limit, &header))
	{
		PplPosition position = {header.commit_lsn, header.seq};
		bool		add;

		CHECK_FOR_INTERRUPTS();
		if (header.kind == PPL_REC_COMMIT)
			add = open;
		else if (!ppl_position_after(position, step->state.position))
			add = false;
		else
			add = header.kind == PPL_REC_CONTROL ||
				(step->state.born &&
				 ppl_record_wanted(&header, step->place.pipeline_id, step->source,
								   step->operations));
		if (!add)
		{
			ppl_spool_reader_skip(step->reader);
			continue;
		}

		ppl_spool_reader_raw(step->reader, step->limit, &raw);
		if (header.kind == PPL_REC_CONTROL && !copy_control(step, &raw, position))
			continue;
		add_record(step, &raw);
		open = header.kind != PPL_REC_COMMIT;
	}
	if (step->chunk.bytes.data != NULL && !step->lost)
		add_chunk(step);
	if (step->unknown)
		step->limit = step->start;
}

/*
 * Is this control record to be kept, for the worker to act on at its place?
 */
static bool
copy_control(Step *step, const PplSpoolRaw *raw, PplPosition position)
{
	PplControl	control;

	if (raw->header.new_len != sizeof(control))
		elog(ERROR, "a control message has a wrong length");
	memcpy(&control, raw->body, sizeof(control));
	if (!ppl_control_concerns(&control, step->place))
		return false;
	if (step->state.born)
		return true;
	if (control.action == PPL_CONTROL_BIRTH)
	{
		ppl_backlog_birth(step->place, step->slot_lsn, position,
						  control.version, control.workers);
		step->state.born = true;
		step->state.position = position;
		step->state.bytes = 0;
	}
	else if (control.action == PPL_CONTROL_CHANGE && control.workers != 0)
	{
		/* its worker, or another one, may do the same right now */
		if (ppl_backlog_join(step->place, step->slot_lsn, position,
							 control.version, control.workers))
			ppl_backlog_load(step->place, step->slot_lsn, &step->state);
		else
			step->unknown = true;
	}
	return false;
}

/*
 * Add a record to the chunk.  The end of a transaction is in the same chunk as
 * the last record of it.
 */
static void
add_record(Step *step, const PplSpoolRaw *raw)
{
	MemoryContext oldcontext;

	if (raw->header.kind != PPL_REC_COMMIT &&
		step->chunk.bytes.len >= PPL_CHUNK_BYTES)
		add_chunk(step);
	oldcontext = MemoryContextSwitchTo(step->context);
	if (step->chunk.bytes.data == NULL)
		ppl_chunk_begin(&step->chunk, step->slot_lsn);
	ppl_chunk_add(&step->chunk, raw);
	MemoryContextSwitchTo(oldcontext);
}

/* Add the chunk to the table, unless that is full. */
static void
add_chunk(Step *step)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(step->context);

	ppl_chunk_end(&step->chunk);
	step->state.bytes += step->chunk.bytes.len;
	if (step->state.bytes > (int64) ppl_guc_max_backlog * 1024 * 1024)
		step->lost = true;
	else
		ppl_backlog_add(step->place, &step->chunk);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(step->context);
	memset(&step->chunk, 0, sizeof(step->chunk));
}

/* What was committed is there for others; see the head of this file. */
static void
publish(Step *step, PplDatabase *db)
{
	PplConsumer *consumer = step->consumer;

	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	if (consumer->dboid == MyDatabaseId && !consumer->dropped &&
		ppl_place_equal(consumer->place, step->place) &&
		db->slot_lsn == step->slot_lsn)
	{
		ppl_atomic_max(&consumer->commit_end, XactLastCommitEnd);
		pg_write_barrier();
		ppl_atomic_max(&consumer->moved_lsn, step->end_lsn);
		pg_atomic_fetch_add_u64(&consumer->moves, 1);
		pg_write_barrier();
		ppl_atomic_max(&consumer->read_pos, step->limit);
	}
	LWLockRelease(ppl_shared->lock);
}
