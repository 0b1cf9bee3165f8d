/*
 * main.c
 *		Capture: one process a database, from the WAL to the spool.
 *
 * Life: find out whether the extension exists (leave, and take an orphaned
 * slot along, if not); make or acquire the slot; read the definitions; then
 * decode what is flushed, publish it, confirm the slot up to the oldest
 * durable checkpoint, and sleep until a commit sets the latch.  It has a
 * timeout only while it waits for something it is not woken for: a checkpoint
 * to become durable, the slot's file to be due.
 *
 * Works outside transactions but for the first look at the catalogs.  Whatever
 * goes wrong ends the process; its successor starts a new spool at the slot's
 * confirmed position, and the workers skip what they have done.
 *
 * Memory: "pipeline filter", "pipeline spool writer", "pipeline change" and the
 * decoding context, all below TopMemoryContext.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "storage/standby.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/process.h"
#include "base/shm.h"
#include "capture/filter.h"
#include "capture/lost.h"
#include "capture/main.h"
#include "capture/plugin.h"
#include "capture/reader.h"
#include "capture/slot.h"
#include "base/wake.h"
#include "catalog/identity.h"
#include "spool/segment.h"
#include "spool/writer.h"

#define PPL_CONFIRM_MS 1000
#define PPL_NO_ROOM_MS 1000
#define PPL_LOG_INTERVAL_MS 60000

/* State of capture. */
static struct
{
	PplDatabase *db;
	PplSpoolWriter *writer;
	int64		confirmed_at;	/* last look at the consumers, by
								 * ppl_clock_ms() */
	uint32		records;		/* WAL records since then */
	bool		paused;			/* there is more to decode */
	bool		opened;			/* the spool and the decoding context */
	int64		complained;		/* of a full disk, by ppl_clock_ms() */
	bool		schema_changed; /* a schema came or went: was it ours? */
}			self;

static void fail(const ErrorData *error);
static void leave(int code, Datum arg);
static void note_end(void);
static void run(void);
static void prepare_slot(void);
static void vanish(void);
static void open_spool(void);
static void wait_for_room(const char *path);
static void set_state(PplDatabaseState state);
static void check_extension(void);
static void namespace_callback(Datum arg, int cacheid, uint32 hashvalue);
static bool pause_decoding(void);
static bool confirm(XLogRecPtr decoded, PplSpoolPos spool_end);

void
pipeline_capture_main(Datum arg)
{
	PplOrder	order;
	MemoryContext context;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	self.db = &ppl_shared->databases[DatumGetInt32(arg)];
	ppl_process_signals(false);
	if (self.db->dboid != order.dboid ||
		!ppl_process_attach(&self.db->capture, order.generation))
		proc_exit(0);
	before_shmem_exit(leave, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(order.dboid, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	ppl_process_set_up_session();

	context = CurrentMemoryContext;
	PG_TRY();
	{
		run();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		fail(CopyErrorData());
		proc_exit(0);
	}
	PG_END_TRY();
}

/*
 * Say what was wrong before this process ends.  The same again and again goes
 * into the log once a minute.
 */
static void
fail(const ErrorData *error)
{
	int64		now = ppl_clock_ms();
	bool		log;

	LWLockReleaseAll();
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	log = error->sqlerrcode != self.db->error.sqlstate ||
		self.db->logged_at == 0 ||
		now - self.db->logged_at >= PPL_LOG_INTERVAL_MS;
	if (log)
		self.db->logged_at = now;
	if (self.db->state != PPL_DB_CLOSING)
		ppl_database_set_state(self.db, PPL_DB_FAILED);
	ppl_error_set(&self.db->error, error->sqlerrcode, error->message,
				  error->detail, error->hint);
	LWLockRelease(ppl_shared->lock);
	if (log)
		EmitErrorReport();
	FlushErrorState();
}

/*
 * Give the slot back before the place is given up: whoever waits for the
 * latter (DROP DATABASE) needs the former.
 */
static void
leave(int code, Datum arg)
{
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
	if (code != 0)
		note_end();
	pg_atomic_write_u32(&self.db->capture_asleep, 0);
	ConditionVariableBroadcast(&self.db->changed);
}

/*
 * This process was ended from outside, or refused its connection.  Once is
 * nothing to speak of; a row of it is.
 */
static void
note_end(void)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (self.db->capture.pid == MyProcPid && self.db->state != PPL_DB_CLOSING)
	{
		if (ppl_process_failures() == 0)
			ppl_database_set_state(self.db, PPL_DB_CHECK);
		else
		{
			ppl_database_set_state(self.db, PPL_DB_FAILED);
			ppl_error_set(&self.db->error, ERRCODE_ADMIN_SHUTDOWN,
						  "the capture process of this database ends again and again",
						  NULL,
						  "The server's log has the reason. It is started again at growing intervals of up to a minute.");
		}
	}
	LWLockRelease(ppl_shared->lock);
}

static void
run(void)
{
	CacheRegisterSyscacheCallback(NAMESPACEOID, namespace_callback, (Datum) 0);
	check_extension();
	prepare_slot();
	open_spool();
	set_state(PPL_DB_READY);
	ppl_wake_launcher();

	for (;;)
	{
		XLogRecPtr	wanted;
		XLogRecPtr	decoded;
		PplSpoolPos spool_end;
		bool		settled;

		(void) ppl_process_interrupts();
		AcceptInvalidationMessages();
		if (self.db->recheck || self.schema_changed)
			check_extension();

		/* Nobody else would flush an asynchronous commit soon. */
		wanted = pg_atomic_read_u64(&self.db->wanted_lsn);
		if (wanted > GetFlushRecPtr(NULL) && wanted <= GetXLogInsertRecPtr())
			XLogFlush(wanted);

		pgstat_report_activity(STATE_RUNNING, "decoding");
		self.paused = false;
		decoded = ppl_reader_advance(pause_decoding);
		spool_end = ppl_plugin_publish();
		ppl_atomic_max(&self.db->decoded_lsn, decoded);
		ConditionVariableBroadcast(&self.db->changed);
		settled = confirm(decoded, spool_end);

		pg_atomic_write_u32(&self.db->capture_asleep, 1);
		pg_memory_barrier();
		wanted = pg_atomic_read_u64(&self.db->wanted_lsn);
		if (!self.paused &&
			(wanted <= decoded || wanted > GetXLogInsertRecPtr()))
		{
			ppl_process_steady();
			pgstat_report_activity(STATE_IDLE, NULL);
			ppl_process_wait(settled ? -1 : PPL_CONFIRM_MS);
		}
		pg_atomic_write_u32(&self.db->capture_asleep, 0);
	}
}

/* Nothing is ready while it is in doubt whose slot this is. */
static void
set_state(PplDatabaseState state)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (self.db->state != PPL_DB_CLOSING &&
		(state != PPL_DB_READY || !self.db->recheck))
		ppl_database_set_state(self.db, state);
	LWLockRelease(ppl_shared->lock);
	ConditionVariableBroadcast(&self.db->changed);
}

