/*
 * store.c
 *		The table of the backlog.
 *
 * The mover adds chunks, workers read and delete them, capture asks who has
 * any.  All need a transaction.  That a pipeline's events are kept up to some
 * position is said by its last chunk and by nothing else: a second copy of
 * that position, in the checkpoint, could only disagree with the table, after
 * a restore for one.
 *
 * Chunks have numbers that grow, with gaps, and are used once: a reader takes
 * them for the numbers of segments.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/pg_lsn.h"

#include "backlog/store.h"
#include "catalog/names.h"
#include "catalog/sql.h"

/* The three parameters that a place takes. */
#define PLACE_ARGS(place)	ppl_sql_arg_int((place).pipeline_id), \
							ppl_sql_arg_int((place).segment), \
							ppl_sql_arg_int((place).partition)

/* The two parameters that a position takes. */
#define LSN_ARG(position)	ppl_sql_arg(LSNOID, LSNGetDatum((position).commit_lsn))
#define SEQ_ARG(position)	ppl_sql_arg_int((int32) (position).seq)

static const char *const load_sql =
"SELECT c.commit_lsn, c.seq, b.last_lsn, b.last_seq, n.bytes"
" FROM (SELECT coalesce(sum(bytes), 0)::int8 AS bytes FROM " PPL_BACKLOG
"   WHERE pipeline_id = $1 AND segment = $2) n"
" LEFT JOIN " PPL_CHECKPOINTS " c ON c.pipeline_id = $1 AND c.segment = $2"
"   AND c.partition = $3 AND c.system_identifier = $4 AND c.database = $5"
"   AND c.slot_lsn = $6"
" LEFT JOIN (SELECT last_lsn, last_seq FROM " PPL_BACKLOG
"   WHERE pipeline_id = $1 AND segment = $2 AND partition = $3"
"   ORDER BY chunk_id DESC LIMIT 1) b ON c.pipeline_id IS NOT NULL";

/*
 * How far is a place, and how large is the backlog of its segment?  A checkpoint of
 * another slot counts as none.
 */
void
ppl_backlog_load(PplPlace place, XLogRecPtr slot_lsn, PplBacklogState *state)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg(LSNOID, LSNGetDatum(slot_lsn)),
	};
	PplSqlResult *rows = ppl_sql_run(load_sql, lengthof(args), args);

	memset(state, 0, sizeof(*state));
	state->bytes = DatumGetInt64(ppl_sql_value(rows, 0, 4));
	state->born = !ppl_sql_isnull(rows, 0, 0);
	if (!state->born)
		return;
	state->position.commit_lsn = DatumGetLSN(ppl_sql_value(rows, 0, 0));
	state->position.seq = ppl_sql_int(rows, 0, 1);
	if (!ppl_sql_isnull(rows, 0, 2))
	{
		PplPosition kept = {
			DatumGetLSN(ppl_sql_value(rows, 0, 2)),
			ppl_sql_int(rows, 0, 3)
		};

		if (ppl_position_after(kept, state->position))
			state->position = kept;
	}
}

/*
 * Give a place its first checkpoint in this slot, unless its worker has done
 * so by now.  What was kept under another one is void.
 */
void
ppl_backlog_birth(PplPlace place, XLogRecPtr slot_lsn, PplPosition position,
				  int version, int workers)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		LSN_ARG(position),
		SEQ_ARG(position),
		ppl_sql_arg_int(version),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg(LSNOID, LSNGetDatum(slot_lsn)),
		ppl_sql_arg_int(workers),
	};

	(void) ppl_sql_run("DELETE FROM " PPL_BACKLOG
					   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
					   3, args);
	(void) ppl_sql_run("INSERT INTO " PPL_CHECKPOINTS " AS c"
					   " (pipeline_id, segment, partition, commit_lsn, seq, version,"
					   "  workers, since, system_identifier, database, slot_lsn,"
					   "  updated_at)"
					   " SELECT $1, $2, p, $4, $5, $6, $10, $6, $7, $8, $9,"
					   "  pg_catalog.clock_timestamp()"
					   " FROM pg_catalog.generate_series(1, $10) p"
					   " ON CONFLICT (pipeline_id, segment, partition) DO UPDATE"
					   " SET commit_lsn = $4, seq = $5, version = $6,"
					   "  workers = $10, since = $6,"
					   "  system_identifier = $7, database = $8, slot_lsn = $9,"
					   "  updated_at = pg_catalog.clock_timestamp()"
					   " WHERE c.system_identifier <> $7 OR c.database <> $8"
					   "  OR c.slot_lsn <> $9",
					   lengthof(args), args);
}

/*
 * Add a chunk that was ended.
 */
void
ppl_backlog_add(PplPlace place, const PplChunk *chunk)
{
	bytea	   *records = palloc(VARHDRSZ + chunk->bytes.len);
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		LSN_ARG(chunk->first),
		SEQ_ARG(chunk->first),
		LSN_ARG(chunk->last),
		SEQ_ARG(chunk->last),
		ppl_sql_arg_int(chunk->events),
		ppl_sql_arg_int(chunk->bytes.len),
		ppl_sql_arg(BYTEAOID, PointerGetDatum(records)),
	};

	SET_VARSIZE(records, VARHDRSZ + chunk->bytes.len);
	memcpy(VARDATA(records), chunk->bytes.data, chunk->bytes.len);
	(void) ppl_sql_run("INSERT INTO " PPL_BACKLOG
					   " (pipeline_id, segment, partition, first_lsn, first_seq,"
					   "  last_lsn, last_seq, events, bytes, records)"
					   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
					   lengthof(args), args);
	pfree(records);
}

