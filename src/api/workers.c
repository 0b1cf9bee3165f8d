/*
 * workers.c
 *		Several workers for one segment, as they are declared.
 *
 * Runs in the caller's backend, under the definition's lock.  With more than one
 * worker it must be plain which of them has an event, and that no two of them write
 * one row of an upsert output: its key has the columns of partition_by.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "api/access.h"
#include "api/args.h"
#include "api/workers.h"
#include "base/event.h"
#include "base/shm.h"
#include "catalog/key.h"
#include "catalog/names.h"
#include "catalog/partitioner.h"
#include "catalog/sql.h"

#define MAX_WORKERS 1000		/* less than a control message can say */

PPL_FUNCTION(pipeline_partition_number);
PPL_FUNCTION(pipeline_partition_of);

static void check_outputs(const PplPipeline *pipeline,
						  const PplPipeline *segment);
static void check_hand_over(const PplPipeline *pipeline,
							const PplOutput *output);
static void check_output_key(const PplPipeline *segment,
							 const PplOutput *output);
static List *choose_columns(const PplPipeline *pipeline);
static void forget_of_first(const PplPipeline *pipeline);
static void settle_behind(const PplPipeline *pipeline, PplPipeline *segment);
static List *columns_behind(const PplPipeline *segment);
static void refuse_another_column(const PplPipeline *segment);
static void check_order(const PplPipeline *pipeline,
						const PplPipeline *segment);
static char **split_row(char *text, int ncolumns);

/*
 * _pipeline.partition_number(hash bigint, workers int)
 */
Datum
pipeline_partition_number(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("workers must be at least 1")));
	PG_RETURN_INT32(ppl_partition_number((uint64) PG_GETARG_INT64(0),
										 PG_GETARG_INT32(1)));
}

/*
 * The columns of partition_by, by number and type.  Errors: 42703, 42701, 42883, and
 * 22023 if they are none.
 */
List *
ppl_workers_declare(const PplPipeline *pipeline)
{
	Relation	source = relation_open(pipeline->source, AccessShareLock);
	List	   *words = ppl_partition_words(source, pipeline->partitioning.columns);

	relation_close(source, NoLock);
	if (list_length(words) > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("partition_by has more than %d columns", INDEX_MAX_KEYS)));
	return words;
}

/*
 * Can a segment have so many workers, whatever its outputs are?
 */
void
ppl_workers_check(const PplPipeline *pipeline)
{
	const PplPartitioning *how = &pipeline->partitioning;

	if (how->workers == 1)
		return;
	if (how->ordered)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("consistency strong has one worker"),
				 errdetail("workers is %d, and needs another consistency: several workers commit in an order of their own.",
						   how->workers),
				 errhint("Use consistency => 'causal' with partition_by => '{column}', which keeps the order of each value.")));
	if (strcmp(pipeline->consistency, "causal") == 0 && how->columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("consistency causal with several workers needs partition_by"),
				 errdetail("workers is %d. The order is kept among events with the same values in these columns.",
						   how->workers),
				 errhint("Use partition_by => '{column, ...}', or consistency => 'eventual' if no order is needed.")));
	if (how->workers > Min(max_worker_processes, MAX_WORKERS))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many workers"),
				 errdetail("workers is %d, max_worker_processes is %d; needed are at least %d, and one for the launcher, the mover and each capture.",
						   how->workers, max_worker_processes, how->workers),
				 errhint("ALTER SYSTEM SET max_worker_processes = %d; then restart the server.",
						 Min(how->workers, MAX_WORKERS) + 8)));
	if (pipeline->operations & PPL_OP_TRUNCATE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pipeline with several workers cannot take truncate"),
				 errdetail("workers is %d. A truncate concerns the rows of all of them at once.",
						   how->workers),
				 errhint("Leave truncate out of operations, or use workers => 1.")));
	ppl_partition_require_old(pipeline, true);
}

/*
 * A definition was changed, or is about to be started: do its outputs go with its
 * workers?  Before the first start columns are chosen anew, if none were declared,
 * and looked up by name.  Brings *pipeline up to date.
 */
