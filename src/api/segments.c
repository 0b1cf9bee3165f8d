/*
 * segments.c
 *		Segments, as pipelines and their stages and outputs are declared.
 *
 * Runs in the caller's backend, under the definition's exclusive lock, so no batch is
 * under way.  Numbers are given once: what is left of a segment that is gone, in the
 * WAL and in tables, is never taken for that of another one.
 *
 * A segment that is added to a pipeline which was started is born with the change:
 * every batch after it hands over to it.  One that is taken away must have done all
 * that was handed over to it, unless it is an isolated output, with which all that
 * is left for it goes.  To find that out, capture is waited for, for a short time.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/segments.h"
#include "base/clock.h"
#include "base/control.h"
#include "base/event.h"
#include "base/shm.h"
#include "base/wake.h"
#include "catalog/names.h"
#include "catalog/sql.h"

#define CAPTURE_MS	10000		/* to decode what is committed */

static bool lacks(const List *shares, PplPlace place);
static bool same_stages(const PplPipeline *a, const PplPipeline *b);
static void check_change(const PplPipeline *before, const PplPipeline *segment,
						 const PplPipeline *after);
static void require_done(const PplPipeline *before, const PplPipeline *segment);
static void require_readers_done(const PplPipeline *before,
								 const PplPipeline *segment);
static void require_no_letters(const PplPipeline *before,
							   const PplPipeline *segment);
static bool is_done(const PplPipeline *segment);
static bool have_left(const PplPipeline *pipeline);
static bool is_level(const PplPipeline *segment);
static bool has_read_all(PplPlace place);
static XLogRecPtr wait_for_capture(PplDatabase *db);
static void forget_deeds(PplPlace place);
static void forget_hand_over(const PplPipeline *segment);
static void emit(const PplPipeline *pipeline, const PplShare *share,
				 PplControlAction action);

/*
 * A number that no segment of the pipeline ever had.
 */
int
ppl_segments_take_number(const PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};

	return ppl_sql_int(ppl_sql_run("UPDATE " PPL_PIPELINES
								   " SET next_segment = next_segment + 1"
								   " WHERE pipeline_id = $1"
								   " RETURNING next_segment - 1",
								   lengthof(args), args), 0, 0);
}

/*
 * The segment of a stage that is appended.  Isolated outputs come behind the last
 * stage, so they get new numbers; error 55000 if they may have events already.
 */
int
ppl_segments_of_stage(const PplPipeline *pipeline, bool isolate)
{
	int			segment = ppl_definition_last_segment(pipeline);
	ListCell   *lc;

	if (isolate && pipeline->stages != NIL)
		segment = ppl_segments_take_number(pipeline);
	foreach(lc, pipeline->outputs)
	{
		const PplOutput *output = lfirst(lc);
		PplSqlArg	args[] = {
			ppl_sql_arg_int(output->output_id),
			ppl_sql_arg_int(0),
		};

		if (output->segment == 0)
			continue;
		if (pipeline->born)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the isolated output \"%s\" of pipeline \"%s\" reads what the last stage returns today",
							output->name, pipeline->name),
					 errdetail("A stage more would change the rows that are on their way to it."),
					 errhint("SELECT pipeline.drop_output(%s, %s); add the stage, and add the output again.",
							 quote_literal_cstr(pipeline->name),
							 quote_literal_cstr(output->name))));
		args[1] = ppl_sql_arg_int(ppl_segments_take_number(pipeline));
		(void) ppl_sql_run("UPDATE " PPL_OUTPUTS " SET segment = $2"
						   " WHERE output_id = $1", lengthof(args), args);
	}
	return segment;
}

/*
 * A stage is about to go: if it begins a segment, those that stay of that join the
 * segment before.
 */
