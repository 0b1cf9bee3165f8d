/*
 * filter.c
 *		Which relations are wanted, and by which consumers.
 *
 * Capture alone runs this.  The filter is read from the definitions when
 * capture starts and changed afterwards by control messages only, at their
 * place in the commit order.  It may want more than a definition did at that
 * position (a restart re-reads WAL with today's definitions): workers skip by
 * position, so more is harmless and less would be a loss.
 *
 * The consumers' entries in shared memory are made and dropped here, too.
 * Memory: everything lives in the context "pipeline filter".
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backlog/lost.h"
#include "backlog/store.h"
#include "base/clock.h"
#include "base/shm.h"
#include "capture/filter.h"
#include "capture/held.h"
#include "capture/partitions.h"
#include "capture/route.h"
#include "catalog/definition.h"

/* State of the filter. */
static struct
{
	MemoryContext context;
	HTAB	   *sources;		/* PplSource by relid */
	List	   *consumers;		/* FilterConsumer * */
	FilterConsumer **by_entry;	/* the same by number of the entry in shared
								 * memory */
	PplSource  *touched;		/* those that are, chained */
	List	   *controlled;		/* consumers with a control_pos */
	PplDatabase *db;
	bool		wake_launcher;	/* at the next publication */
	bool		unfinished;		/* some source has records of this transaction
								 * that were published */
	SnapshotData loaded;		/* what the definitions were read under */
}			self;

static void keep_snapshot(Snapshot snapshot);
static void give_birth(PplConsumer *shared, TransactionId xid, PplSpoolPos begin);
static FilterConsumer *want(const PplShare *share, Oid owner, bool backlog);
static FilterConsumer *load_share(const PplPipeline *pipeline,
								  const PplShare *share, bool backlog,
								  XLogRecPtr confirmed, PplSpoolPos start);
static void take_operations(FilterConsumer *consumer, uint16 operations);
static void take_definition(FilterConsumer *consumer, const PplControl *control);
static bool is_new(TransactionId xid);
static void join_partitions(const PplControl *control, XLogRecPtr commit_lsn,
							PplSpoolPos begin);
static void drop_retired(void);
static void control_consumer(FilterConsumer *consumer, const PplControl *control,
							 TransactionId xid, PplSpoolPos begin,
							 PplSpoolPos end);
static void unwant(FilterConsumer *consumer);
static void count_operations(void);
static void forget_turn(PplConsumer *shared);
static void note_control(FilterConsumer *consumer, PplSpoolPos end);
static bool wakes(const PplConsumer *consumer, uint8 action);
static void come_sooner(PplConsumer *shared);
static void tell(FilterConsumer *consumer, PplSpoolPos pending);

/*
 * Prepare an empty filter for this process's database.
 */
