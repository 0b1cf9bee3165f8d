/*
 * upserts.c
 *		Outputs of mode upsert, as they are declared.
 *
 * Runs in the caller's backend, under the definition's lock.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/relation.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api/upserts.h"
#include "base/event.h"
#include "catalog/key.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "catalog/target.h"

/* An upsert must know which source row an event is about. */
static void
require_source_key(const PplPipeline *pipeline, const PplOutput *output)
{
	Relation	source = relation_open(pipeline->source, AccessShareLock);
	char	   *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(source)),
												  RelationGetRelationName(source));

	if (ppl_key_of_source(source) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rows of source \"%s\" cannot be told apart",
						RelationGetRelationName(source)),
				 errdetail("Output \"%s\" of mode upsert needs a primary key of the source, or a unique index over NOT NULL columns as its replica identity.",
						   output->name),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...);", name)));
	relation_close(source, NoLock);
}

static void
store_keeps(const PplOutput *output, bool keeps)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(output->output_id),
		ppl_sql_arg_bool(keeps),
	};

	(void) ppl_sql_run("UPDATE " PPL_OUTPUTS " SET keeps = $2"
					   " WHERE output_id = $1", lengthof(args), args);
}

/*
 * Decide for each output of mode upsert whether what source rows produced in it is
 * kept.  One that events have gone into stays what it was: error 55000 if it did
 * without and cannot any more, or if the source has no key.
 */
void
ppl_upserts_settle(const PplPipeline *pipeline)
{
	ListCell   *lc;

	foreach(lc, pipeline->outputs)
	{
		const PplOutput *output = lfirst(lc);
		bool		keeps;

		if (!output->upsert)
			continue;
		require_source_key(pipeline, output);
		keeps = !ppl_target_derives(pipeline, output);
		if (keeps == output->keeps)
			continue;
		if (!pipeline->born || output->since == pipeline->version)
			store_keeps(output, keeps);
		else if (keeps)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("what rows produced in output \"%s\" could not be told from their old rows any more",
							output->name),
					 errdetail("The output was made for rows that come from the source as they are; what they produced up to now was not kept."),
					 errhint("SELECT pipeline.drop_output(%s, %s); change the pipeline, and add the output again.",
							 quote_literal_cstr(pipeline->name),
							 quote_literal_cstr(output->name))));
	}
}

/*
 * A pipeline begins anew, after a gap in its events or in another database.
 * What is kept of its rows is older than all events to come, whose positions may be
 * smaller here; and a dead letter may be of a row that was changed meanwhile.
 */
void
ppl_upserts_begin_anew(const PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};

	(void) ppl_sql_run("WITH old AS ("
					   " SELECT k.ctid AS row, row_number() OVER ("
					   "  PARTITION BY output_id ORDER BY commit_lsn, seq, part) AS seq"
					   " FROM " PPL_KEPT " k WHERE output_id IN ("
					   "  SELECT output_id FROM " PPL_OUTPUTS " WHERE pipeline_id = $1))"
					   " UPDATE " PPL_KEPT " k SET commit_lsn = '0/0', seq = old.seq"
					   " FROM old WHERE k.ctid = old.row",
					   lengthof(args), args);
	(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS
					   " SET superseded = true, removal_digest = NULL"
					   " WHERE pipeline_id = $1 AND state = 'open'"
					   " AND source_digest IS NOT NULL",
					   lengthof(args), args);
}
