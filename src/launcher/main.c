/*
 * main.c
 *		The launcher: one process a server, starts capture and workers.
 *
 * It is connected to no database and reads pg_database once, when it starts:
 * every database but template0 gets a capture process, which finds out whether
 * the extension is there and ends at once if not.  Later databases and
 * extensions announce themselves (ddl.c).  From then on it only looks at
 * shared memory: which places need a process and have none.  It sleeps on its
 * latch, with a timeout only while a start is delayed by back-off or by a lack
 * of free worker processes.
 *
 * Locks: shared->lock, never while it registers a process.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/process.h"
#include "launcher/main.h"

#define PPL_NO_WORKER_RETRY_MS	1000
#define PPL_ORDER_TIMEOUT_MS	10000
#define PPL_LOG_INTERVAL_MS		60000

extern PPL_EXPORT void pipeline_launcher_main(Datum arg);

/* State of the launcher. */
static struct
{
	List	   *unchecked;		/* databases that wait for an entry */
	int64		now;			/* by ppl_clock_ms() */
	long		timeout;		/* until the next start is due, -1 = none */
	int64		complained;		/* last log line about missing workers */
	bool		exhausted;		/* no worker process is free right now */
}			self;

static void list_databases(void);
static void request_unchecked(void);
static void tend_databases(void);
static void tend_consumers(void);
static void wake_barriers(void);
static bool order_process(PplProcess *process, const char *kind,
						  const char *function, int index, Oid dboid,
						  PplPlace place);
static bool start_is_due(PplProcess *process);
static bool claim(PplProcess *process);

/*
 * Register the launcher with the postmaster.
 */
void
ppl_launcher_register(void)
{
	BackgroundWorker worker;

	ppl_process_describe(&worker, "launcher", "pipeline_launcher_main");
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

void
pipeline_launcher_main(Datum arg)
{
	ppl_process_signals(false);
	if (!ppl_process_attach(&ppl_shared->launcher,
							ppl_shared->launcher.generation))
		proc_exit(1);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	ereport(DEBUG1, (errmsg_internal("pipeline launcher started")));

	list_databases();
	for (;;)
	{
		self.now = ppl_clock_ms();
		self.timeout = -1;
		self.exhausted = false;
		request_unchecked();
		tend_databases();
		tend_consumers();
		pgstat_report_activity(STATE_IDLE, NULL);
		ppl_process_wait(self.timeout);
	}
}

/*
 * Remember every database.  One that does not allow connections may have a
 * slot all the same, which must not hold its WAL for ever.
 */
static void
list_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext oldcontext;

		if (!form->datallowconn && form->oid < FirstNormalObjectId)
			continue;
		oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		self.unchecked = lappend_oid(self.unchecked, form->oid);
		MemoryContextSwitchTo(oldcontext);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/* Entries are given back by captures that found no extension. */
static void
request_unchecked(void)
{
	while (self.unchecked != NIL)
	{
		Oid			dboid = linitial_oid(self.unchecked);

		if (ppl_database_find(dboid) == NULL && !ppl_database_request(dboid))
			return;
		self.unchecked = list_delete_first(self.unchecked);
	}
}

static void
tend_databases(void)
{
	const PplPlace nowhere = {0};

	for (int i = 0; i < ppl_shared->ndatabases; i++)
	{
		PplDatabase *db = &ppl_shared->databases[i];
		Oid			dboid = InvalidOid;

		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (db->state == PPL_DB_GONE && db->capture.pid == 0)
		{
			if (db->recheck)
				ppl_database_set_state(db, PPL_DB_CHECK);
			else
				db->dboid = InvalidOid;
		}
		if (OidIsValid(db->dboid) && db->state != PPL_DB_CLOSING &&
			db->state != PPL_DB_GONE && claim(&db->capture))
			dboid = db->dboid;
		LWLockRelease(ppl_shared->lock);
		if (!OidIsValid(dboid))
			continue;

		if (!order_process(&db->capture, "capture", "pipeline_capture_main",
						   i, dboid, nowhere))
		{
			char	   *detail = psprintf("max_worker_processes is %d, and all are in use; every database with pipelines needs one, and its workers.",
										  max_worker_processes);
			char	   *hint = psprintf("ALTER SYSTEM SET max_worker_processes = %d; then restart the server.",
										max_worker_processes + 8);

			LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
			if (db->state != PPL_DB_CLOSING)
				ppl_database_set_state(db, PPL_DB_FAILED);
			ppl_error_set(&db->error, ERRCODE_INSUFFICIENT_RESOURCES,
						  "no free worker process for the capture process of pipeline",
						  detail, hint);
			LWLockRelease(ppl_shared->lock);
			ConditionVariableBroadcast(&db->changed);
			pfree(detail);
			pfree(hint);
		}
	}
}

/* Does this consumer need a process now?  Caller holds shared->lock. */
static bool
consumer_needs_process(PplConsumer *consumer)
{
	PplDatabase *db = ppl_database_find(consumer->dboid);

	return consumer->running && !consumer->dropped && !consumer->lost &&
		!consumer->retired && !consumer->barrier &&
		db != NULL && ppl_database_has_spool(db) &&
		!ppl_consumer_all_done(consumer);
}

static void
tend_consumers(void)
{
	for (int i = 0; i < ppl_shared->nconsumers; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];
		Oid			dboid = InvalidOid;
		PplPlace	place;

		if (!OidIsValid(consumer->dboid))
			continue;
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (consumer->dropped && consumer->process.pid == 0 &&
			!consumer->process.ordered)
			consumer->dboid = InvalidOid;
		else if (consumer_needs_process(consumer) && claim(&consumer->process))
		{
			dboid = consumer->dboid;
			place = consumer->place;
		}
		LWLockRelease(ppl_shared->lock);
		if (!OidIsValid(dboid))
			continue;

		if (!order_process(&consumer->process, "worker", "pipeline_worker_main",
						   i, dboid, place))
		{
			LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
			ppl_consumer_set_state(consumer, PPL_WORKER_WAITING);
			LWLockRelease(ppl_shared->lock);
			wake_barriers();
		}
	}
}

