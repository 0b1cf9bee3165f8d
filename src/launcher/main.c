/*
 * main.c
 *		The launcher: one process a server, starts capture and workers.
 *
 * It is connected to no database and reads pg_database once, when it starts:
 * every database but template0 gets a capture process, which finds out whether
 * the extension is there and ends at once if not.  Later databases and
 * extensions announce themselves (ddl.c).  From then on it only looks at
 * shared memory: which places need a process and have none.  Capture comes first;
 * workers stand in line, and while some wait, others are asked to leave
 * (worker/turn.c).  It sleeps on its latch, with a timeout only while a start is delayed by back-off or by a lack
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
#include "base/guc.h"
#include "base/process.h"
#include "launcher/main.h"

#define PPL_NO_WORKER_RETRY_MS	1000
#define PPL_ORDER_TIMEOUT_MS	10000
#define PPL_LOG_INTERVAL_MS		60000
#define PPL_PATIENCE_MS			1000

extern PPL_EXPORT void pipeline_launcher_main(Datum arg);

/* A consumer that waits for a process. */
typedef struct LinePlace
{
	int			index;
	uint64		ticket;
} LinePlace;

/* State of the launcher. */
static struct
{
	List	   *unchecked;		/* databases that wait for an entry */
	int64		now;			/* by ppl_clock_ms() */
	long		timeout;		/* until the next start is due, -1 = none */
	int64		complained;		/* last log line about missing workers */
	bool		exhausted;		/* no worker process is free right now */
	TimestampTz reloaded_at;	/* the settings */
	int			workers;		/* that there are, or are ordered */
	int			waiting;		/* places that need a process and have none */
	bool		capture_waits;	/* a capture is one of them */
	int64		longest;		/* the first worker in line waits, ms */
	int			length;			/* of the line */
	LinePlace  *line;			/* room for every consumer */
}			self;

static void list_databases(void);
static void request_unchecked(void);
static void tend_databases(void);
static void tend_consumers(void);
static bool start_worker(int index);
static void ask_for_processes(void);
static void hurry_failed(void);
static void complain(void);
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
	self.line = MemoryContextAlloc(TopMemoryContext,
								   mul_size(ppl_shared->nconsumers,
											sizeof(LinePlace)));
	self.reloaded_at = PgReloadTime;
	for (;;)
	{
		self.now = ppl_clock_ms();
		self.timeout = -1;
		self.exhausted = false;
		self.waiting = 0;
		self.capture_waits = false;
		self.longest = 0;
		if (PgReloadTime != self.reloaded_at)
		{
			self.reloaded_at = PgReloadTime;
			hurry_failed();
		}
		request_unchecked();
		tend_databases();
		tend_consumers();
		ask_for_processes();
		complain();
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

			self.waiting++;
			self.capture_waits = true;
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

/*
 * Is there certainly nothing to be done about this consumer?  Read without a
 * lock: whoever changes what makes the answer wakes the launcher afterwards.
 */
static bool
is_quiet(PplConsumer *consumer)
{
	return !OidIsValid(consumer->dboid) ||
		(!consumer->dropped && consumer->ticket == 0 &&
		 consumer->process.pid == 0 && !consumer->process.ordered &&
		 pg_atomic_read_u32(&consumer->process.asked) == 0 &&
		 consumer->state != PPL_WORKER_WAITING &&
		 ppl_consumer_all_done(consumer));
}

/*
 * Does this consumer need a process, and could have one at once?  Then it is in
 * line, since the moment when that was seen first.  Caller holds shared->lock
 * exclusively.
 */
static bool
stand_in_line(PplConsumer *consumer)
{
	bool		needs = consumer_needs_process(consumer);

	/* capture asks again from here on, or has just done so */
	if (!needs && pg_atomic_exchange_u32(&consumer->process.asked, 0) != 0)
		needs = consumer_needs_process(consumer);
	if (!needs || consumer->process.pid != 0)
	{
		consumer->ticket = 0;
		if (!needs && consumer->process.pid == 0 &&
			consumer->state == PPL_WORKER_WAITING)
			ppl_consumer_set_state(consumer, PPL_WORKER_IDLE);
		return false;
	}
	if (!start_is_due(&consumer->process))
		return false;
	if (consumer->ticket == 0)
	{
		consumer->ticket = ++ppl_shared->tickets;
		consumer->queued_at = self.now;
	}
	return true;
}

static int
compare_places(const void *left, const void *right)
{
	const LinePlace *a = left;
	const LinePlace *b = right;

	return a->ticket < b->ticket ? -1 : a->ticket > b->ticket;
}

/*
 * Who needs a process and has none, the one that has waited longest first; also
 * count the workers that there are.
 */
static void
form_line(void)
{
	self.length = 0;
	self.workers = 0;
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (is_quiet(consumer))
			continue;
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (consumer->dropped && consumer->process.pid == 0 &&
			!consumer->process.ordered)
			consumer->dboid = InvalidOid;
		if (consumer->process.pid != 0 || consumer->process.ordered)
			self.workers++;
		if (OidIsValid(consumer->dboid) && stand_in_line(consumer))
		{
			self.line[self.length].index = i;
			self.line[self.length++].ticket = consumer->ticket;
		}
		LWLockRelease(ppl_shared->lock);
	}
	qsort(self.line, self.length, sizeof(LinePlace), compare_places);
}