void
ppl_filter_init(void)
{
	HASHCTL		ctl;

	self.db = ppl_database_find(MyDatabaseId);
	self.context = AllocSetContextCreate(TopMemoryContext, "pipeline filter",
										 ALLOCSET_DEFAULT_SIZES);
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(PplSource);
	ctl.hcxt = self.context;
	self.by_entry = MemoryContextAllocZero(self.context,
										   mul_size(ppl_shared->nconsumers,
													sizeof(FilterConsumer *)));
	self.sources = hash_create("pipeline sources", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ppl_route_init(self.context);
}

/*
 * The slot that a pipeline was born with is gone, and what it has not processed
 * with it.
 */
static void
set_lost(PplConsumer *shared, const char *name)
{
	char	   *hint = psprintf("SELECT pipeline.start(%s, skip_to_now => true); goes on from now and leaves out what was committed in between.",
								quote_literal_cstr(name));

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	shared->lost = true;
	ppl_consumer_set_state(shared, PPL_WORKER_LOST);
	ppl_error_set(&shared->error, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				  "the replication slot that held the position of the pipeline is gone",
				  NULL, hint);
	LWLockRelease(ppl_shared->lock);
}

/*
 * Read all definitions that were born and give each its entry in shared
 * memory, with the word that there is a backlog; entries of definitions that
 * are gone are dropped.  Nothing may be confirmed for them beyond confirmed until
 * they prove otherwise; the spool begins anew at start.  Runs a transaction of
 * its own.
 */
void
ppl_filter_load(XLogRecPtr confirmed, PplSpoolPos start)
{
	ListCell   *lc;
	List	   *backlogs;
	List	   *positions;
	MemoryContext oldcontext = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	keep_snapshot(GetActiveSnapshot());
	backlogs = ppl_backlog_places();
	positions = ppl_definition_positions();
	foreach(lc, ppl_definition_load_born())
	{
		PplPipeline *pipeline = lfirst(lc);
		ListCell   *lc2;

		foreach(lc2, ppl_definition_remaining(ppl_definition_shares(pipeline),
											  positions))
		{
			PplShare   *share = lfirst(lc2);
			FilterConsumer *consumer = load_share(pipeline, share,
												  ppl_backlog_has_place(backlogs, share->place),
												  confirmed, start);

			consumer->version = ppl_definition_reached(positions, share->place);
			if (share->upstream == 0)
				take_operations(consumer,
								ppl_definition_operations_since(pipeline, consumer->version));
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(oldcontext);

	count_operations();
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *shared = &ppl_shared->consumers[i];

		/* a reserved one waits for the record of its birth */
		if (shared->dboid == MyDatabaseId && self.by_entry[i] == NULL &&
			!TransactionIdIsValid(shared->reserved_by))
			shared->dropped = true;
	}
	LWLockRelease(ppl_shared->lock);
}

/* One consumer of a definition that was born. */
static FilterConsumer *
load_share(const PplPipeline *pipeline, const PplShare *share, bool backlog,
		   XLogRecPtr confirmed, PplSpoolPos start)
{
	FilterConsumer *consumer = want(share, pipeline->owner, backlog);
	PplConsumer *shared = consumer->shared;
	bool		slot_gone = pipeline->slot_lsn != self.db->slot_lsn;
	bool		lost = list_member_int(pipeline->lost, share->place.segment);

	pg_atomic_write_u64(&shared->confirm_lsn, confirmed);
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	shared->running = pipeline->running;
	shared->lost = slot_gone || lost;
	shared->retired = false;
	shared->barrier = false;
	/* with the above: in the new spool what is lost looks as if it were done */
	ppl_atomic_max(&shared->read_pos, start);
	LWLockRelease(ppl_shared->lock);
	if (slot_gone)
		set_lost(shared, pipeline->name);
	else if (lost)
		ppl_backlog_tell_lost(share->place, pipeline->name, false);
	return consumer;
}

/*
 * These operations are wanted from here on.  In shared memory they stay besides what was
 * wanted before: the mover may not have come here yet, and takes rather too much.
 */
static void
take_operations(FilterConsumer *consumer, uint16 operations)
{
	consumer->operations = operations;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	consumer->shared->operations |= operations;
	LWLockRelease(ppl_shared->lock);
}

/*
 * The owner or the operations may be others from here on.  A worker is connected as the
 * owner, so it ends.
 */
static void
take_definition(FilterConsumer *consumer, const PplControl *control)
{
	PplConsumer *shared = consumer->shared;

	if (consumer->source == control->source &&
		consumer->operations != control->operations)
	{
		take_operations(consumer, control->operations);
		count_operations();
	}
	if (shared->owner == control->owner)
		return;
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	shared->owner = control->owner;
	pg_atomic_fetch_add_u32(&shared->stops, 1);
	forget_turn(shared);
	LWLockRelease(ppl_shared->lock);
	ppl_wake(&shared->process.procno);
}

/* Remember which transactions a snapshot shows, beyond its life. */
static void
keep_snapshot(Snapshot snapshot)
{
	self.loaded = *snapshot;
	self.loaded.xip = MemoryContextAlloc(self.context,
										 Max(snapshot->xcnt, 1) * sizeof(TransactionId));
	memcpy(self.loaded.xip, snapshot->xip, snapshot->xcnt * sizeof(TransactionId));
	self.loaded.subxcnt = 0;
	self.loaded.suboverflowed = false;
}

/*
 * The entry of a relation if somebody wants it, else NULL.
 */
PplSource *
ppl_filter_lookup(Oid relid)
{
	PplSource  *source = hash_search(self.sources, &relid, HASH_FIND, NULL);

	return (source && source->operations != 0) ? source : NULL;
}

/*
 * Something was appended to the spool for a source, up to this position.
 */
void
ppl_filter_touch(PplSource *source, PplSpoolPos end)
{
	source->last_pos = end;
	if (source->touched)
		return;
	source->touched = true;
	source->next_touched = self.touched;
	self.touched = source;
}

/*
 * Find or make the consumer of a share, here and in shared memory.  That it has
 * a backlog is said in one with that it is there.  The caller counts the
 * operations anew when it has all it wants.
 */
static FilterConsumer *
want(const PplShare *share, Oid owner, bool backlog)
{
	FilterConsumer *consumer;
	PplConsumer *shared;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	shared = ppl_consumer_find(MyDatabaseId, share->place);
	if (shared == NULL)
		shared = ppl_consumer_create(MyDatabaseId, share->place);
	if (shared != NULL)
	{
		shared->reserved_by = InvalidTransactionId;
		shared->retired = false;
		shared->owner = owner;
		shared->source = share->source;
		shared->operations = share->operations;
		if (backlog)
			pg_atomic_fetch_add_u64(&shared->moves, 1);
	}
	LWLockRelease(ppl_shared->lock);
	if (shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many started pipelines"),
				 errdetail("pipeline.max_segments is %d.", ppl_shared->nconsumers),
				 errhint("ALTER SYSTEM SET pipeline.max_segments = %d; then restart the server.",
						 ppl_shared->nconsumers * 2)));

	consumer = self.by_entry[shared - ppl_shared->consumers];
	if (consumer == NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(self.context);

		consumer = palloc0(sizeof(*consumer));
		self.consumers = lappend(self.consumers, consumer);
		self.by_entry[shared - ppl_shared->consumers] = consumer;
		MemoryContextSwitchTo(oldcontext);
	}
	consumer->shared = shared;
	consumer->source = share->source;
	consumer->operations = share->operations;
	return consumer;
}

static void
unwant(FilterConsumer *consumer)
{
	self.consumers = list_delete_ptr(self.consumers, consumer);
	self.controlled = list_delete_ptr(self.controlled, consumer);
	self.by_entry[consumer->shared - ppl_shared->consumers] = NULL;
	pfree(consumer);
	count_operations();
}

/* Work out anew what is wanted of each relation, and by whom. */
static void
count_operations(void)
{
	HASH_SEQ_STATUS scan;
	PplSource  *source;
	ListCell   *lc;

	MemoryContext oldcontext = MemoryContextSwitchTo(self.context);

	hash_seq_init(&scan, self.sources);
	while ((source = hash_seq_search(&scan)) != NULL)
	{
		source->operations = 0;
		list_free(source->consumers);
		source->consumers = NIL;
	}
	foreach(lc, self.consumers)
	{
		FilterConsumer *consumer = lfirst(lc);
		bool		found;

		source = hash_search(self.sources, &consumer->source, HASH_ENTER, &found);
		if (!found)
		{
			memset(source, 0, sizeof(*source));
			source->relid = consumer->source;
		}
		source->operations |= consumer->operations;
		source->consumers = lappend(source->consumers, consumer);
	}
	MemoryContextSwitchTo(oldcontext);
	ppl_route_sources_changed();
	pg_atomic_write_u32(&self.db->has_consumers, self.consumers != NIL);
}

/*
 * Act on a control message.  xid and commit_lsn are of its transaction;
 * begin and end are the positions of its record in the spool.
 */
void
ppl_filter_control(const PplControl *control, TransactionId xid,
				   XLogRecPtr commit_lsn, PplSpoolPos begin, PplSpoolPos end)
{
	List	   *concerned = NIL;
	ListCell   *lc;

	if (control->action == PPL_CONTROL_CHANGE && control->workers != 0)
		join_partitions(control, commit_lsn, begin);
	if (control->action == PPL_CONTROL_BIRTH && is_new(xid))
		ppl_partitions_retire(self.consumers, control, self.db);
	foreach(lc, self.consumers)
	{
		FilterConsumer *consumer = lfirst(lc);

		if (ppl_control_concerns(control, consumer->shared->place))
			concerned = lappend(concerned, consumer);
	}
	/* A place that is gone already was not loaded: leave it so. */
	if (concerned == NIL && control->action == PPL_CONTROL_BIRTH &&
		(is_new(xid) || ppl_partitions_unborn(self.consumers, control)))
	{
		PplShare	share = {
			.place = {control->pipeline_id, control->segment, control->partition},
			.source = control->source,
			.operations = control->operations,
		};
		FilterConsumer *consumer = want(&share, control->owner, false);

		count_operations();
		pg_atomic_write_u64(&consumer->shared->confirm_lsn, commit_lsn);
		ppl_atomic_max(&consumer->shared->read_pos, begin);
		consumer->version = is_new(xid) ? control->version : 0;
		concerned = list_make1(consumer);
	}
	foreach(lc, concerned)
		control_consumer(lfirst(lc), control, xid, begin, end);
	list_free(concerned);
}

/* Does a transaction count that the definitions, as they were read, do not show? */
static bool
is_new(TransactionId xid)
{
	return XidInMVCCSnapshot(xid, &self.loaded);
}

/* Partitions that a segment has from here on begin here. */
static void
join_partitions(const PplControl *control, XLogRecPtr commit_lsn,
				PplSpoolPos begin)
{
	PplJoining	joining;
	ListCell   *lc;

	ppl_partitions_join(self.consumers, control, &joining);
	foreach(lc, joining.shares)
	{
		FilterConsumer *consumer = want(lfirst(lc), control->owner, false);
		PplConsumer *shared = consumer->shared;

		consumer->version = control->version;
		pg_atomic_write_u64(&shared->confirm_lsn, commit_lsn);
		ppl_atomic_max(&shared->read_pos, begin);
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		shared->running = joining.running;
		shared->lost = joining.lost;
		ppl_consumer_set_state(shared, joining.lost ? PPL_WORKER_LOST : PPL_WORKER_IDLE);
		LWLockRelease(ppl_shared->lock);
	}
	if (joining.shares != NIL)
		count_operations();
}

/*
 * Forget the consumers whose workers have left for good.  Who waited for one of them
 * may look again.
 */
static void
drop_retired(void)
{
	List	   *gone = ppl_partitions_gone(self.consumers, self.db);
	ListCell   *lc;

	foreach(lc, gone)
	{
		FilterConsumer *consumer = lfirst(lc);

		ppl_consumer_open_barrier(MyDatabaseId, consumer->shared->place);
		unwant(consumer);
	}
	list_free(gone);
}

/* Act on it for one consumer that it concerns. */
static void
control_consumer(FilterConsumer *consumer, const PplControl *control,
				 TransactionId xid, PplSpoolPos begin, PplSpoolPos end)
{
	PplConsumer *shared = consumer->shared;

	note_control(consumer, end);
	if (control->action == PPL_CONTROL_BIRTH || control->action == PPL_CONTROL_CHANGE)
		take_definition(consumer, control);

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	shared->process.not_before = 0;
	shared->barrier = false;
	switch ((PplControlAction) control->action)
	{
		case PPL_CONTROL_BIRTH:
			give_birth(shared, xid, begin);
			break;
		case PPL_CONTROL_START:
			shared->running = true;
			break;
		case PPL_CONTROL_STOP:
			shared->running = false;
			pg_atomic_fetch_add_u32(&shared->stops, 1);
			forget_turn(shared);
			break;
		case PPL_CONTROL_DROP:
			shared->dropped = true;
			shared->running = false;
			break;
		case PPL_CONTROL_REDRIVE:
		case PPL_CONTROL_DISCARD:
		case PPL_CONTROL_ACCEPT:
			pg_atomic_write_u32(&shared->letters_xid, xid);
			break;
		case PPL_CONTROL_CHANGE:
		case PPL_CONTROL_BATCH:
		case PPL_CONTROL_SCHEMA:
			break;
	}
	LWLockRelease(ppl_shared->lock);

	if (wakes(shared, control->action))
		ppl_wake(&shared->process.procno);
	self.wake_launcher = true;
	if (control->action == PPL_CONTROL_DROP)
		unwant(consumer);
}

/*
 * A pipeline begins, or begins anew: what is before this is not wanted any
 * more.  But a birth that was in the definitions when they were read is an old
 * one, decoded once more, and cannot save what was lost after it.
 * Caller holds shared->lock exclusively.
 */
static void
give_birth(PplConsumer *shared, TransactionId xid, PplSpoolPos begin)
{
	if (shared->lost && !is_new(xid))
		return;
	if (shared->state == PPL_WORKER_LOST)
		ppl_consumer_set_state(shared, PPL_WORKER_IDLE);
	shared->lost = false;
	shared->retired = false;
	shared->running = true;
	forget_turn(shared);
	ppl_atomic_max(&shared->read_pos, begin);
}

/*
 * A worker that comes begins anew; one that is there is told otherwise.  Caller
 * holds shared->lock exclusively.
 */
static void
forget_turn(PplConsumer *shared)
{
	if (shared->process.pid != 0 && !shared->process.leaving)
		return;
	shared->turn.valid = false;
	if (shared->state != PPL_WORKER_LOST)
		ppl_consumer_set_state(shared, PPL_WORKER_IDLE);
}

/* This consumer has a control record up to there. */
static void
note_control(FilterConsumer *consumer, PplSpoolPos end)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(self.context);

	if (consumer->control_pos == 0)
		self.controlled = lappend(self.controlled, consumer);
	consumer->control_pos = end;
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Must a worker be told of this before it comes to the record?  One that cannot
 * go on never comes to it, and may be waiting for just that.
 */
static bool
wakes(const PplConsumer *consumer, uint8 action)
{
	if (action == PPL_CONTROL_REDRIVE || action == PPL_CONTROL_DISCARD ||
		action == PPL_CONTROL_ACCEPT)
		return consumer->state == PPL_WORKER_PAUSED ||
			consumer->state == PPL_WORKER_FAILED ||
			consumer->state == PPL_WORKER_RETRYING;
	return action == PPL_CONTROL_STOP || action == PPL_CONTROL_DROP;
}

/*
 * A transaction changed the catalogs: that may be what a consumer that cannot
 * go on waits for.  One that gave its process away has left its waiting to us.
 */
void
ppl_filter_catalog_changed(void)
{
	ListCell   *lc;
	bool		any = false;

	if (pg_atomic_exchange_u32(&self.db->has_stuck, 0) == 0)
		return;
	foreach(lc, self.consumers)
	{
		PplConsumer *shared = ((FilterConsumer *) lfirst(lc))->shared;

		if (shared->state != PPL_WORKER_FAILED &&
			shared->state != PPL_WORKER_PAUSED)
			continue;
		any = true;
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		pg_atomic_fetch_add_u32(&shared->repairs, 1);
		if (shared->process.pid == 0 || shared->process.leaving)
		{
			come_sooner(shared);
			self.wake_launcher = true;
		}
		LWLockRelease(ppl_shared->lock);
		ppl_wake(&shared->process.procno);
	}
	if (any)
		pg_atomic_write_u32(&self.db->has_stuck, 1);
}

/*
 * Shorten the time until a worker is started, as ppl_wait does where there is
 * one.  Caller holds shared->lock exclusively.
 */
static void
come_sooner(PplConsumer *shared)
{
	int64		due;

	if (shared->process.not_before == 0)
		return;
	due = ppl_clock_ms() + ((int64) PPL_REPAIR_MS <<
							Min(shared->turn.shortcuts, PPL_REPAIR_SHIFT));
	if (due >= shared->process.not_before)
		return;
	shared->process.not_before = due;
	shared->turn.shortcuts++;
}

/*
 * A transaction ends at this position.  Consumers that were told of a part of
 * it wait for the rest: tell them once more at the next publication, also if
 * nothing came but the end.  False if there are none.
 */
bool
ppl_filter_finish(PplSpoolPos end)
{
	HASH_SEQ_STATUS scan;
	PplSource  *source;

	if (!self.unfinished)
		return false;
	self.unfinished = false;
	hash_seq_init(&scan, self.sources);
	while ((source = hash_seq_search(&scan)) != NULL)
	{
		if (!source->unfinished)
			continue;
		source->unfinished = false;
		ppl_filter_touch(source, end);
	}
	return true;
}

/*
 * The spool's new end is published, maybe within a transaction: tell every
 * consumer that got records, of its source or of its definition, and have the
 * launcher start those that run and have no process.
 */
void
ppl_filter_publish(bool within)
{
	ListCell   *lc;

	drop_retired();
	for (PplSource *source = self.touched; source != NULL;
		 source = source->next_touched)
	{
		source->touched = false;
		if (within)
			source->unfinished = self.unfinished = true;
		foreach(lc, source->consumers)
		{
			ppl_atomic_max(&((FilterConsumer *) lfirst(lc))->shared->events_pos,
						   source->last_pos);
			tell(lfirst(lc), source->last_pos);
		}
	}
	self.touched = NULL;
	foreach(lc, self.controlled)
	{
		FilterConsumer *consumer = lfirst(lc);

		tell(consumer, consumer->control_pos);
		consumer->control_pos = 0;
	}
	list_free(self.controlled);
	self.controlled = NIL;

	if (self.wake_launcher)
	{
		self.wake_launcher = false;
		ppl_wake_launcher();
	}
}

/*
 * There are records up to this position for a consumer.  The launcher is asked
 * for a process once; if there is none for long, it remembers.
 */
static void
tell(FilterConsumer *consumer, PplSpoolPos pending)
{
	PplConsumer *shared = consumer->shared;

	ppl_atomic_max(&shared->pending_pos, pending);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&shared->process.procno) != PPL_NO_PROC)
		ppl_wake(&shared->process.procno);
	else if (shared->running &&
			 pg_atomic_exchange_u32(&shared->process.asked, 1) == 0)
		self.wake_launcher = true;
}