/* Workers that wait for each other give their processes to those that have none. */
static void
wake_barriers(void)
{
	for (int i = 0; i < ppl_shared->nconsumers; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (OidIsValid(consumer->dboid) && consumer->barrier)
			ppl_wake(&consumer->process.procno);
	}
}

/*
 * Is nobody there, and may a process be started now?  Otherwise shorten the
 * sleep accordingly.  Caller holds shared->lock.
 */
static bool
start_is_due(PplProcess *process)
{
	int64		due = process->not_before;

	if (process->pid != 0)
		return false;
	if (process->ordered)
		due = process->ordered_at + PPL_ORDER_TIMEOUT_MS;
	if (due > self.now)
	{
		long		wait = (long) (due - self.now) + 1;

		self.timeout = self.timeout < 0 ? wait : Min(self.timeout, wait);
		return false;
	}
	return true;
}

/*
 * If a process is due, note that one is ordered, under a new generation.  From
 * then on nobody takes the place for free.  Caller holds shared->lock
 * exclusively.
 */
static bool
claim(PplProcess *process)
{
	if (!start_is_due(process))
		return false;
	process->generation++;
	process->ordered = true;
	process->ordered_at = self.now;
	return true;
}

/*
 * Register one process that was claimed.  False if no worker process is free;
 * then it is tried again soon, and the log says so once a minute.
 */
static bool
order_process(PplProcess *process, const char *kind, const char *function,
			  int index, Oid dboid, PplPlace place)
{
	BackgroundWorker worker;
	PplOrder	order;

	if (!self.exhausted)
	{
		order.generation = process->generation;
		order.dboid = dboid;
		order.place = place;

		ppl_process_describe(&worker, kind, function);
		worker.bgw_restart_time = BGW_NEVER_RESTART;
		worker.bgw_notify_pid = MyProcPid;
		worker.bgw_main_arg = Int32GetDatum(index);
		if (place.pipeline_id == 0)
			snprintf(worker.bgw_name, BGW_MAXLEN, "pipeline %s for database %u",
					 kind, dboid);
		else
			snprintf(worker.bgw_name, BGW_MAXLEN,
					 "pipeline %s %d.%d #%d for database %u", kind,
					 place.pipeline_id, place.segment, place.partition, dboid);
		memcpy(worker.bgw_extra, &order, sizeof(order));
		StaticAssertStmt(sizeof(order) <= BGW_EXTRALEN, "order is too long");

		if (RegisterDynamicBackgroundWorker(&worker, NULL))
			return true;

		self.exhausted = true;
		if (self.complained == 0 ||
			self.now - self.complained >= PPL_LOG_INTERVAL_MS)
		{
			self.complained = self.now;
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("no free worker process for a pipeline %s", kind),
					 errhint("Raise max_worker_processes (now %d) and restart the server.",
							 max_worker_processes)));
		}
	}
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	process->ordered = false;
	LWLockRelease(ppl_shared->lock);
	self.timeout = self.timeout < 0 ? PPL_NO_WORKER_RETRY_MS :
		Min(self.timeout, PPL_NO_WORKER_RETRY_MS);
	return false;
}
