/*
 * lost.c
 *		Segments whose backlog would be larger than it may.
 *
 * The mover gives up a segment: all of its partitions, since these meet at
 * changes of their number, and no other segment.  That is a fact of the
 * definition (lost_segments), until start(skip_to_now => true) or the end of the
 * segment.  Who reads it there, under the definition's lock, tells everybody by
 * shared memory: so a birth that comes after cannot be overtaken by the word of
 * what was before it, and it does not matter who ends between the two.
 *
 * Runs in the mover, in capture and in workers.  Blocks on nobody.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"

#include "backlog/lost.h"
#include "base/guc.h"
#include "base/shm.h"
#include "catalog/definition.h"
#include "catalog/names.h"
#include "catalog/sql.h"

static const char *const lose_sql =
"WITH lost AS (UPDATE " PPL_PIPELINES
"   SET lost_segments = lost_segments || $2"
"   WHERE pipeline_id = $1 RETURNING pipeline_id, name)"
" INSERT INTO " PPL_AUDIT_LOG " (who, action, pipeline_id, pipeline, detail)"
" SELECT $3, 'lost', l.pipeline_id, l.name, pg_catalog.jsonb_build_object("
"   'reason', 'The backlog is larger than pipeline.max_backlog.',"
"   'segment', $2, 'backlog_bytes', $4, 'max_backlog', $5,"
"   'processed_lsn', (SELECT pg_catalog.min(c.commit_lsn) FROM " PPL_CHECKPOINTS " c"
"     WHERE c.pipeline_id = $1 AND c.segment = $2))"
" FROM lost l";

/*
 * Note in the definition and in the audit log that the segment of a place is
 * lost, because its backlog would have had so many bytes.  In a transaction,
 * under the definition's lock.
 */
void
ppl_backlog_lose(PplPlace place, int64 bytes)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(place.pipeline_id),
		ppl_sql_arg_int(place.segment),
		ppl_sql_arg_text(GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false)),
		ppl_sql_arg(INT8OID, Int64GetDatum(bytes)),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) ppl_guc_max_backlog * 1024 * 1024)),
	};

	(void) ppl_sql_run(lose_sql, lengthof(args), args);
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
}

/*
 * The definition says that the segment of a place is lost: nothing is held for it
 * from now on, and its workers leave.  If it happened just now, the log has it, too.
 */
void
ppl_backlog_tell_lost(PplPlace place, const char *name, bool now)
{
	char	   *limit = now ? psprintf(" (%d MB)", ppl_guc_max_backlog) : "";
	char	   *message = psprintf("the backlog of segment %d was larger than pipeline.max_backlog%s",
								   place.segment, limit);
	char	   *hint = psprintf("SELECT pipeline.start(%s, skip_to_now => true); goes on from now and leaves out what was committed in between.",
								quote_literal_cstr(name));

	LWLockAcquire(ppl_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer *consumer = &ppl_shared->consumers[i];

		if (consumer->dboid != MyDatabaseId ||
			consumer->place.pipeline_id != place.pipeline_id ||
			consumer->place.segment != place.segment)
			continue;
		consumer->lost = true;
		ppl_consumer_set_state(consumer, PPL_WORKER_LOST);
		ppl_error_set(&consumer->error, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					  message, NULL, hint);
		ppl_wake(&consumer->process.procno);
	}
	LWLockRelease(ppl_shared->lock);

	if (now)
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the position of pipeline \"%s\" is lost in segment %d",
						name, place.segment),
				 errdetail("The backlog of the segment was larger than pipeline.max_backlog, which is %d MB.",
						   ppl_guc_max_backlog),
				 errhint("%s", hint)));
}
