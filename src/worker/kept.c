/*
 * kept.c
 *		What source rows have in upsert outputs, as stored in _pipeline.kept.
 *
 * Runs in the batch's transaction, elevated; the rows commit with the outputs.
 * A row belongs to the partition of the values of partition_by that it was written
 * with, and only the worker of that reads and writes it: a source row may have rows
 * in two partitions for a while, after an update of these columns.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"

#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/kept.h"

#define KEPT_COLUMNS	7

/* The two parameters that a portion takes. */
#define PORTION_ARGS(portion)	ppl_sql_arg_int((portion).workers), \
								ppl_sql_arg_int((portion).partition)

static PplSqlArg
digest_arg(PplDigest digest)
{
	return ppl_sql_arg(UUIDOID, UUIDPGetDatum(ppl_digest_to_uuid(digest)));
}

static PplSqlArg
digests_arg(const PplDigest *digests, int n)
{
	PplSqlArg  *elements = palloc(n * sizeof(PplSqlArg));

	for (int i = 0; i < n; i++)
		elements[i] = digest_arg(digests[i]);
	return ppl_sql_arg_array(elements, n);
}

static char **
read_key(Datum array, int *nkeys)
{
	Datum	   *values;
	bool	   *nulls;
	char	  **key;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &values, &nulls, nkeys);
	key = palloc0(*nkeys * sizeof(char *));
	for (int i = 0; i < *nkeys; i++)
	{
		if (!nulls[i])
			key[i] = TextDatumGetCString(values[i]);
	}
	return key;
}

/* As text, since an array of arrays would be no array of keys. */
static PplSqlArg
key_arg(const PplKeptRow *row)
{
	PplSqlArg  *elements = palloc(row->nkeys * sizeof(PplSqlArg));

	for (int i = 0; i < row->nkeys; i++)
		elements[i] = row->key[i] ? ppl_sql_arg_text(row->key[i]) :
			ppl_sql_arg_null(TEXTOID);
	return ppl_sql_arg_text(OidOutputFunctionCall(F_ARRAY_OUT,
												  ppl_sql_arg_array(elements, row->nkeys).value));
}

/*
 * The rows of some source rows, each named once, in an output and of one partition,
 * those of each in order; returns how many.  In CurrentMemoryContext.  The plan must be one that looks
 * for each of them, however empty the table was when it was made.
 */
int
ppl_kept_load(int output_id, PplPortion portion, const PplDigest *sources,
			  int nsources, PplKeptRow **rows)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(output_id),
		ppl_sql_arg_null(UUIDARRAYOID),
		PORTION_ARGS(portion),
	};
	PplSqlResult *result;

	*rows = NULL;
	if (nsources == 0)
		return 0;
	args[1] = digests_arg(sources, nsources);
	result = ppl_sql_run("SELECT k.source_digest, k.commit_lsn, k.seq, k.part,"
						 " k.target_digest, k.target_key, l.commit_lsn, l.seq"
						 " FROM pg_catalog.unnest($2) d (s)"
						 " CROSS JOIN LATERAL (SELECT * FROM " PPL_KEPT " i"
						 "  WHERE i.output_id = $1 AND i.source_digest = d.s"
						 "   AND " PPL_PARTITION_NUMBER "(i.partition_hash, $3) = $4 OFFSET 0) k"
						 " CROSS JOIN LATERAL (SELECT o.commit_lsn, o.seq FROM " PPL_KEPT " o"
						 "  WHERE o.output_id = $1 AND o.target_digest = k.target_digest"
						 "  ORDER BY o.commit_lsn DESC, o.seq DESC LIMIT 1) l"
						 " ORDER BY k.source_digest, k.commit_lsn, k.seq, k.part",
						 lengthof(args), args);
	*rows = palloc0(Max(result->nrows, 1) * sizeof(PplKeptRow));
	for (int64 i = 0; i < result->nrows; i++)
	{
		PplKeptRow *row = &(*rows)[i];

		row->source = ppl_digest_from_uuid(DatumGetUUIDP(ppl_sql_value(result, i, 0)));
		row->event.commit_lsn = DatumGetLSN(ppl_sql_value(result, i, 1));
		row->event.seq = ppl_sql_int(result, i, 2);
		row->part = ppl_sql_int(result, i, 3);
		row->target = ppl_digest_from_uuid(DatumGetUUIDP(ppl_sql_value(result, i, 4)));
		row->key = read_key(ppl_sql_value(result, i, 5), &row->nkeys);
		row->last.commit_lsn = DatumGetLSN(ppl_sql_value(result, i, 6));
		row->last.seq = ppl_sql_int(result, i, 7);
	}
	return (int) result->nrows;
}