/*
 * The first chunk that has something behind done; false if there is none.
 */
bool
ppl_backlog_first(PplPlace place, PplPosition done, uint32 *chunk_id)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place), LSN_ARG(done), SEQ_ARG(done)
	};
	PplSqlResult *rows =
	ppl_sql_run("SELECT chunk_id FROM " PPL_BACKLOG
				" WHERE pipeline_id = $1 AND segment = $2 AND partition = $3"
				" AND (last_lsn, last_seq) > ($4, $5)"
				" ORDER BY chunk_id LIMIT 1",
				lengthof(args), args);

	if (rows->nrows == 0)
		return false;
	*chunk_id = (uint32) DatumGetInt64(ppl_sql_value(rows, 0, 0));
	return true;
}

/*
 * The bytes of the first chunk from *chunk_id on, in context; NULL if there is
 * none.  Error XX001 if it is no chunk.
 */
char *
ppl_backlog_fetch(PplPlace place, MemoryContext context, uint32 *chunk_id,
				  Size *len)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) *chunk_id)),
	};
	PplSqlResult *rows =
	ppl_sql_run("SELECT chunk_id, records FROM " PPL_BACKLOG
				" WHERE pipeline_id = $1 AND segment = $2 AND partition = $3"
				" AND chunk_id >= $4 ORDER BY chunk_id LIMIT 1",
				lengthof(args), args);
	bytea	   *records;
	char	   *bytes;

	if (rows->nrows == 0)
		return NULL;
	*chunk_id = (uint32) DatumGetInt64(ppl_sql_value(rows, 0, 0));
	records = DatumGetByteaPP(ppl_sql_value(rows, 0, 1));
	*len = VARSIZE_ANY_EXHDR(records);
	if (!ppl_chunk_is_valid(VARDATA_ANY(records), *len))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("chunk %u of the backlog of pipeline %d cannot be read",
						*chunk_id, place.pipeline_id)));
	bytes = MemoryContextAllocHuge(context, *len);
	memcpy(bytes, VARDATA_ANY(records), *len);
	pfree(records);
	return bytes;
}

/*
 * Delete the chunks that have nothing behind done.
 */
void
ppl_backlog_delete(PplPlace place, PplPosition done)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place), LSN_ARG(done), SEQ_ARG(done)
	};

	(void) ppl_sql_run("DELETE FROM " PPL_BACKLOG
					   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3"
					   " AND (last_lsn, last_seq) <= ($4, $5)",
					   lengthof(args), args);
}

/*
 * A place that has not begun comes to a change of the number of workers: if others of
 * the segment are before it, it begins here, and has a checkpoint from now on.  False
 * if none has a checkpoint: then nobody knows yet whether it begins here.
 */
bool
ppl_backlog_join(PplPlace place, XLogRecPtr slot_lsn, PplPosition position,
				 int version, int workers)
{
	PplSqlArg	args[] = {
		PLACE_ARGS(place),
		LSN_ARG(position),
		SEQ_ARG(position),
		ppl_sql_arg_int(version),
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg(LSNOID, LSNGetDatum(slot_lsn)),
		ppl_sql_arg_int(workers),
	};

	(void) ppl_sql_run("INSERT INTO " PPL_CHECKPOINTS
					   " (pipeline_id, segment, partition, commit_lsn, seq, version,"
					   "  workers, since, system_identifier, database, slot_lsn,"
					   "  updated_at)"
					   " SELECT $1, $2, $3, $4, $5, $6, $10, $6, $7, $8, $9,"
					   "  pg_catalog.clock_timestamp()"
					   " WHERE $3 <= $10 AND EXISTS (SELECT FROM " PPL_CHECKPOINTS
					   "  WHERE pipeline_id = $1 AND segment = $2 AND version < $6)"
					   " ON CONFLICT (pipeline_id, segment, partition) DO NOTHING",
					   lengthof(args), args);
	return ppl_sql_bool(ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_CHECKPOINTS
									" WHERE pipeline_id = $1 AND segment = $2)",
									2, args), 0, 0);
}

/*
 * Delete all chunks of a place.
 */
void
ppl_backlog_forget(PplPlace place)
{
	PplSqlArg	args[] = {PLACE_ARGS(place)};

	(void) ppl_sql_run("DELETE FROM " PPL_BACKLOG
					   " WHERE pipeline_id = $1 AND segment = $2 AND partition = $3",
					   lengthof(args), args);
}

/*
 * Delete all chunks of a pipeline.
 */
void
ppl_backlog_clear(int pipeline_id)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline_id)};

	(void) ppl_sql_run("DELETE FROM " PPL_BACKLOG " WHERE pipeline_id = $1",
					   lengthof(args), args);
}

/*
 * All places that have a backlog, PplPlace *.
 */
List *
ppl_backlog_places(void)
{
	PplSqlResult *rows =
	ppl_sql_run("SELECT DISTINCT pipeline_id, segment, partition FROM " PPL_BACKLOG,
				0, NULL);
	List	   *places = NIL;

	for (int64 row = 0; row < rows->nrows; row++)
	{
		PplPlace   *place = palloc(sizeof(*place));

		place->pipeline_id = ppl_sql_int(rows, row, 0);
		place->segment = ppl_sql_int(rows, row, 1);
		place->partition = ppl_sql_int(rows, row, 2);
		places = lappend(places, place);
	}
	return places;
}

/*
 * Is a place among them?
 */
bool
ppl_backlog_has_place(const List *places, PplPlace place)
{
	ListCell   *lc;

	foreach(lc, places)
	{
		if (ppl_place_equal(*(PplPlace *) lfirst(lc), place))
			return true;
	}
	return false;
}
