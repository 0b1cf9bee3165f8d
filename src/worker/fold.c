/*
 * fold.c
 *		From the rows that events made to what changes in an upsert output.
 *
 * Each event, in order, first takes away what its source row produced before, then
 * puts the rows that it made.  Of all that is done to one key only the last is
 * carried out: a statement cannot change a row twice, and nobody sees the rest.
 * Events that were rejected or failed make no rows, but take away all the same.
 *
 * What a source row produced before is told from its old row, or was kept
 * (compile.h, kept.h).  A row is taken away only if nobody else wrote it since.
 *
 * Runs in a worker, in the batch's transaction, as the owner; memory comes from
 * CurrentMemoryContext.  An error belongs to the event that is current.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"

#include "worker/fold.h"
#include "worker/outcome.h"
#include "worker/session.h"
#include "worker/share.h"
#include "worker/source_row.h"

/* What is done to a key: a put, or a removal. */
typedef struct Change
{
	int			ordinal;
	bool		last;			/* nothing is done to the key after it */
	bool		undoes;			/* takes away what an event of these put */
	PplPut	   *put;			/* NULL = the row goes */
	Datum	   *key;
	bool	   *nulls;
} Change;

/* A source row of an output that keeps. */
typedef struct Source
{
	PplDigest	digest;
	List	   *stored;			/* PplKeptRow *, what the table says */
	List	   *rows;			/* the same, what it has now */
} Source;

/* A key of the output. */
typedef struct Target
{
	PplDigest	digest;
	int			change;			/* the last one, -1 = none */
	bool		known;			/* is writer what the table says, or later? */
	PplPosition writer;			/* the last event that wrote it and lives */
	Source	   *owner;			/* the source row that put it here, or NULL */
	bool		shared;			/* there were several */
} Target;

typedef struct Fold
{
	PplWorker  *worker;
	const PplBatch *batch;
	int			output;
	PplUpsert  *upsert;
	PplProgramUpsert *program;
	HTAB	   *targets;
	HTAB	   *sources;
	int			nchanges;
	int			max_changes;
	Change	   *changes;
	FmgrInfo   *key_output;		/* functions, made when they are needed */
} Fold;

static HTAB *
make_table(const char *name, Size entrysize)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(PplDigest);
	ctl.entrysize = entrysize;
	ctl.hcxt = CurrentMemoryContext;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static int
compare_puts(const void *a, const void *b)
{
	const PplPut *left = a;
	const PplPut *right = b;

	if (left->ordinal != right->ordinal)
		return left->ordinal < right->ordinal ? -1 : 1;
	return left->number < right->number ? -1 : left->number > right->number;
}

static Target *
find_target(Fold *fold, PplDigest digest)
{
	bool		found;
	Target	   *target = hash_search(fold->targets, &digest, HASH_ENTER, &found);

	if (!found)
	{
		target->change = -1;
		target->known = false;
		target->owner = NULL;
		target->shared = false;
		memset(&target->writer, 0, sizeof(target->writer));
	}
	return target;
}

static PplPosition
position_of(const Fold *fold, int ordinal)
{
	const PplEvent *event = &fold->batch->events[ordinal - 1];
	PplPosition position = {event->origin.commit_lsn, event->origin.seq};

	return position;
}

/* The values of a key as text, in CurrentMemoryContext. */
static char **
key_text(Fold *fold, const Datum *values, const bool *nulls)
{
	const PplKey *key = fold->upsert->target->upsert;
	char	  **text = palloc0(key->ncolumns * sizeof(char *));

	if (fold->key_output == NULL)
	{
		fold->key_output = palloc0(key->ncolumns * sizeof(FmgrInfo));
		for (int i = 0; i < key->ncolumns; i++)
		{
			Oid			function;
			bool		is_varlena;

			getTypeOutputInfo(key->columns[i].type, &function, &is_varlena);
			fmgr_info(function, &fold->key_output[i]);
		}
	}
	for (int i = 0; i < key->ncolumns; i++)
	{
		if (!nulls[i])
			text[		i] = OutputFunctionCall(&fold->key_output[i], values[i]);
	}
	return text;
}

/*
 * A change that is not carried out, as others undo it or it undoes others: its
 * event produced something all the same.
 */
