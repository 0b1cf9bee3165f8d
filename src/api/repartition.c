/*
 * repartition.c
 *		Give a pipeline, or a stage that begins a segment, another number of workers.
 *
 * Runs in the caller's backend, under the definition's lock.  The change takes effect
 * at the place that its control message has in the commit order, see
 * worker/repartition.c.  By which columns events are shared out changes only while
 * none is on its way.
 */
#include "postgres.h"
#include "base/compat.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "api/access.h"
#include "api/change.h"
#include "api/segments.h"
#include "api/workers.h"
#include "base/control.h"
#include "catalog/names.h"
#include "catalog/sql.h"

static void require_workers(int workers);
static char *column_list(const List *columns);
static void require_nothing_kept(const PplPipeline *pipeline);
static void level_checkpoints(const PplPipeline *pipeline);
static void emit_change(const PplPipeline *segment, const PplPipeline *pipeline,
						int workers);

/*
 * So many workers from now on; no change if there are as many already.  *pipeline is
 * open for a change.  Errors: all that ppl_workers_settle says, 53400 if there are too
 * few places in shared memory.
 */
void
ppl_repartition(PplPipeline *pipeline, int workers)
{
	PplPartitioning *how = &pipeline->partitioning;
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(workers),
	};
	ListCell   *lc;
	char	   *before = psprintf("%d", how->workers);

	require_workers(workers);
	if (workers == how->workers)
		return;
	how->workers = workers;
	ppl_workers_settle(pipeline);
	ppl_access_bump_version(pipeline);
	(void) ppl_sql_run("UPDATE " PPL_PIPELINES
					   " SET workers = $2, partition_since = version"
					   " WHERE pipeline_id = $1",
					   lengthof(args), args);
	ppl_access_audit(pipeline, "alter_pipeline", "workers", psprintf("%d", workers),
					 "before", before, NULL);
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
	if (!pipeline->born)
		return;

	*pipeline = *ppl_access_reload(pipeline);
	ppl_segments_take_places(pipeline, ppl_definition_shares(pipeline));
	foreach(lc, ppl_definition_segments(pipeline))
	{
		const PplPipeline *segment = lfirst(lc);

		if (segment->upstream == 0)
			emit_change(segment, pipeline, workers);
	}
}

/*
 * The same for the segment that a stage begins.  Errors besides: 22023 if it begins
 * none behind a hand-over.
 */
void
ppl_repartition_stage(PplPipeline *pipeline, const char *name, int workers)
{
	PplStage   *stage = ppl_change_find_stage(pipeline, name);
	const PplPipeline *segment = ppl_definition_segment(pipeline, stage->segment);
	char	   *before = psprintf("%d", stage->workers);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		ppl_sql_arg_int(stage->stage_id),
		ppl_sql_arg_int(workers),
	};

	require_workers(workers);
	ppl_workers_check_stage(pipeline, name,
							segment->upstream != 0 && linitial(segment->stages) == stage,
							linitial(pipeline->stages) == stage);
	if (workers == stage->workers)
		return;
	stage->workers = workers;
	ppl_workers_settle(pipeline);
	ppl_access_bump_version(pipeline);
	(void) ppl_sql_run("UPDATE " PPL_STAGES " s"
					   " SET workers = $3, partition_since = p.version"
					   " FROM " PPL_PIPELINES " p"
					   " WHERE s.stage_id = $2 AND p.pipeline_id = $1",
					   lengthof(args), args);
	ppl_access_audit(pipeline, "alter_stage", "stage", name,
					 "workers", psprintf("%d", workers), "before", before, NULL);
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
	if (!pipeline->born)
		return;

	*pipeline = *ppl_access_reload(pipeline);
	ppl_segments_take_places(pipeline, ppl_definition_shares(pipeline));
	emit_change(ppl_definition_segment(pipeline, segment->segment), pipeline,
				workers);
}

/*
 * Another consistency, or other columns by which events are shared out; NULL and NIL
 * leave them.  workers is what the caller changes their number to after this; of a
 * pipeline that was started, so many as there are share what comes before that.
 *
 * A pipeline that was started must stand still with all done: workers hold positions of
 * their own, and an event between two of these was done by one of them, but might be
 * another one's by the new columns.  So all get one position, that of the furthest.
 * Nothing must be stored with the hash of its event.
 */
