/*
 * supersede.c
 *		Dead letters that a later event of the same source row made stale.
 *
 * An upsert output never goes back: a dead letter whose source row was changed by a
 * later event has nothing to say about it any more when it is run again.  So each
 * dead letter of a pipeline with such outputs keeps the key of its source row, and
 * batches mark those that they pass, as long as there are any.  A dead letter belongs
 * to the partition of its event's row, and no other worker marks it or runs it again:
 * the next event of that source row passes this partition, whatever it changes.
 *
 * Runs in a worker, at the end of a chunk, in the batch's transaction.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"

#include "catalog/names.h"
#include "catalog/sql.h"
#include "worker/outcome.h"
#include "worker/policy.h"
#include "worker/run.h"
#include "worker/session.h"
#include "worker/share.h"
#include "worker/source_row.h"
#include "worker/supersede.h"

/* State of this worker. */
static struct
{
	bool		no_letters;		/* none is open, for sure */
}			self;

/* The last event of a chunk that touched a source row. */
typedef struct Touched
{
	PplDigest	digest;
	int			ordinal;
} Touched;

/* The source rows of one event. */
typedef struct EventKeys
{
	PplProgram *program;
	const PplEvent *event;
	bool		known;
	PplDigest	before;
	PplDigest	after;
} EventKeys;

static void
read_keys(void *arg)
{
	EventKeys  *keys = arg;

	ppl_source_row_digests(keys->program, keys->event, &keys->before, &keys->after);
	keys->known = true;
}

/* An event that failed may have a row that cannot be read. */
static void
find_keys(PplWorker *worker, const PplBatch *batch, int ordinal, EventKeys *keys)
{
	ErrorData  *error = NULL;

	keys->program = worker->program;
	keys->event = &batch->events[ordinal - 1];
	keys->known = false;
	if (keys->event->kind == PPL_REC_TRUNCATE ||
		keys->event->concern == PPL_CONCERN_NONE)
		return;
	if (ppl_outcome_of(ordinal)->fate != PPL_FATE_FAILED)
		read_keys(keys);
	else
		error = ppl_run_subtransaction(CurrentMemoryContext, true, read_keys, keys);
	if (error != NULL)
		FreeErrorData(error);
}

static void
touch(HTAB *table, PplDigest digest, int ordinal)
{
	Touched    *touched = hash_search(table, &digest, HASH_ENTER, NULL);

	touched->ordinal = ordinal;
}

/* Are these of one event of the source? */
static bool
same_origin(const PplEvent *a, const PplEvent *b)
{
	return a->origin.commit_lsn == b->origin.commit_lsn &&
		a->origin.seq == b->origin.seq;
}

/*
 * Did a later event of this chunk touch a source row?  The last one that did may be
 * another row of the same event; then so is all between.
 */
static bool
touched_after(HTAB *table, const PplBatch *batch, PplDigest digest, int ordinal)
{
	const Touched *touched = hash_search(table, &digest, HASH_FIND, NULL);

	return touched != NULL && touched->ordinal > ordinal &&
		!same_origin(&batch->events[touched->ordinal - 1],
					 &batch->events[ordinal - 1]);
}

/* The source rows that were touched, as an array; NULL if there are none. */
static PplSqlArg
touched_rows(HTAB *table)
{
	HASH_SEQ_STATUS scan;
	Touched    *touched;
	PplSqlArg  *digests = palloc((hash_get_num_entries(table) + 1) * sizeof(PplSqlArg));
	int			n = 0;

	hash_seq_init(&scan, table);
	while ((touched = hash_seq_search(&scan)) != NULL)
		digests[n++] = ppl_sql_arg(UUIDOID,
								   UUIDPGetDatum(ppl_digest_to_uuid(touched->digest)));
	return n > 0 ? ppl_sql_arg_array(digests, n) : ppl_sql_arg_null(UUIDARRAYOID);
}

/*
 * Mark the open letters of earlier batches whose source rows were touched, or all
 * of them; but not those of rows of the first event, if some were in a chunk before.
 * Note whether there are any.
 */
