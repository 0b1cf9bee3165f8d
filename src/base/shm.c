/*
 * shm.c
 *		Shared memory of the extension: size, creation, look-ups, wake-ups.
 *
 * Made by the postmaster while it starts (and again after a crash, empty: all
 * that must survive is in tables and in the slot).  See shm.h for the locks.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/failpoint.h"
#include "base/guc.h"
#include "base/shm.h"

#define PPL_TRANCHE_NAME "pipeline"

PplShared  *ppl_shared = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void shm_request(void);
static void shm_startup(void);
static void process_init(PplProcess *process);
static void database_reset(PplDatabase *db);
static void consumer_reset(PplConsumer *consumer);

/*
 * Chain the hooks that reserve and create the shared memory.
 */
void
ppl_shm_install(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shm_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shm_startup;
}

static Size
shm_size(void)
{
	Size		size = MAXALIGN(sizeof(PplShared));

	size = add_size(size, MAXALIGN(mul_size(ppl_guc_max_databases,
											sizeof(PplDatabase))));
	size = add_size(size, MAXALIGN(mul_size(ppl_guc_max_segments,
											sizeof(PplConsumer))));
	return size;
}

static void
shm_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(shm_size());
	RequestAddinShmemSpace(ppl_failpoint_shmem_size());
	RequestNamedLWLockTranche(PPL_TRANCHE_NAME, 1);
}

