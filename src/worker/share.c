/*
 * share.c
 *		Which events of a segment are this worker's.
 *
 * Every worker reads all records and skips those of other partitions, by the hash
 * of catalog/partitioner.c.  An update that takes a row from one partition to another
 * concerns both: it is an event of the partition of its new row, and that of the
 * old row only removes from upsert outputs what the row produced there.  What a
 * segment handed over does not say where the old row was, so it concerns all workers
 * in that way, if anybody wants it (adr/0022).
 *
 * A record whose layout has a column of partition_by with another type says nothing
 * without a conversion.  Such events are taken by all workers, and looked at again
 * in the batch's transaction, under today's layout.  One that cannot be converted
 * belongs to the first partition, where it fails.
 *
 * Runs in a worker: while a batch is gathered, in a transaction of its own, since
 * hash functions may read catalogs; then in that of the batch.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "worker/outcome.h"
#include "worker/run.h"
#include "worker/share.h"

/*
 * Be ready to tell the events of a definition apart, in worker->context.  Needs a
 * transaction.
 */
void
ppl_share_prepare(PplWorker *worker, const PplPipeline *pipeline)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "pipeline partition",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);

	worker->partitioner = ppl_partition_make(pipeline);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextSetParent(context, worker->context);
	if (worker->partition_context != NULL)
		MemoryContextDelete(worker->partition_context);
	worker->partition_context = context;
}

/*
 * Are there events that are not this worker's?
 */
bool
ppl_share_counts(const PplGatherRequest *request)
{
	return request->portion.workers > 1 ||
		request->portion.partition > request->portion.workers;
}

/*
 * Begin what hash functions need.  True if a transaction was begun: end it.
 */
bool
ppl_share_begin(const PplGatherRequest *request)
{
	if (request->partitioner == NULL || request->partitioner->ncolumns == 0 ||
		request->portion.workers == 1 || IsTransactionState())
		return false;
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	return true;
}

/*
 * End the transaction.
 */
void
ppl_share_end(void)
{
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
}

static bool
is_mine(PplPortion portion, uint64 hash)
{
	return ppl_partition_number(hash, portion.workers) == portion.partition;
}

/*
 * Is it plain from its header that a change belongs to another partition?
 */
bool
ppl_share_passes(const PplGatherRequest *request,
				 const PplRecordHeader *header)
{
	if (request->portion.partition > request->portion.workers)
		return true;
	if (request->partitioner == NULL)
		return true;
	if (request->partitioner->ncolumns > 0 ||
		((header->flags & PPL_REC_HANDED) != 0 &&
		 ppl_event_takes_away(header->kind, request->operations)))
		return false;
	return !is_mine(request->portion,
					ppl_partition_hash_id(header->commit_lsn, header->seq));
}

/*
 * Has what was handed over something to do with every worker?  Which of them have
 * rows that its source row made before, nobody knows.  It does not come with the
 * source row's name if no output wants that.
 */
static bool
is_everybodys(uint16 operations, PplRecordKind kind, const PplOriginId *origin)
{
	return ppl_event_takes_away(kind, operations) &&
		(origin->before[0] | origin->before[1] |
		 origin->after[0] | origin->after[1]) != 0;
}

/*
 * What has this worker to do with a record that was handed over?  One without a row
 * is the first partition's.
 */
static PplConcern
concern_of_handed(const PplGatherRequest *request, const PplSpoolRecord *record,
				  uint64 *hash)
{
	HeapTuple	row = (HeapTuple) &record->new_tuple;

	if (request->partitioner->ncolumns == 0)
		*hash = ppl_partition_hash_id(record->header.commit_lsn, record->header.seq);
	else if (row->t_data != NULL &&
			 !ppl_partition_hash_tuple(request->partitioner, record->schema->desc,
									   row, hash))
		return PPL_CONCERN_UNSURE;
	if (is_mine(request->portion, *hash))
		return PPL_CONCERN_ALL;
	return is_everybodys(request->operations, record->header.kind,
						 &record->origin) ? PPL_CONCERN_OLD_ROW : PPL_CONCERN_NONE;
}

