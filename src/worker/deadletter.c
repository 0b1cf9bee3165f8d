/*
 * deadletter.c
 *		Events that were rejected or failed.
 *
 * Runs in the batch's transaction.  Rendering a row to jsonb and back may call
 * user code (casts, input functions of user types), so it is done as the owner;
 * storing is done elevated.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/deadletter.h"
#include "worker/judge.h"
#include "worker/policy.h"

#define LETTER_COLUMNS		15
#define LETTERS_MAX			256 /* in one statement */
#define LETTERS_MAX_BYTES	(8 * 1024 * 1024)

static const char *
operation_name(PplRecordKind kind)
{
	switch (kind)
	{
		case PPL_REC_INSERT:
			return "insert";
		case PPL_REC_UPDATE:
			return "update";
		case PPL_REC_DELETE:
			return "delete";
		case PPL_REC_TRUNCATE:
			return "truncate";
		case PPL_REC_CONTROL:
		case PPL_REC_SCHEMA:
		case PPL_REC_COMMIT:
		case PPL_REC_NEXT:
			break;
	}
	elog(ERROR, "record kind %d is no event", kind);
	pg_unreachable();
}

/*
 * Prepare a call of a polymorphic function whose first argument has this type.
 */
static void
prepare_call(FmgrInfo *function, Oid oid, Oid result, Oid argument)
{
	fmgr_info(oid, function);
	fmgr_info_set_expr((Node *) makeFuncExpr(oid, result,
											 list_make1(makeNullConst(argument, -1, InvalidOid)),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   function);
}

/*
 * The row of an event as jsonb, in CurrentMemoryContext; 0 if it has none.
 */
Datum
ppl_deadletter_render(PplProgram *program, const PplEvent *event)
{
	TupleDesc	desc = program->source_desc;
	const PplRow *row;
	FmgrInfo	to_jsonb;

	if (event->tuple == NULL)
		return (Datum) 0;
	row = ppl_program_row(program, event);
	prepare_call(&to_jsonb, F_TO_JSONB, JSONBOID, desc->tdtypeid);
	return FunctionCall1(&to_jsonb,
						 heap_copy_tuple_as_datum(heap_form_tuple(desc, row->values,
																  row->nulls),
												  desc));
}

static PplSqlArg
text_or_null(const char *value)
{
	return value ? ppl_sql_arg_text(value) : ppl_sql_arg_null(TEXTOID);
}

/* What differs between the dead letters of one statement, by column. */
typedef struct Letters
{
	int			count;
	Size		bytes;			/* of the payloads */
	PplSqlArg	columns[LETTER_COLUMNS][LETTERS_MAX];
} Letters;

/* Add the dead letter of an event. */
static void
add_letter(Letters *letters, PplWorker *worker, const PplBatch *batch,
		   int ordinal, Datum payload)
{
	PplPipeline *pipeline = worker->program->pipeline;
	const PplEvent *event = &batch->events[ordinal - 1];
	const PplBatchTxn *txn = &batch->txns[event->txn];
	PplEventOutcome *outcome = ppl_outcome_of(ordinal);
	PplStage   *stage = outcome->stage > 0 ?
	list_nth(pipeline->stages, outcome->stage - 1) : NULL;
	ErrorData  *error = outcome->fate == PPL_FATE_FAILED ? outcome->error : NULL;
	PplSqlArg	row[LETTER_COLUMNS] = {
		stage ? ppl_sql_arg_int(stage->stage_id) : ppl_sql_arg_null(INT4OID),
		text_or_null(stage ? stage->name : NULL),
		ppl_sql_arg_text(error ? "failed" : "rejected"),
		text_or_null(error ? error->message : outcome->reason),
		text_or_null(error ? unpack_sql_state(error->sqlerrcode) : NULL),
		text_or_null(error ? error->detail : NULL),
		text_or_null(error ? error->context : NULL),
		ppl_sql_arg_text(operation_name(event->kind)),
		payload ? ppl_sql_arg(JSONBOID, payload) : ppl_sql_arg_null(JSONBOID),
		ppl_sql_arg(LSNOID, LSNGetDatum(txn->commit_lsn)),
		ppl_sql_arg_int(event->seq),
		ppl_sql_arg(XIDOID, TransactionIdGetDatum(txn->xid)),
		ppl_sql_arg(TIMESTAMPTZOID, TimestampTzGetDatum(txn->committed_at)),
		ppl_sql_arg_int(event->attempts + 1),
		text_or_null(error && stage == NULL && outcome->output >= 0 ?
					 worker->program->statement->outputs[outcome->output]->name :
					 NULL)
	};

	for (int i = 0; i < LETTER_COLUMNS; i++)
		letters->columns[i][letters->count] = row[i];
	letters->count++;
	letters->bytes += payload ? VARSIZE_ANY(DatumGetPointer(payload)) : 0;
}

/* Write what was added: new dead letters, or the next failure of old ones. */
static void
write_letters(Letters *letters, PplWorker *worker)
{
	PplPipeline *pipeline = worker->program->pipeline;
	PplSqlArg	args[3 + LETTER_COLUMNS];

	if (letters->count == 0)
		return;
	args[0] = ppl_sql_arg_int(pipeline->pipeline_id);
	args[1] = ppl_sql_arg_int(worker->program->version);
	args[2] = ppl_sql_arg(REGCLASSOID, ObjectIdGetDatum(pipeline->source));
	for (int i = 0; i < LETTER_COLUMNS; i++)
		args[3 + i] = ppl_sql_arg_array(letters->columns[i], letters->count);
	(void) ppl_sql_run("INSERT INTO " PPL_DEAD_LETTERS
					   " (pipeline_id, version, source, stage_id, stage, kind, reason,"
					   "  sqlstate, detail, context, operation, event, commit_lsn, seq, xid,"
					   "  committed_at, attempts, output)"
					   " SELECT $1, $2, $3, l.* FROM ROWS FROM (pg_catalog.unnest($4),"
					   "  pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),"
					   "  pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),"
					   "  pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13),"
					   "  pg_catalog.unnest($14), pg_catalog.unnest($15), pg_catalog.unnest($16),"
					   "  pg_catalog.unnest($17), pg_catalog.unnest($18)) AS l"
					   " ON CONFLICT (pipeline_id, commit_lsn, seq) DO UPDATE SET"
					   "  version = excluded.version, stage_id = excluded.stage_id,"
					   "  stage = excluded.stage, kind = excluded.kind,"
					   "  reason = excluded.reason, sqlstate = excluded.sqlstate,"
					   "  detail = excluded.detail, context = excluded.context,"
					   "  failed_at = excluded.failed_at, attempts = excluded.attempts,"
					   "  output = excluded.output,"
					   "  state = 'open', queued = false",
					   lengthof(args), args);
	letters->count = 0;
	letters->bytes = 0;
}

/*
 * Store the dead letters of a batch.  payloads has the row of each by ordinal,
 * 0 if it has none.
 */
void
ppl_deadletter_store(PplWorker *worker, const PplBatch *batch,
					 const Datum *payloads)
{
	Letters    *letters = NULL;

	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
	{
		if (!ppl_policy_leaves_letter(worker, batch, ordinal))
			continue;
		if (letters == NULL)
			letters = palloc0(sizeof(*letters));
		add_letter(letters, worker, batch, ordinal, payloads[ordinal]);
		if (letters->count == LETTERS_MAX || letters->bytes > LETTERS_MAX_BYTES)
			write_letters(letters, worker);
	}
	if (letters != NULL)
		write_letters(letters, worker);
}

/*
 * The row of a dead letter as a tuple of today's row type, as the owner.
 */
static HeapTuple
restore_row(PplProgram *program, Datum payload)
{
	LOCAL_FCINFO(fcinfo, 2);
	FmgrInfo	populate;
	HeapTupleData tuple;
	Datum		value;

	prepare_call(&populate, F_JSONB_POPULATE_RECORD, program->source_desc->tdtypeid,
				 program->source_desc->tdtypeid);
	InitFunctionCallInfoData(*fcinfo, &populate, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = (Datum) 0;
	fcinfo->args[0].isnull = true;
	fcinfo->args[1].value = payload;
	fcinfo->args[1].isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "could not restore an event");

	memset(&tuple, 0, sizeof(tuple));
	tuple.t_data = DatumGetHeapTupleHeader(value);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	return heap_copytuple(&tuple);
}

/* A dead letter whose row cannot be restored was run again in vain. */
static void
fail_restoring(int64 id, const ErrorData *error)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(INT8OID, Int64GetDatum(id)),
		ppl_sql_arg_text(error->message),
		ppl_sql_arg_text(unpack_sql_state(error->sqlerrcode)),
		text_or_null(error->detail),
	};

	(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS " SET queued = false,"
					   " attempts = attempts + 1, reason = $2, sqlstate = $3,"
					   " detail = $4, context = 'restoring the row',"
					   " failed_at = pg_catalog.clock_timestamp()"
					   " WHERE id = $1",
					   lengthof(args), args);
}