void
ppl_segments_join(const PplPipeline *pipeline, const char *stage)
{
	const PplStage *previous = NULL;
	ListCell   *lc;

	foreach(lc, pipeline->stages)
	{
		const PplStage *candidate = lfirst(lc);

		if (strcmp(candidate->name, stage) == 0)
		{
			PplSqlArg	args[] = {
				ppl_sql_arg_int(pipeline->pipeline_id),
				ppl_sql_arg_int(candidate->segment),
				ppl_sql_arg_int(previous ? previous->segment : 0),
			};

			if (previous != NULL && previous->segment != candidate->segment)
				(void) ppl_sql_run("UPDATE " PPL_STAGES " SET segment = $3"
								   " WHERE pipeline_id = $1 AND segment = $2",
								   lengthof(args), args);
			return;
		}
		previous = candidate;
	}
}

/*
 * May a definition become another one?  Error 55000 if rows that are on their way between segments would be lost, or would
 * meet other stages than they were made for.
 */
void
ppl_segments_check(const PplPipeline *before, const PplPipeline *after)
{
	ListCell   *lc;

	if (!before->born)
		return;
	foreach(lc, ppl_definition_segments(before))
		check_change(before, lfirst(lc), after);

	/* it may have been there once, and its number never comes again */
	if (ppl_definition_segment(before, 1) == NULL &&
		ppl_definition_segment(after, 1) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("all outputs of pipeline \"%s\" are isolated, and it was started",
						before->name),
				 errdetail("It has no stage, so what is not isolated would be a segment that it does not have any more."),
				 errhint("Use isolate => true.")));
}

static void
check_change(const PplPipeline *before, const PplPipeline *segment,
			 const PplPipeline *after)
{
	const PplPipeline *then = ppl_definition_segment(after, segment->segment);

	if (then == NULL && segment->stages == NIL)
		return;
	if ((then == NULL && segment->upstream == 0 && after->stages != NIL) ||
		(then != NULL && then->upstream != segment->upstream))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment %d of pipeline \"%s\" cannot be dropped",
						then == NULL ? segment->segment : segment->upstream,
						before->name),
				 errdetail("The pipeline was started, and rows that it handed over may be on their way to segments behind it."),
				 errhint("Drop the stages and isolated outputs behind it first, the last one first.")));
	if (then == NULL)
	{
		require_done(before, segment);
		require_no_letters(before, segment);
	}
	else if (segment->hand != NULL && then->hand != NULL &&
			 !same_stages(segment, then))
		require_readers_done(before, segment);
}

/* Do two segments end in the same stage? */
static bool
same_stages(const PplPipeline *a, const PplPipeline *b)
{
	return ((PplStage *) llast(a->stages))->stage_id ==
		((PplStage *) llast(b->stages))->stage_id;
}

/*
 * Error 55000 unless a segment has done all that was handed over to it, or is lost and
 * will not do it in any case.
 */
static void
require_done(const PplPipeline *before, const PplPipeline *segment)
{
	if (segment->upstream == 0 ||
		list_member_int(before->lost, segment->segment) || is_done(segment))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("segment %d of pipeline \"%s\" has not done all that was handed over to it",
					segment->segment, before->name),
			 errdetail("With this change these rows would be lost, or would meet other stages than they were made for."),
			 errhint("SELECT pipeline.wait_for(%s); and try again while nobody writes to the source.",
					 quote_literal_cstr(before->name))));
}

static void
require_readers_done(const PplPipeline *before, const PplPipeline *segment)
{
	ListCell   *lc;

	foreach(lc, ppl_definition_segments(before))
	{
		const PplPipeline *reader = lfirst(lc);

		if (reader->upstream == segment->segment)
			require_done(before, reader);
	}
}

/* Who would run them again? */
static void
require_no_letters(const PplPipeline *before, const PplPipeline *segment)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(before->pipeline_id),
		ppl_sql_arg_int(segment->segment),
	};

	if (segment->upstream != 0 &&
		ppl_sql_bool(ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_DEAD_LETTERS
								 " WHERE pipeline_id = $1 AND segment = $2"
								 " AND state = 'open')",
								 lengthof(args), args), 0, 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment %d of pipeline \"%s\" has open dead letters",
						segment->segment, before->name),
				 errdetail("Without the segment nobody would run them again."),
				 errhint("SELECT pipeline.redrive(%1$s); or SELECT pipeline.discard(%1$s, ids, why); first.",
						 quote_literal_cstr(before->name))));
}

