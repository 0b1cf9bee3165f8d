/*
 * version.c
 *		Versions of stages, and the bodies of their functions.
 *
 * Each time that a version of a stage comes into force, the definition of the
 * pipeline has a new version, and the table a row that says since which: so the
 * version of the definition that a batch ran tells the code of every stage.
 *
 * Nobody asks us before a function is replaced.  What a stage runs is therefore
 * compared with what was noted, by the md5 of its code, whenever a worker loads
 * it, and what is new is noted as one more version before it runs.  Within a
 * batch a function is known by its row in pg_proc, see ppl_version_holds.
 *
 * Runs in backends that change definitions and in workers, inside a transaction.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog/handler.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "catalog/version.h"

static void read_functions(PplBody * body, Datum array);
static void audit_notice(const PplPipeline *pipeline, const PplStage *stage);
static bool is_noted(const PplPipeline *pipeline, const PplStage *stage,
					 PplBody * *body);

/*
 * What a handler or a query is now, in CurrentMemoryContext.  Of a handler it has
 * all that decides what the function does: body, language, settings and so on; and
 * the same of the functions that it calls, as far as dependencies tell, which is
 * those in the bodies of BEGIN ATOMIC.  Error 42883 if there is no such function.
 */
PplBody *
ppl_version_body(const PplPipeline *pipeline, const char *handler,
				 const char *query)
{
	PplBody    *body = palloc0(sizeof(*body));
	PplSqlArg	args[] = {
		handler == NULL ? ppl_sql_arg_text(query) :
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(ppl_handler_find(pipeline, handler)))
	};
	PplSqlResult *rows;

	if (handler == NULL)
	{
		rows = ppl_sql_run("SELECT pg_catalog.md5($1)", lengthof(args), args);
		body->md5 = ppl_sql_text(rows, 0, 0);
		return body;
	}
	rows = ppl_sql_run("WITH RECURSIVE f (oid) AS (SELECT $1"
					   " UNION SELECT d.refobjid FROM f JOIN pg_depend d ON d.objid = f.oid"
					   "  AND d.classid = 'pg_proc'::regclass"
					   "  AND d.refclassid = 'pg_proc'::regclass),"
					   " code AS (SELECT p.oid, p.xmin, concat_ws(' ', l.lanname, p.provolatile,"
					   "  p.proisstrict, p.prosecdef, p.proconfig, p.probin,"
					   "  coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)) AS text"
					   "  FROM f JOIN pg_proc p ON p.oid = f.oid"
					   "  JOIN pg_language l ON l.oid = p.prolang)"
					   " SELECT md5(string_agg(text, ' ' ORDER BY oid <> $1, text)),"
					   " rtrim(pg_get_functiondef($1), E'\\n'),"
					   " array_agg(oid::text || ' ' || xmin::text) FROM code",
					   lengthof(args), args);
	body->md5 = ppl_sql_text(rows, 0, 0);
	body->source = ppl_sql_text(rows, 0, 1);
	read_functions(body, ppl_sql_value(rows, 0, 2));
	return body;
}

/* Pairs of numbers: a function, and the transaction that wrote its row. */
static void
read_functions(PplBody * body, Datum array)
{
	Datum	   *elements;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &body->nfunctions);
	body->functions = palloc(body->nfunctions * sizeof(Oid));
	body->xmins = palloc(body->nfunctions * sizeof(TransactionId));
	for (int i = 0; i < body->nfunctions; i++)
	{
		if (sscanf(TextDatumGetCString(elements[i]), "%u %u",
				   &body->functions[i], &body->xmins[i]) != 2)
			elog(ERROR, "unexpected row of a function");
	}
}

/*
 * Did whatever ran in this process since the body was read run just that?  All that
 * calls a function takes it from the cache that is asked here, and what has come
 * into it once is not followed by anything older.
 */
bool
ppl_version_holds(const PplBody * body)
{
	for (int i = 0; i < body->nfunctions; i++)
	{
		HeapTuple	tuple = SearchSysCache1(PROCOID,
											ObjectIdGetDatum(body->functions[i]));
		bool		same;

		if (!HeapTupleIsValid(tuple))
			return false;
		same = HeapTupleHeaderGetRawXmin(tuple->t_data) == body->xmins[i];
		ReleaseSysCache(tuple);
		if (!same)
			return false;
	}
	return true;
}

/*
 * The first number that no version of a stage has had.
 */
int
ppl_version_next(const PplPipeline *pipeline, int stage_id)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(stage_id),
	};

	return ppl_sql_int(ppl_sql_run("SELECT coalesce(max(version), 0) + 1"
								   " FROM " PPL_STAGE_VERSIONS
								   " WHERE pipeline_id = $1 AND stage_id = $2",
								   lengthof(args), args), 0, 0);
}

/*
 * From the version on that the definition has now, nothing that a stage was is in
 * force any more.
 */
void
ppl_version_end(const PplPipeline *pipeline, int stage_id)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(stage_id),
		ppl_sql_arg_int(pipeline->version),
	};

	(void) ppl_sql_run("UPDATE " PPL_STAGE_VERSIONS " SET until = $3,"
					   " last_lsn = CASE WHEN first_lsn IS NOT NULL THEN ("
					   "  SELECT max(k.commit_lsn) FROM " PPL_CHECKPOINTS " k"
					   "  WHERE k.pipeline_id = $1 AND k.segment = coalesce(("
					   "   SELECT s.segment FROM " PPL_STAGES " s WHERE s.stage_id = $2),"
					   "   k.segment)) END"
					   " WHERE pipeline_id = $1 AND stage_id = $2"
					   " AND until IS NULL",
					   lengthof(args), args);
}