void
ppl_repartition_anew(PplPipeline *pipeline, const char *consistency,
					 List *columns, int workers)
{
	PplPartitioning *how = &pipeline->partitioning;
	PplPipeline undecided;
	PplSqlArg	args[2];

	if ((consistency == NULL || strcmp(consistency, pipeline->consistency) == 0) &&
		(columns == NIL ||
		 (!how->chosen && ppl_workers_same_words(columns, how->columns))))
		return;
	if (pipeline->born)
	{
		ppl_segments_require_still(pipeline);
		require_nothing_kept(pipeline);
	}
	if (consistency != NULL)
		pipeline->consistency = pstrdup(consistency);
	how->ordered = strcmp(pipeline->consistency, "strong") == 0;
	if (columns != NIL || how->chosen)
	{
		how->columns = columns;
		how->chosen = false;
	}

	/* columns are chosen, and looked up, as before the first start */
	undecided = *pipeline;
	undecided.born = false;
	if (!pipeline->born)
		undecided.partitioning.workers = workers;
	ppl_workers_settle(&undecided);

	args[0] = ppl_sql_arg_int(pipeline->pipeline_id);
	args[1] = ppl_sql_arg_text(pipeline->consistency);
	ppl_access_bump_version(pipeline);
	(void) ppl_sql_run("UPDATE " PPL_PIPELINES " SET consistency = $2"
					   " WHERE pipeline_id = $1", lengthof(args), args);
	if (pipeline->born)
		level_checkpoints(pipeline);
	ppl_access_audit(pipeline, "alter_pipeline",
					 "consistency", pipeline->consistency,
					 "partition_by", column_list(undecided.partitioning.columns),
					 NULL);
	ppl_change_finish(pipeline, false);
}

/* Names with commas between, NULL for none. */
static char *
column_list(const List *columns)
{
	StringInfoData buf;
	ListCell   *lc;

	if (columns == NIL)
		return NULL;
	initStringInfo(&buf);
	foreach(lc, columns)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
						 quote_identifier(lfirst(lc)));
	return buf.data;
}

/*
 * Error 55000 if something is stored with the hash of its event: an open dead letter, or
 * what rows of the source produced in upsert outputs.
 */
static void
require_nothing_kept(const PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};
	PplSqlResult *rows;

	rows = ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_DEAD_LETTERS
					   "  WHERE pipeline_id = $1 AND state = 'open'),"
					   " (SELECT min(o.name) FROM " PPL_OUTPUTS " o"
					   "  WHERE o.pipeline_id = $1 AND EXISTS ("
					   "   SELECT FROM " PPL_KEPT " k WHERE k.output_id = o.output_id))",
					   lengthof(args), args);
	if (ppl_sql_bool(rows, 0, 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has open dead letters", pipeline->name),
				 errdetail("Which worker has to run each of them again would not be known any more."),
				 errhint("SELECT pipeline.redrive(%1$s); or SELECT pipeline.discard(%1$s, ids, why); first.",
						 quote_literal_cstr(pipeline->name))));
	if (!ppl_sql_isnull(rows, 0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("what rows of the source produced in output \"%s\" is kept by worker",
						ppl_sql_text(rows, 0, 1)),
				 errdetail("Which one has to replace or remove a row would not be known any more."),
				 errhint("SELECT pipeline.drop_output(%s, %s); first, and add the output again.",
						 quote_literal_cstr(pipeline->name),
						 quote_literal_cstr(ppl_sql_text(rows, 0, 1)))));
}

/* All is done up to the furthest position of each segment: there all its workers go on. */
static void
level_checkpoints(const PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};

	(void) ppl_sql_run("UPDATE " PPL_CHECKPOINTS " c"
					   " SET commit_lsn = l.commit_lsn, seq = l.seq, version = l.version"
					   " FROM (SELECT DISTINCT ON (segment) segment, commit_lsn, seq, version"
					   "  FROM " PPL_CHECKPOINTS " WHERE pipeline_id = $1"
					   "  ORDER BY segment, commit_lsn DESC, seq DESC) l"
					   " WHERE c.pipeline_id = $1 AND c.segment = l.segment",
					   lengthof(args), args);
}

static void
require_workers(int workers)
{
	if (workers < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("workers must be at least 1"),
				 errdetail("It is %d.", workers)));
}

/* The place in the order of events from which on it holds. */
static void
emit_change(const PplPipeline *segment, const PplPipeline *pipeline, int workers)
{
	PplControl	control = {0};

	control.action = PPL_CONTROL_CHANGE;
	control.pipeline_id = pipeline->pipeline_id;
	control.segment = segment->segment;
	control.version = pipeline->version;
	control.source = segment->source;
	control.owner = pipeline->owner;
	control.operations = ppl_definition_takes(segment);
	control.workers = workers;
	ppl_control_emit(&control);
}
