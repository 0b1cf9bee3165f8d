/*
 * repartition.c
 *		Give a pipeline, or a stage that begins a segment, another number of workers.
 *
 * Runs in the caller's backend, under the definition's lock.  The change takes effect
 * at the place that its control message has in the commit order, see
 * worker/repartition.c.
 */
#include "postgres.h"
#include "base/compat.h"

#include "utils/inval.h"

#include "api/access.h"
#include "api/change.h"
#include "api/segments.h"
#include "api/workers.h"
#include "base/control.h"
#include "catalog/names.h"
#include "catalog/sql.h"

static void require_workers(int workers);
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
	control.operations = segment->operations;
	control.workers = workers;
	ppl_control_emit(&control);
}
