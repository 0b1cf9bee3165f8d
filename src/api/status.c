/*
 * status.c
 *		Shared memory and counts as rows, for views and the ledger.
 *
 * Runs in the caller's backend.  What stands in shared memory is copied under
 * shared->lock and shown as of that moment; the views decide who sees it.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "api/access.h"
#include "api/args.h"
#include "base/latency.h"
#include "base/rate.h"
#include "base/shm.h"
#include "catalog/names.h"
#include "catalog/sql.h"

#define CONSUMER_COLUMNS 25
#define DATABASE_COLUMNS 15

PPL_FUNCTION(pipeline_consumers);
PPL_FUNCTION(pipeline_databases);
PPL_FUNCTION(pipeline_is_here);
PPL_FUNCTION(pipeline_launcher_pid);
PPL_FUNCTION(pipeline_ledger);

static void put_consumer(ReturnSetInfo *rsinfo, PplConsumer *consumer,
						 XLogRecPtr insert_lsn);
static const char *worker_state_word(PplWorkerState state);
static void put_database(ReturnSetInfo *rsinfo, PplDatabase *db);
static const char *database_state_word(PplDatabaseState state);
static Datum text_or_null(const char *value, bool *isnull);
static Datum lsn_or_null(XLogRecPtr lsn, bool *isnull);
static Datum time_or_null(TimestampTz time, bool *isnull);
static Datum error_or_null(const PplError *error, bool *isnull);
static void error_parts(const PplError *error, Datum *values, bool *nulls);
static void latency_percentiles(PplConsumer *consumer, Datum *values,
								bool *nulls);
static int	percentile_bucket(const uint64 *histogram, uint64 total,
							  double fraction);
static Datum microseconds_interval(int64 microseconds);

/*
 * _pipeline.consumers(): the workers of this database and their positions.
 */
Datum
pipeline_consumers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	XLogRecPtr	insert_lsn = RecoveryInProgress() ?
	GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr();

	InitMaterializedSRF(fcinfo, 0);
	if (ppl_shared == NULL)
		return (Datum) 0;
	for (int i = 0; i < ppl_shared->nused; i++)
	{
		PplConsumer copy;

		LWLockAcquire(ppl_shared->lock, LW_SHARED);
		copy = ppl_shared->consumers[i];
		LWLockRelease(ppl_shared->lock);
		if (copy.dboid == MyDatabaseId && !copy.dropped && !copy.retired &&
			!TransactionIdIsValid(copy.reserved_by))
			put_consumer(rsinfo, &copy, insert_lsn);
	}
	return (Datum) 0;
}

