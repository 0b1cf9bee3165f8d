/*
 * process.c
 *		Attaching to shared memory, waiting, leaving: for all our kinds of
 *		processes.
 *
 * A process attaches before it connects to a database, under the generation
 * that the launcher gave it; a second process for the same place finds the
 * place taken and leaves.  It detaches in before_shmem_exit, whatever ends it.
 * (One that is killed takes the whole server through a restart, which empties
 * shared memory.)  How it ended decides how long the launcher waits before it
 * starts the next one.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/process.h"

#define PPL_BACKOFF_FIRST_MS	100
#define PPL_BACKOFF_MAX_MS		(60 * 1000)
#define PPL_EARLY_MS			200
#define PPL_STEADY_MS			2000

/* State of this process. */
static struct
{
	PplProcess *process;		/* where it is attached */
	bool		clean;			/* it leaves because it wants to */
	int			pause_ms;		/* a successor need not come before */
	int64		attached_at;
	bool		worked;			/* it did something useful */
}			self;

static void detach(int code, Datum arg);

/*
 * Fill in what the registrations of all our processes have in common.
 */
void
ppl_process_describe(BackgroundWorker *worker, const char *kind,
					 const char *function)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(worker->bgw_library_name, "pipeline", BGW_MAXLEN);
	strlcpy(worker->bgw_function_name, function, BGW_MAXLEN);
	snprintf(worker->bgw_name, BGW_MAXLEN, "pipeline %s", kind);
	snprintf(worker->bgw_type, BGW_MAXLEN, "pipeline %s", kind);
}

/*
 * For a process that runs as the bootstrap superuser: override what ALTER
 * DATABASE or ALTER SYSTEM may have set and it cannot live with.  Its commits
 * are durable, as the WAL is given up then; they need no standby: a new server
 * makes a new slot.
 */
void
ppl_process_set_up_session(void)
{
	static const char *const settings[][2] = {
		{"role", "none"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"session_replication_role", "origin"},
		{"synchronous_commit", "local"},
		{"lock_timeout", "0"},
		{"statement_timeout", "0"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_SESSION);
}

/*
 * Install the signal handlers and unblock signals: SIGTERM ends the process
 * at the next CHECK_FOR_INTERRUPTS, SIGINT cancels the transaction of a
 * process that is cancellable, SIGHUP has the configuration read between two
 * pieces of work.
 */
void
ppl_process_signals(bool cancellable)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, cancellable ? StatementCancelHandler : SIG_IGN);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
}

/*
 * Take a place.  False if the order is out of date or the place is taken;
 * the caller then ends with code 0.  Takes shared->lock.
 */
bool
ppl_process_attach(PplProcess *process, uint64 generation)
{
	bool		attached = false;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (process->pid == 0 && process->generation == generation)
	{
		process->pid = MyProcPid;
		process->ordered = false;
		process->started_at = GetCurrentTimestamp();
		process->leaving = false;
		pg_atomic_write_u32(&process->spare, 0);
		pg_atomic_write_u32(&process->procno, MyProc->pgprocno);
		pg_memory_barrier();
		pg_atomic_write_u32(&process->asked, 0);
		attached = true;
	}
	LWLockRelease(ppl_shared->lock);

	if (attached)
	{
		self.process = process;
		self.attached_at = ppl_clock_ms();
		before_shmem_exit(detach, (Datum) 0);
	}
	return attached;
}

static void
detach(int code, Datum arg)
{
	PplProcess *process = self.process;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (process->pid != MyProcPid)
	{
		/* the entry was given up meanwhile and may be another's now */
		LWLockRelease(ppl_shared->lock);
		return;
	}
	pg_atomic_write_u32(&process->procno, PPL_NO_PROC);
	process->pid = 0;
	if (process->leaving)
	{
		/* not_before was set when that was decided, and maybe since */
		process->leaving = false;
		process->failures = 0;
		ppl_shared->leaving--;
		ppl_shared->gone++;
		ppl_shared->gone_at = ppl_clock_ms();
	}
	else if (self.clean)
	{
		process->failures = 0;
		process->not_before = self.pause_ms == 0 ? 0 :
			ppl_clock_ms() + self.pause_ms;
	}
	else
	{
		int			shift = Min(ppl_process_failures(), 16);
		int64		delay = Min((int64) PPL_BACKOFF_FIRST_MS << shift,
								PPL_BACKOFF_MAX_MS);

		process->failures++;
		process->not_before = ppl_clock_ms() + delay;
	}
	LWLockRelease(ppl_shared->lock);

	if (process != &ppl_shared->launcher)
		ppl_wake_launcher();
}

/*
 * Leave for good: the launcher need not wait before it starts a successor.
 */
void
ppl_process_exit(void)
{
	self.clean = true;
	proc_exit(0);
}

/*
 * The same of a process that knows from the catalogs what capture has not
 * replayed yet: a successor would only find the same.
 */
void
ppl_process_exit_early(void)
{
	self.pause_ms = PPL_EARLY_MS;
	ppl_process_exit();
}

/*
 * This process does useful work.
 */
void
ppl_process_steady(void)
{
	self.worked = true;
}

/*
 * How many processes of this place failed in a row before this one.  They are
 * forgotten when it did useful work, unless it is so young that it may be one
 * of a row that all end like this.  Caller holds shared->lock exclusively.
 */
int
ppl_process_failures(void)
{
	if (self.worked && ppl_clock_ms() - self.attached_at >= PPL_STEADY_MS)
		self.process->failures = 0;
	return self.process->failures;
}

/*
 * CHECK_FOR_INTERRUPTS for places that are outside transactions: there a
 * cancel comes too late for what it was meant for, and must not end the
 * process.
 */
void
ppl_process_check(void)
{
	if (!IsTransactionState())
		QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Handle what arrived: interrupts, and a reload of the configuration.  True
 * if the configuration was read anew.
 */
bool
ppl_process_interrupts(void)
{
	ppl_process_check();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		return true;
	}
	return false;
}

/*
 * Sleep until the latch is set or the time is over (-1 = no limit), then
 * handle interrupts.  The caller tests its conditions afterwards.
 */
void
ppl_process_wait(long timeout_ms)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	(void) WaitLatch(MyLatch, events, timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	(void) ppl_process_interrupts();
}

/*
 * The same for a process that can be spared: it sleeps only while nobody waits
 * for one, and is woken when somebody does.  The launcher publishes how many
 * wait, then looks who is spare; here it is the other way round.
 */
void
ppl_process_wait_spare(long timeout_ms)
{
	pg_atomic_write_u32(&self.process->spare, 1);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&ppl_shared->waiting) == 0)
		ppl_process_wait(timeout_ms);
	else
		(void) ppl_process_interrupts();
	pg_atomic_write_u32(&self.process->spare, 0);
}
