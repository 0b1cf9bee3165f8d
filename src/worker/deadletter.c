/*
 * deadletter.c
 *		Events that were rejected or failed.
 *
 * Runs in the batch's transaction.  Rows are rendered to jsonb and back as the
 * owner (render.c); storing is done elevated.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/deadletter.h"
#include "worker/event.h"
#include "worker/old.h"
#include "worker/policy.h"
#include "worker/share.h"

#define LETTER_COLUMNS		22
#define LETTER_ARGS			6	/* the same for all letters of a batch */
#define LETTERS_MAX			256 /* in one statement */
#define LETTERS_MAX_BYTES	(8 * 1024 * 1024)
#define LETTERS_SLICE		32	/* queued ones that are read at once */

static PplSqlArg
text_or_null(const char *value)
{
	return value ? ppl_sql_arg_text(value) : ppl_sql_arg_null(TEXTOID);
}

static PplSqlArg
jsonb_or_null(Datum value)
{
	return value ? ppl_sql_arg(JSONBOID, value) : ppl_sql_arg_null(JSONBOID);
}

static Size
size_of(Datum value)
{
	return value ? VARSIZE_ANY(DatumGetPointer(value)) : 0;
}

/* What differs between the dead letters of one statement, by column. */
typedef struct Letters
{
	int			count;
	Size		bytes;			/* of the payloads */
	PplSqlArg	columns[LETTER_COLUMNS][LETTERS_MAX];
} Letters;

/* The context of an error, and what is wrong with the row that is kept. */
static PplSqlArg
context_of(const ErrorData *error, const PplRendered *event)
{
	const char *context = error ? error->context : NULL;

	if (event->flaw == NULL)
		return text_or_null(context);
	return ppl_sql_arg_text(psprintf("%s%s%s: %s",
									 context ? context : "", context ? "\n" : "",
									 event->row || event->old ?
									 "keeping the row, as text" :
									 "the row was not kept", event->flaw));
}

static PplSqlArg
digest_or_null(bool any, const PplDigest *digest)
{
	if (!any)
		return ppl_sql_arg_null(UUIDOID);
	return ppl_sql_arg(UUIDOID, UUIDPGetDatum(ppl_digest_to_uuid(*digest)));
}

/* An output by its number, or what is handed over; NULL = unknown. */
static const char *
output_name(const PplProgram *program, int output)
{
	if (output < 0)
		return NULL;
	return output == program->statement->noutputs ? program->pipeline->hand :
		program->statement->outputs[output]->name;
}

/* Add the dead letter of an event. */
static void
add_letter(Letters *letters, PplWorker *worker, const PplBatch *batch,
		   int ordinal, const PplRendered *rendered, const PplLetterKeys *keys)
{
	PplPipeline *pipeline = worker->program->pipeline;
	const PplEvent *event = &batch->events[ordinal - 1];
	const PplOriginId *origin = &event->origin;
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
		context_of(error, rendered),
		ppl_sql_arg_text(ppl_event_operation(event->kind)),
		jsonb_or_null(rendered->row),
		ppl_sql_arg(LSNOID, LSNGetDatum(origin->commit_lsn)),
		ppl_sql_arg_int(origin->seq),
		ppl_sql_arg(XIDOID, TransactionIdGetDatum(origin->xid)),
		ppl_sql_arg(TIMESTAMPTZOID, TimestampTzGetDatum(origin->committed_at)),
		ppl_sql_arg_int(event->attempts + 1),
		text_or_null(error && stage == NULL ?
					 output_name(worker->program, outcome->output) : NULL),
		text_or_null(rendered->flaw),
		jsonb_or_null(rendered->old),
		digest_or_null(keys && keys->has_row, keys ? &keys->row : NULL),
		digest_or_null(keys && keys->owes_removal, keys ? &keys->removal : NULL),
		ppl_sql_arg_bool(keys && keys->superseded),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) ppl_share_hash(worker, batch, ordinal))),
		ppl_sql_arg_int(origin->part)
	};

	for (int i = 0; i < LETTER_COLUMNS; i++)
		letters->columns[i][letters->count] = row[i];
	letters->count++;
	letters->bytes += size_of(rendered->row) + size_of(rendered->old);
}