static void
note_unseen(Fold *fold, const Change *change, PplRowChange what)
{
	char	  **key = NULL;

	if (ppl_outcome_of(change->ordinal)->fate != PPL_FATE_OPEN)
		return;
	if (ppl_outcome_wants_keys())
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(fold->batch->scratch);

		key = key_text(fold, change->key, change->nulls);
		MemoryContextSwitchTo(oldcontext);
	}
	ppl_outcome_unseen(change->ordinal, fold->output, what,
					   key ? fold->upsert->target->upsert->ncolumns : 0, key);
}

/* A removal is worth a word only if it is all that an event does. */
static void
supersede(Fold *fold, const Change *change)
{
	if (change->put != NULL ||
		fold->batch->events[change->ordinal - 1].kind == PPL_REC_DELETE)
		note_unseen(fold, change, PPL_ROW_SUPERSEDED);
}

/* Something is done to a key: it takes the place of what was done before. */
static void
add_change(Fold *fold, PplDigest digest, const Change *change)
{
	Target	   *target = find_target(fold, digest);
	bool		undoes = false;

	if (target->change >= 0)
	{
		Change	   *before = &fold->changes[target->change];

		before->last = false;
		undoes = change->put == NULL && (before->put != NULL || before->undoes);
		supersede(fold, before);
	}
	if (fold->nchanges == fold->max_changes)
	{
		fold->max_changes *= 2;
		fold->changes = repalloc_huge(fold->changes,
									  mul_size(fold->max_changes, sizeof(Change)));
	}
	target->change = fold->nchanges;
	fold->changes[fold->nchanges] = *change;
	fold->changes[fold->nchanges].last = true;
	fold->changes[fold->nchanges].undoes = undoes;
	fold->nchanges++;
}

/* The row of a key goes because of an event. */
static void
take_away(Fold *fold, int ordinal, PplDigest digest, Datum *key, bool *nulls)
{
	Change		change = {ordinal, true, false, NULL, key, nulls};

	add_change(fold, digest, &change);
}

/* The key of an output that derives it, from a row of the source. */
static void
take_derived(Fold *fold, int ordinal, const PplRow *row)
{
	int			nkeys = fold->upsert->target->upsert->ncolumns;
	Datum	   *key = palloc(nkeys * sizeof(Datum));
	bool	   *nulls = palloc(nkeys * sizeof(bool));

	for (int i = 0; i < nkeys; i++)
	{
		int			column = fold->upsert->derived[i] - 1;
		int16		len = TupleDescAttr(fold->upsert->gone_desc, i + 1)->attlen;
		bool		byval = TupleDescAttr(fold->upsert->gone_desc, i + 1)->attbyval;

		nulls[i] = row->nulls[column];
		key[i] = nulls[i] ? (Datum) 0 : datumCopy(row->values[column], byval, len);
	}
	take_away(fold, ordinal, ppl_digest(fold->program->target_digester, key, nulls),
			  key, nulls);
}

/*
 * The row before an event, of which at least the columns are known that tell what
 * it produced.
 */
static const PplRow *
row_before(Fold *fold, const PplEvent *event)
{
	PplProgram *program = fold->worker->program;

	for (int i = 0; i < fold->upsert->target->upsert->ncolumns; i++)
		ppl_source_row_require(program, event, fold->upsert->derived[i]);
	return ppl_source_row_before(program, event);
}

/* Is there anything to be taken away because of this event? */
static bool
takes_part(const PplBatch *batch, int ordinal)
{
	const PplEvent *event = &batch->events[ordinal - 1];
	const PplEventOutcome *outcome = ppl_outcome_of(ordinal);

	return !outcome->inert && !outcome->suspected && !event->superseded &&
		event->concern != PPL_CONCERN_NONE && event->kind != PPL_REC_TRUNCATE;
}

/* Does an event have a row afterwards? */
static bool
has_row(const PplBatch *batch, int ordinal)
{
	return batch->events[ordinal - 1].kind != PPL_REC_DELETE &&
		batch->events[ordinal - 1].concern == PPL_CONCERN_ALL &&
		ppl_outcome_of(ordinal)->fate == PPL_FATE_OPEN;
}