/* Does the old row of a change have all columns that are needed? */
static bool
old_is_known(const PplPartitioner *partitioner, const PplSpoolSchema *schema)
{
	for (int i = 0; i < partitioner->ncolumns; i++)
	{
		AttrNumber	attnum = partitioner->columns[i].attnum;

		if (attnum <= schema->desc->natts && !schema->in_old[attnum - 1])
			return false;
	}
	return true;
}

/*
 * What has this worker to do with a change?  *hash is that of its row; with
 * *arrives the row was in another partition before.  An old row that is not known
 * is taken to have been where the new one is; without a new one, in the first
 * partition, where it fails.
 */
PplConcern
ppl_share_concern(const PplGatherRequest *request,
				  const PplSpoolRecord *record, uint64 *hash, bool *arrives)
{
	PplPartitioner *partitioner = request->partitioner;
	TupleDesc	desc = record->schema->desc;
	HeapTuple	old = (HeapTuple) &record->old_tuple;
	HeapTuple	row = (HeapTuple) &record->new_tuple;
	uint64		before;
	bool		was_mine;
	bool		mine;

	*arrives = false;
	*hash = 0;
	if ((record->header.flags & PPL_REC_HANDED) != 0)
		return concern_of_handed(request, record, hash);
	if (partitioner->ncolumns == 0)
	{
		*hash = ppl_partition_hash_id(record->header.commit_lsn, record->header.seq);
		return PPL_CONCERN_ALL;
	}
	if (record->header.kind == PPL_REC_DELETE)
	{
		row = old_is_known(partitioner, record->schema) ? old : NULL;
		old = NULL;
	}
	else if (record->header.kind != PPL_REC_UPDATE || old->t_data == NULL ||
			 !old_is_known(partitioner, record->schema))
		old = NULL;
	if (record->header.kind != PPL_REC_TRUNCATE && row != NULL &&
		row->t_data != NULL &&
		!ppl_partition_hash_tuple(partitioner, desc, row, hash))
		return PPL_CONCERN_UNSURE;
	mine = was_mine = is_mine(request->portion, *hash);
	if (old != NULL)
	{
		if (!ppl_partition_hash_tuple(partitioner, desc, old, &before))
			return PPL_CONCERN_UNSURE;
		was_mine = is_mine(request->portion, before);
	}
	*arrives = mine && !was_mine;
	if (mine)
		return PPL_CONCERN_ALL;
	return was_mine ? PPL_CONCERN_OLD_ROW : PPL_CONCERN_NONE;
}

/* A row whose hash is wanted, under today's layout. */
typedef struct HashRow
{
	PplWorker  *worker;
	const PplEvent *event;
	HeapTuple	tuple;
	uint64		hash;
} HashRow;

static void
hash_row(void *arg)
{
	HashRow    *row = arg;
	PplPartitioner *partitioner = row->worker->partitioner;
	Bitmapset  *columns = NULL;
	const PplRow *today;
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < partitioner->ncolumns; i++)
		columns = bms_add_member(columns, partitioner->columns[i].attnum);
	today = ppl_row_today(row->worker->program->rows, row->event->desc, row->tuple,
						  columns);
	for (int i = 0; i < partitioner->ncolumns; i++)
	{
		values[i] = today->values[partitioner->columns[i].attnum - 1];
		nulls[i] = today->nulls[partitioner->columns[i].attnum - 1];
	}
	row->hash = ppl_partition_hash(partitioner, values, nulls);
}