void
ppl_workers_settle(PplPipeline *pipeline)
{
	PplPartitioning *how = &pipeline->partitioning;
	ListCell   *lc;

	if (!pipeline->born)
	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_null(TEXTARRAYOID),
			ppl_sql_arg_null(TEXTARRAYOID),
			ppl_sql_arg_bool(false),
		};

		if (how->chosen || (how->columns == NIL &&
							strcmp(pipeline->consistency, "eventual") == 0))
		{
			how->columns = choose_columns(pipeline);
			how->chosen = how->columns != NIL;
		}
		how->key = ppl_workers_declare(pipeline);
		if (how->columns != NIL)
		{
			args[1] = ppl_sql_arg_words(how->columns);
			args[2] = ppl_sql_arg_words(how->key);
		}
		args[3] = ppl_sql_arg_bool(how->chosen);
		(void) ppl_sql_run("UPDATE " PPL_PIPELINES
						   " SET partition_by = $2, partition_key = $3,"
						   "  partition_chosen = $4"
						   " WHERE pipeline_id = $1",
						   lengthof(args), args);
		forget_of_first(pipeline);
	}
	ppl_workers_check(pipeline);
	foreach(lc, ppl_definition_segments(pipeline))
	{
		PplPipeline *segment = lfirst(lc);

		if (segment->upstream != 0 && segment->stages != NIL)
			settle_behind(pipeline, segment);
		check_outputs(pipeline, segment);
	}
}

/* A stage that has become the first one reads the source, by the pipeline's workers. */
static void
forget_of_first(const PplPipeline *pipeline)
{
	PplSqlArg	args[1];

	if (pipeline->stages == NIL)
		return;
	args[0] = ppl_sql_arg_int(((PplStage *) linitial(pipeline->stages))->stage_id);
	(void) ppl_sql_run("UPDATE " PPL_STAGES
					   " SET workers = 1, partition_by = NULL, partition_key = NULL"
					   " WHERE stage_id = $1 AND (workers > 1 OR partition_by IS NOT NULL)",
					   lengthof(args), args);
}

/*
 * Can a stage have workers of its own, or partition_by?  Error 22023 unless it begins
 * a segment behind another one.
 */
void
ppl_workers_check_stage(const PplPipeline *pipeline, const char *stage,
						bool begins, bool first)
{
	if (begins)
		return;
	if (first)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the workers of stage \"%s\" are those of pipeline \"%s\"",
						stage, pipeline->name),
				 errdetail("It is the first stage, which reads the source."),
				 errhint("Use create_pipeline(..., workers => ..., partition_by => ...), or SELECT pipeline.alter_pipeline(%s, workers => ...);",
						 quote_literal_cstr(pipeline->name))));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("stage \"%s\" does not begin a segment", stage),
			 errdetail("It runs in one statement with the stage before it, by the workers of that."),
			 errhint("Use isolate => true when the stage is added.")));
}

/*
 * The same for a segment behind a hand-over.  Its columns are looked up until the
 * pipeline is started, and must stay what they are then, since rows on their way are
 * shared out by them.
 */
static void
settle_behind(const PplPipeline *pipeline, PplPipeline *segment)
{
	PplPartitioning *how = &segment->partitioning;
	List	   *words = columns_behind(segment);

	if (pipeline->born && how->key != NIL)
	{
		if (!ppl_workers_same_words(how->key, words))
			refuse_another_column(segment);
	}
	else if (words != NIL)
	{
		PplSqlArg	args[] = {
			ppl_sql_arg_int(((PplStage *) linitial(segment->stages))->stage_id),
			ppl_sql_arg_words(words),
		};

		how->key = words;
		(void) ppl_sql_run("UPDATE " PPL_STAGES " SET partition_key = $2"
						   " WHERE stage_id = $1", lengthof(args), args);
	}
	if (how->workers == 1)
		return;
	ppl_workers_check(segment);
	check_order(pipeline, segment);
}