/*
 * The last event that wrote a row of each of these keys; 0/0 if none did.
 */
void
ppl_kept_last(int output_id, const PplDigest *targets, int ntargets,
			  PplPosition *last)
{
	PplSqlArg	args[2];
	PplSqlResult *result;

	memset(last, 0, ntargets * sizeof(PplPosition));
	if (ntargets == 0)
		return;
	args[0] = ppl_sql_arg_int(output_id);
	args[1] = digests_arg(targets, ntargets);
	result = ppl_sql_run("SELECT d.n::int4, l.commit_lsn, l.seq"
						 " FROM pg_catalog.unnest($2) WITH ORDINALITY AS d (t, n)"
						 " CROSS JOIN LATERAL (SELECT o.commit_lsn, o.seq FROM " PPL_KEPT " o"
						 "  WHERE o.output_id = $1 AND o.target_digest = d.t"
						 "  ORDER BY o.commit_lsn DESC, o.seq DESC LIMIT 1) l",
						 lengthof(args), args);
	for (int64 i = 0; i < result->nrows; i++)
	{
		PplPosition *position = &last[ppl_sql_int(result, i, 0) - 1];

		position->commit_lsn = DatumGetLSN(ppl_sql_value(result, i, 1));
		position->seq = ppl_sql_int(result, i, 2);
	}
}

/*
 * These source rows have nothing any more in an output, as far as one partition
 * wrote it.
 */
void
ppl_kept_remove(int output_id, PplPortion portion, const PplDigest *sources,
				int nsources)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(output_id),
		ppl_sql_arg_null(UUIDARRAYOID),
		PORTION_ARGS(portion),
	};

	if (nsources == 0)
		return;
	args[1] = digests_arg(sources, nsources);
	(void) ppl_sql_run("DELETE FROM " PPL_KEPT
					   " WHERE output_id = $1 AND source_digest = ANY ($2)"
					   " AND " PPL_PARTITION_NUMBER "(partition_hash, $3) = $4",
					   lengthof(args), args);
}

/*
 * And these are there.
 */
void
ppl_kept_add(int output_id, const PplKeptRow *rows, int nrows)
{
	PplSqlArg	args[1 + KEPT_COLUMNS];

	args[0] = ppl_sql_arg_int(output_id);
	if (nrows > 0)
	{
		PplSqlArg  *columns[KEPT_COLUMNS];

		for (int i = 0; i < KEPT_COLUMNS; i++)
			columns[i] = palloc(nrows * sizeof(PplSqlArg));
		for (int i = 0; i < nrows; i++)
		{
			columns[0][i] = digest_arg(rows[i].source);
			columns[1][i] = ppl_sql_arg(LSNOID, LSNGetDatum(rows[i].event.commit_lsn));
			columns[2][i] = ppl_sql_arg_int(rows[i].event.seq);
			columns[3][i] = ppl_sql_arg_int(rows[i].part);
			columns[4][i] = digest_arg(rows[i].target);
			columns[5][i] = key_arg(&rows[i]);
			columns[6][i] = ppl_sql_arg(INT8OID, Int64GetDatum((int64) rows[i].hash));
		}
		for (int i = 0; i < KEPT_COLUMNS; i++)
			args[1 + i] = ppl_sql_arg_array(columns[i], nrows);
		(void) ppl_sql_run("INSERT INTO " PPL_KEPT
						   " (output_id, source_digest, commit_lsn, seq, part,"
						   "  target_digest, target_key, partition_hash)"
						   " SELECT $1, r.s, r.l, r.q, r.p, r.t, r.k::text[], r.h"
						   " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3),"
						   "  pg_catalog.unnest($4), pg_catalog.unnest($5),"
						   "  pg_catalog.unnest($6), pg_catalog.unnest($7),"
						   "  pg_catalog.unnest($8)) AS r (s, l, q, p, t, k, h)",
						   lengthof(args), args);
	}
}

/*
 * No source row has anything in this output.
 */
void
ppl_kept_clear(int output_id)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(output_id)};

	(void) ppl_sql_run("DELETE FROM " PPL_KEPT " WHERE output_id = $1",
					   lengthof(args), args);
}