/*
 * From the version on that the definition has now, a stage is what it says here.
 * role: who deploys it, or NULL if nobody did.
 */
void
ppl_version_add(const PplPipeline *pipeline, const PplStage *stage,
				const PplBody * body, const char *role)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(stage->stage_id),
		ppl_sql_arg_int(pipeline->version),
		ppl_sql_arg_text(stage->name),
		ppl_sql_arg_int(stage->version),
		ppl_sql_arg_text(stage->handler),
		ppl_sql_arg_text(stage->query),
		ppl_sql_arg_text(body->md5),
		ppl_sql_arg_text(body->source),
		ppl_sql_arg_text(role),
	};

	ppl_version_end(pipeline, stage->stage_id);
	(void) ppl_sql_run("WITH stage AS ("
					   " UPDATE " PPL_STAGES " SET handler = $6, query = $7, version = $5"
					   " WHERE stage_id = $2)"
					   " INSERT INTO " PPL_STAGE_VERSIONS
					   " (pipeline_id, stage_id, since, stage, version, handler, query,"
					   "  body_md5, definition, deployed_by)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::name)",
					   lengthof(args), args);
}

/* Is what a stage runs the version that is in force? */
static bool
is_noted(const PplPipeline *pipeline, const PplStage *stage, PplBody * *body)
{
	*body = ppl_version_body(pipeline, stage->handler, stage->query);
	return stage->body_md5 != NULL &&
		strcmp((*body)->md5, stage->body_md5) == 0;
}

static void
audit_notice(const PplPipeline *pipeline, const PplStage *stage)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_text(GetUserNameFromId(pipeline->owner, false)),
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_text(pipeline->name),
		ppl_sql_arg_text(stage->name),
		ppl_sql_arg_text(stage->handler),
		ppl_sql_arg_text(psprintf("%d", stage->version)),
	};

	(void) ppl_sql_run("INSERT INTO " PPL_AUDIT_LOG
					   " (who, action, pipeline_id, pipeline, detail)"
					   " VALUES ($1, 'replace_function', $2, $3, jsonb_build_object("
					   " 'stage', $4, 'handler', $5, 'version', $6))",
					   lengthof(args), args);
}

/*
 * Note a new version of each stage whose function was replaced: true if there is
 * any.  The caller holds the definition's lock in share mode; several workers may
 * find it out at once, and the row of the pipeline keeps them in order.
 */
bool
ppl_version_notice(int pipeline_id)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline_id)};
	PplPipeline *pipeline;
	bool		any = false;
	ListCell   *lc;

	(void) ppl_sql_run("SELECT FROM " PPL_PIPELINES
					   " WHERE pipeline_id = $1 FOR NO KEY UPDATE",
					   lengthof(args), args);
	PushActiveSnapshot(GetTransactionSnapshot());
	pipeline = ppl_definition_load(pipeline_id);
	PopActiveSnapshot();
	if (pipeline == NULL)
		return false;
	foreach(lc, pipeline->stages)
	{
		PplStage   *stage = lfirst(lc);
		PplBody    *body;

		if (is_noted(pipeline, stage, &body))
			continue;
		if (!any)
			pipeline->version =
				ppl_sql_int(ppl_sql_run("UPDATE " PPL_PIPELINES
										" SET version = version + 1"
										" WHERE pipeline_id = $1 RETURNING version",
										lengthof(args), args), 0, 0);
		any = true;
		stage->version = ppl_version_next(pipeline, stage->stage_id);
		ppl_version_add(pipeline, stage, body, NULL);
		audit_notice(pipeline, stage);
	}
	if (any)
		CacheInvalidateRelcacheByRelid(ppl_definition_relid());
	return any;
}

/*
 * A batch under this definition is about to commit, the first one of its worker:
 * its first event is at first, those before, up to last, were of version former
 * of the definition, or of one that is not known (0).
 */
void
ppl_version_reached(const PplPipeline *pipeline, int former, XLogRecPtr last,
					XLogRecPtr first)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(pipeline->version),
		ppl_sql_arg_int(former),
		ppl_sql_arg(LSNOID, LSNGetDatum(last)),
		ppl_sql_arg(LSNOID, LSNGetDatum(first)),
		ppl_sql_arg_null(INT4ARRAYOID),
	};
	PplSqlArg  *stages;

	if (pipeline->stages == NIL)
		return;
	stages = palloc(list_length(pipeline->stages) * sizeof(PplSqlArg));
	for (int i = 0; i < list_length(pipeline->stages); i++)
		stages[i] = ppl_sql_arg_int(((PplStage *) list_nth(pipeline->stages, i))->stage_id);
	args[5] = ppl_sql_arg_array(stages, list_length(pipeline->stages));
	(void) ppl_sql_run("WITH v AS ("
					   " SELECT stage_id, since, until <= $2 IS TRUE AS over"
					   " FROM " PPL_STAGE_VERSIONS
					   " WHERE pipeline_id = $1 AND stage_id = ANY ($6)"
					   " AND CASE WHEN until <= $2 THEN first_lsn IS NOT NULL"
					   "  AND (last_lsn IS NULL OR until > $3 AND since <= $3 AND last_lsn < $4)"
					   "  ELSE since <= $2 AND (first_lsn IS NULL OR first_lsn > $5) END"
					   " ORDER BY stage_id, since FOR UPDATE)"
					   " UPDATE " PPL_STAGE_VERSIONS " s SET"
					   " first_lsn = CASE WHEN v.over THEN s.first_lsn ELSE $5 END,"
					   " last_lsn = CASE WHEN v.over THEN $4 ELSE s.last_lsn END"
					   " FROM v WHERE s.pipeline_id = $1 AND s.stage_id = v.stage_id"
					   " AND s.since = v.since",
					   lengthof(args), args);
}
