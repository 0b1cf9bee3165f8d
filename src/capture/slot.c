/*
 * slot.c
 *		The one replication slot of a database: create, acquire, confirm, drop.
 *
 * Only capture makes, reads and drops the slot, in its own process, since only
 * there our output plugin is allowed.  Confirming is cheap and persists
 * nothing; the slot's file is written about once a second and when capture
 * ends.  What is lost of it by a crash is decoded again and skipped by the
 * workers' checkpoints.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "capture/slot.h"

#define PPL_PLUGIN_NAME "pipeline"
#define PPL_SLOT_SAVE_MS 1000

/* State of capture's slot. */
static struct
{
	bool		unsaved;		/* confirmed since the last save */
	int64		saved_at;		/* by ppl_clock_ms() */
}			self;

static const char *
slot_name(void)
{
	return psprintf("pipeline_%u", MyDatabaseId);
}

/*
 * Servers from 15.19 on load only listed output plugins.  The list is widened
 * for this process alone, so that nobody with REPLICATION gets at the plugin.
 */
void
ppl_slot_allow_plugin(void)
{
	if (GetConfigOption("output_plugin_libraries", true, false) != NULL)
		SetConfigOption("output_plugin_libraries", PPL_PLUGIN_NAME,
						PGC_SUSET, PGC_S_OVERRIDE);
}

/* Is there a slot of our name in the server? */
static bool
slot_exists(void)
{
	return SearchNamedReplicationSlot(slot_name(), true) != NULL;
}

/*
 * Why the slot cannot be gone on with, as a sentence, or NULL if it can.  It
 * must be there, ours, with all its WAL (the server invalidates one that holds
 * more than max_slot_wal_keep_size), and not beyond what this server knows to
 * be confirmed (0 = nothing yet): then somebody moved it by hand.
 */
const char *
ppl_slot_defect(XLogRecPtr confirmed)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(slot_name(), true);
	ReplicationSlotPersistentData data;

	if (slot == NULL)
		return "The replication slot does not exist any more.";
	SpinLockAcquire(&slot->mutex);
	data = slot->data;
	SpinLockRelease(&slot->mutex);

	if (!XLogRecPtrIsInvalid(data.invalidated_at))
		return "The server invalidated the replication slot, because it held back more WAL than max_slot_wal_keep_size allows.";
	if (data.database != MyDatabaseId ||
		strcmp(NameStr(data.plugin), PPL_PLUGIN_NAME) != 0)
		return "The replication slot was replaced by another one.";
	if (!XLogRecPtrIsInvalid(confirmed) && data.confirmed_flush > confirmed)
		return "Somebody moved the replication slot.";
	return NULL;
}

/* As core does when it makes one, with the command that mends it. */
static void
check_free_slot(void)
{
	int			used = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
		used += ReplicationSlotCtl->replication_slots[i].in_use;
	LWLockRelease(ReplicationSlotControlLock);
	if (used >= max_replication_slots)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no free replication slot for the pipelines of this database"),
				 errdetail("max_replication_slots is %d, and all are in use; every database with pipelines needs one.",
						   max_replication_slots),
				 errhint("ALTER SYSTEM SET max_replication_slots = %d; then restart the server.",
						 max_replication_slots + 5)));
}

/*
 * Make the slot and wait until it is consistent, that is, until all
 * transactions that run now have ended; cancellable.  The slot is acquired
 * afterwards.  Returns where it begins.  Errors: 53400 if max_replication_slots
 * are in use, 55000 with wal_level below logical.
 */
XLogRecPtr
ppl_slot_create(void)
{
	LogicalDecodingContext *ctx;
	XLogRecPtr	begin;

	check_free_slot();
	CheckLogicalDecodingRequirements();
	ReplicationSlotCreate(slot_name(), true, RS_EPHEMERAL, false);
	ctx = CreateInitDecodingContext(PPL_PLUGIN_NAME, NIL, false,
									InvalidXLogRecPtr,
									XL_ROUTINE(.page_read = read_local_xlog_page,
											   .segment_open = wal_segment_open,
											   .segment_close = wal_segment_close),
									NULL, NULL, NULL);
	DecodingContextFindStartpoint(ctx);
	begin = MyReplicationSlot->data.confirmed_flush;
	FreeDecodingContext(ctx);
	ReplicationSlotPersist();
	return begin;
}

/* Acquire the slot.  Error 55006 if another process holds it. */
void
ppl_slot_acquire(void)
{
	ReplicationSlotAcquire(slot_name(), true);
	self.saved_at = ppl_clock_ms();
}

/* Drop the slot, acquired or not, if it exists. */
void
ppl_slot_drop(void)
{
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
	if (slot_exists())
		ReplicationSlotDrop(slot_name(), true);
}

/* Up to where the acquired slot is confirmed. */
XLogRecPtr
ppl_slot_confirmed(void)
{
	return MyReplicationSlot->data.confirmed_flush;
}

/*
 * Let the acquired slot go up to a position: all that ends before it is
 * durable in every consumer.
 */
void
ppl_slot_confirm(XLogRecPtr upto)
{
	if (upto <= ppl_slot_confirmed())
		return;
	LogicalConfirmReceivedLocation(upto);
	self.unsaved = true;
}

/*
 * Write the slot's file if something was confirmed since, at most once a
 * second unless forced.  True if nothing is left to be saved.
 */
bool
ppl_slot_save(bool force)
{
	int64		now;

	if (!self.unsaved)
		return true;
	now = ppl_clock_ms();
	if (!force && now - self.saved_at < PPL_SLOT_SAVE_MS)
		return false;
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	self.unsaved = false;
	self.saved_at = now;
	return true;
}
