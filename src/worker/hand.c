/*
 * hand.c
 *		What a segment hands over to those behind it.
 *
 * The statement of the chain hands rows to pipeline._hand(), which collects them.
 * When it is done they are written into the WAL as logical messages, in the order of
 * their events, whatever order the plan had.  That is part of the (sub)transaction
 * of the run, so what is rolled back was never handed over; and who reads them has
 * them exactly once, by their place in the commit order.
 *
 * With each row goes the id of the source's event that it was made of.  An event
 * may have several: these are told apart by a number, which stays the same however
 * often the event is tried.
 *
 * Runs in a worker, in the batch's transaction.  Memory: "pipeline hand-over", below
 * the transaction or subtransaction that a run is in.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "base/failpoint.h"
#include "base/mark.h"
#include "base/shm.h"
#include "base/wake.h"
#include "catalog/log.h"
#include "stream/message.h"
#include "worker/hand.h"
#include "worker/outcome.h"

#define MESSAGE_ROWS	100
#define MESSAGE_BYTES	(32 * 1024)

PPL_FUNCTION(pipeline_hand);

/* A row that was handed over. */
typedef struct Handed
{
	int			ordinal;
	int			number;			/* of all, for a stable order */
	uint32		part;
	HeapTuple	tuple;			/* of the statement's row */
} Handed;

/* State of the run under way. */
static struct
{
	MemoryContext context;		/* NULL = nothing is collected */
	const PplProgram *program;
	const PplBatch *batch;
	bool		ordered;		/* they came in the order of events */
	int			count;
	int			max;
	Handed	   *rows;
	TupleDesc	desc;			/* of the statement's rows */
}			self;

static bool is_hand_row(TupleDesc desc);
static uint32 part_of(const PplEvent *event, int number);
static int	compare(const void *a, const void *b);
static void add_row(PplRowsMessage *message, const Handed *row, Datum *values,
					bool *nulls);

/*
 * Prepare a program that hands something over: the row type of that is made what
 * the last stage returns today.
 */
void
ppl_hand_load(PplProgram *program)
{
	PplPipeline *pipeline = program->pipeline;
	const PplShape *row = program->statement->hand;
	Relation	log;

	if (row == NULL)
		return;
	program->adopted |= ppl_log_settle(pipeline, row);
	program->statement->relids =
		list_append_unique_oid(program->statement->relids, pipeline->log);
	log = relation_open(pipeline->log, AccessShareLock);
	program->log_desc = CreateTupleDescCopy(RelationGetDescr(log));
	relation_close(log, AccessShareLock);
	program->log_columns = palloc(Max(row->ncolumns, 1) * sizeof(int));
	program->log_same = program->log_desc->natts == row->ncolumns;
	for (int i = 0; i < row->ncolumns; i++)
	{
		int			column = 0;

		while (TupleDescAttr(program->log_desc, column)->attisdropped ||
			   strcmp(NameStr(TupleDescAttr(program->log_desc, column)->attname),
					  row->columns[i].name) != 0)
			column++;
		program->log_columns[i] = column;
		program->log_same &= column == i;
	}
}

/* The context is gone, with the transaction or because the run is over. */
static void
forget(void *arg)
{
	self.context = NULL;
}

/*
 * The statement of the chain is about to run over events of this batch: collect
 * rows.  What was collected and not written is forgotten.
 */
void
ppl_hand_begin(const PplProgram *program, const PplBatch *batch)
{
	MemoryContextCallback *callback;

	if (program->statement->hand == NULL)
		return;
	if (self.context != NULL)
		MemoryContextDelete(self.context);
	self.context = AllocSetContextCreate(CurTransactionContext,
										 "pipeline hand-over",
										 ALLOCSET_DEFAULT_SIZES);
	callback = MemoryContextAllocZero(self.context, sizeof(*callback));
	callback->func = forget;
	MemoryContextRegisterResetCallback(self.context, callback);
	self.program = program;
	self.batch = batch;
	self.ordered = true;
	self.count = self.max = 0;
	self.rows = NULL;
	self.desc = NULL;
}

/*
 * pipeline._hand(ordinal, row record): a row for the segments behind this one.
 * Always false: the statement has nothing more to do with it.
 */
