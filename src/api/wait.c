/*
 * wait.c
 *		Wait until a pipeline has processed what is committed.
 *
 * Runs in the caller's backend.  Sleeps on the condition variable of the
 * database, which capture and workers broadcast when a position moves; takes
 * no lock while it sleeps and serves interrupts.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/access.h"
#include "api/args.h"
#include "base/shm.h"
#include "base/wake.h"
#include "catalog/names.h"

/* One sleep; a longer timeout takes several. */
#define MAX_SLEEP_MS (60 * 60 * 1000)

PPL_FUNCTION(pipeline_wait_for);

/* Whom it waits for: remembered, since it is asked at each step of everybody. */
typedef struct Workers
{
	PplDatabase *db;
	PplPlace	place;			/* any of the segment */
	uint64		births;			/* of consumers, when these were looked up */
	List	   *consumers;		/* PplConsumer * */
	bool		none;			/* of them is there */
} Workers;

static TimestampTz wait_until(FunctionCallInfo fcinfo, int argno);
static bool wait_processed(PplDatabase *db, const PplPipeline *pipeline,
						   XLogRecPtr lsn, TimestampTz until);
static XLogRecPtr handed_over(int32 pipeline_id, int32 segment);
static bool wait_for_place(PplDatabase *db, PplPlace place, XLogRecPtr lsn,
						   TimestampTz until);
static bool is_gone(PplPlace place);
static bool is_processed(Workers *workers, XLogRecPtr lsn);
static void find_workers(Workers *workers);

/*
 * pipeline.wait_for(name text, lsn pg_lsn, timeout interval)
 */
Datum
pipeline_wait_for(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	TimestampTz until = wait_until(fcinfo, 2);
	PplPipeline *pipeline;
	PplDatabase *db;
	XLogRecPtr	lsn;

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("pipeline.wait_for cannot be called in a transaction that keeps one snapshot"),
				 errdetail("The isolation level is %s, in which what the pipeline commits is not visible; needed is read committed.",
						   IsolationIsSerializable() ? "serializable" : "repeatable read"),
				 errhint("BEGIN ISOLATION LEVEL READ COMMITTED;")));
	PreventCommandDuringRecovery("pipeline.wait_for");

	pipeline = ppl_access_open(name, PPL_RIGHT_SEE, NoLock);
	if (!pipeline->born)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" was never started", name),
				 errhint("SELECT pipeline.start(%s);", quote_literal_cstr(name))));

	db = ppl_shared ? ppl_database_find(MyDatabaseId) : NULL;
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no capture process serves this database"),
				 errhint("SELECT pipeline.start(%s); says what is missing.",
						 quote_literal_cstr(name))));

	/* Whatever is visible to somebody by now has its commit before this. */
	lsn = PG_ARGISNULL(1) ? GetXLogInsertRecPtr() : PG_GETARG_LSN(1);
	PG_RETURN_BOOL(wait_processed(db, pipeline,
								  ppl_wake_record_end(lsn), until));
}

/* The end of the wait; without a timeout, never. */
static TimestampTz
wait_until(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(PG_GETARG_INTERVAL_P(argno))));
}

/*
 * Wait for the workers, in the order of segments: those that read the source up to
 * lsn, each further one up to the end of what the one before has committed by then.
 */
static bool
wait_processed(PplDatabase *db, const PplPipeline *pipeline, XLogRecPtr lsn,
			   TimestampTz until)
{
	List	   *shares = ppl_definition_shares(pipeline);
	ListCell   *lc;

	foreach(lc, shares)
	{
		const PplShare *share = lfirst(lc);
		XLogRecPtr	upto = share->upstream == 0 ? lsn :
		handed_over(pipeline->pipeline_id, share->upstream);

		if (share->place.partition == 1 &&
			!wait_for_place(db, share->place, upto, until))
			return false;
	}
	return shares != NIL;
}

/*
 * Where the last commit of a segment ends.  Nobody knows if its workers did
 * nothing since the server was started, or if one has just ended: then anywhere up
 * to now.
 */