/*
 * DROP EXTENSION tells us at its commit, unless that is a COMMIT PREPARED; its
 * invalidation message comes in any case.
 */
static void
namespace_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	self.schema_changed = true;
}

/*
 * Go away if the extension is not there, or start anew if it is another one
 * than the slot was made for.
 */
static void
check_extension(void)
{
	Oid			extension;
	bool		ours = true;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	self.db->recheck = false;
	LWLockRelease(ppl_shared->lock);
	self.schema_changed = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension = get_extension_oid("pipeline", true);
	if (OidIsValid(extension) && MyReplicationSlot != NULL)
	{
		PplIdentity identity;

		ours = ppl_identity_load(&identity) &&
			identity.slot_lsn == self.db->slot_lsn;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();

	if (!OidIsValid(extension))
		vanish();
	if (!ours)
	{
		set_state(PPL_DB_CHECK);
		ppl_wake_launcher();
		ppl_process_exit();
	}
	if (MyReplicationSlot != NULL)
		set_state(PPL_DB_READY);
}

/* The extension is not in this database: leave no slot, no file, no process. */
static void
vanish(void)
{
	ppl_filter_forget_all();
	ppl_reader_close();
	PPL_FAILPOINT("capture-before-vanish");
	ppl_slot_drop();
	ppl_spool_segment_unlink_all(MyDatabaseId);

	set_state(PPL_DB_GONE);
	ppl_wake(&ppl_shared->mover.procno);
	ppl_process_exit();
}

/*
 * Say durably of which slot the positions are from now on.  While a slot is made
 * they are of none (0/0): a slot that is found then, after a crash, is not the
 * one that the positions are of, nor may it be taken for it.
 */
static void
store_identity(PplIdentity *identity, XLogRecPtr slot_lsn)
{
	identity->slot_lsn = slot_lsn;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	ppl_identity_store(identity);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Acquire the slot, or make it if this database has none that its definitions
 * know and that still has its WAL; then what was born in the old one is lost.
 * Long transactions delay the making: the state says so meanwhile.
 */
static void
prepare_slot(void)
{
	PplIdentity identity;
	XLogRecPtr	slot_lsn;
	bool		known;
	const char *defect;

	ppl_slot_allow_plugin();
	PPL_FAILPOINT("capture-before-slot");
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	known = ppl_identity_load(&identity) && ppl_identity_is_ours(&identity);
	PopActiveSnapshot();
	CommitTransactionCommand();

	if (!known)
		defect = "The definitions are of another database cluster or database.";
	else if (XLogRecPtrIsInvalid(identity.slot_lsn))
		defect = "Capture ended while it made the replication slot.";
	else if (identity.timeline != GetWALInsertionTimeLine())
		defect = "The server was promoted or restored since the replication slot was made.";
	else
		defect = ppl_slot_defect(self.db->slot_lsn == identity.slot_lsn ?
								 pg_atomic_read_u64(&self.db->confirmed_lsn) : 0);
	if (defect == NULL)
		ppl_slot_acquire();
	else
	{
		ResourceOwner owner = ResourceOwnerCreate(NULL, "pipeline slot");

		set_state(PPL_DB_SLOT);
		ppl_lost_tell(InvalidXLogRecPtr, defect);
		store_identity(&identity, InvalidXLogRecPtr);
		ppl_slot_drop();
		CurrentResourceOwner = owner;
		slot_lsn = ppl_slot_create();
		CurrentResourceOwner = NULL;
		ResourceOwnerDelete(owner);
		PPL_FAILPOINT("capture-slot-made");
		store_identity(&identity, slot_lsn);
	}

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	self.db->slot_lsn = identity.slot_lsn;
	self.db->secret = identity.secret;
	pg_atomic_write_u64(&self.db->confirmed_lsn, ppl_slot_confirmed());
	LWLockRelease(ppl_shared->lock);
	ppl_lost_tell(identity.slot_lsn, defect);
}

/*
 * Begin a new spool at the slot's confirmed position and open the decoding
 * context.
 */
static void
open_spool(void)
{
	PplSpoolPos start;
	XLogRecPtr	confirmed = ppl_slot_confirmed();

	/* Who reads these together looks at spool_start before and after. */
	pg_atomic_write_u64(&self.db->spool_start, 0);
	pg_memory_barrier();
	self.writer = ppl_spool_writer_create(MyDatabaseId, ppl_shared->epoch,
										  self.db->slot_lsn,
										  self.db->next_segno, wait_for_room);
	start = ppl_spool_writer_flush(self.writer);
	ppl_filter_init();
	ppl_plugin_open(self.db, self.writer);

	self.db->next_segno = PPL_SPOOL_SEGNO(start) + 1;
	pg_atomic_write_u64(&self.db->decoded_lsn, confirmed);
	pg_atomic_write_u64(&self.db->spool_end, start);
	pg_write_barrier();
	pg_atomic_write_u64(&self.db->spool_start, start);
	pg_atomic_write_u64(&self.db->confirmed_lsn, confirmed);
	ppl_filter_load(confirmed, start);

	/* Whatever was committed by now ends before this record does. */
	ppl_atomic_max(&self.db->wanted_lsn, LogStandbySnapshot());
	ppl_reader_open();
	self.opened = true;
}

/*
 * The spool's file system is full: take nothing in, remove what everybody has
 * read, wait, and have the write tried again.  What is committed meanwhile
 * stays in the WAL.  With a NULL path: it worked.
 */
static void
wait_for_room(const char *path)
{
	static const char hint[] = "Free disk space there; capture goes on by itself. What is committed meanwhile stays in the WAL.";
	int64		now = ppl_clock_ms();
	char	   *message;

	if (path == NULL)
	{
		set_state(self.opened ? PPL_DB_READY : PPL_DB_CHECK);
		ereport(LOG, (errmsg("there is room for the spool of pipelines again")));
		return;
	}

	/* DROP EXTENSION frees all of it, but not while this is decoded. */
	if (self.db->recheck)
		ppl_process_exit();
	message = psprintf("no room for spool file \"%s\"", path);
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	if (self.db->state != PPL_DB_CLOSING)
		ppl_database_set_state(self.db, PPL_DB_FAILED);
	ppl_error_set(&self.db->error, ERRCODE_DISK_FULL, message, NULL, hint);
	LWLockRelease(ppl_shared->lock);
	ConditionVariableBroadcast(&self.db->changed);
	ppl_wake_launcher();
	if (self.complained == 0 || now - self.complained >= PPL_LOG_INTERVAL_MS)
	{
		self.complained = now;
		ereport(WARNING,
				(errcode(ERRCODE_DISK_FULL),
				 errmsg_internal("%s", message),
				 errhint("%s", hint)));
	}
	pfree(message);

	if (self.opened)
		ppl_spool_writer_remove_before(self.writer,
									   ppl_filter_first_segment(pg_atomic_read_u64(&self.db->spool_end)));
	pgstat_report_activity(STATE_IDLE, NULL);
	ppl_process_wait(PPL_NO_ROOM_MS);
}

/* Between two WAL records: is it time to tell the others? */
static bool
pause_decoding(void)
{
	if (ppl_plugin_publication_due())
		self.paused = true;
	else if (++self.records >= 1024)
	{
		self.records = 0;
		self.paused = ppl_clock_ms() - self.confirmed_at >= PPL_CONFIRM_MS;
	}
	return self.paused;
}

/*
 * Confirm the slot and remove spool files, about once a second.  True if
 * nothing is left to be done later.
 */
static bool
confirm(XLogRecPtr decoded, PplSpoolPos spool_end)
{
	bool		expected;
	XLogRecPtr	upto;
	int64		now = ppl_clock_ms();

	if (now - self.confirmed_at < PPL_CONFIRM_MS)
		return false;
	self.confirmed_at = now;

	PPL_FAILPOINT("capture-before-confirm");
	upto = ppl_filter_confirmable(decoded, &expected);
	/* first the note: a slot beyond it was moved by somebody else */
	ppl_atomic_max(&self.db->confirmed_lsn, upto);
	ppl_slot_confirm(upto);
	ppl_spool_writer_remove_before(self.writer,
								   ppl_filter_first_segment(spool_end));
	expected |= ppl_filter_request_moves(decoded);
	return ppl_slot_save(false) && !expected;
}
