/*
 * hand.c
 *		What a segment hands over to those behind it.
 *
 * The statement of the chain hands rows to pipeline._hand(), which notes them with
 * the outcomes of their events (outcome.c): what a run noted that was rolled back is
 * forgotten.  When all events of the batch have been run, the rows are written into the
 * WAL as logical messages, in the order of their events, whatever order the plan had.
 * They are part of the batch's transaction, so whoever reads them has them exactly
 * once, by their place in the commit order.
 *
 * With each row goes the id of the source's event that it was made of.  An event
 * may have several: these are told apart by a number, which stays the same however
 * often the event is tried.  If there are outputs of mode upsert behind, also short
 * names of the source row before the event and after it (source_row.c) go with it; and
 * an event that made no row is handed over without one, so that what its source row
 * made before is removed.
 *
 * Runs in a worker, in the batch's transaction.  Memory: rows are in the batch's
 * attempt, "pipeline hand-over" has the messages.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
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
#include "worker/session.h"
#include "worker/source_row.h"

#define MESSAGE_ROWS	100
#define MESSAGE_BYTES	(32 * 1024)

/* Numbers of parts; see part_of. */
#define PART_BITS		29
#define PART_DIVIDED	((uint32) 1 << 30)

PPL_FUNCTION(pipeline_hand);

/* State of the batch under way. */
static struct
{
	const PplProgram *program;
	const PplBatch *batch;
	TupleDesc	desc;			/* of the statement's rows, in batch->scratch */
	uint64		secret;			/* of messages */
	bool		any;			/* something was handed over */
}			self;

static bool is_hand_row(TupleDesc desc);
static uint32 part_of(const PplEvent *event, int number, int rows);
static int	count_rows(const PplEventOutcome *outcome);
static void check_parts(const PplBatch *batch, int first, int last);
static bool leaves_word(const PplEvent *event, const PplEventOutcome *outcome);
static void write_event(PplRowsMessage *message, int ordinal, Datum *values,
						bool *nulls);
static void add_origin(PplRowsMessage *message, int ordinal, uint32 part);
static void add_row(PplRowsMessage *message, HeapTuple tuple, Datum *values,
					bool *nulls);
static void write_full(PplRowsMessage *message);

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

/*
 * The events of this batch are about to be run.
 */
void
ppl_hand_begin(const PplProgram *program, const PplBatch *batch)
{
	self.program = program;
	self.batch = batch;
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

	ppl_outcome_require(ordinal);
	if (self.program == NULL || self.program->statement->hand == NULL ||
		header == NULL)
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
				 errmsg("this function belongs to the statement of a pipeline"),
				 errdetail("The row is not what the last stage of the segment returns."),
				 errhint("It can be called by the worker of a pipeline only.")));

	oldcontext = MemoryContextSwitchTo(self.batch->scratch);
	if (self.desc == NULL)
		self.desc = CreateTupleDescCopy(desc);
	ReleaseTupleDesc(desc);
	memset(&tuple, 0, sizeof(tuple));
	tuple.t_data = header;
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ppl_outcome_handed(ordinal, self.program->statement->noutputs,
					   heap_copytuple(&tuple));
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
 * The number of one of the rows that an event makes, which are counted from 1.  The event
 * may itself be one of several that another one made.  A single row keeps the number;
 * several have bits put behind it, as many as there need be for so many rows.  No number
 * begins with another one, as an event that was made into several is not there any
 * more, so no two rows of a source's event have the same.
 *
 * That needs to know where the bits end.  Numbers of the first segment are plain,
 * from 1.  Where one of these is divided, it gets PART_DIVIDED, a one before all bits, and
 * five bits that say how many the plain number has behind its first one.
 *
 * Error 54000 if there are not enough bits.
 */