static void
shm_startup(void)
{
	bool		found;
	char	   *base;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	base = ShmemInitStruct("pipeline", shm_size(), &found);
	ppl_shared = (PplShared *) base;
	if (!found)
	{
		memset(base, 0, MAXALIGN(sizeof(PplShared)) +
			   MAXALIGN(mul_size(ppl_guc_max_databases, sizeof(PplDatabase))));
		ppl_shared->lock = &GetNamedLWLockTranche(PPL_TRANCHE_NAME)->lock;
		ppl_shared->epoch = (uint64) GetCurrentTimestamp();
		process_init(&ppl_shared->launcher);
		process_init(&ppl_shared->mover);
		pg_atomic_init_u32(&ppl_shared->waiting, 0);
		pg_atomic_init_u64(&ppl_shared->births, 1);
		pg_atomic_init_u64(&ppl_shared->next_segment_lsn, 0);
		ppl_shared->ndatabases = ppl_guc_max_databases;
		ppl_shared->nconsumers = ppl_guc_max_segments;

		base += MAXALIGN(sizeof(PplShared));
		ppl_shared->databases = (PplDatabase *) base;
		for (int i = 0; i < ppl_shared->ndatabases; i++)
		{
			database_reset(&ppl_shared->databases[i]);
			ConditionVariableInit(&ppl_shared->databases[i].changed);
		}

		base += MAXALIGN(mul_size(ppl_shared->ndatabases, sizeof(PplDatabase)));
		/* not touched before it is used, so that many cost no memory */
		ppl_shared->consumers = (PplConsumer *) base;
	}
	ppl_failpoint_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

static void
process_init(PplProcess *process)
{
	uint64		generation = process->generation;

	memset(process, 0, sizeof(*process));
	process->generation = generation;
	pg_atomic_init_u32(&process->procno, PPL_NO_PROC);
	pg_atomic_init_u32(&process->spare, 0);
	pg_atomic_init_u32(&process->asked, 0);
}

/* All but the condition variable, on which somebody may still be waiting. */
static void
database_reset(PplDatabase *db)
{
	db->dboid = InvalidOid;
	db->since = 0;
	ppl_database_set_state(db, PPL_DB_CHECK);
	process_init(&db->capture);
	memset(&db->error, 0, sizeof(db->error));
	db->logged_at = 0;
	db->slot_lsn = InvalidXLogRecPtr;
	db->next_segno = Max(db->next_segno, 1);
	db->recheck = false;
	db->secret = 0;
	pg_atomic_init_u64(&db->spool_start, 0);
	pg_atomic_init_u64(&db->spool_end, 0);
	pg_atomic_init_u64(&db->decoded_lsn, 0);
	pg_atomic_init_u64(&db->confirmed_lsn, 0);
	pg_atomic_init_u64(&db->wanted_lsn, 0);
	pg_atomic_init_u32(&db->mover_wanted, 0);
	pg_atomic_init_u32(&db->retired, 0);
	pg_atomic_init_u32(&db->has_consumers, 0);
	pg_atomic_init_u32(&db->capture_asleep, 0);
	pg_atomic_init_u32(&db->has_stuck, 0);
	pg_atomic_init_u64(&db->transactions, 0);
}

static void
consumer_reset(PplConsumer *consumer)
{
	uint64		generation = consumer->process.generation;

	memset(consumer, 0, sizeof(*consumer));
	consumer->process.generation = generation;
	process_init(&consumer->process);
	pg_atomic_init_u64(&consumer->commit_end, 0);
	pg_atomic_init_u64(&consumer->processed_lsn, 0);
	pg_atomic_init_u64(&consumer->read_pos, 0);
	pg_atomic_init_u64(&consumer->moved_lsn, 0);
	pg_atomic_init_u64(&consumer->moves, 0);
	pg_atomic_init_u64(&consumer->moves_done, 0);
	pg_atomic_init_u32(&consumer->move_wanted, 0);
	pg_atomic_init_u64(&consumer->events_pos, 0);
	pg_atomic_init_u64(&consumer->pending_pos, 0);
	pg_atomic_init_u32(&consumer->letters_xid, InvalidTransactionId);
	pg_atomic_init_u32(&consumer->stops, 0);
	pg_atomic_init_u32(&consumer->repairs, 0);
	pg_atomic_init_u64(&consumer->confirm_lsn, 0);
	pg_atomic_init_u64(&consumer->batches, 0);
	pg_atomic_init_u64(&consumer->retries, 0);
	pg_atomic_init_u64(&consumer->last_commit_time, 0);
	pg_atomic_init_u64(&consumer->rate_window, 0);
	pg_atomic_init_u64(&consumer->rate_events, 0);
	pg_atomic_init_u64(&consumer->rate_before, 0);
	for (int i = 0; i < PPL_LATENCY_BUCKETS; i++)
		pg_atomic_init_u64(&consumer->latency[i], 0);
}

/*
 * Set the latch of the process whose number is in *procno, if there is one.
 * Needs no lock.
 */
void
ppl_wake(pg_atomic_uint32 *procno)
{
	uint32		number = pg_atomic_read_u32(procno);

	if (number != PPL_NO_PROC)
		SetLatch(&ProcGlobal->allProcs[number].procLatch);
}

/*
 * Have the launcher look at all processes once more.
 */
void
ppl_wake_launcher(void)
{
	ppl_wake(&ppl_shared->launcher.procno);
}

/*
 * Raise *target to value; never lowers it.  Says whether it was raised.
 */
bool
ppl_atomic_max(pg_atomic_uint64 *target, uint64 value)
{
	uint64		old = pg_atomic_read_u64(target);

	while (old < value)
	{
		if (pg_atomic_compare_exchange_u64(target, &old, value))
			return true;
	}
	return false;
}

/*
 * The entry of a database, or NULL.  Needs no lock: the caller must be
 * connected to the database, hold shared->lock, or be able to bear that the
 * entry is given up at any moment.
 */
PplDatabase *
ppl_database_find(Oid dboid)
{
	for (int i = 0; i < ppl_shared->ndatabases; i++)
	{
		if (ppl_shared->databases[i].dboid == dboid)
			return &ppl_shared->databases[i];
	}
	return NULL;
}

/*
 * Have somebody look whether a database has the extension, and wake the
 * launcher.  False if all entries are in use.  Takes shared->lock.
 */
bool
ppl_database_request(Oid dboid)
{
	PplDatabase *db;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	db = ppl_database_find(dboid);
	if (db == NULL && (db = ppl_database_find(InvalidOid)) != NULL)
	{
		database_reset(db);
		db->dboid = dboid;
	}
	if (db != NULL)
	{
		db->recheck = true;
		if (db->state == PPL_DB_READY)
			ppl_database_set_state(db, PPL_DB_CHECK);
		db->capture.not_before = 0;
	}
	LWLockRelease(ppl_shared->lock);

	if (db != NULL)
		ppl_wake(&db->capture.procno);
	ppl_wake_launcher();
	return db != NULL;
}

/*
 * The entry of one worker's share of a pipeline, or NULL.  Caller holds
 * shared->lock, or can bear that the entry is given up at any moment.
 */
PplConsumer *
ppl_consumer_find(Oid dboid, PplPlace place)
{
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid == dboid &&
			ppl_place_equal(consumer->place, place) &&
			!consumer->dropped)
			return consumer;
	}
	return NULL;
}

/*
 * Take a free entry, zeroed but for its identity; NULL if all are in use.
 * Caller holds shared->lock exclusively and found no entry before.
 */
PplConsumer *
ppl_consumer_create(Oid dboid, PplPlace place)
{
	PplConsumer *consumer;
	int			i = 0;

	while (i < ppl_shared->nused && OidIsValid(ppl_shared->consumers[i].dboid))
		i++;
	if (i == ppl_shared->nconsumers)
		return NULL;
	consumer = &ppl_shared->consumers[i];
	consumer_reset(consumer);
	consumer->place = place;
	consumer->dboid = dboid;
	ppl_shared->nused = Max(ppl_shared->nused, i + 1);
	pg_write_barrier();
	pg_atomic_fetch_add_u64(&ppl_shared->births, 1);
	return consumer;
}

/*
 * Give up the entries that were reserved by transactions which were rolled
 * back.  They are looked up without the lock, and taken only if they are still
 * what they were.
 */
