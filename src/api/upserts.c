/*
 * upserts.c
 *		Outputs of mode upsert, as they are declared.
 *
 * Runs in the caller's backend, under the definition's lock.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api/upserts.h"
#include "base/event.h"
#include "catalog/key.h"
#include "catalog/names.h"
#include "catalog/source.h"
#include "catalog/sql.h"
#include "catalog/target.h"

/*
 * The key by which an upsert knows which source row an event is about, as words.
 */
static List *
source_key(const PplPipeline *pipeline, const PplOutput *output)
{
	Relation	source = relation_open(pipeline->source, AccessShareLock);
	PplKey	   *key = ppl_key_of_source(source);

	if (key == NULL && ppl_source_is_stream(source))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rows of source \"%s\" cannot be told apart",
						RelationGetRelationName(source)),
				 errdetail("Output \"%s\" of mode upsert needs a key of the source, and streams have none.",
						   output->name),
				 errhint("Append to a table that has a primary key, and let a pipeline over that table upsert.")));
	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rows of source \"%s\" cannot be told apart",
						RelationGetRelationName(source)),
				 errdetail("Output \"%s\" of mode upsert needs a primary key of the source, or a unique index over NOT NULL columns as its replica identity.",
						   output->name),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...);",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(source)),
													RelationGetRelationName(source)))));
	relation_close(source, NoLock);
	return ppl_key_words(key);
}

/* Does an output take what a segment hands over? */
static bool
is_behind(const PplPipeline *pipeline, const PplOutput *output)
{
	int			segment = output->segment != 0 ? output->segment :
	ppl_definition_last_segment(pipeline);

	return ppl_definition_segment(pipeline, segment)->upstream != 0;
}

/* What is kept of an output is kept by these words. */
static void
store_keeps(const PplOutput *output, bool keeps, List *words)
{
	PplSqlArg  *elements = palloc(list_length(words) * sizeof(PplSqlArg));
	PplSqlArg	args[] = {
		ppl_sql_arg_int(output->output_id),
		ppl_sql_arg_bool(keeps),
		ppl_sql_arg_null(TEXTARRAYOID),
	};
	ListCell   *lc;

	foreach(lc, words)
		elements[foreach_current_index(lc)] = ppl_sql_arg_text(lfirst(lc));
	if (keeps)
		args[2] = ppl_sql_arg_array(elements, list_length(words));
	(void) ppl_sql_run("UPDATE " PPL_OUTPUTS " SET keeps = $2, source_key = $3"
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
		List	   *words;
		bool		keeps;

		if (!output->upsert)
			continue;
		words = source_key(pipeline, output);
		keeps = is_behind(pipeline, output) || !ppl_target_derives(pipeline, output);
		if (!pipeline->born || output->since == pipeline->version)
			store_keeps(output, keeps, words);
		else if (keeps && !output->keeps)
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
 * A segment begins anew, or with 0 the whole pipeline, after a gap in its events or in
 * another database.  What is kept of its rows is older than all events to come, whose positions may be
 * smaller here; and a dead letter may be of a row that was changed meanwhile.
 */
void
ppl_upserts_begin_anew(const PplPipeline *pipeline, int segment)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(segment),
		ppl_sql_arg_int(ppl_definition_last_segment(pipeline)),
	};

	(void) ppl_sql_run("WITH old AS ("
					   " SELECT k.ctid AS row, row_number() OVER ("
					   "  PARTITION BY output_id ORDER BY commit_lsn, seq, part) AS seq"
					   " FROM " PPL_KEPT " k WHERE output_id IN ("
					   "  SELECT output_id FROM " PPL_OUTPUTS " WHERE pipeline_id = $1"
					   "  AND ($2 = 0 OR coalesce(segment, $3) = $2)))"
					   " UPDATE " PPL_KEPT " k SET commit_lsn = '0/0', seq = old.seq"
					   " FROM old WHERE k.ctid = old.row",
					   lengthof(args), args);
	(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS
					   " SET superseded = true, removal_digest = NULL"
					   " WHERE pipeline_id = $1 AND state = 'open'"
					   " AND source_digest IS NOT NULL AND ($2 = 0 OR segment = $2)",
					   2, args);
}
