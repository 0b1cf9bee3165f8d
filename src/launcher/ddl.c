/*
 * ddl.c
 *		Reactions to CREATE and DROP of the extension and of databases.
 *
 * | statement        | while it runs                  | commit             | rollback       |
 * | CREATE EXTENSION | -                              | check this database | -             |
 * | DROP EXTENSION   | -                              | check this database | -             |
 * | CREATE DATABASE  | -                              | check the new one  | -              |
 * | DROP DATABASE    | its processes end, slot is free | forget it         | check it again |
 * | CREATE DATABASE ... TEMPLATE, ALTER DATABASE ... RENAME, SET TABLESPACE:
 * |                  | its processes end               | check it again    | check it again |
 *
 * "Check" means that the launcher starts capture there (or a running one looks
 * again), and capture finds out whether the extension exists: it makes the
 * slot, or drops it and goes away.  Nothing is done before the commit but the
 * ending of processes, which core does not do for us and without which the
 * database would count as in use.
 *
 * COMMIT PREPARED wakes capture: the transaction may hold control messages.
 *
 * Runs in the backend that executes the statement.  The hook for DROP
 * DATABASE is called with an exclusive lock on the database: it waits for
 * processes that need no such lock to end.  For the other three there is no
 * hook after the checks of core, so the right to do it is checked here first.
 */
#include "postgres.h"
#include "base/compat.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "base/shm.h"
#include "base/wake.h"
#include "launcher/ddl.h"
#include "spool/segment.h"

PPL_FUNCTION(pipeline_installed);

static object_access_hook_type prev_object_access_hook = NULL;
static ProcessUtility_hook_type prev_process_utility_hook = NULL;

/* What the end of this transaction has to do. */
static struct
{
	bool		check_here;		/* the extension came or went */
	Oid			created;		/* database */
	Oid			dropped;		/* database */
	Oid			paused;			/* database */
}			pending;

static void object_access(ObjectAccessType access, Oid class_id, Oid object_id,
						  int sub_id, void *arg);
static void process_utility(PlannedStmt *statement, const char *query,
							bool read_only_tree, ProcessUtilityContext context,
							ParamListInfo params, QueryEnvironment *environment,
							DestReceiver *receiver, QueryCompletion *completion);
static Oid	database_to_pause(Node *statement);
static bool may_pause(Oid dboid);
static void xact_callback(XactEvent event, void *arg);
static void close_database(Oid dboid);
static void forget_database(Oid dboid);

void
ppl_ddl_install(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = object_access;
	prev_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(xact_callback, NULL);
}

/*
 * _pipeline.installed(): last statement of the install script.
 */
Datum
pipeline_installed(PG_FUNCTION_ARGS)
{
	pending.check_here = true;
	PG_RETURN_VOID();
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
			  void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);

	if (class_id == ExtensionRelationId && access == OAT_DROP)
	{
		char	   *name = get_extension_name(object_id);

		if (name && strcmp(name, "pipeline") == 0)
			pending.check_here = true;
	}
	else if (class_id == DatabaseRelationId && access == OAT_POST_CREATE)
		pending.created = object_id;
	else if (class_id == DatabaseRelationId && access == OAT_DROP)
	{
		pending.dropped = object_id;
		close_database(object_id);
	}
}

static void
process_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver,
				QueryCompletion *completion)
{
	Node	   *utility = statement->utilityStmt;
	Oid			dboid = database_to_pause(utility);

	/* Control messages of the prepared transaction are news now. */
	if (IsA(utility, TransactionStmt) &&
		((TransactionStmt *) utility)->kind == TRANS_STMT_COMMIT_PREPARED)
		ppl_wake_at_commit();
	if (OidIsValid(dboid) && may_pause(dboid))
	{
		pending.paused = dboid;
		close_database(dboid);
	}
	if (prev_process_utility_hook)
		prev_process_utility_hook(statement, query, read_only_tree, context,
								  params, environment, receiver, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context,
								params, environment, receiver, completion);
}