/* All changes of an output whose old rows tell what they produced. */
static void
fold_derived(Fold *fold, int first, int last, PplPut *puts, int nputs)
{
	PplDigester *digester = fold->program->target_digester;
	int			ncolumns = fold->upsert->target->ncolumns;
	int			put = 0;

	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		const PplEvent *event = &fold->batch->events[ordinal - 1];
		bool		part = takes_part(fold->batch, ordinal);

		ppl_outcome_to_output(ordinal, fold->output);
		if (part && event->kind != PPL_REC_INSERT && !event->removed)
			take_derived(fold, ordinal, row_before(fold, event));
		for (; put < nputs && puts[put].ordinal == ordinal; put++)
		{
			Change		change = {ordinal, true, false, &puts[put],
			puts[put].values + ncolumns, puts[put].nulls + ncolumns};

			if (!part || !has_row(fold->batch, ordinal))
				continue;
			ppl_share_check_key(fold->worker, fold->batch, ordinal, fold->upsert,
								change.key, change.nulls);
			add_change(fold, ppl_digest(digester, change.key, change.nulls),
					   &change);
		}
	}
}

static Source *
find_source(Fold *fold, PplDigest digest)
{
	bool		found;
	Source	   *source = hash_search(fold->sources, &digest, HASH_ENTER, &found);

	if (!found)
		source->stored = source->rows = NIL;
	return source;
}

/*
 * Read what the source rows of these events have, by the digests of their rows
 * before and after, which are noted.
 */
static void
load_kept(Fold *fold, int first, int last, PplDigest *before, PplDigest *after)
{
	HASH_SEQ_STATUS scan;
	PplDigest  *sources;
	int			nsources = 0;
	Source	   *source;
	PplKeptRow *rows;
	int			nrows;

	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		const PplEvent *event = &fold->batch->events[ordinal - 1];

		if (!takes_part(fold->batch, ordinal))
			continue;
		ppl_outcome_to_output(ordinal, fold->output);
		ppl_source_row_digests(fold->worker->program, event,
							   &before[ordinal - first], &after[ordinal - first]);
		(void) find_source(fold, before[ordinal - first]);
		(void) find_source(fold, after[ordinal - first]);
	}
	sources = palloc(mul_size(hash_get_num_entries(fold->sources) + 1,
							  sizeof(PplDigest)));
	hash_seq_init(&scan, fold->sources);
	while ((source = hash_seq_search(&scan)) != NULL)
		sources[nsources++] = source->digest;

	nrows = ppl_kept_load(fold->upsert->output->output_id,
						  ppl_worker_portion(fold->worker), sources, nsources, &rows);
	for (int i = 0; i < nrows; i++)
	{
		Target	   *target = find_target(fold, rows[i].target);

		source = find_source(fold, rows[i].source);
		source->stored = lappend(source->stored, &rows[i]);
		source->rows = lappend(source->rows, &rows[i]);
		target->known = true;
		target->writer = rows[i].last;
	}
}

/*
 * Does a row of a source row stay, whatever this event of it says?  An event that a
 * segment made into several rows comes in as many parts, and each leaves what the
 * others put; one that was run again there comes late.
 */
static bool
outlives(const Fold *fold, const PplKeptRow *row, int ordinal)
{
	return fold->worker->program->pipeline->upstream != 0 &&
		!ppl_position_after(position_of(fold, ordinal), row->event);
}

/* Did a later event of its source row put something already? */
static bool
comes_late(const Fold *fold, const Source *source, int ordinal)
{
	ListCell   *lc;

	if (fold->worker->program->pipeline->upstream == 0)
		return false;
	foreach(lc, source->rows)
	{
		if (ppl_position_after(((PplKeptRow *) lfirst(lc))->event,
							   position_of(fold, ordinal)))
			return true;
	}
	return false;
}

/*
 * A source row has nothing any more of what it had before an event: what nobody else
 * wrote since goes.
 */
static void
take_kept(Fold *fold, int ordinal, PplDigest digest)
{
	const PplKey *key = fold->upsert->target->upsert;
	Source	   *source = find_source(fold, digest);
	List	   *stay = NIL;
	ListCell   *lc;

	foreach(lc, source->rows)
	{
		PplKeptRow *row = lfirst(lc);
		Target	   *target = find_target(fold, row->target);
		Datum	   *values;
		bool	   *nulls;

		if (outlives(fold, row, ordinal))
		{
			stay = lappend(stay, row);
			continue;
		}
		if (target->writer.commit_lsn != row->event.commit_lsn ||
			target->writer.seq != row->event.seq)
			continue;
		/* where older events may still come, they do not write the key again */
		if (!fold->worker->program->pipeline->unordered)
			memset(&target->writer, 0, sizeof(target->writer));
		values = palloc0(key->ncolumns * sizeof(Datum));
		nulls = palloc0(key->ncolumns * sizeof(bool));
		if (row->nkeys != key->ncolumns)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the key of output \"%s\" is not the one that its rows were written with",
							fold->upsert->output->name)));
		for (int i = 0; i < key->ncolumns; i++)
		{
			Oid			function;
			Oid			param;

			getTypeInputInfo(key->columns[i].type, &function, &param);
			nulls[i] = row->key[i] == NULL;
			values[i] = OidInputFunctionCall(function, row->key[i], param,
											 key->columns[i].typmod);
		}
		take_away(fold, ordinal, row->target, values, nulls);
	}
	source->rows = stay;
}