/* Are these the same words, in the same order? */
bool
ppl_workers_same_words(const List *a, const List *b)
{
	if (list_length(a) != list_length(b))
		return false;
	for (int i = 0; i < list_length(a); i++)
	{
		if (strcmp(list_nth(a, i), list_nth(b, i)) != 0)
			return false;
	}
	return true;
}

/* Its columns of partition_by by number and type.  Errors as in ppl_workers_declare. */
static List *
columns_behind(const PplPipeline *segment)
{
	const PplStage *stage = linitial(segment->stages);
	ListCell   *lc;

	foreach(lc, segment->partitioning.columns)
	{
		if (get_attnum(segment->source, lfirst(lc)) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" in partition_by of stage \"%s\" does not exist",
							(char *) lfirst(lc), stage->name),
					 errdetail("The stage before it returns no such column."),
					 errhint("Name columns of what the stage before returns in partition_by.")));
	}
	return segment->partitioning.columns == NIL ? NIL :
		ppl_workers_declare(segment);
}

static void
refuse_another_column(const PplPipeline *segment)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a column in partition_by of stage \"%s\" would be another one",
					((PplStage *) linitial(segment->stages))->name),
			 errdetail("Rows that are on their way to the stage are shared out by its columns as they are."),
			 errhint("Return columns with the same names and types, or drop the stage and add it again.")));
}

/*
 * Consistency causal: all events with one value in partition_by must come from one
 * worker of each segment before, or they would come in any order.
 */
static void
check_order(const PplPipeline *pipeline, const PplPipeline *segment)
{
	const PplPipeline *before = segment;

	if (strcmp(pipeline->consistency, "causal") != 0)
		return;
	while (before->upstream != 0)
	{
		ListCell   *lc;

		before = ppl_definition_segment(pipeline, before->upstream);
		if (before->partitioning.workers == 1)
			continue;
		foreach(lc, before->partitioning.columns)
		{
			bool		known = false;
			ListCell   *lc2;

			foreach(lc2, segment->partitioning.columns)
				known |= strcmp(lfirst(lc), lfirst(lc2)) == 0;
			if (known)
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("partition_by of stage \"%s\" does not have column \"%s\"",
							((PplStage *) linitial(segment->stages))->name,
							(char *) lfirst(lc)),
					 errdetail("Segment %d before it has %d workers and is shared out by that column, so events with one value in partition_by of the stage come from several workers, in any order.",
							   before->segment, before->partitioning.workers),
					 errhint("Name that column in partition_by of the stage, too, use workers => 1, or consistency => 'eventual' if no order is needed.")));
		}
	}
}

/* The key of an upsert; NULL if it has none any more, which others say. */
static PplKey *
key_of(const PplOutput *output)
{
	Relation	target = try_relation_open(output->target, AccessShareLock);
	PplKey	   *key = NULL;

	if (target == NULL)
		return NULL;
	key = ppl_key_of_target(target, output->key);
	relation_close(target, NoLock);
	return key;
}

/*
 * The columns of the source, by name, that the keys of all upsert outputs have and
 * that can be hashed.
 */
