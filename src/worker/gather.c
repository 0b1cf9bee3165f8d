/*
 * gather.c
 *		Take events from the spool into a batch.
 *
 * Runs in a worker, outside transactions.  Takes what is published, up to the
 * limits, and gives back what is beyond the last complete transaction, unless
 * one transaction alone exceeds the limits: then the batch is not complete and
 * the caller goes on in the same database transaction.  A control record of
 * the pipeline ends the batch.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "utils/memutils.h"

#include "base/process.h"
#include "worker/gather.h"
#include "worker/share.h"

/* What was read when the last transaction that fits was complete. */
typedef struct Cut
{
	int			nevents;
	int			ntxns;
	PplPosition last;
	PplSpoolPos pos;
	XLogRecPtr	end_lsn;
} Cut;

/*
 * An empty batch in a context of its own below parent; freed by deleting that.
 */
PplBatch *
ppl_batch_create(MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "pipeline batch",
												  ALLOCSET_DEFAULT_SIZES);
	PplBatch   *batch = MemoryContextAllocZero(context, sizeof(*batch));

	batch->context = context;
	batch->scratch = AllocSetContextCreate(context, "pipeline attempt",
										   ALLOCSET_DEFAULT_SIZES);
	batch->max_events = 64;
	batch->events = MemoryContextAlloc(context, batch->max_events * sizeof(PplEvent));
	batch->max_txns = 16;
	batch->txns = MemoryContextAlloc(context, batch->max_txns * sizeof(PplBatchTxn));
	return batch;
}

static PplBatchTxn *
transaction_of(PplBatch *batch, const PplRecordHeader *header)
{
	PplBatchTxn *txn;

	if (batch->ntxns > 0 &&
		batch->txns[batch->ntxns - 1].commit_lsn == header->commit_lsn)
		return &batch->txns[batch->ntxns - 1];
	if (batch->ntxns == batch->max_txns)
	{
		batch->max_txns *= 2;
		batch->txns = repalloc_huge(batch->txns,
									mul_size(batch->max_txns, sizeof(PplBatchTxn)));
	}
	txn = &batch->txns[batch->ntxns++];
	txn->xid = header->xid;
	txn->commit_lsn = header->commit_lsn;
	txn->end_lsn = header->end_lsn;
	txn->committed_at = header->committed_at;
	txn->first = batch->nevents + 1;
	txn->nevents = 0;
	txn->schema = false;
	return txn;
}

/* NULL if there is none. */
static HeapTuple
copy_tuple(PplBatch *batch, HeapTuple tuple)
{
	if (tuple == NULL || tuple->t_data == NULL)
		return NULL;
	batch->bytes += tuple->t_len;
	return heap_copytuple(tuple);
}

/*
 * Append an event; its tuples, if it has them, are copied, desc must outlive the
 * batch.
 */
void
ppl_batch_add_event(PplBatch *batch, const PplRecordHeader *header,
					TupleDesc desc, HeapTuple old_tuple, HeapTuple new_tuple)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(batch->context);
	PplEvent   *event;

	transaction_of(batch, header)->nevents++;
	if (batch->nevents == batch->max_events)
	{
		batch->max_events *= 2;
		batch->events = repalloc_huge(batch->events,
									  mul_size(batch->max_events, sizeof(PplEvent)));
	}
	event = &batch->events[batch->nevents++];
	memset(event, 0, sizeof(*event));
	event->kind = header->kind;
	event->seq = header->seq;
	event->txn = batch->ntxns - 1;
	event->origin.commit_lsn = header->commit_lsn;
	event->origin.committed_at = header->committed_at;
	event->origin.xid = header->xid;
	event->origin.seq = header->seq;
	event->origin.part = 1;
	event->origin.operation = header->kind;
	event->desc = desc;
	event->partial = (header->flags & PPL_REC_PARTIAL) != 0;
	if (header->kind == PPL_REC_DELETE)
		event->tuple = copy_tuple(batch, old_tuple);
	else
	{
		event->tuple = copy_tuple(batch, new_tuple);
		event->old_tuple = copy_tuple(batch, old_tuple);
	}
	batch->bytes += sizeof(PplEvent);
	batch->last.commit_lsn = header->commit_lsn;
	batch->last.seq = header->seq;
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Leave only the first transactions in a batch that was gathered and is
 * complete; the next one begins with the others.
 */