static uint32
part_of(const PplEvent *event, int number, int rows)
{
	uint32		part = event->origin.part;
	uint64		path = part & ~PART_DIVIDED;
	int			used;
	int			bits;

	if (self.program->pipeline->upstream == 0)
		return number;
	if (rows == 1)
		return part;
	if ((part & PART_DIVIDED) == 0)
	{
		int			width = pg_leftmost_one_pos32(part);

		path = ((uint64) (1 << 5 | width) << width) | (part - (1 << width));
	}
	used = pg_leftmost_one_pos64(path);
	bits = pg_leftmost_one_pos32(rows - 1) + 1;
	if (used + bits > PART_BITS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("an event was made into too many rows over several segments"),
				 errdetail("Part %u of the source's event makes %d rows, whose numbers need %d bits more; %d of %d are left.",
						   part, rows, bits, Max(PART_BITS - used, 0), PART_BITS),
				 errhint("Leave out isolate => true where one row is made into many, or make fewer of them.")));
	return PART_DIVIDED | (uint32) (path << bits) | (number - 1);
}

/* How many rows does an event hand over? */
static int
count_rows(const PplEventOutcome *outcome)
{
	int			count = 0;

	for (const PplProducedRow *row = outcome->rows; row != NULL; row = row->next)
		count += row->output == self.program->statement->noutputs;
	return count;
}

/*
 * The events first to last were run: find out whether what they made can be numbered,
 * while an error can be told to be that of the event.
 */
static void
check_parts(const PplBatch *batch, int first, int last)
{
	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		int			rows = count_rows(ppl_outcome_of(ordinal));

		if (rows <= 1)
			continue;
		ppl_outcome_to_output(ordinal, self.program->statement->noutputs);
		(void) part_of(&batch->events[ordinal - 1], rows, rows);
	}
	ppl_outcome_clear_current();
}

/*
 * The events first to last were run: see whether it can be handed over, and note
 * which source rows they are about, if somebody behind has to know.  An error belongs
 * to the event that is current.
 */
void
ppl_hand_note(PplWorker *worker, const PplBatch *batch, int first, int last)
{
	PplProgram *program = worker->program;
	int			formats;

	if (program->statement->hand != NULL && program->pipeline->upstream != 0)
		check_parts(batch, first, last);
	if (!program->pipeline->hands_keys || program->pipeline->upstream != 0)
		return;
	formats = ppl_session_pin_formats();
	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		const PplEvent *event = &batch->events[ordinal - 1];
		PplEventOutcome *outcome = ppl_outcome_of(ordinal);

		if (event->kind == PPL_REC_TRUNCATE || outcome->inert ||
			outcome->suspected || event->concern == PPL_CONCERN_NONE)
			continue;
		ppl_outcome_to_output(ordinal, program->statement->noutputs);
		ppl_source_row_digests(program, event, &outcome->before, &outcome->after);
	}
	ppl_session_unpin_formats(formats);
	ppl_outcome_clear_current();
}

/*
 * All events of a batch were run: hand over what they made, in their order, as part
 * of the current transaction.
 */
void
ppl_hand_write(PplWorker *worker, const PplBatch *batch)
{
	PplProgram *program = worker->program;
	MemoryContext oldcontext;
	PplRowsMessage message;
	Datum	   *values;
	bool	   *nulls;
	int			ncolumns;

	if (program->statement->hand == NULL)
		return;
	oldcontext = MemoryContextSwitchTo(AllocSetContextCreate(CurTransactionContext,
															 "pipeline hand-over",
															 ALLOCSET_DEFAULT_SIZES));
	ncolumns = program->log_desc->natts + program->statement->hand->ncolumns + 1;
	values = palloc0(ncolumns * sizeof(Datum));
	nulls = palloc(ncolumns * sizeof(bool));
	ppl_mark_clear();
	PPL_FAILPOINT("worker-before-hand-over");
	ppl_rows_init(&message);
	self.secret = worker->db->secret;
	self.any = false;
	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
		write_event(&message, ordinal, values, nulls);
	if (ppl_rows_count(&message) > 0)
		ppl_rows_write(&message);
	if (self.any)
		ppl_wake_at_commit();
	MemoryContextDelete(MemoryContextSwitchTo(oldcontext));
}