Datum
pipeline_hand(PG_FUNCTION_ARGS)
{
	int			ordinal = PG_GETARG_INT32(0);
	HeapTupleHeader header = PG_ARGISNULL(1) ? NULL : PG_GETARG_HEAPTUPLEHEADER(1);
	MemoryContext oldcontext;
	HeapTupleData tuple;
	TupleDesc	desc;
	Handed	   *row;

	ppl_outcome_require(ordinal);
	if (self.context == NULL || header == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this function belongs to the statement of a pipeline"),
				 errhint("It can be called by the worker of a pipeline only.")));
	ppl_outcome_to_output(ordinal, self.program->statement->noutputs);
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
								  HeapTupleHeaderGetTypMod(header));
	if (!is_hand_row(desc))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this function belongs to the statement of a pipeline")));

	oldcontext = MemoryContextSwitchTo(self.context);
	if (self.count == self.max)
	{
		self.max = Max(2 * self.max, 64);
		self.rows = self.rows ?
			repalloc_huge(self.rows, mul_size(self.max, sizeof(Handed))) :
			palloc(self.max * sizeof(Handed));
	}
	if (self.desc == NULL)
		self.desc = CreateTupleDescCopy(desc);
	ReleaseTupleDesc(desc);
	row = &self.rows[self.count];
	row->ordinal = ordinal;
	row->number = self.count++;
	row->part = part_of(&self.batch->events[ordinal - 1],
						ppl_outcome_handed(ordinal,
										   self.program->statement->noutputs));
	self.ordered &= row->number == 0 || row[-1].ordinal <= ordinal;
	memset(&tuple, 0, sizeof(tuple));
	tuple.t_data = header;
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	row->tuple = heap_copytuple(&tuple);
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_BOOL(false);
}

/*
 * Is this the type of the rows that the statement hands over?  Whoever calls _hand
 * in a handler could hand over anything.
 */
static bool
is_hand_row(TupleDesc desc)
{
	const PplShape *row = self.program->statement->hand;

	if (desc->natts != row->ncolumns)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->atttypid != row->columns[i].type)
			return false;
	}
	return true;
}

/*
 * The number of a row that an event makes, counted from 1.  The event may itself be
 * one of several that another one made, with numbers up to any: so bits are put
 * behind those of its number, one if this is the only row, more for later ones, and
 * no two rows of a source's event have the same.
 */
static uint32
part_of(const PplEvent *event, int number)
{
	uint32		part = event->origin.part - 1;
	int			bits = 0;

	if (self.program->pipeline->upstream == 0)
		return number;
	while (number >> (bits + 1) != 0)
		bits++;
	if (2 * bits + 1 > 30 || part > (PG_INT32_MAX >> (2 * bits + 1)))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("an event was made into too many rows over several segments")));
	part = (part << bits) | (number - (1 << bits));
	return (part << (bits + 1)) | (1 << bits);
}

static int
compare(const void *a, const void *b)
{
	const Handed *x = a;
	const Handed *y = b;

	if (x->ordinal != y->ordinal)
		return x->ordinal < y->ordinal ? -1 : 1;
	return x->number < y->number ? -1 : 1;
}

/*
 * Write what was collected, as part of the current (sub)transaction.
 */
void
ppl_hand_write(void)
{
	PplDatabase *db = ppl_database_find(MyDatabaseId);
	PplRowsMessage message;
	MemoryContext oldcontext;
	Datum	   *values;
	bool	   *nulls;

	if (self.context == NULL)
		return;
	oldcontext = MemoryContextSwitchTo(self.context);
	if (self.count > 0)
	{
		if (!self.ordered)
			qsort(self.rows, self.count, sizeof(Handed), compare);
		values = palloc0((self.program->log_desc->natts + self.desc->natts + 1) *
						 sizeof(Datum));
		nulls = palloc((self.program->log_desc->natts + self.desc->natts + 1) *
					   sizeof(bool));
		ppl_mark_clear();
		PPL_FAILPOINT("worker-before-hand-over");
		ppl_rows_init(&message);
		for (int i = 0; i < self.count; i++)
		{
			if (ppl_rows_count(&message) == 0)
				ppl_rows_begin(&message, self.program->pipeline->log,
							   self.program->pipeline->pipeline_id, db->secret);
			add_row(&message, &self.rows[i], values, nulls);
			if (ppl_rows_count(&message) >= MESSAGE_ROWS ||
				message.data.len >= MESSAGE_BYTES || i == self.count - 1)
				ppl_rows_write(&message);
		}
		ppl_wake_at_commit();
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(self.context);
}

/* Add a row to a message, as one of the log. */
static void
add_row(PplRowsMessage *message, const Handed *row, Datum *values, bool *nulls)
{
	const PplProgram *program = self.program;
	PplOriginId origin = self.batch->events[row->ordinal - 1].origin;
	Datum	   *log_values = values + self.desc->natts;
	bool	   *log_nulls = nulls + self.desc->natts;

	origin.part = row->part;
	ppl_rows_add_origin(message, &origin);
	if (program->log_same)
	{
		ppl_rows_add_tuple(message, program->log_desc, row->tuple);
		return;
	}
	heap_deform_tuple(row->tuple, self.desc, values, nulls);
	memset(log_nulls, true, program->log_desc->natts * sizeof(bool));
	for (int i = 0; i < self.desc->natts; i++)
	{
		log_values[program->log_columns[i]] = values[i];
		log_nulls[program->log_columns[i]] = nulls[i];
	}
	ppl_rows_add_values(message, program->log_desc, log_values, log_nulls);
}