void
ppl_batch_cut(PplBatch *batch, int ntxns)
{
	const PplBatchTxn *last = &batch->txns[ntxns - 1];

	Assert(batch->complete && ntxns > 0 && ntxns < batch->ntxns);
	batch->ntxns = ntxns;
	batch->nevents = last->first + last->nevents - 1;
	batch->last.commit_lsn = last->commit_lsn;
	batch->last.seq = batch->events[batch->nevents - 1].seq;
	batch->end_lsn = last->end_lsn;
	batch->end_pos = last->end_pos;
	batch->has_control = false;
}

static bool
wanted_change(const PplRecordHeader *header, const PplGatherRequest *request)
{
	return request->born &&
		ppl_record_wanted(header, request->place.pipeline_id, request->source,
						  request->operations);
}

static void
take_cut(Cut *cut, const PplBatch *batch, PplSpoolPos pos)
{
	cut->nevents = batch->nevents;
	cut->ntxns = batch->ntxns;
	cut->last = batch->last;
	cut->pos = pos;
	cut->end_lsn = batch->end_lsn;
}

static bool
is_full(const PplBatch *batch, const PplGatherRequest *request)
{
	return batch->nevents >= request->max_rows ||
		batch->bytes >= request->max_bytes;
}

/* This record ends the batch. */
static void
set_control(PplBatch *batch, const PplSpoolRecord *record)
{
	batch->has_control = true;
	batch->control = record->control;
	batch->control_xid = record->header.xid;
	batch->control_committed_at = record->header.committed_at;
	batch->control_position.commit_lsn = record->header.commit_lsn;
	batch->control_position.seq = record->header.seq;
}

/* An event was handed over. */
static void
set_origin(PplEvent *event, const PplOriginId *origin)
{
	event->origin = *origin;
	event->superseded = (origin->flags & PPL_ORIGIN_SUPERSEDED) != 0;
}

/* A change of the source is nothing to a segment that does not read that. */
static bool
is_of_another_source(const PplSpoolRecord *record,
					 const PplGatherRequest *request)
{
	return record->control.action == PPL_CONTROL_SCHEMA &&
		record->control.source != request->source;
}

/* Can this be where a worker has its first events? */
static bool
begins(const PplControl *control)
{
	return control->action == PPL_CONTROL_BIRTH ||
		(control->action == PPL_CONTROL_CHANGE && control->workers != 0);
}

/*
 * A pipeline may have to stop after the transaction of the last event, see
 * ppl_schema_passed: nothing of later ones is to be with it.
 */
static bool
stands_after(const PplBatch *batch, const PplGatherRequest *request)
{
	return batch->events[batch->nevents - 1].partial &&
		request->only == InvalidXLogRecPtr;
}

/*
 * A change of the source within a transaction that has events before it is no
 * reason to show a half of that, if nothing has to be stopped.
 */
static bool
is_passed(const PplSpoolRecord *record, const PplGatherRequest *request,
		  bool open)
{
	return record->control.action == PPL_CONTROL_SCHEMA &&
		(record->control.flags & PPL_CONTROL_PAUSES) == 0 &&
		(open || record->header.commit_lsn == request->only);
}

/*
 * No more is read: the batch ends with the last transaction that is complete, or
 * within the first one, if that alone is too large.
 */
static void
finish(PplBatch *batch, PplSpoolReader *reader, const Cut *cut, bool open,
	   bool full)
{
	batch->complete = true;
	if (!open)
		batch->end_pos = batch->has_control ? cut->pos :
			ppl_spool_reader_position(reader);
	else if (full && cut->nevents == 0)
	{
		/* One transaction exceeds the limits. */
		batch->complete = false;
		batch->end_pos = ppl_spool_reader_position(reader);
	}
	else
	{
		/* Give back the transaction that is not complete. */
		batch->nevents = cut->nevents;
		batch->ntxns = cut->ntxns;
		batch->last = cut->last;
		batch->end_lsn = cut->end_lsn;
		batch->end_pos = cut->pos;
		ppl_spool_reader_seek(reader, cut->pos);
	}
}