static List *
choose_columns(const PplPipeline *pipeline)
{
	List	   *columns = NIL;
	bool		first = true;
	ListCell   *lc;

	foreach(lc, pipeline->outputs)
	{
		const PplOutput *output = lfirst(lc);
		PplKey	   *key = output->upsert ? key_of(output) : NULL;
		List	   *common = NIL;

		if (key == NULL)
			continue;
		for (int i = 0; i < key->ncolumns; i++)
		{
			char	   *name = key->columns[i].name;
			AttrNumber	attnum = get_attnum(pipeline->source, name);
			bool		known = first;
			ListCell   *lc2;

			foreach(lc2, columns)
				known |= strcmp(lfirst(lc2), name) == 0;
			if (known && attnum > 0 &&
				OidIsValid(lookup_type_cache(get_atttype(pipeline->source, attnum),
											 TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
				common = lappend(common, name);
		}
		columns = common;
		first = false;
	}
	return columns;
}

/* Do the outputs of a segment go with its workers, and with those before it? */
static void
check_outputs(const PplPipeline *pipeline, const PplPipeline *segment)
{
	ListCell   *lc;

	foreach(lc, segment->outputs)
	{
		const PplOutput *output = lfirst(lc);

		if (!output->upsert)
			continue;
		if (segment->partitioning.workers > 1)
			check_output_key(segment, output);
		if (segment->upstream != 0 && pipeline->partitioning.workers > 1)
			check_hand_over(pipeline, output);
	}
}

/* Is a column of the source, by number, one of those that tell its rows apart? */
static bool
in_source_key(const PplPipeline *pipeline, AttrNumber attnum)
{
	Relation	source = try_relation_open(pipeline->source, AccessShareLock);
	PplKey	   *key = source == NULL ? NULL : ppl_key_of_source(source);
	bool		found = false;

	for (int i = 0; key != NULL && i < key->ncolumns; i++)
		found |= key->columns[i].attnum == attnum;
	if (source != NULL)
		relation_close(source, NoLock);
	return found;
}

/*
 * An upsert output behind several workers of the first segment is right in the end
 * because a worker that handed over rows of a source row hands over, later, that the row
 * is not its own any more (adr/0022).  So there must be such a worker, and it must be
 * told.
 */
static void
check_hand_over(const PplPipeline *pipeline, const PplOutput *output)
{
	const PplPartitioning *how = &pipeline->partitioning;
	const uint16 moves = PPL_OP_UPDATE | PPL_OP_DELETE;

	if (how->columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the events of one source row could come to output \"%s\" in any order",
						output->name),
				 errdetail("It is behind a hand-over by %d workers, and partition_by is not given: each event of a row may be another worker's.",
						   how->workers),
				 errhint("Use create_pipeline(..., partition_by => '{column, ...}'), or workers => 1, or mode => 'append'.")));
	if ((pipeline->operations & moves) == moves)
		return;
	for (int i = 0; i < list_length(how->columns); i++)
	{
		if (in_source_key(pipeline, (AttrNumber) atoi(list_nth(how->key, i))))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the events of one source row could come to output \"%s\" in any order",
						output->name),
				 errdetail("It is behind a hand-over by %d workers. Column \"%s\" of partition_by is not in the key of the source, so a row may come again in another partition; and without update and delete in operations the one that had it is not told.",
						   how->workers, (char *) list_nth(how->columns, i)),
				 errhint("Use operations => '{insert,update,delete}', or partition_by with columns of the source's key alone, or workers => 1, or mode => 'append'.")));
	}
}

/* The names of a key, for a message. */
static char *
key_names(const PplKey *key)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < key->ncolumns; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(key->columns[i].name));
	return buf.data;
}

/*
 * One key belongs to one worker of a segment: the columns of partition_by are in it, by
 * name, and hashed alike.
 */
static void
check_output_key(const PplPipeline *segment, const PplOutput *output)
{
	const PplPartitioning *how = &segment->partitioning;
	bool		behind = segment->upstream != 0;
	PplKey	   *key = key_of(output);

	if (key == NULL)
		return;
	if (how->columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("several workers could write one row of output \"%s\"",
						output->name),
				 behind ?
				 errdetail("Its key is (%s). Stage \"%s\" has %d workers, and partition_by is not given.",
						   key_names(key), ((PplStage *) linitial(segment->stages))->name,
						   how->workers) :
				 errdetail("Its key is (%s). The keys of the upsert outputs have no column of the source in common by which events could be shared out, and partition_by is not given.",
						   key_names(key)),
				 errhint("Use partition_by => '{column, ...}' with columns that the key has by the same names, or workers => 1, or mode => 'append'.")));
	for (int i = 0; i < list_length(how->columns); i++)
	{
		const char *name = list_nth(how->columns, i);
		const PplKeyColumn *column = ppl_key_column(key, name);
		Oid			type = get_atttype(segment->source,
									   (AttrNumber) atoi(list_nth(how->key, i)));

		if (column == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the key of output \"%s\" does not have column \"%s\" of partition_by",
							output->name, name),
					 errdetail("Its key is (%s). With %d workers, two of them could write one row.",
							   key_names(key), how->workers),
					 errhint("Use partition_by with columns that the key has by the same names, or key => '{%s, ...}', or mode => 'append'%s.",
							 name, behind ? ", or isolate => true for the output" : "")));
		if (OidIsValid(type) &&
			lookup_type_cache(column->type, TYPECACHE_HASH_OPFAMILY)->hash_opf !=
			lookup_type_cache(type, TYPECACHE_HASH_OPFAMILY)->hash_opf)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of the key of output \"%s\" has another type than that of partition_by",
							name, output->name),
					 errdetail("It is %s, and in the %s %s: they are hashed in different ways.",
							   format_type_be(column->type),
							   behind ? "rows that are handed over" : "source",
							   format_type_be(type)),
					 errhint("Give both columns the same type.")));
	}
}

