/*
 * buffer.c
 *		Rows of streams that this backend has not written yet.
 *
 * Runs in any backend that inserts into a stream.  Rows are gathered into one
 * message, in the order of their insertion, until it is large, another stream comes,
 * or a statement that inserts ends.  So rows wait only while a statement of
 * their own (sub)transaction runs.
 *
 * A message belongs to the subtransaction in which it is written, which must be
 * that of its rows.  A subtransaction that begins within a statement, as a function
 * with an exception block does, has a buffer of its own, and what waits in the
 * outer one cannot be written before it.  To keep the order all the same, a
 * statement writes row by row from the moment that one in a subtransaction within it
 * inserts into a stream, too, or if triggers run after it.
 *
 * Memory: "pipeline rows" lives as long as the process, with one message; the buffers of
 * subtransactions within statements are allocated there as well, and freed
 * when these end.  Takes no lock.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/shm.h"
#include "catalog/identity.h"
#include "stream/buffer.h"
#include "stream/message.h"

/* A message is written when it has so many rows or bytes. */
#define MAX_ROWS	100
#define MAX_BYTES	(32 * 1024)

/* Depth of transactions that is told apart. */
#define MAX_LEVELS	32

/* Rows of one subtransaction. */
typedef struct Pending
{
	SubTransactionId subid;
	Oid			relid;			/* stream of the rows, if there are any */
	PplRowsMessage message;
	struct Pending *outer;		/* of a subtransaction around this one */
} Pending;

/* State of this backend. */
static struct
{
	MemoryContext context;		/* NULL = nothing was inserted yet */
	Pending    *top;			/* at least one, once there is a context */
	uint64		inserters;		/* counts them */
	uint64		within[MAX_LEVELS]; /* the last one that began in a
									 * transaction below this depth */
}			self;

static void init(void);
static uint64 find_secret(void);
static void use_subtransaction(SubTransactionId subid);
static void write_out(void);
static void pop(void);
static void xact_callback(XactEvent event, void *arg);
static void subxact_callback(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg);

/*
 * A statement begins to insert into a stream.  Needs an active snapshot.
 * Errors: 55000 if the database has no slot yet, or the server is not set up.
 */
void
ppl_buffer_begin(PplInserter *inserter, Oid relid)
{
	int			level = Min(GetCurrentTransactionNestLevel(), MAX_LEVELS);

	if (self.context == NULL)
		init();
	inserter->relid = relid;
	inserter->secret = find_secret();
	inserter->nest_level = level;
	inserter->began = ++self.inserters;
	for (int i = 0; i < level - 1; i++)
		self.within[i] = inserter->began;
}

static void
init(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pipeline rows",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);

	self.top = palloc0(sizeof(Pending));
	ppl_rows_init(&self.top->message);
	MemoryContextSwitchTo(oldcontext);
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	self.context = context;
}

/*
 * What proves to capture that we wrote a message.  After a start of the server it
 * is read from where capture will find it, too: no writer shall wait for it.
 */
static uint64
find_secret(void)
{
	PplDatabase *db;
	PplIdentity identity;

	if (ppl_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline is not loaded at server start"),
				 errdetail("Rows of a stream are in the WAL alone, and nobody would read them there."),
				 errhint("Add pipeline to shared_preload_libraries and restart the server.")));
	if (!XLogLogicalInfoActive())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wal_level does not allow logical decoding"),
				 errdetail("wal_level is %s, needed is logical.",
						   GetConfigOption("wal_level", false, false)),
				 errhint("ALTER SYSTEM SET wal_level = logical; then restart the server.")));
	db = ppl_database_find(MyDatabaseId);
	if (db != NULL && db->secret != 0)
		return db->secret;
	if (ppl_identity_load(&identity) && ppl_identity_is_ours(&identity))
		return identity.secret;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the pipeline slot of this database is not ready"),
			 errdetail("Rows of a stream are kept for nobody before it was made."),
			 errhint("Try again in a moment; SELECT * FROM pipeline.status shows the state.")));
}

/*
 * The row in slot was inserted.  Allocates in the current context, for a short
 * time.  Error 54000 if it is too large.
 */
void
ppl_buffer_add(PplInserter *inserter, TupleTableSlot *slot)
{
	Pending    *pending;
	TupleDesc	desc = slot->tts_tupleDescriptor;
	HeapTuple	tuple = NULL;

	if (unlikely(self.top->subid != GetCurrentSubTransactionId()))
		use_subtransaction(GetCurrentSubTransactionId());
	pending = self.top;
	if (pending->relid != inserter->relid)
		write_out();
	if (ppl_rows_count(&pending->message) == 0)
	{
		pending->relid = inserter->relid;
		ppl_rows_begin(&pending->message, inserter->relid, 0, inserter->secret);
	}

	if (TTS_IS_HEAPTUPLE(slot))
		tuple = ((HeapTupleTableSlot *) slot)->tuple;
	if (tuple != NULL && HeapTupleHeaderGetNatts(tuple->t_data) == desc->natts)
		ppl_rows_add_tuple(&pending->message, desc, tuple);
	else
	{
		slot_getallattrs(slot);
		ppl_rows_add_values(&pending->message, desc,
							slot->tts_values, slot->tts_isnull);
	}

	if (ppl_rows_count(&pending->message) >= MAX_ROWS ||
		pending->message.data.len >= MAX_BYTES ||
		inserter->row_by_row ||
		self.within[inserter->nest_level - 1] > inserter->began)
		write_out();
}

/*
 * A statement has ended: what it and those within it have inserted in this
 * (sub)transaction is written.  What waits in one around it stays.
 */
void
ppl_buffer_flush(void)
{
	if (self.context == NULL ||
		self.top->subid != GetCurrentSubTransactionId())
		return;
	write_out();
	if (self.top->outer != NULL)
		pop();
}

/* Have a buffer for rows of this subtransaction on top. */
static void
use_subtransaction(SubTransactionId subid)
{
	if (ppl_rows_count(&self.top->message) > 0)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(self.context);
		Pending    *pending = palloc0(sizeof(*pending));

		ppl_rows_init(&pending->message);
		MemoryContextSwitchTo(oldcontext);
		pending->outer = self.top;
		self.top = pending;
	}
	self.top->subid = subid;
}

/* Write the rows on top, which are those of the current subtransaction. */
static void
write_out(void)
{
	Assert(self.top->subid == GetCurrentSubTransactionId());
	if (ppl_rows_count(&self.top->message) > 0)
		ppl_rows_write(&self.top->message);
}

static void
pop(void)
{
	Pending    *pending = self.top;

	self.top = pending->outer;
	ppl_rows_free(&pending->message);
	pfree(pending);
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			ppl_buffer_flush();
			if (ppl_rows_count(&self.top->message) > 0 || self.top->outer != NULL)
				elog(ERROR, "rows of a stream were not written");
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			while (self.top->outer != NULL)
				pop();
			ppl_rows_reset(&self.top->message);
			self.top->subid = InvalidSubTransactionId;
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid,
				 SubTransactionId parent, void *arg)
{
	if (self.top->subid != subid)
		return;
	switch (event)
	{
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			ppl_buffer_flush();
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			ppl_rows_reset(&self.top->message);
			if (self.top->outer != NULL)
				pop();
			break;
		default:
			break;
	}
}
