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

#include "base/failpoint.h"
#include "base/process.h"
#include "base/shm.h"
#include "capture/filter.h"
#include "capture/main.h"
#include "capture/plugin.h"
#include "capture/reader.h"
#include "capture/slot.h"
#include "base/wake.h"
#include "catalog/identity.h"
#include "spool/segment.h"
#include "spool/writer.h"

#define PPL_CONFIRM_MS 1000

/* State of capture. */
static struct
{
	PplDatabase *db;
	PplSpoolWriter *writer;
	TimestampTz confirmed_at;	/* last look at the consumers */
	uint32		records;		/* WAL records since then */
	bool		paused;			/* there is more to decode */
	bool		schema_changed; /* a schema came or went: was it ours? */
}			self;

static void leave(int code, Datum arg);
static void set_up_session(void);
static void run(void);
static void prepare_slot(void);
static void vanish(void);
static void open_spool(void);
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
	BackgroundWorkerInitializeConnectionByOid(order.dboid, InvalidOid, 0);
	set_up_session();

	context = CurrentMemoryContext;
	PG_TRY();
	{
		run();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (self.db->state != PPL_DB_CLOSING)
			ppl_database_set_state(self.db, PPL_DB_FAILED);
		ppl_error_set(&self.db->error, error->sqlerrcode, error->message,
					  error->detail, error->hint);
		LWLockRelease(ppl_shared->lock);
		ConditionVariableBroadcast(&self.db->changed);
		PG_RE_THROW();
	}
	PG_END_TRY();
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
	pg_atomic_write_u32(&self.db->capture_asleep, 0);
	ConditionVariableBroadcast(&self.db->changed);
}

/*
 * Override what ALTER DATABASE or ALTER SYSTEM may have set and capture cannot
 * live with.  Its notes need no standby: a new server makes a new slot.
 */
static void
set_up_session(void)
{
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_read_only", "off",
					PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_SESSION);
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
	ppl_process_exit();
}

/*
 * Acquire the slot, or make it if this database has none that its definitions
 * know and that still has its WAL.  Long transactions delay the making: the state says so meanwhile.
 */
static void
prepare_slot(void)
{
	PplIdentity identity;
	bool		known;

	ppl_slot_allow_plugin();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	known = ppl_identity_load(&identity) && ppl_identity_is_ours(&identity);
	PopActiveSnapshot();
	CommitTransactionCommand();

	if (known && ppl_slot_usable())
		ppl_slot_acquire();
	else
	{
		ResourceOwner owner = ResourceOwnerCreate(NULL, "pipeline slot");

		set_state(PPL_DB_SLOT);
		ppl_slot_drop();
		CurrentResourceOwner = owner;
		identity.slot_lsn = ppl_slot_create();
		CurrentResourceOwner = NULL;
		ResourceOwnerDelete(owner);

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		ppl_identity_store(&identity);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	self.db->slot_lsn = identity.slot_lsn;
	self.db->secret = identity.secret;
	LWLockRelease(ppl_shared->lock);
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

	self.writer = ppl_spool_writer_create(MyDatabaseId, ppl_shared->epoch,
										  self.db->slot_lsn,
										  self.db->next_segno);
	start = ppl_spool_writer_flush(self.writer);
	ppl_filter_init();
	ppl_plugin_open(self.db, self.writer);

	/* Who reads these together looks at spool_start before and after. */
	pg_atomic_write_u64(&self.db->spool_start, 0);
	pg_write_barrier();
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
		self.paused = TimestampDifferenceExceeds(self.confirmed_at,
												 GetCurrentTimestamp(),
												 PPL_CONFIRM_MS);
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
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(self.confirmed_at, now, PPL_CONFIRM_MS))
		return false;
	self.confirmed_at = now;

	PPL_FAILPOINT("capture-before-confirm");
	upto = ppl_filter_confirmable(decoded, &expected);
	ppl_slot_confirm(upto);
	pg_atomic_write_u64(&self.db->confirmed_lsn, ppl_slot_confirmed());
	ppl_spool_writer_remove_before(self.writer,
								   ppl_filter_first_segment(spool_end));
	return ppl_slot_save(false) && !expected;
}