/*
 * restore_row in a subtransaction.  NULL if the row does not fit today's row
 * type: that is the letter's own fault, and no reason to keep the others.
 */
static HeapTuple
try_restore_row(PplProgram *program, Datum payload, int64 id)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	HeapTuple volatile tuple = NULL;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		tuple = restore_row(program, payload);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	if (error == NULL)
		return tuple;
	if (ppl_judge(error->sqlerrcode) != PPL_VERDICT_EVENT)
		ReThrowError(error);
	fail_restoring(id, error);
	return NULL;
}

/*
 * Put up to limit queued dead letters into an empty batch, in event order, and
 * lock them.  Returns how many were queued: a careful run leaves out those that
 * cannot be restored.
 */
int64
ppl_deadletter_load_queued(PplWorker *worker, PplBatch *batch, int limit,
						   bool careful)
{
	PplProgram *program = worker->program;
	PplSqlArg	args[] = {ppl_sql_arg_int(worker->pipeline_id),
	ppl_sql_arg_int(limit)};
	PplSqlResult *result;

	result = ppl_sql_run("SELECT id, version, kind, event, commit_lsn, seq, xid,"
						 " committed_at, attempts FROM " PPL_DEAD_LETTERS
						 " WHERE pipeline_id = $1 AND queued"
						 " ORDER BY commit_lsn, seq LIMIT $2 FOR UPDATE",
						 lengthof(args), args);
	for (int64 i = 0; i < result->nrows; i++)
	{
		PplRecordHeader header;
		PplEvent   *event;
		int64		id = DatumGetInt64(ppl_sql_value(result, i, 0));
		Datum		payload = ppl_sql_value(result, i, 3);
		HeapTuple	tuple = careful ? try_restore_row(program, payload, id) :
		restore_row(program, payload);

		if (tuple == NULL)
			continue;
		memset(&header, 0, sizeof(header));
		header.kind = PPL_REC_INSERT;
		header.commit_lsn = DatumGetLSN(ppl_sql_value(result, i, 4));
		header.seq = ppl_sql_int(result, i, 5);
		header.xid = DatumGetTransactionId(ppl_sql_value(result, i, 6));
		header.committed_at = DatumGetTimestampTz(ppl_sql_value(result, i, 7));
		ppl_batch_add_event(batch, &header, program->source_desc, tuple);

		event = &batch->events[batch->nevents - 1];
		event->dead_letter_id = id;
		event->dead_letter_version = ppl_sql_int(result, i, 1);
		event->was_rejected = strcmp(ppl_sql_text(result, i, 2), "rejected") == 0;
		event->attempts = ppl_sql_int(result, i, 8);
	}
	batch->complete = true;
	return result->nrows;
}

