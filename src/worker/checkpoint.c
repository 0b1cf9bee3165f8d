/*
 * checkpoint.c
 *		Position, counts and the batch's record: what commits with the outputs.
 *
 * Runs in the batch's transaction, elevated: the owner of a pipeline can read
 * and forge none of it.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "base/shm.h"
#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/checkpoint.h"
#include "worker/outcome.h"

/* The three parameters that a place takes. */
#define PLACE_ARGS(place)	ppl_sql_arg_int((place).pipeline_id), \
							ppl_sql_arg_int((place).segment), \
							ppl_sql_arg_int((place).partition)

#define RECORD_NARGS 27

/* The counts of a stage are sampled about once a minute, for its rates. */
#define SAMPLE_IS_OLD "s.sampled_at < excluded.sampled_at - interval '1 minute'"

static const char *const record_sql =
"WITH moved AS ("
"  UPDATE " PPL_CHECKPOINTS " SET commit_lsn = $2, seq = $3, version = $4,"
"    updated_at = pg_catalog.clock_timestamp()"
"  WHERE pipeline_id = $1 AND segment = $25 AND partition = $26"
"    AND commit_lsn = $5 AND seq = $6 RETURNING 1),"
" counted AS ("
"  INSERT INTO " PPL_COUNTS " AS c"
"    (pipeline_id, segment, partition, output_id, events, produced, filtered,"
"     rejected, failed)"
"  SELECT $1, $25, $26, d.* FROM ROWS FROM (pg_catalog.unnest($7), pg_catalog.unnest($8),"
"    pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11),"
"    pg_catalog.unnest($12)) AS d"
"  ON CONFLICT (pipeline_id, segment, partition, output_id) DO UPDATE SET"
"    events = c.events + excluded.events,"
"    produced = c.produced + excluded.produced,"
"    filtered = c.filtered + excluded.filtered,"
"    rejected = c.rejected + excluded.rejected,"
"    failed = c.failed + excluded.failed),"
" tallied AS ("
"  INSERT INTO " PPL_STAGE_COUNTS " AS s"
"    (pipeline_id, segment, partition, stage_id, events, rows, microseconds,"
"     errors, sampled_at, former_at)"
"  SELECT $1, $25, $26, d.*, $23, $23"
"  FROM ROWS FROM (pg_catalog.unnest($13), pg_catalog.unnest($14),"
"    pg_catalog.unnest($15), pg_catalog.unnest($16), pg_catalog.unnest($17)) AS d"
"  ON CONFLICT (pipeline_id, segment, partition, stage_id) DO UPDATE SET"
"    events = s.events + excluded.events,"
"    rows = s.rows + excluded.rows,"
"    microseconds = s.microseconds + excluded.microseconds,"
"    errors = s.errors + excluded.errors,"
"    former = CASE WHEN " SAMPLE_IS_OLD " THEN s.sample ELSE s.former END,"
"    former_at = CASE WHEN " SAMPLE_IS_OLD " THEN s.sampled_at ELSE s.former_at END,"
"    sample = CASE WHEN " SAMPLE_IS_OLD
"      THEN ARRAY[s.events, s.rows, s.microseconds, s.errors] ELSE s.sample END,"
"    sampled_at = CASE WHEN " SAMPLE_IS_OLD " THEN excluded.sampled_at"
"      ELSE s.sampled_at END)"
" INSERT INTO " PPL_BATCHES
"  (pipeline_id, segment, partition, version, redrive, first_lsn, first_seq,"
"   last_lsn, last_seq, transactions, events, produced, filtered, rejected,"
"   failed, attempts, started_at, processed_at, lineage)"
" SELECT $1, $25, $26, $27, $18, $19, $20, $2, $3, $21, $8[1],"
"   $9[1], $10[1], $11[1], $12[1], $22, $23, pg_catalog.clock_timestamp(), $24"
" WHERE $18 OR EXISTS (SELECT FROM moved)"
" RETURNING batch_id";

/*
 * Read the checkpoint of a place.
 */
void
ppl_checkpoint_load(PplPlace place, PplCheckpoint *checkpoint)
{
	PplDatabase *db = ppl_database_find(MyDatabaseId);
	PplSqlArg	args[] = {PLACE_ARGS(place)};
	PplSqlResult *result;

	memset(checkpoint, 0, sizeof(*checkpoint));
	result = ppl_sql_read("SELECT commit_lsn, seq, version, system_identifier,"
						  " database, slot_lsn, workers, since FROM " PPL_CHECKPOINTS
						  " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
						  lengthof(args), args);
	if (result->nrows == 0)
		return;
	checkpoint->exists = true;
	checkpoint->position.commit_lsn = DatumGetLSN(ppl_sql_value(result, 0, 0));
	checkpoint->position.seq = ppl_sql_int(result, 0, 1);
	checkpoint->version = ppl_sql_int(result, 0, 2);
	checkpoint->workers = ppl_sql_int(result, 0, 6);
	checkpoint->since = ppl_sql_int(result, 0, 7);
	checkpoint->foreign =
		(uint64) DatumGetInt64(ppl_sql_value(result, 0, 3)) != GetSystemIdentifier() ||
		ppl_sql_oid(result, 0, 4) != MyDatabaseId ||
		DatumGetLSN(ppl_sql_value(result, 0, 5)) != db->slot_lsn;
}

/*
 * Is a place where a worker believes it to be?  If not, *checkpoint says where it is:
 * the pipeline was started anew meanwhile.  Under the definition's lock.
 */
bool
ppl_checkpoint_confirm(PplPlace place, PplCheckpoint *checkpoint)
{
	PplCheckpoint now;

	ppl_checkpoint_load(place, &now);
	if (now.exists && !now.foreign &&
		!ppl_position_after(now.position, checkpoint->position) &&
		!ppl_position_after(checkpoint->position, now.position))
		return true;
	*checkpoint = now;
	return false;
}

