/*
 * control.c
 *		Start, stop and restart pipelines.
 *
 * Runs in the caller's backend.  What is asked for is written into the
 * definition and into the WAL in the caller's transaction, and holds from its
 * commit on: capture reads the message at its place among the commits, so
 * that exactly the rows committed after a first start are events.  Each call
 * waits for the batch under way, for the slot, and for nothing else; a first start
 * also for batches of others that write the source as if nobody read it.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/pg_lsn.h"

#include "api/access.h"
#include "api/args.h"
#include "api/check.h"
#include "api/preflight.h"
#include "api/segments.h"
#include "api/upserts.h"
#include "api/workers.h"
#include "backlog/store.h"
#include "base/control.h"
#include "base/shm.h"
#include "catalog/adopt.h"
#include "catalog/layout.h"
#include "catalog/log.h"
#include "catalog/names.h"
#include "catalog/own.h"
#include "catalog/sql.h"

PPL_FUNCTION(pipeline_start);
PPL_FUNCTION(pipeline_stop);
PPL_FUNCTION(pipeline_restart);

static void check_startable(PplPipeline *pipeline);
static void refuse_lost(const PplPipeline *pipeline, const PplDatabase *db);
static char *name_lost(const PplPipeline *pipeline);
static bool is_lost(const PplPipeline *pipeline, const PplDatabase *db);
static void start_lost(const PplPipeline *pipeline);
static void audit_start(const PplPipeline *pipeline, int segment);
static void give_birth(const PplPipeline *pipeline, XLogRecPtr slot_lsn);
static bool has_queued(const PplPipeline *pipeline);
static void set_running(const PplPipeline *pipeline, bool running);

/*
 * pipeline.start(name text, skip_to_now bool)
 */
Datum
pipeline_start(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	bool		skip_to_now = ppl_args_bool(fcinfo, 1, "skip_to_now");
	PplDatabase *db;
	PplPipeline *pipeline;
	ListCell   *lc;

	db = ppl_preflight("pipeline.start");
	pipeline = ppl_access_open(name, PPL_RIGHT_OPERATE, AccessExclusiveLock);
	if (!skip_to_now)
		refuse_lost(pipeline, db);
	(void) ppl_adopt_targets(pipeline);
	if (pipeline->running && !skip_to_now)
	{
		ereport(NOTICE,
				(errmsg("pipeline \"%s\" is started already", name)));
		PG_RETURN_VOID();
	}
	check_startable(pipeline);

	if (!pipeline->born)
		ppl_segments_take_places(pipeline, ppl_definition_shares(pipeline));
	if (pipeline->born && skip_to_now && pipeline->lost != NIL &&
		!is_lost(pipeline, db))
		start_lost(pipeline);
	else if (!pipeline->born || skip_to_now)
	{
		ppl_own_lock_source(pipeline->source);
		give_birth(pipeline, db->slot_lsn);
		ppl_upserts_begin_anew(pipeline, 0);
		foreach(lc, ppl_definition_shares(pipeline))
			ppl_segments_emit_birth(pipeline, lfirst(lc));
	}
	else
	{
		ppl_access_audit(pipeline, "start", NULL);
		set_running(pipeline, true);
		ppl_access_tell(pipeline, PPL_CONTROL_START);
	}

	/* the word of these may be in the gap, or in another server's WAL */
	if ((!pipeline->born || skip_to_now) && has_queued(pipeline))
		ppl_access_tell(pipeline, PPL_CONTROL_REDRIVE);
	PG_RETURN_VOID();
}

/*
 * pipeline.stop(name text)
 */
Datum
pipeline_stop(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	PplPipeline *pipeline;

	PreventCommandIfReadOnly("pipeline.stop");
	pipeline = ppl_access_open(name, PPL_RIGHT_OPERATE, AccessExclusiveLock);
	if (!pipeline->running)
	{
		ereport(NOTICE,
				(errmsg("pipeline \"%s\" is stopped already", name)));
		PG_RETURN_VOID();
	}
	ppl_access_audit(pipeline, "stop", NULL);
	set_running(pipeline, false);
	ppl_access_tell(pipeline, PPL_CONTROL_STOP);
	PG_RETURN_VOID();
}

/*
 * pipeline.restart(name text)
 */
Datum
pipeline_restart(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	PplDatabase *db;
	PplPipeline *pipeline;

	db = ppl_preflight("pipeline.restart");
	pipeline = ppl_access_open(name, PPL_RIGHT_OPERATE, AccessExclusiveLock);
	refuse_lost(pipeline, db);
	if (!pipeline->born)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" was never started", name),
				 errhint("SELECT pipeline.start(%s);", quote_literal_cstr(name))));
	(void) ppl_adopt_targets(pipeline);
	check_startable(pipeline);

	ppl_access_audit(pipeline, "restart", NULL);
	set_running(pipeline, true);
	if (pipeline->running)
		ppl_access_tell(pipeline, PPL_CONTROL_STOP);
	ppl_access_tell(pipeline, PPL_CONTROL_START);
	PG_RETURN_VOID();
}

