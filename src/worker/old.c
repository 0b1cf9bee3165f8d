/*
 * old.c
 *		Old rows of events, as far as they are known.
 *
 * The log has of an old row what the replica identity of the table says: the
 * columns of a key, or all; all others are null in the tuple, which means
 * nothing.  So an old row is handed out as a record of the known columns.
 * Runs in a worker, in the batch's transaction; records belong to the program.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "worker/old.h"

/* Old rows of which the same columns are known. */
typedef struct Layout
{
	Bitmapset  *known;			/* attribute numbers in the source */
	TupleDesc	desc;			/* of a record with these */
	AttrNumber *attnums;		/* that they have in the source */
	PplRow		row;			/* scratch */
} Layout;

/*
 * Is a column of the source, from 0, known in the old row of an event?  One that it did not
 * have yet is what the table shows for it, if all others are known.
 */
bool
ppl_old_is_known(const PplProgram *program, const PplEvent *event, int column)
{
	if (TupleDescAttr(program->source_desc, column)->attisdropped)
		return false;
	if (column < event->desc->natts)
		return event->in_old[column];
	return ppl_old_is_whole(program, event);
}

static Layout *
make_layout(const PplProgram *program, const PplEvent *event)
{
	TupleDesc	today = program->source_desc;
	Layout	   *layout = palloc0(sizeof(*layout));
	int			n = 0;

	layout->attnums = palloc(today->natts * sizeof(AttrNumber));
	for (int i = 0; i < today->natts; i++)
	{
		if (!ppl_old_is_known(program, event, i))
			continue;
		layout->known = bms_add_member(layout->known, i + 1);
		layout->attnums[n++] = i + 1;
	}
	layout->row.values = palloc(n * sizeof(Datum));
	layout->row.nulls = palloc(n * sizeof(bool));
	layout->desc = CreateTemplateTupleDesc(n);
	for (int i = 0; i < n; i++)
		TupleDescCopyEntry(layout->desc, i + 1, today, layout->attnums[i]);
	layout->desc = BlessTupleDesc(layout->desc);
	return layout;
}

/* There are as many as a program has seen replica identities: few. */
static Layout *
find_layout(PplProgram *program, const PplEvent *event)
{
	MemoryContext oldcontext;
	Layout	   *layout;
	ListCell   *lc;

	foreach(lc, program->old_layouts)
	{
		bool		same = true;

		layout = lfirst(lc);
		for (int i = 0; same && i < program->source_desc->natts; i++)
			same = bms_is_member(i + 1, layout->known) ==
				ppl_old_is_known(program, event, i);
		if (same)
			return layout;
	}
	oldcontext = MemoryContextSwitchTo(program->context);
	layout = make_layout(program, event);
	program->old_layouts = lappend(program->old_layouts, layout);
	MemoryContextSwitchTo(oldcontext);
	return layout;
}

/*
 * The old row of an update or delete, under today's column types, and the type
 * of the record of its known columns.  NULL if none is known, or if the event
 * has no old row.  Valid until the next call of this or ppl_row_today, whose
 * errors it throws.
 */
const PplRow *
ppl_old_row(PplProgram *program, const PplEvent *event, TupleDesc *desc)
{
	HeapTuple	tuple = event->tuple;
	const PplRow *row;
	Layout	   *layout;

	if (event->kind != PPL_REC_UPDATE && event->kind != PPL_REC_DELETE)
		return NULL;
	/* without an old tuple the key has not changed */
	if (event->old_tuple != NULL)
		tuple = event->old_tuple;
	if (tuple == NULL)
		return NULL;
	layout = find_layout(program, event);
	if (layout->desc->natts == 0)
		return NULL;
	row = ppl_row_today(program->rows, event->desc, tuple, layout->known);
	for (int i = 0; i < layout->desc->natts; i++)
	{
		layout->row.values[i] = row->values[layout->attnums[i] - 1];
		layout->row.nulls[i] = row->nulls[layout->attnums[i] - 1];
	}
	*desc = layout->desc;
	return &layout->row;
}

/*
 * Are all columns of the old row of a delete known?
 */
bool
ppl_old_is_whole(const PplProgram *program, const PplEvent *event)
{
	if (event->tuple == NULL)
		return false;
	for (int i = 0; i < event->desc->natts; i++)
	{
		if (!TupleDescAttr(event->desc, i)->attisdropped && !event->in_old[i])
			return false;
	}
	return true;
}

/*
 * Stages run over the old row of a delete: error 22000, which is the event's, if
 * not all of it is known.
 */
void
ppl_old_require_whole(const PplProgram *program, const PplEvent *event)
{
	if (!ppl_old_is_whole(program, event))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("the row that was deleted is not known"),
				 errdetail("The replica identity of \"%s\" was not FULL when it was deleted.",
						   get_rel_name(program->pipeline->source))));
}

/*
 * The columns that an old row has which was rendered as jsonb, in
 * CurrentMemoryContext.  With whole it is known to have had all that there were.
 */
bool *
ppl_old_columns_of(const PplProgram *program, Datum row, bool whole)
{
	bool	   *known = palloc0(program->source_desc->natts * sizeof(bool));
	JsonbContainer *object = &DatumGetJsonbP(row)->root;

	for (int i = 0; i < program->source_desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(program->source_desc, i)->attname);
		JsonbValue	value;

		known[i] = whole ||
			getKeyJsonValueFromContainer(object, name, strlen(name), &value) != NULL;
	}
	return known;
}