/*
 * Have a segment's workers no event left, neither in the spool nor in the backlog?
 * Control records do not count, but for a change of their number, which all of them
 * must have come to.
 */
static bool
is_done(const PplPipeline *segment)
{
	PplDatabase *db = ppl_shared ? ppl_database_find(MyDatabaseId) : NULL;
	PplSqlArg	args[] = {
		ppl_sql_arg_int(segment->pipeline_id),
		ppl_sql_arg_int(segment->segment),
		ppl_sql_arg_int(segment->partitioning.workers),
	};
	XLogRecPtr	lsn;

	if (db == NULL)
		return false;
	lsn = wait_for_capture(db);
	for (int i = 1; i <= segment->partitioning.workers; i++)
	{
		PplPlace	place = {segment->pipeline_id, segment->segment, i};

		if (!has_read_all(place))
			return false;
	}
	pg_read_barrier();

	/* of what is not decoded, nobody knows yet whose it is */
	return pg_atomic_read_u64(&db->decoded_lsn) >= lsn &&
		!ppl_sql_bool(ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_BACKLOG
								  " WHERE pipeline_id = $1 AND segment = $2)"
								  " OR EXISTS (SELECT FROM " PPL_CHECKPOINTS
								  " WHERE pipeline_id = $1 AND segment = $2"
								  " AND partition > $3)",
								  lengthof(args), args), 0, 0);
}

/*
 * Error 55000 unless a pipeline is stopped, no worker of it is there any more, and all of
 * them have done what is committed, and come to the last change of their number.
 */
void
ppl_segments_require_still(const PplPipeline *pipeline)
{
	char	   *name = quote_literal_cstr(pipeline->name);
	bool		done = true;
	ListCell   *lc;

	if (pipeline->running || !have_left(pipeline))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is running", pipeline->name),
				 errdetail("By which rule events are shared out can be changed when it is stopped, in a transaction before, and has done all that is committed."),
				 errhint("SELECT pipeline.wait_for(%1$s); SELECT pipeline.stop(%1$s); and try again while nobody writes to the source.",
						 name)));
	foreach(lc, ppl_definition_segments(pipeline))
	{
		const PplPipeline *segment = lfirst(lc);

		done = done && is_done(segment) && is_level(segment);
	}
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has not done all that is committed",
						pipeline->name),
				 errdetail("By which rule events are shared out can be changed when it is stopped and none is on its way."),
				 errhint("SELECT pipeline.start(%1$s); SELECT pipeline.wait_for(%1$s); SELECT pipeline.stop(%1$s); and try again while nobody writes to the source.",
						 name)));
}

/* Wait for a moment until no process works for a pipeline; false if one still does. */
static bool
have_left(const PplPipeline *pipeline)
{
	PplDatabase *db = ppl_shared ? ppl_database_find(MyDatabaseId) : NULL;
	int64		begin = ppl_clock_ms();
	bool		left = false;

	if (db == NULL)
		return false;
	(void) wait_for_capture(db);
	ConditionVariablePrepareToSleep(&db->changed);
	while (!left && ppl_clock_ms() - begin < CAPTURE_MS)
	{
		left = true;
		LWLockAcquire(ppl_shared->lock, LW_SHARED);
		for (int i = 0; i < ppl_shared->nused; i++)
		{
			const PplConsumer *consumer = &ppl_shared->consumers[i];

			left &= consumer->dboid != MyDatabaseId ||
				consumer->place.pipeline_id != pipeline->pipeline_id ||
				(consumer->process.pid == 0 && !consumer->process.ordered);
		}
		LWLockRelease(ppl_shared->lock);
		if (!left)
			(void) ConditionVariableTimedSleep(&db->changed, 10, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return left;
}

/* Have all workers of a segment begun, and come to the last change of their number? */
static bool
is_level(const PplPipeline *segment)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(segment->pipeline_id),
		ppl_sql_arg_int(segment->segment),
		ppl_sql_arg_int(segment->partitioning.workers),
		ppl_sql_arg_int(segment->partitioning.since),
	};

	return ppl_sql_bool(ppl_sql_run("SELECT count(*) = $3 FROM " PPL_CHECKPOINTS
									" WHERE pipeline_id = $1 AND segment = $2"
									" AND version >= $4",
									lengthof(args), args), 0, 0);
}