static void
free_reservations(void)
{
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];
		TransactionId xid = consumer->reserved_by;

		if (!TransactionIdIsValid(xid) || TransactionIdIsInProgress(xid) ||
			TransactionIdDidCommit(xid))
			continue;
		LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
		if (consumer->reserved_by == xid && consumer->retired)
			consumer->reserved_by = InvalidTransactionId;	/* capture drops it */
		else if (consumer->reserved_by == xid)
			consumer->dboid = InvalidOid;
		LWLockRelease(ppl_shared->lock);
	}
}

/*
 * Take an entry for a worker of a pipeline that transaction xid of this database starts,
 * so that capture finds it when it reads of the start; with the transaction
 * the reservation is void.  False if all entries are in use.  Takes
 * shared->lock.
 */
bool
ppl_consumer_reserve(PplPlace place, TransactionId xid)
{
	PplConsumer *consumer;

	free_reservations();
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	consumer = ppl_consumer_find(MyDatabaseId, place);
	if (consumer == NULL)
	{
		consumer = ppl_consumer_create(MyDatabaseId, place);
		if (consumer != NULL)
			consumer->reserved_by = xid;
	}
	else if (consumer->retired && !TransactionIdIsValid(consumer->reserved_by))
		consumer->reserved_by = xid;
	LWLockRelease(ppl_shared->lock);
	return consumer != NULL;
}

/*
 * The workers of a segment need not wait for each other any more: have them look
 * for themselves, or be started.  Takes shared->lock.
 */
void
ppl_consumer_open_barrier(Oid dboid, PplPlace place)
{
	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid != dboid || !consumer->barrier ||
			consumer->place.pipeline_id != place.pipeline_id ||
			consumer->place.segment != place.segment)
			continue;
		consumer->barrier = false;
		ppl_wake(&consumer->process.procno);
	}
	LWLockRelease(ppl_shared->lock);
	ppl_wake_launcher();
}

/*
 * Can workers of this database be started?  They need capture only for what is
 * new: without one they can still do what is in the spool.  Caller holds
 * shared->lock.
 */
bool
ppl_database_has_spool(PplDatabase *db)
{
	switch (db->state)
	{
		case PPL_DB_READY:
			return true;
		case PPL_DB_CHECK:
		case PPL_DB_FAILED:
			return !db->recheck && pg_atomic_read_u64(&db->spool_start) != 0;
		case PPL_DB_SLOT:
		case PPL_DB_GONE:
		case PPL_DB_CLOSING:
			return false;
	}
	pg_unreachable();
}

/*
 * Has this consumer every record of the spool that was ever meant for it behind
 * it, done or in the backlog?  That is what the slot and the spool's files ask.
 * The order of the two reads makes the answer safe: a record that is appended
 * meanwhile only turns a yes into the yes of a moment ago.
 */
bool
ppl_consumer_spool_done(PplConsumer *consumer)
{
	uint64		pending = pg_atomic_read_u64(&consumer->pending_pos);

	pg_read_barrier();
	return pg_atomic_read_u64(&consumer->read_pos) >= pending;
}

/*
 * Has it done them all?  That is what everybody else asks.  Who moves read_pos
 * over events that went to the backlog has counted the move before, so reading
 * in the other order misses none.
 */
bool
ppl_consumer_all_done(PplConsumer *consumer)
{
	uint64		done;

	if (!ppl_consumer_spool_done(consumer))
		return false;
	pg_read_barrier();
	done = pg_atomic_read_u64(&consumer->moves_done);
	pg_read_barrier();
	return done == pg_atomic_read_u64(&consumer->moves);
}

/*
 * Say how a consumer or a database stands, and since when.  Caller holds
 * shared->lock exclusively.
 */
void
ppl_consumer_set_state(PplConsumer *consumer, PplWorkerState state)
{
	if (consumer->state != state || consumer->since == 0)
		consumer->since = GetCurrentTimestamp();
	consumer->state = state;
	if (state == PPL_WORKER_FAILED || state == PPL_WORKER_PAUSED)
	{
		PplDatabase *db = ppl_database_find(consumer->dboid);

		if (db != NULL)
			pg_atomic_write_u32(&db->has_stuck, 1);
	}
}

void
ppl_database_set_state(PplDatabase *db, PplDatabaseState state)
{
	if (db->state != state || db->since == 0)
		db->since = GetCurrentTimestamp();
	db->state = state;
}

/*
 * Note an error for others to see.  Caller holds shared->lock exclusively.
 */
void
ppl_error_set(PplError *target, int sqlstate, const char *message,
			  const char *detail, const char *hint)
{
	target->sqlstate = sqlstate;
	target->at = GetCurrentTimestamp();
	strlcpy(target->message, message ? message : "", PPL_ERROR_LEN);
	strlcpy(target->detail, detail ? detail : "", PPL_ERROR_LEN);
	strlcpy(target->hint, hint ? hint : "", PPL_ERROR_LEN);
}
