/*
 * settle.c
 *		Wait until the transactions of a batch are visible.
 *
 * A commit is decoded as soon as its record is flushed, which is before the
 * transaction leaves the list of running ones, and long before if it waits for
 * a synchronous standby.  A snapshot taken meanwhile would not show the rows
 * that belong to its events.
 */
#include "postgres.h"
#include "base/compat.h"

#include "storage/lmgr.h"
#include "utils/snapmgr.h"

#include "worker/settle.h"

/*
 * Return when a transaction is visible to snapshots that are taken from now
 * on.  Needs and does the same as ppl_settle.
 */
void
ppl_settle_xid(TransactionId xid)
{
	if (TransactionIdIsValid(xid) &&
		XidInMVCCSnapshot(xid, GetLatestSnapshot()))
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
}

/*
 * Return when every transaction of the batch is visible to snapshots that are
 * taken from now on.  Needs a transaction without an active snapshot; may wait
 * for long, interruptibly, on the lock of a transaction that is committing.
 *
 * A transaction is visible shortly before it tells of the functions it changed,
 * which no lock protects; its own lock is released after that.  So that lock is
 * waited for in any case of the last one, the only one that can be so young.
 */
void
ppl_settle(const PplBatch *batch)
{
	Snapshot	snapshot = GetLatestSnapshot();

	for (int i = 0; i < batch->ntxns; i++)
	{
		TransactionId xid = batch->txns[i].xid;

		if (!TransactionIdIsValid(xid) || !XidInMVCCSnapshot(xid, snapshot))
			continue;
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
		snapshot = GetLatestSnapshot();
	}
	if (batch->ntxns > 0 &&
		TransactionIdIsValid(batch->txns[batch->ntxns - 1].xid))
		XactLockTableWait(batch->txns[batch->ntxns - 1].xid, NULL, NULL,
						  XLTW_None);
}