/* Write what was added: new dead letters, or the next failure of old ones. */
static void
write_letters(Letters *letters, PplWorker *worker)
{
	PplPipeline *pipeline = worker->program->pipeline;
	PplSqlArg	args[LETTER_ARGS + LETTER_COLUMNS];

	if (letters->count == 0)
		return;
	args[0] = ppl_sql_arg_int(pipeline->pipeline_id);
	args[1] = ppl_sql_arg_int(worker->program->version);
	args[2] = ppl_sql_arg_int(pipeline->version);
	args[3] = ppl_sql_arg(REGCLASSOID, ObjectIdGetDatum(pipeline->origin));
	args[4] = ppl_sql_arg_int(pipeline->segment);
	args[5] = ppl_sql_arg_bool(pipeline->hand != NULL);
	for (int i = 0; i < LETTER_COLUMNS; i++)
		args[LETTER_ARGS + i] = ppl_sql_arg_array(letters->columns[i], letters->count);
	(void) ppl_sql_run("INSERT INTO " PPL_DEAD_LETTERS " AS d"
					   " (pipeline_id, version, code_version, source, segment, handing,"
					   "  stage_id, stage, kind, reason,"
					   "  sqlstate, detail, context, operation, event, commit_lsn, seq, xid,"
					   "  committed_at, attempts, output, flaw, old_event,"
					   "  source_digest, removal_digest, superseded, partition_hash, part)"
					   " SELECT $1, $2, $3, $4, $5, $6, l.* FROM ROWS FROM ("
					   "  pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),"
					   "  pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),"
					   "  pg_catalog.unnest($13), pg_catalog.unnest($14), pg_catalog.unnest($15),"
					   "  pg_catalog.unnest($16), pg_catalog.unnest($17), pg_catalog.unnest($18),"
					   "  pg_catalog.unnest($19), pg_catalog.unnest($20), pg_catalog.unnest($21),"
					   "  pg_catalog.unnest($22), pg_catalog.unnest($23), pg_catalog.unnest($24),"
					   "  pg_catalog.unnest($25), pg_catalog.unnest($26), pg_catalog.unnest($27),"
					   "  pg_catalog.unnest($28)) AS l"
					   " ON CONFLICT (pipeline_id, segment, commit_lsn, seq, part) DO UPDATE SET"
					   "  event = coalesce(excluded.event, d.event),"
					   "  version = excluded.version,"
					   "  code_version = excluded.code_version, stage_id = excluded.stage_id,"
					   "  stage = excluded.stage, kind = excluded.kind,"
					   "  reason = excluded.reason, sqlstate = excluded.sqlstate,"
					   "  detail = excluded.detail, context = excluded.context,"
					   "  failed_at = excluded.failed_at, attempts = excluded.attempts,"
					   "  output = excluded.output,"
					   "  removal_digest = excluded.removal_digest,"
					   "  handing = excluded.handing,"
					   "  state = 'open', queued = false",
					   lengthof(args), args);
	letters->count = 0;
	letters->bytes = 0;
}

/*
 * Store the dead letters of a batch.  rendered has the row of each new one by
 * ordinal; those of old ones are kept as they are.  keys, by ordinal, or NULL.
 */
