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

/*
 * The last event of a chunk that touched a source row: in the order of the source, in
 * which what several workers handed over need not come.
 */
typedef struct Touched
{
	PplDigest	digest;
	PplPosition last;
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

/* Where an event is in the order of the source. */
static PplPosition
position_of(const PplEvent *event)
{
	PplPosition position = {event->origin.commit_lsn, event->origin.seq};

	return position;
}

static void
touch(HTAB *table, PplDigest digest, const PplEvent *event)
{
	bool		found;
	Touched    *touched = hash_search(table, &digest, HASH_ENTER, &found);

	if (!found || ppl_position_after(position_of(event), touched->last))
		touched->last = position_of(event);
}

/*
 * Did a later event of this chunk touch a source row?  Another row of the same event
 * is none.
 */
static bool
touched_after(HTAB *table, PplDigest digest, const PplEvent *event)
{
	const Touched *touched = hash_search(table, &digest, HASH_FIND, NULL);

	return touched != NULL && ppl_position_after(touched->last, position_of(event));
}

/*
 * The source rows that were touched, as three arrays: digests, and the positions of
 * the events that did so last.  NULLs if there are none.
 */
static void
touched_rows(HTAB *table, PplSqlArg *rows, PplSqlArg *lsns, PplSqlArg *seqs)
{
	HASH_SEQ_STATUS scan;
	Touched    *touched;
	Size		size = (hash_get_num_entries(table) + 1) * sizeof(PplSqlArg);
	PplSqlArg  *digest = palloc(size);
	PplSqlArg  *lsn = palloc(size);
	PplSqlArg  *seq = palloc(size);
	int			n = 0;

	hash_seq_init(&scan, table);
	while ((touched = hash_seq_search(&scan)) != NULL)
	{
		digest[n] = ppl_sql_arg(UUIDOID,
								UUIDPGetDatum(ppl_digest_to_uuid(touched->digest)));
		lsn[n] = ppl_sql_arg(LSNOID, LSNGetDatum(touched->last.commit_lsn));
		seq[n++] = ppl_sql_arg_int(touched->last.seq);
	}
	if (n == 0)
		return;
	*rows = ppl_sql_arg_array(digest, n);
	*lsns = ppl_sql_arg_array(lsn, n);
	*seqs = ppl_sql_arg_array(seq, n);
}

/* Did a later event than that of letter d touch this source row? */
#define TOUCHED_AFTER(digest) \
	"(" digest " = ANY ($4) AND EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($4)," \
	"  pg_catalog.unnest($6), pg_catalog.unnest($7)) AS t (row, lsn, seq)" \
	"  WHERE t.row = " digest " AND (t.lsn, t.seq) > (d.commit_lsn, d.seq)))"

/*
 * Mark the open letters of earlier batches whose source rows were touched by later
 * events, or all of them.  Note whether there are any.
 */
static void
mark_letters(PplWorker *worker, const PplBatch *batch, HTAB *table, bool all)
{
	PplPortion	portion = ppl_worker_portion(worker);
	PplSqlArg	args[] = {
		ppl_sql_arg_int(worker->pipeline_id),
		ppl_sql_arg_int(portion.workers),
		ppl_sql_arg_int(portion.partition),
		ppl_sql_arg_null(UUIDARRAYOID),
		ppl_sql_arg_int(worker->place.segment),
		ppl_sql_arg_null(PG_LSNARRAYOID),
		ppl_sql_arg_null(INT4ARRAYOID),
	};
	PplSqlResult *rows;

	touched_rows(table, &args[3], &args[5], &args[6]);

	if (all)
		(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS
						   " SET superseded = true, removal_digest = NULL"
						   " WHERE pipeline_id = $1 AND segment = $5 AND state = 'open'"
						   " AND " PPL_PARTITION_NUMBER "(partition_hash, $2) = $3",
						   5, args);
	else
		(void) ppl_sql_run("UPDATE " PPL_DEAD_LETTERS " d"
						   " SET superseded = superseded OR COALESCE(" TOUCHED_AFTER("d.source_digest") ", false),"
						   "  removal_digest = CASE WHEN " TOUCHED_AFTER("d.removal_digest") " THEN NULL"
						   "   ELSE removal_digest END"
						   " WHERE pipeline_id = $1 AND segment = $5 AND state = 'open'"
						   " AND (" TOUCHED_AFTER("d.source_digest")
						   "  OR " TOUCHED_AFTER("d.removal_digest") ")"
						   " AND " PPL_PARTITION_NUMBER "(partition_hash, $2) = $3",
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
		touched_after(table, keys->after, event);
	letter->owes_removal = event->kind != PPL_REC_INSERT && !event->removed &&
		ppl_outcome_of(ordinal)->inert && last_truncate < ordinal &&
		!touched_after(table, keys->before, event);
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
		touch(table, keys[ordinal].before, &batch->events[ordinal - 1]);
		touch(table, keys[ordinal].after, &batch->events[ordinal - 1]);
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
