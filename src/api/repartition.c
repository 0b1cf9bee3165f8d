/*
 * repartition.c
 *		Give a pipeline another number of workers.
 *
 * Runs in the caller's backend, under the definition's lock.  The change takes effect
 * at the place that its control message has in the commit order, see
 * worker/repartition.c.
 */
#include "postgres.h"
#include "base/compat.h"

#include "utils/inval.h"

#include "api/access.h"
#include "api/segments.h"
#include "api/workers.h"
#include "base/control.h"
#include "catalog/names.h"
#include "catalog/sql.h"

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
	PplControl	control = {0};
	ListCell   *lc;
	char	   *before = psprintf("%d", how->workers);

	if (workers < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("workers must be at least 1"),
				 errdetail("It is %d.", workers)));
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
	control.action = PPL_CONTROL_CHANGE;
	control.pipeline_id = pipeline->pipeline_id;
	control.version = pipeline->version;
	control.source = pipeline->source;
	control.owner = pipeline->owner;
	control.operations = pipeline->operations;
	control.workers = workers;
	foreach(lc, ppl_definition_segments(pipeline))
	{
		const PplPipeline *segment = lfirst(lc);

		if (segment->upstream != 0)
			continue;
		control.segment = segment->segment;
		ppl_control_emit(&control);
	}
}
