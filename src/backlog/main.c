/*
 * main.c
 *		The mover: from the spool to the backlog, where the WAL must go.
 *
 * One process a server, registered when the server starts, so that its place is
 * there when all worker processes are in use (adr/0011).  It is connected to no
 * database and sleeps on its latch until some capture finds that a consumer
 * holds back more WAL than pipeline.max_retained_wal allows.  Then it
 * connects to that database, which a process can do once, moves what capture
 * asks for, and ends when another database needs it or nobody does for a
 * while; the postmaster starts the next one.
 *
 * It runs as the bootstrap superuser, and none of its users' code.  Blocks on
 * the disk, and on nobody (move.c).  What goes wrong is logged, once a minute,
 * and tried again when capture asks again.
 *
 * Memory: "pipeline spool reader", and in each transaction "pipeline chunk".
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "backlog/main.h"
#include "backlog/move.h"
#include "base/clock.h"
#include "base/process.h"

#define PPL_LINGER_MS		60000
#define PPL_LOG_INTERVAL_MS 60000

extern PPL_EXPORT void pipeline_mover_main(Datum arg);

/* State of the mover. */
static struct
{
	PplDatabase *db;
	PplSpoolReader *reader;
	int64		complained;		/* last error in the log, by ppl_clock_ms() */
}			self;

static void leave(int code, Datum arg);
static bool choose_database(void);
static bool move_wanted(void);
static bool move_one(PplConsumer *consumer);
static bool wanted_elsewhere(void);

/*
 * Register the mover with the postmaster.
 */
void
ppl_mover_register(void)
{
	BackgroundWorker worker;

	ppl_process_describe(&worker, "mover", "pipeline_mover_main");
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

/* Ends with code 1, or the postmaster would start no other one. */
void
pipeline_mover_main(Datum arg)
{
	int64		busy_at;

	ppl_process_signals(false);
	if (!ppl_process_attach(&ppl_shared->mover, ppl_shared->mover.generation))
		proc_exit(1);
	before_shmem_exit(leave, (Datum) 0);
	while (!choose_database())
		ppl_process_wait(-1);

	BackgroundWorkerInitializeConnectionByOid(ppl_shared->mover_dboid,
											  InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	ppl_process_set_up_session();
#ifdef USE_LZ4
	/* compresses the backlog, and costs little */
	SetConfigOption("default_toast_compression", "lz4",
					PGC_SUSET, PGC_S_SESSION);
#endif
	self.reader = ppl_spool_reader_create(MyDatabaseId, ppl_shared->epoch);
	busy_at = ppl_clock_ms();
	for (;;)
	{
		if (self.db->dboid != MyDatabaseId ||
			self.db->state == PPL_DB_CLOSING || self.db->state == PPL_DB_GONE)
			proc_exit(1);
		pgstat_report_activity(STATE_RUNNING, "moving events to the backlog");
		if (move_wanted())
		{
			busy_at = ppl_clock_ms();
			(void) ppl_process_interrupts();
			continue;
		}
		if (wanted_elsewhere() ||
			ppl_clock_ms() - busy_at >= PPL_LINGER_MS)
			proc_exit(1);
		pgstat_report_activity(STATE_IDLE, NULL);
		pgstat_report_stat(false);
		ppl_process_wait(PPL_LINGER_MS);
	}
}

/* Whoever closes the database waits for this. */
static void
leave(int code, Datum arg)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (ppl_shared->mover.pid == MyProcPid)
		ppl_shared->mover_dboid = InvalidOid;
	LWLockRelease(ppl_shared->lock);
	if (self.db != NULL)
		ConditionVariableBroadcast(&self.db->changed);
}

/*
 * Take on a database that wants a mover.  Who closes it looks under the same
 * lock.
 */
static bool
choose_database(void)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ppl_shared->ndatabases && self.db == NULL; i++)
	{
		PplDatabase *db = &ppl_shared->databases[i];

		if (OidIsValid(db->dboid) && db->state != PPL_DB_CLOSING &&
			pg_atomic_read_u32(&db->mover_wanted) != 0)
		{
			self.db = db;
			ppl_shared->mover_dboid = db->dboid;
		}
	}
	LWLockRelease(ppl_shared->lock);
	return self.db != NULL;
}

/*
 * One step for each consumer that capture names.  False if none brought
 * anything.
 */
static bool
move_wanted(void)
{
	bool		any = false;

	pg_atomic_write_u32(&self.db->mover_wanted, 0);
	pg_memory_barrier();
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid != MyDatabaseId ||
			pg_atomic_read_u32(&consumer->move_wanted) == 0)
			continue;
		if (move_one(consumer))
			any = true;
		else
			pg_atomic_write_u32(&consumer->move_wanted, 0);
	}
	return any;
}

/* One step, after which the process goes on whatever happens. */
static bool
move_one(PplConsumer *consumer)
{
	volatile bool moved = false;

	PG_TRY();
	{
		moved = ppl_backlog_move(self.db, consumer, self.reader);
	}
	PG_CATCH();
	{
		int			code = geterrcode();
		int64		now = ppl_clock_ms();

		HOLD_INTERRUPTS();
		/* capture replaces the spool, and asks again */
		if (code != ERRCODE_UNDEFINED_FILE &&
			(self.complained == 0 ||
			 now - self.complained >= PPL_LOG_INTERVAL_MS))
		{
			self.complained = now;
			EmitErrorReport();
		}
		AbortCurrentTransaction();
		MemoryContextSwitchTo(TopMemoryContext);
		FlushErrorState();
		ppl_spool_reader_close(self.reader);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return moved;
}

static bool
wanted_elsewhere(void)
{
	for (int i = 0; i < ppl_shared->ndatabases; i++)
	{
		PplDatabase *db = &ppl_shared->databases[i];

		if (OidIsValid(db->dboid) && db != self.db &&
			pg_atomic_read_u32(&db->mover_wanted) != 0)
			return true;
	}
	return false;
}