void
ppl_deadletter_store(PplWorker *worker, const PplBatch *batch,
					 const PplRendered *rendered, const PplLetterKeys *keys)
{
	Letters    *letters = NULL;

	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
	{
		if (!ppl_policy_leaves_letter(worker, batch, ordinal))
			continue;
		if (letters == NULL)
			letters = palloc0(sizeof(*letters));
		add_letter(letters, worker, batch, ordinal, &rendered[ordinal],
				   keys ? &keys[ordinal] : NULL);
		if (letters->count == LETTERS_MAX || letters->bytes > LETTERS_MAX_BYTES)
			write_letters(letters, worker);
	}
	if (letters != NULL)
		write_letters(letters, worker);
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

/* What a queued dead letter was. */
typedef struct Restored
{
	PplRecordKind kind;
	HeapTuple	row;			/* new one of an insert or update */
	HeapTuple	old;			/* of an update or delete */
	bool	   *in_old;
} Restored;

/* Columns of a queued dead letter. */
enum
{
	QUEUED_ID,
	QUEUED_VERSION,
	QUEUED_KIND,
	QUEUED_EVENT,
	QUEUED_LSN,
	QUEUED_SEQ,
	QUEUED_XID,
	QUEUED_COMMITTED_AT,
	QUEUED_ATTEMPTS,
	QUEUED_FLAW,
	QUEUED_OPERATION,
	QUEUED_OLD_EVENT,
	QUEUED_SUPERSEDED,
	QUEUED_OWES_REMOVAL,
	QUEUED_HASH,
	QUEUED_PART,
	QUEUED_HANDING,
	QUEUED_SOURCE_DIGEST,
	QUEUED_REMOVAL_DIGEST
};

/* A row that it has, or 0. */
static Datum
jsonb_of(const PplSqlResult *letters, int64 i, int column)
{
	return ppl_sql_isnull(letters, i, column) ? (Datum) 0 :
		ppl_sql_value(letters, i, column);
}

/* The same as a tuple of today's row type, or NULL. */
static HeapTuple
restore_row(PplWorker *worker, Datum row, bool partial, ErrorData **error)
{
	if (row == (Datum) 0 || (error && *error != NULL))
		return NULL;
	return ppl_render_restore(worker->program, row, partial, error);
}

/*
 * The rows of a queued dead letter.  False, in a careful run, if they do not fit
 * or were not kept as they were: that is the letter's own fault, and no reason to
 * keep the others.
 */
static bool
restore(PplWorker *worker, PplBatch *batch, const PplSqlResult *letters, int64 i,
		bool careful, Restored *restored)
{
	Datum		row = jsonb_of(letters, i, QUEUED_EVENT);
	Datum		old = jsonb_of(letters, i, QUEUED_OLD_EVENT);
	ErrorData  *error = NULL;
	ErrorData **caught = careful ? &error : NULL;

	memset(restored, 0, sizeof(*restored));
	restored->kind = ppl_event_kind(ppl_sql_text(letters, i, QUEUED_OPERATION));
	if (!ppl_sql_isnull(letters, i, QUEUED_FLAW))
	{
		if (!careful)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("the row of a dead letter cannot be restored")));
		error = palloc0(sizeof(*error));
		error->sqlerrcode = ERRCODE_DATA_EXCEPTION;
		error->message = "the row cannot be restored, since it could not be kept as it was";
		error->detail = ppl_sql_text(letters, i, QUEUED_FLAW);
	}
	else
	{
		if (restored->kind != PPL_REC_DELETE)
			restored->row = restore_row(worker, row, false, caught);
		restored->old = restore_row(worker, old, true, caught);
	}
	if (error != NULL)
		fail_restoring(DatumGetInt64(ppl_sql_value(letters, i, QUEUED_ID)), error);
	else
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(batch->context);

		/* of a delete, the row is there if all of it was known */
		if (old == (Datum) 0)
			restored->in_old = palloc0(worker->program->source_desc->natts);
		else
			restored->in_old =
				ppl_old_columns_of(worker->program, old,
								   restored->kind == PPL_REC_DELETE && row != (Datum) 0);
		MemoryContextSwitchTo(oldcontext);
	}
	return error == NULL;
}

/* The name of a source row, if the letter has it. */
static void
set_digest(uint64 *result, const PplSqlResult *letters, int64 i, int column)
{
	PplDigest	digest;

	if (ppl_sql_isnull(letters, i, column))
		return;
	digest = ppl_digest_from_uuid(DatumGetUUIDP(ppl_sql_value(letters, i, column)));
	result[0] = digest.high;
	result[1] = digest.low;
}

/* Put a dead letter into a batch. */
static void
add_queued(PplWorker *worker, PplBatch *batch, const PplSqlResult *letters,
		   int64 i, const Restored *restored)
{
	PplRecordHeader header;
	PplEvent   *event;

	memset(&header, 0, sizeof(header));
	header.kind = restored->kind;
	header.commit_lsn = DatumGetLSN(ppl_sql_value(letters, i, QUEUED_LSN));
	header.seq = ppl_sql_int(letters, i, QUEUED_SEQ);
	header.xid = DatumGetTransactionId(ppl_sql_value(letters, i, QUEUED_XID));
	header.committed_at =
		DatumGetTimestampTz(ppl_sql_value(letters, i, QUEUED_COMMITTED_AT));
	ppl_batch_add_event(batch, &header, worker->program->source_desc,
						restored->old, restored->row);

	event = &batch->events[batch->nevents - 1];
	event->origin.part = ppl_sql_int(letters, i, QUEUED_PART);
	set_digest(event->origin.after, letters, i, QUEUED_SOURCE_DIGEST);
	set_digest(event->origin.before, letters, i, QUEUED_REMOVAL_DIGEST);
	event->in_old = restored->in_old;
	event->was_handing = ppl_sql_bool(letters, i, QUEUED_HANDING);
	event->superseded = ppl_sql_bool(letters, i, QUEUED_SUPERSEDED);
	event->removed = !ppl_sql_bool(letters, i, QUEUED_OWES_REMOVAL);
	event->hash = (uint64) DatumGetInt64(ppl_sql_value(letters, i, QUEUED_HASH));
	event->hashed = true;
	event->dead_letter_id = DatumGetInt64(ppl_sql_value(letters, i, QUEUED_ID));
	event->dead_letter_version = ppl_sql_int(letters, i, QUEUED_VERSION);
	event->was_rejected =
		strcmp(ppl_sql_text(letters, i, QUEUED_KIND), "rejected") == 0;
	event->attempts = ppl_sql_int(letters, i, QUEUED_ATTEMPTS);
}