/*
 * A batch of dead letters was run: those that went through are redriven, and
 * the lineage of all of them is now that of this batch.
 */
void
ppl_deadletter_redriven(PplWorker *worker, const PplBatch *batch, int64 batch_id)
{
	PplSqlArg  *ids = palloc(batch->nevents * sizeof(PplSqlArg));
	PplSqlArg  *lsns = palloc(batch->nevents * sizeof(PplSqlArg));
	PplSqlArg  *seqs = palloc(batch->nevents * sizeof(PplSqlArg));
	PplSqlArg	args[4];
	int			done = 0;

	for (int i = 0; i < batch->nevents; i++)
	{
		const PplEvent *event = &batch->events[i];

		lsns[i] = ppl_sql_arg(LSNOID, LSNGetDatum(batch->txns[event->txn].commit_lsn));
		seqs[i] = ppl_sql_arg_int(event->seq);
		if (ppl_outcome_of(i + 1)->fate == PPL_FATE_OPEN)
			ids[done++] = ppl_sql_arg(INT8OID, Int64GetDatum(event->dead_letter_id));
	}
	if (done > 0)
	{
		args[0] = ppl_sql_arg_array(ids, done);
		(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS
						   " SET state = 'redriven', queued = false, attempts = attempts + 1"
						   " WHERE id = ANY ($1)",
						   1, args);
	}

	args[0] = ppl_sql_arg_int(worker->pipeline_id);
	args[1] = ppl_sql_arg_array(lsns, batch->nevents);
	args[2] = ppl_sql_arg_array(seqs, batch->nevents);
	args[3] = ppl_sql_arg(INT8OID, Int64GetDatum(batch_id));
	(void) ppl_sql_run("INSERT INTO " PPL_RERUNS
					   " (pipeline_id, commit_lsn, seq, batch_id)"
					   " SELECT $1, e.*, $4 FROM ROWS FROM (pg_catalog.unnest($2),"
					   "  pg_catalog.unnest($3)) AS e"
					   " ON CONFLICT (pipeline_id, commit_lsn, seq)"
					   " DO UPDATE SET batch_id = excluded.batch_id",
					   lengthof(args), args);
}