/* Is there still a slot that has what was committed since its position? */
static void
refuse_lost(const PplPipeline *pipeline, const PplDatabase *db)
{
	bool		lost = is_lost(pipeline, db);

	if (!pipeline->born || (!lost && pipeline->lost == NIL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the position of pipeline \"%s\" is lost", pipeline->name),
			 lost ?
			 errdetail("The replication slot that held it is gone, and with it what was committed and not processed.") :
			 errdetail_plural("The backlog of segment %s was larger than pipeline.max_backlog, and what it had not processed is gone.",
							  "The backlogs of segments %s were larger than pipeline.max_backlog, and what they had not processed is gone.",
							  list_length(pipeline->lost),
							  name_lost(pipeline)),
			 errhint("SELECT pipeline.start(%s, skip_to_now => true); goes on from now.",
					 quote_literal_cstr(pipeline->name))));
}

/* Was a pipeline that was started born in another slot than the one of now? */
static bool
is_lost(const PplPipeline *pipeline, const PplDatabase *db)
{
	return pipeline->slot_lsn != db->slot_lsn;
}

/* The numbers of its lost segments, for a message. */
static char *
name_lost(const PplPipeline *pipeline)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, pipeline->lost)
		appendStringInfo(&buf, "%s%d", buf.len > 0 ? ", " : "", lfirst_int(lc));
	return buf.data;
}

/* Would a worker find all it needs?  Things may have changed since. */
static void
check_startable(PplPipeline *pipeline)
{
	ListCell   *lc;

	if (pipeline->outputs == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has no output", pipeline->name),
				 errdetail("It has 0 outputs and needs at least one."),
				 errhint("SELECT pipeline.add_output(%s, target => ...);",
						 quote_literal_cstr(pipeline->name))));
	ppl_check_owner(pipeline->owner);
	ppl_check_source(pipeline->source, pipeline->owner);
	foreach(lc, pipeline->outputs)
	{
		PplOutput  *output = lfirst(lc);

		ppl_check_target(output->target, pipeline->owner, output->name);
	}
	ppl_logs_settle(pipeline);
	ppl_check_chain(pipeline);
	ppl_upserts_settle(pipeline);
	ppl_workers_settle(pipeline);
}

/*
 * From the commit of this transaction on, the segments that are lost have events again.
 * The others keep their positions.
 */
static void
start_lost(const PplPipeline *pipeline)
{
	bool		reads = false;
	ListCell   *lc;

	foreach(lc, pipeline->lost)
	{
		audit_start(pipeline, lfirst_int(lc));
		ppl_segments_forget_position(pipeline->pipeline_id, lfirst_int(lc));
		ppl_upserts_begin_anew(pipeline, lfirst_int(lc));
	}
	set_running(pipeline, true);
	foreach(lc, ppl_definition_shares(pipeline))
	{
		const PplShare *share = lfirst(lc);

		if (list_member_int(pipeline->lost, share->place.segment))
			ppl_segments_emit_birth(pipeline, share);
		else
			reads |= share->upstream == 0;
	}
	/* nobody will come to what was changed in the source meanwhile */
	if (!reads)
		ppl_layout_store(pipeline->pipeline_id);
	if (!pipeline->running)
		ppl_access_tell(pipeline, PPL_CONTROL_START);
}

/*
 * Note the start of a segment, or with 0 of the whole pipeline, in the audit log, and the
 * gap if it had a position.
 */
static void
audit_start(const PplPipeline *pipeline, int segment)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(segment),
	};
	char	   *from = ppl_sql_text(ppl_sql_run("SELECT min(commit_lsn)::text"
												" FROM " PPL_CHECKPOINTS
												" WHERE pipeline_id = $1"
												" AND ($2 = 0 OR segment = $2)",
												lengthof(args), args), 0, 0);
	char	   *to = psprintf("%X/%X", LSN_FORMAT_ARGS(GetXLogInsertRecPtr()));

	if (segment != 0)
		ppl_access_audit(pipeline, "start", "segment", psprintf("%d", segment),
						 "skipped_from", from, "skipped_to", to, NULL);
	else if (from != NULL)
		ppl_access_audit(pipeline, "start", "skipped_from", from,
						 "skipped_to", to, NULL);
	else
		ppl_access_audit(pipeline, "start", NULL);
}

/*
 * From the commit of this transaction on, rows of the source are events.
 * What was there before is given up.
 */
static void
give_birth(const PplPipeline *pipeline, XLogRecPtr slot_lsn)
{
	PplSqlArg	id[] = {ppl_sql_arg_int(pipeline->pipeline_id)};
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg(LSNOID, LSNGetDatum(slot_lsn)),
	};

	audit_start(pipeline, 0);
	/* without it, a worker looks for the record of this birth only */
	(void) ppl_sql_run("DELETE FROM " PPL_CHECKPOINTS
					   " WHERE pipeline_id = $1",
					   lengthof(id), id);
	ppl_backlog_clear(pipeline->pipeline_id);
	ppl_layout_store(pipeline->pipeline_id);
	(void) ppl_sql_run("UPDATE " PPL_PIPELINES
					   " SET running = true, born = true,"
					   " system_identifier = $2, database = $3, slot_lsn = $4,"
					   " lost_segments = '{}'"
					   " WHERE pipeline_id = $1",
					   lengthof(args), args);
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
}

/* Are there dead letters to be run again? */
static bool
has_queued(const PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};

	return ppl_sql_bool(ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_DEAD_LETTERS
									" WHERE pipeline_id = $1 AND queued)",
									lengthof(args), args), 0, 0);
}

static void
set_running(const PplPipeline *pipeline, bool running)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_bool(running),
	};

	(void) ppl_sql_run("UPDATE " PPL_PIPELINES " SET running = $2"
					   " WHERE pipeline_id = $1",
					   lengthof(args), args);
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
}