/*
 * The next queued dead letters of this segment and partition after an event and its
 * part, in event order, locked.
 */
static PplSqlResult *
read_queued(PplWorker *worker, PplPosition after, int part, int limit)
{
	PplPortion	portion = ppl_worker_portion(worker);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->pipeline_id),
		ppl_sql_arg(LSNOID, LSNGetDatum(after.commit_lsn)),
		ppl_sql_arg_int(after.seq),
		ppl_sql_arg_int(limit),
		ppl_sql_arg_int(worker->place.segment),
		ppl_sql_arg_int(part),
		ppl_sql_arg_int(portion.workers),
		ppl_sql_arg_int(portion.partition),
	};

	return ppl_sql_run("SELECT id, version, kind, event, commit_lsn, seq, xid,"
					   " committed_at, attempts, flaw, operation, old_event,"
					   " superseded, removal_digest IS NOT NULL, partition_hash, part,"
					   " handing, source_digest, removal_digest"
					   " FROM " PPL_DEAD_LETTERS
					   " WHERE pipeline_id = $1 AND segment = $5 AND queued"
					   " AND (commit_lsn, seq, part) > ($2, $3, $6)"
					   " AND " PPL_PARTITION_NUMBER "(partition_hash, $7) = $8"
					   " ORDER BY commit_lsn, seq, part LIMIT $4 FOR UPDATE",
					   lengthof(args), args);
}

/*
 * Put queued dead letters into an empty batch, in event order, and lock them: up
 * to a limit, or until they exceed max_bytes.  False if none is queued: a careful
 * run leaves out those that cannot be restored.
 *
 * They are read in slices that grow, so that large ones do not fill the memory.
 */
bool
ppl_deadletter_load_queued(PplWorker *worker, PplBatch *batch, int limit,
						   Size max_bytes, bool careful)
{
	PplPosition after = {InvalidXLogRecPtr, 0};
	int			part = 0;
	Size		bytes = 0;
	int			taken = 0;
	int			slice = 1;
	bool		more = true;

	while (more && taken < limit && bytes < max_bytes)
	{
		PplSqlResult *letters = read_queued(worker, after, part, slice);

		for (int64 i = 0; i < letters->nrows && bytes < max_bytes; i++)
		{
			Restored	restored;

			after.commit_lsn = DatumGetLSN(ppl_sql_value(letters, i, QUEUED_LSN));
			after.seq = ppl_sql_int(letters, i, QUEUED_SEQ);
			part = ppl_sql_int(letters, i, QUEUED_PART);
			bytes += size_of(jsonb_of(letters, i, QUEUED_EVENT)) +
				size_of(jsonb_of(letters, i, QUEUED_OLD_EVENT));
			if (restore(worker, batch, letters, i, careful, &restored))
				add_queued(worker, batch, letters, i, &restored);
			taken++;
		}
		more = letters->nrows == slice;
		slice = Min(Min(2 * slice, LETTERS_SLICE), Max(limit - taken, 1));
	}
	batch->complete = true;
	return taken > 0;
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
	PplSqlArg  *parts = palloc(batch->nevents * sizeof(PplSqlArg));
	PplSqlArg	args[6];
	int			done = 0;

	for (int i = 0; i < batch->nevents; i++)
	{
		const PplEvent *event = &batch->events[i];

		lsns[i] = ppl_sql_arg(LSNOID, LSNGetDatum(event->origin.commit_lsn));
		seqs[i] = ppl_sql_arg_int(event->origin.seq);
		parts[i] = ppl_sql_arg_int(event->origin.part);
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
	args[3] = ppl_sql_arg_array(parts, batch->nevents);
	args[4] = ppl_sql_arg(INT8OID, Int64GetDatum(batch_id));
	args[5] = ppl_sql_arg_int(worker->place.segment);
	(void) ppl_sql_run("INSERT INTO " PPL_RERUNS
					   " (pipeline_id, segment, commit_lsn, seq, part, batch_id)"
					   " SELECT $1, $6, e.*, $5 FROM ROWS FROM (pg_catalog.unnest($2),"
					   "  pg_catalog.unnest($3), pg_catalog.unnest($4)) AS e"
					   " ON CONFLICT (pipeline_id, segment, commit_lsn, seq, part)"
					   " DO UPDATE SET batch_id = excluded.batch_id",
					   lengthof(args), args);
}