/*
 * Up to where the slot may be confirmed, see ppl_held_confirmable.
 */
XLogRecPtr
ppl_filter_confirmable(XLogRecPtr decoded, bool *progress_expected)
{
	drop_retired();
	return ppl_held_confirmable(self.consumers, decoded, progress_expected);
}

/*
 * Ask the mover for the events of consumers that hold back too much WAL.  False
 * if there are none.
 */
bool
ppl_filter_request_moves(XLogRecPtr decoded)
{
	return ppl_held_request_moves(self.consumers, self.db, decoded);
}

/*
 * The first segment that somebody still needs.  Consumers that have nothing
 * to do are moved to the spool's end.
 */
uint32
ppl_filter_first_segment(PplSpoolPos spool_end)
{
	uint32		first = PPL_SPOOL_SEGNO(spool_end);
	ListCell   *lc;

	foreach(lc, self.consumers)
	{
		PplConsumer *shared = ((FilterConsumer *) lfirst(lc))->shared;
		uint64		read_pos = pg_atomic_read_u64(&shared->read_pos);

		if (shared->lost || shared->dropped || shared->retired)
			continue;
		if (ppl_consumer_spool_done(shared))
			pg_atomic_compare_exchange_u64(&shared->read_pos, &read_pos,
										   Max(read_pos, spool_end));
		else
			first = Min(first, PPL_SPOOL_SEGNO(read_pos));
	}
	return first;
}

/*
 * The extension is gone: drop every consumer of this database.
 */
void
ppl_filter_forget_all(void)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *shared = &ppl_shared->consumers[i];

		if (shared->dboid != MyDatabaseId)
			continue;
		shared->dropped = true;
		shared->running = false;
		ppl_wake(&shared->process.procno);
	}
	LWLockRelease(ppl_shared->lock);
	ppl_wake_launcher();
}
