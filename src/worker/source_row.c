/*
 * source_row.c
 *		Which row of the source an event is about.
 *
 * Rows are told apart by the key of the replica identity (catalog/key.c).  Runs in
 * a worker, in the batch's transaction, for pipelines with upsert outputs.
 */
#include "postgres.h"
#include "base/compat.h"

#include "worker/source_row.h"

/*
 * A column whose old value must be known.  The replica identity may have been
 * another one when the event was written: error 22000 then.
 */
void
ppl_source_row_require(const PplProgram *program, const PplEvent *event,
					   AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(program->source_desc, attnum - 1);

	if (event->kind == PPL_REC_INSERT ||
		(event->tuple != NULL && attnum <= event->desc->natts &&
		 event->in_old[attnum - 1]))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("the old value of column \"%s\" is not in the WAL",
					NameStr(att->attname)),
			 errdetail("The replica identity of the source did not have it when the row was changed, so it is not known which row that was.")));
}

/*
 * The row before an event, of which at least the key is known; of an insert, its
 * row.  What is not in the old row of an update did not change.  Valid until the
 * next call of this or ppl_program_row.
 */
const PplRow *
ppl_source_row_before(PplProgram *program, const PplEvent *event)
{
	for (int i = 0; i < program->source_key->ncolumns; i++)
		ppl_source_row_require(program, event,
							   program->source_key->columns[i].attnum);
	for (int i = 0; program->workers > 1 &&
		 i < list_length(program->pipeline->partitioning.key); i++)
		ppl_source_row_require(program, event,
							   atoi(list_nth(program->pipeline->partitioning.key, i)));
	if (event->kind == PPL_REC_UPDATE && event->old_tuple != NULL)
		return ppl_program_key_row(program, event, event->old_tuple);
	return ppl_program_key_row(program, event, event->tuple);
}

static PplDigest
digest_of(PplProgram *program, const PplRow *row)
{
	const PplKey *key = program->source_key;
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < key->ncolumns; i++)
	{
		values[i] = row->values[key->columns[i].attnum - 1];
		nulls[i] = row->nulls[key->columns[i].attnum - 1];
	}
	return ppl_digest(program->source_digester, values, nulls);
}

/* An event may have become a dead letter before anybody had to know. */
static void
require_digests(const PplEvent *event)
{
	const PplOriginId *origin = &event->origin;

	if (event->kind == PPL_REC_DELETE || event->superseded ||
		(origin->before[0] | origin->before[1] |
		 origin->after[0] | origin->after[1]) != 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("it is not known which row of the source a row was made of"),
			 errdetail("It was handed over before there was an output of mode upsert behind.")));
}

/*
 * Short names of the row before an event and after it, which are the same unless
 * it changes the key.  What a segment before handed over has them with it.
 */
void
ppl_source_row_digests(PplProgram *program, const PplEvent *event,
					   PplDigest *before, PplDigest *after)
{
	if (program->pipeline->upstream != 0)
	{
		before->high = event->origin.before[0];
		before->low = event->origin.before[1];
		after->high = event->origin.after[0];
		after->low = event->origin.after[1];
		require_digests(event);
		return;
	}
	*before = digest_of(program, ppl_source_row_before(program, event));
	*after = *before;
	if (event->kind == PPL_REC_UPDATE && event->old_tuple != NULL)
		*after = digest_of(program,
						   ppl_program_key_row(program, event, event->tuple));
}