/* Has a worker no event left in the spool? */
static bool
has_read_all(PplPlace place)
{
	PplConsumer *consumer;
	bool		done = false;

	LWLockAcquire(ppl_shared->lock, LW_SHARED);
	consumer = ppl_consumer_find(MyDatabaseId, place);
	if (consumer != NULL)
	{
		uint64		end = pg_atomic_read_u64(&consumer->events_pos);

		pg_read_barrier();
		done = pg_atomic_read_u64(&consumer->read_pos) >= end;
	}
	LWLockRelease(ppl_shared->lock);
	return done;
}

/*
 * Have all that is committed by now decoded: the end of that.  If capture does not get
 * there for long, it is not waited for any longer.
 */
static XLogRecPtr
wait_for_capture(PplDatabase *db)
{
	XLogRecPtr	lsn = ppl_wake_record_end(GetXLogInsertRecPtr());
	int64		begin = ppl_clock_ms();

	ConditionVariablePrepareToSleep(&db->changed);
	while (pg_atomic_read_u64(&db->decoded_lsn) < lsn &&
		   ppl_clock_ms() - begin < CAPTURE_MS)
	{
		ppl_wake_capture(db, lsn);
		(void) ConditionVariableTimedSleep(&db->changed, 100, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return lsn;
}

/*
 * A definition became another one, and was told: segments that are gone end, new
 * ones are born.
 */
void
ppl_segments_change(const PplPipeline *before, const PplPipeline *after)
{
	List	   *old = ppl_definition_shares(before);
	List	   *now = ppl_definition_shares(after);
	List	   *born = NIL;
	ListCell   *lc;

	foreach(lc, old)
	{
		PplShare	share = *(const PplShare *) lfirst(lc);
		const PplPipeline *segment;

		if (!lacks(now, share.place) || share.place.partition > 1)
			continue;
		segment = ppl_definition_segment(before, share.place.segment);
		/* also those that are to go, but have not come to that yet */
		share.place.partition = 0;
		if (before->born)
			emit(after, &share, PPL_CONTROL_DROP);
		ppl_segments_forget_position(share.place.pipeline_id,
									 share.place.segment);
		if (segment->stages == NIL)
			forget_deeds(share.place);
	}
	foreach(lc, ppl_definition_segments(before))
	{
		const PplPipeline *segment = lfirst(lc);
		const PplPipeline *then = ppl_definition_segment(after, segment->segment);

		if (segment->hand != NULL && (then == NULL || then->hand == NULL))
			forget_hand_over(segment);
	}
	if (!before->born)
		return;
	foreach(lc, now)
	{
		if (lacks(old, ((PplShare *) lfirst(lc))->place))
			born = lappend(born, lfirst(lc));
	}
	ppl_segments_take_places(after, born);
	foreach(lc, born)
	{
		ppl_segments_emit_birth(after, lfirst(lc));
		if (!after->running)
			emit(after, lfirst(lc), PPL_CONTROL_STOP);
	}
}

static bool
lacks(const List *shares, PplPlace place)
{
	ListCell   *lc;

	foreach(lc, shares)
	{
		if (ppl_place_equal(((PplShare *) lfirst(lc))->place, place))
			return false;
	}
	return true;
}

/*
 * How far a segment has come, what is kept for it, and that it was lost.
 */
void
ppl_segments_forget_position(int pipeline_id, int segment)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline_id),
		ppl_sql_arg_int(segment),
	};

	(void) ppl_sql_run("WITH backlog AS ("
					   " DELETE FROM " PPL_BACKLOG
					   " WHERE pipeline_id = $1 AND segment = $2),"
					   " lost AS ("
					   " UPDATE " PPL_PIPELINES
					   " SET lost_segments = array_remove(lost_segments, $2)"
					   " WHERE pipeline_id = $1 AND $2 = ANY (lost_segments))"
					   " DELETE FROM " PPL_CHECKPOINTS
					   " WHERE pipeline_id = $1 AND segment = $2",
					   lengthof(args), args);
}

