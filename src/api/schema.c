/*
 * schema.c
 *		Tell pipelines that their sources were changed, and let them go on.
 *
 * The event triggers run in the backend of whoever changes a table, as that
 * role; what they read and write is ours, and they elevate themselves for it.
 * A statement of a user must not fail because of a pipeline: whatever goes wrong
 * is taken back and becomes a warning, and the worker finds the difference later
 * (worker/schema.c).  They wait only for another transaction that changes the
 * same source.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "api/access.h"
#include "api/args.h"
#include "api/check.h"
#include "base/control.h"
#include "base/event.h"
#include "base/shm.h"
#include "catalog/layout.h"
#include "catalog/names.h"
#include "catalog/source.h"
#include "catalog/sql.h"

PPL_FUNCTION(pipeline_schema_changed);
PPL_FUNCTION(pipeline_accept_schema);
PPL_FUNCTION(pipeline_logs_enough);

/* Pipelines of this life of this database; $1 and $2 say which that is. */
#define BORN_PIPELINES \
	PPL_PIPELINES " p JOIN " PPL_LAYOUTS " l USING (pipeline_id)" \
	" WHERE p.born AND p.system_identifier = $1 AND p.database = $2"

static PplSqlResult *
select_pipelines(const char *sql)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
	};

	return ppl_sql_run(sql, lengthof(args), args);
}

/*
 * Pipelines whose sources this command may have changed: the tables themselves,
 * those above and below them, or those made of a type.  The catalog is asked, as
 * functions for partitions take locks.
 */
static PplSqlResult *
select_changed(void)
{
	return select_pipelines("WITH RECURSIVE c AS MATERIALIZED"
							" (SELECT DISTINCT objid FROM pg_event_trigger_ddl_commands()),"
							" below (relid) AS (SELECT objid FROM c"
							"  UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.relid),"
							" above (relid) AS (SELECT objid FROM c"
							"  UNION SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.relid)"
							" SELECT p.pipeline_id, p.source::oid FROM " BORN_PIPELINES
							" AND (p.source IN (SELECT relid FROM below UNION SELECT relid FROM above)"
							"  OR EXISTS (SELECT FROM pg_class t JOIN c ON c.objid = t.reloftype"
							"   WHERE t.oid = p.source AND t.reloftype <> 0))"
							" ORDER BY p.pipeline_id");
}

/* Pipelines whose sources lost something that was dropped. */
static PplSqlResult *
select_dropped(void)
{
	return select_pipelines("WITH d AS MATERIALIZED"
							" (SELECT objid FROM pg_event_trigger_dropped_objects()"
							"  WHERE NOT is_temporary)"
							" SELECT p.pipeline_id, p.source::oid FROM " BORN_PIPELINES
							" AND EXISTS (SELECT FROM d WHERE (d.objid = p.source"
							"  OR l.layout->'tables' ? d.objid::text"
							"  OR EXISTS (SELECT FROM jsonb_each(l.layout->'tables') t"
							"   WHERE (t.value->>'index')::int8 = d.objid::int8)))"
							" ORDER BY p.pipeline_id");
}

static void
tell_pipelines(const EventTriggerData *trigger)
{
	int			guc_level = NewGUCNestLevel();
	PplSqlResult *rows;

	/* these statements are run once, and look dear */
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	rows = strcmp(trigger->event, "sql_drop") == 0 ?
		select_dropped() : select_changed();
	for (int64 row = 0; row < rows->nrows; row++)
	{
		int			pipeline_id = ppl_sql_int(rows, row, 0);
		bool		pauses;

		if (ppl_layout_note(pipeline_id, GetTopTransactionId(), &pauses) > 0)
			ppl_control_schema(pipeline_id, ppl_sql_oid(rows, row, 1), pauses);
	}
	AtEOXact_GUC(true, guc_level);
}

/* Can this error be put aside?  Not if the command or the session is to end. */
static bool
is_harmless(const ErrorData *error)
{
	return error->elevel == ERROR &&
		error->sqlerrcode != ERRCODE_QUERY_CANCELED &&
		error->sqlerrcode != ERRCODE_OUT_OF_MEMORY &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_OPERATOR_INTERVENTION;
}

/*
 * _pipeline.schema_changed(): event trigger for ddl_command_end and sql_drop.
 */
Datum
pipeline_schema_changed(PG_FUNCTION_ARGS)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("schema_changed() is an event trigger")));
	if (ppl_shared == NULL || IsBinaryUpgrade)
		PG_RETURN_VOID();

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		tell_pipelines((EventTriggerData *) fcinfo->context);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		if (!is_harmless(error))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not tell pipelines of this change: %s", error->message),
				 errdetail("They find it out with the next row.")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	PG_RETURN_VOID();
}

/*
 * _pipeline.logs_enough(source oid, operations text[])
 */
Datum
pipeline_logs_enough(PG_FUNCTION_ARGS)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	Oid			source = PG_GETARG_OID(0);
	volatile uint16 operations = 0;
	volatile bool enough = true;
	ListCell   *lc;

	foreach(lc, ppl_args_text_array(fcinfo, 1, "operations"))
		operations |= ppl_definition_operation(lfirst(lc));
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		ppl_source_check(source, operations, false, true);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(oldcontext);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE &&
			error->sqlerrcode != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		enough = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	PG_RETURN_BOOL(enough);
}

/* What to do about a column that is missing. */
static void
explain_missing(void *arg)
{
	if (geterrcode() == ERRCODE_UNDEFINED_COLUMN)
		errhint("Give the column back, or replace what names it: in one transaction stop(%1$s), drop_stage(%1$s, ...), add_stage(%1$s, ...), accept_schema(%1$s), start(%1$s).",
				quote_literal_cstr((char *) arg));
}

/*
 * pipeline.accept_schema(pipeline text)
 */
Datum
pipeline_accept_schema(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "pipeline");
	PplPipeline *pipeline;
	PplSqlArg	args[1];
	PplSqlResult *rows;
	ErrorContextCallback callback;

	PreventCommandIfReadOnly("pipeline.accept_schema");
	pipeline = ppl_access_open(name, PPL_RIGHT_OPERATE, AccessShareLock);
	args[0] = ppl_sql_arg_int(pipeline->pipeline_id);
	rows = ppl_sql_run("SELECT FROM " PPL_SCHEMA_EVENTS
					   " WHERE pipeline_id = $1 AND state = 'waiting' FOR UPDATE",
					   lengthof(args), args);
	if (rows->nrows == 0)
	{
		ereport(NOTICE,
				(errmsg("pipeline \"%s\" does not wait for a change of its source",
						name)));
		PG_RETURN_VOID();
	}
	callback.callback = explain_missing;
	callback.arg = name;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	ppl_check_source(pipeline->source, pipeline->owner);
	ppl_check_chain(pipeline);
	error_context_stack = callback.previous;

	/* also what it has not come to: it is today's layout that is accepted */
	rows = ppl_sql_run("WITH accepted AS ("
					   " UPDATE " PPL_SCHEMA_EVENTS " SET state = 'accepted'"
					   " WHERE pipeline_id = $1 AND state IN ('waiting', 'pending')"
					   " RETURNING id)"
					   " SELECT array_agg(id ORDER BY id)::text FROM accepted",
					   lengthof(args), args);
	ppl_access_audit(pipeline, "accept_schema",
					 "ids", ppl_sql_text(rows, 0, 0), NULL);
	ppl_access_tell(pipeline, PPL_CONTROL_ACCEPT);
	PG_RETURN_VOID();
}