static XLogRecPtr
handed_over(int32 pipeline_id, int32 segment)
{
	XLogRecPtr	result = InvalidXLogRecPtr;
	bool		known = true;

	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];
		XLogRecPtr	end;

		if (consumer->dboid != MyDatabaseId || consumer->dropped ||
			consumer->place.pipeline_id != pipeline_id ||
			consumer->place.segment != segment)
			continue;
		end = pg_atomic_read_u64(&consumer->commit_end);
		known &= end != InvalidXLogRecPtr;
		result = Max(result, end);
	}
	LWLockRelease(ppl_shared->lock);
	return known && result != InvalidXLogRecPtr ? result :
		ppl_wake_record_end(GetXLogInsertRecPtr());
}

static bool
wait_for_place(PplDatabase *db, PplPlace place, XLogRecPtr lsn,
			   TimestampTz until)
{
	bool		done;
	bool		woken = false;
	bool		looked = false;
	Workers		workers = {.db = db, .place = place};

	ConditionVariablePrepareToSleep(&db->changed);
	for (;;)
	{
		XLogRecPtr	wanted;
		long		timeout;

		done = is_processed(&workers, lsn);
		if (done)
			break;
		if (workers.none && !looked)
		{
			ConditionVariableCancelSleep();
			if (is_gone(place))
				return true;
			looked = true;
			ConditionVariablePrepareToSleep(&db->changed);
			continue;
		}
		looked = false;

		/* have what is not flushed yet decoded too, but not the future */
		wanted = Min(lsn, ppl_wake_record_end(GetXLogInsertRecPtr()));
		if (!woken || pg_atomic_read_u64(&db->wanted_lsn) < wanted)
			ppl_wake_capture(db, wanted);
		woken = true;

		timeout = Min(MAX_SLEEP_MS,
					  TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													  until));
		if (timeout <= 0)
			break;
		(void) ConditionVariableTimedSleep(&db->changed, timeout,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return done;
}

/*
 * Is there nothing to wait for any more, because the segment was dropped meanwhile?
 * Error 42704 if the whole pipeline was.
 */
static bool
is_gone(PplPlace place)
{
	PplPipeline *pipeline;
	ListCell   *lc;

	PushActiveSnapshot(GetLatestSnapshot());
	pipeline = ppl_definition_load(place.pipeline_id);
	PopActiveSnapshot();
	if (pipeline == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the pipeline was dropped while it was waited for")));
	foreach(lc, ppl_definition_shares(pipeline))
	{
		if (((PplShare *) lfirst(lc))->place.segment == place.segment)
			return false;
	}
	return true;
}

/*
 * Has every worker of a segment done all commits up to lsn?  First what is
 * decoded, then what is done: a worker counts as having done it all when
 * nothing of what was decoded is left for it.  A new capture takes decoded_lsn
 * back before it moves the workers to its new spool, so that is read again.
 */
static bool
is_processed(Workers *workers, XLogRecPtr lsn)
{
	bool		found = false;
	bool		behind = false;
	ListCell   *lc;

	workers->none = false;
	if (pg_atomic_read_u64(&workers->db->decoded_lsn) < lsn)
		return false;
	pg_read_barrier();
	if (workers->births != pg_atomic_read_u64(&ppl_shared->births))
		find_workers(workers);

	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	foreach(lc, workers->consumers)
	{
		PplConsumer *consumer = lfirst(lc);

		if (consumer->dboid != MyDatabaseId || consumer->dropped ||
			consumer->retired ||
			consumer->place.pipeline_id != workers->place.pipeline_id ||
			consumer->place.segment != workers->place.segment ||
			TransactionIdIsValid(consumer->reserved_by))
			continue;
		found = true;
		if (consumer->lost || consumer->state == PPL_WORKER_LOST ||
			(pg_atomic_read_u64(&consumer->processed_lsn) < lsn &&
			 !ppl_consumer_all_done(consumer)))
			behind = true;
	}
	LWLockRelease(ppl_shared->lock);
	workers->none = !found;
	pg_read_barrier();
	return found && !behind &&
		pg_atomic_read_u64(&workers->db->decoded_lsn) >= lsn;
}

/*
 * The places of the segment, also those that are only reserved: they may be taken
 * without a birth of a consumer.
 */
static void
find_workers(Workers *workers)
{
	list_free(workers->consumers);
	workers->consumers = NIL;
	workers->births = pg_atomic_read_u64(&ppl_shared->births);
	pg_read_barrier();
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid == MyDatabaseId &&
			consumer->place.pipeline_id == workers->place.pipeline_id &&
			consumer->place.segment == workers->place.segment)
			workers->consumers = lappend(workers->consumers, consumer);
	}
}