static void
put_consumer(ReturnSetInfo *rsinfo, PplConsumer *consumer,
			 XLogRecPtr insert_lsn)
{
	Datum		values[CONSUMER_COLUMNS];
	bool		nulls[CONSUMER_COLUMNS] = {0};
	XLogRecPtr	confirm_lsn = pg_atomic_read_u64(&consumer->confirm_lsn);
	bool		has_process = (consumer->process.pid != 0);

	values[0] = Int32GetDatum(consumer->place.pipeline_id);
	values[1] = Int32GetDatum(consumer->place.segment);
	values[2] = Int32GetDatum(consumer->place.partition);
	values[3] = CStringGetTextDatum(worker_state_word(consumer->lost ?
													  PPL_WORKER_LOST :
													  consumer->state));
	values[4] = Int32GetDatum((int32) consumer->process.pid);
	nulls[4] = !has_process;
	values[5] = time_or_null(has_process ? consumer->process.started_at : 0,
							 &nulls[5]);
	values[6] = BoolGetDatum(ppl_consumer_all_done(consumer));
	values[7] = lsn_or_null(pg_atomic_read_u64(&consumer->processed_lsn), &nulls[7]);
	values[8] = lsn_or_null(confirm_lsn, &nulls[8]);
	values[9] = Int64GetDatum(insert_lsn > confirm_lsn ?
							  (int64) (insert_lsn - confirm_lsn) : 0);
	nulls[9] = nulls[8];
	values[10] = Int64GetDatum((int64) pg_atomic_read_u64(&consumer->batches));
	values[11] = Int64GetDatum((int64) pg_atomic_read_u64(&consumer->retries));
	values[12] = time_or_null((TimestampTz) pg_atomic_read_u64(&consumer->last_commit_time),
							  &nulls[12]);
	latency_percentiles(consumer, &values[13], &nulls[13]);
	values[15] = error_or_null(&consumer->error, &nulls[15]);
	values[16] = time_or_null(consumer->error.at, &nulls[16]);
	values[17] = time_or_null(consumer->since, &nulls[17]);
	error_parts(&consumer->error, &values[18], &nulls[18]);
	values[22] = BoolGetDatum(pg_atomic_read_u64(&consumer->moves) !=
							  pg_atomic_read_u64(&consumer->moves_done));
	values[23] = Float8GetDatum(ppl_rate_read(consumer, GetCurrentTimestamp()));
	values[24] = BoolGetDatum(consumer->barrier);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static const char *
worker_state_word(PplWorkerState state)
{
	switch (state)
	{
		case PPL_WORKER_IDLE:
			return "idle";
		case PPL_WORKER_WAITING:
			return "waiting";
		case PPL_WORKER_STARTING:
			return "starting";
		case PPL_WORKER_RUNNING:
			return "running";
		case PPL_WORKER_RETRYING:
			return "retrying";
		case PPL_WORKER_PAUSED:
			return "paused";
		case PPL_WORKER_FAILED:
			return "failed";
		case PPL_WORKER_LOST:
			return "lost";
	}
	pg_unreachable();
}

/* Two columns: p50 and p99 of the latency. */
static void
latency_percentiles(PplConsumer *consumer, Datum *values, bool *nulls)
{
	uint64		histogram[PPL_LATENCY_BUCKETS];
	uint64		total = 0;

	for (int i = 0; i < PPL_LATENCY_BUCKETS; i++)
	{
		histogram[i] = pg_atomic_read_u64(&consumer->latency[i]);
		total += histogram[i];
	}
	nulls[0] = nulls[1] = (total == 0);
	if (total == 0)
	{
		values[0] = values[1] = (Datum) 0;
		return;
	}
	values[0] = microseconds_interval(ppl_latency_value(percentile_bucket(histogram, total, 0.50)));
	values[1] = microseconds_interval(ppl_latency_value(percentile_bucket(histogram, total, 0.99)));
}

static int
percentile_bucket(const uint64 *histogram, uint64 total, double fraction)
{
	uint64		seen = 0;

	for (int i = 0; i < PPL_LATENCY_BUCKETS; i++)
	{
		seen += histogram[i];
		if ((double) seen >= fraction * (double) total)
			return i;
	}
	return PPL_LATENCY_BUCKETS - 1;
}

static Datum
microseconds_interval(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(*interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

/*
 * _pipeline.databases(): all databases with an entry in shared memory.
 */
Datum
pipeline_databases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (ppl_shared == NULL)
		return (Datum) 0;
	for (int i = 0; i < ppl_shared->ndatabases; i++)
	{
		PplDatabase copy;

		LWLockAcquire(ppl_shared->lock, LW_SHARED);
		copy = ppl_shared->databases[i];
		LWLockRelease(ppl_shared->lock);
		if (OidIsValid(copy.dboid))
			put_database(rsinfo, &copy);
	}
	return (Datum) 0;
}

static void
put_database(ReturnSetInfo *rsinfo, PplDatabase *db)
{
	Datum		values[DATABASE_COLUMNS];
	bool		nulls[DATABASE_COLUMNS] = {0};

	values[0] = ObjectIdGetDatum(db->dboid);
	values[1] = CStringGetTextDatum(database_state_word(db->state));
	values[2] = Int32GetDatum((int32) db->capture.pid);
	nulls[2] = (db->capture.pid == 0);
	values[3] = lsn_or_null(db->slot_lsn, &nulls[3]);
	values[4] = lsn_or_null(pg_atomic_read_u64(&db->decoded_lsn), &nulls[4]);
	values[5] = lsn_or_null(pg_atomic_read_u64(&db->confirmed_lsn), &nulls[5]);
	values[6] = lsn_or_null(pg_atomic_read_u64(&db->wanted_lsn), &nulls[6]);
	values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&db->transactions));
	values[8] = error_or_null(&db->error, &nulls[8]);
	values[9] = time_or_null(db->error.at, &nulls[9]);
	values[10] = time_or_null(db->since, &nulls[10]);
	error_parts(&db->error, &values[11], &nulls[11]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static const char *
database_state_word(PplDatabaseState state)
{
	switch (state)
	{
		case PPL_DB_CHECK:
			return "check";
		case PPL_DB_SLOT:
			return "slot";
		case PPL_DB_READY:
			return "ready";
		case PPL_DB_FAILED:
			return "failed";
		case PPL_DB_CLOSING:
			return "closing";
		case PPL_DB_GONE:
			return "gone";
	}
	pg_unreachable();
}

static Datum
text_or_null(const char *value, bool *isnull)
{
	*isnull = (value == NULL);
	return value == NULL ? (Datum) 0 : CStringGetTextDatum(value);
}

static Datum
lsn_or_null(XLogRecPtr lsn, bool *isnull)
{
	*isnull = XLogRecPtrIsInvalid(lsn);
	return LSNGetDatum(lsn);
}

static Datum
time_or_null(TimestampTz time, bool *isnull)
{
	*isnull = (time == 0);
	return TimestampTzGetDatum(time);
}

/* An error as one text, with its hint. */
static Datum
error_or_null(const PplError *error, bool *isnull)
{
	if (error->sqlstate == 0)
		return text_or_null(NULL, isnull);
	if (error->hint[0] == '\0')
		return text_or_null(error->message, isnull);
	return text_or_null(psprintf("%s (hint: %s)", error->message, error->hint),
						isnull);
}

/* Four columns: SQLSTATE, message, detail and hint of an error. */
static void
error_parts(const PplError *error, Datum *values, bool *nulls)
{
	const char *parts[] = {
		error->sqlstate != 0 ? unpack_sql_state(error->sqlstate) : NULL,
		error->message, error->detail, error->hint
	};

	for (int i = 0; i < lengthof(parts); i++)
		values[i] = text_or_null(error->sqlstate != 0 && parts[i][0] != '\0' ?
								 parts[i] : NULL, &nulls[i]);
}

/*
 * _pipeline.launcher_pid(): null if there is no launcher.
 */
Datum
pipeline_launcher_pid(PG_FUNCTION_ARGS)
{
	pid_t		pid = 0;

	if (ppl_shared != NULL)
	{
		LWLockAcquire(ppl_shared->lock, LW_SHARED);
		pid = ppl_shared->launcher.pid;
		LWLockRelease(ppl_shared->lock);
	}
	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32((int32) pid);
}

/*
 * _pipeline.is_here(system_identifier bigint, database oid)
 */
Datum
pipeline_is_here(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL((uint64) PG_GETARG_INT64(0) == GetSystemIdentifier() &&
				   PG_GETARG_OID(1) == MyDatabaseId);
}

/* What segments hand over: its names, or the numbers of the segments. */
static PplSqlArg
hand_overs(const PplPipeline *pipeline, bool names)
{
	List	   *segments = ppl_definition_segments(pipeline);
	PplSqlArg  *elements = palloc((list_length(segments) + 1) * sizeof(PplSqlArg));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, segments)
	{
		const PplPipeline *segment = lfirst(lc);

		if (segment->hand != NULL)
			elements[n++] = names ? ppl_sql_arg_text(segment->hand) :
				ppl_sql_arg_int(segment->segment);
	}
	if (n == 0)
		return ppl_sql_arg_null(names ? TEXTARRAYOID : INT4ARRAYOID);
	return ppl_sql_arg_array(elements, n);
}

/*
 * pipeline.ledger(name text): a row an output, and one for what each segment hands
 * over.
 */
Datum
pipeline_ledger(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = ppl_args_text(fcinfo, 0, "name");
	PplPipeline *pipeline = ppl_access_open(name, PPL_RIGHT_SEE, NoLock);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(pipeline->pipeline_id),
		hand_overs(pipeline, true),
		hand_overs(pipeline, false),
	};
	PplSqlResult *rows =
	ppl_sql_run("SELECT o.name, coalesce(n.events, 0),"
				" coalesce(n.produced, 0), coalesce(n.filtered, 0),"
				" coalesce(n.rejected, 0), coalesce(n.failed, 0),"
				" coalesce(n.events = n.produced + n.filtered + n.rejected"
				"  + n.failed, true)"
				" FROM (SELECT output_id, name, NULL::int AS segment, 0 AS rank"
				"  FROM " PPL_OUTPUTS " WHERE pipeline_id = $1"
				"  UNION ALL SELECT -1, h.name, h.segment, 1"
				"  FROM unnest($2, $3) AS h (name, segment)) o"
				" LEFT JOIN LATERAL (SELECT sum(c.events)::int8 AS events,"
				"   sum(c.produced)::int8 AS produced,"
				"   sum(c.filtered)::int8 AS filtered,"
				"   sum(c.rejected)::int8 AS rejected,"
				"   sum(c.failed)::int8 AS failed"
				"  FROM " PPL_COUNTS " c WHERE c.pipeline_id = $1"
				"   AND c.output_id = o.output_id"
				"   AND (o.segment IS NULL OR c.segment = o.segment)) n ON true"
				" ORDER BY o.rank, o.segment, o.output_id",
				lengthof(args), args);

	InitMaterializedSRF(fcinfo, 0);
	for (int64 row = 0; row < rows->nrows; row++)
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
							 &rows->values[row * rows->ncolumns],
							 &rows->nulls[row * rows->ncolumns]);
	return (Datum) 0;
}
