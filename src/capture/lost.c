/*
 * lost.c
 *		Say once, in the log and in the audit log, which pipelines are lost.
 *
 * Runs in capture when it begins, before it makes a new slot (0/0 = none yet) and
 * when it has one, in a transaction of its own.  A pipeline is
 * lost if it was born in another slot than the present one.  That it was said
 * is noted as slot_lsn 0/0, which no slot has; start(skip_to_now => true) sets
 * it anew.  Waits for nobody: a definition that somebody holds locked is told
 * of at the next start of capture.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"

#include "capture/lost.h"
#include "catalog/names.h"
#include "catalog/sql.h"

static const char *const note_sql =
"WITH lost AS ("
"  UPDATE " PPL_PIPELINES " p SET slot_lsn = '0/0'"
"  FROM (SELECT pipeline_id, slot_lsn FROM " PPL_PIPELINES
"    WHERE born AND system_identifier = $1 AND database = $2"
"      AND slot_lsn NOT IN ($3, '0/0')"
"    FOR NO KEY UPDATE SKIP LOCKED) old"
"  WHERE p.pipeline_id = old.pipeline_id"
"  RETURNING p.pipeline_id, p.name, old.slot_lsn)"
" INSERT INTO " PPL_AUDIT_LOG " (who, action, pipeline_id, pipeline, detail)"
" SELECT $4, 'lost', l.pipeline_id, l.name, pg_catalog.jsonb_build_object("
"   'reason', $5, 'slot_lsn', l.slot_lsn,"
"   'processed_lsn', (SELECT pg_catalog.min(c.commit_lsn) FROM " PPL_CHECKPOINTS " c"
"     WHERE c.pipeline_id = l.pipeline_id))"
" FROM lost l ORDER BY l.pipeline_id"
" RETURNING pipeline_id";

/*
 * Find the pipelines that were born in another slot than the one made at
 * slot_lsn and were not told of yet.  reason says what became of their slot,
 * NULL if the slot is what it was, so that it is they that came from elsewhere.
 */
void
ppl_lost_tell(XLogRecPtr slot_lsn, const char *reason)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	PplSqlArg	args[5];
	PplSqlResult *rows;
	char	   *database;
	int64		count;

	if (reason == NULL)
		reason = "The pipelines were restored, with positions of another slot.";

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	args[0] = ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier()));
	args[1] = ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId));
	args[2] = ppl_sql_arg(LSNOID, LSNGetDatum(slot_lsn));
	args[3] = ppl_sql_arg_text(GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false));
	args[4] = ppl_sql_arg_text(reason);
	rows = ppl_sql_run(note_sql, lengthof(args), args);
	count = rows->nrows;
	database = MemoryContextStrdup(oldcontext, get_database_name(MyDatabaseId));
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(oldcontext);

	if (count > 0)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_plural("the position of " INT64_FORMAT " pipeline of database \"%s\" is lost",
							   "the positions of " INT64_FORMAT " pipelines of database \"%s\" are lost",
							   (unsigned long) count, count, database),
				 errdetail_internal("%s", reason),
				 errhint("SELECT pipeline.start(pipeline, skip_to_now => true) FROM pipeline.status WHERE state = 'lost'; goes on from now and leaves out what was committed in between.")));
	pfree(database);
}