/*
 * Take the next record, a change that the pipeline wants, into the batch.  False if
 * it belongs to another partition.
 */
static bool
take_change(PplBatch *batch, PplSpoolReader *reader, PplSpoolPos end,
			const PplRecordHeader *header, const PplGatherRequest *request)
{
	bool		shared = ppl_share_counts(request);
	PplConcern	concern = PPL_CONCERN_ALL;
	PplSpoolRecord record;
	uint64		hash = 0;
	bool		arrives = false;
	PplEvent   *event;

	if (shared && ppl_share_passes(request, header))
	{
		ppl_spool_reader_skip(reader);
		return false;
	}
	(void) ppl_spool_reader_next(reader, end, &record);
	if (shared)
		concern = ppl_share_concern(request, &record, &hash, &arrives);
	if (concern == PPL_CONCERN_NONE)
		return false;
	ppl_batch_add_event(batch, &record.header, record.schema->desc,
						&record.old_tuple, &record.new_tuple);
	event = &batch->events[batch->nevents - 1];
	event->in_old = record.schema->in_old;
	if ((header->flags & PPL_REC_HANDED) != 0)
		set_origin(event, &record.origin);
	event->concern = (event->origin.flags & PPL_ORIGIN_OLD_ROW) != 0 ?
		PPL_CONCERN_OLD_ROW : concern;
	event->removed = arrives;
	event->hashed = shared && concern != PPL_CONCERN_UNSURE;
	event->hash = hash;
	return true;
}

/*
 * Fill the batch from the reader's position, at most up to end, which is
 * published.  Afterwards the reader stands at batch->end_pos.
 */
void
ppl_gather(PplBatch *batch, PplSpoolReader *reader, PplSpoolPos end,
		   const PplGatherRequest *request)
{
	Cut			cut;
	PplRecordHeader header;
	PplSpoolRecord record;
	bool		open = false;	/* events of an unfinished transaction */
	bool		full = false;
	MemoryContext oldcontext = CurrentMemoryContext;
	bool		began = ppl_share_begin(request);

	memset(&cut, 0, sizeof(cut));
	batch->begin_pos = cut.pos = ppl_spool_reader_position(reader);
	while (!full && ppl_spool_reader_peek(reader, end, &header))
	{
		PplPosition position = {header.commit_lsn, header.seq};

		ppl_process_check();
		if (header.kind != PPL_REC_COMMIT)
			batch->passed = position;
		if (header.kind == PPL_REC_COMMIT)
		{
			ppl_spool_reader_skip(reader);
			batch->end_lsn = header.end_lsn;
			if (open)
				batch->txns[batch->ntxns - 1].end_pos =
					ppl_spool_reader_position(reader);
			open = false;
			take_cut(&cut, batch, ppl_spool_reader_position(reader));
			full = is_full(batch, request) ||
				batch->nevents >= request->enough_rows ||
				header.commit_lsn == request->only;
		}
		else if (header.kind == PPL_REC_CONTROL &&
				 ppl_position_after(position, request->done))
		{
			PplSpoolPos before = ppl_spool_reader_position(reader);

			(void) ppl_spool_reader_next(reader, end, &record);
			if (!ppl_control_concerns(&record.control, request->place) ||
				is_of_another_source(&record, request) ||
				(!request->born && !begins(&record.control)))
				continue;
			if (is_passed(&record, request, open))
			{
				transaction_of(batch, &header)->schema = true;
				continue;
			}
			set_control(batch, &record);
			batch->control_end = ppl_spool_reader_position(reader);
			take_cut(&cut, batch, before);
			open = false;
			break;
		}
		else if (wanted_change(&header, request) &&
				 ppl_position_after(position, request->done))
		{
			if (!take_change(batch, reader, end, &header, request))
				continue;
			open = true;
			full = is_full(batch, request) || stands_after(batch, request);
		}
		else
			ppl_spool_reader_skip(reader);
	}

	if (began)
		ppl_share_end();
	MemoryContextSwitchTo(oldcontext);
	finish(batch, reader, &cut, open, full);
}
