/*
 * wake.c
 *		How a commit in any backend reaches the capture process.
 *
 * Runs in every backend of the server, after each commit that wrote WAL, when
 * the transaction is visible already.  It publishes the end of the commit and
 * sets capture's latch, but only if capture sleeps, and in a database without
 * consumers only once a WAL segment, so that the slot can move on.  Takes no
 * lock and cannot fail.
 *
 * The order that makes this safe: the backend raises wanted_lsn, then reads
 * capture_asleep; capture sets capture_asleep, then reads wanted_lsn.  Both
 * with a full barrier in between, so at least one sees the other.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"

#include "base/wake.h"

/* State of this backend. */
static struct
{
	XLogRecPtr	published;		/* last commit end we told of */
	PplDatabase *db;			/* entry of our database, checked at each use */
	bool		always;			/* this transaction must wake capture */
}			self;

static void xact_callback(XactEvent event, void *arg);

/*
 * Register the callback, once, in the postmaster; backends inherit it.
 */
void
ppl_wake_install(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/*
 * Have the commit of this transaction wake capture even if the database has
 * no consumer yet.
 */
void
ppl_wake_at_commit(void)
{
	self.always = true;
}

/*
 * Tell capture of one database that there is WAL up to a position, and wake
 * it if it sleeps.
 */
void
ppl_wake_capture(PplDatabase *db, XLogRecPtr upto)
{
	ppl_atomic_max(&db->wanted_lsn, upto);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&db->capture_asleep) != 0 &&
		pg_atomic_exchange_u32(&db->capture_asleep, 0) != 0)
		ppl_wake(&db->capture.procno);
}

/*
 * Where the record ends that the insert pointer stands behind.  When a record
 * ends with its page, the insert pointer is reported behind the header of the
 * next page, where no record ends and which cannot be flushed.
 */
XLogRecPtr
ppl_wake_record_end(XLogRecPtr lsn)
{
	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		return lsn - SizeOfXLogLongPHD;
	if (XLogSegmentOffset(lsn, wal_segment_size) > XLOG_BLCKSZ &&
		lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return lsn - SizeOfXLogShortPHD;
	return lsn;
}

/* Once a WAL segment, let every capture confirm its slot. */
static void
wake_all(XLogRecPtr upto)
{
	uint64		next = pg_atomic_read_u64(&ppl_shared->next_segment_lsn);

	if (likely(upto < next))
		return;
	if (!pg_atomic_compare_exchange_u64(&ppl_shared->next_segment_lsn, &next,
										upto + wal_segment_size))
		return;
	for (int i = 0; i < ppl_shared->ndatabases; i++)
	{
		if (OidIsValid(ppl_shared->databases[i].dboid))
			ppl_wake_capture(&ppl_shared->databases[i], upto);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	bool		always = self.always;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	self.always = false;
	if (event != XACT_EVENT_COMMIT || XactLastCommitEnd == self.published ||
		ppl_shared == NULL)
		return;
	self.published = XactLastCommitEnd;

	wake_all(XactLastCommitEnd);
	if (self.db == NULL || self.db->dboid != MyDatabaseId)
		self.db = ppl_database_find(MyDatabaseId);
	if (self.db == NULL || !OidIsValid(MyDatabaseId))
		return;
	if (always || pg_atomic_read_u32(&self.db->has_consumers) != 0)
		ppl_wake_capture(self.db, XactLastCommitEnd);
	else
		ppl_atomic_max(&self.db->wanted_lsn, XactLastCommitEnd);
}