/* What an output did that is gone. */
static void
forget_deeds(PplPlace place)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(place.pipeline_id),
		ppl_sql_arg_int(place.segment),
	};

	(void) ppl_sql_run("WITH counts AS ("
					   " DELETE FROM " PPL_COUNTS
					   " WHERE pipeline_id = $1 AND segment = $2),"
					   " letters AS ("
					   " DELETE FROM " PPL_DEAD_LETTERS
					   " WHERE pipeline_id = $1 AND segment = $2),"
					   " reruns AS ("
					   " DELETE FROM " PPL_RERUNS
					   " WHERE pipeline_id = $1 AND segment = $2)"
					   " DELETE FROM " PPL_BATCHES
					   " WHERE pipeline_id = $1 AND segment = $2",
					   lengthof(args), args);
}

/* Nobody reads any more what a segment hands over. */
static void
forget_hand_over(const PplPipeline *segment)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(segment->pipeline_id),
		ppl_sql_arg_int(segment->segment),
	};

	(void) ppl_sql_run("WITH letters AS ("
					   " UPDATE " PPL_DEAD_LETTERS " SET handing = false"
					   " WHERE pipeline_id = $1 AND segment = $2 AND handing)"
					   " DELETE FROM " PPL_COUNTS
					   " WHERE pipeline_id = $1 AND segment = $2 AND output_id = -1",
					   lengthof(args), args);
}

/*
 * Take places in shared memory for workers that are born.  Capture fills them when
 * it reads the messages of their birth, too late to refuse.
 */
void
ppl_segments_take_places(const PplPipeline *pipeline, const List *shares)
{
	ListCell   *lc;

	foreach(lc, shares)
	{
		const PplShare *share = lfirst(lc);

		if (ppl_consumer_reserve(share->place, GetCurrentTransactionId()))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many started pipelines"),
				 errdetail_plural("pipeline.max_segments is %d, and too few are free; pipeline \"%s\" needs %d.",
								  "pipeline.max_segments is %d, and too few are free; pipeline \"%s\" needs %d.",
								  list_length(shares), ppl_shared->nconsumers,
								  pipeline->name, list_length(shares)),
				 errhint("ALTER SYSTEM SET pipeline.max_segments = %d; then restart the server.",
						 Max(ppl_shared->nconsumers * 2, list_length(shares)))));
	}
}

/*
 * From this transaction on, a worker has events.
 */
void
ppl_segments_emit_birth(const PplPipeline *pipeline, const PplShare *share)
{
	emit(pipeline, share, PPL_CONTROL_BIRTH);
}

/* Tell one worker, or all of a segment. */
static void
emit(const PplPipeline *pipeline, const PplShare *share, PplControlAction action)
{
	PplControl	control = {0};

	control.action = action;
	control.pipeline_id = pipeline->pipeline_id;
	control.segment = share->place.segment;
	control.partition = share->place.partition;
	control.version = pipeline->version;
	control.source = share->source;
	control.owner = pipeline->owner;
	control.operations = share->operations;
	control.workers = action == PPL_CONTROL_BIRTH ? share->workers : 0;
	ppl_control_emit(&control);
}