/* A source row has one more row in the output. */
static void
put_kept(Fold *fold, PplPut *put, int part, Source *source)
{
	int			ncolumns = fold->upsert->target->ncolumns;
	PplKeptRow *row = palloc0(sizeof(*row));
	Change		change = {put->ordinal, true, false, put, put->values + ncolumns,
	put->nulls + ncolumns};
	Target	   *target;
	ListCell   *lc;

	ppl_share_check_key(fold->worker, fold->batch, put->ordinal, fold->upsert,
						change.key, change.nulls);
	if (comes_late(fold, source, put->ordinal))
	{
		ppl_outcome_of(put->ordinal)->reason = "superseded";
		return;
	}
	row->source = source->digest;
	row->event = position_of(fold, put->ordinal);
	row->part = part;
	row->hash = ppl_share_hash(fold->worker, fold->batch, put->ordinal);
	row->target = ppl_digest(fold->program->target_digester, change.key,
							 change.nulls);
	row->nkeys = fold->upsert->target->upsert->ncolumns;
	row->key = key_text(fold, change.key, change.nulls);
	foreach(lc, source->rows)
	{
		/* several rows of one event under one key: the last one */
		if (memcmp(&((PplKeptRow *) lfirst(lc))->target, &row->target,
				   sizeof(PplDigest)) == 0)
			source->rows = foreach_delete_current(source->rows, lc);
	}
	source->rows = lappend(source->rows, row);
	target = find_target(fold, row->target);
	if (ppl_position_after(target->writer, row->event))
	{
		/* it came too late: another source row has the key since */
		ppl_outcome_of(put->ordinal)->reason = "superseded";
		return;
	}
	add_change(fold, row->target, &change);
	target = find_target(fold, row->target);
	target->known = true;
	target->writer = row->event;
	target->shared |= target->owner != NULL && target->owner != source;
	target->owner = source;
}

/*
 * Events may come after later ones of other source rows: read which event wrote their
 * keys last.
 */
static void
load_last(Fold *fold, const PplPut *puts, int nputs)
{
	int			ncolumns = fold->upsert->target->ncolumns;
	PplDigest  *digests = palloc(mul_size(nputs + 1, sizeof(PplDigest)));
	PplPosition *last = palloc(mul_size(nputs + 1, sizeof(PplPosition)));

	for (int i = 0; i < nputs; i++)
	{
		ppl_outcome_to_output(puts[i].ordinal, fold->output);
		digests[i] = ppl_digest(fold->program->target_digester,
								puts[i].values + ncolumns, puts[i].nulls + ncolumns);
	}
	ppl_kept_last(fold->upsert->output->output_id, digests, nputs, last);
	for (int i = 0; i < nputs; i++)
	{
		Target	   *target = find_target(fold, digests[i]);

		if (!target->known)
			target->writer = last[i];
		target->known = true;
	}
}

/*
 * May one of these events come after later ones?  A dead letter that is run again, here
 * or in a segment before, does; and all may that several workers hand over.
 */
static bool
any_late(const Fold *fold, int first, int last)
{
	if (fold->worker->program->pipeline->unordered)
		return true;
	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		const PplEvent *event = &fold->batch->events[ordinal - 1];

		if (event->dead_letter_id != 0 ||
			(event->origin.flags & PPL_ORIGIN_LATE) != 0)
			return true;
	}
	return false;
}