/*
 * Events count from this position on, under this version of the definition, shared
 * out among so many workers.  The others of the segment, which were born with this
 * one, have a row from now on, too: whoever waits for all of them sees who is missing.
 */
void
ppl_checkpoint_birth(PplPlace place, PplPosition position, int version,
					 int workers)
{
	PplDatabase *db = ppl_database_find(MyDatabaseId);
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		ppl_sql_arg(LSNOID, LSNGetDatum(position.commit_lsn)),
		ppl_sql_arg_int(position.seq),
		ppl_sql_arg_int(version),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg(LSNOID, LSNGetDatum(db->slot_lsn)),
		ppl_sql_arg_int(workers)
	};

	(void) ppl_sql_run("DELETE FROM " PPL_CHECKPOINTS
					   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
					   3, args);
	(void) ppl_sql_run("INSERT INTO " PPL_CHECKPOINTS
					   " (pipeline_id, segment, partition, commit_lsn, seq, version,"
					   "  workers, since, system_identifier, database, slot_lsn,"
					   "  updated_at)"
					   " SELECT $1, $2, p, $4, $5, $6, $10, $6, $7, $8, $9,"
					   "  pg_catalog.clock_timestamp()"
					   " FROM pg_catalog.generate_series(1, $10) p"
					   " WHERE NOT EXISTS (SELECT FROM " PPL_CHECKPOINTS " c"
					   "  WHERE c.pipeline_id = $1 AND c.segment = $2"
					   "  AND c.partition = p)"
					   " ON CONFLICT (pipeline_id, segment, partition) DO NOTHING",
					   lengthof(args), args);
}

/*
 * All before this position is done; from it on a new version counts.
 */
void
ppl_checkpoint_version(PplPlace place, PplPosition position, int version)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		ppl_sql_arg(LSNOID, LSNGetDatum(position.commit_lsn)),
		ppl_sql_arg_int(position.seq),
		ppl_sql_arg_int(version)
	};

	(void) ppl_sql_run("UPDATE " PPL_CHECKPOINTS
					   " SET commit_lsn = $4, seq = $5, version = $6,"
					   "  updated_at = pg_catalog.clock_timestamp()"
					   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
					   lengthof(args), args);
}

static Datum
int4_array(const int *values, int n)
{
	Datum	   *datums = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		datums[i] = Int32GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, n, INT4OID, 4, true,
										   TYPALIGN_INT));
}

/* One field of n structs, which are stride bytes long. */
static Datum
int8_array(const void *first, Size stride, int n)
{
	Datum	   *datums = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(*(const int64 *) ((const char *) first + i * stride));
	return PointerGetDatum(construct_array(datums, n, INT8OID, 8, FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/*
 * Move the checkpoint and write the record of a batch; returns its batch_id.
 * Error XX000 if the checkpoint is not where this worker left it: somebody
 * else moved it, and this batch must not commit.
 */
int64
ppl_checkpoint_record(const PplBatchRecord *record)
{
	PplSqlArg	args[RECORD_NARGS];
	PplSqlResult *result;
	int			n = 0;

	args[n++] = ppl_sql_arg_int(record->place.pipeline_id);
	args[n++] = ppl_sql_arg(LSNOID, LSNGetDatum(record->position.commit_lsn));
	args[n++] = ppl_sql_arg_int(record->position.seq);
	args[n++] = ppl_sql_arg_int(record->version);
	args[n++] = record->redrive ? ppl_sql_arg_null(LSNOID) :
		ppl_sql_arg(LSNOID, LSNGetDatum(record->before.commit_lsn));
	args[n++] = ppl_sql_arg_int(record->before.seq);
	args[n++] = ppl_sql_arg(INT4ARRAYOID,
							int4_array(record->output_ids, record->noutputs));
	for (int field = 0; field < 5; field++)
		args[n++] = ppl_sql_arg(INT8ARRAYOID,
								int8_array((const int64 *) record->counts + field,
										   sizeof(PplCounts), record->noutputs));
	args[n++] = ppl_sql_arg(INT4ARRAYOID,
							int4_array(record->stage_ids, record->nstages));
	for (int field = 0; field < 4; field++)
		args[n++] = ppl_sql_arg(INT8ARRAYOID,
								int8_array((const int64 *) record->tallies + field,
										   sizeof(PplStageTally), record->nstages));
	args[n++] = ppl_sql_arg_bool(record->redrive);
	args[n++] = ppl_sql_arg(LSNOID, LSNGetDatum(record->first.commit_lsn));
	args[n++] = ppl_sql_arg_int(record->first.seq);
	args[n++] = ppl_sql_arg_int(record->transactions);
	args[n++] = ppl_sql_arg_int(record->attempts);
	args[n++] = ppl_sql_arg(TIMESTAMPTZOID, TimestampTzGetDatum(record->started_at));
	args[n++] = record->lineage == NULL ? ppl_sql_arg_null(BYTEAOID) :
		ppl_sql_arg(BYTEAOID, PointerGetDatum(record->lineage));
	args[n++] = ppl_sql_arg_int(record->place.segment);
	args[n++] = ppl_sql_arg_int(record->place.partition);
	args[n++] = ppl_sql_arg_int(record->code_version);
	Assert(n == RECORD_NARGS);

	result = ppl_sql_run(record_sql, RECORD_NARGS, args);
	if (result->nrows != 1)
		elog(ERROR, "the checkpoint of pipeline %d was moved by somebody else",
			 record->place.pipeline_id);
	return DatumGetInt64(ppl_sql_value(result, 0, 0));
}