static void
mark_letters(PplWorker *worker, const PplBatch *batch, HTAB *table, bool all)
{
	PplPortion	portion = ppl_worker_portion(worker);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->pipeline_id),
		ppl_sql_arg_int(portion.workers),
		ppl_sql_arg_int(portion.partition),
		touched_rows(table),
		ppl_sql_arg_int(worker->place.segment),
		ppl_sql_arg(LSNOID, LSNGetDatum(batch->events[0].origin.commit_lsn)),
		ppl_sql_arg_int(batch->events[0].origin.seq),
	};
	PplSqlResult *rows;

	if (all)
		(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS
						   " SET superseded = true, removal_digest = NULL"
						   " WHERE pipeline_id = $1 AND segment = $5 AND state = 'open'"
						   " AND " PPL_PARTITION_NUMBER "(partition_hash, $2) = $3",
						   5, args);
	else
		(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS
						   " SET superseded = superseded OR COALESCE(source_digest = ANY ($4), false),"
						   "  removal_digest = CASE WHEN removal_digest = ANY ($4) THEN NULL"
						   "   ELSE removal_digest END"
						   " WHERE pipeline_id = $1 AND segment = $5 AND state = 'open'"
						   " AND (source_digest = ANY ($4) OR removal_digest = ANY ($4))"
						   " AND " PPL_PARTITION_NUMBER "(partition_hash, $2) = $3"
						   " AND (commit_lsn, seq) IS DISTINCT FROM ($6, $7)",
						   lengthof(args), args);
	rows = ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_DEAD_LETTERS
					   " WHERE pipeline_id = $1 AND segment = $5 AND state = 'open'"
					   " AND " PPL_PARTITION_NUMBER "(partition_hash, $2) = $3)",
					   5, args);
	self.no_letters = !ppl_sql_bool(rows, 0, 0);
}

/* What the letter that an event leaves must keep. */
static void
describe_letter(const PplBatch *batch, int ordinal, const EventKeys *keys,
				HTAB *table, int last_truncate, PplLetterKeys *letter)
{
	const PplEvent *event = &batch->events[ordinal - 1];

	if (!keys->known)
		return;
	letter->has_row = event->kind != PPL_REC_DELETE;
	letter->row = keys->after;
	letter->superseded = event->superseded || last_truncate > ordinal ||
		touched_after(table, batch, keys->after, ordinal);
	letter->owes_removal = event->kind != PPL_REC_INSERT && !event->removed &&
		ppl_outcome_of(ordinal)->inert && last_truncate < ordinal &&
		!touched_after(table, batch, keys->before, ordinal);
	letter->removal = keys->before;
}

/*
 * Other dead letters are this worker's from now on.
 */
void
ppl_supersede_forget(void)
{
	self.no_letters = false;
}

/*
 * A chunk was run: mark the dead letters that its events made stale, and say what
 * those that it leaves must keep, by ordinal; NULL if there is no upsert, here or
 * behind.
 * With redrive the events are old ones, and make nothing stale.
 */
PplLetterKeys *
ppl_supersede_letters(PplWorker *worker, const PplBatch *batch, bool redrive)
{
	PplLetterKeys *letters;
	HASHCTL		ctl;
	HTAB	   *table;
	EventKeys  *keys;
	int			last_truncate = 0;
	bool		leaves = false;
	int			formats;

	if (!worker->program->statement->keyed)
		return NULL;
	for (int ordinal = 1; ordinal <= batch->nevents && !leaves; ordinal++)
		leaves = ppl_policy_leaves_letter(worker, batch, ordinal);
	if (!leaves && (redrive || self.no_letters))
		return NULL;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(PplDigest);
	ctl.entrysize = sizeof(Touched);
	ctl.hcxt = CurrentMemoryContext;
	table = hash_create("pipeline touched rows", 256, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	keys = palloc(mul_size(batch->nevents + 1, sizeof(EventKeys)));
	formats = ppl_session_pin_formats();
	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
	{
		find_keys(worker, batch, ordinal, &keys[ordinal]);
		if (PPL_EVENT_CLEARS(&batch->events[ordinal - 1]))
			last_truncate = ordinal;
		if (!keys[ordinal].known || redrive)
			continue;
		touch(table, keys[ordinal].before, ordinal);
		touch(table, keys[ordinal].after, ordinal);
	}
	ppl_session_unpin_formats(formats);
	if (!redrive && !self.no_letters)
		mark_letters(worker, batch, table, last_truncate > 0);
	if (!leaves)
		return NULL;

	self.no_letters = false;
	letters = palloc0(mul_size(batch->nevents + 1, sizeof(PplLetterKeys)));
	for (int ordinal = 1; ordinal <= batch->nevents; ordinal++)
	{
		if (ppl_policy_leaves_letter(worker, batch, ordinal))
			describe_letter(batch, ordinal, &keys[ordinal], table, last_truncate,
							&letters[ordinal]);
	}
	return letters;
}