/* Write what an event made, and if it is nothing, that it changed its source row. */
static void
write_event(PplRowsMessage *message, int ordinal, Datum *values, bool *nulls)
{
	const PplEvent *event = &self.batch->events[ordinal - 1];
	const PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	int			rows = count_rows(outcome);
	int			number = 0;

	if (outcome->fate == PPL_FATE_OPEN)
	{
		for (const PplProducedRow *row = outcome->rows; row != NULL; row = row->next)
		{
			if (row->output != self.program->statement->noutputs)
				continue;
			add_origin(message, ordinal, part_of(event, ++number, rows));
			add_row(message, row->handed, values, nulls);
			write_full(message);
		}
	}
	if (number == 0 && leaves_word(event, outcome))
	{
		add_origin(message, ordinal, part_of(event, 1, 1));
		ppl_rows_add_nothing(message);
		write_full(message);
	}
}

/*
 * Does somebody behind have to hear of an event that made no row, or that another worker
 * makes rows of?  What its source row made before is to go.
 */
static bool
leaves_word(const PplEvent *event, const PplEventOutcome *outcome)
{
	const PplPipeline *pipeline = self.program->pipeline;

	if (!pipeline->hands_keys || event->superseded ||
		event->concern == PPL_CONCERN_NONE)
		return false;
	if (event->kind == PPL_REC_TRUNCATE)
		return PPL_EVENT_CLEARS(event) && !outcome->excluded;
	return !outcome->inert &&
		ppl_event_takes_away(event->kind, ppl_definition_operations_always(pipeline));
}

static void
add_origin(PplRowsMessage *message, int ordinal, uint32 part)
{
	const PplEvent *event = &self.batch->events[ordinal - 1];
	const PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	PplOriginId origin = event->origin;

	if (ppl_rows_count(message) == 0)
		ppl_rows_begin(message, self.program->pipeline->log,
					   self.program->pipeline->pipeline_id, self.secret);
	self.any = true;
	origin.part = part;
	if (event->dead_letter_id != 0)
		origin.flags |= PPL_ORIGIN_LATE;
	if (event->superseded)
		origin.flags |= PPL_ORIGIN_SUPERSEDED;
	if (event->concern == PPL_CONCERN_OLD_ROW)
		origin.flags |= PPL_ORIGIN_OLD_ROW;
	if (self.program->pipeline->upstream == 0)
	{
		memcpy(origin.before, &outcome->before, sizeof(origin.before));
		memcpy(origin.after, &outcome->after, sizeof(origin.after));
	}
	ppl_rows_add_origin(message, &origin);
}

static void
write_full(PplRowsMessage *message)
{
	if (ppl_rows_count(message) >= MESSAGE_ROWS ||
		message->data.len >= MESSAGE_BYTES)
		ppl_rows_write(message);
}

/* Add a row to a message, as one of the log. */
static void
add_row(PplRowsMessage *message, HeapTuple tuple, Datum *values, bool *nulls)
{
	const PplProgram *program = self.program;
	Datum	   *log_values = values + self.desc->natts;
	bool	   *log_nulls = nulls + self.desc->natts;

	if (program->log_same)
	{
		ppl_rows_add_tuple(message, program->log_desc, tuple);
		return;
	}
	heap_deform_tuple(tuple, self.desc, values, nulls);
	memset(log_nulls, true, program->log_desc->natts * sizeof(bool));
	for (int i = 0; i < self.desc->natts; i++)
	{
		log_values[program->log_columns[i]] = values[i];
		log_nulls[program->log_columns[i]] = nulls[i];
	}
	ppl_rows_add_values(message, program->log_desc, log_values, log_nulls);
}