/* All changes of an output that keeps what source rows produced. */
static void
fold_kept(Fold *fold, int first, int last, PplPut *puts, int nputs)
{
	PplDigest  *before = palloc(mul_size(last - first + 1, sizeof(PplDigest)));
	PplDigest  *after = palloc(mul_size(last - first + 1, sizeof(PplDigest)));
	int			put = 0;

	load_kept(fold, first, last, before, after);
	if (any_late(fold, first, last))
		load_last(fold, puts, nputs);
	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		bool		part = takes_part(fold->batch, ordinal);
		int			number = 0;

		ppl_outcome_to_output(ordinal, fold->output);
		if (part && !fold->batch->events[ordinal - 1].removed)
			take_kept(fold, ordinal, before[ordinal - first]);
		for (; put < nputs && puts[put].ordinal == ordinal; put++)
		{
			if (part && has_row(fold->batch, ordinal))
				put_kept(fold, &puts[put], ++number,
						 find_source(fold, after[ordinal - first]));
		}
	}
}

/*
 * Does the table say the same already?  The events in it may be older, but not if
 * others wrote these keys since: then it matters who did so last.  Nor if older
 * events may still come.
 */
static bool
is_stored(Fold *fold, const Source *source)
{
	if (list_length(source->stored) != list_length(source->rows))
		return false;
	for (int i = 0; i < list_length(source->rows); i++)
	{
		const PplKeptRow *stored = list_nth(source->stored, i);
		const PplKeptRow *row = list_nth(source->rows, i);

		if (stored == row)
			continue;
		if (fold->worker->program->pipeline->unordered ||
			stored->part != row->part ||
			memcmp(&stored->target, &row->target, sizeof(PplDigest)) != 0 ||
			stored->last.commit_lsn != stored->event.commit_lsn ||
			stored->last.seq != stored->event.seq ||
			find_target(fold, row->target)->shared)
			return false;
	}
	return true;
}

/* What the source rows have now, for the table. */
static void
collect_kept(Fold *fold, PplChange *change)
{
	HASH_SEQ_STATUS scan;
	Source	   *source;
	ListCell   *lc;
	int			nrows = 0;

	hash_seq_init(&scan, fold->sources);
	while ((source = hash_seq_search(&scan)) != NULL)
		nrows += list_length(source->rows);
	change->sources = palloc(mul_size(hash_get_num_entries(fold->sources) + 1,
									  sizeof(PplDigest)));
	change->kept = palloc(mul_size(nrows + 1, sizeof(PplKeptRow)));
	hash_seq_init(&scan, fold->sources);
	while ((source = hash_seq_search(&scan)) != NULL)
	{
		if (is_stored(fold, source))
			continue;
		if (source->stored != NIL)
			change->sources[change->nsources++] = source->digest;
		foreach(lc, source->rows)
			change->kept[change->nkept++] = *(PplKeptRow *) lfirst(lc);
	}
}

/*
 * What the events first to last change in an output of mode upsert, which made
 * nputs rows.  Sorts puts.  Notes changes that a later event makes undone.
 */
PplChange *
ppl_fold(PplWorker *worker, const PplBatch *batch, int first, int last,
		 int output, PplPut *puts, int nputs)
{
	PplChange  *change = palloc0(sizeof(*change));
	int			formats = ppl_session_pin_formats();
	Fold		fold;

	memset(&fold, 0, sizeof(fold));
	fold.worker = worker;
	fold.batch = batch;
	fold.output = output;
	fold.upsert = worker->program->statement->upserts[output];
	fold.program = &worker->program->upserts[output];
	fold.targets = make_table("pipeline target keys", sizeof(Target));
	fold.max_changes = 64;
	fold.changes = palloc(fold.max_changes * sizeof(Change));
	qsort(puts, nputs, sizeof(PplPut), compare_puts);
	if (!fold.upsert->output->keeps)
		fold_derived(&fold, first, last, puts, nputs);
	else
	{
		fold.sources = make_table("pipeline source keys", sizeof(Source));
		fold_kept(&fold, first, last, puts, nputs);
		collect_kept(&fold, change);
	}
	ppl_outcome_clear_current();

	change->stay = palloc(mul_size(fold.nchanges + 1, sizeof(PplPut *)));
	change->gone = palloc(mul_size(fold.nchanges + 1, sizeof(PplGone)));
	for (int i = 0; i < fold.nchanges; i++)
	{
		const Change *one = &fold.changes[i];

		if (!one->last)
			continue;
		if (one->put != NULL)
			change->stay[change->nstay++] = one->put;
		else
		{
			PplGone    *gone = &change->gone[change->ngone++];

			gone->ordinal = one->ordinal;
			gone->key = one->key;
			gone->nulls = one->nulls;
			if (one->undoes)
				note_unseen(&fold, one, PPL_ROW_REMOVED);
		}
	}
	ppl_session_unpin_formats(formats);
	return change;
}