/* The database that a statement needs for itself, or InvalidOid. */
static Oid
database_to_pause(Node *statement)
{
	const char *name = NULL;
	ListCell   *lc;

	if (IsA(statement, CreatedbStmt))
	{
		name = "template1";
		foreach(lc, ((CreatedbStmt *) statement)->options)
		{
			DefElem    *option = lfirst(lc);

			if (strcmp(option->defname, "template") == 0 && option->arg)
				name = defGetString(option);
		}
	}
	else if (IsA(statement, RenameStmt) &&
			 ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
		name = ((RenameStmt *) statement)->subname;
	else if (IsA(statement, AlterDatabaseStmt))
	{
		foreach(lc, ((AlterDatabaseStmt *) statement)->options)
		{
			if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
				name = ((AlterDatabaseStmt *) statement)->dbname;
		}
	}
	if (name == NULL || ppl_shared == NULL || !IsTransactionState())
		return InvalidOid;
	return get_database_oid(name, true);
}

/*
 * Could the current user do what ends the processes?  Nobody else shall end
 * them by a statement that is refused afterwards.
 */
static bool
may_pause(Oid dboid)
{
	HeapTuple	tuple;
	bool		result;

	if (pg_database_ownercheck(dboid, GetUserId()))
		return true;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	if (!result)
		return false;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	if (ppl_shared != NULL)
	{
		bool		committed = (event == XACT_EVENT_COMMIT);

		if (committed && pending.check_here)
			(void) ppl_database_request(MyDatabaseId);
		if (committed && OidIsValid(pending.created))
			(void) ppl_database_request(pending.created);
		if (OidIsValid(pending.dropped))
			forget_database(pending.dropped);
		if (!committed && OidIsValid(pending.dropped))
			(void) ppl_database_request(pending.dropped);
		if (OidIsValid(pending.paused))
		{
			forget_database(pending.paused);
			(void) ppl_database_request(pending.paused);
		}
	}
	memset(&pending, 0, sizeof(pending));
}

/*
 * Order the processes of a database to end.  Signals are sent under the lock
 * that protects the pids.  Returns how many are still there.
 */
static int
end_processes(PplDatabase *db)
{
	int			count = 0;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	ppl_database_set_state(db, PPL_DB_CLOSING);
	if (db->capture.pid != 0 || db->capture.ordered)
		count++;
	if (db->capture.pid != 0)
		kill(db->capture.pid, SIGTERM);
	if (ppl_shared->mover.pid != 0 && ppl_shared->mover_dboid == db->dboid)
	{
		kill(ppl_shared->mover.pid, SIGTERM);
		count++;
	}
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid != db->dboid)
			continue;
		if (consumer->process.pid != 0)
		{
			kill(consumer->process.pid, SIGTERM);
			count++;
		}
	}
	LWLockRelease(ppl_shared->lock);
	return count;
}

/*
 * End the processes of a database and remove its spool.  It stays closed until
 * the end of the transaction.
 */
static void
close_database(Oid dboid)
{
	PplDatabase *db = ppl_shared ? ppl_database_find(dboid) : NULL;

	if (db == NULL)
		return;
	ConditionVariablePrepareToSleep(&db->changed);
	while (end_processes(db) > 0)
	{
		ppl_wake_launcher();
		(void) ConditionVariableTimedSleep(&db->changed, 100,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	ppl_spool_segment_unlink_all(dboid);
}

/* Give up what shared memory knows of a database. */
static void
forget_database(Oid dboid)
{
	PplDatabase *db;

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		if (ppl_shared->consumers[i].dboid == dboid)
			ppl_shared->consumers[i].dropped = true;
	}
	db = ppl_database_find(dboid);
	if (db != NULL)
		db->dboid = InvalidOid;
	LWLockRelease(ppl_shared->lock);
	ppl_wake_launcher();
}