/*
 * pipeline.partition_of(pipeline text, key text)
 */
Datum
pipeline_partition_of(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text(fcinfo, 0, "pipeline");
	char	   *text = ppl_args_text_or_null(fcinfo, 1);
	PplPipeline *pipeline = ppl_access_open(name, PPL_RIGHT_SEE, NoLock);
	PplPartitioner *partitioner = ppl_partition_make(pipeline);
	int			ncolumns;
	char	  **parts;
	Datum	   *values;
	bool	   *nulls;

	if (partitioner == NULL || partitioner->ncolumns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the events of pipeline \"%s\" are not shared out by columns",
						name),
				 errdetail("Its consistency is %s, and partition_by %s.",
						   pipeline->consistency,
						   pipeline->partitioning.columns == NIL ? "is not given" :
						   "does not matter then"),
				 errhint("SELECT consistency, partition_by, workers FROM pipeline.pipelines WHERE pipeline = %s;",
						 quote_literal_cstr(name))));
	ppl_partition_require(pipeline, partitioner);
	ncolumns = partitioner->ncolumns;
	parts = ncolumns == 1 ? &text : split_row(text, ncolumns);
	values = palloc0(ncolumns * sizeof(Datum));
	nulls = palloc0(ncolumns * sizeof(bool));
	for (int i = 0; i < ncolumns; i++)
	{
		Oid			function;
		Oid			param;

		/* not of a domain, whose checks may be anybody's code */
		getTypeInputInfo(getBaseType(partitioner->columns[i].type), &function,
						 &param);
		nulls[i] = parts[i] == NULL;
		if (!nulls[i])
			values[i] = OidInputFunctionCall(function, parts[i], param,
											 partitioner->columns[i].typmod);
	}
	PG_RETURN_INT32(ppl_partition_number(ppl_partition_hash(partitioner, values, nulls),
										 pipeline->partitioning.workers));
}

static void
refuse_row(const char *text, int ncolumns)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("malformed key: \"%s\"", text ? text : "NULL"),
			 errdetail("partition_by has %d columns.", ncolumns),
			 errhint("Write it as a row, as in '(a,b)'.")));
}

/* The fields of a row in text form, NULL for those that are null. */
static char **
split_row(char *text, int ncolumns)
{
	char	  **fields = palloc0(ncolumns * sizeof(char *));
	const char *p = text;
	int			n = 0;

	if (text == NULL || *p++ != '(')
		refuse_row(text, ncolumns);
	for (;;)
	{
		StringInfoData buf;
		bool		quoted = false;
		bool		any = false;

		initStringInfo(&buf);
		for (; *p != '\0' && (quoted || (*p != ',' && *p != ')')); p++)
		{
			any = true;
			if (*p == '\\' && p[1] != '\0')
				appendStringInfoChar(&buf, *++p);
			else if (*p == '"' && quoted && p[1] == '"')
				appendStringInfoChar(&buf, *++p);
			else if (*p == '"')
				quoted = !quoted;
			else
				appendStringInfoChar(&buf, *p);
		}
		if (*p == '\0' || n == ncolumns)
			refuse_row(text, ncolumns);
		fields[n++] = any ? buf.data : NULL;
		if (*p++ == ')')
			break;
	}
	if (n != ncolumns || *p != '\0')
		refuse_row(text, ncolumns);
	return fields;
}
