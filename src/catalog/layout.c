/*
 * layout.c
 *		How the sources of pipelines look, and what changed.
 *
 * Runs in the backend that changes a table, in the one that starts a pipeline,
 * and in workers.  What a source looked like when it was looked at last is kept
 * in a table; what is different since is noted as schema events, in the same
 * transaction (sql/ext/25_schema.sql).
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "storage/lockdefs.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog/layout.h"
#include "catalog/names.h"

PPL_FUNCTION(pipeline_has_rows);

/*
 * Begin anew with the source as it is: a pipeline is born.
 */
void
ppl_layout_store(int pipeline_id)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline_id)};

	(void) ppl_sql_run("INSERT INTO " PPL_LAYOUTS " (pipeline_id, layout)"
					   " SELECT pipeline_id, " PPL_PRIVATE_SCHEMA ".layout_of(source::oid)"
					   " FROM " PPL_PIPELINES " WHERE pipeline_id = $1"
					   " ON CONFLICT (pipeline_id) DO UPDATE SET layout = excluded.layout",
					   lengthof(args), args);
	(void) ppl_sql_run("UPDATE " PPL_SCHEMA_EVENTS " SET state = 'accepted'"
					   " WHERE pipeline_id = $1 AND state IN ('pending', 'waiting')",
					   lengthof(args), args);
}

/*
 * What older rows of the source have in columns that were added: attribute
 * numbers, and the type, modifier and text of the array of that value.
 */
PplSqlResult *
ppl_layout_missing(int pipeline_id)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline_id)};

	return ppl_sql_read("SELECT c.key::int, (c.value->>'missing_type')::oid,"
						" (c.value->>'missing_typmod')::int, c.value->>'missing'"
						" FROM " PPL_LAYOUTS " l, jsonb_each(l.layout->'columns') c"
						" WHERE l.pipeline_id = $1 AND c.value ? 'missing'",
						lengthof(args), args);
}

/*
 * Note what is different in the source of a pipeline since it was looked at last,
 * as the work of this transaction of the source: how many changes; *pauses if
 * the pipeline shall stop before what follows.  Waits for another transaction
 * that does the same for this pipeline.
 */
int
ppl_layout_note(int pipeline_id, TransactionId xid, bool *pauses)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline_id),
		ppl_sql_arg(XIDOID, TransactionIdGetDatum(xid)),
	};
	PplSqlResult *rows;

	*pauses = false;
	rows = ppl_sql_run("SELECT FROM " PPL_LAYOUTS " WHERE pipeline_id = $1 FOR UPDATE",
					   1, args);
	if (rows->nrows == 0)
		return 0;
	rows = ppl_sql_run("WITH seen AS MATERIALIZED ("
					   " SELECT p.pipeline_id, p.source, l.layout AS before,"
					   "  " PPL_PRIVATE_SCHEMA ".layout_of(p.source::oid) AS after,"
					   "  p.on_schema_change = 'pause' AS pause,"
					   "  EXISTS (SELECT FROM " PPL_OUTPUTS " o"
					   "   WHERE o.pipeline_id = $1 AND o.mode = 'upsert') AS upsert,"
					   "  EXISTS (SELECT FROM " PPL_OUTPUTS " o"
					   "   WHERE o.pipeline_id = $1 AND o.keeps) AS keeps"
					   " FROM " PPL_LAYOUTS " l JOIN " PPL_PIPELINES " p USING (pipeline_id)"
					   " WHERE l.pipeline_id = $1),"
					   " noted AS ("
					   " INSERT INTO " PPL_SCHEMA_EVENTS
					   " (pipeline_id, source, xid, change, column_name, old_type, new_type, pauses)"
					   " SELECT s.pipeline_id, s.source, $2, c.change, c.column_name, c.old_type,"
					   "  c.new_type, s.pause OR CASE"
					   "   WHEN NOT s.upsert THEN false"
					   "   WHEN c.change = 'retype' THEN c.harms AND s.keeps"
					   "   WHEN c.change = 'set_identity' THEN c.harms AND NOT"
					   "    " PPL_PRIVATE_SCHEMA ".source_suffices(s.pipeline_id, s.after)"
					   "   WHEN c.partition IS NOT NULL THEN " PPL_PRIVATE_SCHEMA ".has_rows(c.partition)"
					   "    OR EXISTS (SELECT FROM pg_class WHERE oid = c.partition AND relpersistence = 'u')"
					   "   ELSE c.harms END"
					   " FROM seen s CROSS JOIN " PPL_PRIVATE_SCHEMA ".layout_changes(s.before, s.after) c"
					   " RETURNING pauses),"
					   " kept AS ("
					   " UPDATE " PPL_LAYOUTS " l"
					   " SET layout = " PPL_PRIVATE_SCHEMA ".layout_merge(s.before, s.after)"
					   " FROM seen s WHERE l.pipeline_id = s.pipeline_id AND s.before <> s.after)"
					   " SELECT count(*)::int, coalesce(bool_or(pauses), false) FROM noted",
					   lengthof(args), args);
	*pauses = ppl_sql_bool(rows, 0, 1);
	return ppl_sql_int(rows, 0, 0);
}

/*
 * _pipeline.has_rows(relation oid): of a table that is gone, or that somebody else
 * stores, nobody can tell.
 */
Datum
pipeline_has_rows(PG_FUNCTION_ARGS)
{
	Relation	relation = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	bool		result = true;

	if (relation == NULL)
		PG_RETURN_BOOL(true);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		result = false;
	else if (relation->rd_rel->relkind == RELKIND_RELATION)
	{
		TupleTableSlot *slot = table_slot_create(relation, NULL);
		TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);

		result = table_scan_getnextslot(scan, ForwardScanDirection, slot);
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	relation_close(relation, NoLock);
	PG_RETURN_BOOL(result);
}
