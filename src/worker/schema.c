/*
 * schema.c
 *		A worker comes to a change of its source.
 *
 * What changed was noted by the event triggers (api/schema.c) in the transaction
 * that changed it; here it gets its place in the commit order, and it is decided
 * whether the pipeline stops there.  If a superuser has switched the triggers
 * off, the difference is found when the program is loaded anew.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/layout.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/schema.h"

/* State of this worker. */
static struct
{
	bool		known;			/* whether something waits */
	bool		waiting;
	bool		reloaded;		/* the program, and not compared since */
}			self;

/* The changes that a transaction made have this place. */
static void
place(int pipeline_id, TransactionId xid, XLogRecPtr commit_lsn,
	  TimestampTz committed_at)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline_id),
		ppl_sql_arg(XIDOID, TransactionIdGetDatum(xid)),
		ppl_sql_arg(LSNOID, LSNGetDatum(commit_lsn)),
		ppl_sql_arg(TIMESTAMPTZOID, TimestampTzGetDatum(committed_at)),
	};

	(void) ppl_sql_run("UPDATE " PPL_SCHEMA_EVENTS
					   " SET commit_lsn = $3, committed_at = $4,"
					   "  state = CASE WHEN state <> 'pending' THEN state"
					   "   WHEN pauses THEN 'waiting' ELSE 'applied' END"
					   " WHERE pipeline_id = $1 AND xid = $2 AND commit_lsn IS NULL",
					   lengthof(args), args);
	self.known = false;
}

/*
 * The control record of a change.  Its transaction must be visible.
 */
void
ppl_schema_reached(PplWorker *worker, const PplBatch *batch)
{
	place(worker->pipeline_id, batch->control_xid,
		  batch->control_position.commit_lsn, batch->control_committed_at);
}

/*
 * Only a partition of the source was truncated: which rows of an output of mode
 * upsert came from there, nobody knows.
 */
static void
note_truncate(const PplWorker *worker, const PplBatchTxn *txn)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->pipeline_id),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(worker->program->pipeline->source)),
		ppl_sql_arg(XIDOID, TransactionIdGetDatum(txn->xid)),
		ppl_sql_arg(LSNOID, LSNGetDatum(txn->commit_lsn)),
		ppl_sql_arg(TIMESTAMPTZOID, TimestampTzGetDatum(txn->committed_at)),
	};

	PushActiveSnapshot(GetTransactionSnapshot());
	(void) ppl_sql_run("INSERT INTO " PPL_SCHEMA_EVENTS
					   " (pipeline_id, source, xid, commit_lsn, committed_at,"
					   "  change, pauses, state)"
					   " VALUES ($1, $2, $3, $4, $5, 'truncate_partition', true, 'waiting')",
					   lengthof(args), args);
	PopActiveSnapshot();
	self.known = false;
}

/*
 * Those changes that lie within the transactions of a batch, and do not stop it;
 * and truncates of partitions, which stop an output of mode upsert after them.
 */
void
ppl_schema_passed(PplWorker *worker, const PplBatch *batch)
{
	int			noted = -1;

	for (int i = 0; i < batch->nevents; i++)
	{
		const PplEvent *event = &batch->events[i];

		if (!event->partial || event->txn == noted ||
			!worker->program->statement->keyed)
			continue;
		noted = event->txn;
		note_truncate(worker, &batch->txns[noted]);
	}
	for (int i = 0; i < batch->ntxns; i++)
	{
		const PplBatchTxn *txn = &batch->txns[i];

		if (!txn->schema)
			continue;
		PushActiveSnapshot(GetTransactionSnapshot());
		place(worker->pipeline_id, txn->xid, txn->commit_lsn, txn->committed_at);
		PopActiveSnapshot();
	}
}

/*
 * The program was loaded anew: the source may be another one.
 */
void
ppl_schema_reloaded(void)
{
	self.reloaded = true;
}

/*
 * Does the source differ from what is known of it, though nobody said so?  Then
 * that is noted as of the first transaction of the batch; true if the pipeline has
 * to stop before it.
 */
bool
ppl_schema_missed(PplWorker *worker, const PplBatch *batch)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(worker->pipeline_id)};
	const PplBatchTxn *first = &batch->txns[0];
	PplSqlResult *rows;
	bool		pauses = false;

	if (!self.reloaded || !worker->reads_source)
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	rows = ppl_sql_read("SELECT EXISTS (SELECT FROM " PPL_LAYOUTS " l"
						" JOIN " PPL_PIPELINES " p USING (pipeline_id),"
						" " PPL_PRIVATE_SCHEMA ".layout_changes(l.layout, "
						PPL_PRIVATE_SCHEMA ".layout_of(p.source::oid))"
						" WHERE l.pipeline_id = $1)",
						lengthof(args), args);
	if (ppl_sql_bool(rows, 0, 0) &&
		ppl_layout_note(worker->pipeline_id, first->xid, &pauses) > 0)
		place(worker->pipeline_id, first->xid, first->commit_lsn,
			  first->committed_at);
	else
		self.reloaded = false;
	PopActiveSnapshot();
	return pauses;
}

/*
 * What the pipeline waits for, in the worker's memory; NULL if for nothing.
 * Outside transactions.
 */
char *
ppl_schema_waits(PplWorker *worker)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(worker->pipeline_id)};
	PplSqlResult *rows;
	char	   *what = NULL;

	if (self.known && !self.waiting)
		return NULL;
	HOLD_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rows = ppl_sql_read("SELECT what FROM " PPL_PRIVATE_SCHEMA ".schema_pauses"
						" WHERE pipeline_id = $1",
						lengthof(args), args);
	self.waiting = rows->nrows > 0;
	self.known = true;
	if (self.waiting)
		what = MemoryContextStrdup(worker->context, ppl_sql_text(rows, 0, 0));
	PopActiveSnapshot();
	CommitTransactionCommand();
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextSwitchTo(worker->context);
	return what;
}

/*
 * Somebody may have accepted what the pipeline waits for.
 */
void
ppl_schema_look_again(void)
{
	self.known = false;
}