/* The hash of one of an event's rows; 0 if it cannot be told. */
static uint64
hash_of_tuple(PplWorker *worker, const PplEvent *event, HeapTuple tuple)
{
	HashRow		row = {worker, event, tuple, 0};
	ErrorData  *error;

	if (tuple == NULL)
		return 0;
	if (ppl_partition_hash_tuple(worker->partitioner, event->desc, tuple, &row.hash))
		return row.hash;
	error = ppl_run_subtransaction(CurrentMemoryContext, true, hash_row, &row);
	if (error == NULL)
		return row.hash;
	FreeErrorData(error);
	return 0;
}

/*
 * Decide of the events that all workers took which are this one's.  The program is
 * loaded, so the columns of partition_by are what they were declared as.
 */
void
ppl_share_resolve(PplWorker *worker, const PplBatch *batch)
{
	PplPortion	portion = ppl_worker_portion(worker);

	for (int i = 0; i < batch->nevents; i++)
	{
		PplEvent   *event = &batch->events[i];
		bool		mine;
		bool		was_mine;

		if (event->concern != PPL_CONCERN_UNSURE)
			continue;
		event->hash = hash_of_tuple(worker, event, event->tuple);
		event->hashed = true;
		mine = was_mine = is_mine(portion, event->hash);
		if (event->old_tuple != NULL)
			was_mine = is_mine(portion, hash_of_tuple(worker, event, event->old_tuple));
		else if (!mine)
			was_mine = is_everybodys(worker->consumer->operations, event->kind,
									 &event->origin);
		event->removed = mine && !was_mine;
		event->concern = mine ? PPL_CONCERN_ALL :
			was_mine ? PPL_CONCERN_OLD_ROW : PPL_CONCERN_NONE;
	}
}

/*
 * The hash of an event's row, in the batch's transaction; 0 in a segment with one
 * worker for ever.
 */
uint64
ppl_share_hash(PplWorker *worker, const PplBatch *batch, int ordinal)
{
	PplEvent   *event = &batch->events[ordinal - 1];

	if (worker->partitioner == NULL)
		return 0;
	if (!event->hashed)
	{
		event->hash = worker->partitioner->ncolumns == 0 ?
			ppl_partition_hash_id(batch->txns[event->txn].commit_lsn, event->seq) :
			hash_of_tuple(worker, event, event->tuple);
		event->hashed = true;
	}
	return event->hash;
}

/*
 * A row for an upsert output must have in its key the values of partition_by that
 * its event has, or two workers might write it.  Error 22000 if not, which is the
 * event's.  values are those of the key.
 */
void
ppl_share_check_key(PplWorker *worker, const PplBatch *batch, int ordinal,
					const PplUpsert *upsert, const Datum *values,
					const bool *nulls)
{
	PplPartitioner *partitioner = worker->partitioner;
	const PplKey *key = upsert->target->upsert;
	PplPartitioner theirs;
	Datum		part[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];

	if (partitioner == NULL || partitioner->ncolumns == 0)
		return;
	theirs.ncolumns = partitioner->ncolumns;
	theirs.columns = palloc0(theirs.ncolumns * sizeof(PplPartitionColumn));
	for (int i = 0; i < theirs.ncolumns; i++)
	{
		const PplKeyColumn *column = ppl_key_column(key, partitioner->columns[i].name);

		/* with one worker a key need not have them */
		if (column == NULL)
			return;
		part[i] = values[column - key->columns];
		isnull[i] = nulls[column - key->columns];
		theirs.columns[i].collation = partitioner->columns[i].collation;
		fmgr_info_copy(&theirs.columns[i].hash,
					   &lookup_type_cache(column->type,
										  TYPECACHE_HASH_EXTENDED_PROC_FINFO)->hash_extended_proc_finfo,
					   CurrentMemoryContext);
	}
	if (ppl_partition_hash(&theirs, part, isnull) !=
		ppl_share_hash(worker, batch, ordinal))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("a row for output \"%s\" has other values of partition_by than its event",
						upsert->output->name),
				 errdetail("Its key would be written by two workers, and an older event could come last."),
				 errhint("Leave the columns of partition_by as they are on the way to an upsert output.")));
	pfree(theirs.columns);
}
