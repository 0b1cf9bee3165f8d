/*
 * preflight.c
 *		Is everything there that a pipeline needs?
 *
 * Runs in the caller's backend, before it takes an xid: capture waits for all
 * running transactions while it makes the slot, and would wait for ours while
 * we wait for the slot.  What a setting of the server forbids is said here and
 * now, with the command that mends it.  Blocks until the slot is consistent;
 * interrupts are served.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "api/preflight.h"
#include "catalog/identity.h"

/* How long a launcher or a capture may take to come up, in milliseconds. */
#define START_GRACE_MS		5000
#define START_POLL_MS		10
/* After this time of waiting for the slot the caller is told so. */
#define NOTICE_AFTER_MS		10000
#define SLEEP_MS			1000

/* What one look at shared memory told. */
typedef struct Sight
{
	bool		launcher;		/* is it running? */
	bool		known;			/* has the database an entry? */
	PplDatabaseState state;
	XLogRecPtr	slot_lsn;
	PplError	error;
} Sight;

static void check_settings(void);
static void wait_for_launcher(void);
static PplDatabase *find_database(void);
static void look(PplDatabase *db, Sight *sight);
static void refuse_with_xid(const char *function);
static bool slot_is_ours(const Sight *sight);
static void raise_failure(const PplError *error) pg_attribute_noreturn();

/*
 * Check the server's settings and wait until the slot of this database is
 * ready.  function is the caller's name in SQL.  Errors: 55000 for settings,
 * and with an xid in a database without a ready slot; 53000 without worker
 * processes; what made capture fail.
 */
PplDatabase *
ppl_preflight(const char *function)
{
	TimestampTz begun = GetCurrentTimestamp();
	bool		noticed = false;
	bool		retried = false;
	PplDatabase *db;

	PreventCommandIfReadOnly(function);
	check_settings();
	wait_for_launcher();
	db = find_database();

	ConditionVariablePrepareToSleep(&db->changed);
	for (;;)
	{
		TimestampTz now;
		Sight		sight;

		look(db, &sight);
		if (sight.known && sight.state == PPL_DB_READY)
		{
			if (!slot_is_ours(&sight))
				refuse_with_xid(function);
			break;
		}
		now = GetCurrentTimestamp();
		if (sight.known && sight.state == PPL_DB_CLOSING)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is about to be dropped")));
		if (sight.known && sight.state == PPL_DB_FAILED &&
			(sight.error.at >= begun ||
			 TimestampDifferenceExceeds(begun, now, START_GRACE_MS)))
			raise_failure(&sight.error);
		if (!sight.known || sight.state != PPL_DB_FAILED)
			refuse_with_xid(function);
		if (!retried && (!sight.known || sight.state == PPL_DB_FAILED ||
						 sight.state == PPL_DB_GONE))
		{
			/* do not wait for its back-off to end */
			retried = true;
			db = find_database();
			(void) ppl_database_request(MyDatabaseId);
			ConditionVariablePrepareToSleep(&db->changed);
			continue;
		}
		if (!noticed && TimestampDifferenceExceeds(begun, now, NOTICE_AFTER_MS))
		{
			noticed = true;
			ereport(NOTICE,
					(errmsg("waiting until the pipeline slot of this database is ready"),
					 errdetail("It becomes ready when the transactions that were running when it was made have ended.")));
		}
		(void) ConditionVariableTimedSleep(&db->changed, SLEEP_MS,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return db;
}

static void
check_settings(void)
{
	if (ppl_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline is not loaded at server start"),
				 errdetail("It needs shared memory and worker processes, which the server gives out at its start only."),
				 errhint("Add pipeline to shared_preload_libraries and restart the server.")));
	if (wal_level < WAL_LEVEL_LOGICAL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wal_level does not allow logical decoding"),
				 errdetail("wal_level is %s, needed is logical.",
						   GetConfigOption("wal_level", false, false)),
				 errhint("ALTER SYSTEM SET wal_level = logical; then restart the server.")));
}

/* It starts together with the first sessions, and again after an error. */
static void
wait_for_launcher(void)
{
	TimestampTz begun = GetCurrentTimestamp();

	for (;;)
	{
		Sight		sight;

		look(NULL, &sight);
		if (sight.launcher)
			return;
		if (TimestampDifferenceExceeds(begun, GetCurrentTimestamp(),
									   START_GRACE_MS))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("the pipeline launcher is not running"),
					 errdetail("max_worker_processes is %d; launcher and mover need one each, and every database with pipelines one and its workers.",
							   max_worker_processes),
					 errhint("ALTER SYSTEM SET max_worker_processes = %d; then restart the server.",
							 max_worker_processes + 8)));
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 START_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The entry of this database, made if there is none. */
static PplDatabase *
find_database(void)
{
	PplDatabase *db = ppl_database_find(MyDatabaseId);

	if (db == NULL && ppl_database_request(MyDatabaseId))
		db = ppl_database_find(MyDatabaseId);
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases with pipelines"),
				 errdetail("pipeline.max_databases is %d, and all are in use.",
						   ppl_shared->ndatabases),
				 errhint("ALTER SYSTEM SET pipeline.max_databases = %d; then restart the server.",
						 ppl_shared->ndatabases * 2)));
	return db;
}

static void
look(PplDatabase *db, Sight *sight)
{
	memset(sight, 0, sizeof(*sight));
	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	sight->launcher = (ppl_shared->launcher.pid != 0);
	if (db != NULL)
	{
		sight->known = (db->dboid == MyDatabaseId);
		sight->state = db->state;
		sight->slot_lsn = db->slot_lsn;
		sight->error = db->error;
	}
	LWLockRelease(ppl_shared->lock);
}

static void
refuse_with_xid(const char *function)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the pipeline slot of this database is not ready"),
				 errdetail("It becomes ready when the transactions that were running when it was made have ended, and this one is among them."),
				 errhint("Commit first, then call %s again.", function)));
}

/*
 * Is the slot that is ready the one of the extension that this transaction
 * sees?  It may have replaced the extension itself.
 */
static bool
slot_is_ours(const Sight *sight)
{
	PplIdentity identity;

	return !TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		(ppl_identity_load(&identity) && identity.slot_lsn == sight->slot_lsn);
}

static void
raise_failure(const PplError *error)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(error->sqlstate != 0 ? error->sqlstate :
					 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s", error->message),
			 error->detail[0] != '\0' ? errdetail("%s", error->detail) : 0,
			 error->hint[0] != '\0' ? errhint("%s", error->hint) : 0));
}