/*
 * Give processes to those that wait for one, as long as there are any.
 */
static void
tend_consumers(void)
{
	int			served = 0;

	form_line();
	while (served < self.length && start_worker(self.line[served].index))
		served++;
	for (int i = served; i < self.length; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[self.line[i].index];

		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (i == served)
			self.longest = self.now - consumer->queued_at;
		/* why it needs a process is more than that it has none */
		if (consumer->ticket != 0 &&
			(consumer->state == PPL_WORKER_IDLE ||
			 consumer->state == PPL_WORKER_STARTING ||
			 consumer->state == PPL_WORKER_RUNNING))
			ppl_consumer_set_state(consumer, PPL_WORKER_WAITING);
		LWLockRelease(ppl_shared->lock);
	}
	self.waiting += self.length - served;
}

/*
 * Start the worker of one that is in line.  False if no process is free for it;
 * then none is for those behind it.
 */
static bool
start_worker(int index)
{
	PplConsumer *consumer = &ppl_shared->consumers[index];
	Oid			dboid = InvalidOid;
	PplPlace	place;

	if (self.exhausted ||
		(ppl_guc_max_workers > 0 && self.workers >= ppl_guc_max_workers))
		return false;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (consumer_needs_process(consumer) && claim(&consumer->process))
	{
		dboid = consumer->dboid;
		place = consumer->place;
	}
	LWLockRelease(ppl_shared->lock);
	if (!OidIsValid(dboid))
		return true;
	if (!order_process(&consumer->process, "worker", "pipeline_worker_main",
					   index, dboid, place))
		return false;
	self.workers++;
	return true;
}

/*
 * Have as many workers leave as others need their processes: those that could be
 * spared are woken, the others look at the end of their turns.  Those that are
 * leaving already count, and those that have left but have not ended yet, or whose
 * places somebody else has taken, for a while.
 */
static void
ask_for_processes(void)
{
	int			wanted;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (self.now - ppl_shared->gone_at > PPL_NO_WORKER_RETRY_MS)
		ppl_shared->gone = 0;
	wanted = Max(self.waiting - ppl_shared->leaving - ppl_shared->gone, 0);
	pg_atomic_write_u32(&ppl_shared->waiting, wanted);

	/* if it was not for them that processes ended, ask again */
	if (self.waiting > 0 && ppl_shared->gone > 0)
		self.timeout = self.timeout < 0 ? PPL_NO_WORKER_RETRY_MS + 1 :
			Min(self.timeout, PPL_NO_WORKER_RETRY_MS + 1);
	LWLockRelease(ppl_shared->lock);

	pg_memory_barrier();
	for (int i = 0; i < ppl_shared->nused && wanted > 0; i++)
	{
		PplProcess *process = &ppl_shared->consumers[i].process;

		if (pg_atomic_read_u32(&process->procno) == PPL_NO_PROC ||
			pg_atomic_read_u32(&process->spare) == 0)
			continue;
		ppl_wake(&process->procno);
		wanted--;
	}
}

/*
 * The settings were read anew: with other ones, what failed may go on.
 */
static void
hurry_failed(void)
{
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (consumer->turn.valid && consumer->turn.stuck &&
			(consumer->process.pid == 0 || consumer->process.leaving))
			consumer->process.not_before = 0;
		LWLockRelease(ppl_shared->lock);
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
 * then it is tried again soon.
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
		{
			LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
			ppl_shared->gone = Max(ppl_shared->gone - 1, 0);
			LWLockRelease(ppl_shared->lock);
			return true;
		}
		self.exhausted = true;
	}
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	process->ordered = false;
	LWLockRelease(ppl_shared->lock);
	self.timeout = self.timeout < 0 ? PPL_NO_WORKER_RETRY_MS :
		Min(self.timeout, PPL_NO_WORKER_RETRY_MS);
	return false;
}

/*
 * Taking turns is nothing to speak of, but that somebody waits for long is, once
 * a minute.
 */
static void
complain(void)
{
	if (self.waiting == 0 ||
		(self.longest < PPL_PATIENCE_MS && !self.capture_waits) ||
		(self.complained != 0 &&
		 self.now - self.complained < PPL_LOG_INTERVAL_MS))
		return;
	self.complained = self.now;
	if (self.exhausted)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no free worker process for a pipeline %s",
						self.capture_waits ? "capture" : "worker"),
				 errdetail("%d wait for one, and the first worker in line since %d s.",
						   self.waiting, (int) (self.longest / 1000)),
				 errhint("Raise max_worker_processes (now %d) and restart the server.",
						 max_worker_processes)));
	else
		ereport(LOG,
				(errmsg("pipelines wait for one of %d worker processes: %d of them, the first in line since %d s",
						ppl_guc_max_workers, self.waiting,
						(int) (self.longest / 1000)),
				 errhint("ALTER SYSTEM SET pipeline.max_workers = %d;",
						 ppl_guc_max_workers * 2)));
}
